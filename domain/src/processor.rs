//! What a stage runs on: a set of CPUs, or a GPU.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Joins the names of the parts of a merged processor. No name in a board's file contains it.
pub const MERGES: char = '+';

/// Name of a processor, as the board gives it, or of a merged processor: `a57+denver` computes on the CPUs of both, with the
/// threads of both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProcessorName(String);

impl ProcessorName {
    /// A processor of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The processor that has the CPUs of all `parts`. Its name is theirs, joined by [`MERGES`].
    pub fn merged<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let names: Vec<&str> = parts.into_iter().map(Self::as_str).collect();
        Self(names.join(&MERGES.to_string()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names of the processors that it is merged of; its own if it is not merged.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split(MERGES)
    }

    /// Whether it has the CPUs of several processors.
    pub fn is_merged(&self) -> bool {
        self.0.contains(MERGES)
    }

    /// Whether both have a part in common, so that a schedule can use only one of them.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.parts().any(|part| other.parts().any(|known| known == part))
    }
}

impl fmt::Display for ProcessorName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl From<&str> for ProcessorName {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for ProcessorName {
    fn from(name: String) -> Self {
        Self(name)
    }
}

impl AsRef<str> for ProcessorName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// CPUs or a GPU, with everything that decides how a stage runs on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ProcessorKind {
    /// A set of CPUs.
    Cpu {
        /// CPU numbers of the kernel.
        cpus: Vec<u32>,
        /// Threads of a stage.
        threads: u32,
        /// LLVM name of the CPU that code is compiled for; absent in runs that did not record it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mcpu: Option<String>,
    },
    /// An NVIDIA GPU.
    Cuda {
        /// Architecture that kernels are compiled for.
        arch: CudaArch,
        /// Index of the device in the CUDA driver.
        device: u32,
        /// CPUs of the thread that feeds the GPU. Other processors may use them too.
        host_cpus: Vec<u32>,
    },
}

impl ProcessorKind {
    /// CPUs on which a stage computes; empty for a GPU.
    pub fn compute_cpus(&self) -> &[u32] {
        match self {
            Self::Cpu { cpus, .. } => cpus,
            Self::Cuda { .. } => &[],
        }
    }

    /// CPUs that the threads of a stage use: those that compute, or those that feed a GPU.
    pub fn thread_cpus(&self) -> &[u32] {
        match self {
            Self::Cpu { cpus, .. } => cpus,
            Self::Cuda { host_cpus, .. } => host_cpus,
        }
    }

    /// CPU threads of a stage. One thread feeds a GPU.
    pub fn threads(&self) -> u32 {
        match self {
            Self::Cpu { threads, .. } => *threads,
            Self::Cuda { .. } => 1,
        }
    }

    /// Whether it is a GPU.
    pub fn is_gpu(&self) -> bool {
        matches!(self, Self::Cuda { .. })
    }

    /// Whether a run on `other` can be continued on this processor. An unrecorded `mcpu` equals any.
    pub fn continues(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Cpu { cpus, threads, mcpu },
                Self::Cpu { cpus: other_cpus, threads: other_threads, mcpu: other_mcpu },
            ) => {
                (cpus, threads) == (other_cpus, other_threads)
                    && (mcpu == other_mcpu || mcpu.is_none() || other_mcpu.is_none())
            }
            (one, other) => one == other,
        }
    }
}

/// A CUDA architecture that kernels can be compiled for, such as `sm_62`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CudaArch(u32);

/// What one architecture needs.
struct Requirement {
    /// Compute capability without the dot.
    number: u32,
    /// Version of the PTX instructions that the compiler writes for it.
    ptx: (u32, u32),
    /// The first CUDA release whose driver loads that version, as `cuDriverGetVersion` counts.
    driver: u32,
}

/// Ascending. PTX versions are those that TVM's `nvptx` target writes; the releases are from the table "PTX Release History"
/// of NVIDIA's PTX ISA manual.
const ARCHITECTURES: [Requirement; 7] = [
    Requirement { number: 53, ptx: (4, 2), driver: 7000 },
    Requirement { number: 62, ptx: (5, 0), driver: 8000 },
    Requirement { number: 72, ptx: (6, 1), driver: 9010 },
    Requirement { number: 75, ptx: (6, 3), driver: 10_000 },
    Requirement { number: 87, ptx: (7, 4), driver: 11_040 },
    Requirement { number: 89, ptx: (7, 8), driver: 11_080 },
    Requirement { number: 90, ptx: (7, 8), driver: 11_080 },
];

impl CudaArch {
    /// All known architectures, the oldest first.
    pub fn known() -> impl Iterator<Item = Self> {
        ARCHITECTURES.iter().map(|known| Self(known.number))
    }

    /// The newest known architecture whose code runs on a device of the architecture `device`, such as `sm_86`: the driver
    /// compiles code of an older architecture for a newer device.
    pub fn for_device(device: &str) -> Option<Self> {
        let number = number(device)?;
        Self::known().filter(|known| known.0 <= number).last()
    }

