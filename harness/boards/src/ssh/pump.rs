//! One thread per connection moves bytes between its channels and pipes. libssh2 lets one thread at a time use a session,
//! so a blocking read on one channel would block all others: everything here is non-blocking, and poll waits.
//!
//! libssh2's rule that shapes the code: a packet that was sent in part must be finished by the very call that began
//! it, before any other call sends. That call is kept as `stuck`.

use super::error::SshError;
use super::socket::acknowledge_at_once;
use crate::ending::{End, Ending};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use ssh2::{BlockDirections, Channel, Session};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Most bytes that libssh2 puts into a packet.
const PACKET: usize = 32_700;
/// Bytes moved at a time: whole packets.
const CHUNK: usize = 8 * PACKET;
/// Longest a channel may take to open.
const OPENING: Duration = Duration::from_secs(20);

/// Our ends of a program's streams.
#[derive(Debug)]
pub struct Opened {
    /// Its standard input.
    pub stdin: OwnedFd,
    /// Its standard output; for a forwarded connection, the same socket again.
    pub stdout: OwnedFd,
    /// Its standard error.
    pub stderr: OwnedFd,
    /// How it ends.
    pub end: Arc<End>,
}

/// The pump's ends of the same streams.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) input: OwnedFd,
    pub(super) output: OwnedFd,
    pub(super) errors: Option<OwnedFd>,
}

/// What a channel is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// Run a command.
    Run(String),
    /// Reach another host.
    Forward(String, u16),
}

/// How much of a program's input was sent.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// Bytes that were sent.
    pub(super) sent: AtomicU64,
    /// Why reading the input failed.
    pub(super) broken: OnceLock<Errno>,
    /// Whether all of it was sent, or the program takes no more.
    pub(super) is_through: AtomicBool,
    /// Set to stop sending.
    pub(super) is_given_up: AtomicBool,
}

/// A request for a channel.
#[derive(Debug)]
pub(super) struct ChannelRequest {
    pub(super) purpose: Purpose,
    /// Sent before anything else.
    pub(super) first: Vec<u8>,
    pub(super) ends: Ends,
    pub(super) sending: Arc<Sending>,
    pub(super) end: Arc<End>,
    /// Heartbeat interval: an empty line is sent, between other lines.
    pub(super) heartbeat: Option<Duration>,
    pub(super) reply: SyncSender<Result<(), String>>,
}

struct Flow {
    channel: Channel,
    input: Option<OwnedFd>,
    to_remote: Vec<u8>,
    sent: usize,
    sending: Arc<Sending>,
    eof_sent: bool,
    outputs: [Output; 2],
    heartbeat: Option<Duration>,
    due: Instant,
    at_line_start: bool,
    end: Arc<End>,
    closed: bool,
}

struct Output {
    number: i32,
    fd: Option<OwnedFd>,
    pending: Vec<u8>,
    written: usize,
    ended: bool,
}

/// Result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Something was moved.
    Moved,
    /// There is nothing to do.
    Idle,
    /// A packet went out in part: the same step must come again before all others.
    Stuck,
}

/// Runs until the connection is lost, or all senders are dropped and all channels have ended. Returns why.
pub(super) fn run(
    session: &Session,
    socket: &OwnedFd,
    wake: &OwnedFd,
    requests: &Receiver<ChannelRequest>,
    host: &str,
) -> String {
    session.set_blocking(false);
    let mut flows: Vec<Flow> = Vec::new();
    let reason = turn(session, socket, wake, requests, &mut flows).err();
    let reason = reason.unwrap_or_else(|| "it was closed".to_owned());
    for flow in flows {
        flow.end
            .set(Ending::Lost(SshError::Lost { host: host.to_owned(), reason: reason.clone() }.to_string()));
        // What is closed now tells the readers; libssh2 frees the channel without waiting for an answer.
        drop(flow);
    }
    reason
}

