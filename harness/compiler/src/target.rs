//! The compile target of a processor.

use domain::{CudaArch, FloatFormat, Winograd};
use protocol::MachineState;
use serde::{Deserialize, Serialize};

/// Description of a processor; part of the key of everything compiled for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Target {
    /// A set of CPUs.
    Cpu(CpuTarget),
    /// An NVIDIA GPU.
    Cuda(CudaTarget),
}

impl Target {
    /// Whether stages for both can exchange tensors in the layout of their vector instructions.
    pub fn shares_packed_layout(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cpu(one), Self::Cpu(other)) => one.isa == other.isa,
            _ => false,
        }
    }

    /// The target for a network with these settings; CPUs compute in single precision whatever `precision` is.
    #[must_use]
    pub fn with_settings(&self, precision: FloatFormat, winograd: Winograd) -> Self {
        let winograd = winograd.is_auto();
        match self {
            Self::Cpu(target) => Self::Cpu(CpuTarget { winograd, ..target.clone() }),
            Self::Cuda(target) => Self::Cuda(CudaTarget { precision, winograd, ..target.clone() }),
        }
    }
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CudaTarget {
    /// Architecture that kernels are compiled for.
    pub arch: CudaArch,
    /// Format of the network's float32 tensors.
    pub precision: FloatFormat,
    /// Whether convolutions may use Winograd's algorithm.
    pub winograd: bool,
}

impl CudaTarget {
    /// A GPU that computes in single precision and may use Winograd's algorithm.
    pub fn new(arch: CudaArch) -> Self {
        Self { arch, precision: FloatFormat::Fp32, winograd: true }
    }
}

/// A set of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuTarget {
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// LLVM's name of the CPU.
    pub mcpu: String,
    /// Vector instructions that the kernels use: `avx512`, `avx2`, `neon`, `generic`.
    pub isa: String,
    /// Target triple of the stage libraries.
    pub triple: String,
    /// Threads of a stage.
    pub threads: u32,
    /// First-level data cache of a core.
    pub l1d_bytes: u64,
    /// Second-level cache of a core.
    pub l2_bytes: u64,
    /// Whether convolutions may use Winograd's algorithm.
    pub winograd: bool,
}

/// An Arm core by its identification register, for boards whose kernel does not describe it.
struct Core {
    /// Implementer and part number (Arm ARM, `MIDR_EL1`).
    identity: (u64, u64),
    /// LLVM's name of it.
    mcpu: &'static str,
    /// Data caches in KiB: first level, and the usual second level.
    caches: (u64, u64),
}

/// Sources: Arm's technical reference manuals of the cores for numbers and first-level caches, NVIDIA's for Denver 2
/// and Carmel; second-level caches as on Jetson TX2, Jetson Xavier, Jetson Nano, Jetson Orin and Raspberry Pi 3 to 5.
/// LLVM does not support Denver 2, so its target is a generic `ARMv8` core with NEON.
const CORES: [Core; 8] = [
    Core { identity: (0x41, 0xd03), mcpu: "cortex-a53", caches: (32, 512) },
    Core { identity: (0x41, 0xd07), mcpu: "cortex-a57", caches: (32, 2048) },
    Core { identity: (0x41, 0xd08), mcpu: "cortex-a72", caches: (32, 1024) },
    Core { identity: (0x41, 0xd0b), mcpu: "cortex-a76", caches: (64, 512) },
    Core { identity: (0x41, 0xd42), mcpu: "cortex-a78ae", caches: (64, 256) },
    Core { identity: (0x41, 0xd05), mcpu: "cortex-a55", caches: (32, 256) },
    Core { identity: (0x4e, 0x003), mcpu: "generic", caches: (64, 2048) },
    Core { identity: (0x4e, 0x004), mcpu: "carmel", caches: (64, 2048) },
];

/// The core with this identification register.
fn core_of(midr: u64) -> Option<&'static Core> {
    let identity = (midr >> 24 & 0xff, midr >> 4 & 0xfff);
    CORES.iter().find(|core| core.identity == identity)
}

