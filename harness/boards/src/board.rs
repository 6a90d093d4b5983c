//! A board, local or over SSH.

use crate::error::RemoteError;
use crate::farm::Patience;
use crate::keeper::{Keeper, KeeperError, TakeError, report_leftover};
use crate::lock::describe_this_process;
use crate::process::Process;
use crate::programs::Programs;
use crate::remote::{PowerCycle, Remote};
use crate::session::SessionError;
use config::{self, Connect};
use host::interrupt::Interrupt;
use protocol::{AppliedState, LockHolder, Request, SavedState, StateRequest};
use std::path::PathBuf;
use std::process::Stdio;

/// A board that can start runners.
#[derive(Debug)]
pub enum Board {
    /// This machine.
    Local(Box<Local>),
    /// Another machine, over SSH.
    Remote(Box<Remote>),
}

/// This machine as a board.
#[derive(Debug)]
pub struct Local {
    name: String,
    runner: PathBuf,
    asked: StateRequest,
    keeper: Option<Keeper>,
}

impl Board {
    /// Connects to a board without locking it. A place of a farm is held meanwhile.
    ///
    /// # Errors
    /// If it cannot be reached, or it is a place that is in use.
    pub fn look_at(board: &config::Board, programs: Programs) -> Result<Self, RemoteError> {
        match board.connect {
            Connect::Local => Ok(Self::local(board, programs.runner)),
            Connect::Ssh { .. } | Connect::Labgrid(_) => {
                let remote = Remote::open(board, programs, None, Patience::None, &Interrupt::default())?;
                Ok(Self::Remote(Box::new(remote)))
            }
        }
    }

    /// Connects to a board and locks it. Waits for a place of a farm, until `waiting` is set.
    ///
    /// # Errors
    /// If it cannot be reached, or another process holds its lock.
    pub fn take(
        board: &config::Board,
        programs: Programs,
        interrupt: &Interrupt,
        waiting: &Interrupt,
    ) -> Result<Self, SessionError> {
        if !board.connect.is_local() {
            let holder = Some(describe_this_process(&board.name));
            let remote = Remote::open(board, programs, holder, Patience::Queue(waiting), interrupt)?;
            return Ok(Self::Remote(Box::new(remote)));
        }
        let runner = programs.runner;
        let keeper =
            Keeper::local(&runner, &describe_this_process(&board.name)).map_err(|error| match error {
                TakeError::Start(reason) => SessionError::Start { path: runner.clone(), reason },
                TakeError::Busy(holder) => RemoteError::Busy { board: board.name.clone(), holder }.into(),
                TakeError::Failed(message) => {
                    RemoteError::State { board: board.name.clone(), message }.into()
                }
            })?;
        let mut taken = Self::local(board, runner);
        if let Self::Local(local) = &mut taken {
            local.keeper = Some(keeper);
        }
        Ok(taken)
    }

    /// This machine, not locked yet.
    fn local(board: &config::Board, runner: PathBuf) -> Self {
        let (name, asked) = (board.name.clone(), board.state.asked());
        Self::Local(Box::new(Local { name, runner, asked, keeper: None }))
    }

    /// The place of the farm that is held.
    pub fn place(&self) -> Option<&str> {
        match self {
            Self::Local(_) => None,
            Self::Remote(remote) => remote.place(),
        }
    }

    /// The power cycles since the last call.
    pub fn take_power_cycles(&mut self) -> Vec<PowerCycle> {
        match self {
            Self::Local(_) => Vec::new(),
            Self::Remote(remote) => remote.take_power_cycles(),
        }
    }

    /// Checks that the board is still ours. What was measured while it was not must not be used.
    ///
    /// # Errors
    /// If its place was taken away.
    pub fn check_held(&mut self) -> Result<(), SessionError> {
        match self {
            Self::Local(_) => Ok(()),
            Self::Remote(remote) => Ok(remote.check_place()?),
        }
    }

    /// Closes the connection to it. The next request makes a new one, locks the board and sets its state again.
    pub fn disconnect(&mut self) {
        if let Self::Remote(remote) = self {
            remote.disconnect();
        }
    }

    /// Path of its sysfs.
    pub fn sysfs(&self) -> &str {
        match self {
            Self::Local(local) => &local.asked.sysfs,
            Self::Remote(remote) => &remote.asked().sysfs,
        }
    }

    /// Brings it to the state that its file asks for. What another session left behind is restored first.
    ///
    /// # Errors
    /// If it cannot reach that state.
    pub fn bring(&mut self, interrupt: &Interrupt) -> Result<AppliedState, SessionError> {
        match self {
            Self::Local(local) => local.bring(interrupt),
            Self::Remote(remote) => Ok(remote.bring()?),
        }
    }

