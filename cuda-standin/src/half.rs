//! Half precision (IEEE 754 binary16), by way of single and double precision.

use crate::lanes::{Class, Lane};

/// A value of type `.f16`, as its bits.
#[derive(Debug, Clone, Copy)]
pub struct Half(pub u16);

impl PartialEq for Half {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.to_f32() == other.to_f32()
    }
}

impl PartialOrd for Half {
    #[inline(always)]
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.to_f32().partial_cmp(&other.to_f32())
    }
}

impl Lane for Half {
    type Raw = u16;
    const CLASS: Option<Class> = Some(Class::B16);
    #[inline(always)]
    fn load(raw: u16) -> Self {
        Self(raw)
    }
    #[inline(always)]
    fn store(self) -> u16 {
        self.0
    }
}

impl Half {
    /// The same value in single precision; exact.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        let bits = u32::from(self.0);
        let (sign, rest) = ((bits & 0x8000) << 16, bits & 0x7fff);
        let magnitude = if rest >= 0x7c00 {
            f32::from_bits(0x7f80_0000 | (rest & 0x3ff) << 13)
        } else {
            // The exponent's bias differs by 112, which a product with 2^112 corrects for subnormal numbers too.
            f32::from_bits(rest << 13) * f32::from_bits((127 + 112) << 23)
        };
        f32::from_bits(magnitude.to_bits() | sign)
    }

    /// Rounds to the nearest value, ties to even.
    #[inline(always)]
    pub fn of_f32(value: f32) -> Self {
        Self::round(value, |kept, rest, half, _| {
            kept + u32::from(rest > half || (rest == half && kept & 1 == 1))
        })
    }

    /// Rounds towards zero.
    #[inline(always)]
    pub fn of_f32_towards_zero(value: f32) -> Self {
        Self::round(value, |kept, _, _, finite| if finite { kept.min(0x7bff) } else { kept })
    }

    /// Rounds once from double precision: first to a single-precision value whose last bit keeps what was lost.
    #[inline(always)]
    pub fn of_f64(value: f64) -> Self {
        let near = value as f32;
        if !near.is_finite() || f64::from(near) == value {
            return Self::of_f32(near);
        }
        // Round to odd: the neighbour towards zero, with its last bit set.
        let towards_zero =
            if f64::from(near).abs() > value.abs() { near.to_bits() - 1 } else { near.to_bits() };
        Self::of_f32(f32::from_bits(towards_zero | 1))
    }

    /// `round` gets the kept bits, the lost bits, half of a unit in the last place, and whether the value is finite.
    #[inline(always)]
    fn round(value: f32, round: impl Fn(u32, u32, u32, bool) -> u32) -> Self {
        let bits = value.to_bits();
        let (sign, rest) = ((bits >> 16) as u16 & 0x8000, bits & 0x7fff_ffff);
        if rest > 0x7f80_0000 {
            return Self(0x7fff);
        }
        if rest >= 0x4780_0000 {
            return Self(sign | round(0x7c00, 0, 1, rest < 0x7f80_0000) as u16);
        }
        let exponent = rest >> 23;
        // A normal number drops 13 bits of its fraction; a subnormal one drops more, down to nothing.
        let (fraction, lost) = if exponent >= 113 {
            (rest - (112 << 23), 13)
        } else {
            ((rest & 0x7f_ffff) | u32::from(exponent > 0) << 23, (126 - exponent.max(1)).min(31))
        };
        let kept = fraction >> lost;
        let magnitude = round(kept, fraction & ((1 << lost) - 1), 1 << (lost - 1), true);
        Self(sign | magnitude as u16)
    }
}

/// The two halves of an `.f16x2`.
#[inline(always)]
pub fn halves(pair: u32) -> (Half, Half) {
    (Half(pair as u16), Half((pair >> 16) as u16))
}

/// An `.f16x2` of two halves.
#[inline(always)]
pub fn pair((low, high): (Half, Half)) -> u32 {
    u32::from(low.0) | u32::from(high.0) << 16
}
