//! The table of operations that work on registers only, by their full opcode. An opcode that is not here is refused:
//! a modifier that is overlooked would compute something else.
//!
//! The results follow the PTX ISA. Approximations (`ex2.approx`, `rcp.approx`, …) are computed to full precision, and
//! the payload of a NaN is not defined.

use crate::conversions;
use crate::half::{Half, halves, pair};
use crate::lanes::{Lane, Operation, four, one, three, two};

/// The operation of an opcode.
pub fn find(opcode: &str) -> Option<Operation> {
    let (stem, modifiers) = opcode.split_once('.')?;
    match stem {
        "setp" => comparison(modifiers),
        "cvt" => conversions::find(modifiers),
        _ => integers(opcode)
            .or_else(|| bits(opcode))
            .or_else(|| single_precision(opcode))
            .or_else(|| double_precision(opcode))
            .or_else(|| half_precision(opcode)),
    }
}

fn integers(opcode: &str) -> Option<Operation> {
    Some(match opcode {
        "add.u16" | "add.s16" => two(u16::wrapping_add),
        "add.u32" | "add.s32" => two(u32::wrapping_add),
        "add.u64" | "add.s64" => two(u64::wrapping_add),
        "sub.u16" | "sub.s16" => two(u16::wrapping_sub),
        "sub.u32" | "sub.s32" => two(u32::wrapping_sub),
        "sub.u64" | "sub.s64" => two(u64::wrapping_sub),
        "mul.lo.u16" | "mul.lo.s16" => two(u16::wrapping_mul),
        "mul.lo.u32" | "mul.lo.s32" => two(u32::wrapping_mul),
        "mul.lo.u64" | "mul.lo.s64" => two(u64::wrapping_mul),
        "mul.hi.u16" => two(|a: u16, b: u16| ((u32::from(a) * u32::from(b)) >> 16) as u16),
        "mul.hi.s16" => two(|a: i16, b: i16| ((i32::from(a) * i32::from(b)) >> 16) as i16),
        "mul.hi.u32" => two(|a: u32, b: u32| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        "mul.hi.s32" => two(|a: i32, b: i32| ((i64::from(a) * i64::from(b)) >> 32) as i32),
        "mul.hi.u64" => two(|a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64),
        "mul.hi.s64" => two(|a: i64, b: i64| ((i128::from(a) * i128::from(b)) >> 64) as i64),
        "mul.wide.u16" => two(|a: u16, b: u16| u32::from(a) * u32::from(b)),
        "mul.wide.s16" => two(|a: i16, b: i16| i32::from(a) * i32::from(b)),
        "mul.wide.u32" => two(|a: u32, b: u32| u64::from(a) * u64::from(b)),
        "mul.wide.s32" => two(|a: i32, b: i32| i64::from(a) * i64::from(b)),
        "mul24.lo.u32" => two(|a: u32, b: u32| (a & 0xff_ffff).wrapping_mul(b & 0xff_ffff)),
        "mul24.lo.s32" => two(|a: i32, b: i32| (a << 8 >> 8).wrapping_mul(b << 8 >> 8)),
        "mad.lo.u16" | "mad.lo.s16" => three(|a: u16, b: u16, c: u16| a.wrapping_mul(b).wrapping_add(c)),
        "mad.lo.u32" | "mad.lo.s32" => three(|a: u32, b: u32, c: u32| a.wrapping_mul(b).wrapping_add(c)),
        "mad.lo.u64" | "mad.lo.s64" => three(|a: u64, b: u64, c: u64| a.wrapping_mul(b).wrapping_add(c)),
        "mad.hi.u32" => {
            three(|a: u32, b: u32, c: u32| (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c))
        }
        "mad.hi.s32" => {
            three(|a: i32, b: i32, c: i32| (((i64::from(a) * i64::from(b)) >> 32) as i32).wrapping_add(c))
        }
        "mad.wide.u16" => three(|a: u16, b: u16, c: u32| (u32::from(a) * u32::from(b)).wrapping_add(c)),
        "mad.wide.s16" => three(|a: i16, b: i16, c: i32| (i32::from(a) * i32::from(b)).wrapping_add(c)),
        "mad.wide.u32" => three(|a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c)),
        "mad.wide.s32" => three(|a: i32, b: i32, c: i64| (i64::from(a) * i64::from(b)).wrapping_add(c)),
        // The ISA leaves the result of a division by zero open.
        "div.u16" => two(|a: u16, b: u16| a.checked_div(b).unwrap_or(u16::MAX)),
        "div.s16" => two(|a: i16, b: i16| if b == 0 { -1 } else { a.wrapping_div(b) }),
        "div.u32" => two(|a: u32, b: u32| a.checked_div(b).unwrap_or(u32::MAX)),
        "div.s32" => two(|a: i32, b: i32| if b == 0 { -1 } else { a.wrapping_div(b) }),
        "div.u64" => two(|a: u64, b: u64| a.checked_div(b).unwrap_or(u64::MAX)),
        "div.s64" => two(|a: i64, b: i64| if b == 0 { -1 } else { a.wrapping_div(b) }),
        "rem.u16" => two(|a: u16, b: u16| a.checked_rem(b).unwrap_or(a)),
        "rem.s16" => two(|a: i16, b: i16| if b == 0 { a } else { a.wrapping_rem(b) }),
        "rem.u32" => two(|a: u32, b: u32| a.checked_rem(b).unwrap_or(a)),
        "rem.s32" => two(|a: i32, b: i32| if b == 0 { a } else { a.wrapping_rem(b) }),
        "rem.u64" => two(|a: u64, b: u64| a.checked_rem(b).unwrap_or(a)),
        "rem.s64" => two(|a: i64, b: i64| if b == 0 { a } else { a.wrapping_rem(b) }),
        "min.u16" => two(|a: u16, b: u16| a.min(b)),
        "min.s16" => two(|a: i16, b: i16| a.min(b)),
        "min.u32" => two(|a: u32, b: u32| a.min(b)),
        "min.s32" => two(|a: i32, b: i32| a.min(b)),
        "min.u64" => two(|a: u64, b: u64| a.min(b)),
        "min.s64" => two(|a: i64, b: i64| a.min(b)),
        "max.u16" => two(|a: u16, b: u16| a.max(b)),
        "max.s16" => two(|a: i16, b: i16| a.max(b)),
        "max.u32" => two(|a: u32, b: u32| a.max(b)),
        "max.s32" => two(|a: i32, b: i32| a.max(b)),
        "max.u64" => two(|a: u64, b: u64| a.max(b)),
        "max.s64" => two(|a: i64, b: i64| a.max(b)),
        "neg.s16" => one(i16::wrapping_neg),
        "neg.s32" => one(i32::wrapping_neg),
        "neg.s64" => one(i64::wrapping_neg),
        "abs.s16" => one(i16::wrapping_abs),
        "abs.s32" => one(i32::wrapping_abs),
        "abs.s64" => one(i64::wrapping_abs),
        _ => return None,
    })
}

