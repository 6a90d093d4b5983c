//! Finds the end of the warm-up from frame times.
//!
//! The pace of a trial may settle in steps (clocks rise, caches fill, a neighbour leaves), so the frame times are
//! cut at their change points, and the steady part is the last stretch of equal pace, as in Barrett et al. 2017,
//! "Virtual machine warmup blows hot and cold". Earlier frames are labelled; the caller decides whether to use them.
//!
//! # Method
//! 1. Frame times are limited to the median ± 4 times their noise (from the median absolute deviation), so that single
//!    bad frames have little weight. They are averaged in at most 400 batches of at least five frames (the batches of
//!    MSER-5, White 1997, "An effective truncation heuristic for bias reduction in simulation output"). This evens out
//!    the rhythm in which frames leave a pipeline or a replicate.
//! 2. Batches are divided by their noise, which is estimated from the differences of neighbours (von Neumann 1941,
//!    "Distribution of the ratio of the mean square successive difference to the variance"). These differences are
//!    limited to 4 times their noise, so that tails count as noise and steps do not. The batches are limited to ±4
//!    times the noise around their median, so that one bad batch is not a step.
//! 3. The change points of the mean are found exactly by PELT (Killick, Fearnhead & Eckley 2012, "Optimal detection
//!    of changepoints with a linear computational cost") with a penalty of 6·ln n.
//! 4. Stretches from the last one backwards belong to the steady part as long as their pace is within 1 % of the
//!    last one's.
//!
//! Cost: O(n + m²) for n frames in m ≤ 400 batches.

use crate::samples::{MAD_TO_DEVIATION, median_in_place};
use crate::units::Nanoseconds;
use serde::Serialize;

/// Fewest frames of a batch.
const BATCH: usize = 5;
/// Most batches.
const BATCHES: usize = 400;
/// Values are limited to this many times the noise.
const MAX_DEVIATIONS: f64 = 4.0;
/// The penalty of a change is this many times ln n.
const PENALTY: f64 = 6.0;
/// Stretches within this share of one another have the same pace.
const SAME_PACE: f64 = 0.01;
/// Smallest assumed noise, as a share of the pace: the resolution of a clock may hide smaller noise.
const LEAST_NOISE: f64 = 0.001;

/// Frames of one pace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stretch {
    /// First frame in it.
    pub first: usize,
    /// First frame after it.
    pub end: usize,
    /// Mean of the frame times in ns, which are limited as in step 1 of the module's method.
    pub pace_ns: f64,
}

/// The steady part of frame times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Steadiness {
    /// First frame of the steady part; frames before it are warm-up.
    pub begins: usize,
    /// Whether the steady part is at least half of the frames. If it is not, the pace changed late or never
    /// settled, and `begins` is only the place of the last change.
    pub steady: bool,
    /// The stretches between change points, in order, without gaps.
    pub stretches: Vec<Stretch>,
}

