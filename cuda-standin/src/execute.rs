//! Runs one block of a kernel: groups of threads in lock-step, which wait for each other at barriers.
//!
//! If the threads of a group diverge, the paths run one after the other and join at the branch's immediate post-dominator. A
//! group runs until it meets a barrier; then it is the next group's turn.

use crate::fault::{Code, Fault};
use crate::lanes::{ALL, Class, LANES, Mask, copy_lanes, lanes_of, lanes_that_are_set};
use crate::memory::{Buffer, FRESH, Snapshot};
use crate::program::{Action, Instruction, Preset, Program, SCRATCH, Shuffle, ShuffleMode, Vote};
use crate::shadow::Checks;

/// A kernel with its arguments.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// The kernel.
    pub program: &'a Program,
    /// Blocks by axis.
    pub grid: [u32; 3],
    /// Threads of a block by axis.
    pub block: [u32; 3],
    /// Bytes of the parameters.
    pub parameters: &'a [u8],
    /// What the kernel can access.
    pub memory: &'a Snapshot,
}

impl Work<'_> {
    /// Threads of a block.
    pub fn threads(&self) -> usize {
        self.block.iter().map(|extent| *extent as usize).product()
    }
}

/// What a kernel did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Launches.
    pub launches: u64,
    /// Blocks.
    pub blocks: u64,
    /// Instructions, one per thread that ran it.
    pub thread_instructions: u64,
    /// Instructions, one per warp in which a thread ran it.
    pub warp_instructions: u64,
    /// Sectors of 32 bytes of global memory that warps accessed; counted in the checked mode only.
    pub global_sectors: u64,
    /// Passes through the 32 banks of shared memory; counted in the checked mode only.
    pub shared_wavefronts: u64,
}

impl Counts {
    /// Adds another count.
    pub fn add(&mut self, other: &Self) {
        self.launches += other.launches;
        self.blocks += other.blocks;
        self.thread_instructions += other.thread_instructions;
        self.warp_instructions += other.warp_instructions;
        self.global_sectors += other.global_sectors;
        self.shared_wavefronts += other.shared_wavefronts;
    }
}

/// Threads in lock-step.
pub(crate) struct Group {
    pub(crate) registers: Buffer,
    pub(crate) local: Buffer,
    /// Number of the first thread in the block.
    pub(crate) first: usize,
    /// The paths that threads are on; the last one runs.
    ways: Vec<Way>,
    /// Threads that exist.
    existing: Mask,
    /// Threads that have not returned.
    live: Mask,
}

#[derive(Debug, Clone, Copy)]
struct Way {
    next: usize,
    /// Where it ends, and the threads continue with the entry below.
    join: usize,
    mask: Mask,
}

impl Group {
    /// The values of a register.
    pub(crate) fn lanes<T: Copy>(&self, register: u32) -> [T; LANES] {
        // SAFETY: registers lie in the file, with their class's size for each lane.
        unsafe { self.registers.start().add(register as usize).cast::<[T; LANES]>().read() }
    }

    /// Address of the values of a register.
    pub(crate) fn register<T>(&self, register: u32) -> *mut T {
        self.registers.start().wrapping_add(register as usize).cast()
    }

    fn set<T: Copy>(&self, register: u32, mask: Mask, values: impl Fn(usize) -> T) {
        // SAFETY: as above.
        let write = |lane: usize| unsafe { self.register::<T>(register).add(lane).write(values(lane)) };
        if mask == ALL {
            (0..LANES).for_each(write);
        } else {
            lanes_of(mask).for_each(write);
        }
    }

    fn set_class(&self, register: u32, class: Class, mask: Mask, values: impl Fn(usize) -> u64) {
        match class {
            Class::Predicate => self.set(register, mask, |lane| values(lane) as u8),
            Class::B16 => self.set(register, mask, |lane| values(lane) as u16),
            Class::B32 => self.set(register, mask, |lane| values(lane) as u32),
            Class::B64 => self.set(register, mask, values),
        }
    }
}

