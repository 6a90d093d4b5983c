//! Vector multiply-adds at the peak rate of a CPU.

/// Fused multiply-adds of vectors of 32-bit floats.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Multiplier {
    /// Floats in a vector.
    pub(crate) lanes: u32,
    run: fn(u64) -> f32,
}

/// Independent chains of multiply-adds. Two units with a latency of up to 6 cycles need 12. With 16 vector registers, 12
/// remain for chains.
const CHAINS: usize = 12;
/// Multiply-adds of a chain in one iteration of the loop.
const UNROLLED: usize = 4;

impl Multiplier {
    /// The widest that this CPU has; `None` if it has no supported vector instructions.
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

    /// Runs `iterations` of the loop and reiterations the number of scalar multiply-adds in them.
    pub(crate) fn run(self, iterations: u64) -> u64 {
        std::hint::black_box((self.run)(std::hint::black_box(iterations)));
        iterations * u64::from(self.lanes) * (CHAINS * UNROLLED) as u64
    }
}

/// The loop for one vector type. All values converge to 1, so that none overflows or becomes subnormal.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! chains {
    ($iterations:expr, $splat:expr, $multiply_add:expr, $sum:expr) => {{
        let (factor, addend) = ($splat(std::hint::black_box(0.5)), $splat(std::hint::black_box(0.5)));
        let mut chains = [$splat(std::hint::black_box(1.0)); CHAINS];
        for _ in 0..$iterations {
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
#[expect(unsafe_code, reason = "instructions beyond the compilation target")]
mod x86 {
    use super::{CHAINS, UNROLLED};
    use std::arch::x86_64::{
        _mm256_cvtss_f32, _mm256_fmadd_ps, _mm256_set1_ps, _mm512_cvtss_f32, _mm512_fmadd_ps, _mm512_set1_ps,
    };

    pub(super) fn wide(iterations: u64) -> f32 {
        #[target_feature(enable = "avx512f")]
        fn run(iterations: u64) -> f32 {
            chains!(
                iterations,
                |value| _mm512_set1_ps(value),
                |chain, factor, addend| _mm512_fmadd_ps(chain, factor, addend),
                |chain| _mm512_cvtss_f32(chain)
            )
        }
        // SAFETY: only used after the CPU was found to have AVX-512F.
        unsafe { run(iterations) }
    }

    pub(super) fn narrow(iterations: u64) -> f32 {
        #[target_feature(enable = "avx2,fma")]
        fn run(iterations: u64) -> f32 {
            chains!(
                iterations,
                |value| _mm256_set1_ps(value),
                |chain, factor, addend| _mm256_fmadd_ps(chain, factor, addend),
                |chain| _mm256_cvtss_f32(chain)
            )
        }
        // SAFETY: only used after the CPU was found to have AVX2 and FMA.
        unsafe { run(iterations) }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::{CHAINS, UNROLLED};
    use std::arch::aarch64::{vdupq_n_f32, vfmaq_f32, vgetq_lane_f32};

    /// Every 64-bit Arm CPU has NEON.
    pub(super) fn neon(iterations: u64) -> f32 {
        #[expect(unsafe_code, reason = "vector instructions")]
        // SAFETY: NEON is part of the compilation target.
        unsafe {
            chains!(
                iterations,
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
    fn all_chains_stay_at_1() {
        let multiplier = Multiplier::of_this_cpu().expect(
            "this CPU has no supported vector instructions (AVX2 with FMA, AVX-512F or NEON), so the peak cannot be tested",
        );
        assert_eq!((multiplier.run)(1000).to_bits(), 12_f32.to_bits());
        assert_eq!(multiplier.run(10), 10 * u64::from(multiplier.lanes) * 48);
    }
}
