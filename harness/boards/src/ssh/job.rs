//! A script at work on a host, with a file as its input.

use super::connection::Connection;
use super::error::SshError;
use super::pump::{Sending, unblock};
use super::script::MARK;
use crate::process::{End, Ending};
use host::interrupt::Interrupt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Longest silence of a login shell before the script begins.
const SHELL: Duration = Duration::from_secs(20);
/// Most that a script may say, in bytes. The longest, about the files of a network, says less than 1 MB.
const MOST_SAID: usize = 16 << 20;
/// Pause between two looks at whether the user interrupts, in ns.
const PAUSE_NS: i64 = 50_000_000;
/// The same at how much was sent, where that is waited for.
const SENDING_NS: i64 = 2_000_000;

/// What a program said, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its standard output from the script's beginning on.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// How it ended.
    pub ending: Ending,
}

/// Our ends of what a program says.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// A script that was begun. Dropped before its end, nothing more is sent to it.
#[derive(Debug)]
pub struct Job<'a> {
    connection: &'a Connection,
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
        connection: &'a Connection,
        what: &str,
        said: Said,
        end: Arc<End>,
        sending: Arc<Sending>,
        silence: Duration,
    ) -> Result<Self, SshError> {
        for fd in [&said.stdout, &said.stderr] {
            unblock(fd.as_fd()).map_err(|error| connection.failed(what, error.to_string()))?;
        }
        let streams = [said.stdout, said.stderr].map(|fd| Stream { fd: Some(fd), text: Vec::new() });
        let (what, deadline) = (what.to_owned(), Instant::now() + silence.min(SHELL));
        Ok(Self { connection, what, streams, end, sending, sent: 0, has_begun: false, silence, deadline })
    }

    /// Waits until all of its input was sent, or it takes no more.
    ///
    /// # Errors
    /// Where nothing moves for too long, the file cannot be read, or the user interrupts.
    pub fn send(&mut self, interrupt: &Interrupt) -> Result<(), SshError> {
        while !self.sending.is_through.load(Relaxed) && !self.has_ended() {
            self.step(SENDING_NS, interrupt)?;
        }
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// As [`Job::send`], and where its shell never began with it, or the link is lost.
    pub fn finish(mut self, interrupt: &Interrupt) -> Result<Output, SshError> {
        // Others may have been waited for since it was looked at last.
        self.deadline = Instant::now() + self.patience();
        while !self.has_ended() {
            self.step(PAUSE_NS, interrupt)?;
        }
        let ending = self.end.wait(self.silence);
        let ending = ending.unwrap_or_else(|| Ending::Lost("it did not end".to_owned()));
        if let Ending::Lost(reason) = ending {
            let lost = SshError::Lost { host: self.connection.host().to_owned(), reason };
            return Err(self.connection.lost().unwrap_or(lost));
        }
        if let Some(error) = self.sending.broken.get() {
            return Err(self.connection.failed(&self.what, format!("its input cannot be read: {error}")));
        }
        let [stdout, stderr] =
            [0, 1].map(|number| String::from_utf8_lossy(&self.streams[number].text).into_owned());
        let Some((_, after)) = stdout.split_once(&format!("{MARK}\n")) else {
            let reason = format!(
                "its login shell started no /bin/sh (it {}); it printed {:?}",
                ending.describe(),
                format!("{stdout}{stderr}").trim().chars().take(200).collect::<String>()
            );
            return Err(self.connection.failed(&self.what, reason));
        };
        Ok(Output { stdout: after.to_owned(), stderr, ending })
    }

    fn has_ended(&self) -> bool {
        self.streams.iter().all(|stream| stream.fd.is_none())
    }

    /// Reads what it says, or waits for it that long.
    fn step(&mut self, pause_ns: i64, interrupt: &Interrupt) -> Result<(), SshError> {
        let failed = |error: Errno| self.connection.failed(&self.what, error.to_string());
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
        if self.streams.iter().any(|stream| stream.text.len() > MOST_SAID) {
            let reason = format!("it prints without end; more than {} MiB so far", MOST_SAID >> 20);
            return Err(self.connection.failed(&self.what, reason));
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
            let (what, host) = (self.what.clone(), self.connection.host().to_owned());
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
