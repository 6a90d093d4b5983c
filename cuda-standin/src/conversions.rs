//! `cvt`: conversions between types, with rounding and saturation.

use crate::half::Half;
use crate::lanes::{Lane, Operation, one};

/// The operation of `cvt.MODIFIERS`, such as `rn.f32.s32`.
pub fn find(modifiers: &str) -> Option<Operation> {
    let mut parts: Vec<&str> = modifiers.split('.').collect();
    let (from, to) = (parts.pop()?, parts.pop()?);
    match (to, from) {
        ("f16" | "f32" | "f64", "f16" | "f32" | "f64") => between_floats(&parts, to, from),
        (_, "f16" | "f32" | "f64") => match *parts.as_slice() {
            ["rzi"] => to_integer(to, from, Rounding::TowardsZero),
            ["rni"] => to_integer(to, from, Rounding::Nearest),
            ["rmi"] => to_integer(to, from, Rounding::Down),
            ["rpi"] => to_integer(to, from, Rounding::Up),
            _ => None,
        },
        ("f16" | "f32" | "f64", _) => match *parts.as_slice() {
            ["rn"] => of_integer(to, from),
            _ => None,
        },
        _ => match *parts.as_slice() {
            [] => between_integers(to, from),
            ["sat"] => saturated(to, from),
            _ => None,
        },
    }
}

#[inline(always)]
fn saturate(value: f32) -> f32 {
    // NaN becomes 0.
    if value >= 0.0 { value.min(1.0) } else { 0.0 }
}

fn between_floats(modifiers: &[&str], to: &str, from: &str) -> Option<Operation> {
    Some(match (modifiers, to, from) {
        ([], "f32", "f16") => one(Half::to_f32),
        ([], "f64", "f16") => one(|a: Half| f64::from(a.to_f32())),
        ([], "f64", "f32") => one(|a: f32| f64::from(a)),
        (["rn"], "f16", "f32") => one(Half::of_f32),
        (["rz"], "f16", "f32") => one(Half::of_f32_towards_zero),
        (["rn"], "f16", "f64") => one(Half::of_f64),
        (["rn"], "f32", "f64") => one(|a: f64| a as f32),
        (["rni"], "f32", "f32") => one(f32::round_ties_even),
        (["rzi"], "f32", "f32") => one(f32::trunc),
        (["rmi"], "f32", "f32") => one(f32::floor),
        (["rpi"], "f32", "f32") => one(f32::ceil),
        (["rni"], "f64", "f64") => one(f64::round_ties_even),
        (["rzi"], "f64", "f64") => one(f64::trunc),
        (["rmi"], "f64", "f64") => one(f64::floor),
        (["rpi"], "f64", "f64") => one(f64::ceil),
        (["rni"], "f16", "f16") => one(|a: Half| Half::of_f32(a.to_f32().round_ties_even())),
        (["rzi"], "f16", "f16") => one(|a: Half| Half::of_f32(a.to_f32().trunc())),
        (["rmi"], "f16", "f16") => one(|a: Half| Half::of_f32(a.to_f32().floor())),
        (["rpi"], "f16", "f16") => one(|a: Half| Half::of_f32(a.to_f32().ceil())),
        (["sat"], "f32", "f32") => one(saturate),
        (["rn", "sat"], "f16", "f32") => one(|a: f32| Half::of_f32(saturate(a))),
        _ => return None,
    })
}

/// How a number becomes whole.
#[derive(Debug, Clone, Copy)]
enum Rounding {
    TowardsZero,
    Nearest,
    Down,
    Up,
}

/// A type of integers that conversions write: it lives in a register of at least its size.
macro_rules! narrow {
    ($name:ident, $type:ty, $register:ty, $class:ident) => {
        #[derive(Clone, Copy)]
        struct $name($type);

        impl Lane for $name {
            type Raw = $register;
            const CLASS: Option<crate::lanes::Class> = Some(crate::lanes::Class::$class);
            #[inline(always)]
            fn load(raw: $register) -> Self {
                Self(raw as $type)
            }
            #[inline(always)]
            fn store(self) -> $register {
                self.0 as $register
            }
        }
    };
}

narrow!(Byte, u8, u16, B16);
narrow!(SignedByte, i8, u16, B16);

