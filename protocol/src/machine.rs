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
