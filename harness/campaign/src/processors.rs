//! Resolves the processors of a board.

use crate::gpus::{RequestedGpu, feeding_cpus};
use boards::DetectError;
use compiler::{CpuTarget, CudaTarget, Target};
use config::{self, ProcessorSpec, Processors};
use domain::{ProcessorKind, ProcessorName, cuda_release};
use host::exit::{Exit, Failure, Outcome};
use protocol::{Cpu, CpuProcessor, CudaProcessor, MachineState, format_cpu_list};
use std::fmt::Write as _;
use store::{GpuRecord, ProcessorRecord};

/// A named processor with its compiler target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    /// Its name in schedules.
    pub name: ProcessorName,
    /// CPUs or a GPU.
    pub kind: ProcessorKind,
    /// What is compiled for it.
    pub target: Target,
    /// The third-level cache of its CPUs, in bytes: the smallest, if they differ. Absent for GPUs, and if a CPU has none.
    pub(crate) l3_bytes: Option<u64>,
    /// The GPU as its driver describes it; absent for CPUs.
    pub gpu: Option<GpuRecord>,
}

impl Processor {
    /// CPUs of a machine; `mcpu` is LLVM's name of the CPU, if the board's file has one.
    pub(crate) fn cpus(
        machine: &MachineState,
        name: &str,
        cpus: Vec<u32>,
        threads: u32,
        mcpu: Option<&str>,
    ) -> Self {
        let target = CpuTarget::detect(machine, &cpus, threads, mcpu);
        let own = machine.cpus.iter().filter(|cpu| cpus.contains(&cpu.id));
        // A CPU without one makes the least `None`.
        let l3_bytes = own.map(|cpu| cpu.l3_bytes).min().flatten();
        Self {
            name: ProcessorName::new(name),
            kind: ProcessorKind::Cpu { cpus, threads, mcpu: Some(target.mcpu.clone()) },
            target: Target::Cpu(target),
            l3_bytes,
            gpu: None,
        }
    }

    /// A GPU of a machine.
    fn gpu(machine: &MachineState, requested: RequestedGpu<'_>, host_cpus: Vec<u32>) -> Outcome<Self> {
        let (arch, gpu) = requested.find(machine)?;
        Ok(Self {
            name: ProcessorName::new(requested.processor),
            kind: ProcessorKind::Cuda { arch, device: requested.device, host_cpus },
            target: Target::Cuda(CudaTarget::new(arch)),
            l3_bytes: None,
            gpu: Some(gpu),
        })
    }

    /// The processor as the runner takes it.
    pub fn message(&self) -> protocol::Processor {
        let name = self.name.to_string();
        match &self.kind {
            ProcessorKind::Cpu { cpus, threads, .. } => {
                protocol::Processor::Cpu(CpuProcessor { name, cpus: cpus.clone(), threads: *threads })
            }
            ProcessorKind::Cuda { arch, device, host_cpus } => protocol::Processor::Cuda(CudaProcessor {
                name,
                device: *device,
                arch: arch.to_string(),
                host_cpus: host_cpus.clone(),
            }),
        }
    }

    /// The processor as a run records it.
    pub(crate) fn record(&self) -> ProcessorRecord {
        ProcessorRecord { name: self.name.to_string(), kind: self.kind.clone(), gpu: self.gpu.clone() }
    }

    /// One line about it, without its name.
    pub(crate) fn describe(&self) -> String {
        match (&self.kind, &self.target, &self.gpu) {
            (ProcessorKind::Cpu { cpus, threads, .. }, Target::Cpu(target), _) => {
                format!("CPUs {cpus:?}, {threads} thread(s), {} for {}", target.isa, target.mcpu)
            }
            (ProcessorKind::Cuda { arch, device, host_cpus }, _, Some(gpu)) => format!(
                "GPU {device} ({}, {}, {} multiprocessors), driver {} for CUDA {}, code for {arch}, fed by CPUs {host_cpus:?}",
                gpu.device.name,
                gpu.device.arch,
                gpu.device.multiprocessors,
                gpu.driver_path,
                cuda_release(gpu.driver_version),
            ),
            (kind, ..) => format!("{kind:?}"),
        }
    }
}

/// The processors that the board's file lists, or those found on the machine. `machine` is a thorough state, without which
/// no GPU is found.
///
/// # Errors
/// If there is none, or a listed CPU or GPU cannot be used.
pub fn resolve(board: &config::Board, machine: &MachineState) -> Outcome<Vec<Processor>> {
    match &board.processors {
        Processors::Auto => detect(board, machine),
        Processors::Listed(listed) => resolve_listed(board, listed, machine).collect(),
    }
}

