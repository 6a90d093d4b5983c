//! Which run it is, and what it was measured on.

use super::rows::{
    GpuSection, MachineSection, PowerCycleSection, ProcessorSection, RunSection, StateSection,
};
use super::stored_settings::StoredSettings;
use domain::{ProcessorKind, QueueLength, cuda_release};
use host::date::Date;
use protocol::text;
use std::collections::BTreeSet;
use store::{PowerCycleRecord, ProcessorRecord, StoredRun};

pub(super) fn run(run: &StoredRun) -> RunSection {
    let start = &run.start;
    let settings = StoredSettings::of(&start.configuration);
    RunSection {
        id: start.id.to_string(),
        status: run.status.to_string(),
        ended_because: run.ended_because.clone(),
        experiment: start.experiment.clone(),
        board: start.board.clone(),
        place: settings.place,
        boards: Vec::new(),
        begun: Date::from_unix_ns(start.begun_unix_ns).to_string(),
        ended: run.ended_unix_ns.map(|ns| Date::from_unix_ns(ns).to_string()),
        command: start.command.clone(),
        trials_planned: start.rounds,
        seed: start.seed,
        harness: start.versions.harness.clone(),
        runner: start.versions.runner.clone(),
        tvm: start.versions.tvm.clone(),
        revision: start.revision.as_ref().map(|revision| revision.commit.clone()),
        revision_absent: start.provenance.get("git_absent").and_then(|why| why.as_str()).map(str::to_owned),
        dirty: start.revision.as_ref().map(|revision| revision.dirty),
        precision_asked: settings.precision,
        precision_reached: None,
        fed: settings.fed,
        queue_depth: settings.queue_depth.and_then(QueueLength::places),
        injected: settings
            .slow_down
            .map(|(processor, percent)| format!("{processor} made {percent} % slower")),
        power_cycles: run.power_cycles.iter().map(power_cycle).collect(),
    }
}

fn power_cycle(cycle: &PowerCycleRecord) -> PowerCycleSection {
    let at = Date::from_unix_ns(cycle.unix_ns).to_string();
    PowerCycleSection { at, place: cycle.place.clone(), reason: cycle.reason.clone() }
}

pub(super) fn machine(run: &StoredRun) -> MachineSection {
    let (start, machine) = (&run.start, &run.start.machine);
    let used: BTreeSet<u32> =
        start.processors.iter().flat_map(|processor| processor.kind.thread_cpus().iter().copied()).collect();
    let governors: BTreeSet<&str> = machine
        .cpus
        .iter()
        .filter(|cpu| used.contains(&cpu.id))
        .filter_map(|cpu| cpu.governor.as_deref())
        .collect();
    let processors = start.processors.iter().map(|processor| section(processor, &start.processors));
    MachineSection {
        host: start.host.clone(),
        model: machine.model.clone(),
        cpu: machine.cpu_model.clone(),
        arch: machine.arch.clone(),
        os: machine.os.clone(),
        kernel: machine.kernel.clone(),
        governor: (!governors.is_empty()).then(|| governors.into_iter().collect::<Vec<_>>().join(", ")),
        memory_bytes: machine.memory_bytes,
        processors: processors.collect(),
        left_out: left_out(run),
        power_mode: machine.power_mode.as_ref().map(text::mode),
        state: start.state.as_ref().map(|state| StateSection {
            asked: text::request(&state.asked),
            found: text::settings(&state.brought.found),
            set: text::settings(&state.brought.set),
            leftover_of: state.brought.leftover.as_ref().map(|pending| pending.by.clone()),
        }),
    }
}

fn section(processor: &ProcessorRecord, all: &[ProcessorRecord]) -> ProcessorSection {
    let cpus = processor.kind.thread_cpus();
    let shares = |other: &&ProcessorRecord| {
        processor.kind.is_gpu()
            && !other.is_merged()
            && other.kind.compute_cpus().iter().any(|cpu| cpus.contains(cpu))
    };
    let gpu = match (&processor.kind, &processor.gpu) {
        (ProcessorKind::Cuda { arch, device, .. }, Some(gpu)) => Some(GpuSection {
            device: *device,
            model: gpu.device.name.clone(),
            compute_capability: gpu.device.arch.clone(),
            code: arch.to_string(),
            memory_bytes: gpu.device.memory_bytes,
            multiprocessors: gpu.device.multiprocessors,
            driver: gpu.driver_path.clone(),
            driver_cuda: cuda_release(gpu.driver_version),
            emulated: gpu.emulated,
            shares_cpus_with: all.iter().filter(shares).map(|other| other.name.clone()).collect(),
        }),
        _ => None,
    };
    ProcessorSection {
        name: processor.name.clone(),
        cpus: cpus.to_vec(),
        threads: processor.kind.threads(),
        gpu,
    }
}

/// GPUs of the board that are not processors of the run: versions before GPUs were supported left them out.
fn left_out(run: &StoredRun) -> Vec<String> {
    let used = |name: &String| run.start.processors.iter().any(|processor| processor.name == *name);
    StoredSettings::of(&run.start.configuration).gpus.into_iter().filter(|name| !used(name)).collect()
}
