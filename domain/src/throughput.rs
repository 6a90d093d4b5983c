//! The measured window of a trial, and the figures of its frames.

use crate::samples::{SamplesError, between, quantile_in_place};
use crate::units::{FramesPerSecond, Nanoseconds};
use serde::Serialize;

/// A measured window. It opens with the completion of a frame that is not counted and closes with that of the last
/// one counted, so that it holds whole frames only.
///
/// At least one frame completed in it, none before it opened, and the completions ascend (two may coincide).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    opened_ns: u64,
    completed_ns: Vec<u64>,
    /// Frames of the whole window, and the last completion, if only the first frames are known.
    whole: Option<(usize, u64)>,
}

impl Window {
    /// A window that opened at `opened_ns` and in which frames completed at these times, all on one clock.
    pub fn new(opened_ns: u64, completed_ns: Vec<u64>) -> Result<Self, WindowError> {
        let mut before = opened_ns;
        for (frame, &completed) in completed_ns.iter().enumerate() {
            if completed < before {
                return Err(WindowError::Backwards { frame, completed, before });
            }
            before = completed;
        }
        if completed_ns.is_empty() {
            return Err(WindowError::NoFrames);
        }
        if before == opened_ns {
            return Err(WindowError::NoTime);
        }
        Ok(Self { opened_ns, completed_ns, whole: None })
    }

    /// The same window with more frames, of which only the number and the last completion are known. Fewer or earlier ones
    /// than those known are ignored.
    #[must_use]
    pub fn with_more(self, frames: usize, closed_ns: u64) -> Self {
        let is_more = frames >= self.frames() && closed_ns >= self.opened_ns + self.duration().0;
        Self { whole: is_more.then_some((frames, closed_ns)), ..self }
    }

    /// Frames completed.
    pub fn frames(&self) -> usize {
        self.whole.map_or(self.completed_ns.len(), |(frames, _)| frames)
    }

    /// From the opening to the last completion; more than zero.
    pub fn duration(&self) -> Nanoseconds {
        let known = self.completed_ns.last().copied().unwrap_or(self.opened_ns);
        let last = self.whole.map_or(known, |(_, closed)| closed);
        Nanoseconds(last - self.opened_ns)
    }

    /// Frames completed, over the time that took.
    pub fn throughput(&self) -> FramesPerSecond {
        FramesPerSecond::from_frame_ns(self.duration().as_f64() / self.frames() as f64)
    }

    /// Time from each known completion to the next, the first from the opening.
    pub fn inter_frame(&self) -> Vec<Nanoseconds> {
        inter_frame(self.opened_ns, &self.completed_ns)
    }

    /// Means of [`Window::inter_frame`] over this many frames each. Frames that do not fill the last mean are left out.
    pub fn inter_frame_over(&self, count: usize) -> Vec<Nanoseconds> {
        let times = self.inter_frame();
        if count <= 1 {
            return times;
        }
        let mean = |times: &[Nanoseconds]| {
            Nanoseconds(times.iter().map(|time| time.0).sum::<u64>() / times.len() as u64)
        };
        times.chunks_exact(count).map(mean).collect()
    }
}

/// Time from each completion to the next, the first from `opened_ns`. Zero if a time is before its predecessor.
pub fn inter_frame(opened_ns: u64, completed_ns: &[u64]) -> Vec<Nanoseconds> {
    let starts = std::iter::once(&opened_ns).chain(completed_ns);
    starts.zip(completed_ns).map(|(start, end)| Nanoseconds(end.saturating_sub(*start))).collect()
}

/// How long frames took from entering the first stage, in a stream from their scheduled arrival, to completion.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Median, in ns.
    pub p50_ns: f64,
    /// 90th percentile, in ns.
    pub p90_ns: f64,
    /// 99th percentile, in ns. From fewer than 100 frames it lies close to the longest.
    pub p99_ns: f64,
    /// The longest, in ns.
    pub longest_ns: f64,
    /// Frames observed.
    pub frames: usize,
}

impl Latency {
    /// Of these frames.
    pub fn of(latencies: &[Nanoseconds]) -> Result<Self, SamplesError> {
        Self::of_several(&[latencies])
    }

    /// Of the frames of several trials.
    pub fn of_several(trials: &[&[Nanoseconds]]) -> Result<Self, SamplesError> {
        let mut all = trials.concat();
        let frames = all.len();
        let longest_ns = all.iter().max().ok_or(SamplesError::Empty)?.as_f64();
        // From the highest on, each among those below the one before.
        let (p99, least) = quantile_in_place(&mut all, frames, 0.99);
        let (p90, least) = quantile_in_place(least, frames, 0.9);
        let (p50, _) = quantile_in_place(least, frames, 0.5);
        let [p50_ns, p90_ns, p99_ns] =
            [p50, p90, p99].map(|(below, above, share)| between(below.as_f64(), above.as_f64(), share));
        Ok(Self { p50_ns, p90_ns, p99_ns, longest_ns, frames })
    }
}

