//! Engines, which execute the program of a stage, each behind the trait [`Engine`].
//!
//! The only module with unsafe code: TVM's runtime, ONNX Runtime and the CUDA driver, memory that they share with the runner, vector
//! instructions, and calls of the C library. Everything it exports is safe.

mod api;
mod cuda;
mod elf;
#[cfg(test)]
mod fake;
mod instrument;
mod loader;
mod multiply_add;
mod onnx_provider;
mod onnxruntime;
mod tensor;
mod thread_usage;
mod tvm;
mod tvm_runtime;
mod weights;

pub(crate) use api::{Engine, FrameProfile, MOST_FRAMES_IN_FLIGHT};
pub(crate) use cuda::{Copies, recover_devices, system as cuda_system};
#[cfg(test)]
pub(crate) use fake::{FakeEngine, FakeFault};
pub(crate) use multiply_add::Multiplier;
pub(crate) use onnx_provider::disable_tf32;
pub(crate) use tensor::Tensor;
pub(crate) use thread_usage::{ThreadUsage, exit_immediately, prefer_current_thread, thread_cpu_ns};
pub(crate) use tvm_runtime::{Runtime, release_memory};
pub(crate) use weights::{WeightsCache, WeightsFile};

use crate::failure::Failure;
use crate::schedule::CheckedSchedule;
use cuda::CudaEngine;
use onnxruntime::OnnxRuntimeEngine;
use protocol::{Processor, Program};
use std::sync::Arc;
use tvm::TvmEngine;

/// Loads the engine of the stage at `place` on the calling thread, which is the only one that may use it. The calling thread and the
/// engine's own ones are bound to the stage's CPUs.
pub(crate) fn load(
    schedule: &CheckedSchedule,
    place: usize,
    weights: Option<&Arc<WeightsFile>>,
) -> Result<Box<dyn Engine>, Failure> {
    let stage = &schedule.stages[place];
    let weights = || {
        weights.ok_or_else(|| Failure::internal("failed to load a stage library: its weights are not mapped"))
    };
    Ok(match (&stage.program, &stage.processor) {
        (Program::Library(library), Processor::Cpu(processor)) => {
            Box::new(TvmEngine::load(library, processor, stage, weights()?)?)
        }
        (Program::OnnxRuntime(model), Processor::Cpu(processor)) => {
            Box::new(OnnxRuntimeEngine::load(model, processor, stage, &schedule.values)?)
        }
        (Program::Cuda(program), Processor::Cuda(processor)) => {
            Box::new(CudaEngine::load(program, processor, place, stage, &schedule.values, weights()?)?)
        }
        (program, processor) => {
            return Err(Failure::request(format!(
                "failed to load {}: processor {} cannot run it",
                program.path(),
                processor.name()
            )));
        }
    })
}
