//! The processors of a board as the campaign uses them.

use crate::boards;
use crate::compiler::Target;
use crate::config::{self, ProcessorUnit, Processors};
use crate::exit::{Exit, Failure, Outcome};
use domain::ProcessorName;
use protocol::{Binding, MachineState};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// A named set of CPUs and what is compiled for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Processor {
    /// Its name.
    pub name: ProcessorName,
    /// Its CPUs.
    pub cpus: Vec<u32>,
    /// Threads of a stage on it.
    pub threads: u32,
    /// What the compiler is told of it.
    pub target: Target,
}

impl Processor {
    /// The same in the runner's words.
    pub fn binding(&self) -> Binding {
        Binding { processor: self.name.to_string(), cpus: self.cpus.clone(), threads: self.threads }
    }
}

/// The processors a board file lists, or those found on the machine.
///
/// # Errors
/// Where none can be found, a listed CPU is not there, or the runner has no engine for one.
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
        Processors::Listed(listed) => listed
            .iter()
            .map(|processor| match &processor.unit {
                ProcessorUnit::Cuda { arch } => Err(Failure::new(
                    Exit::Usage,
                    format!(
                        "failed to use the processor {} of the board {}: this version has no engine for CUDA \
                         ({arch}); leave it out of the board file",
                        processor.name, board.name
                    ),
                )),
                ProcessorUnit::Cpus { cpus, threads, mcpu } => {
                    check_cpus(board, &processor.name, cpus, machine)?;
                    Ok(make(&processor.name, cpus.clone(), *threads, mcpu.as_deref()))
                }
            })
            .collect(),
    }
}

fn check_cpus(board: &config::Board, processor: &str, cpus: &[u32], machine: &MachineState) -> Outcome<()> {
    for cpu in cpus {
        let online = machine.cpus.iter().any(|known| known.id == *cpu && known.online);
        if online && machine.allowed_cpus.contains(cpu) {
            continue;
        }
        let why = if online { "this process may not run on it" } else { "it is not there or offline" };
        let usable: Vec<String> = machine.allowed_cpus.iter().map(u32::to_string).collect();
        return Err(Failure::new(
            Exit::Board,
            format!(
                "failed to use CPU {cpu} of the processor {processor} on the board {}: {why}; usable are {}",
                board.name,
                usable.join(", ")
            ),
        ));
    }
    Ok(())
}

/// A board's machine and processors, in words.
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
    text
}
