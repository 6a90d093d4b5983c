//! A bench at work on a board of the farm.

use super::{Farm, variable};
use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Benches disturb each other; so the tests of a program that have one come one by one.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static BENCH: Mutex<()> = Mutex::new(());
    BENCH.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bench at work, line by line of what it says.
pub(crate) struct Bench {
    pub(crate) child: Child,
    lines: std::sync::mpsc::Receiver<String>,
    pub(crate) said: Vec<String>,
}

impl Bench {
    /// Starts a bench of the experiment tiny on the board "loopback". Its log tells each request and phase.
    pub(crate) fn start(farm: &Farm, arguments: &[&str]) -> Self {
        Self::start_on(farm, &["--board", "loopback"], arguments)
    }

    /// The same on other boards.
    pub(crate) fn start_on(farm: &Farm, boards: &[&str], arguments: &[&str]) -> Self {
        Self::of(farm, &[&["bench", "--experiment", "tiny"], boards, arguments].concat())
    }

    /// The same with any command that measures.
    pub(crate) fn of(farm: &Farm, arguments: &[&str]) -> Self {
        variable("EDGEPIPE_PYTHON");
        let mut command: Command = farm.harness(arguments);
        command.env("EDGEPIPE_LOG", "debug");
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in std::io::BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, said: Vec::new() }
    }

    /// Waits until it says this.
    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) {
        self.until_any(&[text]);
    }

    /// Waits until it says one of these.
    #[track_caller]
    pub(crate) fn until_any(&mut self, texts: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(600);
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push(line);
                    let line = self.said.last().unwrap();
                    if texts.iter().any(|text| line.contains(text)) {
                        return;
                    }
                }
                Err(error) => panic!("{texts:?} was not said ({error}): {}", self.said.join("\n")),
            }
        }
    }

    /// Waits until it says these one after another, does something, and waits for what it says about that: `told`, in a line about the
    /// request at work. On a machine in use, that request may have been answered before; then the error is what was said.
    #[track_caller]
    pub(crate) fn disturbed(
        &mut self,
        moment: &[&str],
        act: impl FnOnce(),
        told: &str,
    ) -> Result<(), String> {
        for text in moment {
            self.until(text);
        }
        let from = self.said.len();
        act();
        self.until_any(&["retrying", ": failed"]);
        let since = &self.said[from..];
        let (last, before) = since.split_last().unwrap();
        let is_late = before.iter().any(|line| line.ends_with(": asked") || line.ends_with("frames/s"));
        let request = moment.last().and_then(|text| text.strip_suffix(": asked")).unwrap_or("");
        if last.contains(told) && last.contains(request) && !is_late {
            return Ok(());
        }
        Err(format!("after {moment:?}: {}", since.join("\n")))
    }

    /// What it has said since the last call of another function, without waiting.
    pub(crate) fn said_since(&mut self) -> String {
        let lines: Vec<String> = self.lines.try_iter().collect();
        self.said.extend(lines.iter().cloned());
        lines.join("\n")
    }

    /// Ends it at once.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its next line; false at its end.
    pub(crate) fn next(&mut self) -> bool {
        let line = self.lines.recv().ok();
        self.said.extend(line.clone());
        line.is_some()
    }

    /// Waits for its end: exit code and all it said.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        self.said.extend(self.lines.iter());
        (self.child.wait().unwrap().code(), self.said.join("\n"))
    }
}

/// Lines of trials that were measured, and of trials that failed.
pub(crate) fn trials(said: &str) -> (usize, usize) {
    let count =
        |end: &str| said.lines().filter(|line| line.contains(", round ") && line.ends_with(end)).count();
    (count("frames/s"), count(": failed"))
}

/// Rows of the latest run in the database.
pub(crate) fn rows(farm: &Farm) -> Vec<serde_json::Value> {
    let (json, _) = farm.run(&["report", "--format", "json"], 0);
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    report["rows"].as_array().unwrap().clone()
}

/// Trials in the database: measured and failed.
pub(crate) fn stored(farm: &Farm) -> (u64, u64) {
    let database = rusqlite::Connection::open(farm.path("results.db")).unwrap();
    let count = |status: &str| {
        let sql = "SELECT count(*) FROM trials WHERE status = ?1";
        database.query_row(sql, [status], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned()
    };
    (count("measured"), count("failed"))
}

/// Goes through something until its moments were met, and no more than twelve times: on a machine in use, a test may act later than
/// it means to. `go` returns what came too late.
#[track_caller]
pub(crate) fn repeated(mut go: impl FnMut() -> Result<(), String>) {
    let mut late = Vec::new();
    for _ in 0..12 {
        match go() {
            Ok(()) => return,
            Err(what) => late.push(what),
        }
    }
    panic!("too late each time: {}", late.join("\n\n"));
}
