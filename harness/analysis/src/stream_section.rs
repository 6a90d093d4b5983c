//! Sections of a report on streams.

use schemars::JsonSchema;
use serde::Serialize;

/// Latency in milliseconds, with intervals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct LatencyIntervals {
    /// Median.
    pub p50: LatencyQuantile,
    /// 90th percentile.
    pub p90: LatencyQuantile,
    /// 99th percentile.
    pub p99: LatencyQuantile,
    /// The longest. It has no upper end.
    pub max: LatencyQuantile,
}

/// A quantile of the latency in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct LatencyQuantile {
    /// The figure.
    pub point: f64,
    /// Lower end; absent with fewer frames than needed.
    pub lo: Option<f64>,
    /// Upper end.
    pub hi: Option<f64>,
    /// Frames that an interval needs; absent for the longest latency, which no number of frames bounds.
    pub frames_needed: Option<usize>,
}

impl LatencyQuantile {
    pub(super) fn new(interval: domain::Interval, frames_needed: Option<usize>) -> Self {
        Self { point: interval.point, lo: interval.lo, hi: interval.hi, frames_needed }
    }
}

/// A stream over all trials of a row.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct StreamSection {
    /// Frames scheduled to arrive in the windows.
    pub arrived: u64,
    /// Frames dropped at the queue before the first stage. Frames are dropped nowhere else.
    pub dropped_at_queue: u64,
    /// Frames completed.
    pub completed: u64,
    /// Jitter of the output: standard deviation of the times between results in ms, median over the trials.
    pub jitter_ms: Option<f64>,
    /// Frames that were waiting when a frame arrived: mean of each trial, median over the trials.
    pub mean_waiting: Option<f64>,
    /// How late the source offered frames in ms: 99th percentile of each trial, median over the trials.
    pub source_late_p99_ms: Option<f64>,
    /// CPU time of the source as a share of one CPU, median over the trials.
    pub source_cpu_share: Option<f64>,
    /// Each stream; empty with one.
    pub streams: Vec<StreamShare>,
}

/// Frames of one of several streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct StreamShare {
    /// Frames scheduled to arrive.
    pub arrived: u64,
    /// Frames dropped.
    pub dropped: u64,
    /// Frames completed.
    pub completed: u64,
}

/// Frames with latencies in a range that begins where the one before ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatencyBin {
    /// End of the range in ms.
    pub up_to_ms: f64,
    /// Share of all frames.
    pub share: f64,
}

/// The queue of a stream in a trial, in equal parts of the window.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamTrace {
    /// Number of the schedule, as in [`Row::place`].
    pub place: u32,
    /// Round of the trial.
    pub round: u32,
    /// Length of the window.
    pub seconds: f64,
    /// Most frames that were waiting when a frame arrived, in each part.
    pub waiting: Vec<u32>,
    /// Frames dropped in each part.
    pub dropped: Vec<u32>,
}
