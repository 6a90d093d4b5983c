//! Energy of a window, where the board can tell it.
//!
//! A power sensor of the kind of the INA3221 shows the mean of the conversion that ended last, and shows it until the
//! next one ends. [`average`] turns such readings into energy; [`counter`] does so with counters of energy. Both say how
//! far the figure may be off, and neither gives one where the window is too short for the meter or readings are
//! missing. The sensor's own calibration is not part of that uncertainty: gain and offset are in the data sheet (Texas
//! Instruments SBOS576: 0.25 % and 80 µV at most), and fall out of the ratio of two schedules on the same board.

mod average;
mod counter;
mod refresh;
mod trace;

pub use refresh::Refresh;
pub use trace::{Character, Trace, TraceError};

use crate::units::{Millijoules, Milliwatts, Nanoseconds};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What a trial drew, or why nobody knows. Unmeasured energy is never a zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Energy {
    /// A meter was read during the window.
    Measured {
        /// Rail or counter that was read, as the board names it. It feeds everything that is measured.
        meter: String,
        /// Energy of the window.
        drawn: Drawn,
        /// Energy of the window on single rails: those that the total is the sum of, and others, which are parts of the
        /// total or of each other and are never added.
        breakdown: BTreeMap<String, Drawn>,
    },
    /// There is no figure.
    Absent {
        /// Why.
        reason: Absence,
    },
}

/// Energy of one rail over a window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drawn {
    /// Energy.
    pub energy: Millijoules,
    /// With a probability of 95 % the energy at the sensor is no further off than this.
    pub uncertainty: Millijoules,
    /// Length of the window.
    pub window: Nanoseconds,
    /// Time from one conversion of the meter to the next; absent for counters.
    pub refresh: Option<Nanoseconds>,
    /// Least difference between two readings; absent for counters.
    pub step: Option<Milliwatts>,
    /// Readings within the window.
    pub readings: usize,
}

impl Drawn {
    /// Energy over time.
    pub fn mean_power(&self) -> Milliwatts {
        Milliwatts(self.energy.0 * 1e9 / self.window.as_f64())
    }

    /// The sum over rails that feed different things. What each may be off is added as it is: rounding has the same sign
    /// on rails of one meter. `None` of no rails.
    fn sum(parts: &[Self]) -> Option<Self> {
        let add = |one: Option<Milliwatts>, other: Option<Milliwatts>| Some(Milliwatts(one?.0 + other?.0));
        parts.iter().copied().reduce(|sum, part| Self {
            energy: Millijoules(sum.energy.0 + part.energy.0),
            uncertainty: Millijoules(sum.uncertainty.0 + part.uncertainty.0),
            window: sum.window,
            refresh: sum.refresh.max(part.refresh),
            step: add(sum.step, part.step),
            readings: sum.readings.min(part.readings),
        })
    }

    /// Uncertainty of [`Drawn::mean_power`].
    pub fn power_uncertainty(&self) -> Milliwatts {
        Milliwatts(self.uncertainty.0 * 1e9 / self.window.as_f64())
    }
}

impl Energy {
    /// Energy of a window that begins at the zero of the traces' time. The total is the sum of `totals`, which is one rail
    /// on most boards. `known` is what other measurements told of the meter, by rail: an even load hardly changes what a
    /// meter shows, and says little about the meter. All rails refresh as the total does.
    pub fn of_window(
        totals: &[Trace],
        others: &[Trace],
        window: Nanoseconds,
        known: &BTreeMap<String, Character>,
    ) -> Self {
        let character = |trace: &Trace| {
            let own = trace.character();
            known.get(trace.rail()).map_or(own, |known| own.and(*known))
        };
        let of_totals = totals.iter().map(character).reduce(Character::of_both).unwrap_or_default();
        let drawn = |trace: &Trace, character: Character| {
            if trace.is_counter() {
                counter::drawn(trace, window)
            } else {
                average::drawn(trace, window, Character { refresh: of_totals.refresh, ..character })
            }
        };
        let names: Vec<&str> = totals.iter().map(Trace::rail).collect();
        // A rail of a sum that never changed, such as that of an engine that is off, has the steps of its neighbours.
        let parts: Result<Vec<Drawn>, Absence> =
            totals.iter().map(|trace| drawn(trace, character(trace).or(of_totals))).collect();
        match parts.map(|parts| (Drawn::sum(&parts), parts)) {
            Ok((Some(sum), parts)) => {
                let of_sum = names.iter().zip(parts).filter(|_| names.len() > 1);
                let of_others = others.iter().filter_map(|trace| {
                    Some((trace.rail().to_owned(), drawn(trace, character(trace)).ok()?))
                });
                Self::Measured {
                    meter: names.join(" + "),
                    drawn: sum,
                    breakdown: of_sum
                        .map(|(name, part)| ((*name).to_owned(), part))
                        .chain(of_others)
                        .collect(),
                }
            }
            Ok((None, _)) => Self::Absent { reason: Absence::NoMeter },
            Err(reason) => Self::Absent { reason },
        }
    }

