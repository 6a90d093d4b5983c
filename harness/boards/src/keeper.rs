//! The program on a board that keeps its state: it brings the board to what its file asks for and restores it at the
//! end, also where this harness is killed or the link to it is lost.

use host::interrupt::Interrupt;
use protocol::{AppliedState, HoldReply, LockHolder, StateCommand, StateReply, StateRequest};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Longest time to bring a board to its state or to restore it: a few programs, each with a minute of its own.
const PATIENCE: Duration = Duration::from_secs(400);

/// Longest time until the program says whether it has the lock: it waits for one whose harness was killed to restore.
const TAKING: Duration = Duration::from_secs(200);
/// Longest line that is read from the program. The settings of a board of 4096 CPUs take less than 1 MB.
const LONGEST_LINE: u64 = 8 << 20;

/// Why this machine cannot be taken.
#[derive(Debug)]
pub(super) enum TakeError {
    /// The program does not start.
    Start(std::io::Error),
    /// The named session has it.
    Busy(String),
    /// The program says why, in a sentence of its own.
    Failed(String),
}

/// Why a board's state is not what it should be.
#[derive(Debug, Error)]
pub(super) enum KeeperError {
    /// The keeper says why, in a sentence of its own.
    #[error("{0}")]
    Refused(String),
    /// It is gone, or its link is.
    #[error("failed to keep the board's state: the program that does is gone")]
    Gone,
    /// It takes too long.
    #[error("failed to keep the board's state: no answer within {} s", PATIENCE.as_secs())]
    Late,
    /// The user pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// The keeper of a board's state. It restores when this is dropped, whether or not it was told to.
#[derive(Debug)]
pub(super) struct Keeper {
    stdin: Option<File>,
    answers: Receiver<String>,
    /// On this machine it is ours to wait for.
    child: Option<Child>,
}

impl Keeper {
    /// Takes over the streams of one that was started on a board.
    pub(super) fn new(stdin: OwnedFd, stdout: OwnedFd) -> Self {
        // It was read without blocking until here, perhaps.
        if let Ok(flags) = fcntl_getfl(&stdout) {
            let _ = fcntl_setfl(&stdout, flags - OFlags::NONBLOCK);
        }
        let (sender, answers) = std::sync::mpsc::sync_channel(16);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(File::from(stdout));
            loop {
                let mut line = Vec::new();
                let read = std::io::Read::take(&mut reader, LONGEST_LINE).read_until(b'\n', &mut line);
                let is_end = !matches!(read, Ok(count) if count > 0);
                let line = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
                if is_end || sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { stdin: Some(File::from(stdin)), answers, child: None }
    }

    /// Takes this machine's lock and starts a keeper here. It outlives this harness, and restores then.
    ///
    /// # Errors
    /// If it does not start, or somebody else has the machine.
    pub(super) fn local(runner: &Path, holder: &str) -> Result<Self, TakeError> {
        let mut child = environment::command(runner)
            .args(["hold", holder])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is the harness' to handle; the end of stdin ends the keeper.
            .process_group(0)
            .spawn()
            .map_err(TakeError::Start)?;
        let closed = || TakeError::Start(std::io::ErrorKind::BrokenPipe.into());
        let (stdin, stdout) =
            (child.stdin.take().ok_or_else(closed)?, child.stdout.take().ok_or_else(closed)?);
        let mut keeper = Self::new(stdin.into(), stdout.into());
        keeper.child = Some(child);
        match keeper.answers.recv_timeout(TAKING).as_deref() {
            Ok(line) => match serde_json::from_str(line) {
                Ok(HoldReply::Acquired {}) => Ok(keeper),
                Ok(HoldReply::Busy { name }) => Err(TakeError::Busy(name)),
                Ok(HoldReply::Failed { message }) => Err(TakeError::Failed(message)),
                Err(_) => Err(TakeError::Failed(line.to_owned())),
            },
            Err(_) => Err(TakeError::Failed(format!(
                "failed to take this machine: the runner {} does not answer; {remedy}",
                runner.display(),
                remedy = host::new_runner()
            ))),
        }
    }

    /// Whether the program on this machine has ended, and with it the lock is gone.
    pub(super) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Brings the board to this, or back to it.
    ///
    /// # Errors
    /// Where the board does not become what is asked; what was changed is restored then.
    pub(super) fn bring(
        &mut self,
        asked: &StateRequest,
        interrupt: &Interrupt,
    ) -> Result<AppliedState, KeeperError> {
        match self.ask(&StateCommand::Set(asked.clone()), Some(interrupt))? {
            StateReply::Set(brought) => Ok(*brought),
            StateReply::Failed { message } => Err(KeeperError::Refused(message)),
            StateReply::Restored { .. } => Err(KeeperError::Gone),
        }
    }

    /// Restores what was found. Says what is not as it was all the same.
    ///
    /// # Errors
    /// Where what was changed is not as it was.
    pub(super) fn restore(&mut self) -> Result<Vec<String>, KeeperError> {
        match self.ask(&StateCommand::Restore {}, None)? {
            StateReply::Restored { differences } => Ok(differences),
            StateReply::Failed { message } => Err(KeeperError::Refused(message)),
            StateReply::Set(_) => Err(KeeperError::Gone),
        }
    }

    fn ask(&mut self, keep: &StateCommand, interrupt: Option<&Interrupt>) -> Result<StateReply, KeeperError> {
        let mut line = serde_json::to_string(keep).map_err(|_| KeeperError::Gone)?;
        line.push('\n');
        let stdin = self.stdin.as_mut().ok_or(KeeperError::Gone)?;
        stdin.write_all(line.as_bytes()).map_err(|_| KeeperError::Gone)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.answers.recv_timeout(Duration::from_millis(50)) {
                Ok(answer) => {
                    let refused = |_| KeeperError::Refused(format!("failed to understand {answer:?}"));
                    return serde_json::from_str(&answer).map_err(refused);
                }
                Err(RecvTimeoutError::Disconnected) => return Err(KeeperError::Gone),
                Err(RecvTimeoutError::Timeout) if interrupt.is_some_and(Interrupt::is_set) => {
                    return Err(KeeperError::Interrupted);
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                    return Err(KeeperError::Late);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// ` by` the session that the output of `runner holder` names; empty if it names none.
pub(super) fn by_holder(line: &str) -> String {
    match serde_json::from_str(line) {
        Ok(LockHolder::Session { name }) => format!(" by {name}"),
        _ => String::new(),
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stdin = None;
        if let Some(child) = &mut self.child {
            // It restores first. What it says goes to standard error.
            let _ = child.wait();
        }
    }
}
