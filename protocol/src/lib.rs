//! What harness and runner say to each other.
//!
//! JSON lines: the harness writes one [`Request`] a line to the runner's standard input, the runner writes one
//! [`Event`] a line to its standard output; logs go to standard error. The first line of all is the runner's
//! [`Hello`], whose shape never changes, so that a runner of any version can be recognised. Equal versions talk,
//! unlike ones redeploy. The end of standard input ends the runner and its load.
//!
//! Enums are tagged from outside, unknown fields are refused, integers carry their unit in their name, and no
//! field can be NaN. Times are monotonic nanoseconds of the board's clock unless a name says `unix`.

mod cpu_list;
mod dtype;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
mod machine;
mod measured;
mod power;
mod request;
mod state;
pub mod text;

pub use cpu_list::{format_cpu_list, parse_cpu_list};
pub use dtype::Dtype;
pub use machine::{
    Clock, Cpu, CpuQuota, GroupWeight, MachineState, MemoryLimit, Policy, PowerMode, Scheduling, SilentZone,
    Temperature,
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
    Binding, Call, Capture, Compare, Frames, Isolate, Kind, Measure, OnnxModel, Peak, Profile, Program,
    Request, Schedule, Stage, StageLibrary, Tensor, Transfer, Trial, Verify, WarmUpRule, Weights,
};
pub use state::{
    Asked, Brought, Change, Changed, ClockLimits, CpuGovernor, CpuSettings, Keep, Kept, LowestFrequency,
    Pending, Settings, Throttled, Watched,
};

use serde::{Deserialize, Serialize};

/// Most bytes in a line from a runner; a trial of 100,000 frames needs about 4 MB.
pub const LONGEST_LINE: u64 = 256 << 20;

/// Version of this protocol. Harness and runner talk only if their versions are equal.
pub const VERSION: u32 = 7;

/// First line of a runner. This shape is frozen for all versions: fields are only ever added, and unknown ones
/// are tolerated here and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the runner.
    pub protocol: u32,
    /// Version of the runner's package.
    pub runner: String,
    /// Process id on the board.
    pub pid: u32,
}

/// What a runner reports. `id` is that of the [`Request`] it answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// The first line.
    Hello(Hello),
    /// Answer to an empty line, which keeps a link alive and shows that it is. Over a network one goes each way every
    /// few seconds, also inside a measured window.
    Heartbeat {},
    /// A phase of a job has begun. Never sent inside a measured window.
    Phase {
        /// The request at work.
        id: u64,
        /// What begins.
        phase: Phase,
    },
    /// Answer to [`Request::State`].
    State {
        /// The request answered.
        id: u64,
        /// The board as it is now.
        state: Box<MachineState>,
    },
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
    /// A request failed; the runner goes on with the next.
    Failed {
        /// The request that failed, or `null` where the line itself could not be read.
        id: Option<u64>,
        /// What kind of failure.
        fault: Fault,
        /// Finishes the sentence "failed to …".
        message: String,
    },
}

/// Steps of a job, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Libraries and weights are loaded, frames are made.
    Load,
    /// Each stage runs by itself.
    Isolate,
    /// The whole schedule runs, unmeasured.
    WarmUp,
    /// The measured window.
    Window,
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The line was no valid request.
    Request,
    /// A stage library, or a model, does not load, or does not fit what the request says of it.
    StageLibrary,
    /// The weights file is missing, too short or not mappable.
    Weights,
    /// A thread could not be bound to the asked CPUs.
    Affinity,
    /// A stage raised an error while running.
    Execution,
    /// The power meter is not there, or lacks a rail.
    Meter,
    /// Anything else; a bug.
    Internal,
}