fn turn(
    session: &Session,
    socket: &OwnedFd,
    wake: &OwnedFd,
    requests: &Receiver<ChannelRequest>,
    flows: &mut Vec<Flow>,
) -> Result<(), String> {
    let mut stuck: Option<(usize, usize)> = None;
    let mut is_wanted = true;
    let mut buffer = vec![0; CHUNK];
    loop {
        if stuck.is_none() {
            loop {
                match requests.try_recv() {
                    Ok(request) => flows.extend(open(session, socket, request)),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        is_wanted = false;
                        break;
                    }
                }
            }
            if !is_wanted && flows.is_empty() {
                return Ok(());
            }
        }
        let mut moved = false;
        let (first, part) = stuck.take().unwrap_or((0, 0));
        'flows: for (index, flow) in flows.iter_mut().enumerate().skip(first) {
            let from = if index == first { part } else { 0 };
            for part in from..Flow::PARTS {
                match flow.step(part, session, socket, &mut buffer)? {
                    Step::Moved => moved = true,
                    Step::Idle => {}
                    Step::Stuck => {
                        stuck = Some((index, part));
                        break 'flows;
                    }
                }
            }
        }
        if stuck.is_none() {
            let before = flows.len();
            flows.retain(|flow| !flow.closed);
            moved |= flows.len() != before;
            if moved {
                continue;
            }
        }
        wait(session, socket, wake, flows, stuck.is_some())?;
    }
}

/// Waits until something can be done.
fn wait(
    session: &Session,
    socket: &OwnedFd,
    wake: &OwnedFd,
    flows: &[Flow],
    is_stuck: bool,
) -> Result<(), String> {
    // Who does not read must not wait for something to read, or poll returns at once for ever.
    let towards = match (is_stuck, flows.iter().any(Flow::is_reading)) {
        (true, _) => PollFlags::OUT,
        (false, true) if directions_outbound(session) => PollFlags::IN | PollFlags::OUT,
        (false, true) => PollFlags::IN,
        (false, false) => PollFlags::RDHUP,
    };
    let mut fds = vec![PollFd::new(socket, towards)];
    let mut timeout: Option<Duration> = None;
    if !is_stuck {
        fds.push(PollFd::new(wake, PollFlags::IN));
        for flow in flows {
            if let (Some(input), true) = (&flow.input, flow.sent == flow.to_remote.len()) {
                fds.push(PollFd::new(input, PollFlags::IN));
            }
            for output in &flow.outputs {
                if let (Some(fd), true) = (&output.fd, output.written < output.pending.len()) {
                    fds.push(PollFd::new(fd, PollFlags::OUT));
                }
            }
            if flow.heartbeat.is_some() && flow.input.is_some() && flow.at_line_start {
                let left = flow.due.saturating_duration_since(Instant::now());
                timeout = Some(timeout.map_or(left, |known| known.min(left)));
            }
        }
    }
    wait_for(&mut fds, timeout)?;
    if towards == PollFlags::RDHUP && !fds[0].revents().is_empty() {
        return Err("the board closed the connection".to_owned());
    }
    let mut count = [0; 8];
    // Only how often it was woken is read away.
    let _ = rustix::io::read(wake, &mut count);
    Ok(())
}

fn directions_outbound(session: &Session) -> bool {
    matches!(session.block_directions(), BlockDirections::Outbound | BlockDirections::Both)
}

fn wait_for(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> Result<(), String> {
    let timeout = timeout.map(|left| Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    });
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Opens a channel. Errors go to the requester.
fn open(session: &Session, socket: &OwnedFd, request: ChannelRequest) -> Option<Flow> {
    let deadline = Instant::now() + OPENING;
    let opened = match &request.purpose {
        Purpose::Run(command) => {
            insist(session, socket, deadline, || session.channel_session()).and_then(|mut channel| {
                insist(session, socket, deadline, || channel.exec(command))?;
                Ok(channel)
            })
        }
        Purpose::Forward(host, port) => {
            insist(session, socket, deadline, || session.channel_direct_tcpip(host, *port, None))
        }
    };
    match opened {
        Ok(channel) => {
            // An asker that is gone closes its pipes, which ends the channel.
            let _ = request.reply.send(Ok(()));
            Some(Flow::new(channel, request))
        }
        Err(reason) => {
            let _ = request.reply.send(Err(reason));
            None
        }
    }
}

/// Repeats a call that would block, until it is through.
fn insist<T>(
    session: &Session,
    socket: &OwnedFd,
    deadline: Instant,
    mut call: impl FnMut() -> Result<T, ssh2::Error>,
) -> Result<T, String> {
    loop {
        match call() {
            Ok(value) => return Ok(value),
            Err(error) if std::io::Error::from(error_copy(&error)).kind() == ErrorKind::WouldBlock => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(format!("no answer within {} s", OPENING.as_secs()));
                }
                acknowledge_at_once(socket);
                let outbound = directions_outbound(session);
                let flags = if outbound { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
                wait_for(&mut [PollFd::new(socket, flags)], Some(left))?;
            }
            Err(error) => return Err(error.message().to_owned()),
        }
    }
}

