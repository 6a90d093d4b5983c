//! A board as the program uses it.

use std::path::Path;

use super::faults::{Faults, Spot};
use super::files::{self, Kind};
use super::ordered::Ordered;
use super::power::{self, Power};
use super::raw;
pub use super::raw::Triple;
use super::schema::SCHEMAS;
use super::tree::Node;
use super::{check, typed};

/// Words that schedules use in the place of a processor's name.
pub(super) const RESERVED: [&str; 3] = ["all", "auto", "each"];

/// A machine to measure on.
#[derive(Debug, Clone, PartialEq)]
pub struct Board {
    /// Its name.
    pub name: String,
    /// How it is reached.
    pub connect: Connect,
    /// What is built for it; `None`: the same as for this machine. Present for every board over SSH.
    pub target: Option<Target>,
    /// What it computes with.
    pub processors: Processors,
    /// Its power meter.
    pub power: Power,
    /// The state that trials need.
    pub state: State,
}

impl Board {
    /// Names of its GPUs, which this version has no engine for.
    pub fn gpus(&self) -> Vec<&str> {
        match &self.processors {
            Processors::Auto => Vec::new(),
            Processors::Listed(listed) => {
                let gpus = listed.iter().filter(|one| matches!(one.unit, ProcessorUnit::Cuda { .. }));
                gpus.map(|gpu| gpu.name.as_str()).collect()
            }
        }
    }
}

/// How a board is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connect {
    /// It is this machine.
    Local,
    /// Over SSH. What is `None` comes from OpenSSH's configuration.
    Ssh {
        /// Host name, address or alias.
        host: String,
        /// User on the board.
        user: Option<String>,
        /// Port.
        port: Option<u16>,
        /// Private key as written, `~/` not yet replaced.
        identity: Option<String>,
        /// Host to go through.
        jump: Option<String>,
        /// Seconds in which it must be reached again once it is lost.
        reconnect_seconds: Option<u32>,
    },
}

/// What is built for a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Target triple.
    pub triple: Triple,
    /// Version of the C library that binaries may need at most.
    pub glibc: Option<String>,
}

/// The processors of a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Processors {
    /// To be found on the board.
    Auto,
    /// In the order of the file; never empty, names unique, no CPU in two of them.
    Listed(Vec<Processor>),
}

/// A named processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    /// Its name.
    pub name: String,
    /// What it is.
    pub unit: ProcessorUnit,
}

/// What a processor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessorUnit {
    /// A set of CPUs.
    Cpus {
        /// As the kernel numbers them; never empty, each once.
        cpus: Vec<u32>,
        /// Threads of a stage, 1 to as many as CPUs.
        threads: u32,
        /// CPU to compile for, in LLVM's words; `None`: found on the board.
        mcpu: Option<String>,
    },
    /// An NVIDIA GPU.
    Cuda {
        /// Architecture, such as `sm_62`.
        arch: String,
    },
}

/// The state a board is brought to; `None` is not touched.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    /// Power mode as `nvpmodel` numbers it.
    pub nvpmodel: Option<u32>,
    /// Whether `jetson_clocks` pins the clocks.
    pub jetson_clocks: Option<bool>,
    /// Frequency governor of all CPUs.
    pub governor: Option<String>,
    /// Trials begin below this temperature only, in degrees Celsius.
    pub max_temperature_c: Option<f64>,
    /// Where sysfs is; `None`: `/sys`.
    pub root: Option<String>,
}

impl State {
    /// The same in the runner's words.
    pub fn asked(&self) -> protocol::StateRequest {
        protocol::StateRequest {
            sysfs: self.root.clone().unwrap_or_else(|| "/sys".to_owned()),
            nvpmodel: self.nvpmodel,
            jetson_clocks: self.jetson_clocks,
            governor: self.governor.clone(),
        }
    }
}

/// Built in, so that this machine can be measured without any file.
const LOCAL: &str = include_str!("../../../configs/boards/local.yaml");

/// A board, and the names of its processors as written (faulty ones too); `None`: they are found on the board.
pub(super) struct Read {
    pub(super) board: Option<Board>,
    pub(super) names: Option<Vec<String>>,
}

