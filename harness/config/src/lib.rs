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
mod group;
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

use domain::FleetMode;
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
    let boards = [(board.to_owned(), Spot::whole(format!("--board {board}")))];
    let loaded = read(root, &boards, experiment, overrides, &mut faults);
    faults.into_result(loaded.and_then(|mut loaded| loaded.pop()))
}

/// The same for several boards, which `names` names one by one or by their group. Also what they do with the trials:
/// `mode`, else what the groups say.
pub fn load_several(
    root: &Path,
    names: &[String],
    mode: Option<FleetMode>,
    experiment: &str,
    overrides: &Overrides,
) -> Result<(Vec<Loaded>, Option<FleetMode>), Faults> {
    let mut faults = Faults::default();
    let asked = group::boards(root, names, mode, &mut faults);
    let loaded = read(root, &asked.boards, experiment, overrides, &mut faults);
    faults.into_result(loaded.map(|loaded| (loaded, asked.mode)))
}

/// Names of the boards that `names` means: boards', and of a group all it has.
pub fn boards_of(root: &Path, names: &[String]) -> Result<Vec<String>, Faults> {
    let mut faults = Faults::default();
    let asked = group::boards(root, names, None, &mut faults);
    faults.into_result(Some(asked.boards.into_iter().map(|(name, _)| name).collect()))
}

/// Reads a board alone, for what needs no experiment.
pub fn load_board(root: &Path, name: &str) -> Result<Board, Faults> {
    let mut faults = Faults::default();
    let asked = Spot::whole(format!("--board {name}"));
    let board = defaults(&mut faults)
        .and_then(|defaults| board::read(root, name, &asked, &defaults, &mut faults).board);
    faults.into_result(board)
}

fn read(
    root: &Path,
    boards: &[(String, Spot)],
    experiment: &str,
    overrides: &Overrides,
    faults: &mut Faults,
) -> Option<Vec<Loaded>> {
    let defaults = defaults(faults)?;
    let boards: Vec<board::Read> =
        boards.iter().map(|(name, asked)| board::read(root, name, asked, &defaults, faults)).collect();
    let experiment = experiment::read(root, experiment, overrides, &defaults, faults)?;
    for names in boards.iter().filter_map(|board| board.names.as_ref()) {
        schedules::find_unknown(&experiment.mentions, names, faults);
    }
    for board in boards.iter().filter_map(|board| board.board.as_ref()) {
        schedules::find_gpus(&experiment.mentions, &board.gpus(), faults);
    }
    boards
        .into_iter()
        .map(|board| Some(Loaded { board: board.board?, experiment: experiment.clone() }))
        .collect()
}

fn defaults(faults: &mut Faults) -> Option<tree::Node> {
    let tree = tree::parse(&Arc::from(schema::DEFAULTS_PATH), DEFAULTS, faults)?;
    check::check(&tree, &schema::SCHEMAS.defaults, faults)
}
