//! The highest rate of frames that a schedule sustains, found by trials at different rates.

/// The search ends when the lowest rate that is too high is at most this share above the highest sustained one.
pub const PRECISION: f64 = 0.01;
/// Most trials of a search.
const MOST_TRIALS: u32 = 24;
/// First step away from the first rate.
const STEP: f64 = 1.04;
/// Highest rate of a stream in frames per second: the source of a runner offers no more.
pub const MOST_FPS: f64 = 10_000.0;
/// The search gives up below this share of the first rate.
const LOWEST: f64 = 0.02;
/// Rates are the same if they differ by less than this share: they are stored for each stream.
const SAME: f64 = 1e-9;

/// A search over rates. Each trial either sustains its rate or does not.
///
/// The first rate is near the throughput of the schedule. From there the search steps away until one rate is sustained and a
/// higher one is not, with steps that double, and then halves the distance. A single trial may be disturbed or lucky, so both
/// ends of the result need a second trial that agrees; if it does not, a third one decides. Otherwise a search that goes on
/// below the first disturbed trial would find too low a rate.
#[derive(Debug, Clone, PartialEq)]
pub struct RateSearch {
    first_fps: f64,
    most_fps: f64,
    tried: Vec<Tried>,
    trials: u32,
    /// Trials since the search last had both ends.
    steps: u32,
}

/// The trials at a rate.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tried {
    fps: f64,
    sustained: u32,
    failed: u32,
}

impl Tried {
    /// What most trials say; `None` if there are as many of both.
    fn verdict(&self) -> Option<bool> {
        (self.sustained != self.failed).then_some(self.sustained > self.failed)
    }

    fn is_confirmed(&self) -> bool {
        self.verdict().is_some() && self.sustained.max(self.failed) >= 2
    }
}

impl RateSearch {
    /// A search that begins at this rate, above 0, and tries none above `most_fps`.
    pub fn new(first_fps: f64, most_fps: f64) -> Self {
        Self { first_fps: first_fps.min(most_fps), most_fps, tried: Vec::new(), trials: 0, steps: 0 }
    }

    /// The rate of the next trial; `None` at the end.
    pub fn next_fps(&self) -> Option<f64> {
        let step = STEP.powi(1 << self.steps.saturating_sub(1).min(4));
        let undecided = self.tried.iter().find(|tried| tried.verdict().is_none());
        let next = match (undecided, self.sustained(), self.failed()) {
            (Some(tried), _, _) => tried.fps,
            (None, None, None) => self.first_fps,
            (None, Some(sustained), None) if sustained.fps >= self.most_fps * (1.0 - SAME) => return None,
            (None, Some(sustained), None) => (sustained.fps * step).min(self.most_fps),
            (None, None, Some(failed)) => failed.fps / step,
            (None, Some(sustained), Some(failed)) if failed.fps <= sustained.fps * (1.0 + PRECISION) => {
                [sustained, failed].into_iter().find(|tried| !tried.is_confirmed())?.fps
            }
            (None, Some(sustained), Some(failed)) => (sustained.fps * failed.fps).sqrt(),
        };
        (self.trials < MOST_TRIALS && next.is_finite() && next >= LOWEST * self.first_fps && next > 0.0)
            .then_some(next)
    }

    /// Takes the result of a trial at this rate.
    pub fn record(&mut self, fps: f64, is_sustained: bool) {
        self.trials += 1;
        let known = self.tried.iter().position(|tried| (tried.fps - fps).abs() <= SAME * fps);
        let place = known.unwrap_or_else(|| {
            self.tried.push(Tried { fps, sustained: 0, failed: 0 });
            self.tried.len() - 1
        });
        let tried = &mut self.tried[place];
        if is_sustained {
            tried.sustained += 1;
        } else {
            tried.failed += 1;
        }
        self.steps = if self.bracket().is_some() { 0 } else { self.steps + 1 };
    }

    /// The highest sustained rate and the lowest one above it that is too high, if the search has found both.
    pub fn bracket(&self) -> Option<(f64, f64)> {
        self.sustained().zip(self.failed()).map(|(sustained, failed)| (sustained.fps, failed.fps))
    }

    /// The lowest rate that was not sustained, and above all that were.
    pub fn lowest_failed(&self) -> Option<f64> {
        self.failed().map(|tried| tried.fps)
    }

    /// The highest rate that was sustained.
    pub fn highest_sustained(&self) -> Option<f64> {
        self.sustained().map(|tried| tried.fps)
    }

    fn sustained(&self) -> Option<Tried> {
        let sustained = self.tried.iter().filter(|tried| tried.verdict() == Some(true));
        sustained.copied().max_by(|a, b| a.fps.total_cmp(&b.fps))
    }

    fn failed(&self) -> Option<Tried> {
        let below = self.sustained().map_or(0.0, |sustained| sustained.fps);
        let failed = self.tried.iter().filter(|tried| tried.verdict() == Some(false) && tried.fps > below);
        failed.copied().min_by(|a, b| a.fps.total_cmp(&b.fps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn search(first_fps: f64, capacity: f64) -> (RateSearch, u32) {
        let mut search = RateSearch::new(first_fps, 1e9);
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
        assert!(trials <= 8, "{trials}");
    }

    #[test]
    fn no_rate_above_the_limit_is_tried() {
        for (first, capacity, expected) in [(500.0, 1e9, None), (70.0, 1e9, None), (500.0, 90.0, Some(90.0))]
        {
            let mut search = RateSearch::new(first, 100.0);
            while let Some(fps) = search.next_fps() {
                assert!(fps <= 100.0);
                search.record(fps, fps <= capacity);
            }
            assert_eq!(search.bracket().map(|(sustained, _)| sustained <= 90.0), expected.map(|_| true));
            assert!(expected.is_some() || search.highest_sustained() == Some(100.0), "{search:?}");
        }
    }

    #[test]
    fn a_disturbed_trial_does_not_lower_the_result_and_a_lucky_one_does_not_raise_it() {
        for disturbed in 1..=9 {
            for lucky in [false, true] {
                let mut search = RateSearch::new(100.0, 1e9);
                let mut trials = 0;
                while let Some(fps) = search.next_fps() {
                    trials += 1;
                    search.record(fps, (fps <= 98.0) != (trials == disturbed && lucky == (fps > 98.0)));
                }
                let (sustained, failed) = search.bracket().unwrap();
                assert!(sustained <= 98.0 && 98.0 < failed, "trial {disturbed}: {search:?}");
                assert!(failed <= sustained * 1.01 && trials <= 16, "{trials} trials: {search:?}");
            }
        }
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
