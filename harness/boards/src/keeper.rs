//! The program on a board that sets the board's state and restores it at the end, even if this harness is killed or its
//! connection is lost.

use host::interrupt::Interrupt;
use protocol::{AppliedState, HoldReply, StateCommand, StateReply, StateRequest};
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

/// Longest time to set or restore the state of a board: a few programs with a minute each.
const TIMEOUT: Duration = Duration::from_secs(400);

/// Longest time until the program has the lock: it waits for a killed session's program to restore the board.
const LOCK_TIMEOUT: Duration = Duration::from_secs(200);
/// Longest line that is read from the program. The settings of a board of 4096 CPUs take less than 1 MB.
const LONGEST_LINE: u64 = 8 << 20;

/// Why this machine's lock could not be taken.
#[derive(Debug)]
pub(super) enum TakeError {
    /// The program does not start.
    Start(std::io::Error),
    /// Another process holds it, as it describes itself.
    Busy(String),
    /// The program's error message.
    Failed(String),
}

/// Why a board's state could not be set or restored.
#[derive(Debug, Error)]
pub(super) enum KeeperError {
    /// The keeper's error message.
    #[error("{0}")]
    Refused(String),
    /// It ended, or its connection is lost.
    #[error("failed to control the board's state: the runner's `hold` process on the board has ended")]
    Gone,
    /// It did not answer in time.
    #[error(
        "failed to control the board's state: the runner's `hold` process gave no answer within {} s; check whether \
         `nvpmodel` or `jetson_clocks` hangs on the board",
        TIMEOUT.as_secs()
    )]
    Late,
    /// The user pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// Reports that the state which another session had left behind was restored.
pub(super) fn report_leftover(board: &str, brought: &AppliedState) {
    if let Some(leftover) = &brought.leftover {
        let text = format!(
            "{board} was still in the state of an earlier session ({}), which had not restored it; restored now",
            leftover.by
        );
        host::progress::say("note", &text);
    }
}

/// The keeper of a board's state. Dropping it restores the state.
#[derive(Debug)]
pub(super) struct Keeper {
    stdin: Option<File>,
    answers: Receiver<String>,
    /// Present if the board is this machine.
    child: Option<Child>,
}

impl Keeper {
    /// A keeper that was started on a board, with these streams.
    pub(super) fn new(stdin: OwnedFd, stdout: OwnedFd) -> Self {
        // It may have been set to non-blocking.
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

    /// Starts a keeper on this machine, which takes the machine's lock. If this harness is killed, the keeper restores
    /// the state and ends.
    ///
    /// # Errors
    /// If it does not start, or another process holds the lock.
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
        match keeper.answers.recv_timeout(LOCK_TIMEOUT).as_deref() {
            Ok(line) => match serde_json::from_str(line) {
                Ok(HoldReply::Acquired {}) => Ok(keeper),
                Ok(HoldReply::Busy { name }) => Err(TakeError::Busy(name)),
                Ok(HoldReply::Failed { message }) => Err(TakeError::Failed(message)),
                Err(_) => Err(TakeError::Failed(line.to_owned())),
            },
            Err(_) => Err(TakeError::Failed(format!(
                "failed to lock this machine: the runner {} printed nothing; {}",
                runner.display(),
                host::new_runner()
            ))),
        }
    }

    /// Whether the program on this machine has ended, which releases the lock.
    pub(super) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Sets the board's state, or sets it again.
    ///
    /// # Errors
    /// If the board cannot reach that state; changes are then undone.
    pub(super) fn bring(
        &mut self,
        asked: &StateRequest,
        interrupt: &Interrupt,
    ) -> Result<AppliedState, KeeperError> {
        match self.ask(&StateCommand::Set(asked.clone()), Some(interrupt))? {
            StateReply::Set(applied) => Ok(*applied),
            StateReply::Failed { message } => Err(KeeperError::Refused(message)),
            StateReply::Restored { .. } => Err(KeeperError::Gone),
        }
    }

    /// Restores the original state. Returns the settings that were not restored.
    ///
    /// # Errors
    /// If the keeper fails.
    pub(super) fn restore(&mut self) -> Result<Vec<String>, KeeperError> {
        match self.ask(&StateCommand::Restore {}, None)? {
            StateReply::Restored { differences } => Ok(differences),
            StateReply::Failed { message } => Err(KeeperError::Refused(message)),
            StateReply::Set(_) => Err(KeeperError::Gone),
        }
    }

    fn ask(
        &mut self,
        command: &StateCommand,
        interrupt: Option<&Interrupt>,
    ) -> Result<StateReply, KeeperError> {
        let mut line = serde_json::to_string(command).map_err(|_| KeeperError::Gone)?;
        line.push('\n');
        let stdin = self.stdin.as_mut().ok_or(KeeperError::Gone)?;
        stdin.write_all(line.as_bytes()).map_err(|_| KeeperError::Gone)?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match self.answers.recv_timeout(Duration::from_millis(50)) {
                Ok(answer) => {
                    let refused = |_| {
                        KeeperError::Refused(format!("failed to parse the answer {answer:?} of the runner"))
                    };
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

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stdin = None;
        if let Some(child) = &mut self.child {
            // It restores the state first, and prints to standard error.
            let _ = child.wait();
        }
    }
}
