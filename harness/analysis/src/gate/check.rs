//! Compares a run with a baseline.

use super::baseline::{Baseline, BaselineRow, BaselineTrial};
use super::identity::Difference;
use crate::{Interval, ScheduleFigures};
use config::Thresholds;
use domain::Metric;
use domain::gate::{self, Case, Evidence, Ruling, Spread};
use schemars::JsonSchema;
use serde::Serialize;

/// Version of the JSON.
const SCHEMA: u32 = 1;

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CheckReport {
    /// Version of this format.
    pub schema: u32,
    /// Name of the baseline.
    pub baseline: String,
    /// Runs of the baseline.
    pub baseline_runs: Vec<String>,
    /// The run that was checked.
    pub run: String,
    /// Whether the run passes the gate.
    pub verdict: GateVerdict,
    /// Probability that a whole check fails although nothing became worse.
    pub false_alarms: f64,
    /// Standard deviation between runs of the same code, on the logarithmic scale.
    pub between_runs: f64,
    /// Whether it was estimated from the runs of the baseline; else it comes from the thresholds.
    pub between_runs_estimated: bool,
    /// Differences between run and baseline that the command line allowed.
    pub differences: Vec<Difference>,
    /// One per schedule and metric.
    pub rows: Vec<CheckedRow>,
    /// Schedules that could not be compared.
    pub not_compared: Vec<NotCompared>,
}

/// Whether a run passes the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateVerdict {
    /// No row is a regression.
    Pass,
    /// At least one row is a regression.
    Fail,
    /// No row is a regression, but a schedule of the baseline was not checked: it has no or too few valid trials in the run or
    /// in the baseline.
    Incomplete,
}

/// A metric of a schedule.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CheckedRow {
    /// The network.
    pub network: String,
    /// The schedule, as the run names it.
    pub schedule: String,
    /// Its label in the baseline, if the planner chose other cuts.
    pub schedule_before: Option<String>,
    /// How many frames could wait in the baseline, if the planner chose other queues.
    pub queues_before: Option<String>,
    /// How many frames could wait in the run; present with `queues_before`.
    pub queues_now: Option<String>,
    /// `throughput`, `latency_p50`, `latency_p90`, `latency_p99`, `sustained`, `delivered`, `on_time`, `age` or `joules_per_frame`.
    pub measure: String,
    /// Share by which it may become worse before it is a regression.
    pub threshold: f64,
    /// Median over the baseline's trials: frames per second, ms, percent or J.
    pub before: f64,
    /// Median over the run's trials.
    pub now: f64,
    /// Run over baseline: 1.02 is 2 % more.
    pub ratio: f64,
    /// Lower end of its interval of 95 %; absent with a single trial.
    pub ratio_lo: Option<f64>,
    /// Upper end.
    pub ratio_hi: Option<f64>,
    /// The standard deviation between runs that is included in the interval: that of the whole check, or a larger one if
    /// the trials of this row vary more within a run.
    pub between_runs: f64,
    /// `regression`, `suspect` (worse at 95 % confidence, possibly by chance, given the number of comparisons),
    /// `improvement`, `unchanged`, or `inconclusive`.
    #[schemars(with = "String")]
    pub ruling: Ruling,
    /// About how many more trials on each side would make the ruling conclusive. Absent if the ruling is conclusive, or if more trials would
    /// not help because the spread between runs is too large.
    pub more_trials: Option<usize>,
}

impl CheckedRow {
    /// Whether nothing could be detected: a single trial has no interval, and that of two is often wider than the ratio itself.
    pub fn is_unchecked(&self) -> bool {
        let interval = Interval { point: self.ratio, lo: self.ratio_lo, hi: self.ratio_hi };
        self.ratio_lo.is_none() || (self.ruling == Ruling::Inconclusive && interval.is_too_wide())
    }
}

/// A schedule that could not be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NotCompared {
    /// The network.
    pub network: String,
    /// The schedule.
    pub schedule: String,
    /// Why.
    pub reason: String,
    /// Whether a schedule of the baseline is therefore not checked.
    pub gap: bool,
}

