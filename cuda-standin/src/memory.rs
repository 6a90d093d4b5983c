//! Device memory: allocations at addresses that no pointer of the host has.
//!
//! An address of the device is not one of the host, so a program that mixes them up is noticed. Allocations are far
//! apart and an address is never used again: an access beyond an allocation hits no other. Fresh memory is filled with
//! bytes 0xff, which are NaN in every floating-point type.

use crate::fault::{Code, Fault};
use std::alloc::{Layout, alloc, dealloc};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Generic addresses of shared memory begin here.
pub const SHARED_WINDOW: u64 = 0x1000_0000_0000;
/// Generic addresses of local memory begin here.
pub const LOCAL_WINDOW: u64 = 0x1100_0000_0000;
/// Size of a window.
pub const WINDOW_BYTES: u64 = 1 << 30;
/// The first allocation.
const FIRST: u64 = 0x2000_0000_0000;
/// Unused addresses between two allocations.
const GAP: u64 = 64 << 20;
/// Alignment of allocations, as the driver has it.
const ALIGN: u64 = 512;
/// Largest allocation: the interpreter computes offsets of 32 bits.
const MOST: u64 = 4 << 30;
/// What fresh memory contains.
pub const FRESH: u8 = 0xff;

/// A block of memory of the host, aligned for all types.
#[derive(Debug)]
pub struct Buffer {
    start: *mut u8,
    layout: Layout,
}

// SAFETY: it owns its memory like a `Vec`.
unsafe impl Send for Buffer {}
// SAFETY: sharing it gives a pointer only; those who use it take care of each other, as kernels of a GPU must.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// A block filled with one byte; nothing if the host has no such memory.
    pub fn filled(bytes: usize, byte: u8) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(1), 4096).ok()?;
        // SAFETY: the size is not zero.
        let start = unsafe { alloc(layout) };
        if start.is_null() {
            return None;
        }
        // SAFETY: the block has this size.
        unsafe { start.write_bytes(byte, layout.size()) };
        Some(Self { start, layout })
    }

    /// Where it begins.
    pub fn start(&self) -> *mut u8 {
        self.start
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start, self.layout) };
    }
}

/// What an allocation was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `cuMemAlloc`: addresses of the device only.
    Device,
    /// Host memory that the device can use at the same address.
    Host,
    /// Managed memory, at the same address on both sides.
    Managed,
}

/// An allocation.
#[derive(Debug)]
pub struct Allocation {
    /// First address.
    pub start: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// What for.
    pub kind: Kind,
    buffer: Buffer,
}

impl Allocation {
    /// Where the host has the byte at an address.
    pub fn host(&self, address: u64) -> *mut u8 {
        self.buffer.start().wrapping_add((address - self.start) as usize)
    }

    /// Whether it contains these bytes.
    pub fn contains(&self, address: u64, bytes: u64) -> bool {
        address >= self.start && bytes <= self.bytes && address - self.start <= self.bytes - bytes
    }
}

/// The allocations at a moment, by address.
pub type Snapshot = Arc<Vec<Arc<Allocation>>>;

/// The allocation in a snapshot that contains these bytes; `hint` is where the last one was.
pub fn find(allocations: &[Arc<Allocation>], address: u64, bytes: u64, hint: &mut usize) -> Option<usize> {
    if allocations.get(*hint).is_some_and(|allocation| allocation.contains(address, bytes)) {
        return Some(*hint);
    }
    let place = allocations.partition_point(|allocation| allocation.start <= address).checked_sub(1)?;
    if !allocations[place].contains(address, bytes) {
        return None;
    }
    *hint = place;
    Some(place)
}

/// Whether an address can only be one of the device.
pub fn is_of_device(address: u64) -> bool {
    (SHARED_WINDOW..FIRST + (1 << 44)).contains(&address)
}

/// All memory of a device.
#[derive(Debug)]
pub struct Memory {
    capacity: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    allocations: Snapshot,
    next: u64,
    used: u64,
}

impl Memory {
    /// Memory of this size in bytes.
    pub fn new(capacity: u64) -> Self {
        Self { capacity, state: Mutex::new(State { allocations: Arc::default(), next: FIRST, used: 0 }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Free bytes and all bytes.
    pub fn info(&self) -> (u64, u64) {
        (self.capacity - self.state().used, self.capacity)
    }

    /// The present allocations.
    pub fn snapshot(&self) -> Snapshot {
        Arc::clone(&self.state().allocations)
    }

    /// Allocates memory and returns its first address.
    pub fn allocate(&self, bytes: u64, kind: Kind) -> Result<u64, Fault> {
        if bytes == 0 {
            return Err(Fault::new(Code::INVALID_VALUE, "failed to allocate 0 bytes"));
        }
        let mut state = self.state();
        let free = self.capacity - state.used;
        let out_of_memory = |free| {
            let message = format!(
                "failed to allocate {bytes} bytes of device memory: {free} of {} are free",
                self.capacity
            );
            Fault::new(Code::OUT_OF_MEMORY, message)
        };
        if bytes > free {
            return Err(out_of_memory(free));
        }
        if bytes > MOST {
            let message =
                format!("failed to allocate {bytes} bytes: the stand-in allocates at most {MOST} at once");
            return Err(Fault::new(Code::OUT_OF_MEMORY, message));
        }
        let buffer = usize::try_from(bytes).ok().and_then(|bytes| Buffer::filled(bytes, FRESH));
        let buffer = buffer.ok_or_else(|| out_of_memory(free))?;
        let start = match kind {
            Kind::Device => {
                let start = state.next;
                state.next = (start + bytes + GAP).next_multiple_of(ALIGN);
                start
            }
            Kind::Host | Kind::Managed => buffer.start() as u64,
        };
        state.used += bytes;
        let mut allocations = state.allocations.as_ref().clone();
        let place = allocations.partition_point(|allocation| allocation.start < start);
        allocations.insert(place, Arc::new(Allocation { start, bytes, kind, buffer }));
        state.allocations = Arc::new(allocations);
        Ok(start)
    }

    /// Frees the allocation that begins at an address.
    pub fn free(&self, start: u64, is_host: bool) -> Result<(), Fault> {
        let mut state = self.state();
        let found = state
            .allocations
            .iter()
            .position(|allocation| allocation.start == start && (allocation.kind == Kind::Host) == is_host);
        let Some(place) = found else {
            return Err(Fault::new(
                Code::INVALID_VALUE,
                format!("failed to free {start:#x}: no allocation begins there"),
            ));
        };
        let mut allocations = state.allocations.as_ref().clone();
        state.used -= allocations.remove(place).bytes;
        state.allocations = Arc::new(allocations);
        Ok(())
    }

    /// Frees everything.
    pub fn clear(&self) {
        let mut state = self.state();
        state.allocations = Arc::default();
        state.used = 0;
    }
}
