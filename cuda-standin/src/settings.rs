//! Settings from the environment: the device to emulate, and faults to inject.

use crate::fault::Code;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Architecture {
    /// Compute capability without its dot: 62 for `sm_62`.
    pub number: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Streaming multiprocessors.
    pub multiprocessors: i32,
    /// Clock of the cores, in kHz.
    pub clock_khz: i32,
    /// Registers of a block.
    pub block_registers: i32,
    /// Threads of a multiprocessor.
    pub threads: i32,
    /// Blocks of a multiprocessor.
    pub blocks: i32,
    /// Shared memory of a multiprocessor, in bytes.
    pub shared_bytes: i32,
    /// Second-level cache, in bytes.
    pub cache_bytes: i32,
    /// Whether device and host share their memory.
    pub is_integrated: bool,
}

/// Devices by architecture: Jetson Nano, TX2 and Xavier, T4, Jetson Orin, RTX 4090, H100; by their data sheets and the
/// table of compute capabilities in the CUDA C++ programming guide.
const ARCHITECTURES: [Architecture; 7] = [
    architecture(53, 4096, (1, 921_600), 32768, (2048, 32), (64 << 10, 256 << 10), true),
    architecture(62, 8192, (2, 1_300_500), 32768, (2048, 32), (64 << 10, 512 << 10), true),
    architecture(72, 16384, (8, 1_377_000), 65536, (2048, 32), (96 << 10, 512 << 10), true),
    architecture(75, 15360, (40, 1_590_000), 65536, (1024, 16), (64 << 10, 4 << 20), false),
    architecture(87, 32768, (16, 1_300_500), 65536, (1536, 16), (164 << 10, 4 << 20), true),
    architecture(89, 24564, (128, 2_520_000), 65536, (1536, 24), (100 << 10, 72 << 20), false),
    architecture(90, 81559, (132, 1_980_000), 65536, (2048, 32), (228 << 10, 50 << 20), false),
];

const fn architecture(
    number: u32,
    memory_mib: u64,
    (multiprocessors, clock_khz): (i32, i32),
    block_registers: i32,
    (threads, blocks): (i32, i32),
    (shared_bytes, cache_bytes): (i32, i32),
    is_integrated: bool,
) -> Architecture {
    Architecture {
        number,
        memory_mib,
        multiprocessors,
        clock_khz,
        block_registers,
        threads,
        blocks,
        shared_bytes,
        cache_bytes,
        is_integrated,
    }
}

impl Architecture {
    /// The device of an architecture such as `sm_62`.
    pub fn named(name: &str) -> Option<Self> {
        let number = name.strip_prefix("sm_")?.parse().ok()?;
        ARCHITECTURES.into_iter().find(|architecture| architecture.number == number)
    }
}

/// A fault on demand.
#[derive(Debug)]
pub struct Demand {
    /// A driver function such as `cuMemAlloc_v2`, or `kernel:` and the name of a kernel, or `kernel:*` for any.
    what: String,
    /// From which call or launch on, from 1.
    from: u64,
    /// Whether it is that one only.
    is_once: bool,
    effect: Effect,
    seen: AtomicU64,
}

/// What a fault on demand does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The call or the kernel fails.
    Fail(Code),
    /// The kernel does not end.
    Hang,
}

/// The settings of the stand-in.
#[derive(Debug)]
pub struct Settings {
    /// `CUDA_STANDIN_ARCH`.
    pub architecture: Architecture,
    /// `CUDA_STANDIN_DRIVER`: 10020 is 10.2.
    pub driver_version: i32,
    /// `CUDA_STANDIN_MEMORY_MIB`, in bytes.
    pub memory_bytes: u64,
    /// `CUDA_STANDIN_CHECK=1`: finds races too.
    pub is_checked: bool,
    /// `CUDA_STANDIN_EMPTY=1`: kernels do nothing.
    pub is_empty: bool,
    /// `CUDA_STANDIN_FAULT`.
    pub demands: Vec<Demand>,
}

