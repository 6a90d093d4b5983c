//! What a database needs of the file system it is on.

use std::path::Path;

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

/// What to do if the file system of this path fails.
pub(super) fn remedy(path: &Path) -> String {
    let folder = path.ancestors().find(|folder| folder.exists()).unwrap_or(path);
    let magic = rustix::fs::statfs(folder).map_or(0, |found| found.f_type.cast_unsigned());
    NETWORK.iter().find(|(number, _)| *number == magic & 0xFFFF_FFFF).map_or_else(
        || {
            "does the disk report errors (`dmesg`)? On a network share, name a database on a local disk by --database FILE"
                .to_owned()
        },
        |(_, name)| {
            format!(
                "it is on {name}, which may not lock files as a database needs: name one on a local disk by --database \
                 FILE, and bring this one's runs there by `cargo xtask results import`"
            )
        },
    )
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
