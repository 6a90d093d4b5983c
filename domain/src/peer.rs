//! Other inference engines that a network is measured with for comparison.

use crate::processor::ProcessorName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// An inference engine that runs the whole network: an alternative to a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its name, `onnxruntime`.
    pub engine: String,
    /// Its version.
    pub version: String,
    /// Threads of each session.
    pub threads: u32,
    /// CPUs of each session; sessions work in parallel and share the frames.
    pub sessions: Vec<Vec<u32>>,
    /// The GPU that computes; absent if the CPUs do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<PeerGpu>,
}

/// The GPU of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerGpu {
    /// What the engine computes with.
    pub provider: GpuProvider,
    /// The board's processor. The CPUs of the sessions are those that feed it.
    pub processor: ProcessorName,
}

/// What ONNX Runtime computes with on a GPU: one of its execution providers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuProvider {
    /// Kernels of cuDNN, cuBLAS and its own.
    Cuda,
    /// Engines that TensorRT builds for the GPU.
    Tensorrt,
}

impl GpuProvider {
    /// The name in files and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Tensorrt => "tensorrt",
        }
    }
}

impl fmt::Display for GpuProvider {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl Peer {
    /// The sessions in place of processors: `onnxruntime`, or `onnxruntime#0`, `onnxruntime#1` and so on.
    pub fn stage_names(&self) -> Vec<ProcessorName> {
        match self.sessions.len() {
            1 => vec![ProcessorName::new(&self.engine)],
            count => {
                (0..count).map(|session| ProcessorName::new(format!("{}#{session}", self.engine))).collect()
            }
        }
    }

    /// CPUs of all sessions, each once, ascending.
    pub fn cpus(&self) -> Vec<u32> {
        let mut cpus = self.sessions.concat();
        cpus.sort_unstable();
        cpus.dedup();
        cpus
    }
}

impl fmt::Display for Peer {
    /// `onnxruntime, 1 thread`; `2 × onnxruntime, 1 thread`; `onnxruntime cuda, gpu`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sessions.len() > 1 {
            write!(out, "{} × ", self.sessions.len())?;
        }
        if let Some(PeerGpu { provider, processor }) = &self.gpu {
            return write!(out, "{} {provider}, {processor}", self.engine);
        }
        let s = if self.threads == 1 { "" } else { "s" };
        write!(out, "{}, {} thread{s}", self.engine, self.threads)
    }
}
