//! Energy of trials and of rows.

use super::judgement;
use super::rows::{Interval, PowerSection, RailSection, Row};
use super::trial::Trial;
use domain::energy::{Character, Trace};
use domain::{Absence, Confidence, Energy, Nanoseconds, Observed, Samples, comparison};
use protocol::{Idled, Power, PowerReadings, RailReadings};
use std::collections::BTreeMap;

/// What the meter said beside a trial, on the clock of its window.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Readings {
    /// Those of the rails that the total is the sum of.
    totals: Vec<Trace>,
    others: Vec<Trace>,
    window: Nanoseconds,
}

/// What is known of a run's meter from all it said.
#[derive(Debug, Default)]
pub(super) struct MeterKnown(BTreeMap<String, Character>);

impl Readings {
    /// Of a trial. An error where there are none.
    pub(super) fn of_trial(
        power: Option<&Power>,
        opened_ns: u64,
        window: Nanoseconds,
    ) -> Result<Self, Absence> {
        match power {
            None => Err(Absence::NotRead),
            Some(Power::Unreadable { message }) => Err(Absence::Unreadable { fault: message.clone() }),
            Some(Power::Read(readings)) => Self::new(readings, opened_ns, window),
        }
    }

    fn new(readings: &PowerReadings, opened_ns: u64, window: Nanoseconds) -> Result<Self, Absence> {
        let Some((totals, others)) = readings.split() else {
            let fault = "there are none of it".to_owned();
            return Err(Absence::Damaged { meter: readings.total.clone(), fault });
        };
        Ok(Self {
            totals: totals.into_iter().map(|rail| trace(rail, opened_ns)).collect::<Result<_, _>>()?,
            others: others.into_iter().filter_map(|rail| trace(rail, opened_ns).ok()).collect(),
            window,
        })
    }

    fn energy(&self, known: &MeterKnown) -> Energy {
        Energy::of_window(&self.totals, &self.others, self.window, &known.0)
    }
}

/// Energy of a window that lies anywhere within what a meter said, by these readings alone.
pub fn energy_within(readings: &PowerReadings, opened_ns: u64, window: Nanoseconds) -> Energy {
    let readings = Readings::new(readings, opened_ns, window);
    MeterKnown::default().energy(&readings)
}

/// A reading is stamped in the middle of the time it took.
fn trace(rail: &RailReadings, opened_ns: u64) -> Result<Trace, Absence> {
    let at = |(begun, took): (&u64, &u64)| {
        begun.wrapping_add(took / 2).cast_signed().wrapping_sub(opened_ns.cast_signed())
    };
    let at_ns: Vec<i64> = rail.begun_ns.iter().zip(&rail.took_ns).map(at).collect();
    let given = |series: &[i64]| !series.is_empty() || at_ns.is_empty();
    let made = if !rail.microjoules.is_empty() || rail.range_microjoules.is_some() {
        Trace::of_counter(&rail.name, &at_ns, &rail.microjoules, rail.range_microjoules)
    } else if given(&rail.millivolts) && given(&rail.milliamperes) {
        let power = (!rail.milliwatts.is_empty()).then_some(rail.milliwatts.as_slice());
        Trace::of_factors(&rail.name, &at_ns, &rail.millivolts, &rail.milliamperes, power)
    } else {
        Trace::of_power(&rail.name, &at_ns, &rail.milliwatts)
    };
    let failed = rail.errors.iter().map(|error| error.count).sum();
    let most = rail.errors.iter().max_by_key(|error| error.count);
    made.map(|trace| trace.with_errors(failed, most.map(|error| error.message.clone())))
        .map_err(|error| Absence::Damaged { meter: rail.name.clone(), fault: error.to_string() })
}

impl MeterKnown {
    pub(super) fn learn(&mut self, readings: &Readings) {
        for trace in readings.totals.iter().chain(&readings.others) {
            let known = self.0.entry(trace.rail().to_owned()).or_default();
            *known = known.and(trace.character());
        }
    }

    /// What was idle teaches as well.
    pub(super) fn learn_idle(&mut self, idle: Option<&Idled>) {
        if let Some(Ok(readings)) = idle.map(of_idle) {
            self.learn(&readings);
        }
    }

    pub(super) fn energy(&self, readings: &Result<Readings, Absence>) -> Energy {
        match readings {
            Ok(readings) => readings.energy(self),
            Err(reason) => Energy::Absent { reason: reason.clone() },
        }
    }

