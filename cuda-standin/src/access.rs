//! Loads, stores and atomic operations of a group, with the checks of the checked mode.

use crate::execute::{Group, Runner};
use crate::fault::{Code, Fault};
#[cfg(target_arch = "x86_64")]
use crate::lanes::is_wide;
use crate::lanes::{ALL, Class, LANES, Mask, lanes_of};
use crate::memory::{self, LOCAL_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use crate::program::{Access, Atomic};
use crate::ptx::module::Space;
use crate::shadow::{Race, Shadow, Thread};
use std::sync::Mutex;

/// What an access does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Load,
    Store,
    /// Atomic operations do not race with each other.
    Atomic,
}

/// Where the lanes access a piece of memory.
struct Places {
    /// Offsets of the lanes in bytes.
    offsets: [u32; LANES],
    /// The host's address of the offset 0.
    base: *mut u8,
    /// The device's address of the offset 0.
    start: u64,
}

impl Places {
    fn of(&self, lane: usize) -> *mut u8 {
        self.base.wrapping_add(self.offsets[lane] as usize)
    }

    fn address(&self, lane: usize) -> u64 {
        self.start + u64::from(self.offsets[lane])
    }
}

/// Only one thread of the host does an atomic operation at a time.
static ATOMIC: Mutex<()> = Mutex::new(());

