//! The link to a runner: one process, requests out, events in, a deadline on every answer.

use protocol::{Event, Fault, Hello, Request};
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;

use crate::interrupt::Interrupt;

/// Time a runner has to say hello.
const HELLO: Duration = Duration::from_secs(20);
/// Longest line taken from a runner. A trial of 100,000 frames needs about 4 MB.
const LONGEST_LINE: u64 = 256 << 20;
/// Lines of the runner's log kept for messages.
const LOG_LINES: usize = 12;

/// What goes wrong with a runner.
#[derive(Debug, Error)]
pub enum SessionError {
    /// It could not be started.
    #[error("failed to start the runner {}: {reason}", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// It speaks another version.
    #[error(
        "failed to talk to the runner {}: it speaks protocol {found}, this harness {}; build it again by `cargo xtask build`",
        path.display(),
        protocol::VERSION
    )]
    Version {
        /// The program.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It ended.
    #[error("failed to go on: the runner {ending} during {during}{log}")]
    Died {
        /// How it ended.
        ending: String,
        /// What it was doing.
        during: String,
        /// Its last words.
        log: String,
    },
    /// It said nothing for too long.
    #[error("failed to go on: the runner gave no answer to {during} within {} s and was ended{log}", after.as_secs())]
    Hung {
        /// What it was doing.
        during: String,
        /// How long it was given.
        after: Duration,
        /// Its last words.
        log: String,
    },
    /// It printed something else than an event.
    #[error("failed to understand the runner during {during}: it printed {printed:?} and was ended{log}")]
    Garbage {
        /// What it was doing.
        during: String,
        /// The beginning of the line.
        printed: String,
        /// Its last words.
        log: String,
    },
    /// It refused the request; it is still there.
    #[error("failed to {during}: the runner reports: {message}")]
    Refused {
        /// What it was doing.
        during: String,
        /// Kind of failure.
        fault: Fault,
        /// The runner's words.
        message: String,
    },
    /// The user pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl SessionError {
    /// What the runner calls the failure, where it said so.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Refused { fault, .. } => Some(*fault),
            _ => None,
        }
    }

    /// Whether the runner is gone and a new one is needed.
    pub fn ends_session(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }
}

/// A running runner.
#[derive(Debug)]
pub struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<std::io::Result<Vec<u8>>>,
    log: Arc<Mutex<VecDeque<String>>>,
    next_id: u64,
    /// What it said of itself.
    pub hello: Hello,
}

impl Session {
    /// Starts a runner on this machine and waits for its hello.
    ///
    /// # Errors
    /// Where it does not start, or speaks another version.
    pub fn start(runner: &Path) -> Result<Self, SessionError> {
        let mut child = Command::new(runner)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is the harness' to handle; the end of stdin ends the runner.
            .process_group(0)
            .spawn()
            .map_err(|reason| SessionError::Start { path: runner.to_path_buf(), reason })?;
        let log = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(stderr) = child.stderr.take() {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    tracing::debug!(target: "runner", "{line}");
                    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                    if log.len() == LOG_LINES {
                        log.pop_front();
                    }
                    log.push_back(line);
                }
            });
        }
        let (sender, lines) = std::sync::mpsc::sync_channel(64);
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stdout);
                loop {
                    let mut line = Vec::new();
                    let result = std::io::Read::take(&mut reader, LONGEST_LINE).read_until(b'\n', &mut line);
                    let end = !matches!(result, Ok(read) if read > 0);
                    if end || sender.send(result.map(|_| line)).is_err() {
                        return;
                    }
                }
            });
        }
        let stdin = child.stdin.take();
        let hello = Hello { protocol: 0, runner: String::new(), pid: 0 };
        let mut session = Self { child, stdin, lines, log, next_id: 1, hello };
        match session.receive("its start", Instant::now() + HELLO, HELLO, None)? {
            Event::Hello(hello) if hello.protocol == protocol::VERSION => session.hello = hello,
            Event::Hello(hello) => {
                session.end();
                return Err(SessionError::Version { path: runner.to_path_buf(), found: hello.protocol });
            }
            other => return Err(session.garbage("its start", format!("{other:?}").as_bytes())),
        }
        Ok(session)
    }

    /// A fresh request number.
    pub fn id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Sends a request and waits for its answer. `during` completes "failed to …" and names the request.
    ///
    /// # Errors
    /// Where the runner refuses, dies, hangs, prints something else, or the user interrupts.
    pub fn request(
        &mut self,
        request: &Request,
        during: &str,
        patience: Duration,
        interrupt: &Interrupt,
    ) -> Result<Event, SessionError> {
        let mut line = match serde_json::to_vec(request) {
            Ok(line) => line,
            Err(error) => return Err(self.garbage(during, error.to_string().as_bytes())),
        };
        line.push(b'\n');
        let sent = self.stdin.as_mut().map(|stdin| stdin.write_all(&line).and_then(|()| stdin.flush()));
        if !matches!(sent, Some(Ok(()))) {
            return Err(self.died(during));
        }
        let deadline = Instant::now() + patience;
        loop {
            match self.receive(during, deadline, patience, Some(interrupt))? {
                Event::Phase { phase, .. } => tracing::debug!("{during}: {phase:?}"),
                Event::Failed { fault, message, .. } => {
                    return Err(SessionError::Refused { during: during.to_owned(), fault, message });
                }
                event => return Ok(event),
            }
        }
    }

    fn receive(
        &mut self,
        during: &str,
        deadline: Instant,
        patience: Duration,
        interrupt: Option<&Interrupt>,
    ) -> Result<Event, SessionError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left.min(Duration::from_millis(50))) {
                Ok(Ok(line)) => {
                    return match serde_json::from_slice(&line) {
                        Ok(event) => Ok(event),
                        Err(_) => Err(self.garbage(during, &line)),
                    };
                }
                Ok(Err(error)) => return Err(self.garbage(during, error.to_string().as_bytes())),
                Err(RecvTimeoutError::Disconnected) => return Err(self.died(during)),
                Err(RecvTimeoutError::Timeout) if interrupt.is_some_and(Interrupt::is_set) => {
                    self.end();
                    return Err(SessionError::Interrupted);
                }
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    self.end();
                    let log = self.last_words();
                    return Err(SessionError::Hung { during: during.to_owned(), after: patience, log });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn died(&mut self, during: &str) -> SessionError {
        self.stdin = None;
        let deadline = Instant::now() + Duration::from_secs(2);
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                Ok(None) | Err(_) => break None,
            }
        };
        self.end();
        let ending = status.map_or_else(|| "closed its output".to_owned(), describe);
        SessionError::Died { ending, during: during.to_owned(), log: self.last_words() }
    }

    fn garbage(&mut self, during: &str, line: &[u8]) -> SessionError {
        self.end();
        let printed: String = String::from_utf8_lossy(line).trim_end().chars().take(120).collect();
        SessionError::Garbage { during: during.to_owned(), printed, log: self.last_words() }
    }

    fn last_words(&self) -> String {
        // The log's own thread may still be reading what the process left behind.
        std::thread::sleep(Duration::from_millis(50));
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.is_empty() {
            return "; it left no log".to_owned();
        }
        format!("; its last words:\n  {}", log.iter().cloned().collect::<Vec<_>>().join("\n  "))
    }

    /// Ends the runner: end of input first, then by force.
    pub fn end(&mut self) {
        self.stdin = None;
        let deadline = Instant::now() + Duration::from_millis(500);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // It is ours and did not heed the end of its input; a failure to kill means it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(9)) => "was killed (signal 9; out of memory, perhaps)".to_owned(),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