    /// The run's meter and what it said while nothing ran.
    pub(super) fn section(&self, idle: Option<&Idled>) -> Option<PowerSection> {
        let idle = idle?;
        let energy = self.energy(&of_idle(idle));
        let milliwatts =
            energy.drawn().map(|drawn| around(drawn.mean_power().0, drawn.power_uncertainty().0));
        let rails = idle.readings.rails.iter().map(|rail| {
            let drawn = match &energy {
                Energy::Measured { meter, drawn, .. } if *meter == rail.name => Some(drawn),
                Energy::Measured { breakdown, .. } => breakdown.get(&rail.name),
                Energy::Absent { .. } => None,
            };
            RailSection {
                name: rail.name.clone(),
                source: rail.source.clone(),
                idle_mw: drawn.map(|drawn| drawn.mean_power().0),
                step_mw: drawn.and_then(|drawn| drawn.step).map(|step| step.0),
            }
        });
        let totals = idle.readings.split().map(|(totals, _)| totals).unwrap_or_default();
        let of_rail = |rail: &&RailReadings| self.0.get(&rail.name)?.refresh;
        let refresh = totals.iter().filter_map(of_rail).max_by_key(domain::energy::Refresh::period);
        Some(PowerSection {
            driver: idle.readings.driver.clone(),
            total: idle.readings.total.clone(),
            refresh_ms: refresh.map(|refresh| refresh.period().as_millis_f64()),
            idle_mw: milliwatts,
            idle_absent_reason: energy.absent_reason().map(ToString::to_string),
            rails: rails.collect(),
        })
    }
}

fn of_idle(idle: &Idled) -> Result<Readings, Absence> {
    Readings::new(&idle.readings, idle.opened_monotonic_ns, Nanoseconds(idle.duration_ns))
}

fn around(point: f64, uncertainty: f64) -> Interval {
    Interval { point, lo: Some(point - uncertainty), hi: Some(point + uncertainty) }
}

/// Frames a joule of the trials that have energy, by round: what is compared as throughput is, so that more is better.
pub(super) fn observed(trials: &[&Trial]) -> Vec<Observed> {
    let of_trial = |trial: &&Trial| {
        let millijoules = trial.energy.drawn()?.energy.0;
        (millijoules > 0.0)
            .then(|| Observed { round: trial.round, value: 1000.0 * trial.frames as f64 / millijoules })
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
fn widened(interval: domain::Interval, shares: &[f64]) -> Interval {
    let own: f64 = shares.iter().map(|share| share * share).sum();
    let point = interval.point;
    let half = |end: Option<f64>| (end.map_or(0.0, |end| end / point - 1.0).powi(2) + own).sqrt() * point;
    Interval { point, lo: Some(point - half(interval.lo)), hi: Some(point + half(interval.hi)) }
}

/// Fills in the energy of a row; `otherwise` is the reason where no trial was to read a meter.
pub(super) fn describe(row: &mut Row, trials: &[&Trial], otherwise: &Absence) {
    let frame = |trial: &Trial| {
        let drawn = trial.energy.drawn()?;
        Some(Observed { round: trial.round, value: drawn.energy.0 / trial.frames as f64 })
    };
    let measured: Vec<Observed> = trials.iter().filter_map(|trial| frame(trial)).collect();
    let own = uncertainty(trials);
    let interval = comparison::summary(&measured, Confidence::P95).ok();
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
        row.reasons.push(judgement::without_energy(trials.len() - measured.len(), trials.len(), example));
    }
    let powers = trials.iter().filter_map(|trial| Some(trial.energy.drawn()?.mean_power().0));
    row.mean_power_mw = median(&powers.collect::<Vec<_>>());
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
    pub(super) observed: Vec<Observed>,
    pub(super) uncertainty: f64,
}

/// How much further a joule goes than with the single processor that goes furthest with it, by trials of the same
/// round.
pub(super) fn add_gain(row: &mut Row, trials: &[&Trial], singles: &[Single<'_>]) {
    let singles: Vec<&Single<'_>> = singles.iter().filter(|single| !single.observed.is_empty()).collect();
    let baselines: Vec<&[Observed]> = singles.iter().map(|single| single.observed.as_slice()).collect();
    let candidate = observed(trials);
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
