//! The state of a board as text.

use crate::{
    Clock, ClockLimits, MachineState, Policy, PowerMode, PowerReadings, RailReadings, SavedState, Scheduling,
    Settings, StateRequest, format_cpu_list,
};
use std::fmt::Write as _;

fn cpus(numbers: &[u32]) -> String {
    if numbers.is_empty() { "none".to_owned() } else { format_cpu_list(numbers) }
}

/// A list of CPUs with the noun: `CPU 0`, `CPUs 3-5`.
pub fn named(numbers: &[u32]) -> String {
    format!("{} {}", if numbers.len() == 1 { "CPU" } else { "CPUs" }, cpus(numbers))
}

/// A power mode: `0 (MAXN)`.
pub fn mode(mode: &PowerMode) -> String {
    format!("{} ({})", mode.id, mode.name)
}

/// CPU time of a quota: `1.3 CPUs`.
pub fn cpus_of_quota(milli_cpus: u64) -> String {
    format!("{} CPUs", milli_cpus as f64 / 1000.0)
}

/// Why the scheduler prefers other programs to the runner; `None` if it does not.
pub fn low_priority(scheduling: &Scheduling) -> Option<String> {
    let Scheduling { policy, nice, weight } = scheduling;
    let mut parts = Vec::new();
    match policy {
        Policy::Idle => parts.push("the policy SCHED_IDLE".to_owned()),
        Policy::Batch => parts.push("the policy SCHED_BATCH".to_owned()),
        Policy::Other | Policy::RealTime => {}
    }
    if *nice > 0 {
        parts.push(format!("nice {nice}"));
    }
    parts.extend(
        weight
            .as_ref()
            .map(|weight| format!("{} % of the default weight (cgroup {})", weight.percent, weight.group)),
    );
    (!parts.is_empty()).then(|| parts.join(" and "))
}

/// Policy and nice value, if they are not the default. Figures are comparable only if they are equal.
pub fn priority(machine: &MachineState) -> Option<String> {
    let known = machine.scheduling.as_ref()?;
    let policy = match known.policy {
        Policy::Other => "SCHED_OTHER",
        Policy::Batch => "SCHED_BATCH",
        Policy::Idle => "SCHED_IDLE",
        Policy::RealTime => "real-time",
    };
    (known.policy != Policy::Other || known.nice != 0).then(|| format!("{policy}, nice {}", known.nice))
}

/// The CPU quota without the name of its group, which differs between containers.
pub fn quota(machine: &MachineState) -> Option<String> {
    machine.cpu_quota.as_ref().map(|quota| cpus_of_quota(quota.milli_cpus))
}

/// Thermal zones without a temperature, each with the reason.
pub fn silent_zones(machine: &MachineState) -> String {
    let zones: Vec<String> =
        machine.silent_zones.iter().map(|silent| format!("{} {}", silent.zone, silent.reason)).collect();
    zones.join(", ")
}

