//! What is optimized, as YAML has it.

use domain::{Limit, Objective};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is optimized.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Objective")]
pub(super) enum Notation {
    /// Without a requirement.
    Alone(Alone),
    /// Least energy per frame at a frame rate.
    Energy(Energy),
    /// Most frames per second within a limit.
    Throughput(Throughput),
}

/// An objective without a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Alone {
    /// Most frames per second.
    Throughput,
    /// Least energy per frame.
    Energy,
    /// Least latency at the rate of the stream in `load`. `bench` plans `pipeline: auto` for it.
    Latency,
    /// The Pareto front of throughput and energy.
    Pareto,
}

/// Least energy per frame at a frame rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Energy {
    energy: AtLeast,
}

/// A frame rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AtLeast {
    /// Minimum frames per second.
    #[schemars(range(min = 0.001, max = 1e9))]
    min_fps: f64,
}

/// Most frames per second within a limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Throughput {
    throughput: Within,
}

/// A limit of power or energy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Within {
    /// Maximum mean power of the board in W.
    MaxWatts(#[schemars(range(min = 0.001, max = 1e6))] f64),
    /// Maximum energy per frame in mJ.
    MaxMjPerFrame(#[schemars(range(min = 0.001, max = 1e9))] f64),
}

pub(super) fn serialize<S: Serializer>(objective: &Objective, serializer: S) -> Result<S::Ok, S::Error> {
    let notation = match *objective {
        Objective::Throughput => Notation::Alone(Alone::Throughput),
        Objective::Energy => Notation::Alone(Alone::Energy),
        Objective::Latency => Notation::Alone(Alone::Latency),
        Objective::Pareto => Notation::Alone(Alone::Pareto),
        Objective::EnergyAtLeast { min_fps } => Notation::Energy(Energy { energy: AtLeast { min_fps } }),
        Objective::ThroughputWithin(limit) => Notation::Throughput(Throughput {
            throughput: match limit {
                Limit::Watts(most) => Within::MaxWatts(most),
                Limit::MillijoulesPerFrame(most) => Within::MaxMjPerFrame(most),
            },
        }),
    };
    notation.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Objective, D::Error> {
    Ok(match Notation::deserialize(deserializer)? {
        Notation::Alone(Alone::Throughput) => Objective::Throughput,
        Notation::Alone(Alone::Energy) => Objective::Energy,
        Notation::Alone(Alone::Latency) => Objective::Latency,
        Notation::Alone(Alone::Pareto) => Objective::Pareto,
        Notation::Energy(Energy { energy: AtLeast { min_fps } }) => Objective::EnergyAtLeast { min_fps },
        Notation::Throughput(Throughput { throughput }) => Objective::ThroughputWithin(match throughput {
            Within::MaxWatts(most) => Limit::Watts(most),
            Within::MaxMjPerFrame(most) => Limit::MillijoulesPerFrame(most),
        }),
    })
}
