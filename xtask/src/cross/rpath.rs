//! Makes a program look for libraries in its own `DT_RPATH` before `LD_LIBRARY_PATH`. zig always writes `DT_RUNPATH` into
//! programs (`--disable-new-dtags` applies to libraries only), which is searched after `LD_LIBRARY_PATH`.

use anyhow::{Result, bail};

const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;
const PT_DYNAMIC: u64 = 2;

/// Turns the tag of a 64-bit little-endian ELF file into `DT_RPATH`. Both have the same value, the folders.
pub(super) fn prefer_own(file: &mut [u8]) -> Result<()> {
    let Some(tag) = tag(file) else {
        bail!("it has neither DT_RPATH nor DT_RUNPATH, or is not a 64-bit little-endian ELF file")
    };
    if let Some(bytes) = file.get_mut(tag..tag + 8) {
        bytes.copy_from_slice(&DT_RPATH.to_le_bytes());
    }
    Ok(())
}

/// Where the tag is in the file.
fn tag(file: &[u8]) -> Option<usize> {
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count) = (number(file, 32, 8)?, number(file, 54, 2)?, number(file, 56, 2)?);
    let headers = (0..count).filter_map(|index| usize::try_from(table.checked_add(index * size)?).ok());
    let dynamic = headers.into_iter().find(|at| number(file, *at, 4) == Some(PT_DYNAMIC))?;
    let begin = usize::try_from(number(file, dynamic.checked_add(8)?, 8)?).ok()?;
    let length = usize::try_from(number(file, dynamic.checked_add(32)?, 8)?).ok()?;
    (begin..begin.checked_add(length)?)
        .step_by(16)
        .find(|at| matches!(number(file, *at, 8), Some(DT_RPATH | DT_RUNPATH)))
}

fn number(file: &[u8], at: usize, bytes: usize) -> Option<u64> {
    let part = file.get(at..at.checked_add(bytes)?)?;
    Some(part.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::{DT_RPATH, DT_RUNPATH, number, prefer_own, tag};
    use std::process::Command;

    #[test]
    fn a_program_with_either_tag_ends_with_rpath() {
        let path = std::env::temp_dir().join(format!("edgepipe-rpath-{}", std::process::id()));
        for (option, before) in [("--enable-new-dtags", DT_RUNPATH), ("--disable-new-dtags", DT_RPATH)] {
            let made = Command::new("sh")
                .args([
                    "-c",
                    "echo 'int main(void){return 0;}' | cc -x c - -o \"$1\" \"-Wl,$2,-rpath,/a\"",
                    "sh",
                ])
                .args([path.as_os_str(), option.as_ref()])
                .status()
                .unwrap();
            assert!(made.success());
            let mut file = std::fs::read(&path).unwrap();
            let found = |file: &[u8]| number(file, tag(file).unwrap(), 8).unwrap();
            assert_eq!(found(&file), before, "{option}");
            prefer_own(&mut file).unwrap();
            assert_eq!(found(&file), DT_RPATH, "{option}");
            std::fs::write(&path, &file).unwrap();
            assert!(Command::new(&path).status().unwrap().success());
        }
        std::fs::remove_file(&path).unwrap();
        assert!(prefer_own(&mut b"\x7fELF\x02\x01 cut short".to_vec()).is_err());
        assert!(prefer_own(&mut [0; 100]).is_err());
    }
}
