//! A board with the means to start runners on it.

use super::keeper::{Keeper, KeeperError};
use super::process::Process;
use super::remote::{Remote, RemoteError};
use super::{holder, tell_leftover};
use crate::config;
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::session::SessionError;
use protocol::{Asked, Brought, Pending, Request};
use std::path::PathBuf;
use std::process::{Command, Stdio};

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
    asked: Asked,
    keeper: Option<Keeper>,
}

impl Board {
    /// This machine, untouched so far.
    pub fn local(board: &config::Board, runner: PathBuf) -> Self {
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
    pub fn bring(&mut self, interrupt: &Interrupt) -> Result<Brought, SessionError> {
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
                Some(mut keeper) => keeper.restore().map_err(|error| local.failed(error)),
                None => Ok(Vec::new()),
            },
            Self::Remote(remote) => Ok(remote.restore()?),
        }
    }

    /// What is to be restored on it, if anything.
    ///
    /// # Errors
    /// Where it does not tell.
    pub fn pending(&mut self) -> Result<Option<Pending>, SessionError> {
        self.told("pending")
    }

    /// Restores what a session left behind on it. Tells what that was, if anything.
    ///
    /// # Errors
    /// Where it cannot be restored, or a session has the board.
    pub fn restore_leftover(&mut self) -> Result<Option<Pending>, SessionError> {
        self.told("restore")
    }

    fn told(&mut self, word: &str) -> Result<Option<Pending>, SessionError> {
        let (name, told) = match self {
            Self::Local(local) => {
                let output = Command::new(&local.runner).arg(word).stdin(Stdio::null()).output();
                let output =
                    output.map_err(|reason| SessionError::Start { path: local.runner.clone(), reason })?;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
                let told = if output.status.success() {
                    Ok(text(&output.stdout))
                } else {
                    Err(text(&output.stderr))
                };
                (local.name.as_str(), told)
            }
            Self::Remote(remote) => {
                let told = remote.tell(word)?;
                (remote.name(), told)
            }
        };
        let told = told.and_then(|text| match text.as_str() {
            "" => Ok(None),
            text => serde_json::from_str(text)
                .map(Some)
                .map_err(|error| format!("failed to read {text:?}: {error}")),
        });
        told.map_err(|message| RemoteError::State { board: name.to_owned(), message }.into())
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
            Self::Local(_) => Ok(()),
            Self::Remote(remote) => Ok(remote.place(request)?),
        }
    }
}

impl Local {
    fn bring(&mut self, interrupt: &Interrupt) -> Result<Brought, SessionError> {
        if self.keeper.is_none() {
            let failed = |reason| SessionError::Start { path: self.runner.clone(), reason };
            self.keeper = Some(Keeper::local(&self.runner, &holder(&self.name)).map_err(failed)?);
        }
        let Some(keeper) = &mut self.keeper else { return Err(SessionError::Interrupted) };
        let brought = keeper.bring(&self.asked, interrupt).map_err(|error| self.failed(error))?;
        tell_leftover(&self.name, &brought);
        Ok(brought)
    }

    fn failed(&self, error: KeeperError) -> SessionError {
        RemoteError::of_keeper(&self.name, error).into()
    }
}

impl RemoteError {
    /// The failure with its exit code: OpenSSH's configuration is the user's, the rest is the board's.
    pub fn into_failure(self) -> Failure {
        let is_configuration = matches!(&self, Self::Ssh { error, .. } if error.is_configuration());
        let exit = if is_configuration { Exit::Usage } else { Exit::Board };
        Failure { exit, error: self.into() }
    }
}
