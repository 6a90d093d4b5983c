//! Detects the processors of a board whose file does not list them.

use protocol::text;
use protocol::{Cpu, MachineState};
use std::collections::BTreeSet;
use thiserror::Error;

/// Cores belong to different clusters if their capacity or highest frequency differs by more than this share. The
/// favoured cores of server and desktop parts differ by a few percent, and are not clusters.
const UNLIKE: f64 = 0.15;

/// A detected processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its CPUs, ascending.
    pub cpus: Vec<u32>,
    /// Threads of a stage: one per core.
    pub threads: u32,
}

/// Why two processors could not be detected.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DetectError {
    /// Only one CPU is usable.
    #[error(
        "failed to detect two processors: only CPU {cpu} is usable, and a pipeline needs at least two CPUs; {}, or choose \
         another board",
        remedy(offline)
    )]
    SingleCpu {
        /// The CPU.
        cpu: u32,
        /// Offline CPUs.
        offline: Vec<u32>,
    },
    /// No CPU is usable.
    #[error(
        "failed to detect a processor: no CPU is both online and allowed by the cpuset of the runner's cgroup"
    )]
    NoCpu,
}

/// How to get more CPUs.
fn remedy(offline: &[u32]) -> String {
    if offline.is_empty() {
        return "allow the runner more CPUs (see `taskset -pc $$` and the cpuset of its cgroup)".to_owned();
    }
    let verb = if offline.len() == 1 { "is" } else { "are" };
    format!(
        "{} {verb} offline: choose a power mode with more CPUs, or write 1 to \
         /sys/devices/system/cpu/cpu{}/online as root",
        text::named(offline),
        offline[0]
    )
}

/// Clusters of different cores if the machine has them; otherwise two equal halves.
///
/// # Errors
/// If fewer than two CPUs are usable.
pub fn detect(machine: &MachineState) -> Result<Vec<Found>, DetectError> {
    let mut cpus: Vec<&Cpu> =
        machine.cpus.iter().filter(|cpu| cpu.online && machine.allowed_cpus.contains(&cpu.id)).collect();
    cpus.sort_by_key(|cpu| (cpu.package, cpu.core, cpu.id));
    match cpus.as_slice() {
        [] => return Err(DetectError::NoCpu),
        [one] => {
            let offline = machine.cpus.iter().filter(|cpu| !cpu.online).map(|cpu| cpu.id).collect();
            return Err(DetectError::SingleCpu { cpu: one.id, offline });
        }
        _ => {}
    }
    let clusters = clusters(&cpus);
    if clusters.len() > 1 {
        let named = clusters.into_iter().enumerate();
        return Ok(named.map(|(index, cluster)| found(&format!("cluster{index}"), &cluster)).collect());
    }
    // Hardware threads of one core stay in the same half if possible.
    let middle = cpus.len() / 2;
    let same_core = |a: &Cpu, b: &Cpu| a.core.is_some() && (a.package, a.core) == (b.package, b.core);
    let cut = (middle..cpus.len()).find(|&at| !same_core(cpus[at - 1], cpus[at])).unwrap_or(middle);
    let (first, second) = cpus.split_at(cut);
    let name = |half: &[&Cpu], index: usize| match half {
        [one] => format!("cpu{}", one.id),
        _ => format!("half{index}"),
    };
    Ok(vec![found(&name(first, 0), first), found(&name(second, 1), second)])
}

/// Groups of equal cores, the fastest first.
fn clusters<'a>(cpus: &[&'a Cpu]) -> Vec<Vec<&'a Cpu>> {
    let mut groups: Vec<Vec<&Cpu>> = Vec::new();
    for &cpu in cpus {
        match groups.iter_mut().find(|group| group.first().is_some_and(|first| alike(first, cpu))) {
            Some(group) => group.push(cpu),
            None => groups.push(vec![cpu]),
        }
    }
    let strength = |group: &Vec<&Cpu>| {
        group.first().map_or((0, 0), |cpu| (cpu.capacity.unwrap_or(0), cpu.hardware_max_khz.unwrap_or(0)))
    };
    groups.sort_by_key(|group| std::cmp::Reverse(strength(group)));
    groups
}

