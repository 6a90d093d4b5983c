//! The regression gate: which of many differences are regressions and which may be chance.
//!
//! # Which interval
//! - Candidate and baseline measured in the same rounds are compared in pairs ([`crate::comparison::compare`]).
//! - Measured at different times or after different boots, they differ by more than the noise between trials: memory
//!   layout, clocks and other processes differ (Kalibera & Jones 2013, "Rigorous benchmarking in reasonable
//!   time"; Georges, Buytaert & Eeckhout 2007, "Statistically rigorous Java performance evaluation"). The variance of
//!   a ratio is then that of the trials on either side plus that between runs; Student's quantile is taken at the
//!   degrees of freedom of Welch and Satterthwaite (Welch 1947, "The generalization of 'Student's' problem when
//!   several different population variances are involved"; Satterthwaite 1946, "An approximate distribution of
//!   estimates of variance components"). Without a spread between runs there is no such interval.
//!   A spread that is configured and not estimated may be too small for a machine with slow drift, such as a shared
//!   host. So it is at least the spread between the quarters of these runs (batch means,
//!   Conway 1963, "Some tactical problems in digital simulation"). For independent trials, this is their noise over the
//!   root of a quarter of their number; for slow drift, it is the drift.
//!
//! # Many comparisons
//! A check compares every schedule and metric, and fails if one of them fails. Holm's procedure bounds the probability
//! that it fails although nothing became slower (Holm 1979, "A simple sequentially rejective multiple test
//! procedure"): with k comparisons left, one is a regression if its interval lies beyond its threshold with the
//! confidence 1 − 2·level/k; these are removed, and the procedure repeats with the smaller k. It holds for any dependence
//! between comparisons. The 95 % interval must lie beyond the threshold as well.

use crate::comparison::{Comparison, ComparisonError, Finding, Observation, compare};
use crate::distributions::{normal_quantile, student_quantile};
use crate::metric::Direction;
use crate::samples::{Samples, SamplesError};
use crate::statistics::{Confidence, Interval, Method};
use serde::Serialize;

/// The spread between runs of the same code.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Standard deviation of the logarithm of a run's figure; 0.01 is about 1 %.
    pub deviation: f64,
    /// Degrees of freedom of the estimate; infinite if it is configured.
    pub freedom: f64,
}

impl Spread {
    /// Estimated from several runs of several schedules: `things[schedule][run]` are the trials of a run. A run shifts all
    /// schedules together, so the degrees of freedom are those of one schedule. Takes at least three runs.
    pub fn of(things: &[Vec<Vec<f64>>]) -> Option<Self> {
        let mut variances = Vec::new();
        let mut fewest = usize::MAX;
        for runs in things {
            let middles: Vec<f64> = runs
                .iter()
                .filter_map(|run| Samples::new(run).ok())
                .map(|samples| samples.median().ln())
                .collect();
            if middles.len() < 3 {
                continue;
            }
            fewest = fewest.min(middles.len());
            variances.push(Samples::new(&middles).ok()?.deviation()?.powi(2));
        }
        if variances.is_empty() {
            return None;
        }
        let mean = variances.iter().sum::<f64>() / variances.len() as f64;
        Some(Self { deviation: mean.sqrt(), freedom: (fewest - 1) as f64 })
    }
}

/// Confidence at which two spreads are compared.
const SURE: f64 = 0.99;

/// Parts a run is cut into, in the order of its trials.
const PARTS: usize = 4;

impl Spread {
    /// Chooses between the estimated and the configured spread: the one with narrower intervals, because an estimate from
    /// three runs alone would be too uncertain to detect anything. If the estimate is larger than the configured spread,
    /// the estimate is used.
    pub fn chosen(estimated: Option<Self>, configured: f64) -> Self {
        let configured = Self { deviation: configured, freedom: f64::INFINITY };
        let reach = |spread: Self| {
            spread.deviation * student_quantile(1.0 - 0.5 * (1.0 - SURE), spread.freedom.min(1e6))
        };
        match estimated {
            Some(estimated)
                if estimated.deviation > configured.deviation || reach(estimated) < reach(configured) =>
            {
                estimated
            }
            _ => configured,
        }
    }

