//! `configs/defaults.yaml`: the settings of an experiment that have a default and, below `board`, those of a board.

use std::sync::LazyLock;

use serde_json::{Value as Json, json};

use super::board::Board;
use super::check;
use super::experiment::Experiment;
use super::faults::Faults;
use super::schema::{self, DEFAULTS_TREE};
use super::tree::Node;

/// The schema of the file.
pub(super) static SCHEMA: LazyLock<Json> =
    LazyLock::new(|| defaults_schema(schema::of::<Experiment>(), schema::of::<Board>()));

/// The embedded defaults. They do not change while the program runs.
pub(super) fn read() -> Result<&'static Node, &'static Faults> {
    static CHECKED: LazyLock<Result<Node, Faults>> = LazyLock::new(|| {
        let mut faults = Faults::default();
        let valid = check::check(DEFAULTS_TREE.as_ref().map_err(Clone::clone)?, &SCHEMA, &mut faults);
        faults.into_result(valid)
    });
    CHECKED.as_ref()
}

fn defaults_schema(mut experiment: Json, board: Json) -> Json {
    let mut board = without(board, &["board", "target"]);
    let board_definitions = board.as_object_mut().and_then(|board| board.remove("$defs"));
    if let Some(board) = board.as_object_mut() {
        board.remove("$schema");
        board.insert("description".to_owned(), json!("What a board's file may leave out."));
    }
    experiment = without(experiment, &["experiment", "networks"]);
    experiment["title"] = json!("Defaults");
    experiment["description"] = json!("The settings that have a default.");
    experiment["properties"]["board"] = board;
    if let Some(required) = experiment["required"].as_array_mut() {
        required.push(json!("board"));
    }
    if let (Some(all), Some(Json::Object(more))) = (experiment["$defs"].as_object_mut(), board_definitions) {
        all.extend(more);
    }
    experiment
}

fn without(mut schema: Json, names: &[&str]) -> Json {
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.retain(|name, _| !names.contains(&name.as_str()));
    }
    if let Some(required) = schema["required"].as_array_mut() {
        required.retain(|name| !name.as_str().is_some_and(|name| names.contains(&name)));
    }
    schema
}