    /// Brings it to another state than its file asks for. Whoever brings it again, after the connection was lost for
    /// example, brings it to this one.
    ///
    /// # Errors
    /// If it cannot reach that state.
    pub fn bring_to(
        &mut self,
        asked: StateRequest,
        interrupt: &Interrupt,
    ) -> Result<AppliedState, SessionError> {
        match self {
            Self::Local(local) => local.asked = asked,
            Self::Remote(remote) => remote.change_request(asked),
        }
        self.bring(interrupt)
    }

    /// Restores the original state. Returns the settings that were not restored.
    ///
    /// # Errors
    /// If the state cannot be restored.
    pub fn restore(&mut self) -> Result<Vec<String>, SessionError> {
        match self {
            // If this fails, the keeper tries again when it ends, and so does the next session.
            Self::Local(local) => match local.keeper.take() {
                Some(mut keeper) if !local.asked.is_nothing() => {
                    keeper.restore().map_err(|error| local.failed(error))
                }
                _ => Ok(Vec::new()),
            },
            Self::Remote(remote) => Ok(remote.restore()?),
        }
    }

    /// Who holds its lock.
    ///
    /// # Errors
    /// If the board does not answer.
    pub fn holder(&mut self) -> Result<LockHolder, SessionError> {
        let answer = self.run("holder")?;
        self.parse("holder", &answer)
    }

    /// Ends the process that holds its lock. Returns the previous holder.
    ///
    /// # Errors
    /// If that process cannot be ended.
    pub fn break_lock(&mut self) -> Result<LockHolder, SessionError> {
        let answer = self.run("break")?;
        self.parse("break", &answer)
    }

    /// What is to be restored on it, if anything.
    ///
    /// # Errors
    /// If the board does not answer.
    pub fn pending(&mut self) -> Result<Option<SavedState>, SessionError> {
        self.pending_command("pending")
    }

    /// Restores what a session left behind on it. Returns what that was, if anything.
    ///
    /// # Errors
    /// If it cannot be restored, or a session holds the board.
    pub fn restore_leftover(&mut self) -> Result<Option<SavedState>, SessionError> {
        self.pending_command("restore")
    }

    fn pending_command(&mut self, command: &str) -> Result<Option<SavedState>, SessionError> {
        let text = self.run(command)?;
        if text.is_empty() {
            return Ok(None);
        }
        self.parse(command, &text).map(Some)
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, command: &str, answer: &str) -> Result<T, SessionError> {
        serde_json::from_str(answer).map_err(|error| {
            let message = format!("failed to parse the answer {answer:?} of `runner {command}`: {error}");
            RemoteError::State { board: self.name().to_owned(), message }.into()
        })
    }

    fn name(&self) -> &str {
        match self {
            Self::Local(local) => &local.name,
            Self::Remote(remote) => remote.name(),
        }
    }

    /// Runs a command of the runner on the board, and returns what it prints.
    fn run(&mut self, command: &str) -> Result<String, SessionError> {
        let printed = match self {
            Self::Local(local) => {
                let output = environment::command(&local.runner).arg(command).stdin(Stdio::null()).output();
                let output =
                    output.map_err(|reason| SessionError::Start { path: local.runner.clone(), reason })?;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
                if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
            }
            Self::Remote(remote) => remote.run(command)?,
        };
        printed.map_err(|message| RemoteError::State { board: self.name().to_owned(), message }.into())
    }

    /// Starts a runner.
    ///
    /// # Errors
    /// If it does not start, or the board cannot be reached.
    pub fn start(&mut self) -> Result<Process, SessionError> {
        match self {
            Self::Local(local) => Process::local(&local.runner)
                .map_err(|reason| SessionError::Start { path: local.runner.clone(), reason }),
            Self::Remote(remote) => Ok(remote.start()?),
        }
    }

    /// Deploys the files that a request names, and rewrites host paths to board paths.
    ///
    /// # Errors
    /// If the board cannot be reached, or its disk is full.
    pub fn deploy(&mut self, request: &mut Request) -> Result<(), SessionError> {
        match self {
            Self::Local(local) => local.check_held(),
            Self::Remote(remote) => Ok(remote.deploy(request)?),
        }
    }
}

impl Local {
    fn bring(&mut self, interrupt: &Interrupt) -> Result<AppliedState, SessionError> {
        let Some(keeper) = &mut self.keeper else { return Err(self.failed(KeeperError::Gone)) };
        let brought = keeper.bring(&self.asked, interrupt).map_err(|error| self.failed(error))?;
        report_leftover(&self.name, &brought);
        Ok(brought)
    }

    /// Checks that the lock is still held: breaking it ends the keeper.
    fn check_held(&mut self) -> Result<(), SessionError> {
        if self.keeper.as_mut().is_none_or(|keeper| !keeper.has_ended()) {
            return Ok(());
        }
        let output = environment::command(&self.runner).arg("holder").stdin(Stdio::null()).output();
        let holder = output.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok());
        Err(RemoteError::broken(&self.name, holder).into())
    }

    fn failed(&self, error: KeeperError) -> SessionError {
        RemoteError::of_keeper(&self.name, error).into()
    }
}
