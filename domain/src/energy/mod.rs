//! Energy of a window, if the board has a meter.
//!
//! A power sensor of the kind of the INA3221 shows the mean of the conversion that ended last, and shows it until the
//! next one ends. [`average`] turns such readings into energy; [`counter`] does so with counters of energy. Both return the
//! uncertainty of the figure, and neither returns a figure if the window is too short for the meter or readings are missing.
//! The sensor's own calibration is not part of that uncertainty: gain and offset are in the data sheet (Texas
//! Instruments SBOS576: 0.25 % and 80 µV at most), and cancel out in the ratio of two schedules on the same board.

mod average;
mod counter;
mod drawn;
mod refresh;
mod trace;

pub use drawn::{Absence, Drawn};
pub use refresh::Refresh;
pub use trace::{Character, Trace, TraceError};

use crate::units::Nanoseconds;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The energy of a trial, or why it is unknown. Energy that was not measured is never zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Energy {
    /// A meter was read during the window.
    Measured {
        /// Rail or counter that was read, as the board names it, or the rails of a sum. It supplies all that is measured.
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

impl Energy {
    /// Energy of a window that begins at the zero of the traces' time. The total is the sum of `totals`, which is one rail
    /// on most boards. `known` is what other measurements showed about the meter, by rail: a constant load hardly changes
    /// the readings, so it reveals little about the meter. All rails refresh as the total does.
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
        // A rail of a sum that never changed, such as that of an engine that is off, has the steps of the other rails.
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

    /// The total of the window, if it was measured.
    pub fn drawn(&self) -> Option<&Drawn> {
        match self {
            Self::Measured { drawn, .. } => Some(drawn),
            Self::Absent { .. } => None,
        }
    }

    /// Why there is no figure; absent if there is one.
    pub fn absent_reason(&self) -> Option<&Absence> {
        match self {
            Self::Measured { .. } => None,
            Self::Absent { reason } => Some(reason),
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
            "VDD_IN gave no reading for 1.00 s; gaps of at most 410 ms are allowed; 9 readings failed: Resource \
             temporarily unavailable (os error 11)",
        );
    }
}
