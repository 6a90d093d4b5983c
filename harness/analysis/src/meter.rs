//! Readings of the power meter, and the energy of trials computed from them.

use super::rows::{Interval, PowerSection, RailSection};
use domain::energy::{Character, Trace};
use domain::{Absence, Energy, Nanoseconds};
use protocol::{Idled, Power, PowerReadings, RailReadings};
use std::collections::BTreeMap;

/// Readings of the meter during a trial, on the clock of its window.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Readings {
    /// Those of the rails that the total is the sum of.
    totals: Vec<Trace>,
    others: Vec<Trace>,
    window: Nanoseconds,
}

/// Properties of a run's meter, from all its readings.
#[derive(Debug, Default)]
pub(super) struct MeterKnown(BTreeMap<String, Character>);

impl Readings {
    /// Of a trial. An error if there are none.
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
            let fault = "a rail of the total is missing".to_owned();
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

/// Energy of any window within these readings of a meter, from these readings alone.
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

    /// The run's meter and its readings while nothing ran.
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
