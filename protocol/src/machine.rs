//! The state of a board.

use crate::cuda::CudaSystem;
use serde::{Deserialize, Serialize};

/// State of a board. What the board does not show is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineState {
    /// Machine name as in `uname`: `x86_64`, `aarch64`.
    pub arch: String,
    /// Kernel release.
    pub kernel: String,
    /// Operating system, from os-release.
    pub os: Option<String>,
    /// Model, from the device tree or DMI.
    pub model: Option<String>,
    /// Name of the processor from /proc/cpuinfo.
    pub cpu_model: Option<String>,
    /// Feature flags from /proc/cpuinfo (`flags`, or `Features` on Arm).
    pub cpu_flags: Vec<String>,
    /// All CPUs, ascending.
    pub cpus: Vec<Cpu>,
    /// CPUs that the runner may use.
    pub allowed_cpus: Vec<u32>,
    /// Total memory.
    pub memory_bytes: u64,
    /// Available without swapping.
    pub memory_available_bytes: u64,
    /// Load average over one minute, in thousandths.
    pub load_milli: u64,
    /// Thermal zones with a temperature.
    pub temperatures: Vec<Temperature>,
    /// Power mode of a Jetson.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_mode: Option<PowerMode>,
    /// Clock of the GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Clock>,
    /// Clock of the memory controller, which Jetsons show only to root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emc: Option<Clock>,
    /// The smallest CPU quota that applies to the runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<CpuQuota>,
    /// The smallest memory limit that applies to the runner, if it is less than the board's memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<MemoryLimit>,
    /// The runner's scheduling, if it is not the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,
    /// Thermal zones without a temperature.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent_zones: Vec<SilentZone>,
    /// GPUs and their driver; absent without `libcuda`, and in states that were not requested as thorough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<CudaSystem>,
}

/// CPU quota of a control group: time that it may use in a period, over the period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuQuota {
    /// The control group.
    pub group: String,
    /// Thousandths of a CPU.
    pub milli_cpus: u64,
}

/// Memory limit of a control group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryLimit {
    /// The control group.
    pub group: String,
    /// The limit.
    pub bytes: u64,
}

/// Scheduling of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scheduling {
    /// Its policy.
    pub policy: Policy,
    /// -20 to 19.
    pub nice: i32,
    /// The smallest weight of its control groups, if it is less than the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<GroupWeight>,
}

/// A scheduling policy, by its name in sched(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Policy {
    /// The default.
    Other,
    /// `SCHED_BATCH`.
    Batch,
    /// `SCHED_IDLE`: all other programs have priority.
    Idle,
    /// One of the real-time policies.
    RealTime,
}

/// CPU weight of a control group, which counts on a busy machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupWeight {
    /// The control group.
    pub group: String,
    /// Percent of the default weight.
    pub percent: u64,
}

/// A thermal zone without a temperature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SilentZone {
    /// Its `type`, or its folder's name.
    pub zone: String,
    /// Why, as a predicate: `does not answer within 1 s`.
    pub reason: String,
}

/// A power mode, as `nvpmodel` names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerMode {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
}

/// A clock of a unit other than a CPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// Current lower limit.
    pub min_hz: u64,
    /// Current upper limit.
    pub max_hz: u64,
    /// Current frequency.
    pub current_hz: Option<u64>,
    /// Its governor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governor: Option<String>,
}

/// A CPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// Its number.
    pub id: u32,
    /// Whether it is online.
    pub online: bool,
    /// Whether it is isolated from the scheduler (`isolcpus`).
    pub isolated: bool,
    /// Relative capacity, of 1024, on heterogeneous cores.
    pub capacity: Option<u32>,
    /// Identification register, on Arm.
    pub midr: Option<u64>,
    /// Core id. CPUs with the same one are threads of one core.
    pub core: Option<i64>,
    /// Package id.
    pub package: Option<i64>,
    /// Current frequency.
    pub current_khz: Option<u64>,
    /// Current lower limit.
    pub min_khz: Option<u64>,
    /// Current upper limit.
    pub max_khz: Option<u64>,
    /// Upper limit of the hardware.
    pub hardware_max_khz: Option<u64>,
    /// Frequency governor.
    pub governor: Option<String>,
    /// First-level data cache in bytes.
    pub l1d_bytes: Option<u64>,
    /// Second-level cache in bytes.
    pub l2_bytes: Option<u64>,
    /// Third-level cache in bytes, which CPUs share. States that were stored before protocol version 15 lack it.
    #[serde(default)]
    pub l3_bytes: Option<u64>,
}

/// A thermal zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Temperature {
    /// Its `type`.
    pub zone: String,
    /// Thousandths of a degree Celsius.
    pub milli_celsius: i64,
}

/// The frequencies and power modes that a board offers in its present power mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clocks {
    /// Number of the answered request.
    pub id: u64,
    /// Clocks of online CPUs. Each CPU has one.
    pub cpus: Vec<CpuClock>,
    /// Frequencies of the GPU in Hz, ascending; empty if the board does not list them.
    pub gpu_hz: Vec<u64>,
    /// The power modes of `/etc/nvpmodel.conf`; empty if the board has no such file.
    pub power_modes: Vec<PowerMode>,
    /// Frequency governors that all online CPUs with a clock offer, in the order of the first CPU.
    pub governors: Vec<String>,
    /// The memory clock, or why it cannot be set: a clause. Absent if it was not requested.
    pub memory: Option<Result<MemoryClock, String>>,
}

/// The frequencies at which the memory clock can be locked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryClock {
    /// In Hz, ascending.
    pub steps_hz: Vec<u64>,
    /// Limit of the present power mode.
    pub max_hz: u64,
    /// Where it is locked now.
    pub locked_hz: Option<u64>,
}

/// A clock of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuClock {
    /// The online CPUs that share it, ascending.
    pub cpus: Vec<u32>,
    /// Lowest frequency of the hardware.
    pub min_khz: u64,
    /// Highest frequency of the hardware.
    pub max_khz: u64,
    /// Its frequencies, ascending; empty if the driver accepts any between the lowest and the highest.
    pub steps_khz: Vec<u64>,
}
