//! The archive of `cargo xtask dist`, as a user without Rust and without a C compiler runs it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod outcome;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Programs of the machine that the user has. There is no compiler, no cargo and no git.
const ON_PATH: [&str; 1] = ["python3"];

struct User {
    folder: tempfile::TempDir,
    program: PathBuf,
}

impl User {
    /// Unpacks the archive and links a program to it. The Python environment is a copy of the one of the tests: tests do
    /// not download it again.
    fn new() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let at = |path: &str| folder.path().join(path);
        for path in ["archive", "bin", "home/.cache/edgepipe/toolchain", "work"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        done(Command::new("tar").arg("-xf").arg(variable("EDGEPIPE_ARCHIVE")).arg("-C").arg(at("archive")));
        let unpacked = fs::read_dir(at("archive")).unwrap().next().unwrap().unwrap().path();
        let program = at("bin/edgepipe");
        std::os::unix::fs::symlink(unpacked.join("bin/edgepipe"), &program).unwrap();
        for name in ON_PATH {
            let found = std::env::split_paths(&std::env::var_os("PATH").unwrap())
                .map(|folder| folder.join(name))
                .find(|path| path.is_file());
            std::os::unix::fs::symlink(found.unwrap(), at("bin").join(name)).unwrap();
        }
        fs::copy("/proc/stat", at("stat")).unwrap();
        let python = PathBuf::from(variable("EDGEPIPE_PYTHON"));
        let environment = python.ancestors().nth(2).unwrap();
        let copy = at("home/.cache/edgepipe/toolchain/python");
        // Files of an environment are replaced, never written to, so they can be shared.
        done(Command::new("cp").args(["--archive", "--link"]).arg(environment).arg(copy));
        Self { folder, program }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(&self.program)
            .args(arguments)
            .env_clear()
            .env("HOME", self.at("home"))
            .env("PATH", self.at("bin"))
            // Not the machine's own: a bench of another checkout may run beside this test.
            .env("EDGEPIPE_LOCK", self.at("board.lock"))
            // Times of CPUs that nobody else uses, so that other load voids no trial.
            .env("EDGEPIPE_PROC_STAT", self.at("stat"))
            .current_dir(self.at("work"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn answer(&self, arguments: &[&str], code: i32) -> (String, String) {
        let output = self.run(arguments);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{stdout}\n{stderr}");
        (stdout, stderr)
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run this with `cargo xtask test`"))
}

fn done(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "needs the archive; run by cargo xtask test"]
fn an_installed_edgepipe_benches_without_rust_and_without_a_c_compiler() {
    let user = User::new();
    let (_, said) = user.answer(&["report"], 2);
    assert!(said.contains("`edgepipe bench`") && !said.contains("cargo xtask"), "{said}");

    let output = user.run(&["bench", "--experiment", "tiny"]);
    let (table, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    outcome::assert_valid(output.status.code(), &format!("{table}\n{said}"));
    assert!(table.contains("tiny") && table.contains("frames/s"), "{table}");

    // Linked by zig, because there is no C compiler.
    assert!(user.at("home/.cache/edgepipe/cross/host/cc").is_file());
    assert!(user.at("home/.local/share/edgepipe/results/results.db").is_file());
    let (again, _) = user.answer(&["report"], 0);
    assert!(again.contains("tiny"), "{again}");

    // A check that measures compiles too, if nothing is left of the bench.
    user.answer(&["baseline", "save", "main"], 0);
    for cached in fs::read_dir(user.at("home/.cache/edgepipe")).unwrap().flatten() {
        if cached.file_name() != "toolchain" {
            fs::remove_dir_all(cached.path()).unwrap();
        }
    }
    let output = user.run(&["check", "--against", "main", "--experiment", "tiny", "--trials", "2"]);
    let (table, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // Two runs of two trials may differ by chance.
    assert!(matches!(output.status.code(), Some(0 | 1 | 4)), "{:?}\n{table}\n{said}", output.status);
    assert!(table.contains("against main") && table.contains("throughput"), "{table}\n{said}");

    // Results and settings of the working folder come first.
    fs::create_dir_all(user.at("work/results")).unwrap();
    fs::create_dir_all(user.at("work/configs/boards")).unwrap();
    let (_, said) = user.answer(&["results", "list"], 2);
    assert!(said.contains("work/results/results.db"), "{said}");
    let (_, said) = user.answer(&["plan", "--board", "local"], 2);
    assert!(said.contains("unknown experiment \"quick\""), "{said}");
}

#[test]
#[ignore = "needs the archive; run by cargo xtask test"]
fn the_archive_has_man_pages_completions_and_no_leftovers() {
    let output = Command::new("tar").arg("-tf").arg(variable("EDGEPIPE_ARCHIVE")).output().unwrap();
    let list = String::from_utf8(output.stdout).unwrap();
    for file in [
        "/LICENSE",
        "/README.md",
        "/ci/requirements.txt",
        "/configs/experiments/tiny.yaml",
        "/runner/lib/libtvm_ffi.so",
        "/runner/lib/libtvm_runtime.so",
        "/share/bash-completion/completions/edgepipe",
        "/share/man/man1/edgepipe-bench.1",
        "/share/zsh/site-functions/_edgepipe",
    ] {
        assert!(list.lines().any(|line| line.ends_with(file)), "{file} is missing:\n{list}");
    }
    assert!(!list.contains("__pycache__"), "{list}");
    let name = Path::new(&variable("EDGEPIPE_ARCHIVE")).file_name().unwrap().to_owned();
    let top = name.to_str().unwrap().trim_end_matches(".tar.gz").to_owned();
    assert!(list.lines().all(|line| line.starts_with(&top)), "{list}");
}
