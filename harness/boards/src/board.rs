//! A board with the means to start runners on it.

use super::keeper::{Keeper, KeeperError, TakeError, by_holder};
use super::process::Process;
use super::remote::{Remote, RemoteError};
use super::{holder, tell_leftover};
use crate::session::SessionError;
use config::{self, Connect};
use host::exit::{Coded, Exit};
use host::interrupt::Interrupt;
use protocol::{AppliedState, LockHolder, Request, SavedState, StateRequest};
use std::path::PathBuf;
use std::process::Stdio;

/// A board with the means to start runners on it.
#[derive(Debug)]
pub enum Board {
    /// This machine.
    Local(Box<Local>),
    /// Another one.
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
    /// Reaches a board to look at it. Nobody else is kept from it.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub fn look_at(board: &config::Board, runner: PathBuf) -> Result<Self, RemoteError> {
        match board.connect {
            Connect::Local => Ok(Self::local(board, runner)),
            Connect::Ssh { .. } => {
                let remote = Remote::open(board, &runner, None, &Interrupt::default())?;
                Ok(Self::Remote(Box::new(remote)))
            }
        }
    }

    /// Reaches a board and takes it for us alone.
    ///
    /// # Errors
    /// If it cannot be reached, or somebody else has it.
    pub fn take(board: &config::Board, runner: PathBuf, interrupt: &Interrupt) -> Result<Self, SessionError> {
        if let Connect::Ssh { .. } = board.connect {
            let remote = Remote::open(board, &runner, Some(holder(&board.name)), interrupt)?;
            return Ok(Self::Remote(Box::new(remote)));
        }
        let keeper = Keeper::local(&runner, &holder(&board.name)).map_err(|error| match error {
            TakeError::Start(reason) => SessionError::Start { path: runner.clone(), reason },
            TakeError::Busy(holder) => RemoteError::Busy { board: board.name.clone(), holder }.into(),
            TakeError::Failed(message) => RemoteError::State { board: board.name.clone(), message }.into(),
        })?;
        let mut taken = Self::local(board, runner);
        if let Self::Local(local) = &mut taken {
            local.keeper = Some(keeper);
        }
        Ok(taken)
    }

    /// This machine, untouched so far.
    fn local(board: &config::Board, runner: PathBuf) -> Self {
        let (name, asked) = (board.name.clone(), board.state.asked());
        Self::Local(Box::new(Local { name, runner, asked, keeper: None }))
    }

    /// Where its sysfs is.
    pub fn sysfs(&self) -> &str {
        match self {
            Self::Local(local) => &local.asked.sysfs,
            Self::Remote(remote) => &remote.asked().sysfs,
        }
    }

    /// Brings it to the state its file asks for, or back to it; what another session left behind is restored first.
    ///
    /// # Errors
    /// Where it does not become that.
    pub fn bring(&mut self, interrupt: &Interrupt) -> Result<AppliedState, SessionError> {
        match self {
            Self::Local(local) => local.bring(interrupt),
            Self::Remote(remote) => Ok(remote.bring()?),
        }
    }

    /// Restores the state that was found. Says what is not as it was all the same.
    ///
    /// # Errors
    /// Where it cannot be restored.
    pub fn restore(&mut self) -> Result<Vec<String>, SessionError> {
        match self {
            // Where it fails, it tries once more at its end, and so does the next session.
            Self::Local(local) => match local.keeper.take() {
                Some(mut keeper) if !local.asked.is_nothing() => {
                    keeper.restore().map_err(|error| local.failed(error))
                }
                _ => Ok(Vec::new()),
            },
            Self::Remote(remote) => Ok(remote.restore()?),
        }
    }

    /// Who has the board's lock.
    ///
    /// # Errors
    /// If the runner cannot read the lock.
    pub fn holder(&mut self) -> Result<LockHolder, SessionError> {
        let line = self.say("holder")?;
        self.parse(&line)
    }

    /// Ends the process that has the board's lock. Returns who had it.
    ///
    /// # Errors
    /// If the process cannot be ended.
    pub fn break_lock(&mut self) -> Result<LockHolder, SessionError> {
        let line = self.say("break")?;
        self.parse(&line)
    }

    /// What is to be restored on it, if anything.
    ///
    /// # Errors
    /// Where it does not tell.
    pub fn pending(&mut self) -> Result<Option<SavedState>, SessionError> {
        self.told("pending")
    }

    /// Restores what a session left behind on it. Tells what that was, if anything.
    ///
    /// # Errors
    /// Where it cannot be restored, or a session has the board.
    pub fn restore_leftover(&mut self) -> Result<Option<SavedState>, SessionError> {
        self.told("restore")
    }

    fn told(&mut self, word: &str) -> Result<Option<SavedState>, SessionError> {
        let text = self.say(word)?;
        if text.is_empty() {
            return Ok(None);
        }
        self.parse(&text).map(Some)
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, line: &str) -> Result<T, SessionError> {
        serde_json::from_str(line).map_err(|error| {
            let message = format!("failed to parse the runner's answer {line:?}: {error}");
            RemoteError::State { board: self.name().to_owned(), message }.into()
        })
    }

    fn name(&self) -> &str {
        match self {
            Self::Local(local) => &local.name,
            Self::Remote(remote) => remote.name(),
        }
    }

    /// What the runner there says to a word.
    fn say(&mut self, word: &str) -> Result<String, SessionError> {
        let told = match self {
            Self::Local(local) => {
                let output = environment::command(&local.runner).arg(word).stdin(Stdio::null()).output();
                let output =
                    output.map_err(|reason| SessionError::Start { path: local.runner.clone(), reason })?;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
                if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
            }
            Self::Remote(remote) => remote.tell(word)?,
        };
        told.map_err(|message| RemoteError::State { board: self.name().to_owned(), message }.into())
    }

    /// Starts a runner.
    ///
    /// # Errors
    /// Where it does not start, or the board is out of reach.
    pub fn start(&mut self) -> Result<Process, SessionError> {
        match self {
            Self::Local(local) => Process::local(&local.runner)
                .map_err(|reason| SessionError::Start { path: local.runner.clone(), reason }),
            Self::Remote(remote) => Ok(remote.start()?),
        }
    }

    /// Brings the files that a request names to the board, and names them as they are called there.
    ///
    /// # Errors
    /// Where the board is out of reach, or has no room.
    pub fn place(&mut self, request: &mut Request) -> Result<(), SessionError> {
        match self {
            Self::Local(local) => local.check_held(),
            Self::Remote(remote) => Ok(remote.place(request)?),
        }
    }
}

