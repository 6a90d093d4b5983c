//! An experiment's file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Auto, Name, Nothing, Percent, Text};

/// What to measure and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Experiment {
    /// Name of the experiment, the same as the file's.
    #[serde(rename = "experiment")]
    pub(crate) name: Name,
    /// Networks: names of the zoo (configs/zoo.txt), or of files in configs/networks/.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub(crate) networks: Vec<Name>,
    /// Ways of running each network that are compared.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub(crate) schedules: Vec<Schedule>,
    /// What the planner of `pipeline: auto` optimizes.
    pub(crate) objective: Objective,
    /// Trials of each schedule, interleaved with those of the others.
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) trials: u32,
    /// Rounds are added until half the width of every interval, of throughput and of gain, is at most this share of its
    /// figure; `none`: `trials` are all.
    #[serde(default)]
    pub(crate) precision: Precision,
    /// With `precision`: no round begins after so many minutes of measuring.
    #[schemars(range(min = 0.01, max = 10_080))]
    #[serde(default = "thirty_minutes")]
    pub(crate) max_minutes: f64,
    /// What runs before each measured window.
    pub(crate) warm_up: WarmUp,
    /// The measured window of each trial.
    pub(crate) measure: Measure,
    /// Each stage by itself, before the whole schedule runs.
    pub(crate) isolate: Isolate,
    /// Timing of every unit on every processor, from which schedules are planned and predicted.
    pub(crate) profile: Profile,
    /// Frames that may wait between two stages.
    #[schemars(range(min = 1, max = 1024))]
    pub(crate) queue_depth: u32,
    /// The first so many frames of a window are kept with their time span in every stage.
    #[schemars(range(max = 100_000))]
    pub(crate) timeline_frames: u32,
    /// Input frames.
    pub(crate) frames: Frames,
    /// Seed of the order of the trials and of the intervals' resampling.
    pub(crate) seed: u64,
    /// Largest relative difference between a schedule's outputs and the baseline's; above it the schedule is void.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub(crate) tolerance: f64,
    /// Pause before each trial, for the board to cool down.
    #[schemars(range(min = 0, max = 86_400))]
    pub(crate) cooldown_seconds: f64,
    /// Faults put in on purpose, to see whether they are found. A run with one is marked wherever it is shown.
    #[serde(default)]
    pub(crate) inject: Inject,
}

/// Runs of before these settings were there have none of them.
fn thirty_minutes() -> f64 {
    30.0
}

/// How narrow intervals are to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Precision {
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
pub(crate) enum Inject {
    /// None.
    #[default]
    None,
    /// The stages of a processor spin after each frame.
    SlowDown(SlowDown),
}

/// A processor made slower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlowDown {
    /// The processor.
    pub(crate) processor: Name,
    /// By how much of its own time every stage on it takes longer.
    #[schemars(range(min = 0.1, max = 1000))]
    pub(crate) percent: f64,
}

/// A way of running a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Schedule {
    /// Compiled by TVM, on processors of the board.
    Own(Own),
    /// In another inference engine, for comparison.
    Peer(Peer),
}

/// A way of running a network compiled by TVM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Own {
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
pub(crate) struct Peer {
    /// The engine.
    pub(crate) peer: Engine,
    /// Threads of a session: a number, or `all` for as many as there are CPUs. Left out: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) threads: Option<Count>,
    /// Sessions side by side, frames dealt out: a number, or `all` for as many as the CPUs have room for. Left out: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sessions: Option<Count>,
    /// Processors whose CPUs it may use. Left out: all of the board's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub(crate) processors: Option<Vec<Name>>,
}

/// An inference engine besides TVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Engine {
    /// ONNX Runtime, its CPU provider.
    Onnxruntime,
}

/// A number, or all there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Count {
    /// So many.
    Number(#[schemars(range(min = 1, max = 1024))] u32),
    /// As many as there are.
    All(All),
}

/// How a pipeline is cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Pipeline {
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
pub(crate) enum All {
    /// Everything there is: of processors, of CPUs.
    All,
}

/// Some of the board's processors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Among {
    /// Processors the planner may use.
    #[schemars(length(min = 2), extend("uniqueItems" = true))]
    pub(crate) processors: Vec<Name>,
}

/// One stage of a pipeline by hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ManualStage {
    /// Where it runs; each processor at most once in a pipeline.
    pub(crate) processor: Name,
    /// Its last unit, or the beginning of that unit's dotted name (`layer3`). The last stage has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Text>,
}

/// Where copies of the network run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Replicate {
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
pub(crate) enum Objective {
    /// Frames per second.
    Throughput,
}

/// Ends once `min_frames` ran, `min_seconds` passed and the pace is steady; or when `max_seconds` passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WarmUp {
    /// Frames at least.
    #[schemars(range(max = 1_000_000))]
    pub(crate) min_frames: u32,
    /// Time at least.
    #[schemars(range(min = 0, max = 86_400))]
    pub(crate) min_seconds: f64,
    /// Time at most, steady or not.
    #[schemars(range(min = 0.001, max = 86_400))]
    pub(crate) max_seconds: f64,
}

/// Ends once `min_frames` completed and `min_seconds` passed; or at either maximum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measure {
    /// Frames at least.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) min_frames: u32,
    /// Time at least.
    #[schemars(range(min = 0, max = 86_400))]
    pub(crate) min_seconds: f64,
    /// Time at most, even where fewer frames completed.
    #[schemars(range(min = 0.001, max = 86_400))]
    pub(crate) max_seconds: f64,
    /// Frames at most, which bounds the memory they take.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(crate) max_frames: u32,
}

/// Ends once `min_frames` ran and `min_seconds` passed; or when `max_seconds` passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Isolate {
    /// Whether stages are timed by themselves at all; without it a pipeline's efficiency is not known.
    pub(crate) enabled: bool,
    /// Frames at least.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) min_frames: u32,
    /// Time at least.
    #[schemars(range(min = 0, max = 86_400))]
    pub(crate) min_seconds: f64,
    /// Time at most, even where fewer frames ran.
    #[schemars(range(min = 0.001, max = 86_400))]
    pub(crate) max_seconds: f64,
}

/// Ends once `min_frames` are kept and `min_seconds` passed; or when `max_seconds` passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// Frames run before anything is kept.
    #[schemars(range(max = 1_000_000))]
    pub(crate) warm_up_frames: u32,
    /// Frames with every unit timed, at least; as many are kept untimed.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) min_frames: u32,
    /// Time at least.
    #[schemars(range(min = 0, max = 86_400))]
    pub(crate) min_seconds: f64,
    /// Time at most, even where fewer frames ran.
    #[schemars(range(min = 0.001, max = 86_400))]
    pub(crate) max_seconds: f64,
}

/// Input frames: uniform in [-1, 1), reproducible from the seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Frames {
    /// Seed of the first frame.
    pub(crate) seed: u64,
    /// Distinct frames, dealt out in turn and all kept in memory.
    #[schemars(range(min = 1, max = 4096))]
    pub(crate) distinct: u32,
}
