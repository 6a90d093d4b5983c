//! Requests to the runner.

use crate::dtype::Dtype;
use crate::load::Load;
use crate::power::{Idle, Meter};
use serde::{Deserialize, Serialize};

/// A request. The answer has the same `id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Report the board's state.
    State {
        /// Number of this request.
        id: u64,
        /// Folder of sysfs: `/sys`, or a replacement for tests.
        sysfs: String,
        /// Whether to run `jetson_clocks` too, for what sysfs shows only to root. This takes a second.
        thorough: bool,
    },
    /// List the frequencies and power modes that the board offers in its present power mode.
    Clocks {
        /// Number of this request.
        id: u64,
        /// Folder of sysfs: `/sys`, or a replacement for tests, beside which `etc/nvpmodel.conf` is looked up.
        sysfs: String,
        /// Whether the memory clock is read too, as root if necessary.
        memory: bool,
    },
    /// Time every unit of a network on one processor.
    Profile(Profile),
    /// Time the hand-over of data between two processors.
    Transfer(Transfer),
    /// Read a power meter while nothing runs.
    Idle(Idle),
    /// Time the peak rates of a processor.
    Peak(Peak),
    /// Run two schedules on the same frames and compare their outputs.
    Compare(Compare),
    /// Run a schedule on a frame from files and compare its outputs with files.
    Verify(Verify),
    /// Run a schedule and write its inputs and outputs to files.
    Capture(Capture),
    /// Measure a schedule.
    Trial(Trial),
}

/// Time every kernel call of a stage, frame by frame. Frames with and without the instrument alternate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Number of this request.
    pub id: u64,
    /// Inputs and outputs of the stage.
    pub values: Vec<Tensor>,
    /// The whole network as one stage.
    pub stage: Stage,
    /// Kernel calls of the stage in order.
    pub calls: Vec<Call>,
    /// Input frames.
    pub frames: Frames,
    /// Frames to discard first.
    pub warm_up_frames: u32,
    /// Minimum of instrumented frames; as many run without the instrument.
    pub min_frames: u32,
    /// Minimum duration.
    pub min_ns: u64,
    /// Maximum duration; at least one frame of each kind runs.
    pub max_ns: u64,
}

/// One kernel call of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Name in the virtual machine.
    pub function: String,
    /// Unit of the network that it computes.
    pub unit: u32,
}

/// Time the hand-over of a tensor between two processors: a thread on `from` writes a buffer, then a thread on `to`
/// reads all of it twice. The first read includes the transfer between caches, the second does not.
///
/// A GPU writes the buffer by a copy from its memory, and reads it by a copy to its memory, on the first of its `host_cpus`.
/// The first read includes both copies. A GPU does not read twice, so the whole first read is the cost of the hand-over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// Number of this request.
    pub id: u64,
    /// The writer, on its first CPU.
    pub from: Processor,
    /// The reader, on its first CPU.
    pub to: Processor,
    /// Sizes of the buffer, in bytes.
    pub sizes: Vec<u64>,
    /// Samples of each size, after a few that are discarded.
    pub rounds: u32,
}

/// Time the peak rates of a processor's first CPU: vector multiply-adds, and reads of memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peak {
    /// Number of this request.
    pub id: u64,
    /// The processor.
    pub processor: Processor,
    /// Samples of each.
    pub rounds: u32,
    /// Sizes of the buffers to read, in bytes.
    pub streams: Vec<u64>,
}

/// Compare the outputs of two schedules on the same frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// Number of this request.
    pub id: u64,
    /// The schedule with the expected outputs.
    pub reference: Schedule,
    /// The schedule whose outputs are compared with them.
    pub candidate: Schedule,
    /// Each distinct frame runs once.
    pub frames: Frames,
}

/// Run a schedule on one frame from files and compare its outputs with those that another program computed. Files contain the
/// elements in the board's byte order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// Number of this request.
    pub id: u64,
    /// The schedule whose outputs are compared with the files.
    pub schedule: Schedule,
    /// Paths on the board, one for each of the schedule's inputs.
    pub inputs: Vec<String>,
    /// Paths on the board, one for each of the schedule's outputs, with the expected values.
    pub outputs: Vec<String>,
}

/// Run a schedule without measuring it, and write its inputs and outputs to files named `FRAME-inputN.bin` and
/// `FRAME-outputN.bin`, in the board's byte order. N counts the schedule's inputs and outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    /// Number of this request.
    pub id: u64,
    /// What runs where.
    pub schedule: Schedule,
    /// Each distinct frame runs once.
    pub frames: Frames,
    /// An existing folder on the board for the files.
    pub folder: String,
}