macro_rules! to_integer {
    ($name:ident, $wrap:expr, $type:ty, $nan32:expr, $nan64:expr) => {
        /// Values beyond the type become its nearest value.
        fn $name(from: &str, rounding: Rounding) -> Option<Operation> {
            Some(match (from, rounding) {
                ("f16", Rounding::TowardsZero) => {
                    one(|a: Half| $wrap(single::<$type>(a.to_f32().trunc(), $nan32)))
                }
                ("f16", Rounding::Nearest) => {
                    one(|a: Half| $wrap(single::<$type>(a.to_f32().round_ties_even(), $nan32)))
                }
                ("f16", Rounding::Down) => one(|a: Half| $wrap(single::<$type>(a.to_f32().floor(), $nan32))),
                ("f16", Rounding::Up) => one(|a: Half| $wrap(single::<$type>(a.to_f32().ceil(), $nan32))),
                ("f32", Rounding::TowardsZero) => one(|a: f32| $wrap(single::<$type>(a.trunc(), $nan32))),
                ("f32", Rounding::Nearest) => {
                    one(|a: f32| $wrap(single::<$type>(a.round_ties_even(), $nan32)))
                }
                ("f32", Rounding::Down) => one(|a: f32| $wrap(single::<$type>(a.floor(), $nan32))),
                ("f32", Rounding::Up) => one(|a: f32| $wrap(single::<$type>(a.ceil(), $nan32))),
                ("f64", Rounding::TowardsZero) => one(|a: f64| $wrap(double::<$type>(a.trunc(), $nan64))),
                ("f64", Rounding::Nearest) => {
                    one(|a: f64| $wrap(double::<$type>(a.round_ties_even(), $nan64)))
                }
                ("f64", Rounding::Down) => one(|a: f64| $wrap(double::<$type>(a.floor(), $nan64))),
                ("f64", Rounding::Up) => one(|a: f64| $wrap(double::<$type>(a.ceil(), $nan64))),
                _ => return None,
            })
        }
    };
}

/// An integer type that Rust converts to with saturation.
trait Whole: Copy {
    fn of_single(value: f32) -> Self;
    fn of_double(value: f64) -> Self;
}

macro_rules! whole {
    ($($type:ty),*) => { $(
        impl Whole for $type {
            #[inline(always)]
            fn of_single(value: f32) -> Self { value as Self }
            #[inline(always)]
            fn of_double(value: f64) -> Self { value as Self }
        }
    )* };
}

whole!(u8, i8, u16, i16, u32, i32, u64, i64);

#[inline(always)]
fn single<T: Whole>(value: f32, nan: T) -> T {
    if value.is_nan() { nan } else { T::of_single(value) }
}

#[inline(always)]
fn double<T: Whole>(value: f64, nan: T) -> T {
    if value.is_nan() { nan } else { T::of_double(value) }
}

// NaN becomes 0, or the highest bit alone if one of the types has 64 bits (PTX ISA, cvt).
to_integer!(to_u8, Byte, u8, 0, 0x80);
to_integer!(to_s8, SignedByte, i8, 0, i8::MIN);
to_integer!(to_u16, u16::from, u16, 0, 0x8000);
to_integer!(to_s16, i16::from, i16, 0, i16::MIN);
to_integer!(to_u32, u32::from, u32, 0, 0x8000_0000);
to_integer!(to_s32, i32::from, i32, 0, i32::MIN);
to_integer!(to_u64, u64::from, u64, 1 << 63, 1 << 63);
to_integer!(to_s64, i64::from, i64, i64::MIN, i64::MIN);

fn to_integer(to: &str, from: &str, rounding: Rounding) -> Option<Operation> {
    match to {
        "u8" => to_u8(from, rounding),
        "s8" => to_s8(from, rounding),
        "u16" => to_u16(from, rounding),
        "s16" => to_s16(from, rounding),
        "u32" => to_u32(from, rounding),
        "s32" => to_s32(from, rounding),
        "u64" => to_u64(from, rounding),
        "s64" => to_s64(from, rounding),
        _ => None,
    }
}

