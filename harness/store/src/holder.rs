//! Which process holds a lock on a file, according to `/proc/locks`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The processes that hold a lock on one of these files, such as `harness (process 4711)`. Empty if unknown, for
/// example for a process in another container.
pub(super) fn of(paths: &[&Path]) -> String {
    let inodes: Vec<u64> = paths.iter().filter_map(|path| Some(fs::metadata(path).ok()?.ino())).collect();
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let described: Vec<String> = holders(&locks, &inodes).into_iter().map(describe).collect();
    described.join(", ")
}

/// Process ids in the text of `/proc/locks`, whose lines are `1: POSIX  ADVISORY  WRITE 4711 08:01:131 0 EOF`. Lines
/// with `->` are waiting processes.
fn holders(locks: &str, inodes: &[u64]) -> Vec<u32> {
    let mut found: Vec<(bool, u32)> = locks
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, _, _, mode, pid, file, ..] = fields[..] else { return None };
            let inode = file.rsplit(':').next()?.parse().ok()?;
            // Not "of this process" only: two connections of one process can lock each other out as well.
            inodes.contains(&inode).then_some((mode != "WRITE", pid.parse().ok()?))
        })
        .collect();
    found.sort_unstable();
    if found.iter().any(|(reads, _)| !reads) {
        found.retain(|(reads, _)| !reads);
    }
    found.dedup();
    found.into_iter().map(|(_, pid)| pid).collect()
}

fn describe(pid: u32) -> String {
    if pid == std::process::id() {
        return "this process".to_owned();
    }
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{} (process {pid})", name.trim_end()),
        Err(_) => format!("process {pid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_before_readers_and_nobody_who_waits() {
        let locks = "\
1: POSIX  ADVISORY  READ  11 08:01:131 124 124
2: POSIX  ADVISORY  WRITE 12 08:01:132 120 120
2: -> POSIX  ADVISORY  WRITE 13 08:01:132 120 120
3: FLOCK  ADVISORY  WRITE 14 00:2f:999 0 EOF
4: OFDLCK ADVISORY  READ  -1 08:01:131 0 EOF
";
        assert_eq!(holders(locks, &[131]), [11]);
        assert_eq!(holders(locks, &[131, 132]), [12]);
        assert_eq!(holders(locks, &[999]), [14]);
        assert!(holders(locks, &[]).is_empty());
        assert!(holders("", &[131]).is_empty());
    }

    #[test]
    fn the_one_who_locks_a_file_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(of(&[file.path()]), "");
        file.as_file().lock().unwrap();
        // Where /proc shows another namespace than this process lives in, nothing is found, and nothing is said.
        if !fs::read_to_string("/proc/locks").unwrap_or_default().is_empty() {
            assert_eq!(of(&[file.path()]), "this process");
        }
    }
}
