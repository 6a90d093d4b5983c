//! The boards that a command line selects: boards and groups of boards, by name.

use std::path::Path;
use std::sync::LazyLock;

use domain::FleetMode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::faults::{Faults, Spot};
use super::files::{self, Kind};
use super::values::Name;
use super::{check, schema, typed};

/// Boards that one `bench` uses at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Group {
    /// Name of the group; must equal the file name and must not be the name of a board.
    #[serde(rename = "group")]
    #[schemars(with = "Name")]
    name: String,
    /// Names of its boards.
    #[schemars(with = "Vec<Name>", length(min = 1), extend("uniqueItems" = true))]
    boards: Vec<String>,
    /// How the boards share the trials. Default: repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<FleetMode>,
}

/// The schema of a group's file.
pub(super) static SCHEMA: LazyLock<serde_json::Value> = LazyLock::new(schema::of::<Group>);

/// Selected boards, each with the location where it is named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) boards: Vec<(String, Spot)>,
    /// How the boards share the trials.
    pub(super) mode: Option<FleetMode>,
}

/// Selects boards by `names` of boards and groups. `mode` overrides that of the groups.
pub(super) fn boards(
    root: &Path,
    names: &[String],
    mode: Option<FleetMode>,
    faults: &mut Faults,
) -> Selection {
    let mut selection = Selection { boards: Vec::new(), mode };
    for name in names {
        let at = Spot::whole(format!("--board {name}"));
        let is_there = |kind: Kind| files::names(root, kind).iter().any(|known| known == name);
        if !is_there(Kind::Group) {
            selection.add(name.clone(), at, faults);
            continue;
        }
        if is_there(Kind::Board) {
            let message = format!(
                "{name:?} is both a board and a group; rename configs/boards/{name}.yaml or configs/groups/{name}.yaml"
            );
            faults.add(&at, message);
        }
        read(root, name, &at, mode.is_some(), &mut selection, faults);
    }
    selection
}

fn read(
    root: &Path,
    name: &str,
    at: &Spot,
    is_overridden: bool,
    selection: &mut Selection,
    faults: &mut Faults,
) {
    let Some(tree) = files::read(root, Kind::Group, name, at, faults) else { return };
    let Some(valid) = check::check(&tree, &SCHEMA, faults) else { return };
    let Some(group) = typed::read_checked::<Group>(&valid, faults) else { return };
    let groups = files::names(root, Kind::Group);
    for (place, board) in group.boards.into_iter().enumerate() {
        if groups.contains(&board) {
            let message = format!("{board:?} is a group; list its boards instead");
            faults.add(&valid.spot(&format!("boards/{place}")), message);
            continue;
        }
        selection.add(board, valid.spot(&format!("boards/{place}")), faults);
    }
    match (selection.mode, group.mode) {
        _ if is_overridden => {}
        (Some(before), Some(mode)) if before != mode => {
            let message = format!(
                "mode {:?} conflicts with {:?} of another selected group; set --mode, or measure the groups one by one",
                mode.as_str(),
                before.as_str()
            );
            faults.add(&valid.spot("mode"), message);
        }
        (before, mode) => selection.mode = mode.or(before),
    }
}

impl Selection {
    fn add(&mut self, board: String, at: Spot, faults: &mut Faults) {
        if let Some((_, first)) = self.boards.iter().find(|(known, _)| *known == board) {
            faults.add(&at, format!("board {board:?} is selected twice, first at {first}; remove one"));
            return;
        }
        self.boards.push((board, at));
    }
}
