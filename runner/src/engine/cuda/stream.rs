//! Streams, which order copies and kernels, and events, which time them.

use super::api::{CallError, Handle};
use super::device::{Device, Memory};
use std::sync::Arc;

/// A stream of its own that does not wait for others. It belongs to the thread that created it.
pub(super) struct Stream {
    pub(super) device: Arc<Device>,
    pub(super) handle: Handle,
}

/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;

impl Stream {
    pub(super) fn new(device: &Arc<Device>) -> Result<Self, CallError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: `handle` is valid to write to.
        let created = unsafe { device.driver.api.stream_create(&raw mut handle, NON_BLOCKING) };
        created.map_err(|error| device.note(error))?;
        Ok(Self { device: Arc::clone(device), handle })
    }

    /// Starts to copy bytes to `offset` of device memory. They must stay valid until [`Stream::wait`] returns.
    ///
    /// # Panics
    /// In debug builds, if they do not fit there.
    pub(super) fn copy_to_device(&self, to: &Memory, offset: u64, from: &[u8]) -> Result<(), CallError> {
        debug_assert!(offset + from.len() as u64 <= to.bytes, "callers check sizes when they load a plan");
        let (address, source) = (to.address + offset, from.as_ptr().cast());
        // SAFETY: the range lies inside of the allocation, and the caller keeps the bytes until the stream has done the copy.
        let copied =
            unsafe { self.device.driver.api.copy_to_device(address, source, from.len(), self.handle) };
        copied.map_err(|error| self.device.note(error))
    }

    /// Copies all of `to` from `offset` of device memory, after all that the stream has to do before.
    pub(super) fn copy_to_host(
        &self,
        to: &mut [std::mem::MaybeUninit<u8>],
        from: &Memory,
        offset: u64,
    ) -> Result<(), CallError> {
        debug_assert!(offset + to.len() as u64 <= from.bytes, "callers check sizes when they load a plan");
        let (target, address) = (to.as_mut_ptr().cast(), from.address + offset);
        // SAFETY: the range lies inside of the allocation.
        let copied = unsafe { self.device.driver.api.copy_to_host(target, address, to.len(), self.handle) };
        // Also after an error: nothing may write to `to` once this has returned.
        let done = self.wait();
        copied.map_err(|error| self.device.note(error))?;
        done
    }

    /// Lets what is started from now on wait for an event that was recorded in another stream.
    pub(super) fn wait_for(&self, event: &Event) -> Result<(), CallError> {
        // SAFETY: both are alive and of the same context.
        let waits = unsafe { self.device.driver.api.stream_wait_event(self.handle, event.handle, 0) };
        waits.map_err(|error| self.device.note(error))
    }

    /// Sleeps until the device has done all that was started.
    pub(super) fn wait(&self) -> Result<(), CallError> {
        // SAFETY: the stream is alive.
        unsafe { self.device.driver.api.stream_wait(self.handle) }.map_err(|error| self.device.note(error))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.device.is_lost() {
            // SAFETY: the stream is alive, and nothing uses it afterwards.
            self.device.ended(unsafe { self.device.driver.api.stream_destroy(self.handle) });
        }
    }
}

/// `CU_EVENT_DISABLE_TIMING`.
const WITHOUT_TIME: u32 = 2;

/// A point in a stream, with a time unless it is for order alone.
pub(super) struct Event {
    device: Arc<Device>,
    handle: Handle,
}

impl Event {
    pub(super) fn new(device: &Arc<Device>) -> Result<Self, CallError> {
        Self::with_flags(device, 0)
    }

    pub(super) fn without_time(device: &Arc<Device>) -> Result<Self, CallError> {
        Self::with_flags(device, WITHOUT_TIME)
    }

    fn with_flags(device: &Arc<Device>, flags: u32) -> Result<Self, CallError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: `handle` is valid to write to.
        let created = unsafe { device.driver.api.event_create(&raw mut handle, flags) };
        created.map_err(|error| device.note(error))?;
        Ok(Self { device: Arc::clone(device), handle })
    }

    pub(super) fn record(&self, stream: &Stream) -> Result<(), CallError> {
        // SAFETY: both are alive and of the same context.
        let recorded = unsafe { self.device.driver.api.event_record(self.handle, stream.handle) };
        recorded.map_err(|error| self.device.note(error))
    }

    /// Time from an earlier event to this one, in ns, with a resolution of about 500 ns. Both must have been reached.
    pub(super) fn ns_since(&self, earlier: &Self) -> Result<u64, CallError> {
        let mut milliseconds = 0.0;
        // SAFETY: both are alive, and `milliseconds` is valid to write to.
        let asked = unsafe {
            self.device.driver.api.event_elapsed(&raw mut milliseconds, earlier.handle, self.handle)
        };
        asked.map_err(|error| self.device.note(error))?;
        let ns = (f64::from(milliseconds) * 1e6).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time, clamped")]
        Ok(ns.clamp(0.0, 1e18) as u64)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if !self.device.is_lost() {
            // SAFETY: the event is alive, and nothing uses it afterwards.
            self.device.ended(unsafe { self.device.driver.api.event_destroy(self.handle) });
        }
    }
}
