//! What a processor is to the compiler.

use protocol::MachineState;
use serde::{Deserialize, Serialize};

/// Description of a CPU target; part of the key of everything compiled for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// LLVM's name of the CPU.
    pub mcpu: String,
    /// Vector instructions the kernels are written for: `avx512`, `avx2`, `neon`, `generic`.
    pub isa: String,
    /// Target triple of the stage libraries.
    pub triple: String,
    /// Threads of a stage.
    pub threads: u32,
    /// First-level data cache of a core.
    pub l1d_bytes: u64,
    /// Second-level cache of a core.
    pub l2_bytes: u64,
}

impl Target {
    /// The target of these CPUs on a machine, as its kernel describes them. Caches that it does not describe are
    /// taken as 32 KiB and 512 KiB, the smallest usual ones.
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
        Self {
            arch: machine.arch.clone(),
            mcpu: mcpu.unwrap_or(level).to_owned(),
            isa: isa.to_owned(),
            triple: format!("{}-unknown-linux-gnu", machine.arch),
            threads,
            l1d_bytes: first.and_then(|cpu| cpu.l1d_bytes).unwrap_or(32 << 10),
            l2_bytes: first.and_then(|cpu| cpu.l2_bytes).unwrap_or(512 << 10),
        }
    }
}
