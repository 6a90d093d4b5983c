//! The kernel's way of writing CPU lists: `0,3-5`.

/// CPUs of a list, ascending as written. What is no number is left out.
pub(crate) fn parse(text: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.trim().parse::<u32>(), last.trim().parse::<u32>()) {
            (Ok(first), Ok(last)) => first..last.saturating_add(1),
            _ => 0..0,
        }
    };
    text.trim().split(',').flat_map(range).collect()
}

/// The list as the kernel would write it.
pub(crate) fn text(cpus: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*cpu) => *last = *cpu,
            _ => ranges.push((*cpu, *cpu)),
        }
    }
    let part = |(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(part).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_go_both_ways() {
        for (list, cpus) in [("0,3-5", &[0, 3, 4, 5][..]), ("0-1", &[0, 1]), ("7", &[7]), ("", &[])] {
            assert_eq!(parse(&format!("{list}\n")), cpus);
            assert_eq!(text(cpus), list);
        }
    }
}
