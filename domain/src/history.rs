//! Finds the runs at which the level of a figure changed.
//!
//! # Method
//! The points are the figures of runs in order of time, each with an interval. All computations use logarithms, so a
//! step is a ratio.
//! 1. The variance of a point is that of its interval plus a variance between runs, as in a random-effects model
//!    (`DerSimonian` & Laird 1986, "Meta-analysis in clinical trials"): runs differ by more than their intervals say,
//!    because the state of the machine differs. The variance between runs is estimated from the differences of
//!    neighbours (von Neumann 1941, "Distribution of the ratio of the mean square successive difference to the
//!    variance"). Large differences are limited, so that a step does not count as noise. So scatter within the
//!    intervals never counts as a step, and neither does a narrow interval alone.
//! 2. If the two neighbours of a run agree, and it is more than four standard deviations outside of their range, its
//!    value is limited to that distance, and the run is labelled as an outlier. One bad run is not a step.
//! 3. The levels minimize the weighted squared distance of the points plus a penalty for each step. The minimum is
//!    exact (Jackson et al. 2005, "An algorithm for optimal partitioning of data on an interval"). Each level has at
//!    least two points.
//! 4. The penalty is chosen so that a series without a step shows one in 1 % of cases. It is a quantile of the
//!    gain from the best single step in simulated series with the same number of points, intervals and noise, each
//!    treated as in 1 and 2 (a Monte Carlo test, Besag & Diggle 1977, "Simple Monte Carlo tests for spatial pattern").
//!    So the fewer runs there are, the larger a step must be. With three runs or fewer, no step can be found.
//!
//! Daly et al. 2020, "The use of change point detection to identify software performance regressions in a continuous
//! integration system", found that change points of the whole series raise fewer false alarms than comparisons of two
//! runs.
//!
//! # Figures
//! Simulated series of runs with five trials each (noise of a trial 1 %, of a run 1 %) gave these shares:
//! - In series of 4 to 30 runs without a step, one was found in 0 to 3 %.
//! - A step of 7 % in the middle of 12 runs was found in 99 %, and one of 5 % in 30 runs in 98 %.
//!
//! `cargo test -p domain --test history -- --nocapture` prints them, and fails if they change much.
//!
//! # Limits
//! The noise between runs is assumed to be independent. If a machine drifts over many runs, the drift is cut into
//! steps. Two bad runs in a row look like a level of their own (a step in 7 % of series of 30 runs, if one run in ten
//! is bad). Cost: O(n²) for n points, and 499 simulated series.

use crate::distributions::student_quantile;
use crate::random::SplitMix64;
use crate::samples::{MAD_TO_DEVIATION, Samples};
use crate::statistics::{Confidence, Interval, Method};
use serde::Serialize;

/// Probability that a step is found in a series that has none.
pub const FALSE_ALARMS: f64 = 0.01;
/// Simulated series.
const DRAWS: usize = 499;
/// Fewest points of a level.
const SHORTEST: usize = 2;
/// Values are limited to this many deviations.
const MAX_DEVIATIONS: f64 = 4.0;
/// Smallest assumed deviation between runs, as a share: the resolution of a clock may hide smaller ones.
const LEAST_NOISE: f64 = 0.001;

/// Points of one level.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Level {
    /// First point of the level.
    pub first: usize,
    /// First point after the level.
    pub end: usize,
    /// The level, in the unit of the points.
    pub value: f64,
}

/// A change from one level to the next.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Step {
    /// First point after the step.
    pub first: usize,
    /// Level after the step over the level before it.
    pub ratio: Interval,
}

/// The levels and steps of a series.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct History {
    /// The levels in order, without gaps; none if there are no points.
    pub levels: Vec<Level>,
    /// The steps between them.
    pub steps: Vec<Step>,
    /// Outliers: points that both of their neighbours contradict.
    pub outlying: Vec<usize>,
    /// Variation between runs beyond their intervals, as a share. Absent with fewer than three points.
    pub noise: Option<f64>,
}

/// Finds the levels of a series of figures in order of time. If a point is not positive and finite, no step is found.
pub fn history(points: &[Interval]) -> History {
    let logarithms: Vec<f64> = points.iter().map(|point| point.point.ln()).collect();
    let errors = errors(points);
    let usable = logarithms.iter().all(|value| value.is_finite());
    let series = Series::new(&logarithms, &errors);
    let bounds = if usable && points.len() >= 2 * SHORTEST {
        partition(&series, penalty(&series, points))
    } else {
        vec![0, points.len()]
    };
    let spans: Vec<(usize, usize)> =
        bounds.windows(2).map(|pair| (pair[0], pair[1])).filter(|(first, end)| first < end).collect();
    let means: Vec<Mean> = spans.iter().map(|&(first, end)| series.mean(first, end)).collect();
    let levels = spans.iter().zip(&means);
    History {
        levels: levels.map(|(&(first, end), mean)| Level { first, end, value: mean.value.exp() }).collect(),
        steps: means
            .windows(2)
            .zip(spans.windows(2))
            .map(|(means, spans)| step(&series, (means[0], means[1]), (spans[0], spans[1])))
            .collect(),
        outlying: series.outlying,
        noise: (points.len() > SHORTEST && usable).then_some(series.between),
    }
}

