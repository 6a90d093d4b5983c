//! Resolves the processors of a board.

use boards;
use compiler::Target;
use config::{self, ProcessorKind, Processors};
use domain::ProcessorName;
use host::exit::{Exit, Failure, Outcome};
use protocol::{Cpu, CpuProcessor, MachineState};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// A named set of CPUs with its compiler target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Processor {
    /// Its name in schedules.
    pub name: ProcessorName,
    /// CPU numbers.
    pub cpus: Vec<u32>,
    /// Threads of a stage.
    pub threads: u32,
    /// What is compiled for it.
    pub target: Target,
}

impl Processor {
    /// The processor as the runner takes it.
    pub fn message(&self) -> protocol::Processor {
        protocol::Processor::Cpu(CpuProcessor {
            name: self.name.to_string(),
            cpus: self.cpus.clone(),
            threads: self.threads,
        })
    }
}

/// The processors that the board's file lists, without its GPUs (see [`left_out`]), or those found on the machine.
///
/// # Errors
/// If there is none, or a listed CPU cannot be used.
pub fn resolve(board: &config::Board, machine: &MachineState) -> Outcome<Vec<Processor>> {
    let make = |name: &str, cpus: Vec<u32>, threads, mcpu: Option<&str>| Processor {
        name: ProcessorName::new(name),
        target: Target::detect(machine, &cpus, threads, mcpu),
        cpus,
        threads,
    };
    match &board.processors {
        Processors::Auto => {
            let found = boards::detect(machine).map_err(|error| Failure {
                exit: Exit::Board,
                error: anyhow::Error::from(error).context(format!("board {}", board.name)),
            })?;
            Ok(found.into_iter().map(|found| make(&found.name, found.cpus, found.threads, None)).collect())
        }
        Processors::Listed(listed) => {
            let mut found = Vec::new();
            for processor in listed {
                let ProcessorKind::Cpu { cpus, threads, mcpu } = &processor.kind else { continue };
                check_cpus(board, &processor.name, cpus, machine)?;
                found.push(make(&processor.name, cpus.clone(), *threads, mcpu.as_deref()));
            }
            if found.is_empty() {
                return Err(Failure::new(
                    Exit::Usage,
                    format!(
                        "failed to find a usable processor of the board {}: its file lists only GPUs, and this version has no \
                         CUDA engine; list its CPUs as a processor too",
                        board.name
                    ),
                ));
            }
            Ok(found)
        }
    }
}

/// A note about listed processors that this version cannot use, if there are any.
pub fn left_out(board: &config::Board) -> Option<String> {
    let gpus = board.gpus();
    (!gpus.is_empty()).then(|| {
        format!("{}: not used in any schedule, because this version has no CUDA engine", gpus.join(", "))
    })
}

fn check_cpus(board: &config::Board, processor: &str, cpus: &[u32], machine: &MachineState) -> Outcome<()> {
    for cpu in cpus {
        let known = machine.cpus.iter().find(|known| known.id == *cpu);
        let usable = |cpu: &Cpu| cpu.online && (cpu.isolated || machine.allowed_cpus.contains(&cpu.id));
        let why = match known {
            // A CPU isolated by `isolcpus` is not in the allowed set, but threads can be bound to it.
            Some(known) if usable(known) => continue,
            Some(known) if known.online => "the runner may not use it (see the cpuset of its cgroup)",
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
    match resolve(board, machine) {
        Ok(processors) => {
            for processor in processors {
                let target = &processor.target;
                let _ = writeln!(
                    text,
                    "  {}: CPUs {:?}, {} thread(s), {} for {}",
                    processor.name, processor.cpus, processor.threads, target.isa, target.mcpu
                );
            }
        }
        Err(failure) => {
            let _ = writeln!(text, "  {failure}");
        }
    }
    if let Some(note) = left_out(board) {
        let _ = writeln!(text, "  {note}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn isolated_cpus_are_usable_and_offline_ones_an_error_with_a_remedy() {
        let a57 = "a57: { cpus: [0] }";
        let found = resolve(
            &board(&format!("{a57}, denver: {{ cpus: [1] }}, gpu: {{ cuda: {{ arch: sm_62 }} }}")),
            &machine(),
        );
        let names: Vec<String> = found.unwrap().iter().map(|found| found.name.to_string()).collect();
        assert_eq!(names, ["a57", "denver"]);
        for (cpu, said) in
            [(2, "it is offline; choose a power mode that has it"), (7, "there is no such CPU")]
        {
            let failure =
                resolve(&board(&format!("{a57}, denver: {{ cpus: [{cpu}] }}")), &machine()).unwrap_err();
            assert_eq!(failure.exit, Exit::Board);
            assert!(
                failure.to_string().contains(said) && failure.to_string().ends_with("usable CPUs: 0, 1"),
                "{failure}"
            );
        }
        let failure = resolve(&board("gpu: { cuda: { arch: sm_62 } }"), &machine()).unwrap_err();
        assert!(failure.exit == Exit::Usage && failure.to_string().contains("lists only GPUs"), "{failure}");
    }
}
