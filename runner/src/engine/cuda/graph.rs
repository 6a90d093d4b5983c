//! All launches of a frame as one graph, which costs the driver less time than the launches one by one.

use super::api::{CallError, GraphApi, Handle};
use super::device::Device;
use super::stream::Stream;
use std::sync::Arc;

/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`: other stage threads may call the driver meanwhile.
const THREAD_LOCAL: i32 = 1;

pub(super) struct Graph {
    device: Arc<Device>,
    api: &'static GraphApi,
    executable: Handle,
}

impl Graph {
    /// Captures what `start` starts on a stream, without executing it. `None` if the driver has no graphs.
    ///
    /// # Errors
    /// If the driver cannot capture or instantiate it; the launches may still work one by one.
    pub(super) fn capture(
        device: &Arc<Device>,
        start: impl FnOnce(&Stream) -> Result<(), CallError>,
    ) -> Result<Option<Self>, CallError> {
        let Some(api) = &device.driver.graphs else { return Ok(None) };
        // A stream of its own, so that a capture that fails leaves nothing behind.
        let stream = Stream::new(device)?;
        let mut graph = std::ptr::null_mut();
        // SAFETY: the stream is alive and idle.
        unsafe { api.capture.begin_capture(stream.handle, THREAD_LOCAL) }
            .map_err(|error| device.note(error))?;
        let started = start(&stream);
        // SAFETY: the stream is being captured. This ends the capture even if it failed.
        let ended = unsafe { api.capture.end_capture(stream.handle, &raw mut graph) };
        started?;
        ended.map_err(|error| device.note(error))?;
        // SAFETY: the graph is alive, and its executable does not need it afterwards.
        let executable = unsafe {
            let executable = api.instantiate(graph);
            api.capture.graph_destroy(graph).ok();
            executable
        };
        let executable = executable.map_err(|error| device.note(error))?;
        Ok(Some(Self { device: Arc::clone(device), api, executable }))
    }

    pub(super) fn start(&self, stream: &Stream) -> Result<(), CallError> {
        // SAFETY: the executable is alive; its kernels and their memory are owned by the engine that owns `self`.
        unsafe { self.api.capture.graph_launch(self.executable, stream.handle) }
            .map_err(|error| self.device.note(error))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if !self.device.is_lost() {
            // SAFETY: the executable is alive, and nothing uses it afterwards.
            self.device.ended(unsafe { self.api.capture.executable_destroy(self.executable) });
        }
    }
}
