//! Which boards a command line asks for: boards and groups of boards, by name.

use std::path::Path;

use super::faults::{Faults, Spot};
use super::files::{self, Kind};
use super::schema::SCHEMAS;
use super::{check, raw, typed};
use domain::FleetMode;

/// Boards asked for, each with the place where it is named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) boards: Vec<(String, Spot)>,
    /// What is to be done with the trials.
    pub(super) mode: Option<FleetMode>,
}

/// Finds the boards that are meant by `names`, which are boards' and groups'. `mode` stands above what groups say.
pub(super) fn boards(root: &Path, names: &[String], mode: Option<FleetMode>, faults: &mut Faults) -> Asked {
    let mut asked = Asked { boards: Vec::new(), mode };
    for name in names {
        let at = Spot::whole(format!("--board {name}"));
        let is_there = |kind: Kind| files::names(root, kind).iter().any(|known| known == name);
        if !is_there(Kind::Group) {
            asked.add(name.clone(), at, faults);
            continue;
        }
        if is_there(Kind::Board) {
            let message = format!(
                "{name:?} is both a board and a group; rename configs/boards/{name}.yaml or configs/groups/{name}.yaml"
            );
            faults.add(&at, message);
        }
        read(root, name, &at, mode.is_some(), &mut asked, faults);
    }
    asked
}

fn read(root: &Path, name: &str, at: &Spot, is_decided: bool, asked: &mut Asked, faults: &mut Faults) {
    let Some(tree) = files::read(root, Kind::Group, name, at, faults) else { return };
    let Some(sound) = check::check(&tree, &SCHEMAS.group, faults) else { return };
    let read = typed::read::<raw::Group>(&sound);
    if let (Err(error), true) = (&read, faults.is_empty()) {
        faults.add(&tree.at, error.to_string());
    }
    let Ok(group) = read else { return };
    let groups = files::names(root, Kind::Group);
    for (place, board) in group.boards.into_iter().enumerate() {
        if groups.contains(&board.0) {
            let message = format!("{:?} is a group; name its boards one by one", board.0);
            faults.add(&sound.spot(&format!("boards/{place}")), message);
            continue;
        }
        asked.add(board.0, sound.spot(&format!("boards/{place}")), faults);
    }
    match (asked.mode, group.mode) {
        _ if is_decided => {}
        (Some(before), Some(mode)) if before != mode => {
            let message = format!(
                "mode {:?}, and another group asked for has {:?}; give --mode, or measure them one by one",
                mode.as_str(),
                before.as_str()
            );
            faults.add(&sound.spot("mode"), message);
        }
        (before, mode) => asked.mode = mode.or(before),
    }
}

impl Asked {
    fn add(&mut self, board: String, at: Spot, faults: &mut Faults) {
        if let Some((_, first)) = self.boards.iter().find(|(known, _)| *known == board) {
            faults
                .add(&at, format!("the board {board:?} is asked for twice, first at {first}; leave one out"));
            return;
        }
        self.boards.push((board, at));
    }
}