/// Reads and checks the board `name`, which was asked for at `asked`.
pub(super) fn read(root: &Path, name: &str, asked: &Spot, defaults: &Node, faults: &mut Faults) -> Read {
    let missing = name == "local" && !root.join("configs/boards/local.yaml").exists();
    let tree = if missing {
        super::tree::parse(&"configs/boards/local.yaml".into(), LOCAL, faults)
    } else {
        files::read(root, Kind::Board, name, asked, faults)
    };
    let Some(tree) = tree else { return Read { board: None, names: None } };
    let names = tree.get("processors").map(Node::entries).filter(|entries| !entries.is_empty());
    let names = names.map(|entries| entries.iter().map(|entry| entry.key.clone()).collect());
    check_target(&tree, faults);
    let board = check::check(&tree, &SCHEMAS.board, faults).and_then(|sound| {
        let mut whole = defaults.get("board").cloned()?;
        whole.overlay(sound);
        let raw = typed::read(&whole);
        if let (Err(error), true) = (&raw, faults.is_empty()) {
            faults.add(&whole.at, error.to_string());
        }
        Some(resolve(raw.ok()?, &whole, faults))
    });
    Read { board, names }
}

/// Checks what a schema cannot say. `tree` is what `raw` was read from.
pub(super) fn resolve(raw: raw::Board, tree: &Node, faults: &mut Faults) -> Board {
    let processors = match raw.processors {
        raw::Processors::Auto(_) => Processors::Auto,
        raw::Processors::Listed(Ordered(listed)) => {
            let mut resolved: Vec<Processor> = Vec::new();
            for (name, processor) in listed {
                resolved.extend(resolve_processor(name, processor, &resolved, tree, faults));
            }
            Processors::Listed(resolved)
        }
    };
    power::check(&raw.power, tree, faults);
    Board {
        name: raw.name.0,
        connect: match raw.connect {
            raw::Connect::Local => Connect::Local,
            raw::Connect::Ssh(ssh) => Connect::Ssh {
                host: ssh.host.0,
                user: ssh.user.map(|text| text.0),
                port: ssh.port,
                identity: ssh.identity.map(|text| text.0),
                jump: ssh.jump.map(|text| text.0),
                reconnect_seconds: ssh.reconnect_seconds,
            },
        },
        target: raw
            .target
            .map(|target| Target { triple: target.triple, glibc: target.glibc.map(|text| text.0) }),
        processors,
        power: raw.power.into(),
        state: State {
            nvpmodel: raw.state.nvpmodel,
            jetson_clocks: raw.state.jetson_clocks,
            governor: raw.state.governor.map(|name| name.0),
            max_temperature_c: raw.state.max_temperature_c,
            root: raw.state.root.map(|text| text.0),
        },
    }
}

/// A board over SSH says what to build; this machine cannot be another kind of machine. Looks at the file as it
/// is written, so that a faulty target is not called missing too.
fn check_target(tree: &Node, faults: &mut Faults) {
    let over_ssh = tree.find("connect/ssh").is_some();
    if over_ssh && tree.get("target").is_none() {
        let example = "target: { triple: aarch64-unknown-linux-gnu, glibc: \"2.27\" }";
        let message = format!("the key \"target\" is missing; a board over SSH needs it, such as {example}");
        faults.add(&tree.spot("connect"), message);
    }
    let local = tree.get("connect").is_none_or(|connect| connect.text() == Some("local"));
    if let (true, Some(triple)) = (local, tree.find("target/triple"))
        && let Some(text) = triple.text()
        && let Ok(known) = typed::read::<Triple>(triple)
        && known.architecture() != std::env::consts::ARCH
    {
        let ours = std::env::consts::ARCH;
        let message = format!(
            "{text:?} is not for this machine ({ours}), which connect: local means; leave target out"
        );
        faults.add(&triple.at, message);
    }
}

