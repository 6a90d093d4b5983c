//! Raw observations. They are stored unchanged; the harness derives all figures from them.

use crate::cuda::CudaStage;
use crate::load::Streamed;
use crate::machine::MachineState;
use crate::power::Power;
use crate::state::WatchedSettings;
use serde::{Deserialize, Serialize};

/// Answer to a profile request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profiled {
    /// The request answered.
    pub id: u64,
    /// Kernel calls in execution order.
    pub calls: Vec<UnitSamples>,
    /// Durations of frames without the instrument.
    pub frame_ns: Vec<u64>,
    /// Durations of frames with the instrument.
    pub instrumented_frame_ns: Vec<u64>,
    /// Resident memory of the runner at the end.
    pub resident_bytes: u64,
    /// The stage's use of a GPU; absent if it runs on CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<CudaStage>,
    /// Load of the machine meanwhile. It is judged when the answer arrives, and not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostLoad>,
}

/// Durations of a kernel call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitSamples {
    /// The unit that it computes.
    pub unit: u32,
    /// One duration for each frame.
    pub samples_ns: Vec<u64>,
}

/// Answer to a transfer request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transferred {
    /// The request answered.
    pub id: u64,
    /// One entry for each size, in the order of the request.
    pub sizes: Vec<HandOver>,
}

/// Answer to a request for peak rates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peaked {
    /// The request answered.
    pub id: u64,
    /// 32-bit floats in a vector.
    pub lanes: u32,
    /// Scalar multiply-adds in each sample.
    pub multiply_adds: u64,
    /// Duration of each sample.
    pub multiply_adds_ns: Vec<u64>,
    /// One entry for each size, in the order of the request.
    pub streams: Vec<Stream>,
}

/// Reads of a buffer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Size of the buffer.
    pub bytes: u64,
    /// Duration of a read of the whole buffer in each round, in the fastest of several orders.
    pub ns: Vec<u64>,
}

/// Hand-overs of one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandOver {
    /// Size of the buffer.
    pub bytes: u64,
    /// Duration of the first read of each hand-over, with all copies between devices.
    pub first_ns: Vec<u64>,
    /// Duration of the second read of each hand-over. Empty if the reader is a GPU, whose kernels read its own memory.
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
    /// One entry for each output.
    pub outputs: Vec<OutputDifference>,
}

/// Answer to a capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Captured {
    /// The request answered.
    pub id: u64,
    /// Number of frames written.
    pub frames: u32,
}

/// The difference between an output and its reference, over all frames and elements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputDifference {
    /// Name of the output.
    pub name: String,
    /// Elements compared.
    pub elements: u64,
    /// Elements that are not finite in one of the two, except the same infinity or NaN in both.
    pub non_finite: u64,
    /// Largest absolute difference of finite elements.
    pub max_abs: f64,
    /// Largest absolute value of the reference, for comparison with `max_abs`.
    pub max_reference: f64,
    /// Whether all bits are equal.
    pub identical: bool,
}

/// Answer to a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// The request answered.
    pub id: u64,
    /// Each stage by itself, in stage order; empty if not requested.
    pub isolated: Vec<Isolated>,
    /// The warm-up.
    pub warm_up: WarmUp,
    /// The measured window.
    pub window: Window,
    /// Each stage during the window, in stage order.
    pub stages: Vec<Occupancy>,
    /// Time spans of the first frames of the window.
    pub timeline: Vec<Span>,
    /// Load of the machine during the window.
    pub host: HostLoad,
    /// Readings of the power meter, from before the warm-up to after the window; absent if not requested.
    pub power: Option<Power>,
    /// The board's settings meanwhile; absent in runs of protocol versions before 6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watched: Option<WatchedSettings>,
    /// State before the warm-up.
    pub before: MachineState,
    /// State after the window.
    pub after: MachineState,
    /// Bytes of mapped weights.
    pub weights_bytes: u64,
    /// Resident memory of the runner at the end.
    pub resident_bytes: u64,
    /// The part of it that no file backs.
    pub anonymous_bytes: u64,
    /// Use of GPUs by the stages that run on them, in stage order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cuda: Vec<CudaStage>,
    /// Arrivals and drops; absent if the load was saturating.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<Streamed>,
}

