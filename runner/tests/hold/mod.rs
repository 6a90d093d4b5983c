//! A fake board with a user's home folder, and `runner hold` on it.

#![allow(clippy::unwrap_used, reason = "a test panics if its assumptions fail")]

use crate::jetson::Jetson;
use protocol::{StateCommand, StateReply, StateRequest};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// A board with its user's home folder.
pub(crate) struct Board {
    pub(crate) jetson: Jetson,
    pub(crate) folder: tempfile::TempDir,
}

impl Board {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("home")).unwrap();
        Self { jetson: Jetson::new(&folder.path().join("board")), folder }
    }

    pub(crate) fn saved(&self) -> PathBuf {
        self.folder.path().join("home/.local/state/edgepipe/board-state.json")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.folder.path().join("lock")
    }

    pub(crate) fn runner(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
        let path = format!("{}:/usr/bin:/bin", self.jetson.bin().display());
        command.args(arguments).env_clear().env("PATH", path).env("USER", "nvidia");
        command.env("HOME", self.folder.path().join("home")).env("EDGEPIPE_LOCK", self.lock());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }

    pub(crate) fn keep(&self, by: &str) -> Keeper {
        Keeper::start(&mut self.runner(&["hold", by]))
    }

    pub(crate) fn request(&self) -> StateRequest {
        StateRequest {
            sysfs: self.jetson.sysfs().to_str().unwrap().to_owned(),
            nvpmodel: None,
            jetson_clocks: None,
            governor: None,
            cpu_limits: Vec::new(),
            gpu_max_hz: None,
            memory_hz: None,
        }
    }

    /// The request in the committed file of a Jetson.
    pub(crate) fn maxn(&self) -> StateRequest {
        StateRequest { nvpmodel: Some(0), jetson_clocks: Some(true), ..self.request() }
    }

    /// Waits until the state is restored and the saved one is removed.
    #[track_caller]
    pub(crate) fn wait_for(&self, state: &str) {
        let deadline = Instant::now() + Duration::from_secs(300);
        while self.jetson.state() != state || self.saved().exists() {
            assert!(Instant::now() < deadline, "{}\nis not\n{state}", self.jetson.state());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A keeper at work.
pub(crate) struct Keeper {
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Keeper {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut keeper = Self { child, stdin, stdout };
        assert_eq!(keeper.line(), r#"{"acquired":{}}"#);
        keeper
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    pub(crate) fn ask(&mut self, keep: &StateCommand) -> StateReply {
        let line = format!("{}\n", serde_json::to_string(keep).unwrap());
        self.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
        let answer = self.line();
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{answer:?}: {error}"))
    }

    #[track_caller]
    pub(crate) fn set(&mut self, request: StateRequest) -> protocol::AppliedState {
        match self.ask(&StateCommand::Set(request)) {
            StateReply::Set(applied) => *applied,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn fails(&mut self, request: StateRequest) -> String {
        match self.ask(&StateCommand::Set(request)) {
            StateReply::Failed { message } => message,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn end(mut self) {
        drop(self.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}
