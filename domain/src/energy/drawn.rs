//! The energy of one rail over a window, or why it is not known.

use crate::units::{Millijoules, Milliwatts, Nanoseconds};
use serde::{Deserialize, Serialize};
use std::fmt;

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

    /// The sum over rails that supply different parts. The uncertainties are added: rounding has the same sign on rails of
    /// one meter. `None` without rails.
    pub(super) fn sum(parts: &[Self]) -> Option<Self> {
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
        /// Completes "failed to …".
        fault: String,
    },
    /// The stored readings are inconsistent.
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
        /// Error of the operating system, if some failed.
        fault: Option<String>,
    },
    /// There is a gap in the readings.
    Gap {
        /// Rail or counter.
        meter: String,
        /// Longest time without a reading in the window.
        gap: Nanoseconds,
        /// Longest that can be bridged.
        allowed: Nanoseconds,
        /// Readings that failed, over the whole trial.
        errors: u64,
        /// Error of the operating system, if some failed.
        fault: Option<String>,
    },
    /// The readings changed too rarely to determine the refresh time of the meter.
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
    /// A counter decreased, and its range is unknown.
    CounterWentBack {
        /// Rail or counter.
        meter: String,
    },
}

fn counted(readings: u64) -> String {
    if readings == 1 { "1 reading".to_owned() } else { format!("{readings} readings") }
}

impl fmt::Display for Absence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = |errors: &u64, fault: &Option<String>| match fault {
            Some(fault) => format!("; {} failed: {fault}", counted(*errors)),
            None => String::new(),
        };
        match self {
            Self::NoMeter => out.write_str("the board has no power meter configured"),
            Self::NotRead => out.write_str("the power meter was not read"),
            Self::Unreadable { fault } => out.write_str(fault),
            Self::Damaged { meter, fault } => write!(out, "the readings of {meter} are damaged: {fault}"),
            Self::TooFewReadings { meter, readings, errors, fault } => {
                let failed = failed(errors, fault);
                write!(out, "{meter} gave {} during the window{failed}", counted(*readings as u64))
            }
            Self::Gap { meter, gap, allowed, errors, fault } => {
                let failed = failed(errors, fault);
                write!(
                    out,
                    "{meter} gave no reading for {gap}; gaps of at most {allowed} are allowed{failed}"
                )
            }
            Self::RefreshUnknown { meter } => {
                write!(out, "{meter} changed too rarely to determine its refresh time; measure longer")
            }
            Self::WindowTooShort { meter, window, refresh, needed } => write!(
                out,
                "a window of {window} is too short for {meter}, which refreshes every {refresh}; set \
                 `measure.min_seconds` to {:.0} or more",
                (needed.as_f64() / 1e9).ceil()
            ),
            Self::CounterWentBack { meter } => {
                write!(out, "the counter {meter} decreased, and its driver does not report its range")
            }
        }
    }
}