impl Runner<'_> {
    /// `ld`.
    pub(crate) fn load(
        &mut self,
        group: &Group,
        access: &Access,
        mask: Mask,
        number: usize,
    ) -> Result<(), Fault> {
        self.in_parts(group, access, mask, number, Purpose::Load, |places, mask| {
            match (access.bytes, access.is_signed, access.class) {
                (4, _, Class::B32) => read(group, access, places, mask, |value: u32| value),
                (8, _, Class::B64) => read(group, access, places, mask, |value: u64| value),
                (2, _, Class::B16) => read(group, access, places, mask, |value: u16| value),
                (1, false, Class::B16) => read(group, access, places, mask, |value: u8| u16::from(value)),
                (1, true, Class::B16) => read(group, access, places, mask, |value: i8| i16::from(value)),
                (1, false, Class::B32) => read(group, access, places, mask, |value: u8| u32::from(value)),
                (1, true, Class::B32) => read(group, access, places, mask, |value: i8| i32::from(value)),
                (1, false, _) => read(group, access, places, mask, |value: u8| u64::from(value)),
                (1, true, _) => read(group, access, places, mask, |value: i8| i64::from(value)),
                (2, false, Class::B32) => read(group, access, places, mask, |value: u16| u32::from(value)),
                (2, true, Class::B32) => read(group, access, places, mask, |value: i16| i32::from(value)),
                (2, false, _) => read(group, access, places, mask, |value: u16| u64::from(value)),
                (2, true, _) => read(group, access, places, mask, |value: i16| i64::from(value)),
                (_, false, _) => read(group, access, places, mask, |value: u32| u64::from(value)),
                (_, true, _) => read(group, access, places, mask, |value: i32| i64::from(value)),
            }
        })
    }

    /// `st`.
    pub(crate) fn store(
        &mut self,
        group: &Group,
        access: &Access,
        mask: Mask,
        number: usize,
    ) -> Result<(), Fault> {
        self.in_parts(group, access, mask, number, Purpose::Store, |places, mask| {
            match (access.bytes, access.class) {
                (8, _) => write(group, access, places, mask, |value: u64| value),
                (4, Class::B32) => write(group, access, places, mask, |value: u32| value),
                (4, _) => write(group, access, places, mask, |value: u64| value as u32),
                (2, Class::B16) => write(group, access, places, mask, |value: u16| value),
                (2, Class::B32) => write(group, access, places, mask, |value: u32| value as u16),
                (2, _) => write(group, access, places, mask, |value: u64| value as u16),
                (_, Class::B16) => write(group, access, places, mask, |value: u16| value as u8),
                (_, Class::B32) => write(group, access, places, mask, |value: u32| value as u8),
                (_, _) => write(group, access, places, mask, |value: u64| value as u8),
            }
        })
    }

    /// `atom` and `red`, lane by lane.
    pub(crate) fn atomic(
        &mut self,
        group: &Group,
        atomic: &Atomic,
        mask: Mask,
        number: usize,
    ) -> Result<(), Fault> {
        let access = &atomic.access;
        self.in_parts(group, access, mask, number, Purpose::Atomic, |places, mask| {
            let _alone = ATOMIC.lock();
            for lane in lanes_of(mask) {
                // SAFETY: `in_parts` has checked the addresses.
                unsafe {
                    if access.bytes == 8 {
                        let place = places.of(lane).cast::<u64>();
                        let operand = group.register::<u64>(atomic.operand).add(lane).read();
                        let second = group.register::<u64>(atomic.second).add(lane).read();
                        let old = place.read();
                        place.write((atomic.update)(old, operand, second));
                        group.register::<u64>(access.registers[0]).add(lane).write(old);
                    } else {
                        let place = places.of(lane).cast::<u32>();
                        let operand = group.register::<u32>(atomic.operand).add(lane).read();
                        let second = group.register::<u32>(atomic.second).add(lane).read();
                        let old = place.read();
                        let new = (atomic.update)(old.into(), operand.into(), second.into());
                        place.write(new as u32);
                        group.register::<u32>(access.registers[0]).add(lane).write(old);
                    }
                }
            }
        })
    }

    /// Checks an access and does it: at once if all lanes access the same piece of memory, as they nearly always do.
    fn in_parts(
        &mut self,
        group: &Group,
        access: &Access,
        mask: Mask,
        number: usize,
        purpose: Purpose,
        transfer: impl Fn(&Places, Mask),
    ) -> Result<(), Fault> {
        // SAFETY: the register of an address has 64 lanes of 64 bits.
        let addresses = unsafe { &*group.register::<[u64; LANES]>(access.address) };
        let bytes = (access.bytes * access.count) as u64;
        let mut rest = mask;
        while rest != 0 {
            let first = rest.trailing_zeros() as usize;
            let address = addresses[first].wrapping_add(access.offset as u64);
            let (space, window) = space_of(access.space, address);
            let piece = match space {
                Space::Shared => Some((self.shared.start(), 0, self.work.program.shared_bytes as u64)),
                Space::Local => Some((group.local.start(), 0, self.work.program.local_bytes as u64)),
                _ => memory::find(self.work.memory, address, bytes, &mut self.hint).map(|place| {
                    let allocation = &self.work.memory[place];
                    (allocation.host(allocation.start), allocation.start, allocation.bytes)
                }),
            };
            let Some((base, start, size)) = piece else {
                return Err(self.illegal(group, first, (address, bytes), number, purpose));
            };
            // Lanes in another space, or in another allocation, are far beyond the end of this one.
            let shift = (access.offset as u64).wrapping_sub(start).wrapping_sub(window);
            let mut places = Places { offsets: [0; LANES], base, start };
            let part = relative(addresses, shift, rest, &mut places.offsets, size.checked_sub(bytes));
            if part & (1 << first) == 0 {
                let offset = addresses[first].wrapping_add(shift);
                let name = if space == Space::Shared { "shared" } else { "local" };
                let what = format!(
                    "{} {bytes} bytes of {name} memory at {offset:#x}, beyond its {size} bytes",
                    verb(purpose)
                );
                return Err(self.fault(Code::ILLEGAL_ADDRESS, group, 1 << first, number, &what));
            }
            if bits_of(&places.offsets, part) & (bytes - 1) != 0 {
                let is_misaligned = |lane: &usize| u64::from(places.offsets[*lane]) & (bytes - 1) != 0;
                let lane = lanes_of(part).find(is_misaligned).unwrap_or(first);
                let address = places.address(lane);
                let what =
                    format!("{} {bytes} bytes at {address:#x}, which is not aligned to them", verb(purpose));
                return Err(self.fault(Code::MISALIGNED_ADDRESS, group, 1 << lane, number, &what));
            }
            if space == Space::Local {
                for (lane, offset) in places.offsets.iter_mut().enumerate() {
                    *offset = offset.wrapping_add(lane as u32 * size as u32);
                }
            } else if self.checks.is_some() {
                self.check(group, &places, part, bytes, space, number, purpose)?;
            }
            transfer(&places, part);
            rest &= !part;
        }
        Ok(())
    }

    /// An access to no allocation, with the nearest one below.
    fn illegal(
        &self,
        group: &Group,
        lane: usize,
        (address, bytes): (u64, u64),
        number: usize,
        purpose: Purpose,
    ) -> Fault {
        let below = self.work.memory.iter().rev().find(|allocation| allocation.start <= address);
        let near = below.map_or_else(String::new, |allocation| {
            let offset = address - allocation.start;
            format!(
                "; the allocation below has {} bytes, the access begins at byte {offset}",
                allocation.bytes
            )
        });
        let what =
            format!("{} {bytes} bytes at {address:#x}, which is not in an allocation{near}", verb(purpose));
        self.fault(Code::ILLEGAL_ADDRESS, group, 1 << lane, number, &what)
    }

    /// Races, and the counts that take the addresses.
    #[expect(clippy::too_many_arguments, reason = "what an access consists of")]
    fn check(
        &mut self,
        group: &Group,
        places: &Places,
        mask: Mask,
        bytes: u64,
        space: Space,
        number: usize,
        purpose: Purpose,
    ) -> Result<(), Fault> {
        if space == Space::Shared {
            self.counts.shared_wavefronts += wavefronts(places, mask, bytes);
        } else {
            self.counts.global_sectors += sectors(places, mask, bytes);
        }
        let (block, phase) = (self.block, self.phase);
        let Some(checks) = &mut self.checks else { return Ok(()) };
        let (shadow, epoch) = if space == Space::Shared {
            (&mut checks.shared, checks.blocks)
        } else {
            let size = self.work.memory.iter().find(|allocation| allocation.start == places.start);
            let size = size.map_or(0, |allocation| allocation.bytes as usize);
            let shadow = checks.allocations.entry(places.start).or_insert_with(|| Shadow::new(size));
            (shadow, checks.epoch)
        };
        let mut found = None;
        for lane in lanes_of(mask) {
            // All atomic operations of a launch count as one thread, which races with all others.
            let thread = match purpose {
                Purpose::Atomic => Thread { block: u32::MAX - 2, phase: 0, number: 0 },
                _ => Thread { block, phase, number: (group.first + lane) as u32 },
            };
            let offset = places.offsets[lane] as usize;
            let writes = purpose != Purpose::Load;
            if let Err(race) = shadow.access(offset, bytes as usize, writes, thread, epoch) {
                found = Some((lane, race));
                break;
            }
        }
        let Some((lane, race)) = found else { return Ok(()) };
        let what = format!(
            "{} {} memory at {:#x}, which {} since the last barrier: a race",
            verb(purpose),
            if space == Space::Shared { "shared" } else { "global" },
            places.address(lane),
            self.other_side(race)
        );
        Err(self.fault(Code::LAUNCH_FAILED, group, 1 << lane, number, &what))
    }

    fn other_side(&self, race: Race) -> String {
        let verb = if race.wrote { "wrote" } else { "read" };
        match (race.block, race.thread) {
            (Some(block), _) if block == u32::MAX - 2 => format!("an atomic operation {verb}"),
            (Some(block), Some(thread)) => {
                let [x, y, z] = crate::execute::coordinates(thread, self.work.block);
                let [bx, by, bz] = crate::execute::coordinates(block, self.work.grid);
                format!("thread ({x}, {y}, {z}) of block ({bx}, {by}, {bz}) {verb}")
            }
            _ => format!("several threads {verb}"),
        }
    }
}