fn error_copy(error: &ssh2::Error) -> ssh2::Error {
    ssh2::Error::from_errno(error.code())
}

impl Flow {
    /// Steps of a turn: input, output, errors, end.
    const PARTS: usize = 4;

    fn new(channel: Channel, request: ChannelRequest) -> Self {
        let ChannelRequest { first, ends, sending, end, heartbeat, .. } = request;
        let output = |number, fd| Output { number, fd, pending: Vec::new(), written: 0, ended: false };
        Self {
            channel,
            input: Some(ends.input),
            to_remote: first,
            sent: 0,
            sending,
            eof_sent: false,
            outputs: [output(0, Some(ends.output)), output(1, ends.errors)],
            heartbeat,
            due: Instant::now() + heartbeat.unwrap_or_default(),
            at_line_start: false,
            end,
            closed: false,
        }
    }

    /// Whether one of its steps reads from the session.
    fn is_reading(&self) -> bool {
        let mut outputs = self.outputs.iter();
        outputs.any(|output| !output.ended && output.pending.is_empty())
            || self.outputs.iter().all(|output| output.ended)
    }

    fn step(
        &mut self,
        part: usize,
        session: &Session,
        socket: &OwnedFd,
        buffer: &mut [u8],
    ) -> Result<Step, String> {
        match part {
            0 => self.send(session, socket),
            1 | 2 => self.outputs[part - 1].receive(&mut self.channel, session, buffer),
            _ => self.finish(session),
        }
    }

    /// Reads what is to be sent next. A file is read as a pipe is, but never has to be waited for.
    fn fetch(&mut self) {
        self.sent = 0;
        if self.sending.is_given_up.load(Relaxed) {
            self.input = None;
        }
        let Some(input) = &self.input else {
            self.to_remote.clear();
            return;
        };
        self.to_remote.resize(CHUNK, 0);
        let count = match rustix::io::read(input, &mut self.to_remote) {
            Ok(0) => {
                self.input = None;
                0
            }
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => {
                let is_due = self.heartbeat.is_some() && self.at_line_start && Instant::now() >= self.due;
                self.to_remote[0] = b'\n';
                usize::from(is_due)
            }
            Err(error) => {
                self.input = None;
                // Only the first failure is kept, and there is no second.
                let _ = self.sending.broken.set(error);
                0
            }
        };
        self.to_remote.truncate(count);
    }

    fn send(&mut self, session: &Session, socket: &OwnedFd) -> Result<Step, String> {
        if self.sent == self.to_remote.len() && !self.eof_sent {
            self.fetch();
            if self.input.is_none() && self.to_remote.is_empty() {
                return self.tried(
                    session,
                    |flow| flow.channel.send_eof().map_err(Into::into),
                    |flow, ()| {
                        flow.eof_sent = true;
                        flow.sending.is_through.store(true, Relaxed);
                    },
                );
            }
        }
        if self.sent == self.to_remote.len() {
            return Ok(Step::Idle);
        }
        // The kernel may join packets of one chunk, which wakes the receiver less often.
        let is_bulk = self.to_remote.len() - self.sent > PACKET;
        if is_bulk {
            cork(socket, true);
        }
        let mut step = Step::Moved;
        // All of it, if there is room: between two packets of one flow nothing else needs to be looked at.
        while step == Step::Moved && self.sent < self.to_remote.len() {
            step = self.tried(
                session,
                |flow| flow.channel.write(&flow.to_remote[flow.sent..]),
                |flow, count| {
                    flow.sent += count;
                    flow.sending.sent.fetch_add(count as u64, Relaxed);
                    flow.at_line_start =
                        flow.sent == flow.to_remote.len() && flow.to_remote.last() == Some(&b'\n');
                    if let Some(interval) = flow.heartbeat {
                        flow.due = Instant::now() + interval;
                    }
                },
            )?;
        }
        if is_bulk {
            cork(socket, false);
        }
        Ok(step)
    }

