//! Why a board cannot be used.

use crate::farm::FarmError;
use crate::keeper::KeeperError;
use crate::ssh::SshError;
use host::exit::{Coded, Exit};
use protocol::LockHolder;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Why a board cannot be used, or no longer.
#[derive(Debug, Error)]
pub enum RemoteError {
    /// SSH failed.
    #[error("board {board}: {error}")]
    Ssh {
        /// The board.
        board: String,
        /// What went wrong.
        error: Box<SshError>,
    },
    /// Its place on the farm cannot be had, or is lost.
    #[error("board {board}: {error}")]
    Farm {
        /// The board.
        board: String,
        /// What went wrong.
        error: Box<FarmError>,
    },
    /// Another board answers.
    #[error(
        "failed to continue on the board {board}: another board answers at its address ({now}, before: {before}); start a \
         new run"
    )]
    Swapped {
        /// The board.
        board: String,
        /// What was there before.
        before: String,
        /// What is there now.
        now: String,
    },
    /// Another process holds its lock.
    #[error(
        "failed to lock the board {board}: it is in use by {holder}. Wait for it to finish, or end it with `{program} \
         boards --break-lock {board}`",
        program = host::program()
    )]
    Busy {
        /// The board.
        board: String,
        /// How the holder describes itself.
        holder: String,
    },
    /// Another user broke the lock.
    #[error("failed to continue: another user broke the lock of the board {board}{}", new_holder(holder.as_deref()))]
    Broken {
        /// The board.
        board: String,
        /// The present holder, if there is one.
        holder: Option<String>,
    },
    /// Its architecture is not the one in its file.
    #[error(
        "failed to use the board {board}: its architecture is {found}, but its file says {expected}; correct \
         `target.triple` in configs/boards/{board}.yaml"
    )]
    Architecture {
        /// The board.
        board: String,
        /// As `uname -m` names it.
        found: String,
        /// As the file names it.
        expected: &'static str,
    },
    /// There is no runner for it.
    #[error("failed to find a runner for {triple} at {}: {reason}", path.display())]
    Runner {
        /// Its target.
        triple: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why it cannot be used.
        reason: String,
    },
    /// Reconnecting failed.
    #[error("failed to reconnect to the board {board} within {} s: {error}", after.as_secs())]
    Gone {
        /// The board.
        board: String,
        /// Time spent.
        after: Duration,
        /// The last failure.
        error: Box<SshError>,
    },
    /// Its state could not be set or restored.
    #[error("board {board}: {message}")]
    State {
        /// The board.
        board: String,
        /// The runner's message.
        message: String,
    },
    /// The user pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

fn new_holder(holder: Option<&str>) -> String {
    match holder {
        Some(name) => format!(" (now held by {name}); ask them before you measure there again"),
        None => "; ask them before you measure there again; `--resume` continues the run".to_owned(),
    }
}

impl RemoteError {
    /// Another user broke the lock; `holder` is the present holder, if known.
    pub(super) fn broken(board: &str, holder: Option<LockHolder>) -> Self {
        let holder = match holder {
            Some(LockHolder::Session { name }) => Some(name),
            Some(LockHolder::Nobody {}) | None => None,
        };
        Self::Broken { board: board.to_owned(), holder }
    }

    /// An error of the keeper.
    pub(super) fn of_keeper(board: &str, error: KeeperError) -> Self {
        match error {
            KeeperError::Interrupted => Self::Interrupted,
            other => Self::State { board: board.to_owned(), message: other.to_string() },
        }
    }
}

impl Coded for RemoteError {
    /// OpenSSH's configuration is the user's; what is not a farm's is the board's.
    fn exit(&self) -> Exit {
        if let Self::Farm { error, .. } = self {
            return error.exit();
        }
        let is_configuration = matches!(self, Self::Ssh { error, .. } if error.is_configuration());
        if is_configuration { Exit::Usage } else { Exit::Board }
    }
}