/// Variance of each point on the logarithmic scale, and its degrees of freedom. A point without an interval has the
/// median variance of the others, or 0.
fn errors(points: &[Interval]) -> Vec<(f64, f64)> {
    let known = |point: &Interval| {
        let (lo, hi) = (point.lo.filter(|lo| *lo > 0.0)?, point.hi?);
        let freedom = point.count.max(2) as f64 - 1.0;
        let reach = student_quantile(0.5 + 0.5 * point.confidence, freedom);
        Some(((0.5 * (hi / lo).ln() / reach).powi(2), freedom))
    };
    let variances: Vec<f64> = points.iter().filter_map(|point| Some(known(point)?.0)).collect();
    let middle = Samples::new(&variances).map_or(0.0, |samples| samples.median());
    points.iter().map(|point| known(point).unwrap_or((middle, 1.0))).collect()
}

/// Logarithms with their weights, as prefix sums from which means are computed.
struct Series {
    /// Sums over all points before a point. Values are limited, and weighted by the reciprocal of their variance.
    weights: Vec<f64>,
    sums: Vec<f64>,
    squares: Vec<f64>,
    outlying: Vec<usize>,
    /// Deviation between runs.
    between: f64,
}

/// Mean of several points and its variance.
#[derive(Debug, Clone, Copy)]
struct Mean {
    value: f64,
    variance: f64,
}

impl Series {
    fn new(logarithms: &[f64], errors: &[(f64, f64)]) -> Self {
        let between = between(logarithms, errors);
        let variances: Vec<f64> = errors.iter().map(|(own, _)| own + between * between).collect();
        let (clipped, outlying) = clip_outliers(logarithms, &variances);
        let (mut weights, mut sums, mut squares) = (vec![0.0], vec![0.0], vec![0.0]);
        for (place, (value, variance)) in clipped.iter().zip(&variances).enumerate() {
            weights.push(weights[place] + 1.0 / variance);
            sums.push(sums[place] + value / variance);
            squares.push(squares[place] + value * value / variance);
        }
        Self { weights, sums, squares, outlying, between }
    }

    fn count(&self) -> usize {
        self.weights.len() - 1
    }

    fn mean(&self, first: usize, end: usize) -> Mean {
        let weight = self.weights[end] - self.weights[first];
        Mean { value: (self.sums[end] - self.sums[first]) / weight, variance: 1.0 / weight }
    }

    /// Weighted squared distance of the points to their mean.
    fn distance(&self, first: usize, end: usize) -> f64 {
        let Mean { value, variance } = self.mean(first, end);
        (self.squares[end] - self.squares[first] - value * value / variance).max(0.0)
    }

    /// How much the distance falls by the best single step.
    fn best_split(&self) -> f64 {
        let count = self.count();
        let whole = self.distance(0, count);
        let gain = |place| whole - self.distance(0, place) - self.distance(place, count);
        (SHORTEST..=count.saturating_sub(SHORTEST)).map(gain).fold(0.0, f64::max)
    }
}

/// Deviation between runs beyond that of their intervals, from the differences of neighbours; at least [`LEAST_NOISE`].
fn between(logarithms: &[f64], errors: &[(f64, f64)]) -> f64 {
    let differences: Vec<f64> = logarithms.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
    let own: Vec<f64> = errors.windows(2).map(|pair| pair[0].0 + pair[1].0).collect();
    let Ok(samples) = Samples::new(&differences) else { return LEAST_NOISE };
    let core = (MAD_TO_DEVIATION * samples.median()).max(LEAST_NOISE);
    // A step is one large difference. It is limited, so that it does not count as noise; tails of the noise do.
    let squares: f64 =
        differences.iter().map(|difference| difference.min(MAX_DEVIATIONS * core).powi(2)).sum();
    let own = own.iter().sum::<f64>() / own.len() as f64;
    let found = (core * core).max(squares / differences.len() as f64);
    (0.5 * (found - own).max(0.0)).sqrt().max(LEAST_NOISE)
}