fn bits(opcode: &str) -> Option<Operation> {
    Some(match opcode {
        "mov.pred" => one(|a: bool| a),
        "mov.b16" | "mov.u16" | "mov.s16" => one(|a: u16| a),
        "mov.b32" | "mov.u32" | "mov.s32" | "mov.f32" => one(|a: u32| a),
        "mov.b64" | "mov.u64" | "mov.s64" | "mov.f64" => one(|a: u64| a),
        "and.pred" => two(|a: bool, b: bool| a & b),
        "or.pred" => two(|a: bool, b: bool| a | b),
        "xor.pred" => two(|a: bool, b: bool| a ^ b),
        "not.pred" => one(|a: bool| !a),
        "and.b16" => two(|a: u16, b: u16| a & b),
        "and.b32" => two(|a: u32, b: u32| a & b),
        "and.b64" => two(|a: u64, b: u64| a & b),
        "or.b16" => two(|a: u16, b: u16| a | b),
        "or.b32" => two(|a: u32, b: u32| a | b),
        "or.b64" => two(|a: u64, b: u64| a | b),
        "xor.b16" => two(|a: u16, b: u16| a ^ b),
        "xor.b32" => two(|a: u32, b: u32| a ^ b),
        "xor.b64" => two(|a: u64, b: u64| a ^ b),
        "not.b16" => one(|a: u16| !a),
        "not.b32" => one(|a: u32| !a),
        "not.b64" => one(|a: u64| !a),
        "cnot.b32" => one(|a: u32| u32::from(a == 0)),
        // Shifts by the width or more give what shifting bit by bit would.
        "shl.b16" => two(|a: u16, by: u32| if by > 15 { 0 } else { a << by }),
        "shl.b32" => two(|a: u32, by: u32| if by > 31 { 0 } else { a << by }),
        "shl.b64" => two(|a: u64, by: u32| if by > 63 { 0 } else { a << by }),
        "shr.u16" | "shr.b16" => two(|a: u16, by: u32| if by > 15 { 0 } else { a >> by }),
        "shr.u32" | "shr.b32" => two(|a: u32, by: u32| if by > 31 { 0 } else { a >> by }),
        "shr.u64" | "shr.b64" => two(|a: u64, by: u32| if by > 63 { 0 } else { a >> by }),
        "shr.s16" => two(|a: i16, by: u32| a >> by.min(15)),
        "shr.s32" => two(|a: i32, by: u32| a >> by.min(31)),
        "shr.s64" => two(|a: i64, by: u32| a >> by.min(63)),
        "shf.l.wrap.b32" => three(|low: u32, high: u32, by: u32| funnel(low, high, 32 - (by & 31))),
        "shf.l.clamp.b32" => three(|low: u32, high: u32, by: u32| funnel(low, high, 32 - by.min(32))),
        "shf.r.wrap.b32" => three(|low: u32, high: u32, by: u32| funnel(low, high, by & 31)),
        "shf.r.clamp.b32" => three(|low: u32, high: u32, by: u32| funnel(low, high, by.min(32))),
        "bfe.u32" => three(|a: u32, at: u32, width: u32| extract_bits(a, at & 255, width & 255)),
        "bfe.s32" => three(|a: i32, at: u32, width: u32| extract_bits_signed(a, at & 255, width & 255)),
        "bfe.u64" => three(|a: u64, at: u32, width: u32| extract_bits64(a, at & 255, width & 255)),
        "bfe.s64" => three(|a: i64, at: u32, width: u32| extract_bits_signed64(a, at & 255, width & 255)),
        "bfi.b32" => four(|from: u32, into: u32, at: u32, width: u32| {
            insert_bits(u64::from(from), u64::from(into), at & 255, width & 255, 32) as u32
        }),
        "bfi.b64" => four(|from: u64, into: u64, at: u32, width: u32| {
            insert_bits(from, into, at & 255, width & 255, 64)
        }),
        "brev.b32" => one(u32::reverse_bits),
        "brev.b64" => one(u64::reverse_bits),
        "popc.b32" => one(u32::count_ones),
        "popc.b64" => one(u64::count_ones),
        "clz.b32" => one(u32::leading_zeros),
        "clz.b64" => one(u64::leading_zeros),
        "prmt.b32" => three(permute),
        "lop3.b32" => four(any_logic),
        "selp.b16" | "selp.u16" | "selp.s16" | "selp.f16" => {
            three(|a: u16, b: u16, p: bool| if p { a } else { b })
        }
        "selp.b32" | "selp.u32" | "selp.s32" | "selp.f32" | "selp.f16x2" => {
            three(|a: u32, b: u32, p: bool| if p { a } else { b })
        }
        "selp.b64" | "selp.u64" | "selp.s64" | "selp.f64" => {
            three(|a: u64, b: u64, p: bool| if p { a } else { b })
        }
        "dp4a.s32.s32" => three(|a: u32, b: u32, c: u32| {
            let products = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
            products.fold(c, |sum, (a, b)| sum.wrapping_add((i32::from(a as i8) * i32::from(b as i8)) as u32))
        }),
        "dp4a.u32.u32" => three(|a: u32, b: u32, c: u32| {
            let products = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
            products.fold(c, |sum, (a, b)| sum.wrapping_add(u32::from(a) * u32::from(b)))
        }),
        _ => return None,
    })
}

