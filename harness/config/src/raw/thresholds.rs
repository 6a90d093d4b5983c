//! `ci/thresholds.yaml`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Name, Nothing, Percent, Text};

/// By how much a measure may become worse before `cargo xtask check` fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Thresholds {
    /// Probability with which a whole check may fail although nothing became worse.
    pub(crate) false_alarms: Percent,
    /// Standard deviation between runs of the same thing. It is taken where a baseline of fewer than three runs is
    /// compared with a run of another time, from which it cannot be told.
    pub(crate) between_runs: Percent,
    /// Frames per second.
    pub(crate) throughput: Threshold,
    /// Latency that half of the frames do not exceed.
    pub(crate) latency_p50: Threshold,
    /// Latency that 99 of 100 frames do not exceed.
    pub(crate) latency_p99: Threshold,
    /// Energy of a frame, where it is measured.
    pub(crate) joules_per_frame: Threshold,
    /// Other thresholds for some rows; of several that fit, the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) overrides: Vec<Override>,
}

/// Worse by more than this is a regression; `none`: not looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Threshold {
    /// Not looked at.
    Any(Nothing),
    /// Worse by more than this.
    By(Percent),
}

/// Thresholds of some rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Override {
    /// This network; all where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<Name>,
    /// Schedules of this kind (`pipeline`) or this one (`cpu0 | cpu1`); all where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) schedule: Option<Text>,
    /// Frames per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) throughput: Option<Threshold>,
    /// Latency that half of the frames do not exceed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) latency_p50: Option<Threshold>,
    /// Latency that 99 of 100 frames do not exceed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) latency_p99: Option<Threshold>,
    /// Energy of a frame, where it is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) joules_per_frame: Option<Threshold>,
}
