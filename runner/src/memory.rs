//! Memory of the runner and of the board, in bytes.

use crate::cgroups::Groups;
use std::fs;

/// Checks that so much memory is available without swapping and within the limits of the runner's control groups.
///
/// # Errors
/// The part of a message after the colon: needed and available memory, and the limit if there is one.
pub(crate) fn check_available(bytes: u64) -> Result<(), String> {
    let groups = Groups::of_process();
    let free = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kilobytes(&text, "MemAvailable:"));
    match free.into_iter().chain(groups.memory_available_bytes()).min() {
        Some(available) if bytes > available => {
            let limit = groups.memory_limit().map_or_else(String::new, |limit| {
                let mebibytes = limit.bytes >> 20;
                let group = limit.group;
                format!("; cgroup {group} is limited to {mebibytes} MiB: raise the limit or run outside of the cgroup")
            });
            Err(format!("{bytes} bytes of memory are needed, {available} are available{limit}"))
        }
        _ => Ok(()),
    }
}

/// Resident memory of the runner, and the part of it that no file backs.
pub(crate) fn resident_bytes() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name| kilobytes(&status, name).unwrap_or(0);
    (field("VmRSS:"), field("RssAnon:"))
}

/// The value of a line such as `VmRSS:  1234 kB`, in bytes.
pub(crate) fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_this_process_is_read() {
        let (resident, anonymous) = resident_bytes();
        assert!(resident > anonymous && anonymous > 0);
    }

    #[test]
    fn more_memory_than_available_is_an_error() {
        check_available(1).unwrap();
        let message = check_available(u64::MAX).unwrap_err();
        assert!(message.contains("18446744073709551615 bytes of memory are needed, "), "{message}");
    }
}
