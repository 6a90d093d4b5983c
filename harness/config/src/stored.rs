//! The complete configuration as text, for the database. A run can be repeated from it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::board::{self, Board};
use super::experiment::Experiment;
use super::faults::{Faults, Spot};
use super::network::{self, NetworkFile, NetworkSource};
use super::schema;
use super::{Loaded, check, tree, typed};

/// Version of the stored text.
const VERSION: u32 = 1;
/// The name of that text in faults.
const SOURCE: &str = "the stored configuration";

/// A complete configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// Version of this format.
    #[schemars(range(min = 1, max = 1))]
    schema: u32,
    /// The board, complete.
    board: Board,
    /// Networks that have a file, with absolute paths.
    networks: Vec<NetworkFile>,
    /// The experiment, complete.
    experiment: Experiment,
}

/// The schema of the stored text.
pub(super) static SCHEMA: LazyLock<serde_json::Value> = LazyLock::new(schema::of::<Stored>);

impl Loaded {
    /// The complete configuration as YAML. [`Loaded::from_yaml`] returns an equal one, even if files and defaults have
    /// changed since. Locations in files are lost.
    pub fn to_yaml(&self) -> Result<String, serde_yaml::Error> {
        let stored = Stored {
            schema: VERSION,
            board: self.board.clone(),
            networks: self.experiment.networks.iter().filter_map(NetworkSource::to_file).collect(),
            experiment: self.experiment.clone(),
        };
        let mut text = Vec::new();
        let mut serializer = serde_yaml::Serializer::new(&mut text);
        serde_yaml::with::singleton_map_recursive::serialize(&stored, &mut serializer)?;
        drop(serializer);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Reads the text of [`Loaded::to_yaml`]. Opens no file: whether networks still exist is checked when they are
    /// compiled.
    pub fn from_yaml(text: &str) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let loaded = read(text, &mut faults);
        faults.into_result(loaded)
    }
}

fn read(text: &str, faults: &mut Faults) -> Option<Loaded> {
    let tree = tree::parse(&Arc::from(SOURCE), text, faults)?;
    let valid = check::check(&tree, &SCHEMA, faults)?;
    board::check_values(valid.get("board")?, faults);
    let Stored { board, networks, mut experiment, .. } = typed::read_checked(&valid, faults)?;
    let own: BTreeMap<String, NetworkSource> = networks
        .into_iter()
        .filter_map(|file| file.source(Path::new("")))
        .map(|source| (source.name().to_owned(), source))
        .collect();
    let mut find = |name: &str, at: &Spot, faults: &mut Faults| {
        let known = own.get(name).cloned();
        let zoo = || network::zoo().any(|known| known == name);
        let source = known.or_else(|| zoo().then(|| NetworkSource::of_zoo(name)));
        if source.is_none() {
            faults.add(at, format!("unknown network {name:?}; it is not in the zoo of this version"));
        }
        source
    };
    experiment.resolve(valid.get("experiment")?, &mut find, faults);
    Some(Loaded { board, experiment })
}
