//! Configuration: reads and checks the files of `configs/` before anything else happens.
//!
//! 1. `tree` parses a file into a tree in which every value has a location.
//! 2. `check` compares the tree with the JSON Schema of the file's struct and reports all faults of its structure.
//! 3. The valid part is laid over the defaults and read into the struct, which is also the one that the program uses.
//!    Faults of its values are reported.
//!
//! Faults of all files are reported together. A setting is declared once: a field with its type, description, range and
//! name in YAML, and its default in `configs/defaults.yaml`.
//!
//! Names of boards, experiments, networks and processors have at most 64 letters, digits, `_`, `.` and `-`, and do not
//! start with `.` or `-`. Other text (hosts, users, paths, units) is any non-empty text without control characters. No
//! text reaches a shell unquoted.

mod board;
mod check;
mod connect;
mod defaults;
mod experiment;
mod faults;
mod files;
mod frames;
mod group;
mod mentions;
mod network;
mod objective;
mod operating_points;
mod ordered;
mod overrides;
mod power;
mod processors;
mod schedules;
mod schema;
mod stored;
#[cfg(test)]
mod tests;
mod thresholds;
mod tree;
mod typed;
mod values;

use domain::FleetMode;
use std::path::Path;

pub use board::{Board, State, Target, Triple};
pub use connect::{Connect, EQUAL_WITHIN, Labgrid, Recover, coordinator};
pub use experiment::{
    Experiment, Isolate, Measure, Profile, Search, SlowDown, WarmUp, check_cuts, check_processors,
};
pub use faults::{Fault, Faults, Spot, did_you_mean};
pub use files::{Kind, names};
pub use frames::Frames;
pub use mentions::{CutMention, Mention};
pub use network::{NetworkSource, zoo};
pub use operating_points::{ModeName, OperatingPoints, PowerModes};
pub use overrides::Overrides;
pub use power::Power;
pub use processors::{Processor, ProcessorSpec, Processors};
pub use schedules::{ManualStage, PeerSpec, ScheduleSpec, StageProcessors};
pub use schema::DEFAULTS;
pub use thresholds::Thresholds;
pub use values::is_name;

/// A board and an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The board.
    pub board: Board,
    /// The experiment.
    pub experiment: Experiment,
}

/// Reads a board and an experiment by name from `configs/` below `root`, with the networks they use, and reports all
/// faults.
///
/// If the board lists its processors, those that schedules name are checked too. If not, call [`check_processors`] once
/// they are detected.
pub fn load(root: &Path, board: &str, experiment: &str, overrides: &Overrides) -> Result<Loaded, Faults> {
    let mut faults = Faults::default();
    let boards = [(board.to_owned(), Spot::whole(format!("--board {board}")))];
    let loaded = read(root, &boards, experiment, overrides, &mut faults);
    faults.into_result(loaded.and_then(|mut loaded| loaded.pop()))
}

/// The same for several boards; `names` are names of boards or groups. Also returns how the boards share the trials:
/// `mode`, or the mode of the groups.
pub fn load_several(
    root: &Path,
    names: &[String],
    mode: Option<FleetMode>,
    experiment: &str,
    overrides: &Overrides,
) -> Result<(Vec<Loaded>, Option<FleetMode>), Faults> {
    let mut faults = Faults::default();
    let selection = group::boards(root, names, mode, &mut faults);
    let loaded = read(root, &selection.boards, experiment, overrides, &mut faults);
    faults.into_result(loaded.map(|loaded| (loaded, selection.mode)))
}

/// The names of the boards that `names` of boards and groups select.
pub fn boards_of(root: &Path, names: &[String]) -> Result<Vec<String>, Faults> {
    let mut faults = Faults::default();
    let selection = group::boards(root, names, None, &mut faults);
    faults.into_result(Some(selection.boards.into_iter().map(|(name, _)| name).collect()))
}

/// Reads a board without an experiment.
pub fn load_board(root: &Path, name: &str) -> Result<Board, Faults> {
    let mut faults = Faults::default();
    let requested = Spot::whole(format!("--board {name}"));
    let defaults = defaults::read().map_err(Clone::clone)?;
    let board = board::read(root, name, &requested, defaults, &mut faults).board;
    faults.into_result(board)
}

fn read(
    root: &Path,
    boards: &[(String, Spot)],
    experiment: &str,
    overrides: &Overrides,
    faults: &mut Faults,
) -> Option<Vec<Loaded>> {
    let defaults = match defaults::read() {
        Ok(defaults) => defaults,
        Err(invalid) => {
            faults.clone_from(invalid);
            return None;
        }
    };
    let boards: Vec<board::Read> =
        boards.iter().map(|(name, requested)| board::read(root, name, requested, defaults, faults)).collect();
    let experiment = experiment::read(root, experiment, overrides, defaults, faults)?;
    for names in boards.iter().filter_map(|board| board.names.as_ref()) {
        mentions::find_unknown(&experiment.mentions, names, faults);
    }
    boards
        .into_iter()
        .map(|board| Some(Loaded { board: board.board?, experiment: experiment.clone() }))
        .collect()
}
