//! An experiment's file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Auto, Name, Nothing, Percent, Text};

/// What to measure and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Experiment {
    /// Name of the experiment, the same as the file's.
    #[serde(rename = "experiment")]
    pub(in crate::config) name: Name,
    /// Networks: names of the zoo (configs/zoo.txt), or of files in configs/networks/.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub(in crate::config) networks: Vec<Name>,
    /// Ways of running each network that are compared.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub(in crate::config) schedules: Vec<Schedule>,
    /// What the planner of `pipeline: auto` optimizes.
    pub(in crate::config) objective: Objective,
    /// Trials of each schedule, interleaved with those of the others.
    #[schemars(range(min = 1, max = 10_000))]
    pub(in crate::config) trials: u32,
    /// Rounds are added until half the width of every interval, of throughput and of gain, is at most this share of its
    /// figure; `none`: `trials` are all.
    #[serde(default)]
    pub(in crate::config) precision: Precision,
    /// With `precision`: no round begins after so many minutes of measuring.
    #[schemars(range(min = 0.01, max = 10_080))]
    #[serde(default = "thirty_minutes")]
    pub(in crate::config) max_minutes: f64,
    /// What runs before each measured window.
    pub(in crate::config) warm_up: WarmUp,
    /// The measured window of each trial.
    pub(in crate::config) measure: Measure,
    /// Each stage by itself, before the whole schedule runs.
    pub(in crate::config) isolate: Isolate,
    /// Timing of every unit on every processor, from which schedules are planned and predicted.
    pub(in crate::config) profile: Profile,
    /// Frames that may wait between two stages.
    #[schemars(range(min = 1, max = 1024))]
    pub(in crate::config) queue_depth: u32,
    /// The first so many frames of a window are kept with their time span in every stage.
    #[schemars(range(max = 100_000))]
    pub(in crate::config) timeline_frames: u32,
    /// Input frames.
    pub(in crate::config) frames: Frames,
    /// Seed of the order of the trials and of the intervals' resampling.
    pub(in crate::config) seed: u64,
    /// Largest relative difference between a schedule's outputs and the baseline's; above it the schedule is void.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub(in crate::config) tolerance: f64,
    /// Pause before each trial, for the board to cool down.
    #[schemars(range(min = 0, max = 86_400))]
    pub(in crate::config) cooldown_seconds: f64,
    /// Faults put in on purpose, to see whether they are found. A run with one is marked wherever it is shown.
    #[serde(default)]
    pub(in crate::config) inject: Inject,
}

/// Runs of before these settings were there have none of them.
fn thirty_minutes() -> f64 {
    30.0
}

/// How narrow intervals are to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum Precision {
    /// As they come.
    Any(Nothing),
    /// At most this share of the figure to either side.
    Within(Percent),
}

impl Default for Precision {
    fn default() -> Self {
        Self::Any(Nothing::None)
    }
}

/// Faults put in on purpose.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(in crate::config) enum Inject {
    /// None.
    #[default]
    None,
    /// The stages of a processor spin after each frame.
    SlowDown(SlowDown),
}

/// A processor made slower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct SlowDown {
    /// The processor.
    pub(in crate::config) processor: Name,
    /// By how much of its own time every stage on it takes longer.
    #[schemars(range(min = 0.1, max = 1000))]
    pub(in crate::config) percent: f64,
}

/// A way of running a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum Schedule {
    /// Compiled by TVM, on processors of the board.
    Own(Own),
    /// In another inference engine, for comparison.
    Peer(Peer),
}

/// A way of running a network compiled by TVM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(in crate::config) enum Own {
    /// The whole network on one processor: `each` of the board's, or the named one.
    Single(Name),
    /// The network cut into stages, one a processor.
    Pipeline(Pipeline),
    /// The whole network on several processors, frames dealt out.
    Replicate(Replicate),
}

/// The whole network in another inference engine, from its ONNX file with fixed shapes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "it is the key in the file")]
pub(in crate::config) struct Peer {
    /// The engine.
    pub(in crate::config) peer: Engine,
    /// Threads of a session: a number, or `all` for as many as there are CPUs. Left out: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) threads: Option<Count>,
    /// Sessions side by side, frames dealt out: a number, or `all` for as many as the CPUs have room for. Left out: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) sessions: Option<Count>,
    /// Processors whose CPUs it may use. Left out: all of the board's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub(in crate::config) processors: Option<Vec<Name>>,
}

