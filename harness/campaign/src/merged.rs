//! Merged processors: the CPUs of several processors as one, for the schedules that name them.

use crate::processors::Processor;
use config::ScheduleSpec;
use domain::{ProcessorKind, ProcessorName};
use host::exit::{Exit, Failure, Outcome};
use protocol::MachineState;

/// The merged processors that schedules use, each once. `processors` are those of the board.
///
/// # Errors
/// If one of the parts is a GPU.
pub(crate) fn used(
    schedules: &[ScheduleSpec],
    processors: &[Processor],
    machine: &MachineState,
) -> Outcome<Vec<Processor>> {
    let mut names: Vec<ProcessorName> = Vec::new();
    for name in schedules.iter().flat_map(|spec| named(spec, processors)) {
        if name.is_merged() && !names.contains(&name) {
            names.push(name);
        }
    }
    names.iter().map(|name| merge(name, processors, machine)).collect()
}

/// The CPUs of all processors as one, if several have CPUs.
pub(crate) fn all_cpus(processors: &[Processor]) -> Option<ProcessorName> {
    let own = processors.iter().filter(|processor| !processor.kind.is_gpu() && !processor.name.is_merged());
    let name = ProcessorName::merged(own.map(|processor| &processor.name));
    name.is_merged().then_some(name)
}

/// The processors that a schedule names.
fn named(spec: &ScheduleSpec, processors: &[Processor]) -> Vec<ProcessorName> {
    let names = |names: &[String]| -> Vec<ProcessorName> { names.iter().map(ProcessorName::new).collect() };
    match spec {
        ScheduleSpec::MergedAll => all_cpus(processors).into_iter().collect(),
        ScheduleSpec::Merged(parts) => {
            vec![ProcessorName::merged(&names(parts))]
        }
        ScheduleSpec::PipelineAuto { processors: Some(used) } | ScheduleSpec::Replicate(used) => names(used),
        ScheduleSpec::PipelineManual(stages) => {
            stages.iter().flat_map(|stage| names(stage.processor.names())).collect()
        }
        ScheduleSpec::SingleEach
        | ScheduleSpec::Single(_)
        | ScheduleSpec::PipelineAuto { processors: None }
        | ScheduleSpec::ReplicateAll
        | ScheduleSpec::Peer(_) => Vec::new(),
    }
}

/// All CPUs and threads of the parts. If these have different cores, code is compiled for what all 64-bit Arm cores have.
fn merge(name: &ProcessorName, processors: &[Processor], machine: &MachineState) -> Outcome<Processor> {
    let (mut cpus, mut threads, mut mcpus) = (Vec::new(), 0, Vec::new());
    for part in name.parts() {
        let known = processors.iter().find(|processor| processor.name.as_str() == part);
        match known.map(|processor| &processor.kind) {
            Some(ProcessorKind::Cpu { cpus: own, threads: count, mcpu }) => {
                cpus.extend(own);
                threads += count;
                mcpus.push(mcpu.as_deref());
            }
            Some(ProcessorKind::Cuda { .. }) => {
                let message =
                    format!("failed to use {name} as one processor: {part} is a GPU; name CPUs only");
                return Err(Failure::new(Exit::Usage, message));
            }
            None => return Err(Failure::new(Exit::Bug, format!("there is no processor {part}"))),
        }
    }
    mcpus.dedup();
    let mcpu = match mcpus.as_slice() {
        [mcpu] => *mcpu,
        _ => (machine.arch == "aarch64").then_some("generic"),
    };
    Ok(Processor::cpus(machine, name.as_str(), cpus, threads, mcpu))
}

#[cfg(test)]
mod tests {
    use super::*;
    use compiler::Target;
    use store::fixture;

    fn check(schedules: &[ScheduleSpec], mcpus: [&str; 2]) -> Outcome<Vec<(String, ProcessorKind, String)>> {
        let machine = MachineState { arch: "aarch64".to_owned(), ..fixture::machine() };
        let processors = [
            Processor::cpus(&machine, "a57", vec![0, 3, 4, 5], 4, Some(mcpus[0])),
            Processor::cpus(&machine, "denver", vec![1, 2], 2, Some(mcpus[1])),
        ];
        let gpu = Processor {
            name: "gpu".into(),
            kind: ProcessorKind::Cuda { arch: "sm_62".parse().unwrap(), device: 0, host_cpus: vec![0] },
            ..processors[0].clone()
        };
        let all = [&processors[..], &[gpu]].concat();
        let found = used(schedules, &all, &machine)?.into_iter().map(|found| {
            let Target::Cpu(target) = &found.target else { panic!("{found:?}") };
            let target = format!("{}, {} threads", target.mcpu, target.threads);
            (found.name.to_string(), found.kind, target)
        });
        Ok(found.collect())
    }

    #[test]
    fn a_merged_processor_has_the_cpus_and_threads_of_its_parts() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
        let schedules = [
            ScheduleSpec::SingleEach,
            ScheduleSpec::MergedAll,
            ScheduleSpec::Merged(names(&["a57", "denver"])),
            ScheduleSpec::Replicate(names(&["a57+denver", "gpu"])),
        ];
        let found = check(&schedules, ["cortex-a57", "generic"]).unwrap();
        let cpus = vec![0, 3, 4, 5, 1, 2];
        let kind = ProcessorKind::Cpu { cpus, threads: 6, mcpu: Some("generic".to_owned()) };
        assert_eq!(found, [("a57+denver".to_owned(), kind, "generic, 6 threads".to_owned())]);
        let alike = check(&schedules[1..2], ["cortex-a57", "cortex-a57"]).unwrap();
        assert_eq!(alike[0].2, "cortex-a57, 6 threads");
        assert!(check(&schedules[..1], ["generic", "generic"]).unwrap().is_empty());
        let refused =
            check(&[ScheduleSpec::Merged(names(&["a57", "gpu"]))], ["generic", "generic"]).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        assert!(refused.to_string().contains("gpu is a GPU"), "{refused}");
    }
}