/// The low 32 bits of the pair shifted right by 0 to 32.
#[inline(always)]
fn funnel(low: u32, high: u32, by: u32) -> u32 {
    ((u64::from(high) << 32 | u64::from(low)) >> by) as u32
}

#[inline(always)]
fn extract_bits(a: u32, at: u32, width: u32) -> u32 {
    extract_bits64(u64::from(a), at, width) as u32
}

#[inline(always)]
fn extract_bits64(a: u64, at: u32, width: u32) -> u64 {
    let shifted = if at > 63 { 0 } else { a >> at };
    if width > 63 { shifted } else { shifted & ((1 << width) - 1) }
}

/// Bits beyond the value are copies of its sign.
#[inline(always)]
fn extract_bits_signed(a: i32, at: u32, width: u32) -> i32 {
    // A field that ends beyond bit 31 takes its sign from bit 31.
    extract_bits_signed64(i64::from(a), at, width) as i32
}

#[inline(always)]
fn extract_bits_signed64(a: i64, at: u32, width: u32) -> i64 {
    if width == 0 {
        return 0;
    }
    let shifted = a >> at.min(63);
    if width > 63 { shifted } else { shifted << (64 - width) >> (64 - width) }
}

#[inline(always)]
fn insert_bits(from: u64, into: u64, at: u32, width: u32, size: u32) -> u64 {
    if at >= size {
        return into;
    }
    let field = if width > 63 { u64::MAX } else { (1 << width) - 1 };
    let mask = field << at;
    into & !mask | (from << at) & mask
}

