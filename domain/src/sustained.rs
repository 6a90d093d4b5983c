//! The highest rate of frames that a schedule sustains, found by trials at different rates.

/// The search ends when the lowest rate that is too high is at most this share above the highest sustained one.
pub const PRECISION: f64 = 0.01;
/// Most trials of a search.
const MOST_TRIALS: u32 = 20;
/// First step away from the first rate.
const STEP: f64 = 1.04;
/// The search gives up below this share of the first rate.
const LOWEST: f64 = 0.02;

/// A search over rates. Each trial either sustains its rate or does not.
///
/// The first rate is near the throughput of the schedule. From there the search steps away until one rate is sustained and a
/// higher one is not, with steps that double, and then halves the distance.
#[derive(Debug, Clone, PartialEq)]
pub struct RateSearch {
    first_fps: f64,
    sustained_fps: Option<f64>,
    failed_fps: Option<f64>,
    trials: u32,
}

impl RateSearch {
    /// A search that begins at this rate, above 0.
    pub fn new(first_fps: f64) -> Self {
        Self { first_fps, sustained_fps: None, failed_fps: None, trials: 0 }
    }

    /// The rate of the next trial; `None` at the end.
    pub fn next_fps(&self) -> Option<f64> {
        let step = STEP.powi(1 << self.trials.saturating_sub(1).min(4));
        let next = match (self.sustained_fps, self.failed_fps) {
            (None, None) => self.first_fps,
            (Some(sustained), None) => sustained * step,
            (None, Some(failed)) => failed / step,
            (Some(sustained), Some(failed)) if failed <= sustained * (1.0 + PRECISION) => return None,
            (Some(sustained), Some(failed)) => (sustained * failed).sqrt(),
        };
        (self.trials < MOST_TRIALS && next.is_finite() && next >= LOWEST * self.first_fps && next > 0.0)
            .then_some(next)
    }

    /// Takes the result of a trial at this rate.
    pub fn record(&mut self, fps: f64, is_sustained: bool) {
        self.trials += 1;
        if is_sustained {
            self.sustained_fps = Some(self.sustained_fps.map_or(fps, |known| known.max(fps)));
        } else {
            self.failed_fps = Some(self.failed_fps.map_or(fps, |known| known.min(fps)));
        }
    }

    /// The highest sustained rate and the lowest one that is too high, if the search has found both.
    pub fn bracket(&self) -> Option<(f64, f64)> {
        self.sustained_fps.zip(self.failed_fps).filter(|(sustained, failed)| sustained < failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn search(first_fps: f64, capacity: f64) -> (RateSearch, u32) {
        let mut search = RateSearch::new(first_fps);
        let mut trials = 0;
        while let Some(fps) = search.next_fps() {
            search.record(fps, fps <= capacity);
            trials += 1;
        }
        (search, trials)
    }

    #[test]
    fn a_search_near_the_capacity_is_short() {
        let (found, trials) = search(100.0, 98.0);
        let (sustained, failed) = found.bracket().unwrap();
        assert!(sustained <= 98.0 && 98.0 < failed && failed <= sustained * 1.01, "{found:?}");
        assert!(trials <= 6, "{trials}");
    }

    #[test]
    fn a_schedule_that_sustains_nothing_ends_the_search() {
        let (found, trials) = search(100.0, 0.0);
        assert!(found.bracket().is_none() && trials < 12, "{trials}");
    }

    proptest! {
        #[test]
        fn the_capacity_is_found_from_anywhere(first in 1.0..1000.0_f64, factor in 0.1..4.0_f64) {
            let capacity = first * factor;
            let (found, _) = search(first, capacity);
            let (sustained, failed) = found.bracket().unwrap();
            prop_assert!(sustained <= capacity && capacity < failed);
            prop_assert!(failed <= sustained * (1.0 + PRECISION));
        }
    }
}
