//! GPUs of NVIDIA: what the driver reports, and what a stage uses.

use serde::{Deserialize, Serialize};

/// The CUDA driver of a board and its devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CudaSystem {
    /// The library: its path if one was requested or the kernel shows it, otherwise its name.
    pub driver_path: String,
    /// Latest CUDA version that the driver supports, as 1000 × major + 10 × minor: 10020 is 10.2. 0 if it did not answer.
    pub driver_version: u32,
    /// Whether edgepipe's stand-in answers, which computes on CPUs. Its times say nothing about a GPU.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emulated: bool,
    /// In the driver's order.
    pub devices: Vec<CudaDevice>,
    /// Why devices are missing from the list; absent if the driver reported all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A GPU as its driver reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CudaDevice {
    /// Number in the driver's order, from 0.
    pub index: u32,
    /// Name of the model.
    pub name: String,
    /// Compute capability as a target of the compiler: `sm_62`.
    pub arch: String,
    /// Memory of the device; of a Jetson, that of the board.
    pub memory_bytes: u64,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Highest clock of the multiprocessors; absent if the driver does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_khz: Option<u64>,
    /// Second-level cache; absent if the driver does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l2_bytes: Option<u64>,
    /// Whether it shares its memory with the CPUs.
    pub integrated: bool,
}

/// Use of a GPU by a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CudaStage {
    /// Place of the stage in its schedule.
    pub stage: u32,
    /// Time to load the kernels. The driver compiles them for its device, unless its cache has them.
    pub module_load_ns: u64,
    /// Device memory for the tensors of the stage.
    pub arena_bytes: u64,
    /// Device memory for weights that no earlier stage of the schedule has uploaded.
    pub weights_bytes: u64,
    /// Whether the driver launches all kernels of a frame as one graph.
    pub graph: bool,
}