/// An inference engine besides TVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Engine {
    /// ONNX Runtime, its CPU provider.
    Onnxruntime,
}

/// A number, or all there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum Count {
    /// So many.
    Number(#[schemars(range(min = 1, max = 1024))] u32),
    /// As many as there are.
    All(All),
}

/// How a pipeline is cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum Pipeline {
    /// `auto`: the planner chooses cuts and processors.
    Auto(Auto),
    /// The planner chooses among some of the processors.
    Among(Among),
    /// Stages by hand, in order.
    Stages(#[schemars(length(min = 2))] Vec<ManualStage>),
}

/// The word `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum All {
    /// Everything there is: of processors, of CPUs.
    All,
}

/// Some of the board's processors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Among {
    /// Processors the planner may use.
    #[schemars(length(min = 2), extend("uniqueItems" = true))]
    pub(in crate::config) processors: Vec<Name>,
}

/// One stage of a pipeline by hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ManualStage {
    /// Where it runs; each processor at most once in a pipeline.
    pub(in crate::config) processor: Name,
    /// Its last unit, or the beginning of that unit's dotted name (`layer3`). The last stage has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) until: Option<Text>,
}

/// Where copies of the network run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum Replicate {
    /// `all`: on every processor.
    All(All),
    /// On these processors.
    On(#[schemars(length(min = 2), extend("uniqueItems" = true))] Vec<Name>),
}

/// What the planner optimizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(extend("x-not-yet" = {
    "energy": "planning for energy needs a power meter and is not built yet; use throughput"
}))]
pub(in crate::config) enum Objective {
    /// Frames per second.
    Throughput,
}

/// Ends once `min_frames` ran, `min_seconds` passed and the pace is steady; or when `max_seconds` passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct WarmUp {
    /// Frames at least.
    #[schemars(range(max = 1_000_000))]
    pub(in crate::config) min_frames: u32,
    /// Time at least.
    #[schemars(range(min = 0, max = 86_400))]
    pub(in crate::config) min_seconds: f64,
    /// Time at most, steady or not.
    #[schemars(range(min = 0.001, max = 86_400))]
    pub(in crate::config) max_seconds: f64,
}

/// Ends once `min_frames` completed and `min_seconds` passed; or at either maximum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Measure {
    /// Frames at least.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(in crate::config) min_frames: u32,
    /// Time at least.
    #[schemars(range(min = 0, max = 86_400))]
    pub(in crate::config) min_seconds: f64,
    /// Time at most, even where fewer frames completed.
    #[schemars(range(min = 0.001, max = 86_400))]
    pub(in crate::config) max_seconds: f64,
    /// Frames at most, which bounds the memory they take.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(in crate::config) max_frames: u32,
}

/// Ends once `min_frames` ran and `min_seconds` passed; or when `max_seconds` passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Isolate {
    /// Whether stages are timed by themselves at all; without it a pipeline's efficiency is not known.
    pub(in crate::config) enabled: bool,
    /// Frames at least.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(in crate::config) min_frames: u32,
    /// Time at least.
    #[schemars(range(min = 0, max = 86_400))]
    pub(in crate::config) min_seconds: f64,
    /// Time at most, even where fewer frames ran.
    #[schemars(range(min = 0.001, max = 86_400))]
    pub(in crate::config) max_seconds: f64,
}

/// Ends once `min_frames` are kept and `min_seconds` passed; or when `max_seconds` passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Profile {
    /// Frames run before anything is kept.
    #[schemars(range(max = 1_000_000))]
    pub(in crate::config) warm_up_frames: u32,
    /// Frames with every unit timed, at least; as many are kept untimed.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(in crate::config) min_frames: u32,
    /// Time at least.
    #[schemars(range(min = 0, max = 86_400))]
    pub(in crate::config) min_seconds: f64,
    /// Time at most, even where fewer frames ran.
    #[schemars(range(min = 0.001, max = 86_400))]
    pub(in crate::config) max_seconds: f64,
}

/// Input frames: uniform in [-1, 1), reproducible from the seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Frames {
    /// Seed of the first frame.
    pub(in crate::config) seed: u64,
    /// Distinct frames, dealt out in turn and all kept in memory.
    #[schemars(range(min = 1, max = 4096))]
    pub(in crate::config) distinct: u32,
}
