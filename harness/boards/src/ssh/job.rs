//! A script that runs on a host, with a file as its input.

use super::error::SshError;
use super::pump::Sending;
use super::script::MARK;
use super::socket::unblock;
use super::status::Status;
use crate::ending::{End, Ending};
use host::interrupt::Interrupt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Longest time for a login shell to start the script.
const SHELL: Duration = Duration::from_secs(20);
/// Most bytes that a script may print. The largest output, about the files of a network, is below 1 MB.
const MAX_OUTPUT: usize = 16 << 20;
/// Interval of the check for Ctrl-C, in ns.
const PAUSE_NS: i64 = 50_000_000;
/// The same while input is sent.
const SENDING_NS: i64 = 2_000_000;

/// What a program printed, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its standard output from the script's beginning on.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// How it ended.
    pub ending: Ending,
}

/// Our ends of a program's output.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// A running script. Dropping this stops sending its input.
#[derive(Debug)]
pub struct Job<'a> {
    status: &'a Status,
    what: String,
    streams: [Stream; 2],
    end: Arc<End>,
    sending: Arc<Sending>,
    sent: u64,
    has_begun: bool,
    silence: Duration,
    deadline: Instant,
}

#[derive(Debug)]
struct Stream {
    fd: Option<OwnedFd>,
    text: Vec<u8>,
}

impl<'a> Job<'a> {
    pub(super) fn new(
        status: &'a Status,
        what: &str,
        said: Said,
        end: Arc<End>,
        sending: Arc<Sending>,
        silence: Duration,
    ) -> Result<Self, SshError> {
        for fd in [&said.stdout, &said.stderr] {
            unblock(fd.as_fd()).map_err(|error| status.failed(what, error.to_string()))?;
        }
        let streams = [said.stdout, said.stderr].map(|fd| Stream { fd: Some(fd), text: Vec::new() });
        let (what, deadline) = (what.to_owned(), Instant::now() + silence.min(SHELL));
        Ok(Self { status, what, streams, end, sending, sent: 0, has_begun: false, silence, deadline })
    }

    /// Waits until all input is sent, or the script takes no more.
    ///
    /// # Errors
    /// If there is no progress for too long, the file cannot be read, or the user interrupts.
    pub fn send(&mut self, interrupt: &Interrupt) -> Result<(), SshError> {
        while !self.sending.is_through.load(Relaxed) && !self.has_ended() {
            self.step(SENDING_NS, interrupt)?;
        }
        Ok(())
    }

    /// Waits for the script's end.
    ///
    /// # Errors
    /// As [`Job::send`], and if the login shell did not start the script, or the connection is lost.
    pub fn finish(mut self, interrupt: &Interrupt) -> Result<Output, SshError> {
        // The caller may have waited for other scripts since the last check.
        self.deadline = Instant::now() + self.patience();
        while !self.has_ended() {
            self.step(PAUSE_NS, interrupt)?;
        }
        let ending = self.end.wait(self.silence);
        let ending = ending.unwrap_or_else(|| Ending::Lost("it did not end".to_owned()));
        if let Ending::Lost(reason) = ending {
            let lost = SshError::Lost { host: self.status.host.clone(), reason };
            return Err(self.status.lost().unwrap_or(lost));
        }
        if let Some(error) = self.sending.broken.get() {
            return Err(self.status.failed(&self.what, format!("its input cannot be read: {error}")));
        }
        let [stdout, stderr] =
            [0, 1].map(|number| String::from_utf8_lossy(&self.streams[number].text).into_owned());
        let Some((_, after)) = stdout.split_once(&format!("{MARK}\n")) else {
            let reason = format!(
                "its login shell did not start /bin/sh (it {}); it printed {:?}",
                ending.describe(),
                format!("{stdout}{stderr}").trim().chars().take(200).collect::<String>()
            );
            return Err(self.status.failed(&self.what, reason));
        };
        Ok(Output { stdout: after.to_owned(), stderr, ending })
    }

    fn has_ended(&self) -> bool {
        self.streams.iter().all(|stream| stream.fd.is_none())
    }

    /// Reads output, or waits for it.
    fn step(&mut self, pause_ns: i64, interrupt: &Interrupt) -> Result<(), SshError> {
        let failed = |error: Errno| self.status.failed(&self.what, error.to_string());
        let mut buffer = [0; 16 << 10];
        let mut heard = false;
        for Stream { fd, text } in &mut self.streams {
            match fd.as_ref().map(|fd| rustix::io::read(fd, &mut buffer)) {
                Some(Ok(0)) => *fd = None,
                Some(Ok(count)) => text.extend_from_slice(&buffer[..count]),
                Some(Err(Errno::AGAIN | Errno::INTR)) | None => continue,
                Some(Err(error)) => return Err(failed(error)),
            }
            heard = true;
        }
        let before = std::mem::replace(&mut self.sent, self.sending.sent.load(Relaxed));
        if self.streams.iter().any(|stream| stream.text.len() > MAX_OUTPUT) {
            let reason = format!("it printed more than {} MiB", MAX_OUTPUT >> 20);
            return Err(self.status.failed(&self.what, reason));
        }
        if heard || self.sent != before {
            self.has_begun = self.has_begun || contains(&self.streams[0].text, MARK);
            self.deadline = Instant::now() + self.patience();
        }
        if interrupt.is_set() {
            return Err(SshError::Interrupted);
        }
        if heard {
            return Ok(());
        }
        if Instant::now() >= self.deadline {
            let (what, host) = (self.what.clone(), self.status.host.clone());
            let after = self.patience();
            return Err(if self.has_begun {
                SshError::Late { what, host, after }
            } else {
                SshError::Shell { what, host, after }
            });
        }
        let mut fds: Vec<PollFd<'_>> = self
            .streams
            .iter()
            .filter_map(|stream| stream.fd.as_ref())
            .map(|fd| PollFd::new(fd, PollFlags::IN))
            .collect();
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: pause_ns })) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    fn patience(&self) -> Duration {
        if self.has_begun { self.silence } else { self.silence.min(SHELL) }
    }
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        self.sending.is_given_up.store(true, Relaxed);
    }
}

fn contains(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}
