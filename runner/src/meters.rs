//! What a measurement costs, from the kernel's accounting.

use crate::cgroups::Groups;
use crate::clock::{monotonic_ns, process_cpu_ns};
use crate::engine::thread_cpu_ns;
use protocol::HostLoad;
use std::fs;

/// Memory that could be had without swapping and within the limits of the runner's control groups, in bytes.
pub(crate) fn memory_available_bytes() -> Option<u64> {
    let free = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kilobytes(&text, "MemAvailable:"));
    let within = Groups::of_process().memory_available_bytes();
    free.into_iter().chain(within).min()
}

/// What is to be said of a limit of memory, after the figures that do not fit; nothing if there is none.
pub(crate) fn memory_limit_words() -> String {
    Groups::of_process().memory_limit().map_or_else(String::new, |limit| {
        format!(
            "; the cgroup {} may use {} MiB: raise its memory limit, or run outside of it",
            limit.group,
            limit.bytes >> 20
        )
    })
}

/// Resident memory of the runner, and the part of it that no file backs, in bytes.
pub(crate) fn resident_bytes() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name| kilobytes(&status, name).unwrap_or(0);
    (field("VmRSS:"), field("RssAnon:"))
}

/// The value of a line such as `VmRSS:  1234 kB`, in bytes.
pub(crate) fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Accounting at one moment.
#[derive(Debug)]
pub(crate) struct Reading {
    at_ns: u64,
    process_ns: u64,
    stages_ns: Vec<u64>,
    cpus: Option<CpuTimes>,
}

/// Times of some CPUs since the start of the system, summed.
#[derive(Debug, PartialEq, Eq)]
struct CpuTimes {
    busy_ns: u64,
    steal_ns: u64,
}

impl Reading {
    /// Now, for the given CPUs and the threads of each stage.
    pub(crate) fn take(cpus: &[u32], stage_threads: &[Vec<u32>]) -> Self {
        let used = |threads: &Vec<u32>| threads.iter().filter_map(|thread| thread_cpu_ns(*thread)).sum();
        Self {
            at_ns: monotonic_ns(),
            process_ns: process_cpu_ns(),
            stages_ns: stage_threads.iter().map(used).collect(),
            cpus: fs::read_to_string("/proc/stat").ok().and_then(|text| CpuTimes::parse(&text, cpus)),
        }
    }

    /// Load of the machine since `earlier`, and CPU time of each stage in ns.
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

impl CpuTimes {
    /// From /proc/stat; `None` where a CPU is not in it.
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
    fn cpu_times_are_summed_over_the_cpus_asked_for() {
        let text =
            "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\ncpu1 10 0 0 0 0 0 0 1 0 0\ncpu10 1 1 1 1\n";
        let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        let both = CpuTimes::parse(text, &[0, 1]).unwrap();
        assert_eq!(both, CpuTimes { busy_ns: 29 * tick, steal_ns: 9 * tick });
        assert_eq!(CpuTimes::parse(text, &[2]), None);
        assert_eq!(CpuTimes::parse(text, &[10]), None, "a line cut short tells nothing");
    }

    #[test]
    fn a_busy_thread_shows_up() {
        let thread = crate::affinity::this_thread();
        let (cpus, threads) = (crate::affinity::allowed(), vec![vec![thread]]);
        let before = Reading::take(&cpus, &threads);
        let until = monotonic_ns() + 30_000_000;
        while monotonic_ns() < until {}
        let (load, stages) = Reading::take(&cpus, &threads).since(&before);
        assert!(load.wall_ns >= 30_000_000 && stages[0] > 0 && load.runner_ns >= stages[0] / 2, "{load:?}");
    }

    #[test]
    fn memory_of_this_process_is_found() {
        let (resident, anonymous) = resident_bytes();
        assert!(resident > anonymous && anonymous > 0);
        assert!(memory_available_bytes().unwrap() > 0);
    }
}
