//! Energy of a trial, where the board can tell it.

use crate::units::{Millijoules, Milliwatts};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a trial drew, or why nobody knows. Unmeasured energy is never a zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Energy {
    /// A meter was read during the window.
    Measured {
        /// Rail or counter that was read, as the board names it.
        meter: String,
        /// Energy of the window over its frames.
        per_frame: Millijoules,
        /// Energy of the window over its time.
        mean_power: Milliwatts,
    },
    /// There is no figure.
    Absent {
        /// Why.
        reason: Absence,
    },
}

impl Energy {
    /// Energy of a frame, where it was measured.
    pub fn per_frame(&self) -> Option<Millijoules> {
        match self {
            Self::Measured { per_frame, .. } => Some(*per_frame),
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Absence {
    /// The board's configuration names no meter.
    NoMeter,
    /// The meter could not be read.
    Unreadable {
        /// Rail or counter.
        meter: String,
        /// What the system said.
        fault: String,
    },
    /// The meter gave too few readings during the window.
    TooFewReadings {
        /// Rail or counter.
        meter: String,
        /// Readings it gave.
        readings: u64,
    },
}

impl fmt::Display for Absence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMeter => out.write_str("the board has no power meter configured"),
            Self::Unreadable { meter, fault } => write!(out, "{meter} could not be read: {fault}"),
            Self::TooFewReadings { meter, readings } => {
                write!(out, "{meter} gave {readings} readings during the window; measure longer")
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
        assert_eq!(absent.per_frame(), None);
        assert_eq!(absent.absent_reason().unwrap().to_string(), "the board has no power meter configured");
        let text = serde_json::to_string(&absent).unwrap();
        assert_eq!(text, r#"{"absent":{"reason":"no_meter"}}"#);
        assert_eq!(serde_json::from_str::<Energy>(&text).unwrap(), absent);
    }

    #[test]
    fn measured_energy_has_no_excuse() {
        let measured = Energy::Measured {
            meter: "VDD_IN".to_owned(),
            per_frame: Millijoules(120.0),
            mean_power: Milliwatts(6000.0),
        };
        assert_eq!(measured.per_frame(), Some(Millijoules(120.0)));
        assert_eq!(measured.absent_reason(), None);
    }
}
