//! File names of a database, and remedies for file systems that lack what it needs.

use std::path::{Path, PathBuf};

/// Network file systems by their magic number (`statfs(2)`).
const NETWORK: [(u64, &str); 8] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "SMB (CIFS)"),
    (0xFE53_4D42, "SMB 2"),
    (0x0102_1997, "9P"),
    (0x5346_414F, "AFS"),
    (0x00C3_6400, "Ceph"),
    (0x6573_5546, "FUSE"),
];

/// The remedy if the file system of this path fails.
pub(super) fn remedy(path: &Path) -> String {
    let folder = path.ancestors().find(|folder| folder.exists()).unwrap_or(path);
    let magic = rustix::fs::statfs(folder).map_or(0, |found| found.f_type.cast_unsigned());
    NETWORK.iter().find(|(number, _)| *number == magic & 0xFFFF_FFFF).map_or_else(
        || {
            "check `dmesg` for disk errors; if it is on a network share, use a database on a local disk with --database FILE"
                .to_owned()
        },
        |(_, name)| {
            format!(
                "it is on {name}, which may not support the file locks that a database needs: use one on a local disk with \
                 --database FILE, and copy these runs to it with `{program} results import`", program = host::program())
        },
    )
}

/// `path` with `ending` appended to the file name.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.to_path_buf().into_os_string();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_there_has_a_remedy_too() {
        assert!(remedy(Path::new("/no/such/results.db")).contains("--database FILE"));
        assert!(remedy(Path::new("results.db")).contains("--database FILE"));
    }
}
