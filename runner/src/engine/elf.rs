//! Checks that a library file is complete.
//!
//! The loader maps what the headers describe. Reading a page beyond the end of a truncated file kills the process with a
//! signal, so the sizes are checked first (layout: System V ABI, `elf(5)`, 64 bit).

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Bytes of the file header.
const HEADER: usize = 64;
/// Bytes of a program header.
const PROGRAM_HEADER: usize = 56;
/// Type of a segment that is mapped.
const LOAD: u32 = 1;

/// Checks that everything the headers of an ELF file refer to lies inside it.
pub(crate) fn check_complete(path: &Path) -> Result<(), String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    let mut header = [0; HEADER];
    if file.read_exact(&mut header).is_err() || !header.starts_with(b"\x7fELF\x02\x01") {
        return Err("it is not a 64-bit ELF file".to_owned());
    }
    let inside = |begin: u64, bytes: u64| begin.checked_add(bytes).is_some_and(|end| end <= length);
    let (programs, program_size, program_count) = (long(&header, 32), short(&header, 54), short(&header, 56));
    let (sections, section_size, section_count) = (long(&header, 40), short(&header, 58), short(&header, 60));
    let mut complete = inside(sections, section_size * section_count)
        && inside(programs, program_size * program_count)
        && program_size == PROGRAM_HEADER as u64;
    for place in 0..program_count {
        let mut program = [0; PROGRAM_HEADER];
        complete = complete
            && file.read_exact_at(&mut program, programs + place * program_size).is_ok()
            && (word(&program, 0) != LOAD || inside(long(&program, 8), long(&program, 32)));
    }
    if complete { Ok(()) } else { Err(format!("it is truncated at {length} bytes")) }
}

fn short(bytes: &[u8], at: usize) -> u64 {
    u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |value, byte| (value << 8) | u32::from(*byte))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_lacks_its_last_byte_is_truncated() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let check = |bytes: &[u8]| {
            let path = folder.path().join("file");
            std::fs::write(&path, bytes).unwrap();
            check_complete(&path)
        };
        check(&own).unwrap();
        for length in [own.len() - 1, own.len() / 2, 4096, HEADER] {
            assert!(
                check(&own[..length]).unwrap_err().contains(&format!("truncated at {length}")),
                "{length}"
            );
        }
        for bytes in [&own[..HEADER - 1], b"", b"#!/bin/sh\n"] {
            assert!(check(bytes).unwrap_err().contains("not a 64-bit ELF"));
        }
    }
}
