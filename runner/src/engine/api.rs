//! What every engine does.

use super::tensor::Tensor;
use crate::failure::Failure;
use protocol::CudaStage;
use std::rc::Rc;

/// Most frames that any engine has in flight.
pub(crate) const MOST_FRAMES_IN_FLIGHT: usize = 2;

/// The program of one stage, loaded and ready to run. It stays on the thread that loaded it.
pub(crate) trait Engine {
    /// Ids of the threads that compute the stage, the calling one first.
    fn threads(&self) -> &[u32];

    /// Runs one frame: reads the stage's inputs from `values` and writes its outputs there, both by the schedule's
    /// indices. The outputs are complete when it returns.
    ///
    /// # Errors
    /// A message that starts with "failed to" and names the program.
    fn run(&mut self, values: &mut [Option<Tensor>]) -> Result<(), String>;

    /// Most frames that may be started and not finished: at most [`MOST_FRAMES_IN_FLIGHT`].
    fn frames_in_flight(&self) -> usize {
        1
    }

    /// Starts a frame: the first half of [`Engine::run`]. `values` must stay as they are until [`Engine::finish`] has returned for
    /// this frame. Nothing is started if it fails.
    ///
    /// # Errors
    /// As [`Engine::run`].
    fn start(&mut self, values: &mut [Option<Tensor>]) -> Result<(), String> {
        self.run(values)
    }

    /// Finishes the oldest frame that was started: its outputs are in `values` when it returns.
    ///
    /// # Errors
    /// As [`Engine::run`].
    fn finish(&mut self, _values: &mut [Option<Tensor>]) -> Result<(), String> {
        Ok(())
    }

    /// Runs one frame as [`Engine::run`] does and times each kernel call. The first call also loads what is needed for
    /// timing.
    ///
    /// # Errors
    /// If the engine does not report kernel times, if the frame fails, or if the kernel calls differ from those of the
    /// first profiled frame.
    fn profile(&mut self, values: &mut [Option<Tensor>]) -> Result<FrameProfile, Failure>;

    /// The stage's use of a GPU; `None` if it runs on CPUs.
    fn cuda(&self) -> Option<CudaStage> {
        None
    }
}

/// One profiled frame.
#[derive(Debug)]
pub(crate) struct FrameProfile {
    /// Duration of the whole frame, in ns.
    pub(crate) frame_ns: u64,
    /// Kernel calls in execution order.
    pub(crate) calls: Vec<KernelCall>,
}

#[derive(Debug)]
pub(crate) struct KernelCall {
    pub(crate) function: Rc<str>,
    pub(crate) ns: u64,
}
