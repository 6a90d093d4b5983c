//! Operations over the lanes of a group: one value per thread and register.
//!
//! A register of a group is an array of [`LANES`] values, at a byte offset in the group's register file. An operation
//! reads whole chunks of its sources before it writes a chunk of its result, so a register may be source and result
//! at once, and the compiler turns each chunk into a few vector instructions. On x86-64 each operation is compiled with
//! and without AVX2 and FMA; [`four`] chooses when the PTX is loaded.

use std::ptr::NonNull;

/// Threads that the interpreter runs in lock-step: two warps.
pub const LANES: usize = 64;

/// One bit per lane.
pub type Mask = u64;
/// All lanes.
pub const ALL: Mask = Mask::MAX;

/// Size of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// `.pred`: 0 or 1 in a byte.
    Predicate,
    /// `.b16`, which also holds 8-bit values.
    B16,
    /// `.b32`.
    B32,
    /// `.b64`.
    B64,
}

impl Class {
    /// Bytes of one lane.
    pub fn bytes(self) -> usize {
        match self {
            Self::Predicate => 1,
            Self::B16 => 2,
            Self::B32 => 4,
            Self::B64 => 8,
        }
    }
}

/// A type of PTX as an operation reads or writes it.
pub trait Lane: Copy + 'static {
    /// How the register file stores it.
    type Raw: Copy;
    /// Class of its registers; none for the absent source `()`.
    const CLASS: Option<Class>;
    /// Reads the stored form.
    fn load(raw: Self::Raw) -> Self;
    /// Makes the stored form.
    fn store(self) -> Self::Raw;
}

macro_rules! lane {
    ($($type:ty, $raw:ty, $class:expr, $load:expr, $store:expr;)*) => { $(
        impl Lane for $type {
            type Raw = $raw;
            const CLASS: Option<Class> = $class;
            #[inline(always)]
            fn load(raw: $raw) -> Self { ($load)(raw) }
            #[inline(always)]
            fn store(self) -> $raw { ($store)(self) }
        }
    )* };
}

lane! {
    (), (), None, |()| (), |()| ();
    bool, u8, Some(Class::Predicate), |raw| raw != 0, u8::from;
    u16, u16, Some(Class::B16), |raw| raw, |value| value;
    i16, u16, Some(Class::B16), |raw| raw as i16, |value| value as u16;
    u32, u32, Some(Class::B32), |raw| raw, |value| value;
    i32, u32, Some(Class::B32), |raw| raw as i32, |value| value as u32;
    f32, u32, Some(Class::B32), f32::from_bits, f32::to_bits;
    u64, u64, Some(Class::B64), |raw| raw, |value| value;
    i64, u64, Some(Class::B64), |raw| raw as i64, |value| value as u64;
    f64, u64, Some(Class::B64), f64::from_bits, f64::to_bits;
}

/// Byte offsets of a result and up to four sources in a register file.
pub type Operands = [u32; 5];

/// Applies an operation to all lanes: register file, offsets.
pub type Run = unsafe fn(*mut u8, &Operands);

/// An operation on registers that touches nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// The loop over the lanes.
    pub run: Run,
    /// Class of the result.
    pub result: Class,
    /// Classes of the sources.
    pub sources: [Option<Class>; 4],
}

/// Whether the processor has the instructions that the wide loops are compiled for.
#[cfg(target_arch = "x86_64")]
pub fn is_wide() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// The loop, `CHUNK` lanes a step. `F` is a function or a closure without captures, so that it needs no place in the
/// instruction.
#[inline(always)]
unsafe fn over_lanes<const CHUNK: usize, A: Lane, B: Lane, C: Lane, E: Lane, D: Lane, F>(
    registers: *mut u8,
    operands: &Operands,
) where
    F: Fn(A, B, C, E) -> D,
{
    const { assert!(size_of::<F>() == 0) };
    // SAFETY: a reference to a value without a size reads nothing, and `four` was given such a value.
    let function: &F = unsafe { NonNull::dangling().as_ref() };
    let [result, a, b, c, e] = operands.map(|offset| offset as usize);
    // SAFETY: the caller passes offsets of registers of these classes in this register file.
    unsafe {
        let result = registers.add(result).cast::<[D::Raw; CHUNK]>();
        let a = registers.add(a).cast::<[A::Raw; CHUNK]>();
        let b = registers.add(b).cast::<[B::Raw; CHUNK]>();
        let c = registers.add(c).cast::<[C::Raw; CHUNK]>();
        let e = registers.add(e).cast::<[E::Raw; CHUNK]>();
        for chunk in 0..LANES / CHUNK {
            let (a, b) = (a.add(chunk).read(), b.add(chunk).read());
            let (c, e) = (c.add(chunk).read(), e.add(chunk).read());
            let values = std::array::from_fn(|lane| {
                function(A::load(a[lane]), B::load(b[lane]), C::load(c[lane]), E::load(e[lane])).store()
            });
            result.add(chunk).write(values);
        }
    }
}