fn of_integer(to: &str, from: &str) -> Option<Operation> {
    Some(match (to, from) {
        ("f16", "u8") => one(|a: Byte| Half::of_f32(f32::from(a.0))),
        ("f16", "s8") => one(|a: SignedByte| Half::of_f32(f32::from(a.0))),
        ("f16", "u16") => one(|a: u16| Half::of_f32(f32::from(a))),
        ("f16", "s16") => one(|a: i16| Half::of_f32(f32::from(a))),
        ("f16", "u32") => one(|a: u32| Half::of_f64(f64::from(a))),
        ("f16", "s32") => one(|a: i32| Half::of_f64(f64::from(a))),
        // Anything that rounds in double precision is far beyond the range of half precision.
        ("f16", "u64") => one(|a: u64| Half::of_f64(a as f64)),
        ("f16", "s64") => one(|a: i64| Half::of_f64(a as f64)),
        ("f32", "u8") => one(|a: Byte| f32::from(a.0)),
        ("f32", "s8") => one(|a: SignedByte| f32::from(a.0)),
        ("f32", "u16") => one(|a: u16| f32::from(a)),
        ("f32", "s16") => one(|a: i16| f32::from(a)),
        ("f32", "u32") => one(|a: u32| a as f32),
        ("f32", "s32") => one(|a: i32| a as f32),
        ("f32", "u64") => one(|a: u64| a as f32),
        ("f32", "s64") => one(|a: i64| a as f32),
        ("f64", "u8") => one(|a: Byte| f64::from(a.0)),
        ("f64", "s8") => one(|a: SignedByte| f64::from(a.0)),
        ("f64", "u16") => one(|a: u16| f64::from(a)),
        ("f64", "s16") => one(|a: i16| f64::from(a)),
        ("f64", "u32") => one(|a: u32| f64::from(a)),
        ("f64", "s32") => one(|a: i32| f64::from(a)),
        ("f64", "u64") => one(|a: u64| a as f64),
        ("f64", "s64") => one(|a: i64| a as f64),
        _ => return None,
    })
}

/// One line per source type, with all destinations: extension by the source's sign, or truncation.
fn between_integers(to: &str, from: &str) -> Option<Operation> {
    macro_rules! from {
        ($source:ty, $value:expr) => {
            match to {
                "u8" => one(|a: $source| Byte($value(a) as u8)),
                "s8" => one(|a: $source| SignedByte($value(a) as i8)),
                "u16" | "s16" => one(|a: $source| $value(a) as u16),
                "u32" | "s32" => one(|a: $source| $value(a) as u32),
                "u64" | "s64" => one(|a: $source| $value(a) as u64),
                _ => return None,
            }
        };
    }
    Some(match from {
        "u8" => from!(Byte, |a: Byte| a.0),
        "s8" => from!(SignedByte, |a: SignedByte| a.0),
        "u16" => from!(u16, |a: u16| a),
        "s16" => from!(i16, |a: i16| a),
        "u32" => from!(u32, |a: u32| a),
        "s32" => from!(i32, |a: i32| a),
        "u64" => from!(u64, |a: u64| a),
        "s64" => from!(i64, |a: i64| a),
        _ => return None,
    })
}

/// `cvt.sat`: values beyond the destination become its nearest value.
fn saturated(to: &str, from: &str) -> Option<Operation> {
    macro_rules! from {
        ($source:ty, $value:expr) => {
            match to {
                "u8" => one(|a: $source| Byte($value(a).clamp(0, u8::MAX.into()) as u8)),
                "s8" => one(|a: $source| SignedByte($value(a).clamp(i8::MIN.into(), i8::MAX.into()) as i8)),
                "u16" => one(|a: $source| $value(a).clamp(0, u16::MAX.into()) as u16),
                "s16" => one(|a: $source| $value(a).clamp(i16::MIN.into(), i16::MAX.into()) as i16),
                "u32" => one(|a: $source| $value(a).clamp(0, u32::MAX.into()) as u32),
                "s32" => one(|a: $source| $value(a).clamp(i32::MIN.into(), i32::MAX.into()) as i32),
                _ => return None,
            }
        };
    }
    Some(match from {
        "s16" => from!(i16, |a: i16| i64::from(a)),
        "u16" => from!(u16, |a: u16| i64::from(a)),
        "s32" => from!(i32, |a: i32| i64::from(a)),
        "u32" => from!(u32, |a: u32| i64::from(a)),
        "s64" => from!(i64, |a: i64| a),
        _ => return None,
    })
}