/// Measure a schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Number of this request.
    pub id: u64,
    /// What runs where.
    pub schedule: Schedule,
    /// Input frames, generated before the warm-up and used in turn.
    pub frames: Frames,
    /// When frames arrive, in the warm-up and in the window.
    pub load: Load,
    /// Capacity of the queue between two stages, in frames.
    pub queue_depth: u32,
    /// How long each stage is timed by itself before the warm-up; absent: it is not.
    pub isolate: Option<Isolate>,
    /// When the window opens.
    pub warm_up: WarmUpRule,
    /// When the window closes.
    pub measure: WindowRule,
    /// Number of frames, from the start of the window, whose time span in each stage is reported.
    pub timeline_frames: u32,
    /// The power meter to read during the trial; absent: none.
    pub power: Option<Meter>,
    /// Folder of sysfs, from which the state before, after and meanwhile is read: `/sys`, or a replacement for tests.
    pub sysfs: String,
    /// Makes stages slower on purpose, to test that regressions are found: each stage spins after a frame for this share of
    /// the frame's time, in thousandths, in stage order. Empty: none does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slow_down_per_mille: Vec<u32>,
}

/// Time each stage by itself: it repeats one frame, and no other stage waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Isolate {
    /// Minimum of frames.
    pub min_frames: u32,
    /// Minimum duration.
    pub min_ns: u64,
    /// Maximum duration; at least one frame runs.
    pub max_ns: u64,
    /// Whether all stages are timed at once. If not, they are timed one after another, while the other processors are idle.
    #[serde(default)]
    pub at_once: bool,
}

/// The warm-up ends when `min_frames` are complete, `min_ns` have passed and the frame time is steady; or when `max_ns` have
/// passed. With a stream, latency and queue length are to be steady instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmUpRule {
    /// Minimum of frames.
    pub min_frames: u32,
    /// Minimum duration.
    pub min_ns: u64,
    /// Maximum duration.
    pub max_ns: u64,
}

/// The window closes when `min_frames` are complete and `min_ns` have passed; or when `max_ns` have passed; or when
/// `max_frames` are complete. With a stream, `max_frames` does not close it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowRule {
    /// Minimum of frames.
    pub min_frames: u32,
    /// Minimum duration.
    pub min_ns: u64,
    /// Maximum duration.
    pub max_ns: u64,
    /// Maximum of frames, which limits the memory of the observations.
    pub max_frames: u32,
}

/// Input frames, generated from a seed or read from a file. Generated ones have a different stream for every frame and input: floats uniform in [−1, 1), integers uniform in
/// 0..`integers_below`, booleans fair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frames {
    /// Seed of the first frame.
    pub seed: u64,
    /// Number of distinct frames in memory; at least 1.
    pub distinct: u32,
    /// 1 to 256. Integers may be indices into a table, which they must not exceed.
    pub integers_below: u32,
    /// A file with the frames; absent: they are generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FrameFile>,
}

/// Frames one after another in the board's byte order, each with the inputs of the schedule in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameFile {
    /// Path on the board.
    pub path: String,
    /// Where the first frame begins, in bytes.
    pub offset: u64,
}

/// How the stages of a schedule work together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionMode {
    /// One stage: a baseline.
    Single,
    /// Every frame passes all stages in order.
    Pipeline,
    /// Every stage runs the whole network, and takes the next frame when it is free. Frames may overtake each other.
    Replicate,
}

/// What runs where. Other fields refer to tensors by their index in `values`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// How the stages are used.
    pub kind: ExecutionMode,
    /// Every tensor that a stage takes or returns.
    pub values: Vec<Tensor>,
    /// Indices into `values` of the network's inputs.
    pub inputs: Vec<u32>,
    /// Indices into `values` of the network's outputs, in the network's order.
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
    /// Outermost extent first.
    pub shape: Vec<i64>,
    /// Element type.
    pub dtype: Dtype,
}

/// A program on a processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Where it runs.
    pub processor: Processor,
    /// What runs.
    pub program: Program,
    /// Indices into [`Schedule::values`] (for [`Profile`]: into [`Profile::values`]).
    pub inputs: Vec<u32>,
    /// Indices into the same values, in the order in which the stage returns them.
    pub outputs: Vec<u32>,
    /// Whether it is a replica of the stage before it in a pipeline: each of them takes the next frame when it is free, and frames
    /// leave them in their order. Its program has the same outputs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replica: bool,
}