/// For processors with vector instructions that every processor of the architecture has.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn base<A: Lane, B: Lane, C: Lane, E: Lane, D: Lane, F: Fn(A, B, C, E) -> D>(
    registers: *mut u8,
    operands: &Operands,
) {
    // SAFETY: as promised by the caller.
    unsafe { over_lanes::<16, A, B, C, E, D, F>(registers, operands) }
}

/// For x86-64 processors without AVX2, which are rare: small rather than fast.
#[cfg(target_arch = "x86_64")]
unsafe fn base<A: Lane, B: Lane, C: Lane, E: Lane, D: Lane, F: Fn(A, B, C, E) -> D>(
    registers: *mut u8,
    operands: &Operands,
) {
    // SAFETY: as promised by the caller.
    unsafe { over_lanes::<1, A, B, C, E, D, F>(registers, operands) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn wide<A: Lane, B: Lane, C: Lane, E: Lane, D: Lane, F: Fn(A, B, C, E) -> D>(
    registers: *mut u8,
    operands: &Operands,
) {
    // SAFETY: as promised by the caller.
    unsafe { over_lanes::<16, A, B, C, E, D, F>(registers, operands) }
}

/// An operation with four sources.
pub fn four<A: Lane, B: Lane, C: Lane, E: Lane, D: Lane, F>(_: F) -> Operation
where
    F: Fn(A, B, C, E) -> D + Copy + 'static,
{
    #[cfg(target_arch = "x86_64")]
    let run: Run = if is_wide() { wide::<A, B, C, E, D, F> } else { base::<A, B, C, E, D, F> };
    #[cfg(not(target_arch = "x86_64"))]
    let run: Run = base::<A, B, C, E, D, F>;
    // Every operation has a result.
    let result = D::CLASS.unwrap_or(Class::Predicate);
    Operation { run, result, sources: [A::CLASS, B::CLASS, C::CLASS, E::CLASS] }
}

/// An operation with three sources.
pub fn three<A: Lane, B: Lane, C: Lane, D: Lane, F>(function: F) -> Operation
where
    F: Fn(A, B, C) -> D + Copy + 'static,
{
    four(move |a: A, b: B, c: C, (): ()| function(a, b, c))
}

/// An operation with two sources.
pub fn two<A: Lane, B: Lane, D: Lane, F>(function: F) -> Operation
where
    F: Fn(A, B) -> D + Copy + 'static,
{
    four(move |a: A, b: B, (): (), (): ()| function(a, b))
}

/// An operation with one source.
pub fn one<A: Lane, D: Lane, F>(function: F) -> Operation
where
    F: Fn(A) -> D + Copy + 'static,
{
    four(move |a: A, (): (), (): (), (): ()| function(a))
}

/// Copies the lanes of a mask from one register to another.
///
/// # Safety
/// The offsets are those of registers of this class in the register file.
pub unsafe fn copy_lanes(registers: *mut u8, class: Class, from: u32, to: u32, mask: Mask) {
    #[cfg(target_arch = "x86_64")]
    if is_wide() {
        // SAFETY: the processor has these instructions; the rest is promised by the caller.
        return unsafe { copy_wide(registers, class, from, to, mask) };
    }
    // SAFETY: as promised by the caller.
    unsafe { copy(registers, class, from, to, mask) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn copy_wide(registers: *mut u8, class: Class, from: u32, to: u32, mask: Mask) {
    // SAFETY: as promised by the caller.
    unsafe { copy(registers, class, from, to, mask) }
}

#[inline(always)]
unsafe fn copy(registers: *mut u8, class: Class, from: u32, to: u32, mask: Mask) {
    /// Lanes whose type is their size, 16 a step.
    #[inline(always)]
    unsafe fn of<T: Copy>(from: *const u8, to: *mut u8, mask: Mask) {
        let (from, to) = (from.cast::<[T; 16]>(), to.cast::<[T; 16]>());
        for step in 0..LANES / 16 {
            let bits = (mask >> (16 * step)) as u32;
            // SAFETY: as promised by the caller.
            unsafe {
                let (new, old) = (from.add(step).read(), to.add(step).read());
                let values =
                    std::array::from_fn(|lane| if bits & 1 << lane == 0 { old[lane] } else { new[lane] });
                to.add(step).write(values);
            }
        }
    }
    // SAFETY: as promised by the caller.
    unsafe {
        let (from, to) = (registers.add(from as usize), registers.add(to as usize));
        match class {
            Class::Predicate => of::<u8>(from, to, mask),
            Class::B16 => of::<u16>(from, to, mask),
            Class::B32 => of::<u32>(from, to, mask),
            Class::B64 => of::<u64>(from, to, mask),
        }
    }
}

/// The lanes of a mask in which a predicate is set.
pub fn lanes_that_are_set(predicate: &[u8; LANES]) -> Mask {
    let mut mask = 0;
    let (parts, _) = predicate.as_chunks::<8>();
    for (part, eight) in parts.iter().enumerate() {
        // Gathers the lowest bits of eight bytes in the highest byte of the product.
        let bits =
            (u64::from_le_bytes(*eight) & 0x0101_0101_0101_0101).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        mask |= bits << (part * 8);
    }
    mask
}

/// Numbers of the lanes in a mask, in ascending order.
pub fn lanes_of(mut mask: Mask) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let lane = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        Some(lane)
    })
}
