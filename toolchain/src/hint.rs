//! Remedies for faults of the machine: a full disk, a read-only or `noexec` file system, missing permissions.

use std::io::ErrorKind;

const FULL: &str = "free disk space, or move the build folder to another disk with CARGO_TARGET_DIR=FOLDER";
const READ_ONLY: &str = "the file system is read-only: make it writable, or move the build folder to another one with \
                         CARGO_TARGET_DIR=FOLDER";
const DENIED: &str = "check the owner and the mode of the file and of the folders above it; if they are right, the \
                      file system may be mounted noexec: move the build folder to another one with \
                      CARGO_TARGET_DIR=FOLDER";
const LIBRARY: &str = "install the missing library in a folder that the dynamic linker searches by default: edgepipe \
                       does not pass LD_LIBRARY_PATH on";
const OLD: &str =
    "this system's C library is too old for the pinned packages: use a newer system, glibc 2.28 or later";
const QUOTA: &str = "the disk quota is used up: free disk space, or move the build folder to another disk with \
                     CARGO_TARGET_DIR=FOLDER";

/// The remedy for an error, if one of its causes is a fault of the machine.
pub fn of_error(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| match cause.downcast_ref::<std::io::Error>()?.kind() {
        ErrorKind::StorageFull => Some(FULL),
        ErrorKind::ReadOnlyFilesystem => Some(READ_ONLY),
        ErrorKind::PermissionDenied => Some(DENIED),
        ErrorKind::QuotaExceeded => Some(QUOTA),
        _ => None,
    })
}

/// The remedy for what another program printed.
pub fn of_text(text: &str) -> Option<&'static str> {
    let table = [
        ("No space left on device", FULL),
        ("Read-only file system", READ_ONLY),
        ("Permission denied", DENIED),
        ("failed to map segment from shared object", DENIED),
        ("cannot open shared object file", LIBRARY),
        ("version `GLIBC", OLD),
        ("Disk quota exceeded", QUOTA),
    ];
    table.into_iter().find(|(words, _)| text.contains(words)).map(|(_, hint)| hint)
}

#[cfg(test)]
mod tests {
    use super::{DENIED, FULL, LIBRARY, OLD, QUOTA, READ_ONLY, of_error, of_text};
    use anyhow::Context as _;

    #[test]
    fn faults_of_the_machine_are_found_in_errors_and_in_texts() {
        // ENOSPC, EROFS, EACCES, EDQUOT, ENOENT
        for (number, hint) in
            [(28, Some(FULL)), (30, Some(READ_ONLY)), (13, Some(DENIED)), (122, Some(QUOTA)), (2, None)]
        {
            let reason = std::io::Error::from_raw_os_error(number);
            let text = reason.to_string();
            let error = Err::<(), _>(reason).context("failed to write a").context("failed").unwrap_err();
            assert_eq!(of_error(&error), hint, "{text}");
            assert_eq!(of_text(&format!("ERROR: Could not install packages: {text}: '/a'")), hint, "{text}");
        }
        let missing =
            "ImportError: libstdc++.so.6: cannot open shared object file: No such file or directory";
        assert_eq!(of_text(missing), Some(LIBRARY));
        assert_eq!(of_text("/lib/libm.so.6: version `GLIBC_2.29' not found"), Some(OLD));
        assert_eq!(of_error(&anyhow::anyhow!("Permission denied")), None);
    }
}