    /// At least the spread between the parts of these runs, whose trials are in the order of measurement.
    #[must_use]
    pub fn at_least_within(self, runs: &[&[f64]]) -> Self {
        let (mut squares, mut freedom) = (0.0, 0.0);
        for run in runs {
            let parts = PARTS.min(run.len());
            let middles: Vec<f64> = (0..parts)
                .filter_map(|part| {
                    let bound = |part: usize| part * run.len() / parts;
                    Samples::new(&run[bound(part)..bound(part + 1)]).ok()
                })
                .filter(|part| part.least() > 0.0)
                .map(|part| part.median().ln())
                .collect();
            let deviation = Samples::new(&middles).ok().and_then(|middles| middles.deviation());
            if let Some(deviation) = deviation {
                let own = (middles.len() - 1) as f64;
                squares += deviation.powi(2) * own;
                freedom += own;
            }
        }
        let within = if freedom > 0.0 { (squares / freedom).sqrt() } else { 0.0 };
        if within > self.deviation { Self { deviation: within, freedom } } else { self }
    }
}

/// The observations of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub enum Evidence {
    /// Trials of the same rounds.
    Paired {
        /// Trials of the candidate.
        candidate: Vec<Observation>,
        /// Trials of the baseline.
        baseline: Vec<Observation>,
    },
    /// Runs from different times, each with its trials.
    Apart {
        /// Trials of each run of the candidate.
        candidate: Vec<Vec<f64>>,
        /// Trials of each run of the baseline.
        baseline: Vec<Vec<f64>>,
        /// Spread between runs.
        spread: Spread,
    },
}

impl Evidence {
    /// Candidate over baseline with its interval.
    pub fn ratio(&self, confidence: Confidence) -> Result<Interval, ComparisonError> {
        match self {
            Self::Paired { candidate, baseline } => {
                compare(candidate, baseline, confidence).map(|comparison| comparison.ratio)
            }
            Self::Apart { candidate, baseline, spread } => apart(candidate, baseline, *spread, confidence),
        }
    }

    /// The part of half the interval width, on the logarithmic scale, that more trials do not reduce.
    fn floor(&self, confidence: Confidence) -> f64 {
        match self {
            Self::Paired { .. } => 0.0,
            Self::Apart { candidate, baseline, spread } => {
                let runs = between(candidate.len(), baseline.len());
                let freedom = spread.freedom.min(1e6);
                spread.deviation * runs.sqrt() * student_quantile(1.0 - confidence.tail(), freedom)
            }
        }
    }
}

fn between(candidate: usize, baseline: usize) -> f64 {
    1.0 / candidate.max(1) as f64 + 1.0 / baseline.max(1) as f64
}

/// One side of a comparison of runs: middle of the logarithms, their mean, variance of the mean, degrees of freedom.
struct Side {
    median: f64,
    mean: f64,
    variance: f64,
    freedom: f64,
    count: usize,
}

impl Side {
    fn new(runs: &[Vec<f64>]) -> Result<Self, ComparisonError> {
        let mut logarithms = Vec::new();
        for (round, value) in (0..).zip(runs.iter().flatten().copied()) {
            if !(value.is_finite() && value > 0.0) {
                return Err(ComparisonError::NotPositive { round, value });
            }
            logarithms.push(value.ln());
        }
        let samples = Samples::new(&logarithms).map_err(|error| match error {
            SamplesError::Empty => ComparisonError::NoCommonRound,
            SamplesError::NotFinite { .. } => ComparisonError::OutOfRange,
        })?;
        // Within runs: a shift of a whole run is part of the spread.
        let within: f64 = runs
            .iter()
            .filter(|run| !run.is_empty())
            .map(|run| {
                let mean = run.iter().map(|value| value.ln()).sum::<f64>() / run.len() as f64;
                run.iter().map(|value| (value.ln() - mean).powi(2)).sum::<f64>()
            })
            .sum();
        let filled = runs.iter().filter(|run| !run.is_empty()).count();
        let freedom = (logarithms.len() - filled) as f64;
        let variance = if freedom > 0.0 { within / freedom / logarithms.len() as f64 } else { f64::NAN };
        Ok(Self {
            median: samples.median(),
            mean: samples.mean(),
            variance,
            freedom,
            count: logarithms.len(),
        })
    }
}

