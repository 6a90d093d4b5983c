//! Lists of CPUs in the format of the Linux kernel: `0,3-5`.

/// Parses a list. Parts that are not numbers or ranges of numbers are skipped, so an empty file is an empty list.
pub fn parse_cpu_list(text: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.trim().parse::<u32>(), last.trim().parse::<u32>()) {
            (Ok(first), Ok(last)) => first..last.saturating_add(1),
            _ => 0..0,
        }
    };
    text.trim().split(',').flat_map(range).collect()
}

/// Formats CPUs in the given order; consecutive ones become a range.
pub fn format_cpu_list(cpus: &[u32]) -> String {
    let ranges = cpus.chunk_by(|before, after| before.checked_add(1) == Some(*after));
    let part = |range: &[u32]| match range {
        [first, .., last] => format!("{first}-{last}"),
        range => range[0].to_string(),
    };
    ranges.map(part).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_parsed_and_formatted() {
        for (list, cpus) in [("0,3-5", &[0, 3, 4, 5][..]), ("0-1", &[0, 1]), ("7", &[7]), ("", &[])] {
            assert_eq!(parse_cpu_list(&format!("{list}\n")), cpus);
            assert_eq!(format_cpu_list(cpus), list);
        }
    }
}
