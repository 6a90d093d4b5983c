//! The settings of a board that decide its speed: requested, found, set, watched and restored.

use crate::machine::{Cpu, MachineState, PowerMode};
use serde::{Deserialize, Serialize};

/// The requested state of a board. What is absent is not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateRequest {
    /// Folder of sysfs: `/sys`, or a replacement for tests.
    pub sysfs: String,
    /// Number of the power mode of `nvpmodel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvpmodel: Option<u32>,
    /// Whether `jetson_clocks` pins the clocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jetson_clocks: Option<bool>,
    /// Frequency governor of all CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governor: Option<String>,
    /// Highest frequencies of CPUs. With `jetson_clocks`, these are the lowest ones too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpu_limits: Vec<CpuLimit>,
    /// Highest frequency of the GPU. With `jetson_clocks`, it is the lowest one too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_max_hz: Option<u64>,
    /// Frequency at which the memory clock is locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_hz: Option<u64>,
}

impl StateRequest {
    /// Whether nothing is requested.
    pub fn is_nothing(&self) -> bool {
        self.nvpmodel.is_none()
            && self.jetson_clocks.is_none()
            && self.governor.is_none()
            && self.cpu_limits.is_empty()
            && self.gpu_max_hz.is_none()
            && self.memory_hz.is_none()
    }

    /// Whether both request the same settings, except for the values of governor, clock limits and memory clock.
    pub fn differs_in_values_only(&self, other: &Self) -> bool {
        let with_values_of = |values: &Self| Self {
            governor: values.governor.clone(),
            cpu_limits: values.cpu_limits.clone(),
            gpu_max_hz: values.gpu_max_hz,
            memory_hz: values.memory_hz,
            ..self.clone()
        };
        let cpus = |request: &Self| -> Vec<u32> {
            let mut cpus: Vec<u32> =
                request.cpu_limits.iter().flat_map(|limit| limit.cpus.iter().copied()).collect();
            cpus.sort_unstable();
            cpus
        };
        with_values_of(other) == *other
            && cpus(self) == cpus(other)
            && self.governor.is_some() == other.governor.is_some()
            && self.gpu_max_hz.is_some() == other.gpu_max_hz.is_some()
            && self.memory_hz.is_some() == other.memory_hz.is_some()
    }
}

/// The highest frequency of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuLimit {
    /// The CPUs.
    pub cpus: Vec<u32>,
    /// The frequency.
    pub max_khz: u64,
}

/// Settings of a board that decide its speed. What the board does not show is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The power mode.
    pub power_mode: Option<PowerMode>,
    /// All CPUs, ascending.
    pub cpus: Vec<CpuSettings>,
    /// Limits of the GPU's clock.
    pub gpu: Option<ClockLimits>,
    /// Frequency at which the memory clock is locked. Absent if it is not locked, or only root may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_hz: Option<u64>,
}

impl Settings {
    /// The settings with these CPUs only.
    #[must_use]
    pub fn of_cpus(&self, cpus: &[u32]) -> Self {
        let kept = self.cpus.iter().filter(|cpu| cpus.contains(&cpu.id)).cloned().collect();
        let Self { power_mode, cpus: _, gpu, memory_hz } = self;
        Self { power_mode: power_mode.clone(), cpus: kept, gpu: *gpu, memory_hz: *memory_hz }
    }

    /// The settings that differ later. Settings of offline CPUs are ignored.
    pub fn changes_to(&self, later: &Self) -> Vec<SettingDifference> {
        // The usual case, in which no text is made: a report compares the settings around each of thousands of trials.
        if self == later {
            return Vec::new();
        }
        let mut changes = Vec::new();
        let mut compare = |setting: String, from: Option<String>, to: Option<String>| {
            if from != to {
                changes.push(SettingDifference { setting, from, to });
            }
        };
        let mode = |of: &Self| of.power_mode.as_ref().map(|mode| format!("{} ({})", mode.id, mode.name));
        // If it could not be read, it is not considered changed.
        if self.power_mode.is_some() && later.power_mode.is_some() {
            compare("power mode".to_owned(), mode(self), mode(later));
        }
        for old in &self.cpus {
            let Some(new) = later.cpus.iter().find(|cpu| cpu.id == old.id) else { continue };
            let id = old.id;
            let online = |cpu: &CpuSettings| Some(if cpu.online { "online" } else { "offline" }.to_owned());
            compare(format!("CPU {id}"), online(old), online(new));
            if old.online && new.online {
                let khz = |khz: Option<u64>| khz.map(|khz| format!("{khz} kHz"));
                compare(format!("governor of CPU {id}"), old.governor.clone(), new.governor.clone());
                compare(format!("lowest frequency of CPU {id}"), khz(old.min_khz), khz(new.min_khz));
                compare(format!("highest frequency of CPU {id}"), khz(old.max_khz), khz(new.max_khz));
            }
        }
        let hz = |hz: Option<u64>| hz.map(|hz| format!("{hz} Hz"));
        let (min, max) = (|of: &Self| of.gpu.map(|gpu| gpu.min_hz), |of: &Self| of.gpu.map(|gpu| gpu.max_hz));
        compare("lowest frequency of the GPU".to_owned(), hz(min(self)), hz(min(later)));
        compare("highest frequency of the GPU".to_owned(), hz(max(self)), hz(max(later)));
        // Not every reader is root.
        if self.memory_hz.is_some() && later.memory_hz.is_some() {
            compare("frequency of the memory clock".to_owned(), hz(self.memory_hz), hz(later.memory_hz));
        }
        changes
    }
}

