//! Who read and wrote each word of memory since the last barrier, to find races.
//!
//! Two accesses to a word race if one of them writes, they come from different threads, and no barrier orders them: a
//! barrier orders the threads of a block, and the end of a launch orders everything.

use std::collections::HashMap;

/// Who accesses memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thread {
    /// Number of the block in the grid.
    pub block: u32,
    /// Barriers that the block has passed.
    pub phase: u32,
    /// Number of the thread in the block.
    pub number: u32,
}

/// The other side of a race.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Race {
    /// Whether the other one wrote.
    pub wrote: bool,
    /// Its block, if it was one only.
    pub block: Option<u32>,
    /// Its thread, if it was one only.
    pub thread: Option<u32>,
}

/// Several blocks, or several threads.
const MANY: u32 = u32::MAX;
/// Bits for the number of a thread, and the mark for several.
const THREAD_BITS: u32 = 11;
const MANY_THREADS: u32 = (1 << THREAD_BITS) - 1;

/// A thread, or several, in eight bytes.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Number of the block plus one; 0: no block.
    block: u32,
    /// Phase and thread.
    step: u32,
}

const NOBODY: Seen = Seen { block: 0, step: 0 };

impl Seen {
    fn one(thread: Thread) -> Self {
        Self { block: thread.block + 1, step: thread.phase << THREAD_BITS | thread.number }
    }

    /// Whether an access of `thread` is not ordered after this one.
    fn races_with(self, thread: Thread) -> bool {
        let own = Self::one(thread);
        let is_other_block = self.block != 0 && self.block != own.block;
        let is_same_phase = self.step >> THREAD_BITS == thread.phase;
        is_other_block || self.block != 0 && is_same_phase && self.step != own.step
    }

    fn race(self, wrote: bool) -> Race {
        let thread = self.step & MANY_THREADS;
        let block = (self.block != MANY).then(|| self.block - 1);
        Race { wrote, block, thread: (block.is_some() && thread != MANY_THREADS).then_some(thread) }
    }
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    epoch: u32,
    writer: Seen,
    reader: Seen,
}

/// The record of one piece of memory.
#[derive(Debug)]
pub struct Shadow {
    cells: Vec<Cell>,
    bytes: usize,
    /// Bytes that share a cell: 4, or 1 once a part of a word was accessed.
    unit: usize,
}

impl Shadow {
    /// A record without accesses. Epochs begin at 1.
    pub fn new(bytes: usize) -> Self {
        let cell = Cell { epoch: 0, writer: NOBODY, reader: NOBODY };
        Self { cells: vec![cell; bytes.div_ceil(4)], bytes, unit: 4 }
    }

    /// Records an access to `bytes` bytes at an offset. Accesses of other epochs are forgotten.
    pub fn access(
        &mut self,
        offset: usize,
        bytes: usize,
        writes: bool,
        thread: Thread,
        epoch: u32,
    ) -> Result<(), Race> {
        if self.unit == 4 && !(offset.is_multiple_of(4) && bytes.is_multiple_of(4)) {
            self.cells = self.cells.iter().flat_map(|cell| [*cell; 4]).take(self.bytes).collect();
            self.unit = 1;
        }
        let range = offset / self.unit..(offset + bytes) / self.unit;
        for cell in self.cells.get_mut(range).into_iter().flatten() {
            if cell.epoch != epoch {
                *cell = Cell { epoch, writer: NOBODY, reader: NOBODY };
            }
            if cell.writer.races_with(thread) {
                return Err(cell.writer.race(true));
            }
            let own = Seen::one(thread);
            if writes {
                if cell.reader.races_with(thread) {
                    return Err(cell.reader.race(false));
                }
                cell.writer = own;
            } else if cell.reader.block == 0
                || cell.reader.block == own.block && cell.reader.step >> THREAD_BITS != thread.phase
            {
                cell.reader = own;
            } else if cell.reader.block != own.block {
                cell.reader.block = MANY;
            } else if cell.reader.step != own.step {
                cell.reader.step = thread.phase << THREAD_BITS | MANY_THREADS;
            }
        }
        Ok(())
    }
}

/// Records of accesses, in the checked mode.
#[derive(Debug)]
pub struct Checks<'s> {
    /// By the first address of an allocation; kept from launch to launch.
    pub(crate) allocations: &'s mut HashMap<u64, Shadow>,
    /// Number of the launch.
    pub(crate) epoch: u32,
    /// Of the block at work.
    pub(crate) shared: Shadow,
    /// Blocks so far: the epoch of shared memory.
    pub(crate) blocks: u32,
}

impl<'s> Checks<'s> {
    /// Checks of the launch with this number, from 1.
    pub fn new(allocations: &'s mut HashMap<u64, Shadow>, epoch: u32) -> Self {
        Self { allocations, epoch, shared: Shadow::new(0), blocks: 0 }
    }

    /// Begins a block, whose shared memory nobody has accessed.
    pub(crate) fn begin_block(&mut self, shared_bytes: usize) {
        if self.blocks == 0 {
            self.shared = Shadow::new(shared_bytes);
        }
        self.blocks += 1;
    }
}
