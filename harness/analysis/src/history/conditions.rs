//! The conditions under which runs are comparable, and the circumstances that may change between comparable runs.

use super::rows::Condition;
use protocol::text;
use std::collections::BTreeSet;
use store::{NetworkRecord, StoredRun};

/// Conditions that most machines do not have.
const CPU_QUOTA: &str = "CPU quota";
const PRIORITY: &str = "priority";

/// What must be equal for two runs to be comparable.
pub(super) fn conditions(run: &StoredRun, network: &NetworkRecord) -> Vec<Condition> {
    let (start, machine) = (&run.start, &run.start.machine);
    let processors: Vec<String> = start
        .processors
        .iter()
        .map(|processor| {
            let cpus: Vec<String> = processor.cpus.iter().map(ToString::to_string).collect();
            let threads = if processor.threads == 1 { "thread" } else { "threads" };
            let plural = if cpus.len() == 1 { "" } else { "s" };
            let (name, count) = (&processor.name, processor.threads);
            format!("{name} ({count} {threads} on CPU{plural} {})", cpus.join(" "))
        })
        .collect();
    let condition = |name: &str, value: Option<String>| Condition { name: name.to_owned(), value };
    vec![
        condition("model", machine.model.clone()),
        condition("CPU", machine.cpu_model.clone()),
        condition("architecture", Some(machine.arch.clone())),
        condition("processors", Some(processors.join(", "))),
        condition(CPU_QUOTA, text::quota(machine)),
        condition(PRIORITY, text::priority(machine)),
        condition("TVM", start.versions.tvm.clone()),
        condition("LLVM", start.versions.llvm.clone()),
        condition("network", Some(network.sha256.chars().take(12).collect())),
    ]
}

/// The conditions that differ, each with the old and the new value.
pub(super) fn differences(before: &[Condition], now: &[Condition]) -> Vec<String> {
    before
        .iter()
        .zip(now)
        .filter(|(before, now)| before != now)
        .map(|(before, now)| changed(&now.name, before.value.as_deref(), now.value.as_deref()))
        .collect()
}

/// What else is reported if it changes.
pub(super) fn circumstances(run: &StoredRun, schedule: &str) -> Vec<Condition> {
    let (start, versions) = (&run.start, &run.start.versions);
    let used: BTreeSet<u32> =
        start.processors.iter().flat_map(|processor| &processor.cpus).copied().collect();
    let cpus = start.machine.cpus.iter().filter(|cpu| used.contains(&cpu.id));
    let governors: BTreeSet<&str> = cpus.filter_map(|cpu| cpu.governor.as_deref()).collect();
    let governors: Vec<&str> = governors.into_iter().collect();
    let condition = |name: &str, value: Option<String>| Condition { name: name.to_owned(), value };
    vec![
        condition("schedule", Some(schedule.to_owned())),
        condition("experiment", Some(start.experiment.clone())),
        condition("harness", Some(versions.harness.clone())),
        condition("runner", versions.runner.clone()),
        condition("protocol", Some(versions.protocol.to_string())),
        condition("Python", versions.python.clone()),
        condition("host", Some(start.host.clone())),
        condition("kernel", Some(start.machine.kernel.clone())),
        condition("governor", (!governors.is_empty()).then(|| governors.join(", "))),
    ]
}

fn changed(name: &str, before: Option<&str>, now: Option<&str>) -> String {
    let absent = if [CPU_QUOTA, PRIORITY].contains(&name) { "none" } else { "unknown" };
    format!("{name} {} → {}", before.unwrap_or(absent), now.unwrap_or(absent))
}