/// A stage that ran alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Isolated {
    /// One duration for each frame.
    pub samples_ns: Vec<u64>,
}

/// The frames before the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmUp {
    /// Completion of each frame, in ns since the first frame was admitted. The window starts where this ends.
    pub completed_ns: Vec<u64>,
    /// Whether the frame time was steady; otherwise the maximum duration was reached.
    pub steady: bool,
}

/// The measured window. It opens with the completion of a frame, which does not count, and closes with the completion of the
/// last frame that counts. Throughput is `completed_ns.len() / completed_ns.last()`, unless [`Streamed::rest`] counts more frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Wall clock when it opened, in ns since 1970, for display only.
    pub opened_unix_ns: u64,
    /// When it opened.
    pub opened_monotonic_ns: u64,
    /// Completion of each frame, in ns since the window opened, ascending.
    pub completed_ns: Vec<u64>,
    /// Time of each frame from its first stage to its completion, in the same order.
    pub latency_ns: Vec<u64>,
    /// Stage that completed each frame; empty unless the schedule's kind is `Replicate`.
    pub completed_by: Vec<u32>,
}

/// A stage during the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Occupancy {
    /// Frames it finished.
    pub frames: u64,
    /// Time in the engine.
    pub busy_ns: u64,
    /// Time waiting for a frame.
    pub waiting_input_ns: u64,
    /// Time waiting for space in the next queue.
    pub waiting_output_ns: u64,
    /// CPU time of its threads, including the engine's own ones.
    pub cpu_ns: u64,
    /// Page faults served without reading from disk.
    pub minor_faults: u64,
    /// Page faults that read from disk.
    pub major_faults: u64,
    /// Context switches in which its thread waited.
    pub voluntary_switches: u64,
    /// Context switches in which its thread was preempted.
    pub involuntary_switches: u64,
}

/// A frame in a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// Number of the frame in the order of admission.
    pub frame: u64,
    /// The stage.
    pub stage: u32,
    /// Start, in ns since the window opened; negative if it was before.
    pub begin_ns: i64,
    /// End, in ns since the window opened.
    pub end_ns: i64,
}

/// Load of the schedule's CPUs during the window, from the kernel's accounting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostLoad {
    /// Duration of the accounting.
    pub wall_ns: u64,
    /// Time stolen by the hypervisor, summed over these CPUs; absent if unknown.
    pub steal_ns: Option<u64>,
    /// Busy time of these CPUs, summed; absent if unknown.
    pub busy_ns: Option<u64>,
    /// CPU time of the runner.
    pub runner_ns: u64,
    /// CPU time of the runner's threads that do not belong to a stage.
    pub overhead_ns: u64,
}

/// Length of a tick, in which the kernel accounts time (`USER_HZ`, 100 a second on every architecture in use).
const TICK_NS: u64 = 10_000_000;

impl HostLoad {
    /// Time of so many CPUs together.
    pub fn cpu_time_ns(&self, cpus: u64) -> u64 {
        self.wall_ns.saturating_mul(cpus)
    }

    /// Time that the hypervisor surely took from so many CPUs. Counters are whole ticks, so a short window may seem to have lost a
    /// tick that it has not.
    pub fn surely_stolen_ns(&self, cpus: u64) -> Option<u64> {
        self.steal_ns.map(|ns| ns.saturating_sub(cpus * TICK_NS))
    }

    /// Time that others surely used on so many CPUs. Busy time is added up from user and system time, each a tick off at most; the
    /// runner's own time is exact.
    pub fn surely_others_ns(&self, cpus: u64) -> Option<u64> {
        self.busy_ns.map(|busy| busy.saturating_sub(self.runner_ns).saturating_sub(2 * cpus * TICK_NS))
    }
}