    /// Does something that may block; an end of the channel's other side is no error here.
    fn tried<T>(
        &mut self,
        session: &Session,
        act: impl FnOnce(&mut Self) -> std::io::Result<T>,
        then: impl FnOnce(&mut Self, T),
    ) -> Result<Step, String> {
        match act(self) {
            Ok(value) => {
                then(self, value);
                Ok(Step::Moved)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(blocked(session)),
            // The program has ended and takes no more.
            Err(_) if self.channel.eof() || is_closed(session) => {
                self.input = None;
                self.to_remote.clear();
                self.sent = 0;
                self.eof_sent = true;
                self.sending.is_through.store(true, Relaxed);
                Ok(Step::Moved)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn finish(&mut self, session: &Session) -> Result<Step, String> {
        if self.closed || self.outputs.iter().any(|output| !output.ended) || !self.channel.eof() {
            return Ok(Step::Idle);
        }
        // What ended it comes before the other side's close; ours must be sent in whole before the channel is freed.
        match self.channel.wait_close().and_then(|()| self.channel.close()) {
            Ok(()) => {}
            Err(error) if std::io::Error::from(error_copy(&error)).kind() == ErrorKind::WouldBlock => {
                return Ok(blocked(session));
            }
            Err(error) => return Err(error.message().to_owned()),
        }
        // A program ended by a signal reports exit status 0 as well, so the signal is asked for first.
        let signal = self.channel.exit_signal().ok().and_then(|signal| signal.exit_signal);
        let ending = match signal {
            Some(signal) => Ending::Signal(signal),
            None => Ending::Code(self.channel.exit_status().unwrap_or(-1)),
        };
        self.end.set(ending);
        self.closed = true;
        Ok(Step::Moved)
    }
}

impl Output {
    fn receive(
        &mut self,
        channel: &mut Channel,
        session: &Session,
        buffer: &mut [u8],
    ) -> Result<Step, String> {
        let mut step = Step::Idle;
        while self.written < self.pending.len() {
            let Some(fd) = &self.fd else { break };
            match rustix::io::write(fd, &self.pending[self.written..]) {
                Ok(count) => {
                    self.written += count;
                    step = Step::Moved;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(step),
                // Nobody reads any more; what comes is dropped, so that the program does not hang.
                Err(_) => self.fd = None,
            }
        }
        self.pending.clear();
        self.written = 0;
        if self.ended {
            return Ok(step);
        }
        match channel.stream(self.number).read(buffer) {
            Ok(0) if channel.eof() => {
                self.ended = true;
                self.fd = None;
                Ok(Step::Moved)
            }
            Ok(0) => Ok(step),
            Ok(count) => {
                self.pending.extend_from_slice(&buffer[..count]);
                Ok(Step::Moved)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => match blocked(session) {
                Step::Stuck => Ok(Step::Stuck),
                _ => Ok(step),
            },
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A call that would block waits for the peer, or for room to send the rest of a packet.
fn blocked(session: &Session) -> Step {
    if directions_outbound(session) { Step::Stuck } else { Step::Idle }
}

/// The last call failed because the channel is closed or at its end (`LIBSSH2_ERROR_CHANNEL_CLOSED`, `_EOF_SENT`).
fn is_closed(session: &Session) -> bool {
    let code = ssh2::Error::last_session_error(session).map(|error| error.code());
    matches!(code, Some(ssh2::ErrorCode::Session(-26 | -27)))
}

/// Holds back packets that are not full, or sends what was held back. A connection through a jump host is not a TCP socket.
fn cork(socket: &OwnedFd, is_on: bool) {
    let _ = rustix::net::sockopt::set_tcp_cork(socket, is_on);
}