/// Why a group stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// It is at the barrier with this number of an instruction.
    Barrier(usize),
    /// All threads have returned.
    Done,
}

/// Runs blocks of a launch, one after the other.
pub struct Runner<'w> {
    pub(crate) work: Work<'w>,
    groups: Vec<Group>,
    pub(crate) shared: Buffer,
    /// What is checked, in the checked mode.
    pub(crate) checks: Option<Checks<'w>>,
    /// What the blocks did so far.
    pub counts: Counts,
    /// Where the last allocation was found.
    pub(crate) hint: usize,
    /// The block at work.
    pub(crate) block: u32,
    /// Barriers it has passed.
    pub(crate) phase: u32,
}

impl<'w> Runner<'w> {
    /// Takes memory for the registers of a block.
    pub fn new(work: Work<'w>, checks: Option<Checks<'w>>) -> Result<Self, Fault> {
        let out_of_memory =
            || Fault::new(Code::OUT_OF_MEMORY, "failed to allocate registers: no memory on the host");
        let threads = work.threads();
        let group = |first: usize| {
            let count = (threads - first).min(LANES);
            let existing = if count == LANES { ALL } else { (1 << count) - 1 };
            let registers = Buffer::filled(work.program.register_bytes, 0).ok_or_else(out_of_memory)?;
            let local = Buffer::filled(work.program.local_bytes * LANES, FRESH).ok_or_else(out_of_memory)?;
            let group = Group { registers, local, first, ways: Vec::new(), existing, live: 0 };
            set_presets(&group, &work, None);
            Ok(group)
        };
        let groups = (0..threads).step_by(LANES).map(group).collect::<Result<_, Fault>>()?;
        let shared = Buffer::filled(work.program.shared_bytes, FRESH).ok_or_else(out_of_memory)?;
        let counts = Counts::default();
        Ok(Self { work, groups, shared, checks, counts, hint: 0, block: 0, phase: 0 })
    }

    /// Runs a block.
    pub fn run(&mut self, block: u32) -> Result<(), Fault> {
        self.block = block;
        self.phase = 0;
        self.counts.blocks += 1;
        // SAFETY: the buffer has this size.
        unsafe { self.shared.start().write_bytes(FRESH, self.work.program.shared_bytes) };
        if let Some(checks) = &mut self.checks {
            checks.begin_block(self.work.program.shared_bytes);
        }
        let end = self.work.program.instructions.len();
        let mut groups = std::mem::take(&mut self.groups);
        for group in &mut groups {
            group.live = group.existing;
            group.ways.clear();
            group.ways.push(Way { next: 0, join: end, mask: group.existing });
            set_presets(group, &self.work, Some(block));
        }
        let result = self.run_groups(&mut groups);
        self.groups = groups;
        result
    }

    fn run_groups(&mut self, groups: &mut [Group]) -> Result<(), Fault> {
        loop {
            let mut barrier = None;
            for group in groups.iter_mut().filter(|group| group.live != 0) {
                let Stop::Barrier(number) = self.advance(group)? else { continue };
                if *barrier.get_or_insert(number) != number && self.checks.is_some() {
                    let other = self.work.program.instructions[barrier.unwrap_or(number)].line;
                    let message = format!(
                        "waits at a barrier while other threads of the block wait at that of line {other}"
                    );
                    return Err(self.fault(Code::LAUNCH_FAILED, group, group.live, number, &message));
                }
            }
            if barrier.is_none() {
                return Ok(());
            }
            self.phase += 1;
        }
    }