/// A setting with two values at two times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingDifference {
    /// Its name, for messages: `governor of CPU 3`.
    pub setting: String,
    /// The earlier value; absent if unknown.
    pub from: Option<String>,
    /// The later value; absent if unknown.
    pub to: Option<String>,
}

/// Settings of a CPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuSettings {
    /// Its number.
    pub id: u32,
    /// Whether it is online.
    pub online: bool,
    /// Frequency governor.
    pub governor: Option<String>,
    /// Lower limit.
    pub min_khz: Option<u64>,
    /// Upper limit.
    pub max_khz: Option<u64>,
}

/// Limits of a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockLimits {
    /// Lower limit.
    pub min_hz: u64,
    /// Upper limit.
    pub max_hz: u64,
}

impl From<&MachineState> for Settings {
    fn from(state: &MachineState) -> Self {
        let cpu = |cpu: &Cpu| CpuSettings {
            id: cpu.id,
            online: cpu.online,
            governor: cpu.governor.clone(),
            min_khz: cpu.min_khz,
            max_khz: cpu.max_khz,
        };
        let gpu = state.gpu.as_ref();
        Self {
            power_mode: state.power_mode.clone(),
            cpus: state.cpus.iter().map(cpu).collect(),
            gpu: gpu.map(|gpu| ClockLimits { min_hz: gpu.min_hz, max_hz: gpu.max_hz }),
            memory_hz: state.emc.as_ref().filter(|emc| emc.min_hz == emc.max_hz).map(|emc| emc.max_hz),
        }
    }
}

/// A command to `runner hold`, one line. It restores the state at its end, whether or not it receives a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StateCommand {
    /// Set this state, and save the state that was found. What another session left behind is restored first.
    Set(StateRequest),
    /// Restore the state that was found.
    Restore {},
}

/// A reply of `runner hold`, one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StateReply {
    /// The requested state is set and was read back.
    Set(Box<AppliedState>),
    /// The state is restored.
    Restored {
        /// Settings that were not restored: `highest frequency of CPU 0 is 1200000 kHz, was 2035200 kHz`.
        differences: Vec<String>,
    },
    /// The command failed.
    Failed {
        /// Starts with "failed to".
        message: String,
    },
}

/// The result of setting a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppliedState {
    /// What another session had left behind, which was restored first.
    pub leftover: Option<Box<SavedState>>,
    /// The settings before the first change.
    pub found: Settings,
    /// The settings now.
    pub set: Settings,
}

/// The state to be restored: the content of a file that exists on the board from before the first change until it is restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedState {
    /// Format version of the file.
    pub version: u32,
    /// The session that changed the board.
    pub by: String,
    /// The kernel's boot id: a reboot resets clocks and governors.
    pub boot: Option<String>,
    /// The requested state.
    #[serde(rename = "asked")]
    pub request: StateRequest,
    /// The settings that were found.
    pub found: Settings,
    /// Governors before they were changed, including those of CPUs that only the requested power mode has online.
    pub governors: Vec<CpuGovernor>,
    /// Limits of CPU clocks in the requested power mode before they were changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpu_limits: Vec<SavedCpuLimits>,
    /// Limits of the GPU's clock in the requested power mode before they were changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_limits: Option<ClockLimits>,
    /// The memory clock before it was locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_clock: Option<SavedMemoryClock>,
}

/// The state of the memory clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedMemoryClock {
    /// Its frequency.
    pub rate_hz: u64,
    /// Whether it keeps it.
    pub is_locked: bool,
}

/// The limits of a CPU's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedCpuLimits {
    /// The CPU.
    pub cpu: u32,
    /// Lower limit.
    pub min_khz: u64,
    /// Upper limit.
    pub max_khz: u64,
}

/// The governor of a CPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuGovernor {
    /// The CPU.
    pub cpu: u32,
    /// Its governor.
    pub governor: String,
}

/// The settings during a trial, read once a second from before the warm-up to after the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchedSettings {
    /// Number of reads.
    pub looks: u32,
    /// CPU time of reading.
    pub cpu_ns: u64,
    /// The lowest current frequency of each CPU of the schedule, as far as known.
    pub lowest: Vec<LowestFrequency>,
    /// The lowest current frequency of the GPU; absent if no stage runs on it, or the board does not show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_lowest: Option<LowestClock>,
    /// Settings that changed, in order.
    pub changes: Vec<SettingChange>,
    /// Control groups whose CPU quota throttled the runner within the window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub throttled: Vec<Throttled>,
}

/// Throttling by a CPU quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttled {
    /// The control group.
    pub group: String,
    /// The quota; absent if unknown.
    pub milli_cpus: Option<u64>,
    /// Periods in which the group was throttled.
    pub periods: u64,
    /// Time that it was throttled, summed over its CPUs.
    pub throttled_ns: u64,
}

/// The lowest current frequency of a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LowestFrequency {
    /// The CPU.
    pub cpu: u32,
    /// The frequency.
    pub khz: u64,
    /// When it was first read.
    pub at_ns: u64,
}

/// The lowest observed frequency of a clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LowestClock {
    /// The frequency.
    pub hz: u64,
    /// When it was first read.
    pub at_ns: u64,
}

/// A setting that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingChange {
    /// When it was read.
    pub at_ns: u64,
    /// Its name, for messages: `governor of CPU 3`.
    pub setting: String,
    /// The earlier value; absent if unknown.
    pub from: Option<String>,
    /// The later value; absent if unknown.
    pub to: Option<String>,
}