    /// Whether its code runs on a device of the architecture `device`. False if `device` is not an architecture.
    pub fn runs_on(self, device: &str) -> bool {
        number(device).is_some_and(|device| self.0 <= device)
    }

    /// Version of the PTX instructions of its code, such as `5.0`.
    pub fn ptx(self) -> String {
        self.requirement().map_or_else(String::new, |known| format!("{}.{}", known.ptx.0, known.ptx.1))
    }

    /// The first driver that loads its code, as `cuDriverGetVersion` counts: 10020 is CUDA 10.2.
    pub fn least_driver(self) -> u32 {
        self.requirement().map_or(u32::MAX, |known| known.driver)
    }

    fn requirement(self) -> Option<&'static Requirement> {
        ARCHITECTURES.iter().find(|known| known.number == self.0)
    }
}

/// A CUDA version as `cuDriverGetVersion` counts, for people: 10020 is `10.2`.
pub fn cuda_release(version: u32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// The number of `sm_62`; also of `sm_90a`.
fn number(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("sm_")?;
    digits.strip_suffix(|last: char| last.is_ascii_lowercase()).unwrap_or(digits).parse().ok()
}

impl fmt::Display for CudaArch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "sm_{}", self.0)
    }
}

impl FromStr for CudaArch {
    type Err = String;

    /// Parses a known architecture; the error lists them.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::known().find(|known| known.to_string() == text).ok_or_else(|| {
            let known: Vec<String> = Self::known().map(|known| known.to_string()).collect();
            format!("unknown CUDA architecture {text:?}; expected one of {}", known.join(", "))
        })
    }
}

impl TryFrom<String> for CudaArch {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<CudaArch> for String {
    fn from(arch: CudaArch) -> Self {
        arch.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arch(text: &str) -> CudaArch {
        text.parse().unwrap()
    }

    #[test]
    fn code_of_an_architecture_runs_on_later_devices_only() {
        for (device, chosen) in [
            ("sm_62", Some("sm_62")),
            ("sm_86", Some("sm_75")),
            ("sm_90a", Some("sm_90")),
            ("sm_121", Some("sm_90")),
            ("sm_50", None),
            ("gfx90a", None),
        ] {
            assert_eq!(CudaArch::for_device(device), chosen.map(arch), "{device}");
        }
        assert!(arch("sm_62").runs_on("sm_72") && arch("sm_62").runs_on("sm_62"));
        assert!(!arch("sm_72").runs_on("sm_62") && !arch("sm_62").runs_on("a GPU"));
    }

    #[test]
    fn every_architecture_has_its_requirements() {
        for known in CudaArch::known() {
            assert_eq!(known.to_string().parse(), Ok(known));
            assert!(!known.ptx().is_empty() && known.least_driver() < 20_000, "{known}");
        }
        assert_eq!((cuda_release(10_020).as_str(), cuda_release(11_080).as_str()), ("10.2", "11.8"));
        assert_eq!((arch("sm_62").ptx().as_str(), arch("sm_62").least_driver()), ("5.0", 8000));
        let error = "sm_61".parse::<CudaArch>().unwrap_err();
        assert!(
            error.ends_with("expected one of sm_53, sm_62, sm_72, sm_75, sm_87, sm_89, sm_90"),
            "{error}"
        );
    }

    #[test]
    fn a_merged_processor_overlaps_its_parts() {
        let [a57, denver, gpu] = ["a57", "denver", "gpu"].map(ProcessorName::new);
        let both = ProcessorName::merged([&a57, &denver]);
        assert_eq!((both.as_str(), both.is_merged(), a57.is_merged()), ("a57+denver", true, false));
        assert_eq!(both.parts().collect::<Vec<_>>(), ["a57", "denver"]);
        assert!(both.overlaps(&a57) && denver.overlaps(&both) && a57.overlaps(&a57));
        assert!(!both.overlaps(&gpu) && !a57.overlaps(&denver));
        assert!(!both.overlaps(&ProcessorName::new("a5")), "parts are whole names");
    }

    #[test]
    fn a_processor_is_tagged_by_its_kind() {
        let gpu = ProcessorKind::Cuda { arch: arch("sm_62"), device: 0, host_cpus: vec![3] };
        let json = r#"{"kind":"cuda","arch":"sm_62","device":0,"host_cpus":[3]}"#;
        assert_eq!(serde_json::to_string(&gpu).unwrap(), json);
        assert_eq!(serde_json::from_str::<ProcessorKind>(json).unwrap(), gpu);
        assert_eq!((gpu.compute_cpus(), gpu.thread_cpus(), gpu.threads()), (&[][..], &[3][..], 1));
        let cpu = |mcpu: Option<&str>| ProcessorKind::Cpu {
            cpus: vec![0, 1],
            threads: 2,
            mcpu: mcpu.map(str::to_owned),
        };
        assert_eq!(cpu(None).compute_cpus(), cpu(None).thread_cpus());
        assert!(cpu(None).continues(&cpu(Some("cortex-a57"))) && !gpu.continues(&cpu(None)));
        assert!(!cpu(Some("generic")).continues(&cpu(Some("cortex-a57"))));
    }
}
