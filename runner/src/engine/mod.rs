//! Engines: what executes the program of a stage, each behind the trait [`Engine`].
//!
//! The only module with unsafe code: TVM's runtime and ONNX Runtime, memory that they share with the runner, vector
//! instructions, and calls of the C library. Everything it exports is safe.

mod api;
mod elf;
#[cfg(test)]
mod fake;
mod instrument;
mod multiply_add;
mod onnxruntime;
mod tensor;
mod thread_usage;
mod tvm;
mod tvm_runtime;
mod weights;

pub(crate) use api::{Engine, FrameProfile};
#[cfg(test)]
pub(crate) use fake::{FakeEngine, FakeFault};
pub(crate) use multiply_add::Multiplier;
pub(crate) use tensor::Tensor;
pub(crate) use thread_usage::{ThreadUsage, exit_immediately, thread_cpu_ns};
pub(crate) use tvm_runtime::{Runtime, release_memory};
pub(crate) use weights::{WeightsCache, WeightsFile};

use crate::failure::Failure;
use crate::schedule::{CheckedSchedule, CheckedStage};
use onnxruntime::OnnxRuntimeEngine;
use protocol::{Processor, Program};
use std::sync::Arc;
use tvm::TvmEngine;

/// Loads the engine of a stage on the calling thread, which is the only one that may use it. The calling thread and the
/// engine's own ones are bound to the stage's CPUs.
pub(crate) fn load(
    schedule: &CheckedSchedule,
    stage: &CheckedStage,
    weights: Option<&Arc<WeightsFile>>,
) -> Result<Box<dyn Engine>, Failure> {
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
        (program, processor) => {
            return Err(Failure::request(format!(
                "failed to load {}: this runner has no engine for it on processor {}",
                program.path(),
                processor.name()
            )));
        }
    })
}