/// Why these completions are not a valid window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// No frame completed.
    #[error("failed to read the measured window: no frame completed in it")]
    NoFrames,
    /// All frames completed at the opening.
    #[error("failed to read the measured window: all its frames completed the moment it opened")]
    NoTime,
    /// A frame completed before the one before it, or before the window opened.
    #[error(
        "failed to read the measured window: frame {frame} completed at {completed} ns, before {before} ns"
    )]
    Backwards {
        /// Place of the frame.
        frame: usize,
        /// When it completed, in ns.
        completed: u64,
        /// What came before it, in ns.
        before: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Samples;
    use proptest::prelude::*;

    #[test]
    fn the_opening_frame_is_not_counted() {
        let window = Window::new(1_000, vec![2_000, 3_000, 5_000]).unwrap();
        assert_eq!(window.duration(), Nanoseconds(4_000));
        assert!((window.throughput().0 - 750_000.0).abs() < 1e-6);
        assert_eq!(window.inter_frame(), [1_000, 1_000, 2_000].map(Nanoseconds));
        assert_eq!(window.inter_frame_over(1), window.inter_frame());
        assert_eq!(window.inter_frame_over(2), [1_000].map(Nanoseconds));
        let longer = window.clone().with_more(300, 101_000);
        assert_eq!((longer.frames(), longer.duration()), (300, Nanoseconds(100_000)));
        assert_eq!(window.clone().with_more(2, 101_000), window);
    }

    #[test]
    fn latencies() {
        let latencies: Vec<_> = (1..=101).map(Nanoseconds).collect();
        let latency = Latency::of(&latencies).unwrap();
        assert!((latency.p50_ns - 51.0).abs() < 1e-9);
        assert!((latency.p90_ns - 91.0).abs() < 1e-9);
        assert!((latency.p99_ns - 100.0).abs() < 1e-9);
        assert!((latency.longest_ns - 101.0).abs() < 1e-9);
        assert_eq!(Latency::of(&[]), Err(SamplesError::Empty));
    }

    proptest! {
        #[test]
        fn latencies_are_quantiles_of_all_frames(
            trials in proptest::collection::vec(proptest::collection::vec(0..60_u64, 0..60), 0..4),
        ) {
            let trials: Vec<Vec<Nanoseconds>> =
                trials.into_iter().map(|trial| trial.into_iter().map(Nanoseconds).collect()).collect();
            let slices: Vec<&[Nanoseconds]> = trials.iter().map(Vec::as_slice).collect();
            let found = Latency::of_several(&slices);
            match Samples::of_durations(&trials.concat()) {
                Err(error) => prop_assert_eq!(found, Err(error)),
                Ok(samples) => prop_assert_eq!(found, Ok(Latency {
                    p50_ns: samples.median(),
                    p90_ns: samples.quantile(0.9),
                    p99_ns: samples.quantile(0.99),
                    longest_ns: samples.greatest(),
                    frames: samples.count(),
                })),
            }
        }
    }

    #[test]
    fn what_is_no_window() {
        assert_eq!(Window::new(5, vec![]), Err(WindowError::NoFrames));
        assert_eq!(Window::new(5, vec![5, 5]), Err(WindowError::NoTime));
        let backwards = Window::new(5, vec![9, 7]).unwrap_err().to_string();
        assert_eq!(backwards, "failed to read the measured window: frame 1 completed at 7 ns, before 9 ns");
        assert!(matches!(Window::new(5, vec![4]), Err(WindowError::Backwards { frame: 0, .. })));
    }

    proptest! {
        #[test]
        fn inter_frame_times_add_up(gaps in proptest::collection::vec(0..1_000_000_u64, 1..50), opened in 0..1_000_u64) {
            let completed: Vec<u64> = gaps
                .iter()
                .scan(opened, |now, gap| { *now += gap; Some(*now) })
                .collect();
            if let Ok(window) = Window::new(opened, completed) {
                prop_assert_eq!(window.inter_frame(), gaps.iter().copied().map(Nanoseconds).collect::<Vec<_>>());
                let total: u64 = gaps.iter().sum();
                let rate = gaps.len() as f64 * 1e9 / total as f64;
                prop_assert!((window.throughput().0 - rate).abs() <= 1e-9 * rate);
            } else {
                prop_assert_eq!(gaps.iter().sum::<u64>(), 0);
            }
        }
    }
}
