//! Energy of the rows of a report.

use super::reasons;
use super::rows::{Interval, Row};
use super::trial::{Trial, observations};
use domain::{Absence, Confidence, Energy, Metric, Observation, Samples, comparison};
use std::collections::BTreeMap;

/// Frames a joule of the trials that have energy, by round: what is compared as throughput is, so that more is better.
pub(super) fn frames_per_joule(trials: &[&Trial]) -> Vec<Observation> {
    let of_trial = |trial: &&Trial| {
        let millijoules = trial.energy.drawn()?.energy.0;
        (millijoules > 0.0)
            .then(|| Observation { round: trial.round, value: 1000.0 * trial.frames as f64 / millijoules })
    };
    trials.iter().filter_map(of_trial).collect()
}

/// Uncertainty of a trial's energy as a share of it: the median over the trials.
pub(super) fn uncertainty(trials: &[&Trial]) -> f64 {
    let shares: Vec<f64> = trials
        .iter()
        .filter_map(|trial| trial.energy.drawn())
        .map(|drawn| drawn.uncertainty.0 / drawn.energy.0.abs())
        .collect();
    Samples::new(&shares).map_or(0.0, |samples| samples.median())
}

/// Widens an interval between trials by what each trial may be off in itself, given as shares. The trials have that in
/// common (a rounded voltage is rounded the same way in each), so it does not shrink with their number.
pub(super) fn widened(interval: domain::Interval, shares: &[f64]) -> Interval {
    let own: f64 = shares.iter().map(|share| share * share).sum();
    let point = interval.point;
    let half = |end: Option<f64>| (end.map_or(0.0, |end| end / point - 1.0).powi(2) + own).sqrt() * point;
    Interval { point, lo: Some(point - half(interval.lo)), hi: Some(point + half(interval.hi)) }
}

/// Fills in the energy of a row; `otherwise` is the reason if no trial was to read a meter.
pub(super) fn describe(row: &mut Row, trials: &[&Trial], otherwise: &Absence) {
    let measured = observations(trials, Metric::EnergyPerFrame);
    let own = uncertainty(trials);
    let interval = Metric::EnergyPerFrame.over_trials(&measured);
    row.energy_mj_per_frame = interval.map(|interval| widened(interval, &[own]));
    if row.energy_mj_per_frame.is_none() {
        let mut reasons = trials.iter().filter_map(|trial| trial.energy.absent_reason());
        let reason = reasons.find(|reason| **reason != Absence::NotRead);
        row.energy_absent_reason = Some(reason.unwrap_or(otherwise).to_string());
        return;
    }
    row.energy_absent_reason = None;
    row.energy_trials = measured.len();
    if let Some(example) = trials.iter().find_map(|trial| trial.energy.absent_reason()) {
        row.reasons.push(reasons::without_energy(trials.len() - measured.len(), trials.len(), example));
    }
    let power = Metric::Power.over_trials(&observations(trials, Metric::Power));
    row.mean_power_mw = power.map(|interval| interval.point);
    let mut rails: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for trial in trials {
        if let Energy::Measured { breakdown, .. } = &trial.energy {
            for (rail, drawn) in breakdown {
                rails.entry(rail).or_default().push(drawn.energy.0 / trial.frames as f64);
            }
        }
    }
    row.energy_breakdown_mj_per_frame =
        rails.into_iter().filter_map(|(rail, values)| Some((rail.to_owned(), median(&values)?))).collect();
}

/// A single processor's energy, to compare with.
pub(super) struct Single<'a> {
    pub(super) processor: &'a str,
    pub(super) frames_per_joule: Vec<Observation>,
    pub(super) uncertainty: f64,
}

/// Frames per joule over those of the most efficient single processor, by trials of the same
/// round.
pub(super) fn add_gain(row: &mut Row, trials: &[&Trial], singles: &[Single<'_>]) {
    let singles: Vec<&Single<'_>> =
        singles.iter().filter(|single| !single.frames_per_joule.is_empty()).collect();
    let baselines: Vec<&[Observation]> =
        singles.iter().map(|single| single.frames_per_joule.as_slice()).collect();
    let candidate = frames_per_joule(trials);
    if let Ok((best, compared)) = comparison::compare_with_best(&candidate, &baselines, Confidence::P95) {
        let gain = widened(compared.ratio, &[uncertainty(trials), singles[best].uncertainty]);
        row.energy_gain_over_best_single = Some(gain.point);
        row.energy_gain_over_best_single_interval = Some(gain);
        row.best_single_by_energy = Some(singles[best].processor.to_owned());
    }
}

fn median(values: &[f64]) -> Option<f64> {
    Samples::new(values).ok().map(|samples| samples.median())
}