    /// Runs a group to its next barrier, or to the end.
    fn advance(&mut self, group: &mut Group) -> Result<Stop, Fault> {
        let program = self.work.program;
        while let Some(way) = group.ways.last().copied() {
            let Way { mut next, join, mask } = way;
            // Threads whose guard does not hold take part all the same, as they do in a GPU.
            let threads = u64::from(mask.count_ones());
            let warps = u64::from(mask as u32 != 0) + u64::from(mask >> 32 != 0);
            loop {
                if next == join {
                    group.ways.pop();
                    break;
                }
                let instruction = &program.instructions[next];
                let mut active = mask;
                if let Some((predicate, is_negated)) = instruction.guard {
                    let set = lanes_that_are_set(&group.lanes(predicate));
                    active &= if is_negated { !set } else { set };
                }
                self.counts.thread_instructions += threads;
                self.counts.warp_instructions += warps;
                match &instruction.action {
                    Action::Compute(run, class, operands) => {
                        let registers = group.registers.start();
                        // Lanes that have returned may get any value, so that usually all lanes are written.
                        // SAFETY: the instruction's registers are in this program's register file.
                        unsafe {
                            if active == group.live {
                                run(registers, operands);
                            } else {
                                let [result, sources @ ..] = *operands;
                                let [a, b, c, e] = sources;
                                run(registers, &[SCRATCH, a, b, c, e]);
                                copy_lanes(registers, *class, SCRATCH, result, active);
                            }
                        }
                    }
                    Action::Branch { target, join: meeting } => {
                        let (target, meeting) = (*target as usize, *meeting as usize);
                        let others = mask & !active;
                        if others == 0 {
                            next = target;
                            continue;
                        }
                        if active != 0 {
                            part(&mut group.ways, (next + 1, others), (target, active), meeting);
                            break;
                        }
                    }
                    Action::Barrier if active == group.live => {
                        if let Some(way) = group.ways.last_mut() {
                            way.next = next + 1;
                        }
                        return Ok(Stop::Barrier(next));
                    }
                    Action::Barrier => {
                        let missing = group.live & !active;
                        let message = "has not come to a barrier at which other threads of its warp wait";
                        return Err(self.fault(Code::LAUNCH_FAILED, group, missing, next, message));
                    }
                    Action::Return => {
                        group.live &= !active;
                        group.ways.iter_mut().for_each(|way| way.mask &= !active);
                        if let Some(way) = group.ways.last_mut() {
                            way.next = next + 1;
                        }
                        if mask & !active == 0 {
                            group.ways.pop();
                        }
                        break;
                    }
                    _ if active == 0 => {}
                    Action::Trap => {
                        return Err(self.fault(Code::LAUNCH_FAILED, group, active, next, "ran into a trap"));
                    }
                    _ => self.other(group, instruction, active, next)?,
                }
                next += 1;
            }
        }
        Ok(Stop::Done)
    }

