//! Vector multiply-adds as fast as a CPU does them.

/// How a CPU multiplies and adds vectors of 32-bit floating-point numbers, and how many numbers at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Multiplier {
    /// Numbers in a vector.
    pub(crate) lanes: u32,
    run: fn(u64) -> f32,
}

/// Chains of multiply-adds that do not wait for one another. Two units of up to 6 cycles latency need 12; more than
/// 26 would not fit the 32 registers, and of 16 registers 12 are left.
const CHAINS: usize = 12;
/// Multiply-adds of a chain in one turn of the loop.
const UNROLLED: usize = 4;

impl Multiplier {
    /// The widest of this CPU; `None` where it has none that this program knows.
    pub(crate) fn of_this_cpu() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Some(Self { lanes: 16, run: x86::wide });
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Some(Self { lanes: 8, run: x86::narrow });
            }
            None
        }
        #[cfg(target_arch = "aarch64")]
        {
            Some(Self { lanes: 4, run: arm::neon })
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            None
        }
    }

    /// Does `turns` turns of the loop; the number of multiply-adds of single numbers in them.
    pub(crate) fn run(self, turns: u64) -> u64 {
        std::hint::black_box((self.run)(std::hint::black_box(turns)));
        turns * u64::from(self.lanes) * (CHAINS * UNROLLED) as u64
    }
}

/// The loop, for one kind of vector. The chains tend to 1, so that no number grows, shrinks or slows down.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! chains {
    ($turns:expr, $splat:expr, $multiply_add:expr, $sum:expr) => {{
        let (factor, addend) = ($splat(std::hint::black_box(0.5)), $splat(std::hint::black_box(0.5)));
        let mut chains = [$splat(std::hint::black_box(1.0)); CHAINS];
        for _ in 0..$turns {
            for _ in 0..UNROLLED {
                for chain in &mut chains {
                    *chain = $multiply_add(*chain, factor, addend);
                }
            }
        }
        chains.into_iter().map($sum).sum()
    }};
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "functions for CPUs with more instructions than this program asks for")]
mod x86 {
    use super::{CHAINS, UNROLLED};
    use std::arch::x86_64::{
        _mm256_cvtss_f32, _mm256_fmadd_ps, _mm256_set1_ps, _mm512_cvtss_f32, _mm512_fmadd_ps, _mm512_set1_ps,
    };

    pub(super) fn wide(turns: u64) -> f32 {
        #[target_feature(enable = "avx512f")]
        fn run(turns: u64) -> f32 {
            chains!(
                turns,
                |value| _mm512_set1_ps(value),
                |chain, factor, addend| _mm512_fmadd_ps(chain, factor, addend),
                |chain| _mm512_cvtss_f32(chain)
            )
        }
        // SAFETY: only handed out where the CPU was asked for AVX-512F.
        unsafe { run(turns) }
    }

    pub(super) fn narrow(turns: u64) -> f32 {
        #[target_feature(enable = "avx2,fma")]
        fn run(turns: u64) -> f32 {
            chains!(
                turns,
                |value| _mm256_set1_ps(value),
                |chain, factor, addend| _mm256_fmadd_ps(chain, factor, addend),
                |chain| _mm256_cvtss_f32(chain)
            )
        }
        // SAFETY: only handed out where the CPU was asked for AVX2 and FMA.
        unsafe { run(turns) }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::{CHAINS, UNROLLED};
    use std::arch::aarch64::{vdupq_n_f32, vfmaq_f32, vgetq_lane_f32};

    /// Every 64-bit Arm CPU has NEON, and this program asks for it.
    pub(super) fn neon(turns: u64) -> f32 {
        #[expect(unsafe_code, reason = "vector instructions")]
        // SAFETY: NEON belongs to the target this is compiled for.
        unsafe {
            chains!(
                turns,
                |value| vdupq_n_f32(value),
                |chain, factor, addend| vfmaq_f32(addend, chain, factor),
                |chain| vgetq_lane_f32::<0>(chain)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_stay_where_they_are() {
        let Some(multiplier) = Multiplier::of_this_cpu() else { return };
        assert_eq!((multiplier.run)(1000).to_bits(), 12_f32.to_bits());
        assert_eq!(multiplier.run(10), 10 * u64::from(multiplier.lanes) * 48);
    }
}
