//! A history. Its JSON has the schema `results/history.schema.json`.

use domain::{Metric, ScheduleKind};
use schemars::JsonSchema;
use serde::Serialize;

/// Version of the JSON. It rises if a field changes its meaning or is removed, not if one is added.
pub const SCHEMA: u32 = 1;

/// A metric of a network over runs. Intervals contain the true value with the probability `confidence`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "History of edgepipe")]
pub struct History {
    /// Version of this format.
    pub schema: u32,
    /// Version of the analysis that made the figures from raw observations.
    pub analysis_version: u32,
    /// Probability with which an interval contains the true value.
    pub confidence: f64,
    /// Probability that a step is reported in a series that has none.
    pub false_alarms: f64,
    /// The network.
    pub network: String,
    /// `throughput` or `sustained` in frames/s, `latency` (median of the trials' median latencies), `latency_p99` or `age` in ms, `delivered` or
    /// `on_time` in percent, or `energy` in mJ/frame.
    #[serde(rename = "measure", serialize_with = "short_name")]
    #[schemars(with = "String", extend("enum" = Metric::FOLLOWED.map(Metric::short_name)))]
    pub metric: Metric,
    /// One per board and schedule.
    pub series: Vec<Series>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn short_name<S: serde::Serializer>(metric: &Metric, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(metric.short_name())
}

/// A schedule of the network on a board.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Series {
    /// The board.
    pub board: String,
    /// `pipeline` or `replicate`; for the other kinds, the processors or the peer. If `--schedule` gave processors or a
    /// label, it is that text. If several schedules of a run match, the fastest one is taken.
    pub schedule: String,
    /// `single`, `merged`, `pipeline`, `replicate` or `peer`.
    #[schemars(with = "String")]
    pub kind: ScheduleKind,
    /// Groups of comparable runs, by the time of their first run.
    pub segments: Vec<Segment>,
    /// Runs that are void or without this metric.
    pub left_out: Vec<LeftOut>,
}

/// A run that is left out of a series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LeftOut {
    /// The run.
    pub run: String,
    /// Why.
    pub reason: String,
}

/// Comparable runs: the same machine, compiler and network.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Segment {
    /// The conditions of these runs.
    pub conditions: Vec<Condition>,
    /// The conditions that differ from the previous segment.
    pub changed_conditions: Vec<String>,
    /// One per run, by time.
    pub points: Vec<Point>,
    /// Variation between runs beyond their intervals, as a share. Estimated from at least three runs.
    pub noise: Option<f64>,
}

/// A condition that must be equal for runs to be comparable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Condition {
    /// What it is.
    pub name: String,
    /// Its value in these runs; absent if unknown.
    pub value: Option<String>,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Point {
    /// Its name.
    pub run: String,
    /// When it began: UTC, ISO 8601.
    pub begun: String,
    /// Revision of the checkout; absent outside a git repository.
    pub revision: Option<String>,
    /// Whether there were uncommitted changes.
    pub dirty: Option<bool>,
    /// The schedule with its cuts.
    pub schedule: String,
    /// The figure.
    pub figure: Figure,
    /// Level that the run belongs to.
    pub level: f64,
    /// Whether both neighbouring runs contradict it.
    pub outlying: bool,
    /// The level changed with this run.
    pub step: Option<Step>,
    /// What else changed since the previous run: versions, kernel, experiment, cuts, queues.
    pub changed: Vec<String>,
}

/// A figure with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Figure {
    /// Median over the trials.
    pub point: f64,
    /// Lower end; absent with a single trial.
    pub lo: Option<f64>,
    /// Upper end; absent with a single trial.
    pub hi: Option<f64>,
    /// Number of trials that it is computed from.
    pub trials: usize,
}

impl Figure {
    /// Whether its interval is so wide that it says hardly anything, as after two trials.
    pub fn is_too_wide(&self) -> bool {
        crate::Interval { point: self.point, lo: self.lo, hi: self.hi }.is_too_wide()
    }
}

/// A change of level.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Step {
    /// Level from this run on over the level before it.
    pub ratio: f64,
    /// Lower end of its interval.
    pub lo: f64,
    /// Upper end of its interval.
    pub hi: f64,
    /// Whether it is an improvement.
    pub better: bool,
}
