//! What a history says. This is also its JSON, whose schema is `results/history.schema.json`.

use domain::{Metric, ScheduleKind};
use schemars::JsonSchema;
use serde::Serialize;

/// Version of the JSON. It rises when a field changes its meaning or goes; fields may be added without.
pub const SCHEMA: u32 = 1;

/// A figure of a network over runs. All intervals hold the true value with the probability `confidence`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "History of edgepipe")]
pub struct History {
    /// Version of this format.
    pub schema: u32,
    /// Version of the analysis that made the figures from raw observations.
    pub analysis_version: u32,
    /// Probability with which an interval holds the true value.
    pub confidence: f64,
    /// Share of series without a step in which one is found nevertheless.
    pub false_alarms: f64,
    /// The network.
    pub network: String,
    /// `throughput` in frames/s, `latency` in ms (median of the trials' median latencies), or `energy` in mJ/frame.
    #[serde(rename = "measure", serialize_with = "short_name")]
    #[schemars(with = "String", extend("enum" = Metric::FOLLOWED.map(Metric::short_name)))]
    pub metric: Metric,
    /// One a board and schedule.
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
    /// A processor, `pipeline` or `replicate`; the processors of a pipeline or all of its label, where that was asked
    /// for. Of several in a run it is the fastest one.
    pub schedule: String,
    /// `single`, `pipeline` or `replicate`.
    #[schemars(with = "String")]
    pub kind: ScheduleKind,
    /// Runs of like things, which may be compared; by the time of their first run.
    pub segments: Vec<Segment>,
    /// Runs whose figures do not count, or that have none.
    pub left_out: Vec<LeftOut>,
}

/// A run that is not in a series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LeftOut {
    /// The run.
    pub run: String,
    /// Why.
    pub reason: String,
}

/// Runs on the same machine with the same compiler and network.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Segment {
    /// What the runs have in common.
    pub conditions: Vec<Condition>,
    /// What of it the segment before has not in common with these.
    pub unlike_before: Vec<String>,
    /// One a run, in the order of time.
    pub points: Vec<Point>,
    /// By what share runs differ beyond their intervals. Absent with two runs or one.
    pub noise: Option<f64>,
}

/// A thing that must be equal for runs to be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Condition {
    /// What it is.
    pub name: String,
    /// As the runs have it; absent where it is not known.
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
    /// Whether files differed from it.
    pub dirty: Option<bool>,
    /// The schedule with its cuts.
    pub schedule: String,
    /// The figure.
    pub figure: Figure,
    /// Level the run belongs to.
    pub level: f64,
    /// Both runs beside it contradict it.
    pub outlying: bool,
    /// The level changed with this run.
    pub step: Option<Step>,
    /// What else changed since the run before: versions, kernel, experiment, cuts.
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
    /// Trials it is of.
    pub trials: usize,
}

/// A change of level.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Step {
    /// Level from here on over that before.
    pub ratio: f64,
    /// Lower end of its interval.
    pub lo: f64,
    /// Upper end of its interval.
    pub hi: f64,
    /// Whether it is for the better.
    pub better: bool,
}
