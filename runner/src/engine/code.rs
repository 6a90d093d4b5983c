//! What a stage executes, whichever engine it is of.

use super::{Library, OnnxSession, StageCode, Tensor, TensorSpec, WeightsFile};
use crate::failure::Failure;
use crate::wiring::{Program, StageWiring};
use std::sync::Arc;

/// A program ready to run. Stays on the thread that loaded it.
pub(crate) enum Code {
    /// A stage library in TVM's virtual machine.
    Stage(StageCode),
    /// A session of ONNX Runtime.
    Onnx(Box<OnnxSession>),
}

impl Code {
    /// Loads what a stage runs; `weights` is the file its library names.
    pub(crate) fn load(
        stage: &StageWiring,
        weights: Option<&Arc<WeightsFile>>,
        specs: &[TensorSpec],
    ) -> Result<Self, Failure> {
        match &stage.program {
            Program::Library(library) => {
                let weights = weights.ok_or_else(|| {
                    Failure::internal("failed to load a stage library: its weights are not mapped")
                })?;
                let tensors = weights.tensors(&library.weights)?;
                Ok(Self::Stage(Library::load(&library.path)?.machine(&library.entry, tensors, None)?))
            }
            Program::OnnxRuntime(model) => {
                let threads = stage.binding.threads;
                let session = OnnxSession::load(model, threads, &stage.inputs, &stage.outputs, specs)?;
                Ok(Self::Onnx(Box::new(session)))
            }
        }
    }

    /// Runs the stage: takes `inputs` from `values` and puts what it gives to `outputs` there.
    pub(crate) fn run(
        &mut self,
        values: &mut [Option<Tensor>],
        inputs: &[usize],
        outputs: &[usize],
    ) -> Result<(), String> {
        match self {
            Self::Stage(code) => code.run(values, inputs, outputs),
            Self::Onnx(session) => session.run(values),
        }
    }

    /// Compares what the stage gave with what the request says.
    pub(crate) fn check(
        &self,
        values: &[Option<Tensor>],
        outputs: &[usize],
        specs: &[TensorSpec],
    ) -> Result<(), Failure> {
        match self {
            Self::Stage(code) => code.check(values, outputs, specs),
            // A session compares each output with its specification as it takes it.
            Self::Onnx(_) => Ok(()),
        }
    }
}
