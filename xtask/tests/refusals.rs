//! What xtask answers before it does anything: refusals are a sentence and exit code 2, never a panic; `--help` is the usage.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder that goes with its value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("edgepipe-refusals-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs xtask and expects it to refuse with exit code 2 and these words.
fn refused(program: &Path, arguments: &[&OsStr], words: &[&str]) {
    let output = Command::new(program).args(arguments).env_remove("CARGO_MANIFEST_DIR").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: {word:?} is not in\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// A copy of xtask in the build folder of a workspace that has nothing else.
fn workspace(root: &Path) -> PathBuf {
    let folder = root.join("target/debug");
    fs::create_dir_all(&folder).unwrap();
    fs::create_dir_all(root.join("xtask")).unwrap();
    fs::write(root.join("Cargo.toml"), "").unwrap();
    fs::write(root.join("xtask/Cargo.toml"), "").unwrap();
    let program = folder.join("xtask");
    // By a process of its own: a program that this one has open for writing cannot be started, and a process that another test starts
    // at that moment has it open as well.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_xtask")).arg(&program).status().unwrap();
    assert!(copied.success());
    program
}

fn wrong_command_lines() {
    let program = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let odd = OsString::from_vec(b"caf\xe9".to_vec());
    let word = OsStr::new;
    let table: [(&[&OsStr], &[&str]); 7] = [
        (&[&odd], &["argument 1", "is not UTF-8"]),
        (&[word("bench"), word("--output"), &odd], &["argument 3", "is not UTF-8"]),
        (&[word("brew")], &["unknown command \"brew\""]),
        (&[word("setup"), word("--now")], &["takes no options", "--now"]),
        (&[word("build"), word("--bord"), word("a")], &["--bord"]),
        (&[word("test"), word("a"), word("b")], &["takes at most one NAME", "a b"]),
        (&[word("test"), word("--all")], &["takes at most one NAME", "--all"]),
    ];
    for (arguments, words) in table {
        refused(program, arguments, words);
    }
}

fn folders_in_which_programs_fail() {
    let scratch = Scratch::new("folders");
    for (name, reason) in [(&b"a:b"[..], "colon"), (b"a\xff", "not UTF-8"), (b"a\nb", "control character")] {
        let program = workspace(&scratch.0.join(OsStr::from_bytes(name)));
        refused(&program, &[OsStr::new("setup")], &["failed to work in", reason, "move the checkout"]);
    }
}

fn a_build_folder_that_cannot_be_written() {
    let scratch = Scratch::new("unwritable");
    let program = workspace(&scratch.0);
    // A file is in the place of the folder: also where the tests run as root, whom no mode stops.
    fs::write(scratch.0.join("target/edgepipe"), "").unwrap();
    refused(&program, &[OsStr::new("setup")], &["failed to create", "target/edgepipe/toolchain"]);
}

#[test]
fn help_of_each_developer_command_is_its_usage() {
    for command in ["setup", "build", "dist", "test", "tidy", "emulate", "kernels"] {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask")).args([command, "--help"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command}: {said}");
        let (about, usage) = said.split_once("\n\n").unwrap();
        assert!(!about.is_empty() && usage.starts_with(&format!("Usage: cargo xtask {command}")), "{said}");
    }
}

#[test]
fn refusals_are_sentences_with_exit_code_2() {
    wrong_command_lines();
    folders_in_which_programs_fail();
    a_build_folder_that_cannot_be_written();
}
