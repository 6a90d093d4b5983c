//! Copies between host and device memory, for timing hand-overs.

use super::device::{Device, Memory};
use super::stream::Stream;
use crate::affinity::bind_to_first;
use crate::failure::Failure;
use protocol::{CudaProcessor, Processor};
use std::mem::MaybeUninit;
use std::sync::atomic::AtomicU64;

/// A buffer in device memory and a stream that copies it, as a stage does with its inputs and outputs. It belongs to the
/// thread that created it.
pub(crate) struct Copies {
    stream: Stream,
    memory: Memory,
}

impl Copies {
    /// Binds the calling thread to the first CPU that feeds the device, and allocates a buffer for `words` there.
    pub(crate) fn new(processor: &CudaProcessor, words: &[AtomicU64]) -> Result<Self, Failure> {
        bind_to_first(&Processor::Cuda(processor.clone()))?;
        let device = Device::open(processor.device, &format!("processor {}", processor.name))?;
        let stream = Stream::new(&device).map_err(|error| {
            Failure::device(format!("failed to prepare GPU {}: {}", device.index, device.describe(error)))
        })?;
        let memory = device.allocate(size_of_val(words) as u64, "a hand-over")?;
        let copies = Self { stream, memory };
        // Device memory has no content yet, and a driver may clear it when it is first read.
        let zeros = vec![0; size_of_val(words)];
        let cleared =
            copies.stream.copy_to_device(&copies.memory, 0, &zeros).and_then(|()| copies.stream.wait());
        cleared.map_err(|error| copies.failed("to", error))?;
        Ok(copies)
    }

    /// Copies words, at most as many as the buffer holds, to the device. Nothing may write to them meanwhile.
    pub(crate) fn to_device(&self, words: &[AtomicU64]) -> Result<(), Failure> {
        // SAFETY: the words are initialized, and as the caller keeps others from writing, they do not change.
        let bytes = unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), size_of_val(words)) };
        let copied = self.stream.copy_to_device(&self.memory, 0, bytes).and_then(|()| self.stream.wait());
        copied.map_err(|error| self.failed("to", error))
    }

    /// Copies the start of the buffer to host memory. Nothing may access the words meanwhile.
    pub(crate) fn to_host(&self, words: &[AtomicU64]) -> Result<(), Failure> {
        let start = words.as_ptr().cast::<MaybeUninit<u8>>().cast_mut();
        // SAFETY: atomics may be written through a shared reference, and the caller keeps others from accessing them; the copy
        // writes initialized bytes only.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start, size_of_val(words)) };
        self.stream.copy_to_host(bytes, &self.memory, 0).map_err(|error| self.failed("from", error))
    }

    fn failed(&self, direction: &str, error: super::api::CallError) -> Failure {
        let device = &self.stream.device;
        Failure::device(format!(
            "failed to copy {} bytes {direction} GPU {}: {}",
            self.memory.bytes,
            device.index,
            device.describe(error)
        ))
    }
}