/// What a stage executes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Program {
    /// A stage library that TVM compiled.
    Library(StageLibrary),
    /// The whole network in ONNX Runtime.
    OnnxRuntime(OnnxModel),
    /// A stage for a CUDA device.
    Cuda(CudaProgram),
}

impl Program {
    /// Path of the library, the model or the launch plan on the board.
    pub fn path(&self) -> &str {
        match self {
            Self::Library(library) => &library.path,
            Self::OnnxRuntime(model) => &model.model,
            Self::Cuda(program) => &program.path,
        }
    }
}

/// A compiled stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageLibrary {
    /// Path of the shared library on the board.
    pub path: String,
    /// Function to call with inputs, then weights; it returns a tensor, or an array of several.
    pub entry: String,
    /// Its weights.
    pub weights: Weights,
}

/// A network for ONNX Runtime. The session has the threads of the stage's processor. The names of the stage's values are those
/// of the model's inputs and outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnnxModel {
    /// Path of `libonnxruntime.so` on the board. A runner can load only one in its lifetime.
    pub runtime: String,
    /// Path of the model on the board.
    pub model: String,
    /// The GPU that computes; absent: the CPUs of the stage's processor. With it, those CPUs only feed the GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<OnnxGpu>,
}

/// A GPU for ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnnxGpu {
    /// What ONNX Runtime computes with.
    pub provider: OnnxProvider,
    /// Number of the device in CUDA's order, from 0.
    pub device: u32,
}

/// An execution provider of ONNX Runtime for GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnnxProvider {
    /// `CUDAExecutionProvider`.
    Cuda,
    /// `TensorrtExecutionProvider`, with `CUDAExecutionProvider` for nodes that TensorRT does not support.
    Tensorrt,
}

/// A compiled stage for a CUDA device. Its inputs and outputs are dense tensors in host memory, as those of other stages are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CudaProgram {
    /// Path on the board of the stage's [`LaunchPlan`](crate::launch_plan::LaunchPlan).
    pub path: String,
    /// Path on the board of the network's `weights.bin`, into which the plan refers.
    pub weights: String,
}

/// A file of weights, mapped once and shared by all stages with the same path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Path on the board.
    pub path: String,
    /// Offsets in the file, in bytes, multiples of 64, in argument order.
    pub offsets: Vec<u64>,
    /// The tensors at these offsets.
    pub tensors: Vec<Tensor>,
}

/// Where a stage runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Processor {
    /// A set of CPUs.
    Cpu(CpuProcessor),
    /// An NVIDIA GPU.
    Cuda(CudaProcessor),
}

/// CPUs that work as one processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuProcessor {
    /// For messages.
    pub name: String,
    /// CPUs that its threads may use, with the kernel's numbers.
    pub cpus: Vec<u32>,
    /// Threads of the stage; at most as many as CPUs.
    pub threads: u32,
}

/// An NVIDIA GPU, and the CPUs that feed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CudaProcessor {
    /// For messages.
    pub name: String,
    /// Number of the device in the driver's order, from 0.
    pub device: u32,
    /// Architecture for which its stages are compiled, such as `sm_62`. A device of a newer one runs them too.
    pub arch: String,
    /// CPUs of the thread that copies frames and launches kernels, with the kernel's numbers.
    pub host_cpus: Vec<u32>,
}

impl Processor {
    /// Its name, for messages.
    pub fn name(&self) -> &str {
        match self {
            Self::Cpu(cpu) => &cpu.name,
            Self::Cuda(cuda) => &cuda.name,
        }
    }

    /// The CPUs that its threads use; of a GPU, those of the thread that feeds it.
    pub fn cpus(&self) -> &[u32] {
        match self {
            Self::Cpu(cpu) => &cpu.cpus,
            Self::Cuda(cuda) => &cuda.host_cpus,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_on_a_gpu_is_tagged_and_names_the_cpus_that_feed_it() {
        let text = r#"{"processor":{"kind":"cuda","name":"gpu","device":0,"arch":"sm_62","host_cpus":[3,4]},"program":{"cuda":{"path":"stage.cuda.json","weights":"weights.bin"}},"inputs":[0],"outputs":[1]}"#;
        let stage: Stage = serde_json::from_str(text).unwrap();
        assert_eq!((stage.processor.name(), stage.processor.cpus()), ("gpu", &[3, 4][..]));
        assert_eq!(stage.program.path(), "stage.cuda.json");
        assert_eq!(serde_json::to_string(&stage).unwrap(), text);
    }
}
