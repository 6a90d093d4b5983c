//! The state of a board that decides how fast it is: asked for, found, set, watched and restored.

use crate::machine::{Cpu, MachineState, PowerMode};
use serde::{Deserialize, Serialize};

/// What a board is to be brought to; what is absent is not touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Where sysfs is: `/sys`, unless a tree of files stands in for it.
    pub sysfs: String,
    /// Power mode, as `nvpmodel` numbers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvpmodel: Option<u32>,
    /// Whether `jetson_clocks` pins the clocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jetson_clocks: Option<bool>,
    /// Frequency governor of all CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governor: Option<String>,
}

impl Asked {
    /// Whether anything is asked for.
    pub fn is_nothing(&self) -> bool {
        self.nvpmodel.is_none() && self.jetson_clocks.is_none() && self.governor.is_none()
    }
}

/// Settings of a board that decide how fast it is. What the board does not tell is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The power mode.
    pub power_mode: Option<PowerMode>,
    /// All CPUs, ascending.
    pub cpus: Vec<CpuSettings>,
    /// Limits of the GPU's clock.
    pub gpu: Option<ClockLimits>,
}

impl Settings {
    /// The same of these CPUs only.
    #[must_use]
    pub fn of_cpus(&self, cpus: &[u32]) -> Self {
        let kept = self.cpus.iter().filter(|cpu| cpus.contains(&cpu.id)).cloned().collect();
        Self { cpus: kept, ..self.clone() }
    }

    /// What is not the same in later settings. What an offline CPU would do if it were online does not count.
    pub fn changes_to(&self, later: &Self) -> Vec<Changed> {
        let mut changes = Vec::new();
        let mut compare = |setting: String, from: Option<String>, to: Option<String>| {
            if from != to {
                changes.push(Changed { setting, from, to });
            }
        };
        let mode = |of: &Self| of.power_mode.as_ref().map(|mode| format!("{} ({})", mode.id, mode.name));
        // A program that does not tell it this time has changed nothing.
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
        changes
    }
}

/// A setting that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Which, in words: `governor of CPU 3`.
    pub setting: String,
    /// What it was; absent where the board did not tell.
    pub from: Option<String>,
    /// What it is.
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
    /// Lowest frequency allowed, in kHz.
    pub min_khz: Option<u64>,
    /// Highest frequency allowed, in kHz.
    pub max_khz: Option<u64>,
}

/// Limits of a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockLimits {
    /// The lowest frequency allowed, in Hz.
    pub min_hz: u64,
    /// The highest frequency allowed, in Hz.
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
        }
    }
}

/// What the program that keeps a board's state is told, a line each. It restores at its end whatever happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Keep {
    /// Bring the board to this, and remember how it was. What another session left behind is restored first.
    Bring(Asked),
    /// Restore what was found.
    Restore {},
}

/// What it answers, a line each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Kept {
    /// Answer to [`Keep::Bring`]: the board is as asked, read back.
    Brought(Box<Brought>),
    /// Answer to [`Keep::Restore`].
    Restored {
        /// What is not as it was found, though all was done to restore it: `CPU 0 max_khz: 1200000, was 2035200`.
        differences: Vec<String>,
    },
    /// It could not be done.
    Failed {
        /// Finishes "failed to …".
        message: String,
    },
}

/// A board that was brought to what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Brought {
    /// What another session had left to be restored, which was done first.
    pub leftover: Option<Box<Pending>>,
    /// The board before anything was changed.
    pub found: Settings,
    /// The board after.
    pub set: Settings,
}

/// What is to be restored: the file that lies on a board from before its state is changed until it is restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// Version of this file.
    pub version: u32,
    /// Who changed the board.
    pub by: String,
    /// The kernel's name for the time since it was started; clocks and governors begin anew with each start.
    pub boot: Option<String>,
    /// What was asked for.
    pub asked: Asked,
    /// How the board was.
    pub found: Settings,
    /// Governors before they were changed; of CPUs too that only the power mode asked for has online.
    pub governors: Vec<CpuGovernor>,
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

/// How the settings were during a trial, looked at once a second from before the warm-up to after the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    /// Looks taken.
    pub looks: u32,
    /// CPU time of looking.
    pub cpu_ns: u64,
    /// The lowest current frequency of each CPU of the schedule that tells.
    pub lowest: Vec<LowestFrequency>,
    /// Settings that were not as at the first look, as they were seen.
    pub changes: Vec<Change>,
    /// Control groups whose CPU quota held the runner up within the window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub throttled: Vec<Throttled>,
}

/// CPU time that a quota denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttled {
    /// The control group that has the quota.
    pub group: String,
    /// The quota in thousandths of a CPU; absent if this system does not show it.
    pub milli_cpus: Option<u64>,
    /// Periods of the quota in which the group had to wait.
    pub periods: u64,
    /// Time it waited, summed over its CPUs.
    pub throttled_ns: u64,
}

/// The lowest current frequency seen of a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LowestFrequency {
    /// The CPU.
    pub cpu: u32,
    /// The frequency.
    pub khz: u64,
    /// The board's monotonic clock when it was seen first.
    pub at_ns: u64,
}

/// A setting that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The board's monotonic clock when it was seen.
    pub at_ns: u64,
    /// Which, in words: `governor of CPU 3`.
    pub setting: String,
    /// What it was; absent where the board did not tell.
    pub from: Option<String>,
    /// What it is.
    pub to: Option<String>,
}
