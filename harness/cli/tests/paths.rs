//! Paths that are not UTF-8: they work, or are refused with exit code 2.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where its assumptions do")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder whose name is Latin-1.
fn odd(folder: &Path) -> PathBuf {
    let path = folder.join(OsStr::from_bytes(b"b\xe4d"));
    fs::create_dir_all(&path).unwrap();
    path
}

fn harness(root: &Path, state: &Path, database: &Path, arguments: &[&OsStr]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgepipe"));
    command.arg("--root").arg(root).arg("--state").arg(state).arg("--database").arg(database);
    command.args(["--python", "/bin/false", "--runner", "/bin/false"]).args(arguments).output().unwrap()
}

#[track_caller]
fn check(output: &Output, code: i32, expected: &str) {
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(expected), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn paths_that_are_not_utf_8_work_or_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let odd = odd(folder.path());
    let real = &Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let words = |words: &'static [&'static str]| words.iter().map(OsStr::new).collect::<Vec<_>>();
    let bench = words(&["bench", "--experiment", "tiny", "--board", "local"]);
    let state = folder.path().join("state");
    // The database may be anywhere: the bench comes as far as the runner, which is none here.
    check(&harness(real, &state, &odd.join("results.db"), &bench), 3, "local");
    assert!(odd.join("results.db").is_file());
    check(&harness(real, &state, &odd.join("results.db"), &words(&["results", "list"])), 0, "no run found");
    let report = words(&["report", "--format", "html", "--output", "report.html"]);
    check(&harness(real, &state, &odd.join("results.db"), &report), 2, "failed to find any run in");
    // What requests must name may not.
    let database = folder.path().join("results.db");
    check(&harness(real, &odd, &database, &bench), 2, "its path is not UTF-8");
    for name in ["compiler", "ci", "configs"] {
        std::os::unix::fs::symlink(real.join(name), odd.join(name)).unwrap();
    }
    check(&harness(&odd, &state, &database, &bench), 2, "its path is not UTF-8");
    // Nor can the file of a name that is none, and whatever is no database.
    check(&harness(real, &state, &odd, &words(&["results", "list"])), 2, "it is a directory");
}

#[test]
fn an_earlier_database_is_read_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let odd = odd(folder.path());
    let database = odd.join("results.db");
    let earlier = Path::new(env!("CARGO_MANIFEST_DIR")).join("../report/tests/databases");
    let first = fs::read_dir(earlier).unwrap().flatten().map(|entry| entry.path()).min().unwrap();
    fs::copy(first, &database).unwrap();
    let real = &Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = odd.join(OsStr::from_bytes(b"\xff.html"));
    let arguments = ["report", "--format", "html", "--output"].map(OsStr::new);
    let mut arguments = arguments.to_vec();
    arguments.push(output.as_os_str());
    check(&harness(real, &odd, &database, &arguments), 0, "wrote ");
    assert!(output.is_file());
    // A copy of it is made in the temporary folder.
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgepipe"));
    command.arg("--root").arg(real).arg("--state").arg(&odd).arg("--database").arg(&database);
    command.args(["--python", "/bin/false", "--runner", "/bin/false"]);
    let refused = command.args(["results", "list"]).env("TMPDIR", &odd).output().unwrap();
    check(&refused, 2, "set TMPDIR to another directory");
}
