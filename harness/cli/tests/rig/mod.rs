//! The whole product on this machine, with a database of its own for each test.

#![allow(dead_code, reason = "each test program uses a part of it")]

#[path = "../outcome/mod.rs"]
pub(crate) mod outcome;

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The board is taken by one bench at a time; so are these tests.
static BOARD: Mutex<()> = Mutex::new(());

/// A database and a runner of its own.
pub(crate) struct Rig {
    _board: MutexGuard<'static, ()>,
    folder: tempfile::TempDir,
    pub(crate) runner: PathBuf,
    /// The checkout, or a folder that takes its place.
    pub(crate) root: PathBuf,
    /// Compiled networks, which are found by content: shared between the tests, unless one damages them.
    pub(crate) state: PathBuf,
    /// Environment variables of the harness.
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let board = BOARD.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        fs::copy("/proc/stat", folder.path().join("stat")).unwrap();
        Self {
            _board: board,
            folder,
            runner: variable("EDGEPIPE_RUNNER").into(),
            root: root(),
            state: Path::new(env!("CARGO_TARGET_TMPDIR")).join("edgepipe"),
            variables: Vec::new(),
        }
    }

    /// A runner of our own making, to see what the harness does with it. The board's state is kept by the real one.
    pub(crate) fn with_runner(script: &str) -> Self {
        let mut rig = Self::new();
        let keep = format!("[ \"$1\" != hold ] || exec '{}' \"$@\"", rig.runner.display());
        rig.runner = rig.folder.path().join("runner");
        fs::write(&rig.runner, format!("#!/bin/sh\n{keep}\n{script}\n")).unwrap();
        fs::set_permissions(&rig.runner, fs::Permissions::from_mode(0o755)).unwrap();
        rig
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Uses a checkout with these board files only.
    pub(crate) fn with_boards(mut self, boards: &[(&str, &str)]) -> Self {
        let (real, root) = (root(), self.path("root"));
        fs::create_dir_all(root.join("configs/boards")).unwrap();
        for name in
            ["compiler", "ci", "results", "configs/experiments", "configs/networks", "configs/defaults.yaml"]
        {
            std::os::unix::fs::symlink(real.join(name), root.join(name)).unwrap();
        }
        for (name, processors) in boards {
            let text = format!("board: {name}\nconnect: local\nprocessors: {processors}\n");
            fs::write(root.join(format!("configs/boards/{name}.yaml")), text).unwrap();
        }
        self.root = root;
        self
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path("results.db")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        fs::create_dir_all(&self.state).unwrap();
        let mut command = Command::new(variable("EDGEPIPE_HARNESS"));
        command.arg("--root").arg(&self.root).arg("--state").arg(&self.state);
        command.arg("--python").arg(variable("EDGEPIPE_PYTHON")).arg("--runner").arg(&self.runner);
        command.arg("--database").arg(self.database()).args(arguments);
        // Not the machine's own: a bench of another checkout and other tests go on beside this one.
        command.env("EDGEPIPE_LOCK", self.path("board.lock"));
        // Times of CPUs that nobody else uses, so that other load voids no trial.
        command.env("EDGEPIPE_PROC_STAT", self.path("stat"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str], code: i32) -> (String, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        assert_eq!(status.code(), Some(code), "{arguments:?}\n{stdout}\n{stderr}");
        (stdout, stderr)
    }

    /// A command that measures: its table and its log.
    #[track_caller]
    pub(crate) fn measure(&self, arguments: &[&str]) -> (String, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let (table, log) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        outcome::assert_valid(status.code(), &format!("{table}\n{log}"));
        (table, log)
    }

    /// Benches the experiment tiny.
    #[track_caller]
    pub(crate) fn bench(&self) -> (String, String) {
        self.measure(&["bench", "--experiment", "tiny"])
    }

    #[track_caller]
    pub(crate) fn rows(&self) -> Vec<Value> {
        let (json, _) = self.run(&["report", "--format", "json"], 0);
        let report: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(report["schema"], 1);
        report["rows"].as_array().unwrap().clone()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run this with `cargo xtask test`"))
}