/// Each of the four bytes of the result is one of eight, or its sign.
#[inline(always)]
fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    let mut result = 0;
    for place in 0..4 {
        let choice = selector >> (4 * place) & 15;
        let byte = (bytes >> (8 * (choice & 7))) as u8;
        let byte = if choice & 8 == 0 { byte } else { (byte as i8 >> 7) as u8 };
        result |= u32::from(byte) << (8 * place);
    }
    result
}

/// Any function of three bits: `table` has its results for the eight combinations.
#[inline(always)]
fn any_logic(a: u32, b: u32, c: u32, table: u32) -> u32 {
    let mut result = 0;
    for combination in 0..8 {
        let chosen = |value: u32, bit: u32| if combination >> bit & 1 == 1 { value } else { !value };
        let is_set = 0u32.wrapping_sub(table >> combination & 1);
        result |= chosen(a, 2) & chosen(b, 1) & chosen(c, 0) & is_set;
    }
    result
}

macro_rules! floats {
    ($maximum:ident, $minimum:ident, $type:ty) => {
        /// The larger number; -0 is smaller than +0, and NaN gives way to a number.
        #[inline(always)]
        fn $maximum(a: $type, b: $type) -> $type {
            if a > b || b.is_nan() {
                a
            } else if a == b {
                <$type>::from_bits(a.to_bits() & b.to_bits())
            } else {
                b
            }
        }

        /// The smaller number; -0 is smaller than +0, and NaN gives way to a number.
        #[inline(always)]
        fn $minimum(a: $type, b: $type) -> $type {
            if a < b || b.is_nan() {
                a
            } else if a == b {
                <$type>::from_bits(a.to_bits() | b.to_bits())
            } else {
                b
            }
        }
    };
}

