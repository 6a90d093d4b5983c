//! Kernels as the interpreter runs them.

use crate::lanes::{Class, Operands, Run};
use crate::ptx::module::Space;

/// A kernel.
#[derive(Debug)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Offset and size of each parameter, in bytes.
    pub parameters: Vec<(usize, usize)>,
    /// Most threads of a block.
    pub max_threads: Option<u64>,
    /// The shape of each block, if the kernel demands one.
    pub required_block: Option<[u64; 3]>,
    /// Shared memory of a block, in bytes.
    pub shared_bytes: usize,
    /// Local memory of a thread, in bytes.
    pub local_bytes: usize,
    /// Size of a group's register file, in bytes.
    pub register_bytes: usize,
    /// Registers that have their value before the kernel starts.
    pub presets: Vec<(u32, Class, Preset)>,
    /// In the order of the text; the last one returns.
    pub instructions: Vec<Instruction>,
}

/// The value of a register that no instruction writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// The same for all threads.
    Constant(u64),
    /// `%tid` by axis.
    Thread(usize),
    /// `%ctaid` by axis.
    Block(usize),
    /// `%ntid` by axis.
    BlockExtent(usize),
    /// `%nctaid` by axis.
    GridExtent(usize),
    /// `%laneid`.
    LaneInWarp,
    /// `%warpid`.
    Warp,
}

/// An instruction. It is small, because a loop of hundreds of them should stay in the first-level cache.
#[derive(Debug, Clone)]
pub struct Instruction {
    /// What it does.
    pub action: Action,
    /// A predicate that must be set, or with `true`, unset.
    pub guard: Option<(u32, bool)>,
    /// Line in the PTX, from 1.
    pub line: u32,
}

/// A place for a result of which some lanes are kept only. Sources that an operation does not have point to it too.
pub const SCRATCH: u32 = 0;

/// What an instruction does. Registers are byte offsets in the register file.
#[derive(Debug, Clone)]
pub enum Action {
    /// An operation on registers, whose result has this class.
    Compute(Run, Class, Operands),
    /// `ld.param` of one value at an offset in the parameters.
    Parameter {
        /// Register.
        result: u32,
        /// Its class.
        class: Class,
        /// Offset in bytes.
        offset: u32,
        /// Size in bytes.
        bytes: u8,
        /// Whether a smaller value keeps its sign.
        is_signed: bool,
    },
    /// `ld` from memory.
    Load(Box<Access>),
    /// `st` to memory.
    Store(Box<Access>),
    /// `atom` and `red`.
    Atomic(Box<Atomic>),
    /// `shfl.sync`.
    Shuffle(Box<Shuffle>),
    /// `vote.sync` and `activemask`.
    Vote {
        /// What is asked.
        vote: Vote,
        /// Register: a predicate, or 32 bits for a ballot.
        result: u32,
        /// A predicate.
        source: u32,
    },
    /// `bra`: to an instruction; its two paths join at `join`.
    Branch {
        /// Number of an instruction.
        target: u32,
        /// Number of an instruction, or the number of all instructions if they do not meet.
        join: u32,
    },
    /// `bar.sync`: waits for all threads of the block.
    Barrier,
    /// `bar.warp.sync`, and fences between threads.
    Fence,
    /// `ret`, `exit`.
    Return,
    /// `trap`.
    Trap,
}

/// A load or a store of one to four values per thread.
#[derive(Debug, Clone)]
pub struct Access {
    /// Where.
    pub space: Space,
    /// Size of a value in bytes: 1, 2, 4 or 8.
    pub bytes: usize,
    /// Whether a loaded value keeps its sign in a larger register.
    pub is_signed: bool,
    /// Class of the registers.
    pub class: Class,
    /// Values per thread: 1, 2 or 4.
    pub count: usize,
    /// Registers of the values.
    pub registers: [u32; 4],
    /// Register of the address.
    pub address: u32,
    /// Added to the address.
    pub offset: i64,
}

/// An atomic operation on memory.
#[derive(Debug, Clone)]
pub struct Atomic {
    /// From the old value and the two operands to the new value.
    pub update: fn(u64, u64, u64) -> u64,
    /// Where; one value, whose register receives the old one.
    pub access: Access,
    /// Register of the operand.
    pub operand: u32,
    /// Register of the second operand of `cas`; otherwise that of the first.
    pub second: u32,
}

/// Exchanges values between the threads of a warp.
#[derive(Debug, Clone)]
pub struct Shuffle {
    /// From which lane.
    pub mode: ShuffleMode,
    /// Register of the result.
    pub result: u32,
    /// Predicate: whether the source lane was in range.
    pub in_range: u32,
    /// Register of the value.
    pub source: u32,
    /// Register of the distance, mask or lane.
    pub by: u32,
    /// Register of clamp and segment mask.
    pub clamp: u32,
}

/// How `shfl` computes the source lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShuffleMode {
    /// Own lane minus the operand.
    Up,
    /// Own lane plus the operand.
    Down,
    /// Own lane exclusive-or the operand.
    Butterfly,
    /// The operand.
    Index,
}

/// What `vote` asks of the threads of a warp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vote {
    /// Whether it holds for all.
    All,
    /// Whether it holds for any.
    Any,
    /// For which ones it holds.
    Ballot,
}

impl Instruction {
    /// Shows each register of the instruction, sources before results.
    pub fn visit(&mut self, mut visit: impl FnMut(&mut u32, Role)) {
        if let Some((predicate, _)) = &mut self.guard {
            visit(predicate, Role::Source);
        }
        match &mut self.action {
            Action::Compute(_, _, [result, sources @ ..]) => {
                for source in sources {
                    visit(source, Role::Source);
                }
                visit(result, Role::Result);
            }
            Action::Parameter { result, .. } => visit(result, Role::Result),
            Action::Load(access) => {
                visit(&mut access.address, Role::Source);
                access.registers[..access.count]
                    .iter_mut()
                    .for_each(|register| visit(register, Role::Result));
            }
            Action::Store(access) => {
                visit(&mut access.address, Role::Source);
                access.registers[..access.count]
                    .iter_mut()
                    .for_each(|register| visit(register, Role::Source));
            }
            Action::Atomic(atomic) => {
                visit(&mut atomic.access.address, Role::Source);
                visit(&mut atomic.operand, Role::Source);
                visit(&mut atomic.second, Role::Source);
                visit(&mut atomic.access.registers[0], Role::Result);
            }
            Action::Shuffle(shuffle) => {
                for source in [&mut shuffle.source, &mut shuffle.by, &mut shuffle.clamp] {
                    visit(source, Role::Source);
                }
                visit(&mut shuffle.result, Role::Result);
                visit(&mut shuffle.in_range, Role::Result);
            }
            Action::Vote { result, source, .. } => {
                visit(source, Role::Source);
                visit(result, Role::Result);
            }
            Action::Branch { .. } | Action::Barrier | Action::Fence | Action::Return | Action::Trap => {}
        }
    }
}

/// What an instruction does with a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads it.
    Source,
    /// Writes it.
    Result,
}
