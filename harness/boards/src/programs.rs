//! Programs on this machine.

use std::path::PathBuf;

/// Programs on this machine that are needed for a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// The runner that was built for it.
    pub runner: PathBuf,
    /// Interpreter of the private Python environment, which has labgrid's client if the board is on a farm.
    pub python: PathBuf,
}