floats!(max_f32, min_f32, f32);
floats!(max_f64, min_f64, f64);

/// NaN if a source is.
#[inline(always)]
fn with_nan(a: f32, b: f32, function: impl Fn(f32, f32) -> f32) -> f32 {
    if a.is_nan() || b.is_nan() { f32::NAN } else { function(a, b) }
}

/// Subnormal numbers become zero with the same sign.
#[inline(always)]
fn flush(value: f32) -> f32 {
    if value.is_subnormal() { f32::from_bits(value.to_bits() & 0x8000_0000) } else { value }
}

fn single_precision(opcode: &str) -> Option<Operation> {
    Some(match opcode {
        "add.f32" | "add.rn.f32" => two(|a: f32, b: f32| a + b),
        "sub.f32" | "sub.rn.f32" => two(|a: f32, b: f32| a - b),
        "mul.f32" | "mul.rn.f32" => two(|a: f32, b: f32| a * b),
        "fma.rn.f32" => three(f32::mul_add),
        "div.rn.f32" | "div.full.f32" | "div.approx.f32" => two(|a: f32, b: f32| a / b),
        "max.f32" => two(max_f32),
        "min.f32" => two(min_f32),
        "max.NaN.f32" => two(|a: f32, b: f32| with_nan(a, b, max_f32)),
        "min.NaN.f32" => two(|a: f32, b: f32| with_nan(a, b, min_f32)),
        "neg.f32" => one(|a: f32| -a),
        "abs.f32" => one(f32::abs),
        // Its first source gives the sign.
        "copysign.f32" => two(|sign: f32, value: f32| value.copysign(sign)),
        "rcp.rn.f32" | "rcp.approx.f32" => one(|a: f32| 1.0 / a),
        "rcp.approx.ftz.f32" => one(|a: f32| flush(1.0 / flush(a))),
        "sqrt.rn.f32" | "sqrt.approx.f32" => one(f32::sqrt),
        "sqrt.approx.ftz.f32" => one(|a: f32| flush(a).sqrt()),
        "rsqrt.approx.f32" => one(|a: f32| (1.0 / f64::from(a).sqrt()) as f32),
        "rsqrt.approx.ftz.f32" => one(|a: f32| (1.0 / f64::from(flush(a)).sqrt()) as f32),
        "ex2.approx.f32" => one(f32::exp2),
        "ex2.approx.ftz.f32" => one(|a: f32| flush(flush(a).exp2())),
        "lg2.approx.f32" => one(f32::log2),
        "lg2.approx.ftz.f32" => one(|a: f32| flush(a).log2()),
        "sin.approx.f32" => one(f32::sin),
        "cos.approx.f32" => one(f32::cos),
        "tanh.approx.f32" => one(f32::tanh),
        "testp.finite.f32" => one(f32::is_finite),
        "testp.infinite.f32" => one(f32::is_infinite),
        "testp.notanumber.f32" => one(f32::is_nan),
        "testp.number.f32" => one(|a: f32| !a.is_nan()),
        _ => return None,
    })
}

fn double_precision(opcode: &str) -> Option<Operation> {
    Some(match opcode {
        "add.f64" | "add.rn.f64" => two(|a: f64, b: f64| a + b),
        "sub.f64" | "sub.rn.f64" => two(|a: f64, b: f64| a - b),
        "mul.f64" | "mul.rn.f64" => two(|a: f64, b: f64| a * b),
        "fma.rn.f64" => three(f64::mul_add),
        "div.rn.f64" => two(|a: f64, b: f64| a / b),
        "max.f64" => two(max_f64),
        "min.f64" => two(min_f64),
        "neg.f64" => one(|a: f64| -a),
        "abs.f64" => one(f64::abs),
        "copysign.f64" => two(|sign: f64, value: f64| value.copysign(sign)),
        "rcp.rn.f64" => one(|a: f64| 1.0 / a),
        "sqrt.rn.f64" => one(f64::sqrt),
        "testp.finite.f64" => one(f64::is_finite),
        "testp.infinite.f64" => one(f64::is_infinite),
        "testp.notanumber.f64" => one(f64::is_nan),
        "testp.number.f64" => one(|a: f64| !a.is_nan()),
        _ => return None,
    })
}