fn resolve_processor(
    name: String,
    raw: raw::Processor,
    others: &[Processor],
    tree: &Node,
    faults: &mut Faults,
) -> Option<Processor> {
    let here = format!("processors/{name}");
    let entries = tree.get("processors").map(Node::entries).unwrap_or_default();
    let at =
        entries.iter().find(|entry| entry.key == name).map_or_else(|| tree.spot(&here), |e| e.key_at.clone());
    if RESERVED.contains(&name.as_str()) {
        faults.add(&at, format!("{name:?} means something else in schedules; choose another name"));
    }
    let unit = match (raw.cpus, raw.cuda) {
        (Some(cpus), None) => {
            let count = u32::try_from(cpus.len()).unwrap_or(u32::MAX);
            let threads = raw.threads.unwrap_or(count);
            if threads > count {
                let message = format!("{threads} threads on {count} CPUs; expected at most one a CPU");
                faults.add(&tree.spot(&format!("{here}/threads")), message);
            }
            for (index, cpu) in cpus.iter().enumerate() {
                if let Some(other) = others.iter().find(|other| other.has(*cpu)) {
                    let message = format!("CPU {cpu} belongs to {:?} already", other.name);
                    faults.add(&tree.spot(&format!("{here}/cpus/{index}")), message);
                }
            }
            ProcessorUnit::Cpus { cpus, threads, mcpu: raw.mcpu.map(|name| name.0) }
        }
        (None, Some(cuda)) => {
            for (key, given) in [("threads", raw.threads.is_some()), ("mcpu", raw.mcpu.is_some())] {
                if given {
                    let message = format!("{key:?} is for CPUs, and {name:?} is a GPU; leave it out");
                    faults.add(&tree.spot(&format!("{here}/{key}")), message);
                }
            }
            ProcessorUnit::Cuda { arch: cuda.arch.0 }
        }
        (Some(_), Some(_)) => {
            faults.add(&at, format!("{name:?} has both cpus and cuda; make them two processors"));
            return None;
        }
        (None, None) => {
            faults.add(&at, format!("{name:?} has neither cpus nor cuda; expected one of them"));
            return None;
        }
    };
    Some(Processor { name, unit })
}

impl Processor {
    fn has(&self, cpu: u32) -> bool {
        matches!(&self.unit, ProcessorUnit::Cpus { cpus, .. } if cpus.contains(&cpu))
    }
}

impl From<&Board> for raw::Board {
    fn from(board: &Board) -> Self {
        let text = |text: &String| raw::Text(text.clone());
        Self {
            name: raw::Name(board.name.clone()),
            connect: match &board.connect {
                Connect::Local => raw::Connect::Local,
                Connect::Ssh { host, user, port, identity, jump, reconnect_seconds } => {
                    raw::Connect::Ssh(raw::Ssh {
                        host: text(host),
                        user: user.as_ref().map(text),
                        port: *port,
                        identity: identity.as_ref().map(text),
                        jump: jump.as_ref().map(text),
                        reconnect_seconds: *reconnect_seconds,
                    })
                }
            },
            target: board.target.as_ref().map(|target| raw::Target {
                triple: target.triple,
                glibc: target.glibc.clone().map(raw::Glibc),
            }),
            processors: match &board.processors {
                Processors::Auto => raw::Processors::Auto(raw::Auto::Auto),
                Processors::Listed(listed) => {
                    let entry = |processor: &Processor| (processor.name.clone(), (&processor.unit).into());
                    raw::Processors::Listed(Ordered(listed.iter().map(entry).collect()))
                }
            },
            power: (&board.power).into(),
            state: raw::State {
                nvpmodel: board.state.nvpmodel,
                jetson_clocks: board.state.jetson_clocks,
                governor: board.state.governor.clone().map(raw::Name),
                max_temperature_c: board.state.max_temperature_c,
                root: board.state.root.as_ref().map(text),
            },
        }
    }
}

impl From<&ProcessorUnit> for raw::Processor {
    fn from(unit: &ProcessorUnit) -> Self {
        match unit {
            ProcessorUnit::Cpus { cpus, threads, mcpu } => Self {
                cpus: Some(cpus.clone()),
                threads: Some(*threads),
                mcpu: mcpu.clone().map(raw::Name),
                cuda: None,
            },
            ProcessorUnit::Cuda { arch } => Self {
                cpus: None,
                threads: None,
                mcpu: None,
                cuda: Some(raw::Cuda { arch: raw::CudaArch(arch.clone()) }),
            },
        }
    }
}