    /// The total of the window, where it was measured.
    pub fn drawn(&self) -> Option<&Drawn> {
        match self {
            Self::Measured { drawn, .. } => Some(drawn),
            Self::Absent { .. } => None,
        }
    }

    /// Why there is no figure, where there is none.
    pub fn absent_reason(&self) -> Option<&Absence> {
        match self {
            Self::Measured { .. } => None,
            Self::Absent { reason } => Some(reason),
        }
    }
}

/// Why an energy is not known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Absence {
    /// The board's configuration names no meter.
    NoMeter,
    /// The trial was measured without reading the meter.
    NotRead,
    /// The meter could not be read at all.
    Unreadable {
        /// Finishes "failed to …".
        fault: String,
    },
    /// What was kept of the readings does not fit together.
    Damaged {
        /// Rail or counter.
        meter: String,
        /// What does not fit.
        fault: String,
    },
    /// The meter gave no or too few readings during the window.
    TooFewReadings {
        /// Rail or counter.
        meter: String,
        /// Readings it gave.
        readings: usize,
        /// Readings that failed, over the whole trial.
        errors: u64,
        /// What the system said, where some failed.
        fault: Option<String>,
    },
    /// There is a hole in the readings.
    Gap {
        /// Rail or counter.
        meter: String,
        /// Longest time without a reading in the window.
        gap: Nanoseconds,
        /// Longest that can be bridged.
        allowed: Nanoseconds,
        /// Readings that failed, over the whole trial.
        errors: u64,
        /// What the system said, where some failed.
        fault: Option<String>,
    },
    /// The readings changed too seldom to say how often the meter refreshes.
    RefreshUnknown {
        /// Rail or counter.
        meter: String,
    },
    /// The window is too short for the meter.
    WindowTooShort {
        /// Rail or counter.
        meter: String,
        /// Length of the window.
        window: Nanoseconds,
        /// Time between two conversions, or readings of a counter.
        refresh: Nanoseconds,
        /// Shortest window that is long enough.
        needed: Nanoseconds,
    },
    /// A counter went back and does not say where it begins anew.
    CounterWentBack {
        /// Rail or counter.
        meter: String,
    },
}

impl fmt::Display for Absence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = |errors: &u64, fault: &Option<String>| match fault {
            Some(fault) => format!("; {errors} readings failed: {fault}"),
            None => String::new(),
        };
        match self {
            Self::NoMeter => out.write_str("the board has no power meter configured"),
            Self::NotRead => out.write_str("the power meter was not read"),
            Self::Unreadable { fault } => out.write_str(fault),
            Self::Damaged { meter, fault } => write!(out, "the readings of {meter} are damaged: {fault}"),
            Self::TooFewReadings { meter, readings, errors, fault } => {
                let failed = failed(errors, fault);
                write!(out, "{meter} gave {readings} readings during the window{failed}")
            }
            Self::Gap { meter, gap, allowed, errors, fault } => {
                let failed = failed(errors, fault);
                write!(out, "{meter} gave no reading for {gap}, where {allowed} can be bridged{failed}")
            }
            Self::RefreshUnknown { meter } => {
                write!(out, "{meter} changed too seldom to say how often it refreshes; measure longer")
            }
            Self::WindowTooShort { meter, window, refresh, needed } => write!(
                out,
                "a window of {window} is too short for {meter}, which refreshes every {refresh}; set \
                 `measure.min_seconds` to {:.0} or more",
                (needed.as_f64() / 1e9).ceil()
            ),
            Self::CounterWentBack { meter } => {
                write!(out, "{meter} went back and does not say at which value it begins anew")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_energy_is_no_number() {
        let absent = Energy::Absent { reason: Absence::NoMeter };
        assert_eq!(absent.drawn(), None);
        assert_eq!(absent.absent_reason().unwrap().to_string(), "the board has no power meter configured");
        let text = serde_json::to_string(&absent).unwrap();
        assert_eq!(text, r#"{"absent":{"reason":"no_meter"}}"#);
        assert_eq!(serde_json::from_str::<Energy>(&text).unwrap(), absent);
    }

    #[test]
    fn reasons_say_what_to_do() {
        let meter = || "VDD_IN".to_owned();
        let check = |reason: Absence, wanted: &str| assert_eq!(reason.to_string(), wanted);
        let (window, refresh, needed) =
            (Nanoseconds(1_000_000_000), Nanoseconds(410_000_000), Nanoseconds(4_100_000_000));
        check(
            Absence::WindowTooShort { meter: meter(), window, refresh, needed },
            "a window of 1.00 s is too short for VDD_IN, which refreshes every 410 ms; set `measure.min_seconds` to 5 \
             or more",
        );
        let fault = Some("Resource temporarily unavailable (os error 11)".to_owned());
        check(
            Absence::Gap { meter: meter(), gap: window, allowed: refresh, errors: 9, fault },
            "VDD_IN gave no reading for 1.00 s, where 410 ms can be bridged; 9 readings failed: Resource temporarily \
             unavailable (os error 11)",
        );
    }
}