/// A sum, difference or product of two halves is exact in double precision, or as good as: it is rounded once.
#[inline(always)]
fn half_of((a, b): (Half, Half), function: impl Fn(f32, f32) -> f32) -> Half {
    // Single precision has more than twice the bits of half precision, so rounding twice rounds right.
    Half::of_f32(function(a.to_f32(), b.to_f32()))
}

#[inline(always)]
fn half_fma(a: Half, b: Half, c: Half) -> Half {
    // The product is exact in double precision; the sum is too, except where `of_f64` keeps what was lost.
    Half::of_f64(f64::from(a.to_f32()) * f64::from(b.to_f32()) + f64::from(c.to_f32()))
}

#[inline(always)]
fn on_pairs(a: u32, b: u32, function: impl Fn(f32, f32) -> f32) -> u32 {
    let ((a, a2), (b, b2)) = (halves(a), halves(b));
    pair((half_of((a, b), &function), half_of((a2, b2), &function)))
}

fn half_precision(opcode: &str) -> Option<Operation> {
    Some(match opcode {
        "mov.f16" => one(|a: u16| a),
        "add.f16" | "add.rn.f16" => two(|a: Half, b: Half| half_of((a, b), |a, b| a + b)),
        "sub.f16" | "sub.rn.f16" => two(|a: Half, b: Half| half_of((a, b), |a, b| a - b)),
        "mul.f16" | "mul.rn.f16" => two(|a: Half, b: Half| half_of((a, b), |a, b| a * b)),
        "max.f16" => two(|a: Half, b: Half| half_of((a, b), max_f32)),
        "min.f16" => two(|a: Half, b: Half| half_of((a, b), min_f32)),
        "max.NaN.f16" => two(|a: Half, b: Half| half_of((a, b), |a, b| with_nan(a, b, max_f32))),
        "min.NaN.f16" => two(|a: Half, b: Half| half_of((a, b), |a, b| with_nan(a, b, min_f32))),
        "fma.rn.f16" => three(half_fma),
        "neg.f16" => one(|a: u16| a ^ 0x8000),
        "abs.f16" => one(|a: u16| a & 0x7fff),
        "add.f16x2" | "add.rn.f16x2" => two(|a: u32, b: u32| on_pairs(a, b, |a, b| a + b)),
        "sub.f16x2" | "sub.rn.f16x2" => two(|a: u32, b: u32| on_pairs(a, b, |a, b| a - b)),
        "mul.f16x2" | "mul.rn.f16x2" => two(|a: u32, b: u32| on_pairs(a, b, |a, b| a * b)),
        "max.f16x2" => two(|a: u32, b: u32| on_pairs(a, b, max_f32)),
        "min.f16x2" => two(|a: u32, b: u32| on_pairs(a, b, min_f32)),
        "max.NaN.f16x2" => two(|a: u32, b: u32| on_pairs(a, b, |a, b| with_nan(a, b, max_f32))),
        "min.NaN.f16x2" => two(|a: u32, b: u32| on_pairs(a, b, |a, b| with_nan(a, b, min_f32))),
        "fma.rn.f16x2" => three(|a: u32, b: u32, c: u32| {
            let ((a, a2), (b, b2), (c, c2)) = (halves(a), halves(b), halves(c));
            pair((half_fma(a, b, c), half_fma(a2, b2, c2)))
        }),
        "neg.f16x2" => one(|a: u32| a ^ 0x8000_8000),
        "abs.f16x2" => one(|a: u32| a & 0x7fff_7fff),
        _ => return None,
    })
}

