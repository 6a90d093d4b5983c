//! Raw observations. They are written once and never changed; the harness derives everything else from them.

use crate::machine::MachineState;
use crate::power::Power;
use crate::state::Watched;
use serde::{Deserialize, Serialize};

/// Answer to a profile request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profiled {
    /// The request answered.
    pub id: u64,
    /// One entry a kernel call, in execution order.
    pub calls: Vec<UnitSamples>,
    /// Duration of whole frames without the instrument, in ns.
    pub frame_ns: Vec<u64>,
    /// Duration of whole frames with the instrument, in ns.
    pub instrumented_frame_ns: Vec<u64>,
    /// Resident memory of the runner at the end, in bytes.
    pub resident_bytes: u64,
}

/// Durations of one kernel call over the frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitSamples {
    /// Unit it belongs to.
    pub unit: u32,
    /// One duration a frame, in ns.
    pub samples_ns: Vec<u64>,
}

/// Answer to a transfer request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transferred {
    /// The request answered.
    pub id: u64,
    /// One entry a size, in the order asked.
    pub sizes: Vec<HandOver>,
}

/// Answer to a request for what a CPU can do at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peaked {
    /// The request answered.
    pub id: u64,
    /// 32-bit numbers in a vector.
    pub lanes: u32,
    /// Multiply-adds of single numbers in each sample.
    pub multiply_adds: u64,
    /// Duration of each sample, in ns.
    pub multiply_adds_ns: Vec<u64>,
    /// One entry a size, in the order asked.
    pub streams: Vec<Stream>,
}

/// Readings of a buffer of one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Size of the buffer.
    pub bytes: u64,
    /// Duration of each reading of all of it, in ns.
    pub ns: Vec<u64>,
}

/// Hand-overs of one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandOver {
    /// Size of the buffer.
    pub bytes: u64,
    /// First reading of each hand-over, in ns.
    pub first_ns: Vec<u64>,
    /// Second reading of each hand-over, in ns.
    pub again_ns: Vec<u64>,
}

/// Answer to a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compared {
    /// The request answered.
    pub id: u64,
    /// Frames compared.
    pub frames: u32,
    /// One entry an output.
    pub outputs: Vec<OutputDifference>,
}

/// Answer to a capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Captured {
    /// The request answered.
    pub id: u64,
    /// Frames whose inputs and outputs are written.
    pub frames: u32,
}

/// How far an output lies from the reference, over all frames and elements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputDifference {
    /// Name of the output.
    pub name: String,
    /// Elements compared.
    pub elements: u64,
    /// Elements that are not finite in one of the two, or not the same infinity in both.
    pub non_finite: u64,
    /// Greatest absolute difference of finite elements.
    pub max_abs: f64,
    /// Greatest absolute value of the reference, by which `max_abs` is judged.
    pub max_reference: f64,
    /// Every bit equal.
    pub identical: bool,
}

/// Answer to a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// The request answered.
    pub id: u64,
    /// Each stage alone, in stage order; empty where it was not asked for.
    pub isolated: Vec<Isolated>,
    /// How the warm-up went.
    pub warm_up: WarmUp,
    /// The measured window.
    pub window: Window,
    /// Each stage during the window, in stage order.
    pub stages: Vec<Occupancy>,
    /// Where the first frames of the window were, when.
    pub timeline: Vec<Span>,
    /// What else the machine did during the window.
    pub host: HostLoad,
    /// What the power meter said, from before the warm-up to after the window; absent where none was asked for.
    pub power: Option<Power>,
    /// How the board's settings were meanwhile; absent in runs of protocols before the sixth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watched: Option<Watched>,
    /// State before the warm-up.
    pub before: MachineState,
    /// State after the window.
    pub after: MachineState,
    /// Bytes of weights mapped.
    pub weights_bytes: u64,
    /// Resident memory of the runner at the end, in bytes.
    pub resident_bytes: u64,
    /// Of it, memory that is backed by no file.
    pub anonymous_bytes: u64,
}

/// A stage by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Isolated {
    /// One duration a frame, in ns.
    pub samples_ns: Vec<u64>,
}

/// What ran before the window opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmUp {
    /// Completion of each frame, in ns since the first frame was let in. The window goes on where this ends.
    pub completed_ns: Vec<u64>,
    /// Whether the pace had become steady, or the time ran out.
    pub steady: bool,
}

/// The measured window. It opens with the completion of a frame, which is not counted, and closes with the
/// completion of the last one counted. Throughput is `completed_ns.len() / completed_ns.last()`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Wall clock at the opening, ns since 1970. For reading only.
    pub opened_unix_ns: u64,
    /// The board's monotonic clock at the opening.
    pub opened_monotonic_ns: u64,
    /// Completion of each frame, in ns since the opening, ascending.
    pub completed_ns: Vec<u64>,
    /// From the moment a frame enters the first stage to its completion, in ns, in the same order.
    pub latency_ns: Vec<u64>,
    /// Stage that completed each frame; empty unless the schedule is a replicate.
    pub completed_by: Vec<u32>,
}

/// A stage during the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Occupancy {
    /// Frames it finished.
    pub frames: u64,
    /// Time inside the stage library.
    pub busy_ns: u64,
    /// Time waiting for a frame to come.
    pub waiting_input_ns: u64,
    /// Time waiting for a place to put a frame.
    pub waiting_output_ns: u64,
    /// CPU time its threads used, those of TVM's pool included.
    pub cpu_ns: u64,
    /// Page faults served without reading from disk.
    pub minor_faults: u64,
    /// Page faults that read from disk.
    pub major_faults: u64,
    /// Times its thread gave up the CPU.
    pub voluntary_switches: u64,
    /// Times its thread was made to give up the CPU.
    pub involuntary_switches: u64,
}

/// A frame in a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// Place of the frame in the order of admission.
    pub frame: u64,
    /// The stage.
    pub stage: u32,
    /// Begin, in ns since the window opened; negative where the frame was under way before.
    pub begin_ns: i64,
    /// End, in ns since the window opened.
    pub end_ns: i64,
}

/// Load of the CPUs of the schedule over the window, from the kernel's accounting; absent where it has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostLoad {
    /// Length of what was accounted.
    pub wall_ns: u64,
    /// Time stolen by the hypervisor, summed over these CPUs.
    pub steal_ns: Option<u64>,
    /// Time these CPUs were busy for anything at all, summed.
    pub busy_ns: Option<u64>,
    /// CPU time of the whole runner process.
    pub runner_ns: u64,
    /// CPU time of the runner's threads that belong to no stage.
    pub overhead_ns: u64,
}
