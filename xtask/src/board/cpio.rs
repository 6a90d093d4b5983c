//! An archive that the kernel unpacks as its first root file system: cpio in the form "newc". Written here, because
//! owners and modes are then ours to say, without root and without a program that pretends to be it.

use std::collections::BTreeMap;
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A folder.
    Folder,
    /// A file with its mode.
    File(u32, Vec<u8>),
    /// A symbolic link and where it leads.
    Link(String),
    /// A character device.
    Device(u32, u32),
}

/// Files of the archive by path, without a leading `/`. Everything belongs to root.
#[derive(Debug, Default)]
pub(super) struct Tree(BTreeMap<String, Entry>);

impl Tree {
    /// Puts an entry, in the place of what was there, with the folders above it.
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

    /// Puts a file.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.put(path, Entry::File(mode, content.into()));
    }

    /// Writes the archive. In order of the paths, so that a folder comes before what is in it.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        // The root itself is world-writable unless the archive says otherwise, and sshd refuses keys below it.
        write_entry(out, 1, ".", &Entry::Folder)?;
        for (number, (path, entry)) in (2..).zip(&self.0) {
            write_entry(out, number, path, entry)?;
        }
        write_entry(out, 0, "TRAILER!!!", &Entry::File(0, Vec::new()))
    }
}

fn write_entry(out: &mut impl Write, number: u32, path: &str, entry: &Entry) -> io::Result<()> {
    let empty = Vec::new();
    let (mode, content, device): (u32, &[u8], (u32, u32)) = match entry {
        Entry::Folder => (DIRECTORY | 0o755, &empty, (0, 0)),
        Entry::File(mode, content) => (FILE | mode, content, (0, 0)),
        Entry::Link(to) => (LINK | 0o777, to.as_bytes(), (0, 0)),
        Entry::Device(major, minor) => (CHARACTER_DEVICE | 0o600, &empty, (*major, *minor)),
    };
    let length = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
    // number, mode, owner, group, links, time, length, device (two), special device (two), length of the name, sum
    let fields = [
        number,
        mode,
        0,
        0,
        1,
        0,
        length(content.len())?,
        0,
        0,
        device.0,
        device.1,
        length(path.len() + 1)?,
        0,
    ];
    out.write_all(b"070701")?;
    for field in fields {
        write!(out, "{field:08X}")?;
    }
    out.write_all(path.as_bytes())?;
    out.write_all(b"\0")?;
    // The header has 110 bytes; names and contents end at multiples of four.
    pad(out, 110 + path.len() + 1)?;
    out.write_all(content)?;
    pad(out, content.len())
}

fn pad(out: &mut impl Write, written: usize) -> io::Result<()> {
    out.write_all(&[0; 3][..written.wrapping_neg() % 4])
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
