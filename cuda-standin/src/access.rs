//! Loads, stores and atomic operations of a group, with the checks of the checked mode.

use crate::execute::{Group, Runner};
use crate::fault::{Code, Fault};
use crate::lanes::{ALL, Class, LANES, Mask, lanes_of};
use crate::memory::{self, LOCAL_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use crate::program::{Access, Atomic};
use crate::ptx::syntax::Space;
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

/// Addresses of the lanes, and the host's memory at the address 0 of their space.
struct Places {
    addresses: [u64; LANES],
    /// Memory at address `start`.
    base: *mut u8,
    start: u64,
}

impl Places {
    fn of(&self, lane: usize) -> *mut u8 {
        self.base.wrapping_add((self.addresses[lane] - self.start) as usize)
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

    /// Splits an access by space and allocation, checks each part, and does it.
    fn in_parts(
        &mut self,
        group: &Group,
        access: &Access,
        mut mask: Mask,
        number: usize,
        purpose: Purpose,
        transfer: impl Fn(&Places, Mask),
    ) -> Result<(), Fault> {
        let mut addresses: [u64; LANES] = group.lanes(access.address);
        if access.offset != 0 {
            for address in &mut addresses {
                *address = address.wrapping_add(access.offset as u64);
            }
        }
        let bytes = (access.bytes * access.count) as u64;
        let bits = if mask == ALL {
            addresses.iter().fold(0, |bits, address| bits | address)
        } else {
            lanes_of(mask).fold(0, |bits, lane| bits | addresses[lane])
        };
        if bits & (bytes - 1) != 0 {
            let lane = lanes_of(mask).find(|lane| addresses[*lane] & (bytes - 1) != 0).unwrap_or(0);
            let what = format!(
                "{} {bytes} bytes at {:#x}, which is not aligned to them",
                verb(purpose),
                addresses[lane]
            );
            return Err(self.fault(Code::MISALIGNED_ADDRESS, group, 1 << lane, number, &what));
        }
        while mask != 0 {
            let first = mask.trailing_zeros() as usize;
            let mut space = access.space;
            let mut part = mask;
            if space == Space::Generic {
                let window = window(addresses[first]);
                part &= mask_of(|lane| window_is(addresses[lane], window));
                space = match window {
                    Some(SHARED_WINDOW) => Space::Shared,
                    Some(_) => Space::Local,
                    None => Space::Global,
                };
                if let Some(start) = window {
                    lanes_of(part).for_each(|lane| addresses[lane] -= start);
                }
            }
            let places = match space {
                Space::Shared => {
                    let limit = self.work.program.shared_bytes as u64;
                    self.check_limit(group, &addresses, part, limit, bytes, (number, purpose, "shared"))?;
                    Places { addresses, base: self.shared.start(), start: 0 }
                }
                Space::Local => {
                    let limit = self.work.program.local_bytes as u64;
                    self.check_limit(group, &addresses, part, limit, bytes, (number, purpose, "local"))?;
                    let mut own = addresses;
                    lanes_of(part).for_each(|lane| own[lane] += lane as u64 * limit);
                    Places { addresses: own, base: group.local.start(), start: 0 }
                }
                _ => {
                    let hint = &mut self.hint;
                    let Some(place) = memory::find(self.work.memory, addresses[first], bytes, hint) else {
                        return Err(self.illegal(group, first, addresses[first], bytes, number, purpose));
                    };
                    let allocation = &self.work.memory[place];
                    let (start, end) = (allocation.start, allocation.start + allocation.bytes);
                    part &= mask_of(|lane| addresses[lane] >= start && addresses[lane] <= end - bytes);
                    Places { addresses, base: allocation.host(start), start }
                }
            };
            if self.checks.is_some() && space != Space::Local {
                self.check(group, &places, part, bytes, space, number, purpose)?;
            }
            transfer(&places, part);
            mask &= !part;
        }
        Ok(())
    }

    fn check_limit(
        &self,
        group: &Group,
        addresses: &[u64; LANES],
        mask: Mask,
        limit: u64,
        bytes: u64,
        (number, purpose, space): (usize, Purpose, &str),
    ) -> Result<(), Fault> {
        let last = limit.checked_sub(bytes);
        let beyond = lanes_of(mask).find(|lane| last.is_none_or(|last| addresses[*lane] > last));
        let Some(lane) = beyond else { return Ok(()) };
        let what = format!(
            "{} {bytes} bytes of {space} memory at {:#x}, beyond its {limit} bytes",
            verb(purpose),
            addresses[lane]
        );
        Err(self.fault(Code::ILLEGAL_ADDRESS, group, 1 << lane, number, &what))
    }

    /// An access to no allocation, with the nearest one below.
    fn illegal(
        &self,
        group: &Group,
        lane: usize,
        address: u64,
        bytes: u64,
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
            let offset = (places.addresses[lane] - places.start) as usize;
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
            places.addresses[lane],
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

/// The window that a generic address is in; none for global memory.
fn window(address: u64) -> Option<u64> {
    [SHARED_WINDOW, LOCAL_WINDOW].into_iter().find(|start| address.wrapping_sub(*start) < WINDOW_BYTES)
}

fn window_is(address: u64, wanted: Option<u64>) -> bool {
    window(address) == wanted
}

fn mask_of(holds: impl Fn(usize) -> bool) -> Mask {
    (0..LANES).fold(0, |mask, lane| mask | Mask::from(holds(lane)) << lane)
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
    for lane in lanes_of(mask) {
        let place = places.of(lane).cast::<V>();
        for (number, register) in registers[..access.count].iter().enumerate() {
            // SAFETY: `in_parts` has checked the addresses; the registers have this class.
            unsafe { register.add(lane).write(widen(place.add(number).read())) };
        }
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
    for lane in lanes_of(mask) {
        let place = places.of(lane).cast::<V>();
        for (number, register) in registers[..access.count].iter().enumerate() {
            // SAFETY: as for `read`.
            unsafe { place.add(number).write(narrow(register.add(lane).read())) };
        }
    }
}

/// Sectors of 32 bytes that the warps access.
fn sectors(places: &Places, mask: Mask, bytes: u64) -> u64 {
    let mut count = 0;
    for warp in [0xffff_ffff, 0xffff_ffff << 32] {
        let mut sectors: Vec<u64> = lanes_of(mask & warp)
            .flat_map(|lane| [places.addresses[lane] / 32, (places.addresses[lane] + bytes - 1) / 32])
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
            .flat_map(|lane| (0..words).map(move |word| places.addresses[lane] / 4 + word))
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