fn verb(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Load => "reads",
        Purpose::Store => "writes",
        Purpose::Atomic => "updates",
    }
}

/// The space of an address, and where its window begins if the address is generic.
fn space_of(space: Space, address: u64) -> (Space, u64) {
    if space != Space::Generic {
        return (space, 0);
    }
    let is_in = |start: u64| address.wrapping_sub(start) < WINDOW_BYTES;
    if is_in(SHARED_WINDOW) {
        (Space::Shared, SHARED_WINDOW)
    } else if is_in(LOCAL_WINDOW) {
        (Space::Local, LOCAL_WINDOW)
    } else {
        (Space::Global, 0)
    }
}

/// Computes the offsets of addresses and returns the lanes of `mask` whose offset is at most `last`, if there is one.
fn relative(
    addresses: &[u64; LANES],
    shift: u64,
    mask: Mask,
    offsets: &mut [u32; LANES],
    last: Option<u64>,
) -> Mask {
    let Some(last) = last.map(|last| u32::try_from(last).unwrap_or(u32::MAX)) else { return 0 };
    #[cfg(target_arch = "x86_64")]
    let (high, most) = if is_wide() {
        // SAFETY: the processor has these instructions.
        unsafe { offsets_wide(addresses, shift, offsets) }
    } else {
        offsets_of(addresses, shift, offsets)
    };
    #[cfg(not(target_arch = "x86_64"))]
    let (high, most) = offsets_of(addresses, shift, offsets);
    if high == 0 && most <= last {
        return mask;
    }
    let is_in = |lane: usize| addresses[lane].wrapping_add(shift) <= u64::from(last);
    mask & (0..LANES).fold(0, |mask, lane| mask | Mask::from(is_in(lane)) << lane)
}

