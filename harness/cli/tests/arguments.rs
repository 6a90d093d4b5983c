//! Arguments that are not UTF-8: used where they are paths, refused where they are names, and never a panic.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::process::Command;

#[test]
fn arguments_that_are_not_utf_8() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let odd = || OsString::from_vec(b"caf\xe9".to_vec());
    let database = folder.path().join(odd()).join("results.db");
    let run = |arguments: &[&OsStr]| {
        let output = Command::new(env!("CARGO_BIN_EXE_edgepipe"))
            .arg("--root")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
            .arg("--state")
            .arg(folder.path())
            .args(arguments)
            .output()
            .expect("the harness starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let word = OsStr::new;
    for arguments in [
        [word("bench"), word("--board"), &odd()],
        [word("report"), word("--run"), &odd()],
        [word("--database"), database.as_os_str(), word("report")],
        [word("baseline"), word("save"), &odd()],
    ] {
        let (code, said) = run(&arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(said.starts_with("error: ") && !said.contains("panicked"), "{arguments:?}: {said}");
    }
}