fn alike(a: &Cpu, b: &Cpu) -> bool {
    let near = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= UNLIKE * a.max(b),
        _ => true,
    };
    let part = a.midr == b.midr || a.midr.is_none() || b.midr.is_none();
    let frequency = |cpu: &Cpu| cpu.hardware_max_khz.map(|khz| khz as f64);
    part && near(a.capacity.map(f64::from), b.capacity.map(f64::from)) && near(frequency(a), frequency(b))
}

fn found(name: &str, cpus: &[&Cpu]) -> Found {
    let mut numbers: Vec<u32> = cpus.iter().map(|cpu| cpu.id).collect();
    numbers.sort_unstable();
    let cores: BTreeSet<_> =
        cpus.iter().map(|cpu| (cpu.package, cpu.core.unwrap_or(-1 - i64::from(cpu.id)))).collect();
    Found { name: name.to_owned(), cpus: numbers, threads: u32::try_from(cores.len()).unwrap_or(u32::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(id: u32, core: i64, capacity: Option<u32>, khz: Option<u64>) -> Cpu {
        Cpu {
            id,
            online: true,
            isolated: false,
            capacity,
            midr: None,
            core: Some(core),
            package: Some(0),
            current_khz: None,
            min_khz: None,
            max_khz: None,
            hardware_max_khz: khz,
            governor: None,
            l1d_bytes: None,
            l2_bytes: None,
            l3_bytes: None,
        }
    }

    fn machine(cpus: Vec<Cpu>) -> MachineState {
        MachineState {
            arch: "x86_64".into(),
            kernel: String::new(),
            os: None,
            model: None,
            cpu_model: None,
            cpu_flags: Vec::new(),
            allowed_cpus: cpus.iter().map(|cpu| cpu.id).collect(),
            cpus,
            memory_bytes: 0,
            memory_available_bytes: 0,
            load_milli: 0,
            temperatures: Vec::new(),
            power_mode: None,
            gpu: None,
            emc: None,
            cpu_quota: None,
            memory_limit: None,
            scheduling: None,
            silent_zones: Vec::new(),
            cuda: None,
        }
    }

    fn check(cpus: Vec<Cpu>, expected: &[(&str, &[u32], u32)]) {
        let found = detect(&machine(cpus)).expect("processors");
        let found: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.cpus.as_slice(), f.threads)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn processors_are_clusters_or_halves() {
        check(
            (0..2).map(|i| cpu(i, i64::from(i), None, None)).collect(),
            &[("cpu0", &[0], 1), ("cpu1", &[1], 1)],
        );
        check(
            (0..4).map(|i| cpu(i, i64::from(i), None, None)).collect(),
            &[("half0", &[0, 1], 2), ("half1", &[2, 3], 2)],
        );
        // Two cores of two threads, numbered as Linux does on x86: siblings are n and n + 2.
        check(
            (0..4).map(|i| cpu(i, i64::from(i % 2), None, None)).collect(),
            &[("half0", &[0, 2], 1), ("half1", &[1, 3], 1)],
        );
        check(
            (0..6)
                .map(|i| cpu(i, i64::from(i), Some(if i < 2 { 1024 } else { 446 }), Some(1_800_000)))
                .collect(),
            &[("cluster0", &[0, 1], 2), ("cluster1", &[2, 3, 4, 5], 4)],
        );
        // Favoured cores a few percent apart are no clusters.
        check(
            vec![cpu(0, 0, None, Some(5_000_000)), cpu(1, 1, None, Some(5_200_000))],
            &[("cpu0", &[0], 1), ("cpu1", &[1], 1)],
        );
    }

    #[test]
    fn a_single_cpu_is_refused() {
        let message = detect(&machine(vec![cpu(3, 0, None, None)])).unwrap_err().to_string();
        assert!(message.contains("only CPU 3 is usable") && message.contains("taskset"), "{message}");
        let offline = |id| Cpu { online: false, ..cpu(id, 0, None, None) };
        let message = detect(&machine(vec![cpu(0, 0, None, None), offline(1)])).unwrap_err().to_string();
        assert!(
            message.contains("CPU 1 is offline: choose a power mode") && !message.contains("taskset"),
            "{message}"
        );
        let message =
            detect(&machine(vec![cpu(0, 0, None, None), offline(1), offline(2)])).unwrap_err().to_string();
        assert!(message.contains("CPUs 1-2 are offline"), "{message}");
        assert_eq!(detect(&machine(Vec::new())), Err(DetectError::NoCpu));
    }
}
