//! A connection: programs on a host, several at a time, and ways through it to others.

use super::error::SshError;
use super::job::{Job, Output, Said};
use super::login;
use super::proxy::Proxy;
use super::pump::{self, ChannelRequest, Ends, Opened, Purpose, Sending};
use super::route::Hop;
use super::script::{self, MARK};
use super::socket::{pipe, shut, unblock};
use super::status::Status;
use crate::ending::{End, Ending};
use host::interrupt::Interrupt;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::time::{Duration, Instant};

/// Longest time to open a channel.
const OPENING: Duration = Duration::from_secs(30);
/// Most bytes that a login shell may print before the script begins.
const MOST_NOISE: usize = 1 << 20;

/// An SSH session with the thread that moves its bytes.
#[derive(Debug)]
pub struct Connection {
    status: Status,
    requests: Option<Sender<ChannelRequest>>,
    wake: OwnedFd,
    socket: OwnedFd,
    // These carry this one; dropped after it.
    _through: Option<Box<Connection>>,
    _proxy: Option<Proxy>,
}

impl Connection {
    /// Connects to the last of these hosts, through the others.
    ///
    /// # Errors
    /// If a host cannot be reached, cannot be trusted, or refuses the login.
    pub fn open(route: &[Hop]) -> Result<Self, SshError> {
        let mut through: Option<Box<Self>> = None;
        for hop in route {
            let (socket, proxy) = match (&through, &hop.proxy_command) {
                (Some(jump), _) => (jump.forward(&hop.host, hop.port)?, None),
                (None, Some(command)) => {
                    let (socket, proxy) = Proxy::start(hop, command)?;
                    (socket, Some(proxy))
                }
                (None, None) => (login::connect(hop)?.into(), None),
            };
            through = Some(Box::new(Self::log_in(hop, socket, through, proxy)?));
        }
        through.map(|last| *last).ok_or_else(|| SshError::Connect {
            host: "the board".to_owned(),
            reason: "there is no host to connect to".to_owned(),
        })
    }

    fn log_in(
        hop: &Hop,
        socket: OwnedFd,
        through: Option<Box<Self>>,
        mut proxy: Option<Proxy>,
    ) -> Result<Self, SshError> {
        let host = hop.text();
        let failed = |error: Errno| SshError::Connect { host: host.clone(), reason: error.to_string() };
        let handle = rustix::io::fcntl_dupfd_cloexec(&socket, 3).map_err(failed)?;
        let polled = rustix::io::fcntl_dupfd_cloexec(&socket, 3).map_err(failed)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?;
        let woken = rustix::io::fcntl_dupfd_cloexec(&wake, 3).map_err(failed)?;
        let session = login::log_in(hop, socket).map_err(|error| match (error, &mut proxy) {
            (SshError::Handshake { host, reason }, Some(proxy)) => {
                SshError::Handshake { host, reason: proxy.how_it_ended().unwrap_or(reason) }
            }
            (error, _) => error,
        })?;
        let (sender, requests) = channel();
        let end = Arc::new(End::default());
        let (name, ended) = (host.clone(), Arc::clone(&end));
        let pump = std::thread::Builder::new().name("ssh".to_owned()).spawn(move || {
            let reason = pump::run(&session, &polled, &woken, &requests, &name);
            shut(&polled);
            ended.set(Ending::Lost(reason));
        });
        pump.map_err(|error| SshError::Connect { host: host.clone(), reason: error.to_string() })?;
        let status = Status { host, end };
        Ok(Self { status, requests: Some(sender), wake, socket: handle, _through: through, _proxy: proxy })
    }

    /// The host, for messages.
    pub fn host(&self) -> &str {
        &self.status.host
    }

    /// Why the connection is lost, if it is.
    pub fn lost(&self) -> Option<SshError> {
        self.status.lost()
    }

    /// Starts a script in `/bin/sh`. Its output begins with whatever the login shell prints: see [`skip_noise`].
    ///
    /// # Errors
    /// If the board refuses, or the connection is lost.
    pub fn start(&self, what: &str, script: &str, heartbeat: Option<Duration>) -> Result<Opened, SshError> {
        let failed = |error: Errno| self.failed(what, error.to_string());
        let (input, stdin) = pipe().map_err(failed)?;
        unblock(input.as_fd()).map_err(failed)?;
        let (said, end) = self.launch(what, script, input, heartbeat, Arc::default())?;
        Ok(Opened { stdin, stdout: said.stdout, stderr: said.stderr, end })
    }

    /// Starts a script with an input that is a file, or a pipe that does not block.
    fn launch(
        &self,
        what: &str,
        script: &str,
        input: OwnedFd,
        heartbeat: Option<Duration>,
        sending: Arc<Sending>,
    ) -> Result<(Said, Arc<End>), SshError> {
        let failed = |error: Errno| self.failed(what, error.to_string());
        let (stdout, output) = pipe().map_err(failed)?;
        let (stderr, errors) = pipe().map_err(failed)?;
        for fd in [&output, &errors] {
            unblock(fd.as_fd()).map_err(failed)?;
        }
        let ends = Ends { input, output, errors: Some(errors) };
        let purpose = Purpose::Run(script::ENTRY.to_owned());
        let end = self.open_channel(what, purpose, script::first_line(script), ends, heartbeat, sending)?;
        Ok((Said { stdout, stderr }, end))
    }

