//! Jobs for the runner.

use crate::power::{Idle, Meter};
use serde::{Deserialize, Serialize};

/// A job. Answers carry its `id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Report the board's state.
    State {
        /// Number of this request.
        id: u64,
        /// Where sysfs is: `/sys`, unless a tree of files stands in for it.
        sysfs: String,
        /// Whether to ask `jetson_clocks` too for what sysfs tells to root only; that takes a moment.
        thorough: bool,
    },
    /// Time every unit of a network on one processor.
    Profile(Profile),
    /// Time what it costs to read what another processor wrote.
    Transfer(Transfer),
    /// Read a power meter while nothing runs.
    Idle(Idle),
    /// Time what a processor can do at most.
    Peak(Peak),
    /// Run two schedules on the same frames and compare what comes out.
    Compare(Compare),
    /// Run a schedule on a frame from files and compare what comes out with files.
    Verify(Verify),
    /// Run one schedule and write what goes in and what comes out to files.
    Capture(Capture),
    /// Measure one schedule.
    Trial(Trial),
}

/// Time every kernel call of a stage, frame by frame. Frames with and without the instrument alternate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Number of this request.
    pub id: u64,
    /// Tensors the stage takes and gives.
    pub values: Vec<Tensor>,
    /// The whole network as one stage.
    pub stage: Stage,
    /// Kernel calls of the stage in order, and the unit each belongs to.
    pub calls: Vec<Call>,
    /// Input frames.
    pub frames: Frames,
    /// Frames run before anything is kept.
    pub warm_up_frames: u32,
    /// Instrumented frames to keep at least; as many are kept without the instrument.
    pub min_frames: u32,
    /// Ends once `min_frames` are kept and this time has passed.
    pub min_ns: u64,
    /// Ends after this time whatever was kept (at least one frame of each sort).
    pub max_ns: u64,
}

/// One kernel call of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Name as the virtual machine's instrument reports it.
    pub function: String,
    /// Unit of the network this call belongs to.
    pub unit: u32,
}

/// Time the hand-over of a tensor between two processors: a thread on `from` writes a buffer, then a thread on `to`
/// reads all of it, twice. The first reading pays for bringing it over, the second does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// Number of this request.
    pub id: u64,
    /// Who writes; its first CPU does.
    pub from: Binding,
    /// Who reads; its first CPU does.
    pub to: Binding,
    /// Sizes of the buffer to time, in bytes.
    pub sizes: Vec<u64>,
    /// Hand-overs of each size to keep, after a few that are not.
    pub rounds: u32,
}

/// Time what the first CPU of a processor can do at most: vector multiply-adds, and reading memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peak {
    /// Number of this request.
    pub id: u64,
    /// The processor.
    pub binding: Binding,
    /// Samples of each.
    pub rounds: u32,
    /// Sizes in bytes of buffers to read again and again.
    pub streams: Vec<u64>,
}

/// Compare the outputs of two schedules on the same frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// Number of this request.
    pub id: u64,
    /// Its outputs are taken as right.
    pub reference: Schedule,
    /// Its outputs are judged.
    pub candidate: Schedule,
    /// Frames to run; all distinct ones once.
    pub frames: Frames,
}

/// Run a schedule on one frame from files and compare its outputs with those that another program computed from the same
/// frame. Files hold the elements in the board's byte order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// Number of this request.
    pub id: u64,
    /// Its outputs are judged.
    pub schedule: Schedule,
    /// Paths on the board, one for each of the schedule's inputs.
    pub inputs: Vec<String>,
    /// Paths on the board, one for each of the schedule's outputs: what is right.
    pub outputs: Vec<String>,
}

/// Run a schedule, unmeasured, and keep what goes in and what comes out, for comparison elsewhere. Files are named
/// `FRAME-inputN.bin` and `FRAME-outputN.bin` and hold the elements in the board's byte order, N counting the
/// schedule's inputs and outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    /// Number of this request.
    pub id: u64,
    /// What runs where.
    pub schedule: Schedule,
    /// Frames to run; all distinct ones once.
    pub frames: Frames,
    /// An existing folder on the board for the files.
    pub folder: String,
}

/// Measure one schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Number of this request.
    pub id: u64,
    /// What runs where.
    pub schedule: Schedule,
    /// Input frames, loaded before the warm-up and dealt out in turn.
    pub frames: Frames,
    /// Frames that may wait between two stages.
    pub queue_depth: u32,
    /// Each stage by itself first; absent: not done.
    pub isolate: Option<Isolate>,
    /// What runs before the window.
    pub warm_up: WarmUpRule,
    /// The measured window.
    pub measure: Measure,
    /// The first so many frames of the window are reported with their time span in every stage.
    pub timeline_frames: u32,
    /// The power meter to read meanwhile; absent: none.
    pub power: Option<Meter>,
    /// Where sysfs is, of which the state before, after and meanwhile is taken: `/sys`, unless a tree of files stands
    /// in for it.
    pub sysfs: String,
    /// Makes stages slower on purpose, to see whether it is found: so many thousandths of its own time a stage spins
    /// after each frame, in stage order; empty: none does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slow_down_per_mille: Vec<u32>,
}

