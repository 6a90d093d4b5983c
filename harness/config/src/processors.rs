//! The processors of a board.

use domain::CudaArch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::faults::Faults;
use super::ordered::Ordered;
use super::tree::Node;
use super::typed;
use super::values::{Auto, CudaArchName, NAME, Name};

/// Words that schedules use in place of a processor's name.
pub(super) const RESERVED: [&str; 3] = ["all", "auto", "each"];

/// The processors of a board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Notation", into = "Notation")]
pub enum Processors {
    /// Detected on the board.
    Auto,
    /// In the order of the file; never empty, names unique, no CPU in two of them.
    Listed(Vec<Processor>),
}

/// A named processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    /// Its name.
    pub name: String,
    /// CPUs or a GPU.
    pub spec: ProcessorSpec,
}

/// CPUs or a GPU, as the file describes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessorSpec {
    /// A set of CPUs.
    Cpu {
        /// CPU numbers of the kernel; never empty, no duplicates.
        cpus: Vec<u32>,
        /// Threads of a stage, from 1 to the number of CPUs.
        threads: u32,
        /// LLVM name of the CPU to compile for; `None`: detected on the board.
        mcpu: Option<String>,
    },
    /// An NVIDIA GPU.
    Cuda {
        /// Architecture to compile for; `None`: that of the device.
        arch: Option<CudaArch>,
        /// Index of the device in the CUDA driver.
        device: u32,
        /// CPUs of the thread that feeds the GPU, no duplicates; `None`: chosen on the board.
        host_cpus: Option<Vec<u32>>,
    },
}

/// The processors of a board.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Processors")]
pub(super) enum Notation {
    /// `auto`: detected on the board.
    Auto(Auto),
    /// By name.
    Listed(#[schemars(extend("minProperties" = 1, "propertyNames" = { "pattern": NAME }))] Ordered<Entry>),
}

/// A processor: CPUs, or a GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Processor")]
pub(super) struct Entry {
    /// CPU numbers of the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), inner(range(max = 4095)), extend("uniqueItems" = true))]
    cpus: Option<Vec<u32>>,
    /// Threads of a stage. Default: one per CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    threads: Option<u32>,
    /// LLVM name of the CPU to compile for. Default: detected on the board.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Name>")]
    mcpu: Option<String>,
    /// A GPU instead of CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cuda: Option<Cuda>,
}

/// An NVIDIA GPU. `cuda: { device: 0 }` is the first one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Cuda {
    /// Architecture to compile for. Default: that of the device, or the newest known one that the device runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<CudaArchName>")]
    arch: Option<String>,
    /// Index of the device in the CUDA driver. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 63))]
    device: Option<u32>,
    /// CPUs of the thread that feeds the GPU; other processors may use them too. Default: CPUs that no other processor uses;
    /// if there are none, those of the processor with the slowest CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), inner(range(max = 4095)), extend("uniqueItems" = true))]
    host_cpus: Option<Vec<u32>>,
}

impl Cuda {
    fn device(&self) -> u32 {
        self.device.unwrap_or(0)
    }
}