    /// What is not an operation on registers of one thread.
    fn other(
        &mut self,
        group: &mut Group,
        instruction: &Instruction,
        active: Mask,
        number: usize,
    ) -> Result<(), Fault> {
        match &instruction.action {
            Action::Load(access) => self.load(group, access, active, number),
            Action::Store(access) => self.store(group, access, active, number),
            Action::Atomic(atomic) => self.atomic(group, atomic, active, number),
            Action::Parameter { result, class, offset, bytes, is_signed } => {
                let mut raw = [0; 8];
                let range = *offset as usize..*offset as usize + usize::from(*bytes);
                let source = self.work.parameters.get(range).unwrap_or_default();
                raw[..source.len()].copy_from_slice(source);
                let mut value = u64::from_le_bytes(raw);
                if *is_signed {
                    let unused = 64 - 8 * u32::from(*bytes);
                    value = ((value << unused) as i64 >> unused) as u64;
                }
                group.set_class(*result, *class, active, |_| value);
                Ok(())
            }
            Action::Shuffle(shuffle) => {
                exchange(group, shuffle, active);
                Ok(())
            }
            Action::Vote { vote, result, source } => {
                let set = lanes_that_are_set(&group.lanes(*source)) & active;
                for warp in [0, 32] {
                    let lanes = active & 0xffff_ffff << warp;
                    match vote {
                        Vote::All => group.set(*result, lanes, |_| u8::from(set & lanes == lanes)),
                        Vote::Any => group.set(*result, lanes, |_| u8::from(set & lanes != 0)),
                        Vote::Ballot => group.set(*result, lanes, |_| (set >> warp) as u32),
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A fault in the first thread of a mask.
    pub(crate) fn fault(&self, code: Code, group: &Group, mask: Mask, number: usize, what: &str) -> Fault {
        let [x, y, z] = coordinates(self.block, self.work.grid);
        let thread = (group.first + mask.trailing_zeros() as usize) as u32;
        let [tx, ty, tz] = coordinates(thread, self.work.block);
        let line = self.work.program.instructions[number].line;
        let name = &self.work.program.name;
        let message = format!(
            "kernel {name}, PTX line {line}: thread ({tx}, {ty}, {tz}) of block ({x}, {y}, {z}) {what}"
        );
        Fault::new(code, message)
    }
}

/// Sends threads on two paths, which join at `meeting`. The second one runs first.
fn part(ways: &mut Vec<Way>, first: (usize, Mask), second: (usize, Mask), meeting: usize) {
    let Some(way) = ways.last_mut() else { return };
    if way.join == meeting {
        ways.pop();
    } else {
        way.next = meeting;
    }
    for (next, mask) in [first, second] {
        if next != meeting {
            ways.push(Way { next, join: meeting, mask });
        }
    }
}

/// Coordinates of a number, the first axis fastest.
pub(crate) fn coordinates(number: u32, extents: [u32; 3]) -> [u32; 3] {
    let [x, y, _] = extents;
    [number % x, number / x % y, number / x / y]
}

/// Writes the registers that have a value before the kernel starts: those of the launch, or those of a block.
fn set_presets(group: &Group, work: &Work<'_>, block: Option<u32>) {
    for (register, class, preset) in &work.program.presets {
        if matches!(preset, Preset::Block(_)) != block.is_some() {
            continue;
        }
        let place = coordinates(block.unwrap_or(0), work.grid);
        group.set_class(*register, *class, ALL, |lane| {
            let thread = (group.first + lane) as u32;
            match *preset {
                Preset::Constant(value) => value,
                Preset::Thread(axis) => coordinates(thread, work.block)[axis].into(),
                Preset::Block(axis) => place[axis].into(),
                Preset::BlockExtent(axis) => work.block[axis].into(),
                Preset::GridExtent(axis) => work.grid[axis].into(),
                Preset::LaneInWarp => (thread % 32).into(),
                Preset::Warp => (thread / 32).into(),
            }
        });
    }
}

/// `shfl.sync`, by the formula of the PTX ISA. A source lane that is not active gives its present value.
fn exchange(group: &Group, shuffle: &Shuffle, active: Mask) {
    let values: [u32; LANES] = group.lanes(shuffle.source);
    let by: [u32; LANES] = group.lanes(shuffle.by);
    let clamp: [u32; LANES] = group.lanes(shuffle.clamp);
    let source_of = |lane: usize| {
        let (warp, lane, by) = (lane & !31, (lane & 31) as u32, by[lane] & 31);
        let clamp_of = clamp[warp + lane as usize];
        let (clamp, segments) = (clamp_of & 31, clamp_of >> 8 & 31);
        let highest = (lane & segments) | (clamp & !segments);
        let lowest = lane & segments;
        let (source, in_range) = match shuffle.mode {
            ShuffleMode::Up => (lane.wrapping_sub(by), lane as i32 - by as i32 >= highest as i32),
            ShuffleMode::Down => (lane + by, lane + by <= highest),
            ShuffleMode::Butterfly => (lane ^ by, lane ^ by <= highest),
            ShuffleMode::Index => {
                let source = lowest | (by & !segments);
                (source, source <= highest)
            }
        };
        (warp + if in_range { source & 31 } else { lane } as usize, in_range)
    };
    group.set(shuffle.result, active, |lane| values[source_of(lane).0]);
    group.set(shuffle.in_range, active, |lane| u8::from(source_of(lane).1));
}