/// Each processor that the board's file lists, or why it cannot be used.
fn resolve_listed(
    board: &config::Board,
    listed: &[config::Processor],
    machine: &MachineState,
) -> impl Iterator<Item = Outcome<Processor>> {
    let taken: Vec<&[u32]> = listed
        .iter()
        .filter_map(|processor| match &processor.spec {
            ProcessorSpec::Cpu { cpus, .. } => Some(cpus.as_slice()),
            ProcessorSpec::Cuda { .. } => None,
        })
        .collect();
    listed.iter().map(move |processor| match &processor.spec {
        ProcessorSpec::Cpu { cpus, threads, mcpu } => {
            check_cpus(board, &processor.name, cpus, machine)?;
            Ok(Processor::cpus(machine, &processor.name, cpus.clone(), *threads, mcpu.as_deref()))
        }
        ProcessorSpec::Cuda { arch, device, host_cpus } => {
            if let Some(cpus) = host_cpus {
                check_cpus(board, &processor.name, cpus, machine)?;
            }
            let host_cpus = host_cpus.clone().unwrap_or_else(|| feeding_cpus(machine, &taken));
            let (board, name) = (board.name.as_str(), processor.name.as_str());
            let requested = RequestedGpu { board, processor: name, device: *device, arch: *arch };
            Processor::gpu(machine, requested, host_cpus)
        }
    })
}

/// All CPUs and GPUs of a machine. A GPU that cannot be used is left out; [`notes`] gives the reason.
fn detect(board: &config::Board, machine: &MachineState) -> Outcome<Vec<Processor>> {
    let devices = machine.cuda.iter().flat_map(|system| &system.devices);
    let several = devices.clone().count() > 1;
    let names = devices.map(|device| {
        let name = if several { format!("gpu{}", device.index) } else { "gpu".to_owned() };
        (name, device.index)
    });
    let gpus: Vec<_> = names
        .filter(|(name, device)| {
            RequestedGpu { board: &board.name, processor: name, device: *device, arch: None }
                .find(machine)
                .is_ok()
        })
        .collect();
    let mut found: Vec<Processor> = match boards::detect(machine) {
        Ok(found) => {
            let cpus = found.into_iter();
            cpus.map(|found| Processor::cpus(machine, &found.name, found.cpus, found.threads, None)).collect()
        }
        // One CPU beside a GPU is enough for a pipeline.
        Err(DetectError::SingleCpu { cpu, .. }) if !gpus.is_empty() => {
            vec![Processor::cpus(machine, &format!("cpu{cpu}"), vec![cpu], 1, None)]
        }
        Err(error) => {
            let error = anyhow::Error::from(error).context(format!("board {}", board.name));
            return Err(Failure { exit: Exit::Board, error });
        }
    };
    let host_cpus = {
        let taken: Vec<&[u32]> = found.iter().map(|processor| processor.kind.compute_cpus()).collect();
        feeding_cpus(machine, &taken)
    };
    for (name, device) in gpus {
        let requested = RequestedGpu { board: &board.name, processor: &name, device, arch: None };
        found.push(Processor::gpu(machine, requested, host_cpus.clone())?);
    }
    Ok(found)
}

/// Whether the board's file lists a GPU or leaves the processors to be detected, so that a thorough state is needed.
pub(crate) fn may_have_gpus(board: &config::Board) -> bool {
    match &board.processors {
        Processors::Auto => true,
        Processors::Listed(listed) => {
            listed.iter().any(|processor| matches!(processor.spec, ProcessorSpec::Cuda { .. }))
        }
    }
}

/// What the user should know about the processors: CPUs that feed a GPU and compute too, and GPUs that are emulated or not
/// used.
pub fn notes(board: &config::Board, machine: &MachineState, processors: &[Processor]) -> Vec<String> {
    let mut notes = Vec::new();
    for gpu in processors.iter().filter(|processor| processor.kind.is_gpu()) {
        let name = &gpu.name;
        let feeding = gpu.kind.thread_cpus();
        let sharing: Vec<&str> = processors
            .iter()
            .filter(|other| other.kind.compute_cpus().iter().any(|cpu| feeding.contains(cpu)))
            .map(|other| other.name.as_str())
            .collect();
        let cpus = format!("CPU{} {}", if feeding.len() == 1 { "" } else { "s" }, format_cpu_list(feeding));
        notes.push(if sharing.is_empty() {
            format!("a thread on {cpus}, where no processor computes, feeds {name}")
        } else {
            format!(
                "a thread on {cpus} feeds {name}, and {} computes there too; `host_cpus` of {name} in the board's file chooses \
                 other CPUs",
                sharing.join(" and ")
            )
        });
        if gpu.gpu.as_ref().is_some_and(|gpu| gpu.emulated) {
            notes.push(format!(
                "{name} is emulated on CPUs: its outputs are right, but its times are not those of a GPU"
            ));
        }
    }
    if matches!(board.processors, Processors::Auto)
        && let Some(system) = &machine.cuda
    {
        notes.extend(system.problem.iter().map(|problem| {
            format!("a GPU is not used, because the driver {} reports: {problem}", system.driver_path)
        }));
        for device in &system.devices {
            let name = format!("device {}", device.index);
            let requested =
                RequestedGpu { board: &board.name, processor: &name, device: device.index, arch: None };
            notes.extend(requested.find(machine).err().map(|failure| failure.to_string()));
        }
    }
    notes
}