/// Finds the steady part of frame times, in the order of completion. Absent with fewer than 20 frames, which is too
/// few to tell.
pub fn steadiness(frame_times: &[Nanoseconds]) -> Option<Steadiness> {
    let frames = frame_times.len();
    if frames < 4 * BATCH {
        return None;
    }
    let size = BATCH.max(frames.div_ceil(BATCHES));
    let count = frames / size;
    // What does not fill a batch at the end joins the last one.
    let bound = |batch: usize| if batch == count { frames } else { batch * size };
    let times = clipped(frame_times);
    let batches: Vec<f64> = (0..count).map(|batch| mean(&times[bound(batch)..bound(batch + 1)])).collect();
    let changes = change_points(&scaled(&batches));
    let stretches: Vec<Stretch> = changes
        .windows(2)
        .map(|pair| {
            let (first, end) = (bound(pair[0]), bound(pair[1]));
            Stretch { first, end, pace_ns: mean(&times[first..end]) }
        })
        .collect();
    let last = stretches.last()?.pace_ns;
    let begins = stretches
        .iter()
        .rev()
        .take_while(|stretch| (stretch.pace_ns - last).abs() <= SAME_PACE * last)
        .last()
        .map_or(0, |stretch| stretch.first);
    Some(Steadiness { begins, steady: 2 * begins <= frames, stretches })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Frame times in ns, limited to the median ± [`MAX_DEVIATIONS`] times their noise.
fn clipped(frame_times: &[Nanoseconds]) -> Vec<f64> {
    let times: Vec<f64> = frame_times.iter().map(|time| time.as_f64()).collect();
    let median = middle(&times);
    let distances: Vec<f64> = times.iter().map(|time| (time - median).abs()).collect();
    let noise = MAD_TO_DEVIATION * middle(&distances);
    let reach = MAX_DEVIATIONS * noise.max(LEAST_NOISE * median);
    times.iter().map(|time| time.clamp(median - reach, median + reach)).collect()
}

/// Batches around their median, in units of the noise, limited to ±[`MAX_DEVIATIONS`].
fn scaled(batches: &[f64]) -> Vec<f64> {
    let median = middle(batches);
    let differences: Vec<f64> = batches.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
    let core = MAD_TO_DEVIATION * middle(&differences) / std::f64::consts::SQRT_2;
    let core = core.max(LEAST_NOISE * median);
    // The core alone ignores the tails of the batches, so changes would be found in them. A step is one large
    // difference. It is limited, so that it does not count as noise.
    let reach = MAX_DEVIATIONS * std::f64::consts::SQRT_2 * core;
    let squares: f64 = differences.iter().map(|difference| difference.min(reach).powi(2)).sum();
    let noise = core.max((0.5 * squares / differences.len() as f64).sqrt());
    if noise <= 0.0 {
        return vec![0.0; batches.len()];
    }
    batches.iter().map(|batch| ((batch - median) / noise).clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS)).collect()
}

fn middle(values: &[f64]) -> f64 {
    median_in_place(&mut values.to_vec()).unwrap_or(0.0)
}