impl Settings {
    /// Reads the settings by the names of variables. The error names the variable and what it takes.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let arch = variable("CUDA_STANDIN_ARCH").unwrap_or_else(|| "sm_62".to_owned());
        let architecture = Architecture::named(&arch).ok_or_else(|| {
            let known = ARCHITECTURES.map(|architecture| format!("sm_{}", architecture.number)).join(", ");
            format!("CUDA_STANDIN_ARCH is \"{arch}\"; it takes one of {known}")
        })?;
        let number = |name: &str, default: u64| match variable(name) {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(number) if number > 0 => Ok(number),
                _ => Err(format!("{name} is \"{text}\"; it takes a number from 1")),
            },
        };
        let switch = |name: &str| match variable(name).as_deref() {
            None | Some("" | "0") => Ok(false),
            Some("1") => Ok(true),
            Some(text) => Err(format!("{name} is \"{text}\"; it takes 0 or 1")),
        };
        let driver_version = i32::try_from(number("CUDA_STANDIN_DRIVER", 10020)?)
            .map_err(|_| "CUDA_STANDIN_DRIVER takes a number such as 10020 for CUDA 10.2".to_owned())?;
        let memory_mib = number("CUDA_STANDIN_MEMORY_MIB", architecture.memory_mib)?;
        let demands = variable("CUDA_STANDIN_FAULT").unwrap_or_default();
        let demands = demands.split(',').map(str::trim).filter(|demand| !demand.is_empty());
        Ok(Self {
            architecture,
            driver_version,
            memory_bytes: memory_mib.saturating_mul(1 << 20),
            is_checked: switch("CUDA_STANDIN_CHECK")?,
            is_empty: switch("CUDA_STANDIN_EMPTY")?,
            demands: demands.map(demand).collect::<Result<_, String>>()?,
        })
    }

    /// The fault to make now, if any. Counts the call or the launch.
    pub fn demanded(&self, what: &str) -> Option<Effect> {
        let mut effect = None;
        for demand in &self.demands {
            let is_any_kernel = demand.what == "kernel:*" && what.starts_with("kernel:");
            if demand.what == what || is_any_kernel {
                let number = demand.seen.fetch_add(1, Relaxed) + 1;
                if number == demand.from || number > demand.from && !demand.is_once {
                    effect = Some(demand.effect);
                }
            }
        }
        effect
    }

    /// The highest `.version` of PTX that the driver reads, by the release notes in the PTX ISA.
    pub fn highest_ptx_version(&self) -> (u32, u32) {
        let (major, minor) = (self.driver_version / 1000, self.driver_version % 1000 / 10);
        let (major, minor) = (major as u32, minor as u32);
        match (major, minor) {
            (..9, _) => (major.saturating_sub(3), minor),
            (9, _) => (6, minor),
            (10, _) => (6, 3 + minor),
            (11, _) => (7, minor),
            (12, ..=5) => (8, minor),
            (12, _) => (8, minor - 1),
            _ => (9, minor),
        }
    }
}

/// `WHAT[@FROM[!]]=CODE|hang`: without FROM always, with FROM from that call on, with `!` that one only.
fn demand(text: &str) -> Result<Demand, String> {
    let invalid = || {
        format!(
            "CUDA_STANDIN_FAULT contains \"{text}\"; it takes FUNCTION=CODE or kernel:NAME=CODE|hang, separated by \
             commas; @N after the name means from the Nth call on, @N! that one only"
        )
    };
    let (what, effect) = text.split_once('=').ok_or_else(invalid)?;
    let (what, when) = what.split_once('@').unwrap_or((what, "1"));
    let (from, is_once) = when.strip_suffix('!').map_or((when, false), |from| (from, true));
    let from = from.parse().ok().filter(|from| *from > 0).ok_or_else(invalid)?;
    let is_kernel = what.starts_with("kernel:");
    let effect = match effect.parse() {
        Ok(code) => Effect::Fail(Code(code)),
        Err(_) if effect == "hang" && is_kernel => Effect::Hang,
        Err(_) => return Err(invalid()),
    };
    let is_known = matches!(effect, Effect::Hang)
        || matches!(effect, Effect::Fail(code) if code != Code::SUCCESS && code.text().is_some());
    if !(is_kernel || what.starts_with("cu")) || !is_known {
        return Err(invalid());
    }
    Ok(Demand { what: what.to_owned(), from, is_once, effect, seen: AtomicU64::new(0) })
}