/// `setp.RELATION[.and|.or|.xor].TYPE`.
fn comparison(modifiers: &str) -> Option<Operation> {
    let mut parts = modifiers.split('.');
    let (relation, last) = (parts.next()?, parts.next_back()?);
    let combine = parts.next();
    if parts.next().is_some() {
        return None;
    }
    match last {
        "b16" if matches!(relation, "eq" | "ne") => ordered::<u16>(relation, combine),
        "b32" if matches!(relation, "eq" | "ne") => ordered::<u32>(relation, combine),
        "b64" if matches!(relation, "eq" | "ne") => ordered::<u64>(relation, combine),
        "u16" => ordered::<u16>(unsigned(relation), combine),
        "u32" => ordered::<u32>(unsigned(relation), combine),
        "u64" => ordered::<u64>(unsigned(relation), combine),
        "s16" => ordered::<i16>(relation, combine),
        "s32" => ordered::<i32>(relation, combine),
        "s64" => ordered::<i64>(relation, combine),
        "f16" => of_floats::<Half>(relation, combine),
        "f32" => of_floats::<f32>(relation, combine),
        "f64" => of_floats::<f64>(relation, combine),
        _ => None,
    }
}

/// Relations of unsigned numbers have names of their own, besides the usual ones.
fn unsigned(relation: &str) -> &str {
    match relation {
        "lo" => "lt",
        "ls" => "le",
        "hi" => "gt",
        "hs" => "ge",
        other => other,
    }
}

#[expect(clippy::double_comparisons, reason = "false for NaN, as it should be")]
fn ordered<T: Lane + PartialOrd>(relation: &str, combine: Option<&str>) -> Option<Operation> {
    match relation {
        "eq" => combined(combine, |a: T, b: T| a == b),
        // NaN is equal to nothing and different from nothing; integers do not notice.
        "ne" => combined(combine, |a: T, b: T| (a < b) || (a > b)),
        "lt" => combined(combine, |a: T, b: T| a < b),
        "le" => combined(combine, |a: T, b: T| a <= b),
        "gt" => combined(combine, |a: T, b: T| a > b),
        "ge" => combined(combine, |a: T, b: T| a >= b),
        _ => None,
    }
}

/// Relations that end in `u` hold if one side is NaN.
#[expect(
    clippy::double_comparisons,
    clippy::neg_cmp_op_on_partial_ord,
    reason = "a comparison with NaN is false, so its negation holds, as it should"
)]
fn of_floats<T: Lane + PartialOrd>(relation: &str, combine: Option<&str>) -> Option<Operation> {
    match relation {
        "equ" => combined(combine, |a: T, b: T| !(a < b || a > b)),
        "neu" => combined(combine, |a: T, b: T| !(a <= b && a >= b)),
        "ltu" => combined(combine, |a: T, b: T| !(a >= b)),
        "leu" => combined(combine, |a: T, b: T| !(a > b)),
        "gtu" => combined(combine, |a: T, b: T| !(a <= b)),
        "geu" => combined(combine, |a: T, b: T| !(a < b)),
        "num" => combined(combine, |a: T, b: T| (a <= b) || (a >= b)),
        "nan" => combined(combine, |a: T, b: T| !(a <= b || a >= b)),
        _ => ordered::<T>(relation, combine),
    }
}

/// A comparison, or its combination with a predicate as third source.
fn combined<T: Lane, F>(combine: Option<&str>, holds: F) -> Option<Operation>
where
    F: Fn(T, T) -> bool + Copy + 'static,
{
    match combine {
        None => Some(two(holds)),
        Some("and") => Some(three(move |a: T, b: T, p: bool| holds(a, b) & p)),
        Some("or") => Some(three(move |a: T, b: T, p: bool| holds(a, b) | p)),
        Some("xor") => Some(three(move |a: T, b: T, p: bool| holds(a, b) ^ p)),
        Some(_) => None,
    }
}