fn apart(
    candidate: &[Vec<f64>],
    baseline: &[Vec<f64>],
    spread: Spread,
    confidence: Confidence,
) -> Result<Interval, ComparisonError> {
    let (left, right) = (Side::new(candidate)?, Side::new(baseline)?);
    let count = left.count.min(right.count);
    let point = (left.median - right.median).exp();
    let shift = spread.deviation.powi(2) * between(candidate.len(), baseline.len());
    let variance = left.variance + right.variance + shift;
    // A single trial on a side has no known noise.
    if !variance.is_finite() {
        return Ok(Interval {
            point,
            lo: None,
            hi: None,
            confidence: confidence.probability(),
            method: Method::None,
            count,
        });
    }
    let part = |variance: f64, freedom: f64| if variance > 0.0 { variance.powi(2) / freedom } else { 0.0 };
    let below =
        part(left.variance, left.freedom) + part(right.variance, right.freedom) + part(shift, spread.freedom);
    let freedom = if below > 0.0 { (variance.powi(2) / below).clamp(1.0, 1e6) } else { 1e6 };
    let reach = variance.sqrt() * student_quantile(1.0 - confidence.tail(), freedom);
    let middle = left.mean - right.mean;
    Ok(Interval {
        point,
        lo: Some((middle - reach).exp().min(point)),
        hi: Some((middle + reach).exp().max(point)),
        confidence: confidence.probability(),
        method: Method::WelchLog,
        count,
    })
}

/// A comparison for the gate.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Which change is an improvement.
    pub direction: Direction,
    /// Share by which the metric may become worse.
    pub threshold: f64,
    /// Observations.
    pub evidence: Evidence,
}

/// The result of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ruling {
    /// Worse by more than the threshold.
    Regression,
    /// Worse by the 95 % interval, but possibly by chance among so many comparisons.
    Suspect,
    /// Better by more than the threshold.
    Improvement,
    /// Neither, by more than the threshold.
    Unchanged,
    /// The interval is too wide for any of these.
    Inconclusive,
}

/// A case with its ruling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ruled {
    /// Candidate over baseline, with 95 %.
    pub ratio: Interval,
    /// The ruling.
    pub ruling: Ruling,
    /// Number of further trials on either side with which four of five checks would be conclusive, if the true ratio is the
    /// present point. Widths are assumed to fall with the square root of the number of trials. Absent if the check is
    /// conclusive already, or if more trials would not help.
    pub more_trials: Option<usize>,
}

/// Judges all comparisons of a check. `level` is the probability with which it may fail although nothing became worse.
pub fn judge(cases: &[Case], level: f64) -> Vec<Result<Ruled, ComparisonError>> {
    let first: Vec<_> = cases.iter().map(|case| case.evidence.ratio(Confidence::P95)).collect();
    // Regressions by the interval of 95 %; of those, Holm's procedure takes what it can.
    let worse = |case: &Case, ratio: Interval| beyond(case, ratio) == Some(false);
    let mut suspects: Vec<usize> = (0..cases.len())
        .filter(|&place| matches!(&first[place], Ok(ratio) if worse(&cases[place], *ratio)))
        .collect();
    let mut left = first.iter().filter(|ratio| ratio.is_ok()).count();
    let mut regressions = Vec::new();
    while let Some(confidence) = Confidence::new(1.0 - 2.0 * level / left.max(1) as f64) {
        let (sure, unsure): (Vec<usize>, Vec<usize>) = suspects.into_iter().partition(|&place| {
            matches!(cases[place].evidence.ratio(confidence), Ok(ratio) if worse(&cases[place], ratio))
        });
        suspects = unsure;
        left -= sure.len();
        let done = sure.is_empty();
        regressions.extend(sure);
        if done || suspects.is_empty() {
            break;
        }
    }
    first
        .into_iter()
        .enumerate()
        .map(|(place, ratio)| {
            let (ratio, case) = (ratio?, &cases[place]);
            let ruling = if regressions.contains(&place) {
                Ruling::Regression
            } else if suspects.contains(&place) {
                Ruling::Suspect
            } else {
                match (beyond(case, ratio), finding(case, ratio)) {
                    (Some(true), _) => Ruling::Improvement,
                    (_, Finding::Unchanged) => Ruling::Unchanged,
                    _ => Ruling::Inconclusive,
                }
            };
            let more_trials = match ruling {
                Ruling::Inconclusive | Ruling::Suspect => more_trials(case, ratio, level, cases.len()),
                _ => None,
            };
            Ok(Ruled { ratio, ruling, more_trials })
        })
        .collect()
}

fn finding(case: &Case, ratio: Interval) -> Finding {
    Comparison { ratio, unpaired: 0 }.finding(case.threshold)
}

/// Whether the interval lies beyond the threshold on the good side (`true`) or on the bad one (`false`).
fn beyond(case: &Case, ratio: Interval) -> Option<bool> {
    match (finding(case, ratio), case.direction) {
        (Finding::More, better) => Some(better == Direction::MoreIsBetter),
        (Finding::Less, better) => Some(better == Direction::LessIsBetter),
        _ => None,
    }
}

/// Share of checks that would be conclusive with the advised number of further trials.
const POWER: f64 = 0.8;