/// Reports what the schema cannot express. `board` is the board's tree.
pub(super) fn check(board: &Node, faults: &mut Faults) {
    let Some(tree) = board.get("processors") else { return };
    let Ok(Notation::Listed(Ordered(listed))) = typed::read::<Notation>(tree) else { return };
    for (index, (name, entry)) in listed.iter().enumerate() {
        let at = tree
            .entries()
            .iter()
            .find(|entry| entry.key == *name)
            .map_or_else(|| tree.at.clone(), |entry| entry.key_at.clone());
        let spot = |key: &str| tree.spot(&format!("{name}/{key}"));
        if RESERVED.contains(&name.as_str()) {
            faults.add(&at, format!("{name:?} is a keyword of schedules; choose another name"));
        }
        match (&entry.cpus, &entry.cuda) {
            (Some(cpus), None) => {
                if let Some(threads) = entry.threads.filter(|threads| *threads as usize > cpus.len()) {
                    let message =
                        format!("{threads} threads on {} CPUs; expected at most one per CPU", cpus.len());
                    faults.add(&spot("threads"), message);
                }
                for (place, cpu) in cpus.iter().enumerate() {
                    let has = |entry: &Entry| entry.cpus.as_ref().is_some_and(|cpus| cpus.contains(cpu));
                    if let Some((owner, _)) = listed.iter().take(index).find(|(_, entry)| has(entry)) {
                        let message = format!("CPU {cpu} already belongs to processor {owner:?}");
                        faults.add(&spot(&format!("cpus/{place}")), message);
                    }
                }
            }
            (None, Some(cuda)) => {
                if let Some(Err(error)) = cuda.arch.as_ref().map(|arch| arch.parse::<CudaArch>()) {
                    faults.add(&spot("cuda/arch"), error);
                }
                let has =
                    |entry: &Entry| entry.cuda.as_ref().is_some_and(|other| other.device() == cuda.device());
                if let Some((owner, _)) = listed.iter().take(index).find(|(_, entry)| has(entry)) {
                    let message = format!("GPU {} already belongs to processor {owner:?}", cuda.device());
                    let at = if cuda.device.is_some() { spot("cuda/device") } else { at.clone() };
                    faults.add(&at, message);
                }
                for (key, given) in [("threads", entry.threads.is_some()), ("mcpu", entry.mcpu.is_some())] {
                    if given {
                        let message =
                            format!("{key:?} applies to CPUs only and {name:?} is a GPU; remove it");
                        faults.add(&spot(key), message);
                    }
                }
            }
            (Some(_), Some(_)) => {
                faults.add(&at, format!("{name:?} has both cpus and cuda; split it into two processors"));
            }
            (None, None) => faults.add(&at, format!("{name:?} has neither cpus nor cuda; add one of them")),
        }
    }
}

impl TryFrom<Notation> for Processors {
    type Error = String;

    fn try_from(notation: Notation) -> Result<Self, String> {
        let Notation::Listed(Ordered(listed)) = notation else { return Ok(Self::Auto) };
        let processor = |(name, entry): (String, Entry)| {
            let spec = match (entry.cpus, entry.cuda) {
                (Some(cpus), None) => {
                    let count = u32::try_from(cpus.len()).unwrap_or(u32::MAX);
                    ProcessorSpec::Cpu { cpus, threads: entry.threads.unwrap_or(count), mcpu: entry.mcpu }
                }
                (None, Some(cuda)) => ProcessorSpec::Cuda {
                    device: cuda.device(),
                    arch: cuda.arch.map(|arch| arch.parse()).transpose()?,
                    host_cpus: cuda.host_cpus,
                },
                _ => return Err(format!("{name:?} must have either cpus or cuda")),
            };
            Ok(Processor { name, spec })
        };
        listed.into_iter().map(processor).collect::<Result<_, _>>().map(Self::Listed)
    }
}

impl From<Processors> for Notation {
    fn from(processors: Processors) -> Self {
        let Processors::Listed(listed) = processors else { return Self::Auto(Auto::Auto) };
        let entry = |processor: Processor| {
            let entry = match processor.spec {
                ProcessorSpec::Cpu { cpus, threads, mcpu } => {
                    Entry { cpus: Some(cpus), threads: Some(threads), mcpu, cuda: None }
                }
                ProcessorSpec::Cuda { arch, device, host_cpus } => {
                    let arch = arch.map(|arch| arch.to_string());
                    let cuda = Some(Cuda { arch, device: Some(device), host_cpus });
                    Entry { cpus: None, threads: None, mcpu: None, cuda }
                }
            };
            (processor.name, entry)
        };
        Self::Listed(Ordered(listed.into_iter().map(entry).collect()))
    }
}