/// Bounds of the stretches of equal mean, from 0 to the number of values: the partition of least squared distance to
/// the means plus a penalty for each change.
fn change_points(values: &[f64]) -> Vec<usize> {
    let count = values.len();
    let penalty = PENALTY * (count as f64).ln();
    let (mut sums, mut squares) = (vec![0.0], vec![0.0]);
    for (place, value) in values.iter().enumerate() {
        sums.push(sums[place] + value);
        squares.push(squares[place] + value * value);
    }
    let distance = |first: usize, end: usize| {
        let sum: f64 = sums[end] - sums[first];
        squares[end] - squares[first] - sum * sum / (end - first) as f64
    };
    // `cost[e]`: least cost of the values before e; `previous[e]`: where its last stretch begins.
    let mut cost = vec![-penalty; count + 1];
    let mut previous = vec![0; count + 1];
    let mut candidates = vec![0];
    for end in 1..=count {
        let total = |first: usize| cost[first] + distance(first, end);
        let mut least = (f64::INFINITY, 0);
        for &first in &candidates {
            let total = total(first) + penalty;
            if total < least.0 {
                least = (total, first);
            }
        }
        // PELT: a beginning this much worse than the best can never become the best.
        let kept: Vec<usize> = candidates.iter().copied().filter(|&first| total(first) <= least.0).collect();
        (cost[end], previous[end]) = least;
        candidates = kept;
        candidates.push(end);
    }
    let mut bounds = vec![count];
    while let Some(&end) = bounds.last().filter(|&&end| end > 0) {
        bounds.push(previous[end]);
    }
    bounds.reverse();
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    /// Frame times of these paces in turn (frames, ns), with noise of ±`noise` and one frame in 50 twice as long.
    fn trial(paces: &[(usize, f64)], noise: f64, seed: u64) -> Vec<Nanoseconds> {
        let mut numbers = SplitMix64::new(seed);
        let mut times = Vec::new();
        for &(frames, pace) in paces {
            for _ in 0..frames {
                let outlier = if numbers.below(50) == 0 { 2.0 } else { 1.0 };
                let factor = 1.0 + noise * (2.0 * numbers.unit() - 1.0);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "small and positive"
                )]
                times.push(Nanoseconds((pace * factor * outlier) as u64));
            }
        }
        times
    }

    /// Share of 200 simulated trials of which the steady part is found within four batches of `wanted`.
    ///
    /// The constants of this module were chosen among seven variants on the seeds 0 to 399 and are judged on others.
    fn found(paces: &[(usize, f64)], noise: f64, wanted: usize) -> f64 {
        let hits = (10_000..10_200)
            .filter(|&seed| {
                let found = steadiness(&trial(paces, noise, seed)).unwrap();
                found.steady && found.begins.abs_diff(wanted) <= 4 * BATCH
            })
            .count();
        hits as f64 / 200.0
    }

    #[test]
    fn the_end_of_the_warm_up_is_found() {
        let check = |paces: &[(usize, f64)], noise, wanted, least| {
            let share = found(paces, noise, wanted);
            println!("{paces:?} ±{noise}: {:.1} %", 100.0 * share);
            assert!(share >= least, "{paces:?} ±{noise}: {share}");
        };
        check(&[(60, 1.3e6), (340, 1e6)], 0.05, 60, 0.97);
        check(&[(20, 3e6), (30, 1.5e6), (250, 1e6)], 0.05, 50, 0.97);
        check(&[(100, 0.8e6), (500, 1e6)], 0.05, 100, 0.97);
        check(&[(100, 1.05e6), (500, 1e6)], 0.05, 100, 0.8);
        check(&[(100, 1.03e6), (500, 1e6)], 0.02, 100, 0.8);
        // None at all.
        check(&[(400, 1e6)], 0.05, 0, 0.97);
        check(&[(1500, 1e6)], 0.20, 0, 0.97);
    }

    #[test]
    fn a_late_change_is_not_steady() {
        let found = steadiness(&trial(&[(300, 1e6), (100, 1.2e6)], 0.05, 3)).unwrap();
        assert!(!found.steady, "{found:?}");
        assert!(found.begins.abs_diff(300) <= 10, "{found:?}");
    }

    #[test]
    fn few_frames_and_equal_ones() {
        assert_eq!(steadiness(&[Nanoseconds(5); 19]), None);
        let equal = steadiness(&[Nanoseconds(1000); 23]).unwrap();
        assert_eq!((equal.begins, equal.steady, equal.stretches.len()), (0, true, 1));
        assert_eq!(equal.stretches[0].end, 23, "no frame is left out");
        assert!(steadiness(&[Nanoseconds(0); 40]).unwrap().steady);
    }

    #[test]
    fn the_rhythm_of_a_pipeline_is_no_change() {
        let times: Vec<_> =
            (0..600).map(|frame| Nanoseconds(if frame % 2 == 0 { 400_000 } else { 1_600_000 })).collect();
        let found = steadiness(&times).unwrap();
        assert_eq!((found.begins, found.steady), (0, true), "{found:?}");
    }

    #[test]
    fn change_points_are_those_of_least_cost() {
        // Against the plain recurrence without pruning.
        for seed in 0..100 {
            let mut numbers = SplitMix64::new(seed);
            let mut level = 0.0;
            let values: Vec<f64> = (0..60)
                .map(|_| {
                    if numbers.below(12) == 0 {
                        level = 8.0 * numbers.unit() - 4.0;
                    }
                    level + numbers.unit()
                })
                .collect();
            assert!(
                (cost_of(&values, &change_points(&values)) - least_cost(&values)).abs() < 1e-9,
                "seed {seed}"
            );
        }
    }

    fn squared(values: &[f64]) -> f64 {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|value| (value - mean).powi(2)).sum()
    }

    fn cost_of(values: &[f64], bounds: &[usize]) -> f64 {
        let penalty = PENALTY * (values.len() as f64).ln();
        bounds.windows(2).map(|pair| squared(&values[pair[0]..pair[1]]) + penalty).sum::<f64>() - penalty
    }

    fn least_cost(values: &[f64]) -> f64 {
        let penalty = PENALTY * (values.len() as f64).ln();
        let mut cost = vec![-penalty];
        for end in 1..=values.len() {
            let least = (0..end).map(|first| cost[first] + squared(&values[first..end]) + penalty);
            cost.push(least.fold(f64::INFINITY, f64::min));
        }
        cost[values.len()]
    }
}