fn more_trials(case: &Case, ratio: Interval, level: f64, cases: usize) -> Option<usize> {
    let point = ratio.point.ln();
    let bounds = [(1.0 - case.threshold).ln(), (1.0 + case.threshold).ln()];
    let nearest = bounds.iter().map(|bound| (point - bound).abs()).fold(f64::INFINITY, f64::min);
    // What lies on the bad side has to stand Holm's first step.
    let bad = match case.direction {
        Direction::MoreIsBetter => point < bounds[0],
        Direction::LessIsBetter => point > bounds[1],
    };
    let confidence =
        if bad { Confidence::new(1.0 - 2.0 * level / cases.max(1) as f64)? } else { Confidence::P95 };
    let wide = case.evidence.ratio(confidence).ok()?;
    // The next point lies elsewhere: an interval that just reaches the bound now would tell every other time.
    let distance = nearest / (1.0 + normal_quantile(POWER) / normal_quantile(1.0 - confidence.tail()));
    let (lo, hi) = (wide.lo?.ln(), wide.hi?.ln());
    let half = 0.5 * (hi - lo);
    let floor = case.evidence.floor(confidence);
    let (shrinks, room) = (half.powi(2) - floor.powi(2), distance.powi(2) - floor.powi(2));
    if room <= 0.0 || shrinks <= 0.0 {
        return None;
    }
    let needed = wide.count as f64 * shrinks / room;
    // Beyond this nobody would wait for it, and the point would not stay where it is.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and below 100 000")]
    (needed < 1e5).then(|| (needed.ceil() as usize).saturating_sub(wide.count).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(values: &[f64]) -> Vec<Observation> {
        values.iter().zip(0..).map(|(&value, round)| Observation { round, value }).collect()
    }

    fn paired(direction: Direction, threshold: f64, candidate: &[f64]) -> Case {
        let baseline = observed(&vec![100.0; candidate.len()]);
        Case { direction, threshold, evidence: Evidence::Paired { candidate: observed(candidate), baseline } }
    }

    fn rulings(cases: &[Case]) -> Vec<Ruling> {
        judge(cases, 0.02).into_iter().map(|ruled| ruled.unwrap().ruling).collect()
    }

    #[test]
    fn each_ruling() {
        let slower = [95.0, 95.2, 94.9, 95.1, 95.0, 94.8, 95.1, 95.0];
        let faster = slower.map(|value| 10_000.0 / value);
        let wild = [90.0, 110.0, 93.0, 104.0, 97.0, 101.0, 99.0, 108.0];
        let check = |direction, threshold, values: &[f64], wanted| {
            assert_eq!(rulings(&[paired(direction, threshold, values)]), [wanted], "{values:?}");
        };
        check(Direction::MoreIsBetter, 0.01, &slower, Ruling::Regression);
        check(Direction::LessIsBetter, 0.01, &slower, Ruling::Improvement);
        check(Direction::MoreIsBetter, 0.01, &faster, Ruling::Improvement);
        check(Direction::LessIsBetter, 0.01, &faster, Ruling::Regression);
        check(Direction::MoreIsBetter, 0.10, &slower, Ruling::Unchanged);
        check(Direction::MoreIsBetter, 0.01, &wild, Ruling::Inconclusive);
        // The threshold lies within the interval.
        check(Direction::MoreIsBetter, 0.05, &slower, Ruling::Inconclusive);
    }

    #[test]
    fn one_of_many_has_to_be_surer() {
        // Beyond 1 % with 95 %, and not with 99.8 %.
        let slower = paired(Direction::MoreIsBetter, 0.01, &[98.3, 97.0, 98.5, 96.8, 97.9]);
        let same = paired(Direction::MoreIsBetter, 0.01, &[100.0, 100.1, 99.9, 100.05, 99.95]);
        assert_eq!(rulings(std::slice::from_ref(&slower)), [Ruling::Regression]);
        let mut many = vec![slower];
        many.extend(vec![same; 19]);
        let ruled: Vec<_> = judge(&many, 0.02).into_iter().map(Result::unwrap).collect();
        assert_eq!(ruled[0].ruling, Ruling::Suspect);
        assert!(ruled[0].more_trials.is_some_and(|more| more > 0 && more < 100), "{:?}", ruled[0]);
        assert!(ruled[1..].iter().all(|ruled| ruled.ruling == Ruling::Unchanged));
    }

    #[test]
    fn what_leaves_makes_room_for_the_rest() {
        // Alone among four it would need 99 %, with the three clear ones gone 96 % are enough.
        let clear = paired(Direction::MoreIsBetter, 0.01, &[80.0, 80.1, 79.9, 80.0, 80.05]);
        let close = paired(Direction::MoreIsBetter, 0.01, &[98.3, 97.0, 98.5, 96.8, 97.9]);
        let all = [clear.clone(), clear.clone(), clear, close];
        assert_eq!(rulings(&all), [Ruling::Regression; 4]);
    }

    #[test]
    fn runs_apart_are_as_uncertain_as_runs_are() {
        let runs = |values: &[f64]| vec![values.to_vec()];
        let case = |deviation, freedom| Case {
            direction: Direction::MoreIsBetter,
            threshold: 0.005,
            evidence: Evidence::Apart {
                candidate: runs(&[97.0, 97.1, 96.9, 97.05, 96.95]),
                baseline: runs(&[100.0, 100.1, 99.9, 100.05, 99.95]),
                spread: Spread { deviation, freedom },
            },
        };
        assert_eq!(rulings(&[case(0.0, f64::INFINITY)]), [Ruling::Regression]);
        assert_eq!(rulings(&[case(0.02, f64::INFINITY)]), [Ruling::Inconclusive]);
        let width = |case: Case| case.evidence.ratio(Confidence::P95).unwrap().precision().unwrap();
        assert!((width(case(0.02, f64::INFINITY)) - 0.0554).abs() < 5e-4);
        assert!(width(case(0.02, 2.0)) > 2.0 * width(case(0.02, f64::INFINITY)));
        // No number of trials compensates for the spread between runs.
        let ruled = judge(&[case(0.02, f64::INFINITY)], 0.02).remove(0).unwrap();
        assert_eq!(ruled.more_trials, None);
    }

    #[test]
    fn the_spread_between_runs() {
        let runs = vec![vec![vec![100.0, 100.0], vec![102.0, 102.0], vec![98.0, 98.0]]];
        let spread = Spread::of(&runs).unwrap();
        assert!((spread.deviation - 0.02).abs() < 1e-3 && (spread.freedom - 2.0).abs() < 1e-12);
        assert_eq!(Spread::of(&[vec![vec![1.0], vec![2.0]]]), None);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn few_runs_are_believed_where_they_contradict_and_many_always() {
        let spread = |deviation, freedom| Some(Spread { deviation, freedom });
        let check = |estimated: Option<Spread>, wanted: f64| {
            assert!((Spread::chosen(estimated, 0.01).deviation - wanted).abs() < 1e-12, "{estimated:?}");
        };
        check(None, 0.01);
        check(spread(0.005, 2.0), 0.01);
        check(spread(0.002, 2.0), 0.002);
        check(spread(0.005, 9.0), 0.005);
        check(spread(0.02, 2.0), 0.02);
    }

    #[test]
    fn a_spread_is_at_least_that_of_the_quarters() {
        let stated = Spread { deviation: 0.01, freedom: f64::INFINITY };
        let calm: Vec<f64> = (0..16).map(|trial| 100.0 + 0.1 * f64::from(trial % 2)).collect();
        assert_eq!(stated.at_least_within(&[&calm, &calm]), stated);
        // Two quarters at half the pace.
        let changing: Vec<f64> = (0..16).map(|trial| if trial < 8 { 100.0 } else { 50.0 }).collect();
        let found = stated.at_least_within(&[&changing]);
        assert!((found.deviation - 2.0_f64.ln() / 3.0_f64.sqrt()).abs() < 1e-12, "{found:?}");
        assert!((found.freedom - 3.0).abs() < 1e-12);
        assert!((stated.at_least_within(&[&changing, &calm]).freedom - 6.0).abs() < 1e-12);
        // One trial, no trial, or a figure without a logarithm has no interval.
        assert_eq!(stated.at_least_within(&[&[1.0], &[], &[0.0, 0.0]]), stated);
    }

    #[test]
    fn single_trials_tell_nothing() {
        assert_eq!(rulings(&[paired(Direction::MoreIsBetter, 0.01, &[50.0])]), [Ruling::Inconclusive]);
        let apart = Case {
            direction: Direction::MoreIsBetter,
            threshold: 0.01,
            evidence: Evidence::Apart {
                candidate: vec![vec![50.0]],
                baseline: vec![vec![100.0]],
                spread: Spread { deviation: 0.01, freedom: f64::INFINITY },
            },
        };
        assert_eq!(rulings(&[apart]), [Ruling::Inconclusive]);
    }

    #[test]
    fn a_comparison_without_a_common_round_is_an_error_and_not_a_pass() {
        let case = paired(Direction::MoreIsBetter, 0.01, &[]);
        assert!(judge(&[case], 0.02)[0].is_err());
    }
}
