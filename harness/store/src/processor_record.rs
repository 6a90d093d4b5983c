//! Processors of a run, as journals and the database keep them.

use domain::{CudaArch, ProcessorKind, ProcessorName};
use protocol::CudaDevice;
use serde::{Deserialize, Serialize};

/// A processor as the run used it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ProcessorLine")]
pub struct ProcessorRecord {
    /// Its name.
    pub name: String,
    /// CPUs or a GPU.
    #[serde(flatten)]
    pub kind: ProcessorKind,
    /// The GPU as its driver describes it; absent for CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuRecord>,
}

impl ProcessorRecord {
    /// Whether it is a GPU whose driver computes on CPUs, so that its times say nothing about a GPU.
    pub fn is_emulated(&self) -> bool {
        self.gpu.as_ref().is_some_and(|gpu| gpu.emulated)
    }

    /// Whether it has the CPUs of several processors of the board.
    pub fn is_merged(&self) -> bool {
        ProcessorName::new(&self.name).is_merged()
    }

    /// Whether a run on `other` can be continued on this processor.
    pub fn continues(&self, other: &Self) -> bool {
        (&self.name, &self.gpu) == (&other.name, &other.gpu) && self.kind.continues(&other.kind)
    }
}

/// A GPU and its driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuRecord {
    /// The device. Kernels may be compiled for an older architecture than its own.
    pub device: CudaDevice,
    /// Path of the driver's library on the board.
    pub driver_path: String,
    /// Latest CUDA version that the driver supports: 10020 is 10.2.
    pub driver_version: u32,
    /// Whether edgepipe's stand-in is the driver, which computes on CPUs.
    pub emulated: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindName {
    /// All processors were CPUs before protocol version 9, and their lines had no kind.
    #[default]
    Cpu,
    Cuda,
}

/// A processor in a journal of any version.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProcessorLine {
    name: String,
    #[serde(default)]
    kind: KindName,
    cpus: Option<Vec<u32>>,
    threads: Option<u32>,
    mcpu: Option<String>,
    arch: Option<CudaArch>,
    device: Option<u32>,
    host_cpus: Option<Vec<u32>>,
    gpu: Option<GpuRecord>,
}

impl TryFrom<ProcessorLine> for ProcessorRecord {
    type Error = String;

    fn try_from(line: ProcessorLine) -> Result<Self, String> {
        let ProcessorLine { name, kind, cpus, threads, mcpu, arch, device, host_cpus, gpu } = line;
        let kind = match (kind, cpus, threads, arch, device, host_cpus) {
            (KindName::Cpu, Some(cpus), Some(threads), None, None, None) => {
                ProcessorKind::Cpu { cpus, threads, mcpu }
            }
            (KindName::Cuda, None, None, Some(arch), Some(device), Some(host_cpus)) => {
                ProcessorKind::Cuda { arch, device, host_cpus }
            }
            (kind, ..) => {
                return Err(format!("the fields of the processor {name} do not fit its kind {kind:?}"));
            }
        };
        Ok(Self { name, kind, gpu })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use serde_json::{Value, json};

    fn read(line: Value) -> Result<ProcessorRecord, String> {
        serde_json::from_value(line).map_err(|error| error.to_string())
    }

    #[test]
    fn a_processor_without_a_kind_is_a_set_of_cpus() {
        let kind = ProcessorKind::Cpu { cpus: vec![0, 3], threads: 2, mcpu: None };
        let expected = ProcessorRecord { name: "a57".to_owned(), kind, gpu: None };
        assert_eq!(read(json!({ "name": "a57", "cpus": [0, 3], "threads": 2 })), Ok(expected));
    }

    #[test]
    fn a_processor_needs_the_fields_of_its_kind() {
        for record in [fixture::gpu(), fixture::run_start().processors[0].clone()] {
            assert_eq!(read(serde_json::to_value(&record).unwrap()), Ok(record));
        }
        for (line, said) in [
            (json!({ "name": "gpu", "kind": "cuda", "cpus": [0], "threads": 1 }), "do not fit its kind"),
            (json!({ "name": "gpu", "cpus": [0], "threads": 1, "device": 0 }), "do not fit its kind"),
            (json!({ "name": "gpu", "kind": "tpu" }), "unknown variant"),
            (
                json!({ "name": "gpu", "kind": "cuda", "arch": "sm_1", "device": 0, "host_cpus": [0] }),
                "unknown CUDA architecture",
            ),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
