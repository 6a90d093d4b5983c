//! The conditions under which runs are comparable, and the circumstances that may change between comparable runs.

use super::rows::Condition;
use crate::ScheduleFigures;
use crate::stored_settings::StoredSettings;
use domain::{ProcessorKind, cuda_release};
use protocol::text;
use std::collections::BTreeSet;
use store::{NetworkRecord, PRECISION, StoredRun, WINOGRAD};

/// Conditions that most machines do not have.
const CPU_QUOTA: &str = "CPU quota";
const PRIORITY: &str = "priority";
const GPU_DRIVER: &str = "GPU driver";
const LOAD: &str = "load";
const FRAMES: &str = "frames";
const PICTURES: &str = "pictures";
const PLACE: &str = "place on a farm";

/// What must be equal for two runs to be comparable.
pub(super) fn conditions(run: &StoredRun, network: &NetworkRecord) -> Vec<Condition> {
    let (start, machine) = (&run.start, &run.start.machine);
    let processors: Vec<String> = start
        .processors
        .iter()
        .filter(|processor| !processor.is_merged())
        .map(|processor| {
            let name = &processor.name;
            match (&processor.kind, &processor.gpu) {
                (ProcessorKind::Cpu { cpus, threads, .. }, _) => {
                    let plural = if *threads == 1 { "thread" } else { "threads" };
                    format!("{name} ({threads} {plural} on {})", numbered(cpus))
                }
                (ProcessorKind::Cuda { arch, host_cpus, .. }, gpu) => {
                    let model = gpu.as_ref().map_or("unknown GPU", |gpu| gpu.device.name.as_str());
                    format!("{name} ({model} with code for {arch}, fed by {})", numbered(host_cpus))
                }
            }
        })
        .collect();
    let settings = StoredSettings::of(&start.configuration);
    let mut rules = settings.pictures.into_iter();
    let rule = rules.find(|(of, _)| of == network.network.name()).map(|(_, rule)| rule);
    let condition = |name: &str, value: Option<String>| Condition { name: name.to_owned(), value };
    vec![
        condition(PLACE, settings.place),
        condition("model", machine.model.clone()),
        condition("CPU", machine.cpu_model.clone()),
        condition("architecture", Some(machine.arch.clone())),
        condition("processors", Some(processors.join(", "))),
        condition(GPU_DRIVER, gpu_driver(run)),
        condition(CPU_QUOTA, text::quota(machine)),
        condition(PRIORITY, text::priority(machine)),
        condition(
            LOAD,
            Some(settings.load).filter(|load| !load.is_saturating()).map(|load| load.to_string()),
        ),
        condition(FRAMES, settings.fed.or(settings.random)),
        condition(PICTURES, rule),
        condition("TVM", start.versions.tvm.clone()),
        condition("LLVM", start.versions.llvm.clone()),
        condition("network", Some(network.sha256.chars().take(12).collect())),
        condition(PRECISION, (!network.precision().is_single()).then(|| network.precision().to_string())),
        condition(WINOGRAD, (!network.winograd().is_auto()).then(|| network.winograd().to_string())),
    ]
}

fn numbered(cpus: &[u32]) -> String {
    let words: Vec<String> = cpus.iter().map(ToString::to_string).collect();
    format!("CPU{} {}", if cpus.len() == 1 { "" } else { "s" }, words.join(" "))
}

/// The release that the driver of the GPUs supports, and whether it is emulated; `None` without a GPU.
fn gpu_driver(run: &StoredRun) -> Option<String> {
    let gpu = run.start.processors.iter().find_map(|processor| processor.gpu.as_ref())?;
    Some(format!("CUDA {}{}", cuda_release(gpu.driver_version), if gpu.emulated { ", emulated" } else { "" }))
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
pub(super) fn circumstances(run: &StoredRun, figures: &ScheduleFigures) -> Vec<Condition> {
    let (start, versions) = (&run.start, &run.start.versions);
    let used: BTreeSet<u32> =
        start.processors.iter().flat_map(|processor| processor.kind.thread_cpus()).copied().collect();
    let cpus = start.machine.cpus.iter().filter(|cpu| used.contains(&cpu.id));
    let governors: BTreeSet<&str> = cpus.filter_map(|cpu| cpu.governor.as_deref()).collect();
    let governors: Vec<&str> = governors.into_iter().collect();
    let condition = |name: &str, value: Option<String>| Condition { name: name.to_owned(), value };
    vec![
        condition("schedule", Some(figures.label.clone())),
        condition("queues", figures.queue_lengths()),
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
    let absent = match name {
        CPU_QUOTA | PRIORITY | GPU_DRIVER | PLACE => "none",
        PRECISION => "fp32",
        WINOGRAD => "auto",
        LOAD => "saturating",
        FRAMES => "random",
        PICTURES => "default",
        _ => "unknown",
    };
    format!("{name} {} → {}", before.unwrap_or(absent), now.unwrap_or(absent))
}