impl Local {
    fn bring(&mut self, interrupt: &Interrupt) -> Result<AppliedState, SessionError> {
        let Some(keeper) = &mut self.keeper else { return Err(self.failed(KeeperError::Gone)) };
        let brought = keeper.bring(&self.asked, interrupt).map_err(|error| self.failed(error))?;
        tell_leftover(&self.name, &brought);
        Ok(brought)
    }

    /// Whoever breaks the lock ends its holder.
    fn check_held(&mut self) -> Result<(), SessionError> {
        if self.keeper.as_mut().is_none_or(|keeper| !keeper.has_ended()) {
            return Ok(());
        }
        let output = environment::command(&self.runner).arg("holder").stdin(Stdio::null()).output();
        let by = output
            .map_or_else(|_| String::new(), |output| by_holder(&String::from_utf8_lossy(&output.stdout)));
        Err(RemoteError::Broken { board: self.name.clone(), by }.into())
    }

    fn failed(&self, error: KeeperError) -> SessionError {
        RemoteError::of_keeper(&self.name, error).into()
    }
}

impl Coded for RemoteError {
    /// OpenSSH's configuration is the user's, everything else is the board's.
    fn exit(&self) -> Exit {
        let is_configuration = matches!(self, Self::Ssh { error, .. } if error.is_configuration());
        if is_configuration { Exit::Usage } else { Exit::Board }
    }
}
