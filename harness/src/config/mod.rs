//! Configuration: the files of `configs/`, read and checked before anything is touched.
//!
//! A file goes three steps. It becomes a tree (`tree`) in which every value knows its line; the tree is checked
//! (`check`) against the JSON Schema made from the structs that mirror the file (`raw`), which finds all that is
//! wrong with its shape; what is sound is laid over the defaults, read into those structs and resolved into what the
//! program uses, which finds all that is wrong with its meaning. Faults of all files are reported together.
//!
//! Names of boards, experiments, networks and processors have letters, digits, `_`, `.` and `-`, at most 64 of them,
//! and do not begin with `.` or `-`. Other text (hosts, users, paths, units) is anything without control characters;
//! none of it reaches a shell unquoted.

mod board;
mod check;
mod experiment;
mod faults;
mod files;
mod network;
mod ordered;
mod overrides;
mod power;
mod raw;
mod schedules;
mod schema;
mod stored;
#[cfg(test)]
mod tests;
mod thresholds;
mod tree;
mod typed;

use std::path::Path;
use std::sync::Arc;

pub use board::{Board, Connect, Processor, ProcessorUnit, Processors, State, Target, Triple};
pub use experiment::{
    Experiment, Frames, Isolate, ManualStage, Measure, Objective, PeerSpec, Profile, ScheduleSpec, SlowDown,
    WarmUp,
};
pub use faults::{Fault, Faults, Spot};
pub use files::{Kind, names};
pub use network::{NetworkSource, zoo};
pub use overrides::Overrides;
pub use power::Power;
pub use schedules::{CutMention, Mention, check_cuts, check_processors};
pub use schema::DEFAULTS;
pub use thresholds::{Measured, Thresholds};

/// What one invocation works with.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The board.
    pub board: Board,
    /// The experiment.
    pub experiment: Experiment,
}

/// Reads the board and the experiment of these names from `configs/` below `root`, with the networks they use, and
/// reports everything that is wrong with any of them.
///
/// Where the board lists its processors, those that schedules name are checked too; otherwise that is left to
/// [`check_processors`].
pub fn load(root: &Path, board: &str, experiment: &str, overrides: &Overrides) -> Result<Loaded, Faults> {
    let mut faults = Faults::default();
    let loaded = read(root, board, experiment, overrides, &mut faults);
    faults.into_result(loaded)
}

/// Reads a board alone, for what needs no experiment.
pub fn load_board(root: &Path, name: &str) -> Result<Board, Faults> {
    let mut faults = Faults::default();
    let board =
        defaults(&mut faults).and_then(|defaults| board::read(root, name, &defaults, &mut faults).board);
    faults.into_result(board)
}

fn read(
    root: &Path,
    board: &str,
    experiment: &str,
    overrides: &Overrides,
    faults: &mut Faults,
) -> Option<Loaded> {
    let defaults = defaults(faults)?;
    let board = board::read(root, board, &defaults, faults);
    let experiment = experiment::read(root, experiment, overrides, &defaults, faults);
    if let (Some(names), Some(experiment)) = (&board.names, &experiment) {
        schedules::find_unknown(&experiment.mentions, names, faults);
    }
    if let (Some(board), Some(experiment)) = (&board.board, &experiment) {
        schedules::find_gpus(&experiment.mentions, &board.gpus(), faults);
    }
    Some(Loaded { board: board.board?, experiment: experiment? })
}

fn defaults(faults: &mut Faults) -> Option<tree::Node> {
    let tree = tree::parse(&Arc::from(schema::DEFAULTS_PATH), DEFAULTS, faults)?;
    check::check(&tree, &schema::SCHEMAS.defaults, faults)
}