/// Time each stage alone, the other processors idle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Isolate {
    /// Frames to run at least.
    pub min_frames: u32,
    /// Ends once `min_frames` ran and this time has passed.
    pub min_ns: u64,
    /// Ends after this time whatever ran (at least one frame).
    pub max_ns: u64,
}

/// When the warm-up ends: `min_frames` completed, `min_ns` passed, and the pace steady; or `max_ns` passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmUpRule {
    /// Frames to complete at least.
    pub min_frames: u32,
    /// Time to pass at least.
    pub min_ns: u64,
    /// Ends after this time even where the pace is not steady yet.
    pub max_ns: u64,
}

/// When the window ends: `min_frames` completed and `min_ns` passed; or `max_ns` passed; or `max_frames` completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// Frames to complete at least.
    pub min_frames: u32,
    /// Time to pass at least.
    pub min_ns: u64,
    /// Ends after this time even where fewer frames completed.
    pub max_ns: u64,
    /// Ends after so many frames, which bounds what is kept in memory.
    pub max_frames: u32,
}

/// Seeded input frames, a different stream for every frame and input: floats uniform in [−1, 1), integers uniform in
/// 0..`integers_below`, booleans fair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frames {
    /// Seed of the first frame.
    pub seed: u64,
    /// Distinct frames kept in memory; at least 1.
    pub distinct: u32,
    /// Integers may be indices, which must not point beyond their table; 1 to 256.
    pub integers_below: u32,
}

/// How a schedule uses its stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One stage: a baseline.
    Single,
    /// Every frame passes all stages in order.
    Pipeline,
    /// Every stage holds the whole network; each takes the next frame when it is free.
    Replicate,
}

/// What runs where. Tensors are named by their place in `values`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// How the stages are used.
    pub kind: Kind,
    /// Every tensor that enters, leaves or passes between stages.
    pub values: Vec<Tensor>,
    /// Indices into `values`: what a frame brings.
    pub inputs: Vec<u32>,
    /// Indices into `values`: what the network gives, in the network's order.
    pub outputs: Vec<u32>,
    /// In execution order.
    pub stages: Vec<Stage>,
}

/// A dense tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// Name, for messages.
    pub name: String,
    /// Extents, outermost first.
    pub shape: Vec<i64>,
    /// Element type, `float32` or `int64` and so on.
    pub dtype: String,
}

/// A program on its processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Where it runs.
    pub binding: Binding,
    /// What runs.
    pub program: Program,
    /// Indices into [`Schedule::values`] (for [`Profile`]: into [`Profile::values`]).
    pub inputs: Vec<u32>,
    /// Indices into the same values, in the order in which the stage gives them.
    pub outputs: Vec<u32>,
}

/// What a stage executes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Program {
    /// A stage library that TVM made.
    Library(StageLibrary),
    /// A session of ONNX Runtime with the whole network.
    OnnxRuntime(OnnxModel),
}

impl Program {
    /// Path of the library or the model on the board.
    pub fn path(&self) -> &str {
        match self {
            Self::Library(library) => &library.path,
            Self::OnnxRuntime(model) => &model.model,
        }
    }
}

/// A compiled stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageLibrary {
    /// Path of the shared library on the board.
    pub path: String,
    /// Function to call: inputs, then weights; returns a tensor, or several in an array.
    pub entry: String,
    /// Where its weights lie.
    pub weights: Weights,
}

/// A network for ONNX Runtime. The session gets as many threads as the stage's binding says; values are its inputs
/// and outputs by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnnxModel {
    /// Path of `libonnxruntime.so` on the board; the first one a runner is told stays for its life.
    pub runtime: String,
    /// Path of the model on the board.
    pub model: String,
}

/// A file of weights, mapped once and shared by every stage that names the same path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Path on the board.
    pub path: String,
    /// Offsets in bytes from the start of the file, multiples of 64, in argument order.
    pub offsets: Vec<u64>,
    /// The tensors at these offsets.
    pub tensors: Vec<Tensor>,
}

/// The CPUs of a processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// The processor's name, for messages.
    pub processor: String,
    /// CPUs its threads may use, as the kernel numbers them.
    pub cpus: Vec<u32>,
    /// Threads of the stage; at most as many as CPUs.
    pub threads: u32,
}