/// Compares the figures of a run with a baseline. `differences` were allowed.
pub fn check(
    baseline: &Baseline,
    run: &str,
    figures: &[ScheduleFigures],
    differences: Vec<Difference>,
    thresholds: &Thresholds,
) -> CheckReport {
    let mut not_compared = Vec::new();
    let mut pairs: Vec<(&BaselineRow, &ScheduleFigures)> = Vec::new();
    for row in &baseline.rows {
        let mut miss = |reason: String, gap: bool| {
            let (network, schedule) = (row.network.clone(), row.schedule.clone());
            not_compared.push(NotCompared { network, schedule, reason, gap });
        };
        match counterpart(baseline, row, figures) {
            Some(found) => match &found.void {
                _ if found.precision != row.precision => {
                    let (before, now) = (row.precision, found.precision);
                    miss(format!("computed in {before} in the baseline and in {now} in the run"), true);
                }
                _ if found.winograd != row.winograd => {
                    let (before, now) = (row.winograd, found.winograd);
                    miss(
                        format!("has `winograd: {before}` in the baseline and `winograd: {now}` in the run"),
                        true,
                    );
                }
                None if row.trials.is_empty() => miss("the baseline has no trials of it".to_owned(), false),
                None => pairs.push((row, found)),
                Some(reason) => miss(format!("void in the run: {reason}"), true),
            },
            None if figures.iter().any(|other| other.network == row.network) => {
                miss("the run does not have this schedule".to_owned(), true);
            }
            None => miss("the run does not have this network".to_owned(), false),
        }
    }
    for figures in figures {
        if !pairs.iter().any(|(_, found)| std::ptr::eq(*found, figures)) && figures.void.is_none() {
            not_compared.push(NotCompared {
                network: figures.network.clone(),
                schedule: figures.label.clone(),
                reason: "new: the baseline does not have it".to_owned(),
                gap: false,
            });
        }
    }
    let between = Spread::chosen(spread(baseline), thresholds.between_runs);
    let is_estimated = between.freedom.is_finite();
    let (mut cases, mut rows) = (Vec::new(), Vec::new());
    for (row, found) in pairs {
        for metric in Metric::GATED {
            let Some(threshold) = thresholds.of(metric, &row.network, row.kind, &found.label) else {
                continue;
            };
            let before = by_run(baseline.runs.len(), &row.trials, metric);
            let trials = found.trials.iter().map(|trial| BaselineTrial::new(0, trial));
            let now: Vec<f64> = trials.filter_map(|trial| trial.figure(metric)).collect();
            let all: Vec<f64> = before.iter().flatten().copied().collect();
            let (Some(was), Some(is)) = (middle(&all), middle(&now)) else { continue };
            let runs: Vec<&[f64]> = before.iter().chain([&now]).map(Vec::as_slice).collect();
            let between = if is_estimated { between } else { between.at_least_within(&runs) };
            let queues = row.queues.clone().zip(found.queue_lengths()).filter(|(before, now)| before != now);
            let (queues_before, queues_now) = queues.unzip();
            let evidence = Evidence::Apart { baseline: before, candidate: vec![now], spread: between };
            rows.push(CheckedRow {
                network: row.network.clone(),
                schedule: found.label.clone(),
                schedule_before: (row.schedule != found.label).then(|| row.schedule.clone()),
                queues_before,
                queues_now,
                measure: metric.name().to_owned(),
                threshold,
                before: was,
                now: is,
                ratio: is / was,
                ratio_lo: None,
                ratio_hi: None,
                between_runs: between.deviation,
                ruling: Ruling::Inconclusive,
                more_trials: None,
            });
            cases.push(Case { direction: metric.direction(), threshold, evidence });
        }
    }
    for (row, ruled) in rows.iter_mut().zip(gate::judge(&cases, thresholds.false_alarms)) {
        match ruled {
            Ok(ruled) => {
                (row.ratio, row.ratio_lo, row.ratio_hi) = (ruled.ratio.point, ruled.ratio.lo, ruled.ratio.hi);
                (row.ruling, row.more_trials) = (ruled.ruling, ruled.more_trials);
            }
            Err(error) => not_compared.push(NotCompared {
                network: row.network.clone(),
                schedule: row.schedule.clone(),
                reason: format!("{}: {error}", row.measure),
                gap: true,
            }),
        }
    }
    let verdict = if rows.iter().any(|row| row.ruling == Ruling::Regression) {
        GateVerdict::Fail
    } else if rows.is_empty()
        || rows.iter().any(CheckedRow::is_unchecked)
        || not_compared.iter().any(|missed| missed.gap)
    {
        GateVerdict::Incomplete
    } else {
        GateVerdict::Pass
    };
    CheckReport {
        schema: SCHEMA,
        baseline: baseline.name.clone(),
        baseline_runs: baseline.runs.iter().map(|run| run.id.clone()).collect(),
        run: run.to_owned(),
        verdict,
        false_alarms: thresholds.false_alarms,
        between_runs: between.deviation,
        between_runs_estimated: is_estimated,
        differences,
        rows,
        not_compared,
    }
}

/// The same schedule; else the only one of its kind on the same processors, for which the planner chose other cuts.
fn counterpart<'f>(
    baseline: &Baseline,
    row: &BaselineRow,
    figures: &'f [ScheduleFigures],
) -> Option<&'f ScheduleFigures> {
    let of_network = || figures.iter().filter(|figures| figures.network == row.network);
    if let Some(same) = of_network().find(|figures| figures.label == row.schedule) {
        return Some(same);
    }
    let taken = |figures: &&ScheduleFigures| {
        let known = |other: &BaselineRow| other.network == figures.network && other.schedule == figures.label;
        !baseline.rows.iter().any(known)
    };
    let alike = |figures: &&ScheduleFigures| figures.kind == row.kind && figures.processors == row.processors;
    let mut found = of_network().filter(alike).filter(taken);
    found.next().filter(|_| found.next().is_none())
}

impl Baseline {
    /// Spread between its runs, as a share; absent with fewer than three runs.
    pub fn spread(&self) -> Option<f64> {
        spread(self).map(|spread| spread.deviation)
    }
}

/// The spread between the runs of a baseline; takes at least three.
fn spread(baseline: &Baseline) -> Option<Spread> {
    let runs = baseline.runs.len();
    let throughputs: Vec<Vec<Vec<f64>>> =
        baseline.rows.iter().map(|row| by_run(runs, &row.trials, Metric::Throughput)).collect();
    Spread::of(&throughputs)
}

fn by_run(runs: usize, trials: &[BaselineTrial], metric: Metric) -> Vec<Vec<f64>> {
    let mut figures = vec![Vec::new(); runs];
    for trial in trials {
        figures[trial.run].extend(trial.figure(metric));
    }
    figures.retain(|run| !run.is_empty());
    figures
}

fn middle(values: &[f64]) -> Option<f64> {
    domain::Samples::new(values).ok().map(|samples| samples.median())
}
