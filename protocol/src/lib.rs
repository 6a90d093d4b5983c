//! The messages between harness and runner.
//!
//! JSON lines: the harness writes a [`Request`] to the runner's standard input, the runner writes an [`Event`] to its
//! standard output; logs go to standard error. The first line is the runner's [`Hello`], whose shape never changes, so that
//! the harness recognizes a runner of any version. If the versions differ, the harness deploys the runner again. The end of
//! standard input ends the runner, also in the middle of a trial.
//!
//! Enums are externally tagged, except [`Processor`]. Unknown fields are rejected. Names of integers end with their unit. No
//! field can be NaN. Times are ns of the board's monotonic clock unless the name contains `unix`.

mod cpu_list;
mod cuda;
mod dtype;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
pub mod launch_plan;
mod load;
mod lock;
mod machine;
mod measured;
mod power;
mod request;
mod state;
pub mod text;

pub use cpu_list::{format_cpu_list, parse_cpu_list};
pub use cuda::{CudaDevice, CudaStage, CudaSystem};
pub use dtype::Dtype;
pub use load::{
    ArrivalTimes, Arrived, Distribution, Dropped, Load, QueuePolicy, StreamLoad, StreamTotals, Streamed,
};
pub use lock::{HoldReply, LockHolder};
pub use machine::{
    Clock, Clocks, Cpu, CpuClock, CpuQuota, GroupWeight, MachineState, MemoryClock, MemoryLimit, Policy,
    PowerMode, Scheduling, SilentZone, Temperature,
};
pub use measured::{
    Captured, Compared, HandOver, HostLoad, Isolated, Measured, Occupancy, OutputDifference, Peaked,
    Profiled, Span, Stream, Transferred, UnitSamples, WarmUp, Window,
};
pub use power::{
    BOARD_INPUTS, Idle, Idled, Meter, MeterKind, NamedRail, Power, PowerReadings, RailReadings, ReadErrors,
    total_name,
};
pub use request::{
    Call, Capture, Compare, CpuProcessor, CudaProcessor, CudaProgram, ExecutionMode, FrameFile, Frames,
    Isolate, OnnxGpu, OnnxModel, OnnxProvider, Peak, Processor, Profile, Program, Request, Schedule, Stage,
    StageLibrary, Tensor, Transfer, Trial, Verify, WarmUpRule, Weights, WindowRule,
};
pub use state::{
    AppliedState, ClockLimits, CpuGovernor, CpuLimit, CpuSettings, LowestClock, LowestFrequency,
    SavedCpuLimits, SavedMemoryClock, SavedState, SettingChange, SettingDifference, Settings, StateCommand,
    StateReply, StateRequest, Throttled, WatchedSettings,
};

use serde::{Deserialize, Serialize};

/// Limit on a line from the runner, in bytes. A trial of 100,000 frames takes about 4 MB.
pub const MAX_LINE_BYTES: u64 = 256 << 20;

/// Version of this protocol. Harness and runner talk only if their versions are equal.
pub const VERSION: u32 = 16;

/// Exit code of a program of the runner whose lease has expired: for that long, nothing arrived from the harness. The code is
/// `EX_TEMPFAIL` of sysexits.h.
pub const LEASE_EXPIRED: u8 = 75;

/// First line of a runner. Its shape is the same in all versions: fields are only added, and unknown ones are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The runner's [`VERSION`].
    pub protocol: u32,
    /// Version of the runner's package.
    pub runner: String,
    /// Process id on the board.
    pub pid: u32,
}

/// An output of the runner. `id` is that of the answered [`Request`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// The first line.
    Hello(Hello),
    /// Answer to an empty line, which shows that the connection works. Over a network, the harness sends one every few
    /// seconds, also inside a measured window.
    Heartbeat {},
    /// A phase of a request has started. Never sent inside a measured window.
    Phase {
        /// The current request.
        id: u64,
        /// The phase that has started.
        phase: Phase,
    },
    /// Answer to [`Request::State`].
    State {
        /// The request answered.
        id: u64,
        /// The current state.
        state: Box<MachineState>,
    },
    /// Answer to [`Request::Clocks`].
    Clocks(Clocks),
    /// Answer to [`Request::Profile`].
    Profiled(Profiled),
    /// Answer to [`Request::Transfer`].
    Transferred(Transferred),
    /// Answer to [`Request::Peak`].
    Peaked(Peaked),
    /// Answer to [`Request::Compare`] and to [`Request::Verify`].
    Compared(Compared),
    /// Answer to [`Request::Idle`].
    Idled(Idled),
    /// Answer to [`Request::Capture`].
    Captured(Captured),
    /// Answer to [`Request::Trial`].
    Measured(Box<Measured>),
    /// A request failed; the runner continues with the next one.
    Failed {
        /// The request that failed; `null` if the line could not be parsed.
        id: Option<u64>,
        /// The kind of failure.
        fault: Fault,
        /// Starts with "failed to".
        message: String,
    },
}

/// Phases of a request, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Programs and weights are loaded, frames are generated.
    Load,
    /// Each stage runs alone.
    Isolate,
    /// The schedule runs but is not measured.
    WarmUp,
    /// The measured window.
    Window,
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The request is invalid.
    Request,
    /// A stage library or a model does not load, or does not match the request.
    StageLibrary,
    /// The weights file is missing or too short, or cannot be mapped.
    Weights,
    /// A thread cannot be bound to the requested CPUs.
    Affinity,
    /// A stage failed while running.
    Execution,
    /// The power meter does not exist or lacks a rail.
    Meter,
    /// The GPU or its driver is missing, unsuitable, unavailable or lost.
    Device,
    /// Anything else: a bug.
    Internal,
}