fn check_cpus(board: &config::Board, processor: &str, cpus: &[u32], machine: &MachineState) -> Outcome<()> {
    for cpu in cpus {
        let known = machine.cpus.iter().find(|known| known.id == *cpu);
        let usable = |cpu: &Cpu| cpu.online && (cpu.isolated || machine.allowed_cpus.contains(&cpu.id));
        let why = match known {
            // A CPU isolated by `isolcpus` is not in the allowed set, but threads can be bound to it.
            Some(known) if usable(known) => continue,
            Some(known) if known.online => "the cpuset of the runner's cgroup excludes it",
            Some(_) => {
                "it is offline; choose a power mode that has it (`state: { nvpmodel: … }` in the board's file), or \
                 bring it online"
            }
            None => "there is no such CPU",
        };
        let usable: Vec<String> =
            machine.cpus.iter().filter(|cpu| usable(cpu)).map(|cpu| cpu.id.to_string()).collect();
        return Err(Failure::new(
            Exit::Board,
            format!(
                "failed to use CPU {cpu} of the processor {processor} on the board {}: {why}; usable CPUs: {}",
                board.name,
                usable.join(", ")
            ),
        ));
    }
    Ok(())
}

/// Describes a board's machine and processors for the user.
pub fn describe(board: &config::Board, machine: &MachineState) -> String {
    let mut text = String::new();
    let model = machine.cpu_model.as_deref().or(machine.model.as_deref()).unwrap_or("unknown processor");
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "  {model}, {} CPUs, {} MiB, Linux {}",
        machine.cpus.len(),
        machine.memory_bytes >> 20,
        machine.kernel
    );
    // A processor that cannot be used, such as one whose CPUs the present power mode takes offline, hides no other one.
    let found: Vec<Outcome<Processor>> = match &board.processors {
        Processors::Auto => match detect(board, machine) {
            Ok(found) => found.into_iter().map(Ok).collect(),
            Err(failure) => vec![Err(failure)],
        },
        Processors::Listed(listed) => resolve_listed(board, listed, machine).collect(),
    };
    for processor in &found {
        let _ = match processor {
            Ok(processor) => writeln!(text, "  {}: {}", processor.name, processor.describe()),
            Err(failure) => writeln!(text, "  {failure}"),
        };
    }
    let usable: Vec<Processor> = found.into_iter().flatten().collect();
    for note in notes(board, machine, &usable) {
        let _ = writeln!(text, "  note: {note}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{CudaDevice, CudaSystem};
    use store::fixture;

    /// A board with these processors, in YAML.
    fn board(processors: &str) -> config::Board {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("configs/boards");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("b.yaml"), format!("board: b\nprocessors: {{ {processors} }}\n")).unwrap();
        config::load_board(root.path(), "b").unwrap()
    }

    /// CPU 0 is normal, CPU 1 isolated, CPU 2 offline.
    fn machine() -> MachineState {
        let mut machine = fixture::machine();
        let cpu = machine.cpus[0].clone();
        machine.cpus =
            (0..3).map(|id| Cpu { id, online: id != 2, isolated: id == 1, ..cpu.clone() }).collect();
        machine.allowed_cpus = vec![0];
        machine
    }

    #[test]
    fn a_processor_has_the_smallest_third_level_cache_of_its_cpus_and_none_if_one_lacks_it() {
        let check = |of_cpus: [Option<u64>; 3], wanted: Option<u64>| {
            let mut machine = machine();
            for (cpu, l3_bytes) in machine.cpus.iter_mut().zip(of_cpus) {
                cpu.l3_bytes = l3_bytes;
            }
            assert_eq!(Processor::cpus(&machine, "a57", vec![0, 1], 2, None).l3_bytes, wanted);
        };
        check([Some(8 << 20), Some(4 << 20), None], Some(4 << 20));
        check([Some(8 << 20), None, Some(4 << 20)], None);
    }

    #[test]
    fn isolated_cpus_are_usable_and_offline_ones_an_error_with_a_remedy() {
        let a57 = "a57: { cpus: [0] }";
        let found = resolve(&board(&format!("{a57}, denver: {{ cpus: [1] }}")), &machine());
        let names: Vec<String> = found.unwrap().iter().map(|found| found.name.to_string()).collect();
        assert_eq!(names, ["a57", "denver"]);
        for (processor, said) in [
            ("denver: { cpus: [2] }", "it is offline; choose a power mode that has it"),
            ("denver: { cpus: [7] }", "there is no such CPU"),
            ("gpu: { cuda: { host_cpus: [0, 7] } }", "failed to use CPU 7 of the processor gpu"),
        ] {
            let failure = resolve(&board(&format!("{a57}, {processor}")), &machine()).unwrap_err();
            assert_eq!(failure.exit, Exit::Board);
            assert!(
                failure.to_string().contains(said) && failure.to_string().ends_with("usable CPUs: 0, 1"),
                "{failure}"
            );
        }
    }

    /// The machine with a driver for this GPU.
    fn with_gpu(arch: &str, emulated: bool) -> MachineState {
        let device = CudaDevice { arch: arch.to_owned(), ..fixture::gpu().gpu.unwrap().device };
        let driver_path = "libcuda.so.1".to_owned();
        let cuda = CudaSystem {
            driver_path,
            driver_version: 10_020,
            emulated,
            devices: vec![device],
            problem: None,
        };
        MachineState { cuda: Some(cuda), ..machine() }
    }

    #[test]
    fn a_listed_gpu_is_fed_by_free_cpus_or_as_the_file_says() {
        for (processors, expected, said) in [
            (
                "a57: { cpus: [0] }, gpu: { cuda: { device: 0 } }",
                &[1][..],
                "a thread on CPU 1, where no processor computes, feeds gpu",
            ),
            (
                "a57: { cpus: [0] }, gpu: { cuda: { arch: sm_53, host_cpus: [0, 1] } }",
                &[0, 1],
                "a thread on CPUs 0-1 feeds gpu, and a57 computes there too; `host_cpus`",
            ),
        ] {
            let (board, machine) = (board(processors), with_gpu("sm_62", false));
            let found = resolve(&board, &machine).unwrap();
            let gpu = found.iter().find(|found| found.kind.is_gpu()).unwrap();
            assert_eq!((gpu.kind.thread_cpus(), gpu.kind.compute_cpus()), (expected, &[][..]));
            let protocol::Processor::Cuda(message) = gpu.message() else { panic!("{gpu:?}") };
            assert_eq!(message.host_cpus, expected);
            let notes = notes(&board, &machine, &found);
            assert!(notes.len() == 1 && notes[0].starts_with(said), "{notes:?}");
        }
    }

    #[test]
    fn a_processor_that_cannot_be_used_hides_no_other_one() {
        let board = board("denver: { cpus: [2] }, gpu: { cuda: { host_cpus: [0] } }, a57: { cpus: [0] }");
        let text = describe(&board, &with_gpu("sm_62", true));
        let found: Vec<&str> = text.lines().skip(1).map(str::trim).collect();
        let expected = [
            "failed to use CPU 2 of the processor denver on the board b: it is offline",
            "gpu: GPU 0 (",
            "a57: CPUs [0], 1 thread(s)",
            "note: a thread on CPU 0 feeds gpu, and a57 computes there too",
            "note: gpu is emulated on CPUs",
        ];
        assert!(found.iter().zip(expected).all(|(line, start)| line.starts_with(start)), "{text}");
        assert_eq!(found.len(), expected.len(), "{text}");
    }

    #[test]
    fn a_detected_gpu_is_used_if_its_driver_loads_the_code() {
        let auto = config::Board { processors: Processors::Auto, ..board("a57: { cpus: [0] }") };
        let machine = with_gpu("sm_62", true);
        // The other CPUs are isolated or offline, which only a board's file can choose.
        let found = resolve(&auto, &machine).unwrap();
        let names: Vec<&str> = found.iter().map(|found| found.name.as_str()).collect();
        assert_eq!(names, ["cpu0", "gpu"]);
        assert!(
            notes(&auto, &machine, &found).iter().any(|note| note.starts_with("gpu is emulated on CPUs"))
        );
        let newer = with_gpu("sm_87", false);
        assert!(resolve(&auto, &newer).unwrap_err().to_string().contains("only CPU 0 is usable"));
        let reasons = notes(&auto, &newer, &[]);
        assert!(reasons.len() == 1 && reasons[0].contains("code for sm_87 is PTX 7.4"), "{reasons:?}");
    }
}
