//! A session with a runner: one process, requests out, events in, a deadline for each answer.

use protocol::{Event, Fault, Hello, Request};
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;

use crate::ending::Ending;
use crate::error::RemoteError;
use crate::process::Process;
use crate::remote::SILENCE;
use crate::ssh;
use host::exit::{Coded, Exit};
use host::interrupt::Interrupt;

/// Timeout of the runner's hello. An emulated runner starts in a second, and sixteen of them may share two cores.
const HELLO: Duration = Duration::from_secs(60);
/// Longest line of a runner's log; a longer one is split.
const LONGEST_LOG_LINE: u64 = 64 << 10;
/// Lines of the runner's log kept for messages.
const LOG_LINES: usize = 12;

/// Why a request to a runner failed.
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
    /// It has another protocol version.
    #[error(
        "failed to use the runner: it has protocol version {found}, and this harness {}; {}",
        protocol::VERSION,
        host::new_runner()
    )]
    Version {
        /// Its version.
        found: u32,
    },
    /// It ended.
    #[error("failed to {during}: the runner {ending}{log}")]
    Died {
        /// How it ended.
        ending: String,
        /// Completes "failed to …".
        during: String,
        /// The last lines of its log.
        log: String,
    },
    /// It did not answer in time.
    #[error("failed to {during}: the runner gave no answer within {} s and was ended{log}", after.as_secs())]
    Hung {
        /// Completes "failed to …".
        during: String,
        /// Its timeout.
        after: Duration,
        /// The last lines of its log.
        log: String,
    },
    /// The connection to it is lost.
    #[error("failed to {during}: {reason}")]
    Lost {
        /// Completes "failed to …".
        during: String,
        /// Why.
        reason: String,
    },
    /// The board can no longer be used.
    #[error(transparent)]
    Board(RemoteError),
    /// It printed something that is not an event.
    #[error("failed to {during}: the runner printed {printed:?}, which is not an event, and was ended{log}")]
    Garbage {
        /// Completes "failed to …".
        during: String,
        /// The beginning of the line.
        printed: String,
        /// The last lines of its log.
        log: String,
    },
    /// It refused the request, and is still running.
    #[error("failed to {during}: the runner reports: {message}")]
    Refused {
        /// Completes "failed to …".
        during: String,
        /// Kind of failure.
        fault: Fault,
        /// The runner's message.
        message: String,
    },
    /// The board does not cool down.
    #[error(
        "failed to start the trial: {zone} is at {celsius:.1} °C after waiting {} minutes, and the limit is {limit} °C; \
         cool the board, or raise `state: {{ max_temperature_c }}` in its file",
        after.as_secs() / 60
    )]
    Hot {
        /// The hottest zone.
        zone: String,
        /// Its temperature.
        celsius: f64,
        /// The limit.
        limit: f64,
        /// Time spent waiting.
        after: Duration,
    },
    /// The board no longer reports a temperature.
    #[error(
        "failed to start the trial: the board no longer reports a temperature ({silent}), so the limit of {limit} °C cannot \
         be checked; `{} boards` shows its thermal zones",
        host::program()
    )]
    NoTemperature {
        /// Zones without a temperature, and why.
        silent: String,
        /// The limit.
        limit: f64,
    },
    /// The board cannot be brought to an operating point.
    #[error(
        "failed to start the trial: the board cannot be brought to the operating point {point}: {reason}"
    )]
    Point {
        /// The point.
        point: String,
        /// The board's message.
        reason: String,
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
    /// The kind of failure that the runner reported, if any.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Refused { fault, .. } => Some(*fault),
            _ => None,
        }
    }

    /// Whether the request may succeed after reconnecting.
    pub fn is_lost_link(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    /// Whether a new runner is needed.
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
    /// Its hello.
    pub hello: Hello,
}

impl Session {
    /// Waits for the hello of a runner that was started.
    ///
    /// # Errors
    /// If there is none, or the protocol version differs.
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
                // If the script never began, its exit status tells more.
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
        match session.receive("start the runner", Instant::now() + HELLO, HELLO, None)? {
            Event::Hello(hello) if hello.protocol == protocol::VERSION => {
                session.process.set_pid(hello.pid);
                session.hello = hello;
            }
            Event::Hello(hello) => {
                session.end();
                return Err(SessionError::Version { found: hello.protocol });
            }
            other => return Err(session.garbage("start the runner", format!("{other:?}").as_bytes())),
        }
        Ok(session)
    }

    /// Sends a request and waits for its answer. `during` completes "failed to …".
    ///
    /// # Errors
    /// If the runner refuses, ends, hangs or prints something else, or the user interrupts.
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
                    let log = self.log_tail();
                    return Err(SessionError::Hung { during: during.to_owned(), after: patience, log });
                }
                // A runner sends heartbeats every few seconds, even during a request.
                Err(RecvTimeoutError::Timeout)
                    if self.process.is_remote() && self.heard.elapsed() > SILENCE =>
                {
                    self.end();
                    let reason = format!(
                        "the runner sent nothing for {} s, not even a heartbeat{}",
                        SILENCE.as_secs(),
                        self.log_tail()
                    );
                    return Err(SessionError::Lost { during: during.to_owned(), reason });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn died(&mut self, during: &str) -> SessionError {
        self.process.close_stdin();
        // A busy machine may take long to say how it ended.
        let ending = self.process.wait(Duration::from_secs(10));
        if ending.is_none() {
            self.end();
        }
        if let Some(reason) = ending.as_ref().and_then(Ending::lost) {
            return SessionError::Lost { during: during.to_owned(), reason };
        }
        let log = self.log_tail();
        let ending =
            ending.map_or_else(|| "closed its output".to_owned(), |ending| ending.describe_with(&log));
        SessionError::Died { ending, during: during.to_owned(), log }
    }

    fn garbage(&mut self, during: &str, line: &[u8]) -> SessionError {
        self.end();
        let printed: String = String::from_utf8_lossy(line).trim_end().chars().take(120).collect();
        SessionError::Garbage { during: during.to_owned(), printed, log: self.log_tail() }
    }

    fn log_tail(&self) -> String {
        // The thread that reads the log may not have finished.
        std::thread::sleep(Duration::from_millis(50));
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.is_empty() {
            return "; its log is empty".to_owned();
        }
        format!("; its log ends with:\n  {}", log.iter().cloned().collect::<Vec<_>>().join("\n  "))
    }

    /// Why the runner is gone, if only its link failed; see [`Ending::lost`].
    pub fn lost(&mut self) -> Option<String> {
        self.process.wait(Duration::ZERO)?.lost()
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
