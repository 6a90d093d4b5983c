//! A board with the means to start runners on it.

use super::process::Process;
use super::remote::Remote;
use crate::session::SessionError;
use protocol::Request;
use std::path::PathBuf;

/// A board with the means to start runners on it.
#[derive(Debug)]
pub enum Board {
    /// This machine.
    Local {
        /// The runner.
        runner: PathBuf,
    },
    /// Another one.
    Remote(Box<Remote>),
}

impl Board {
    /// Starts a runner.
    ///
    /// # Errors
    /// Where it does not start, or the board is out of reach.
    pub fn start(&mut self) -> Result<Process, SessionError> {
        match self {
            Self::Local { runner } => {
                Process::local(runner).map_err(|reason| SessionError::Start { path: runner.clone(), reason })
            }
            Self::Remote(remote) => Ok(remote.start()?),
        }
    }

    /// Brings the files that a request names to the board, and names them as they are called there.
    ///
    /// # Errors
    /// Where the board is out of reach, or has no room.
    pub fn place(&mut self, request: &mut Request) -> Result<(), SessionError> {
        match self {
            Self::Local { .. } => Ok(()),
            Self::Remote(remote) => Ok(remote.place(request)?),
        }
    }
}
