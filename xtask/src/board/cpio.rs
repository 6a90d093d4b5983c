//! The archive that the kernel unpacks as its first root file system: cpio in the format "newc". Written without the
//! program `cpio`, so that all files belong to root without root permissions.

use cpio::newc;
use std::collections::BTreeMap;
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A folder.
    Folder,
    /// A file with its mode.
    File(u32, Vec<u8>),
    /// A symbolic link with its target.
    Link(String),
    /// A character device.
    Device(u32, u32),
}

/// Files of the archive by path, without a leading `/`. Everything belongs to root.
#[derive(Debug, Default)]
pub(super) struct Tree(BTreeMap<String, Entry>);

impl Tree {
    /// Adds or replaces an entry, and adds the folders above it.
    pub(super) fn put(&mut self, path: &str, entry: Entry) {
        let mut above = path;
        while let Some((folder, _)) = above.rsplit_once('/') {
            if self.0.contains_key(folder) {
                break;
            }
            self.0.insert(folder.to_owned(), Entry::Folder);
            above = folder;
        }
        self.0.insert(path.to_owned(), entry);
    }

    /// Adds a file.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.put(path, Entry::File(mode, content.into()));
    }

    /// Writes the archive, sorted by path, so that a folder comes before its content.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        // The root itself is world-writable unless the archive has an entry for it, and sshd refuses keys below it.
        write_entry(&mut *out, 1, ".", &Entry::Folder)?;
        for (number, (path, entry)) in (2..).zip(&self.0) {
            write_entry(&mut *out, number, path, entry)?;
        }
        newc::trailer(out).map(drop)
    }
}

fn write_entry(out: impl Write, number: u32, path: &str, entry: &Entry) -> io::Result<()> {
    let header = newc::Builder::new(path).ino(number).nlink(1);
    let (header, content): (_, &[u8]) = match entry {
        Entry::Folder => (header.mode(DIRECTORY | 0o755), &[]),
        Entry::File(mode, content) => (header.mode(FILE | mode), content),
        Entry::Link(to) => (header.mode(LINK | 0o777), to.as_bytes()),
        Entry::Device(major, minor) => {
            (header.mode(CHARACTER_DEVICE | 0o600).rdev_major(*major).rdev_minor(*minor), &[])
        }
    };
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    let mut file = header.write(out, length);
    file.write_all(content)?;
    file.finish().map(drop)
}

#[cfg(test)]
mod tests {
    use super::{Entry, Tree};

    #[test]
    fn an_archive_has_folders_before_files_and_ends_aligned() {
        let mut tree = Tree::default();
        tree.file("etc/ssh/key", 0o600, "secret");
        tree.put("bin/sh", Entry::Link("busybox".to_owned()));
        tree.put("dev/console", Entry::Device(5, 1));
        let mut bytes = Vec::new();
        tree.write(&mut bytes).unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let names: Vec<&str> =
            text.split("070701").skip(1).filter_map(|entry| entry.get(104..)?.split('\0').next()).collect();
        assert_eq!(
            names,
            [".", "bin", "bin/sh", "dev", "dev/console", "etc", "etc/ssh", "etc/ssh/key", "TRAILER!!!"]
        );
        // Mode of a file of root's alone, with its length behind it.
        assert!(text.contains("00008180"), "{text}");
    }
}