/// Limits values that both neighbours contradict. Returns all values, and the indices of the limited ones.
fn clip_outliers(values: &[f64], variances: &[f64]) -> (Vec<f64>, Vec<usize>) {
    let mut clipped = values.to_vec();
    let mut outlying = Vec::new();
    for place in 1..values.len().saturating_sub(1) {
        let (before, after) = (values[place - 1], values[place + 1]);
        let reach = |other: usize| MAX_DEVIATIONS * (variances[place] + variances[other]).sqrt();
        let alike =
            (before - after).abs() <= MAX_DEVIATIONS * (variances[place - 1] + variances[place + 1]).sqrt();
        let (lowest, highest) = (before.min(after), before.max(after));
        let reach = reach(place - 1).max(reach(place + 1));
        if alike && (values[place] < lowest - reach || values[place] > highest + reach) {
            clipped[place] = values[place].clamp(lowest - reach, highest + reach);
            outlying.push(place);
        }
    }
    (clipped, outlying)
}

/// The gain from a step that simulated series without one exceed in [`FALSE_ALARMS`] of cases.
fn penalty(series: &Series, points: &[Interval]) -> f64 {
    let errors = errors(points);
    let mut numbers = Normal::new(points.len() as u64);
    let mut drawn = vec![0.0; points.len()];
    let mut gains: Vec<f64> = (0..DRAWS)
        .map(|_| {
            for (value, (own, freedom)) in drawn.iter_mut().zip(&errors) {
                // A variance that was estimated from few trials may be larger than the estimate: Student's t.
                let own = own * freedom / numbers.chi_square(*freedom).max(f64::MIN_POSITIVE);
                *value = numbers.next() * (own + series.between.powi(2)).sqrt();
            }
            Series::new(&drawn, &errors).best_split()
        })
        .collect();
    gains.sort_unstable_by(f64::total_cmp);
    let exceeded = (FALSE_ALARMS * (DRAWS + 1) as f64).floor().max(1.0);
    // Whole and small.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and DRAWS")]
    let place = DRAWS - exceeded as usize;
    gains[place]
}

/// Bounds of the levels, from 0 to the number of points.
fn partition(series: &Series, penalty: f64) -> Vec<usize> {
    let count = series.count();
    // `cost[e]`: least cost of the points before e; `previous[e]`: where its last level begins.
    let mut cost = vec![f64::INFINITY; count + 1];
    let mut previous = vec![0; count + 1];
    cost[0] = -penalty;
    for end in SHORTEST..=count {
        for first in 0..=end - SHORTEST {
            let total = cost[first] + series.distance(first, end) + penalty;
            if total < cost[end] {
                (cost[end], previous[end]) = (total, first);
            }
        }
    }
    let mut bounds = vec![count];
    while let Some(&end) = bounds.last().filter(|&&end| end > 0) {
        bounds.push(previous[end]);
    }
    bounds.reverse();
    bounds
}

fn step(series: &Series, (before, after): (Mean, Mean), spans: ((usize, usize), (usize, usize))) -> Step {
    let (first, end) = (spans.0.0, spans.1.1);
    let count = end - first;
    let freedom = count.saturating_sub(2).max(1) as f64;
    // If the points scatter more than their variances say, the interval of the step is wider.
    let within = series.distance(spans.0.0, spans.0.1) + series.distance(spans.1.0, spans.1.1);
    let scatter = (within / freedom).max(1.0);
    let error = ((before.variance + after.variance) * scatter).sqrt();
    let reach = error * student_quantile(0.5 + 0.5 * Confidence::P95.probability(), freedom);
    let change = after.value - before.value;
    let ratio = Interval {
        point: change.exp(),
        lo: Some((change - reach).exp()),
        hi: Some((change + reach).exp()),
        confidence: Confidence::P95.probability(),
        method: Method::StudentLog,
        count,
    };
    Step { first: spans.1.0, ratio }
}

/// Normal numbers by the polar method (Marsaglia & Bray 1964, "A convenient method for generating normal variables").
struct Normal {
    numbers: SplitMix64,
    spare: Option<f64>,
}

impl Normal {
    fn new(seed: u64) -> Self {
        Self { numbers: SplitMix64::new(seed), spare: None }
    }

    fn next(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (x, y) = (2.0 * self.numbers.unit() - 1.0, 2.0 * self.numbers.unit() - 1.0);
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                let scale = (-2.0 * square.ln() / square).sqrt();
                self.spare = Some(y * scale);
                return x * scale;
            }
        }
    }

    /// Sum of squares of this many normal numbers; above 30, where it hardly scatters, their number.
    fn chi_square(&mut self, freedom: f64) -> f64 {
        if freedom > 30.0 {
            return freedom;
        }
        let mut left = freedom;
        let mut sum = 0.0;
        while left >= 1.0 {
            sum += self.next().powi(2);
            left -= 1.0;
        }
        sum
    }
}
