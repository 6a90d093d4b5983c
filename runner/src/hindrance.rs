//! Makes a stage slower on purpose, to see whether the slowness is found.

use crate::clock::monotonic_ns;

/// How much slower each stage is to be, in stage order. Nothing by default.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hindrance {
    per_mille: Vec<u32>,
}

impl Hindrance {
    pub(crate) fn new(per_mille: &[u32]) -> Self {
        Self { per_mille: per_mille.to_vec() }
    }

    /// Keeps the CPU busy after a frame that a stage began and ended at these times, for the stage's share of what the
    /// frame took. Returns when it is over: `end_ns` itself where the stage is not hindered.
    #[inline]
    pub(crate) fn after(&self, place: usize, begin_ns: u64, end_ns: u64) -> u64 {
        let Some(per_mille) = self.per_mille.get(place).filter(|share| **share > 0) else { return end_ns };
        let until = end_ns + (end_ns - begin_ns).saturating_mul(u64::from(*per_mille)) / 1000;
        loop {
            let now = monotonic_ns();
            if now >= until {
                return now;
            }
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hindered_stage_takes_its_share_longer_and_the_others_nothing() {
        let hindrance = Hindrance::new(&[0, 500]);
        let now = monotonic_ns();
        let begin = now - 4_000_000;
        for place in [0, 2] {
            assert_eq!(hindrance.after(place, begin, now), now);
        }
        let end = hindrance.after(1, begin, now);
        assert!(end >= now + 2_000_000, "{}", end - now);
        assert_eq!(Hindrance::default().after(0, begin, now), now);
    }
}
