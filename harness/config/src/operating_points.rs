//! The operating points of a board that `optimize` searches.

use std::collections::BTreeMap;

use domain::Steps;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::faults::{Faults, did_you_mean};
use super::tree::Node;
use super::values::{All, NAME, Text};

/// Operating points for `optimize`: every combination of these settings that the board offers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatingPoints {
    /// Power modes of `nvpmodel`, as numbers or names, or `all`. Default: that of `state`, or the one that is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    power_modes: Option<Modes>,
    /// Highest frequencies of processors in MHz, by name: a list, `all`, or `{ every: 3 }`. The others are not changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("propertyNames" = { "pattern": NAME }))]
    frequencies_mhz: BTreeMap<String, Frequencies>,
}

/// Power modes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "PowerModes")]
enum Modes {
    /// All modes of the board.
    All(All),
    /// These.
    Listed(#[schemars(length(min = 1))] Vec<ModeName>),
}

/// A power mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "PowerMode")]
pub enum ModeName {
    /// By its number.
    Number(#[schemars(range(max = 255))] u32),
    /// By its name.
    Name(#[schemars(with = "Text")] String),
}

impl std::fmt::Display for ModeName {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(out),
            Self::Name(name) => name.fmt(out),
        }
    }
}

/// Frequencies of a processor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Frequencies {
    /// All that the board offers.
    All(All),
    /// Some of those that the board offers.
    Every(Every),
    /// These, in MHz.
    Listed(#[schemars(length(min = 1), inner(range(min = 1, max = 100_000)))] Vec<f64>),
}

/// Every n-th frequency, from the highest one, and the lowest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Every {
    /// From 1, which is the same as `all`.
    #[schemars(range(min = 1, max = 1000))]
    every: u32,
}

/// Which power modes of a board are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PowerModes {
    /// The one that the board's state has.
    Present,
    /// All that the board offers.
    All,
    /// These.
    Listed(Vec<ModeName>),
}

impl OperatingPoints {
    /// The power modes.
    pub fn power_modes(&self) -> PowerModes {
        match &self.power_modes {
            None => PowerModes::Present,
            Some(Modes::All(_)) => PowerModes::All,
            Some(Modes::Listed(listed)) => PowerModes::Listed(listed.clone()),
        }
    }

    /// The processors whose frequency is varied.
    pub fn frequencies(&self) -> impl Iterator<Item = (&str, Steps)> {
        self.frequencies_mhz.iter().map(|(name, frequencies)| {
            let steps = match frequencies {
                Frequencies::All(_) => Steps::All,
                Frequencies::Every(Every { every }) => Steps::Every(*every as usize),
                Frequencies::Listed(listed) => {
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "checked by the schema"
                    )]
                    let khz = |mhz: &f64| (1000.0 * mhz).round() as u64;
                    Steps::Listed(listed.iter().map(khz).collect())
                }
            };
            (name.as_str(), steps)
        })
    }
}

/// Reports processors that the board does not list. `board` is the board's tree.
pub(super) fn check(board: &Node, faults: &mut Faults) {
    let listed = board.get("processors").map(Node::entries).unwrap_or_default();
    let frequencies = board.find("operating_points/frequencies_mhz").map(Node::entries).unwrap_or_default();
    // Processors that are detected have no entries.
    for entry in frequencies.iter().filter(|_| !listed.is_empty()) {
        if !listed.iter().any(|known| known.key == entry.key) {
            let hint = did_you_mean(&entry.key, listed.iter().map(|known| known.key.as_str()));
            faults.add(&entry.key_at, format!("unknown processor {:?}{hint}", entry.key));
        }
    }
}
