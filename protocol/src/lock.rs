//! Output of the runner's commands about the lock of a board, each a line of JSON.

use serde::{Deserialize, Serialize};

/// Output of `runner holder`, and of `runner break`: who had the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LockHolder {
    /// The board is free.
    Nobody {},
    /// A session has the lock.
    Session {
        /// What it called itself when it took the lock.
        name: String,
    },
}

/// First line of `runner hold`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HoldReply {
    /// This session has the lock now.
    Acquired {},
    /// Another session has it.
    Busy {
        /// The other session.
        name: String,
    },
    /// The lock cannot be used.
    Failed {
        /// Starts with "failed to".
        message: String,
    },
}