    /// Opens a socket to another host through this one.
    ///
    /// # Errors
    /// If this host refuses, or cannot reach the other one.
    pub fn forward(&self, host: &str, port: u16) -> Result<OwnedFd, SshError> {
        let what = format!("reach {host}:{port}");
        let failed = |error: Errno| self.failed(&what, error.to_string());
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
        unblock(ours.as_fd()).map_err(failed)?;
        let output = rustix::io::fcntl_dupfd_cloexec(&ours, 3).map_err(failed)?;
        let ends = Ends { input: ours, output, errors: None };
        let purpose = Purpose::Forward(host.to_owned(), port);
        self.open_channel(&what, purpose, String::new(), ends, None, Arc::default())?;
        Ok(theirs)
    }

    fn open_channel(
        &self,
        what: &str,
        purpose: Purpose,
        first: String,
        ends: Ends,
        heartbeat: Option<Duration>,
        sending: Arc<Sending>,
    ) -> Result<Arc<End>, SshError> {
        let end = Arc::new(End::default());
        let (reply, answer) = sync_channel(1);
        let first = first.into_bytes();
        let request =
            ChannelRequest { purpose, first, ends, sending, end: Arc::clone(&end), heartbeat, reply };
        let lost = || {
            let reason = self.lost();
            reason.unwrap_or_else(|| SshError::Lost {
                host: self.status.host.clone(),
                reason: "it was closed".to_owned(),
            })
        };
        self.requests.as_ref().and_then(|requests| requests.send(request).ok()).ok_or_else(lost)?;
        // If the counter is full, the thread is awake already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        match answer.recv_timeout(OPENING) {
            Ok(Ok(())) => Ok(end),
            Ok(Err(reason)) => {
                Err(SshError::Open { what: what.to_owned(), host: self.status.host.clone(), reason })
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                // The thread reports the reason soon.
                self.status.end.wait(Duration::from_secs(1));
                Err(lost())
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                Err(SshError::Late { what: what.to_owned(), host: self.status.host.clone(), after: OPENING })
            }
        }
    }

    /// Runs a script to its end. `silence` is the longest time without progress. A script that fails is not an error: its
    /// exit code is in the output.
    ///
    /// # Errors
    /// If the script does not start or hangs, the connection is lost, or the user interrupts.
    pub fn run(
        &self,
        what: &str,
        script: &str,
        silence: Duration,
        interrupt: &Interrupt,
    ) -> Result<Output, SshError> {
        // The writing end of its input is closed at once.
        let (input, _) = pipe().map_err(|error| self.failed(what, error.to_string()))?;
        self.begin(what, script, input, silence)?.finish(interrupt)
    }

    /// Starts a script with a file as its input, which saves two copies of each byte compared with a pipe.
    ///
    /// # Errors
    /// If the script does not start.
    pub fn begin(
        &self,
        what: &str,
        script: &str,
        input: impl Into<OwnedFd>,
        silence: Duration,
    ) -> Result<Job<'_>, SshError> {
        let sending = Arc::default();
        let (said, end) = self.launch(what, script, input.into(), None, Arc::clone(&sending))?;
        Job::new(&self.status, what, said, end, sending, silence)
    }

    /// The first line that a program prints after the output of its login shell; empty if it ended without output.
    ///
    /// # Errors
    /// If nothing is printed within `patience`, or the user interrupts.
    pub fn first_line(
        &self,
        what: &str,
        opened: &Opened,
        patience: Duration,
        interrupt: &Interrupt,
    ) -> Result<String, SshError> {
        let failed = |error: Errno| self.failed(what, error.to_string());
        unblock(opened.stdout.as_fd()).map_err(failed)?;
        let deadline = Instant::now() + patience;
        let (mut said, mut buffer, mut has_ended) = (Vec::new(), [0; 4096], false);
        loop {
            match rustix::io::read(&opened.stdout, &mut buffer) {
                Ok(0) => has_ended = true,
                Ok(count) => said.extend_from_slice(&buffer[..count]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(failed(error)),
            }
            let text = String::from_utf8_lossy(&said);
            let after = text.split_once(&format!("{MARK}\n")).map(|(_, after)| after);
            if has_ended {
                return Ok(after.unwrap_or_default().lines().next().unwrap_or_default().to_owned());
            }
            if let Some((line, _)) = after.and_then(|after| after.split_once('\n')) {
                return Ok(line.to_owned());
            }
            if interrupt.is_set() {
                return Err(SshError::Interrupted);
            }
            if Instant::now() >= deadline || said.len() > MOST_NOISE {
                let (what, host, after) = (what.to_owned(), self.status.host.clone(), after.is_some());
                let late = SshError::Late { what: what.clone(), host: host.clone(), after: patience };
                return Err(if after { late } else { SshError::Shell { what, host, after: patience } });
            }
            let mut fds = [PollFd::new(&opened.stdout, PollFlags::IN)];
            match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 })) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    fn failed(&self, what: &str, reason: String) -> SshError {
        self.status.failed(what, reason)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.requests = None;
        shut(&self.socket);
        // The thread owns the session; it must end before the connection that carries this one is dropped.
        self.status.end.wait(Duration::from_secs(2));
    }
}

/// Skips what a login shell prints before the script begins.
///
/// # Errors
/// If the script never begins.
pub fn skip_noise(stdout: &mut impl Read) -> std::io::Result<()> {
    let mut line = Vec::new();
    let mut byte = [0];
    for _ in 0..MOST_NOISE {
        if stdout.read(&mut byte)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match byte[0] {
            b'\n' if line.ends_with(MARK.as_bytes()) => return Ok(()),
            b'\n' => line.clear(),
            other => line.push(other),
        }
    }
    Err(std::io::Error::other("the login shell prints endlessly"))
}