/// The LLVM name for a name in a board file. LLVM has none for Denver.
fn llvm_name(mcpu: &str) -> &str {
    if matches!(mcpu, "denver" | "denver2") { "generic" } else { mcpu }
}

impl CpuTarget {
    /// The target of these CPUs on a machine, as its kernel describes them. Caches that it does not describe are
    /// those usual for the core, else 32 KiB and 512 KiB, the smallest usual ones.
    pub fn detect(machine: &MachineState, cpus: &[u32], threads: u32, mcpu: Option<&str>) -> Self {
        let has = |flag: &str| machine.cpu_flags.iter().any(|known| known == flag);
        let avx512 = ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"].iter().all(|flag| has(flag));
        let (isa, level) = match machine.arch.as_str() {
            "x86_64" if avx512 => ("avx512", "x86-64-v4"),
            "x86_64" if has("avx2") && has("fma") => ("avx2", "x86-64-v3"),
            "aarch64" => ("neon", "generic"),
            _ => ("generic", "x86-64"),
        };
        let first = machine.cpus.iter().find(|cpu| cpus.contains(&cpu.id));
        let core = first.and_then(|cpu| cpu.midr).and_then(core_of);
        let level = core.map_or(level, |core| core.mcpu);
        let usual = core.map_or((32, 512), |core| core.caches);
        Self {
            arch: machine.arch.clone(),
            mcpu: mcpu.map_or(level, llvm_name).to_owned(),
            isa: isa.to_owned(),
            triple: format!("{}-unknown-linux-gnu", machine.arch),
            threads,
            l1d_bytes: first.and_then(|cpu| cpu.l1d_bytes).unwrap_or(usual.0 << 10),
            l2_bytes: first.and_then(|cpu| cpu.l2_bytes).unwrap_or(usual.1 << 10),
            winograd: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Cpu;

    /// A Jetson TX2 as a kernel without cache descriptions shows it: CPUs 1 and 2 are Denver 2.
    fn tx2() -> MachineState {
        let cpu = |id: u32| Cpu {
            id,
            online: true,
            isolated: false,
            capacity: None,
            midr: Some(if matches!(id, 1 | 2) { 0x4e0f_0030 } else { 0x411f_d073 }),
            core: None,
            package: None,
            current_khz: None,
            min_khz: None,
            max_khz: None,
            hardware_max_khz: None,
            governor: None,
            l1d_bytes: None,
            l2_bytes: None,
            l3_bytes: None,
        };
        MachineState {
            arch: "aarch64".to_owned(),
            kernel: "4.9.253-tegra".to_owned(),
            os: None,
            model: None,
            cpu_model: None,
            cpu_flags: ["fp", "asimd"].map(str::to_owned).to_vec(),
            cpus: (0..6).map(cpu).collect(),
            allowed_cpus: (0..6).collect(),
            memory_bytes: 8 << 30,
            memory_available_bytes: 7 << 30,
            load_milli: 0,
            temperatures: Vec::new(),
            power_mode: None,
            gpu: None,
            emc: None,
            cpu_quota: None,
            memory_limit: None,
            scheduling: None,
            silent_zones: Vec::new(),
            cuda: None,
        }
    }

    #[test]
    fn cores_of_a_board_are_known_by_their_register() {
        let table = [
            (vec![0, 3, 4, 5], None, "cortex-a57", 32 << 10),
            (vec![1, 2], None, "generic", 64 << 10),
            (vec![1, 2], Some("denver2"), "generic", 64 << 10),
            (vec![0], Some("cortex-a72"), "cortex-a72", 32 << 10),
        ];
        for (cpus, named, mcpu, l1d_bytes) in table {
            let target = CpuTarget::detect(&tx2(), &cpus, 1, named);
            assert_eq!((target.mcpu.as_str(), target.l1d_bytes), (mcpu, l1d_bytes), "{cpus:?} {named:?}");
            assert_eq!((target.isa.as_str(), target.l2_bytes), ("neon", 2 << 20));
            assert_eq!(target.triple, "aarch64-unknown-linux-gnu");
        }
    }
}
