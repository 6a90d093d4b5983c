//! Reading files that may be anything (a FIFO would block forever, `/dev/zero` would fill memory), hashing files, and
//! replacing files atomically.

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Opens a regular file for reading.
///
/// # Errors
/// If it cannot be opened, or is a directory, FIFO, socket or device.
pub fn open(path: &Path) -> io::Result<File> {
    // Without this, opening a FIFO waits for somebody who writes to it.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::Error::other("it is a directory; expected a file"));
    }
    if !kind.is_file() {
        return Err(io::Error::other("it is a FIFO, socket or device; expected a regular file"));
    }
    Ok(file)
}

/// Reads a regular file of at most `largest` bytes.
///
/// # Errors
/// If it cannot be read, is not a regular file, or is larger.
pub fn read(path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(largest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > largest {
        let limit = if largest >= 1 << 20 {
            format!("{} MiB", largest >> 20)
        } else {
            format!("{} KiB", largest >> 10)
        };
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {limit}; check that it is the right file"),
        ));
    }
    Ok(bytes)
}

/// Reads a regular file of UTF-8 text.
///
/// # Errors
/// As [`read`], and if it is not UTF-8; the error names the line.
pub fn read_text(path: &Path, largest: u64) -> io::Result<String> {
    String::from_utf8(read(path, largest)?).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.split(|byte| *byte == b'\n').count();
        let message = format!("it is not UTF-8 text (line {line}); save it as UTF-8");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// If the file cannot be read.
pub fn hash_file(path: &Path) -> anyhow::Result<String> {
    let mut file = open(path).with_context(|| format!("failed to open {}", path.display()))?;
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(format!("{:x}", hash.finalize()))
}

/// Replaces a file atomically: after an error or a crash, `path` has its old contents.
///
/// # Errors
/// If the parent directory is missing or cannot be written.
pub fn replace(path: &Path, contents: impl AsRef<[u8]>) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    fs::write(&fresh, contents)?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn what_is_no_file_or_too_large_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        std::fs::write(at("large"), vec![b' '; 1025]).unwrap();
        std::fs::write(at("latin"), b"one\ntwo \xe4\n").unwrap();
        let error = |path: &Path| read_text(path, 1024).unwrap_err().to_string();
        assert!(error(folder.path()).contains("a directory"));
        assert!(error(&at("fifo")).contains("a FIFO"));
        let hashed = format!("{:#}", hash_file(&at("fifo")).unwrap_err());
        assert!(hashed.contains("is a FIFO"), "{hashed}");
        assert!(error(Path::new("/dev/zero")).contains("device"));
        assert!(error(&at("large")).contains("larger than 1 KiB"));
        assert!(error(&at("latin")).contains("not UTF-8 text (line 2)"));
        assert_eq!(read_text(&at("missing"), 1024).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(read(&at("large"), 1025).unwrap().len(), 1025);
    }
}
