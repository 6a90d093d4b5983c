//! The operating points of a board that `optimize` searches.

use std::collections::BTreeMap;

use domain::Steps;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::faults::{Faults, did_you_mean};
use super::tree::{Node, Value};
use super::values::{All, NAME, Name, Text};

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
    /// Frequency governors of all CPUs, or `all`. Default: that of `state`, or the one that is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    governors: Option<Governors>,
    /// Frequencies in MHz at which the memory clock of a Jetson is locked: a list, `all`, or `{ every: 3 }`. Default: it is not
    /// changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory_mhz: Option<Frequencies>,
}

/// Frequency governors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Governors {
    /// All that the board offers except `userspace`, which leaves the frequency to programs.
    All(All),
    /// These.
    Listed(#[schemars(with = "Vec<Name>", length(min = 1))] Vec<String>),
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

/// Frequencies of a clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Frequencies {
    /// All that the board offers.
    All(All),
    /// These, in MHz.
    Listed(#[schemars(length(min = 1), inner(range(min = 1, max = 100_000)))] Vec<f64>),
    /// Some of those that the board offers.
    Every(Every),
}

/// Every n-th frequency from the highest down, and always the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Every {
    /// At least 1; 1 is the same as `all`.
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
        self.frequencies_mhz.iter().map(|(name, frequencies)| (name.as_str(), frequencies.steps()))
    }

    /// The frequencies of the memory clock; absent if it is not varied.
    pub fn memory(&self) -> Option<Steps> {
        self.memory_mhz.as_ref().map(Frequencies::steps)
    }

    /// The governors among those that the board offers; empty if they are not varied.
    ///
    /// # Errors
    /// The first one that the board does not offer.
    pub fn governors(&self, offered: &[String]) -> Result<Vec<String>, String> {
        let mut chosen: Vec<String> = Vec::new();
        match &self.governors {
            None => {}
            Some(Governors::All(_)) => {
                chosen.extend(offered.iter().filter(|name| *name != USERSPACE).cloned());
            }
            Some(Governors::Listed(listed)) => {
                for name in listed {
                    if !offered.contains(name) {
                        return Err(name.clone());
                    }
                    if !chosen.contains(name) {
                        chosen.push(name.clone());
                    }
                }
            }
        }
        Ok(chosen)
    }

    /// Whether governors are varied.
    pub fn vary_governors(&self) -> bool {
        self.governors.is_some()
    }
}

/// The governor that leaves the frequency to programs.
const USERSPACE: &str = "userspace";
/// The governor that keeps the highest frequency.
const PERFORMANCE: &str = "performance";

impl Frequencies {
    fn steps(&self) -> Steps {
        match self {
            Self::All(_) => Steps::All,
            Self::Every(Every { every }) => Steps::Every(*every as usize),
            Self::Listed(listed) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "checked by the schema"
                )]
                let khz = |mhz: &f64| (1000.0 * mhz).round() as u64;
                Steps::Listed(listed.iter().map(khz).collect())
            }
        }
    }
}

/// Reports processors that the board does not list, and governors that do not decide the frequency. `board` is the board's
/// tree.
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
    let Some(governors) = board.find("operating_points/governors") else { return };
    if board.find("state/jetson_clocks").is_some_and(|pinned| pinned.value == Value::Bool(true)) {
        faults.add(
            &governors.at,
            "governors have no effect on clocks that `jetson_clocks: true` pins; remove one of the two"
                .to_owned(),
        );
    }
    let Value::List(listed) = &governors.value else { return };
    if let Some(at) = listed.iter().find(|name| name.text() == Some(USERSPACE)) {
        faults.add(
            &at.at,
            format!(
                "the governor {USERSPACE} leaves the frequency to programs; use {PERFORMANCE} and `frequencies_mhz`"
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_one_whole_number_is_a_list() {
        let read = |text: &str| serde_yaml::from_str::<Frequencies>(text).unwrap().steps();
        assert_eq!(read("[700]"), Steps::Listed(vec![700_000]));
        assert_eq!(read("[114.75, 3]"), Steps::Listed(vec![114_750, 3000]));
        assert_eq!(read("{ every: 3 }"), Steps::Every(3));
        assert_eq!(read("all"), Steps::All);
    }
}
