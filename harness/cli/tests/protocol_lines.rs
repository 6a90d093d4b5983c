//! No request makes the runner panic, end, or grow: each line is answered, sound or not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where its assumptions do")]

use host::mutation::{cases, mutated};
use proptest::prelude::*;
use protocol::{Event, Request};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Longer than any answer takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// Most memory of a runner, which holds nothing between requests.
const MOST_KIB: u64 = 1 << 20;

fn corpus() -> Vec<Vec<u8>> {
    let text = include_str!("corpus/requests.jsonl");
    text.lines().map(|line| line.as_bytes().to_vec()).collect()
}

struct Runner {
    child: Child,
    lines: Receiver<String>,
    // Dropped after the runner has ended.
    folder: tempfile::TempDir,
}

impl Runner {
    fn start() -> Self {
        let program = std::env::var("EDGEPIPE_RUNNER").expect("run this with `cargo xtask test`");
        let folder = tempfile::tempdir().unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(program);
        command.current_dir(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let (sender, lines) = std::sync::mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let runner = Self { child, lines, folder };
        assert!(matches!(runner.event(), Event::Hello(_)));
        runner
    }

    fn event(&self) -> Event {
        let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            panic!("{error}: {}", fs::read_to_string(self.folder.path().join("log")).unwrap_or_default())
        });
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"))
    }

    fn answer(&mut self, line: &[u8]) -> Event {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(line).and_then(|()| stdin.write_all(b"\n")).unwrap();
        loop {
            match self.event() {
                Event::Phase { .. } => {}
                event => return event,
            }
        }
    }

    fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it is running");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a sound request would rightly take long or much memory: it asks for that.
fn asks_for_much(request: &Request) -> bool {
    match request {
        Request::Transfer(request) => {
            request.rounds > 100
                || request.sizes.len() > 100
                || request.sizes.iter().any(|size| *size > 1 << 20)
        }
        Request::Peak(request) => {
            request.rounds > 20
                || request.streams.len() > 20
                || request.streams.iter().any(|size| *size > 1 << 20)
        }
        Request::Idle(request) => request.duration_ns > 1_000_000_000,
        _ => false,
    }
}

static RUNNER: Mutex<Option<Runner>> = Mutex::new(None);

#[test]
fn the_corpus_is_sound() {
    for line in corpus() {
        serde_json::from_slice::<Request>(&line)
            .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(&line)));
    }
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    #[ignore = "needs the runner; run by cargo xtask test"]
    fn mutated_requests(line in mutated(corpus())) {
        // A line break makes several requests of it, an empty one is a heartbeat.
        let line: Vec<u8> = line.into_iter().filter(|byte| *byte != b'\n').collect();
        if serde_json::from_slice::<Request>(&line).is_ok_and(|request| asks_for_much(&request)) {
            return Ok(());
        }
        let mut shared = RUNNER.lock().unwrap_or_else(|poisoned| {
            // It answered the last one wrongly; begin anew.
            let mut guard = poisoned.into_inner();
            *guard = None;
            guard
        });
        let runner = shared.get_or_insert_with(Runner::start);
        match runner.answer(&line) {
            Event::Failed { message, fault, .. } => {
                prop_assert!(!message.is_empty() && message.len() < 20_000);
                prop_assert!(fault != protocol::Fault::Internal, "{}", message);
            }
            Event::Heartbeat {} => prop_assert!(line.trim_ascii().is_empty()),
            _ => {}
        }
        prop_assert!(runner.resident_kib() < MOST_KIB);
    }
}
