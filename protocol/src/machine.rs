//! The board as the runner finds it.

use serde::{Deserialize, Serialize};

/// State of a board. What the board does not tell is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineState {
    /// Machine name as `uname` gives it: `x86_64`, `aarch64`.
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
    /// All CPUs the kernel knows, ascending.
    pub cpus: Vec<Cpu>,
    /// CPUs this process may run on.
    pub allowed_cpus: Vec<u32>,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Memory available in bytes.
    pub memory_available_bytes: u64,
    /// Load average over one minute, in thousandths.
    pub load_milli: u64,
    /// Thermal zones.
    pub temperatures: Vec<Temperature>,
    /// Power mode of a Jetson.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_mode: Option<PowerMode>,
    /// Clock of the GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Clock>,
    /// Clock of the memory controller; Jetsons tell it to root only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emc: Option<Clock>,
    /// The smallest quota of CPU time that holds for the runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<CpuQuota>,
    /// The smallest limit of memory that holds for the runner, if it is less than the board's memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<MemoryLimit>,
    /// How the scheduler treats the runner, if not as any other program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,
    /// Thermal zones that are there and give no temperature.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent_zones: Vec<SilentZone>,
}

/// CPU time that a control group may use in a period, over the period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuQuota {
    /// The control group that has it.
    pub group: String,
    /// Thousandths of a CPU.
    pub milli_cpus: u64,
}

/// Memory that a control group may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryLimit {
    /// The control group that has it.
    pub group: String,
    /// The limit.
    pub bytes: u64,
}

/// How the scheduler treats a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scheduling {
    /// Its policy.
    pub policy: Policy,
    /// Its nice value, -20 to 19.
    pub nice: i32,
    /// The smallest weight of its control groups, if that is less than the default.
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
    /// `SCHED_IDLE`: any other program comes first.
    Idle,
    /// One of the real-time policies.
    RealTime,
}

/// Share of CPU time of a control group on a busy machine.
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
    /// Why: completes "the zone …".
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

/// A clock that is no CPU's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// Lowest frequency allowed now, in Hz.
    pub min_hz: u64,
    /// Highest frequency allowed now, in Hz.
    pub max_hz: u64,
    /// Current frequency in Hz.
    pub current_hz: Option<u64>,
    /// What governs it.
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
    /// Whether the scheduler leaves it alone (`isolcpus`).
    pub isolated: bool,
    /// Relative capacity, of 1024, on unlike cores.
    pub capacity: Option<u32>,
    /// Implementer and part from the identification register, on Arm.
    pub midr: Option<u64>,
    /// Core id: CPUs that share one are threads of one core.
    pub core: Option<i64>,
    /// Package id.
    pub package: Option<i64>,
    /// Current frequency in kHz.
    pub current_khz: Option<u64>,
    /// Lowest frequency allowed now, in kHz.
    pub min_khz: Option<u64>,
    /// Highest frequency allowed now, in kHz.
    pub max_khz: Option<u64>,
    /// Highest frequency of the hardware, in kHz.
    pub hardware_max_khz: Option<u64>,
    /// Frequency governor.
    pub governor: Option<String>,
    /// First-level data cache in bytes.
    pub l1d_bytes: Option<u64>,
    /// Second-level cache in bytes.
    pub l2_bytes: Option<u64>,
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
