//! CPU time from the kernel's accounting: of the stages, of the runner, and of the CPUs.

use crate::clock::{monotonic_ns, process_cpu_ns};
use crate::engine::thread_cpu_ns;
use protocol::HostLoad;
use std::fs;
use std::path::PathBuf;

/// Names a file with the times of the CPUs that is read instead of the kernel's. Tests of everything but validity set it to one that
/// does not change: their verdict must not depend on what else runs on the machine.
const VARIABLE: &str = "EDGEPIPE_PROC_STAT";

/// The counters at one moment.
#[derive(Debug)]
pub(crate) struct Reading {
    at_ns: u64,
    process_ns: u64,
    stages_ns: Vec<u64>,
    cpus: Option<CpuTimes>,
}

/// Times of some CPUs since boot, summed.
#[derive(Debug, PartialEq, Eq)]
struct CpuTimes {
    busy_ns: u64,
    steal_ns: u64,
}

impl Reading {
    /// Reads the counters of the CPUs and of the threads of each stage.
    pub(crate) fn take(cpus: &[u32], stage_threads: &[Vec<u32>]) -> Self {
        let used = |threads: &Vec<u32>| threads.iter().filter_map(|thread| thread_cpu_ns(*thread)).sum();
        Self {
            at_ns: monotonic_ns(),
            process_ns: process_cpu_ns(),
            stages_ns: stage_threads.iter().map(used).collect(),
            cpus: fs::read_to_string(cpu_times()).ok().and_then(|text| CpuTimes::parse(&text, cpus)),
        }
    }

    /// Load of the machine since `earlier`, and CPU time of each stage, in ns.
    pub(crate) fn since(&self, earlier: &Self) -> (HostLoad, Vec<u64>) {
        let stages: Vec<u64> = self
            .stages_ns
            .iter()
            .zip(&earlier.stages_ns)
            .map(|(now, before)| now.saturating_sub(*before))
            .collect();
        let runner_ns = self.process_ns.saturating_sub(earlier.process_ns);
        let cpus = self.cpus.as_ref().zip(earlier.cpus.as_ref());
        let load = HostLoad {
            wall_ns: self.at_ns - earlier.at_ns,
            steal_ns: cpus.map(|(now, before)| now.steal_ns.saturating_sub(before.steal_ns)),
            busy_ns: cpus.map(|(now, before)| now.busy_ns.saturating_sub(before.busy_ns)),
            runner_ns,
            overhead_ns: runner_ns.saturating_sub(stages.iter().sum()),
        };
        (load, stages)
    }
}

fn cpu_times() -> PathBuf {
    std::env::var_os(VARIABLE).map_or_else(|| "/proc/stat".into(), PathBuf::from)
}

impl CpuTimes {
    /// Parses /proc/stat; `None` if it lacks one of the CPUs.
    fn parse(text: &str, cpus: &[u32]) -> Option<Self> {
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        let mut sum = Self { busy_ns: 0, steal_ns: 0 };
        for cpu in cpus {
            let name = format!("cpu{cpu} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&name))?;
            // user nice system idle iowait irq softirq steal; guest time is part of user time (proc(5)).
            let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
            let [user, nice, system, _, _, irq, softirq, steal, ..] = ticks[..] else { return None };
            sum.busy_ns += (user + nice + system + irq + softirq) * tick_ns;
            sum.steal_ns += steal * tick_ns;
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_times_are_summed_over_the_given_cpus() {
        let text =
            "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\ncpu1 10 0 0 0 0 0 0 1 0 0\ncpu10 1 1 1 1\n";
        let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        let both = CpuTimes::parse(text, &[0, 1]).unwrap();
        assert_eq!(both, CpuTimes { busy_ns: 29 * tick, steal_ns: 9 * tick });
        assert_eq!(CpuTimes::parse(text, &[2]), None);
        assert_eq!(CpuTimes::parse(text, &[10]), None, "a truncated line is not used");
    }

    #[test]
    fn a_busy_thread_is_counted() {
        let thread = crate::affinity::current_thread();
        let (cpus, threads) = (crate::affinity::allowed_cpus(), vec![vec![thread]]);
        let before = Reading::take(&cpus, &threads);
        let until = monotonic_ns() + 30_000_000;
        while monotonic_ns() < until {}
        let (load, stages) = Reading::take(&cpus, &threads).since(&before);
        assert!(load.wall_ns >= 30_000_000 && stages[0] > 0 && load.runner_ns >= stages[0] / 2, "{load:?}");
    }
}