/// Computes the offsets; returns their high halves, combined, and the largest low half.
#[inline(always)]
fn offsets_of(addresses: &[u64; LANES], shift: u64, offsets: &mut [u32; LANES]) -> (u64, u32) {
    let (mut high, mut most) = (0, 0);
    for (offset, address) in offsets.iter_mut().zip(addresses) {
        let full = address.wrapping_add(shift);
        *offset = full as u32;
        high |= full >> 32;
        most = most.max(full as u32);
    }
    (high, most)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn offsets_wide(addresses: &[u64; LANES], shift: u64, offsets: &mut [u32; LANES]) -> (u64, u32) {
    offsets_of(addresses, shift, offsets)
}

/// All bits of the offsets in a mask.
fn bits_of(offsets: &[u32; LANES], mask: Mask) -> u64 {
    let bits = if mask == ALL {
        offsets.iter().fold(0, |bits, offset| bits | offset)
    } else {
        lanes_of(mask).fold(0, |bits, lane| bits | offsets[lane])
    };
    u64::from(bits)
}

/// Reads memory into registers.
fn read<V: Copy, R: Copy>(
    group: &Group,
    access: &Access,
    places: &Places,
    mask: Mask,
    widen: impl Fn(V) -> R,
) {
    let registers = access.registers.map(|register| group.register::<R>(register));
    let put = |lane: usize| {
        let place = places.of(lane).cast::<V>();
        for (number, register) in registers[..access.count].iter().enumerate() {
            // SAFETY: `in_parts` has checked the addresses; the registers have this class.
            unsafe { register.add(lane).write(widen(place.add(number).read())) };
        }
    };
    if mask != ALL {
        lanes_of(mask).for_each(put);
    } else if access.count == 4 {
        // Four lanes at once: a transposition of four by four, which the compiler does in vector registers.
        for first in (0..LANES).step_by(4) {
            // SAFETY: as above.
            unsafe {
                let rows: [[V; 4]; 4] =
                    std::array::from_fn(|row| places.of(first + row).cast::<[V; 4]>().read());
                for (column, register) in registers.iter().enumerate() {
                    let values: [R; 4] = std::array::from_fn(|row| widen(rows[row][column]));
                    register.add(first).cast::<[R; 4]>().write(values);
                }
            }
        }
    } else {
        (0..LANES).for_each(put);
    }
}

/// Writes registers to memory.
fn write<V: Copy, R: Copy>(
    group: &Group,
    access: &Access,
    places: &Places,
    mask: Mask,
    narrow: impl Fn(R) -> V,
) {
    let registers = access.registers.map(|register| group.register::<R>(register));
    let take = |lane: usize| {
        let place = places.of(lane).cast::<V>();
        for (number, register) in registers[..access.count].iter().enumerate() {
            // SAFETY: as for `read`.
            unsafe { place.add(number).write(narrow(register.add(lane).read())) };
        }
    };
    if mask == ALL {
        (0..LANES).for_each(take);
    } else {
        lanes_of(mask).for_each(take);
    }
}

/// Sectors of 32 bytes that the warps access.
fn sectors(places: &Places, mask: Mask, bytes: u64) -> u64 {
    let mut count = 0;
    for warp in [0xffff_ffff, 0xffff_ffff << 32] {
        let mut sectors: Vec<u64> = lanes_of(mask & warp)
            .flat_map(|lane| [places.address(lane) / 32, (places.address(lane) + bytes - 1) / 32])
            .collect();
        sectors.sort_unstable();
        sectors.dedup();
        count += sectors.len() as u64;
    }
    count
}

/// Passes through the banks: accesses of 8 bytes go by half warps, of 16 bytes by quarters, and different words of a
/// bank one after the other.
fn wavefronts(places: &Places, mask: Mask, bytes: u64) -> u64 {
    let words = bytes.div_ceil(4);
    let lanes_at_once = 32 / words as usize;
    let mut count = 0;
    for first in (0..LANES).step_by(lanes_at_once) {
        let part = if lanes_at_once == 64 { ALL } else { ((1 << lanes_at_once) - 1) << first };
        let mut touched: Vec<u64> = lanes_of(mask & part)
            .flat_map(|lane| (0..words).map(move |word| places.address(lane) / 4 + word))
            .collect();
        touched.sort_unstable();
        touched.dedup();
        let mut banks = [0u64; 32];
        for word in touched {
            banks[(word % 32) as usize] += 1;
        }
        count += banks.iter().max().copied().unwrap_or(0);
    }
    count
}
