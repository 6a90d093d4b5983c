//! The link to a runner: one process, requests out, events in, a deadline on every answer.

use protocol::{Event, Fault, Hello, Request};
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;

use crate::process::{Ending, Process};
use crate::{RemoteError, SILENCE, ssh};
use host::exit::{Coded, Exit};
use host::interrupt::Interrupt;

/// Time a runner has to say hello: an emulated one starts in a second, and sixteen of them share two cores.
const HELLO: Duration = Duration::from_secs(60);
/// Longest line taken from a runner's log; what is longer counts as several.
const LONGEST_LOG_LINE: u64 = 64 << 10;
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
        "failed to talk to the runner: it speaks protocol {found}, this harness {}; {remedy}",
        protocol::VERSION, remedy = host::new_runner())]
    Version {
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
    /// The link to it is lost.
    #[error("failed to {during}: {reason}")]
    Lost {
        /// What it was doing.
        during: String,
        /// Why.
        reason: String,
    },
    /// The board cannot be had any longer.
    #[error(transparent)]
    Board(RemoteError),
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
    /// The board does not cool down.
    #[error(
        "failed to begin the trial: {zone} is at {celsius:.1} °C after {} minutes of waiting, and trials begin below \
         {limit} °C; cool the board, or raise `state: {{ max_temperature_c }}` in its file",
        after.as_secs() / 60
    )]
    Hot {
        /// The hottest zone.
        zone: String,
        /// Its temperature.
        celsius: f64,
        /// Where trials begin.
        limit: f64,
        /// How long it was waited.
        after: Duration,
    },
    /// No zone of the board gives a temperature any more.
    #[error(
        "failed to begin the trial: no zone of the board gives a temperature any more, and trials begin below {limit} °C \
         ({silent}); `{program} boards` shows the zones", program = host::program())]
    NoTemperature {
        /// The zones that give none, and why.
        silent: String,
        /// Where trials begin.
        limit: f64,
    },
    /// The user pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl Coded for SessionError {
    fn exit(&self) -> Exit {
        match self {
            Self::Board(error) => error.exit(),
            Self::Start { .. } | Self::Version { .. } | Self::Lost { .. } => Exit::Board,
            _ => Exit::Trial,
        }
    }
}

impl SessionError {
    /// What the runner calls the failure, where it said so.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Refused { fault, .. } => Some(*fault),
            _ => None,
        }
    }

    /// Whether the same request may succeed once the board is reached again.
    pub fn is_lost_link(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    /// Whether the runner is gone and a new one is needed.
    pub fn ends_session(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }
}

impl From<RemoteError> for SessionError {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Interrupted => Self::Interrupted,
            error => Self::Board(error),
        }
    }
}

/// A running runner.
#[derive(Debug)]
pub struct Session {
    process: Process,
    heard: Instant,
    lines: Receiver<std::io::Result<Vec<u8>>>,
    log: Arc<Mutex<VecDeque<String>>>,
    /// What it said of itself.
    pub hello: Hello,
}

impl Session {
    /// Waits for the hello of a runner that was started.
    ///
    /// # Errors
    /// Where it gives none, or speaks another version.
    pub fn new(mut process: Process) -> Result<Self, SessionError> {
        let is_remote = process.is_remote();
        let log = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(stderr) = process.take_stderr() {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stderr);
                loop {
                    let mut line = Vec::new();
                    let read =
                        std::io::Read::take(&mut reader, LONGEST_LOG_LINE).read_until(b'\n', &mut line);
                    if !matches!(read, Ok(count) if count > 0) {
                        return;
                    }
                    let line = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
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
        if let Some(stdout) = process.take_stdout() {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stdout);
                // Where the script never began, how it ended tells more.
                if is_remote && ssh::skip_noise(&mut reader).is_err() {
                    return;
                }
                loop {
                    let mut line = Vec::new();
                    let result = std::io::Read::take(&mut reader, protocol::MAX_LINE_BYTES)
                        .read_until(b'\n', &mut line);
                    let end = !matches!(result, Ok(read) if read > 0);
                    if end || sender.send(result.map(|_| line)).is_err() {
                        return;
                    }
                }
            });
        }
        let hello = Hello { protocol: 0, runner: String::new(), pid: 0 };
        let mut session = Self { process, heard: Instant::now(), lines, log, hello };
        match session.receive("its start", Instant::now() + HELLO, HELLO, None)? {
            Event::Hello(hello) if hello.protocol == protocol::VERSION => {
                session.process.set_pid(hello.pid);
                session.hello = hello;
            }
            Event::Hello(hello) => {
                session.end();
                return Err(SessionError::Version { found: hello.protocol });
            }
            other => return Err(session.garbage("its start", format!("{other:?}").as_bytes())),
        }
        Ok(session)
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
        if self.process.write(&line).is_err() {
            return Err(self.died(during));
        }
        tracing::debug!("{during}: asked");
        let deadline = Instant::now() + patience;
        self.heard = Instant::now();
        loop {
            match self.receive(during, deadline, patience, Some(interrupt))? {
                Event::Heartbeat {} => {}
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
                    self.heard = Instant::now();
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
                // Heartbeats come every few seconds, whatever the runner works at.
                Err(RecvTimeoutError::Timeout)
                    if self.process.is_remote() && self.heard.elapsed() > SILENCE =>
                {
                    self.end();
                    let reason = format!(
                        "neither the runner nor the link gave a sign of life for {} s{}",
                        SILENCE.as_secs(),
                        self.last_words()
                    );
                    return Err(SessionError::Lost { during: during.to_owned(), reason });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn died(&mut self, during: &str) -> SessionError {
        self.process.close_stdin();
        let ending = self.process.wait(Duration::from_secs(2));
        if ending.is_none() {
            self.end();
        }
        match ending {
            Some(Ending::Lost(reason)) => SessionError::Lost { during: during.to_owned(), reason },
            ending => {
                let log = self.last_words();
                let ending = ending
                    .map_or_else(|| "closed its output".to_owned(), |ending| ending.describe_with(&log));
                SessionError::Died { ending, during: during.to_owned(), log }
            }
        }
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
        self.process.close_stdin();
        if self.process.wait(Duration::from_millis(500)).is_none() {
            self.process.kill();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests;