fn megahertz(hz: u64) -> String {
    let text = format!("{:.1}", hz as f64 / 1e6);
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// Limits of a clock: `345.6 to 2035.2 MHz`, `pinned to 2035.2 MHz`.
fn limits(limits: ClockLimits) -> String {
    if limits.min_hz == limits.max_hz {
        return format!("pinned to {} MHz", megahertz(limits.max_hz));
    }
    format!("{} to {} MHz", megahertz(limits.min_hz), megahertz(limits.max_hz))
}

/// Groups of online CPUs with equal limits and governor: `CPUs 0,3-5 345.6 to 2035.2 MHz (schedutil)`.
fn clocks(settings: &Settings) -> Vec<String> {
    let mut groups: Vec<(String, Vec<u32>)> = Vec::new();
    for cpu in settings.cpus.iter().filter(|cpu| cpu.online) {
        let Some((min, max)) = cpu.min_khz.zip(cpu.max_khz) else { continue };
        let governor = cpu.governor.as_deref().unwrap_or("no governor");
        let text = format!("{} ({governor})", limits(ClockLimits { min_hz: min * 1000, max_hz: max * 1000 }));
        match groups.iter_mut().find(|(known, _)| *known == text) {
            Some((_, numbers)) => numbers.push(cpu.id),
            None => groups.push((text, vec![cpu.id])),
        }
    }
    groups.into_iter().map(|(text, numbers)| format!("{} {text}", named(&numbers))).collect()
}

/// Settings as a list of phrases.
pub fn settings(settings: &Settings) -> String {
    let mut parts = Vec::new();
    parts.extend(settings.power_mode.as_ref().map(|known| format!("power mode {}", mode(known))));
    let offline: Vec<u32> = settings.cpus.iter().filter(|cpu| !cpu.online).map(|cpu| cpu.id).collect();
    if !offline.is_empty() {
        parts.push(format!("{} offline", named(&offline)));
    }
    parts.extend(clocks(settings));
    parts.extend(settings.gpu.map(|gpu| format!("GPU {}", limits(gpu))));
    parts.extend(settings.memory_hz.map(|hz| format!("memory clock locked at {} MHz", megahertz(hz))));
    if parts.is_empty() { "no known settings".to_owned() } else { parts.join(", ") }
}

/// A requested state as a list of phrases.
pub fn request(request: &StateRequest) -> String {
    let mut parts = Vec::new();
    parts.extend(request.nvpmodel.map(|mode| format!("power mode {mode}")));
    parts.extend(
        request
            .jetson_clocks
            .map(|pinned| if pinned { "clocks pinned" } else { "clocks not pinned" }.to_owned()),
    );
    parts.extend(request.governor.as_ref().map(|governor| format!("governor {governor}")));
    parts.extend(
        request
            .cpu_limits
            .iter()
            .map(|limit| format!("{} at most {} MHz", named(&limit.cpus), megahertz(limit.max_khz * 1000))),
    );
    parts.extend(request.gpu_max_hz.map(|hz| format!("GPU at most {} MHz", megahertz(hz))));
    parts.extend(request.memory_hz.map(|hz| format!("memory clock at {} MHz", megahertz(hz))));
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

/// Shell commands that set a requested state by hand. Writing to sysfs needs root.
pub fn commands(request: &StateRequest) -> Vec<String> {
    let mut commands = Vec::new();
    commands.extend(request.nvpmodel.map(|mode| format!("sudo nvpmodel -m {mode}")));
    if request.jetson_clocks == Some(true) {
        commands.push("sudo jetson_clocks".to_owned());
    }
    let sysfs = &request.sysfs;
    let mut write = |value: String, files: String| {
        commands.push(format!("for file in {files}; do echo {value} | sudo tee $file; done"));
    };
    if let Some(governor) = &request.governor {
        let files = format!("{sysfs}/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor");
        write(governor.clone(), files);
    }
    // Pinned clocks: the lower limit first, so that it is never above the upper one.
    let ends: &[&str] = if request.jetson_clocks == Some(true) { &["min", "max"] } else { &["max"] };
    for limit in &request.cpu_limits {
        for end in ends {
            let file = |cpu: &u32| format!("{sysfs}/devices/system/cpu/cpu{cpu}/cpufreq/scaling_{end}_freq");
            write(limit.max_khz.to_string(), limit.cpus.iter().map(file).collect::<Vec<_>>().join(" "));
        }
    }
    if let Some(hz) = request.gpu_max_hz {
        for end in ends {
            write(hz.to_string(), format!("{sysfs}/class/devfreq/*.g*/{end}_freq"));
        }
    }
    if let Some(hz) = request.memory_hz {
        let emc = format!("{sysfs}/kernel/debug/bpmp/debug/clk/emc");
        commands.push(format!("echo 1 | sudo tee {emc}/mrq_rate_locked"));
        commands.push(format!("echo {hz} | sudo tee {emc}/rate"));
    }
    commands
}

/// The lines of `boards` about a machine's state.
pub fn state(
    machine: &MachineState,
    power: Result<Option<&PowerReadings>, &str>,
    pending: Option<&SavedState>,
) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    if let Some(known) = &machine.power_mode {
        let _ = writeln!(text, "  power mode {}", mode(known));
    }
    let of = |wanted: fn(&crate::Cpu) -> bool| -> Vec<u32> {
        machine.cpus.iter().filter(|cpu| wanted(cpu)).map(|cpu| cpu.id).collect()
    };
    let (online, offline, isolated) = (of(|cpu| cpu.online), of(|cpu| !cpu.online), of(|cpu| cpu.isolated));
    let _ = write!(text, "  {} online", named(&online));
    for (numbers, word) in [(offline, "offline"), (isolated, "isolated")] {
        if !numbers.is_empty() {
            let _ = write!(text, ", {} {word}", cpus(&numbers));
        }
    }
    text.push('\n');
    let described = clocks(&Settings::from(machine));
    for line in &described {
        let _ = writeln!(text, "  {line}");
    }
    let current: Vec<String> = machine
        .cpus
        .iter()
        .filter(|cpu| cpu.online)
        .filter_map(|cpu| Some(format!("{} at {}", cpu.id, megahertz(cpu.current_khz? * 1000))))
        .collect();
    if !current.is_empty() {
        let _ = writeln!(text, "  now, in MHz: {}", current.join(", "));
    }
    for (name, clock) in [("GPU", &machine.gpu), ("EMC", &machine.emc)] {
        if let Some(clock) = clock {
            let _ = writeln!(text, "  {name} {}", clock_line(clock));
        }
    }
    let zones: Vec<String> = machine
        .temperatures
        .iter()
        .map(|zone| format!("{} {:.1}", zone.zone, zone.milli_celsius as f64 / 1000.0))
        .collect();
    if !zones.is_empty() {
        let _ = writeln!(text, "  temperatures, in °C: {}", zones.join(", "));
    }
    if !machine.silent_zones.is_empty() {
        let _ = writeln!(text, "  zones without a temperature: {}", silent_zones(machine));
    }
    if let Some(quota) = &machine.cpu_quota {
        let _ = writeln!(text, "  CPU quota of {} (cgroup {})", cpus_of_quota(quota.milli_cpus), quota.group);
    }
    if let Some(limit) = &machine.memory_limit {
        let _ = writeln!(text, "  memory limit of {} MiB (cgroup {})", limit.bytes >> 20, limit.group);
    }
    if let Some(reason) = machine.scheduling.as_ref().and_then(low_priority) {
        let _ = writeln!(text, "  the runner has {reason}: other programs get CPU time first");
    }
    match power {
        Ok(Some(readings)) => {
            let rails: Vec<String> = readings.rails.iter().map(rail).collect();
            let _ = writeln!(text, "  power, in mW ({}): {}", readings.driver, rails.join(", "));
        }
        Ok(None) => {}
        Err(why) => {
            let _ = writeln!(text, "  power: {why}");
        }
    }
    if let Some(pending) = pending {
        let _ = writeln!(
            text,
            "  changed by {} and not yet restored to {}; the next session restores it, or run `boards --restore NAME` now",
            pending.by,
            settings(&pending.found)
        );
    }
    text
}

fn clock_line(clock: &Clock) -> String {
    let mut line = limits(ClockLimits { min_hz: clock.min_hz, max_hz: clock.max_hz });
    if let Some(governor) = &clock.governor {
        let _ = write!(line, " ({governor})");
    }
    if let Some(hz) = clock.current_hz {
        let _ = write!(line, ", now {} MHz", megahertz(hz));
    }
    line
}

/// The mean power of a rail.
fn rail(readings: &RailReadings) -> String {
    let products: Vec<f64> = if readings.milliwatts.is_empty() {
        let pairs = readings.millivolts.iter().zip(&readings.milliamperes);
        pairs.map(|(millivolts, milliamperes)| *millivolts as f64 * *milliamperes as f64 / 1000.0).collect()
    } else {
        readings.milliwatts.iter().map(|milliwatts| *milliwatts as f64).collect()
    };
    let counted = readings.microjoules.first().zip(readings.microjoules.last());
    let times = readings.begun_ns.first().zip(readings.begun_ns.last());
    if let (Some((first, last)), Some((begun, ended))) = (counted, times)
        && ended > begun
        && last >= first
    {
        return format!("{} {:.0}", readings.name, (last - first) as f64 / ((ended - begun) as f64 / 1e6));
    }
    if products.is_empty() {
        return format!("{} unknown", readings.name);
    }
    format!("{} {:.0}", readings.name, products.iter().sum::<f64>() / products.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::{CpuLimit, Temperature};

    /// A TX2 in its default mode.
    fn tx2() -> MachineState {
        let mut machine = fixture::machine();
        let cpu = machine.cpus[0].clone();
        machine.cpus = (0..6)
            .map(|id| crate::Cpu {
                id,
                online: !(1..3).contains(&id),
                isolated: (1..3).contains(&id),
                governor: Some("schedutil".to_owned()),
                min_khz: Some(345_600),
                max_khz: Some(if id == 0 { 2_035_200 } else { 1_996_800 }),
                current_khz: Some(345_600),
                ..cpu.clone()
            })
            .collect();
        let clock = |min_hz, max_hz| Clock { min_hz, max_hz, current_hz: Some(min_hz), governor: None };
        machine.power_mode = Some(PowerMode { id: 3, name: "MAXP_CORE_ARM".to_owned() });
        machine.gpu =
            Some(Clock { governor: Some("nvhost_podgov".to_owned()), ..clock(114_750_000, 1_122_000_000) });
        machine.emc = Some(clock(1_600_000_000, 1_600_000_000));
        let zone = |zone: &str, milli_celsius| Temperature { zone: zone.to_owned(), milli_celsius };
        machine.temperatures = vec![zone("BCPU-therm", 41_500), zone("PMIC-Die", 100_000)];
        machine.silent_zones = vec![crate::SilentZone {
            zone: "GPU-therm".to_owned(),
            reason: "does not answer within 1 s".to_owned(),
        }];
        let group = || "/machine/box".to_owned();
        machine.cpu_quota = Some(crate::CpuQuota { group: group(), milli_cpus: 1300 });
        machine.memory_limit = Some(crate::MemoryLimit { group: group(), bytes: 512 << 20 });
        machine.scheduling = Some(Scheduling { policy: Policy::Idle, nice: 19, weight: None });
        machine
    }

    #[test]
    fn everything_is_shown() {
        let rail = |name: &str, milliwatts: &[i64], millivolts: &[i64], milliamperes: &[i64]| RailReadings {
            name: name.to_owned(),
            milliwatts: milliwatts.to_vec(),
            millivolts: millivolts.to_vec(),
            milliamperes: milliamperes.to_vec(),
            ..RailReadings::default()
        };
        let power = PowerReadings {
            driver: "ina3221x by IIO".to_owned(),
            total: "VDD_IN".to_owned(),
            rails: vec![
                rail("VDD_IN", &[3000, 3100], &[], &[]),
                rail("VDD_SYS_CPU", &[], &[19_000], &[20]),
                rail("VDD_SYS_GPU", &[], &[], &[]),
            ],
            cpu_ns: 0,
        };
        let machine = tx2();
        let requested = StateRequest {
            sysfs: "/sys".to_owned(),
            nvpmodel: Some(0),
            jetson_clocks: Some(true),
            governor: None,
            cpu_limits: vec![],
            gpu_max_hz: None,
            memory_hz: None,
        };
        let found = Settings::from(&machine);
        let pending = SavedState {
            version: 1,
            by: "process 7 (bench) of anna".to_owned(),
            boot: None,
            request: requested.clone(),
            found,
            governors: vec![],
            cpu_limits: vec![],
            gpu_limits: None,
            memory_clock: None,
        };
        insta::assert_snapshot!(state(&machine, Ok(Some(&power)), Some(&pending)));
        assert_eq!(request(&requested), "power mode 0, clocks pinned");
        let limit = CpuLimit { cpus: vec![0, 3], max_khz: 1_113_600 };
        let point = StateRequest {
            cpu_limits: vec![limit],
            gpu_max_hz: Some(624_750_000),
            memory_hz: Some(408_000_000),
            ..requested
        };
        assert_eq!(
            request(&point),
            "power mode 0, clocks pinned, CPUs 0,3 at most 1113.6 MHz, GPU at most 624.8 MHz, memory clock at 408 MHz"
        );
        let cpu = "/sys/devices/system/cpu/cpu";
        let file = |end| format!("{cpu}0/cpufreq/scaling_{end}_freq {cpu}3/cpufreq/scaling_{end}_freq");
        let write = |value, files| format!("for file in {files}; do echo {value} | sudo tee $file; done");
        assert_eq!(
            commands(&point),
            [
                "sudo nvpmodel -m 0".to_owned(),
                "sudo jetson_clocks".to_owned(),
                write(1_113_600, file("min")),
                write(1_113_600, file("max")),
                write(624_750_000, "/sys/class/devfreq/*.g*/min_freq".to_owned()),
                write(624_750_000, "/sys/class/devfreq/*.g*/max_freq".to_owned()),
                "echo 1 | sudo tee /sys/kernel/debug/bpmp/debug/clk/emc/mrq_rate_locked".to_owned(),
                "echo 408000000 | sudo tee /sys/kernel/debug/bpmp/debug/clk/emc/rate".to_owned(),
            ]
        );
        assert_eq!(
            commands(&StateRequest {
                jetson_clocks: None,
                nvpmodel: None,
                governor: Some("powersave".to_owned()),
                gpu_max_hz: None,
                memory_hz: None,
                ..point
            }),
            [
                format!(
                    "for file in {cpu}[0-9]*/cpufreq/scaling_governor; do echo powersave | sudo tee $file; done"
                ),
                write(1_113_600, file("max"))
            ]
        );
    }

    #[test]
    fn an_unknown_machine_has_a_short_text() {
        let mut machine = fixture::machine_without_frequencies();
        machine.cpus.truncate(1);
        assert_eq!(state(&machine, Err("not read"), None), "  CPU 0 online\n  power: not read\n");
        assert_eq!(settings(&Settings::from(&machine)), "no known settings");
    }
}
