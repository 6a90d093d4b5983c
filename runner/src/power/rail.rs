//! A rail: its files and their readings.

use crate::clock::monotonic_ns;
use protocol::{RailReadings, ReadErrors};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Limit on the distinct errors of a rail; further ones are counted as the last.
const MAX_ERRORS: usize = 8;

/// The rails of a meter, and the names of its drivers.
pub(super) struct FoundRails {
    pub(super) driver: String,
    pub(super) rails: Vec<Rail>,
}

/// A rail with its readings so far.
#[derive(Debug)]
pub(super) struct Rail {
    files: Files,
    readings: RailReadings,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Files {
    /// Power as the driver computes it, with voltage and current if there are files for them.
    Power { milliwatts: PathBuf, factors: Option<(PathBuf, PathBuf)> },
    /// Power in µW.
    MicroPower { microwatts: PathBuf },
    /// Voltage and current.
    Factors { millivolts: PathBuf, milliamperes: PathBuf },
    /// An energy counter.
    Energy { microjoules: PathBuf },
}

impl Rail {
    pub(super) fn new(name: &str, source: &Path, files: Files) -> Self {
        let readings = RailReadings {
            name: name.to_owned(),
            source: source.display().to_string(),
            ..RailReadings::default()
        };
        Self { files, readings }
    }

    /// Sets the value at which an energy counter wraps around, in µJ.
    pub(super) fn with_range(mut self, range: Option<u64>) -> Self {
        self.readings.range_microjoules = range;
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.readings.name
    }

    pub(super) fn is_counter(&self) -> bool {
        matches!(self.files, Files::Energy { .. })
    }

    /// Reads the rail once; either all of its files are recorded or none. Returns the value that shows when the meter has made
    /// a new conversion: the current or, if unknown, the power; `None` for counters.
    pub(super) fn read(&mut self) -> Option<i64> {
        let begun_ns = monotonic_ns();
        let read = self.files.read();
        let took_ns = monotonic_ns() - begun_ns;
        let readings = &mut self.readings;
        let values = match read {
            Ok(values) => values,
            Err(error) => {
                count_error(&mut readings.errors, &error, begun_ns);
                return None;
            }
        };
        readings.begun_ns.push(begun_ns);
        readings.took_ns.push(took_ns);
        readings.milliwatts.extend(values.milliwatts);
        readings.millivolts.extend(values.millivolts);
        readings.milliamperes.extend(values.milliamperes);
        readings.microjoules.extend(values.microjoules);
        values.milliamperes.or(values.milliwatts)
    }

    pub(super) fn into_readings(self) -> RailReadings {
        self.readings
    }
}

#[derive(Debug, Default)]
struct Values {
    milliwatts: Option<i64>,
    millivolts: Option<i64>,
    milliamperes: Option<i64>,
    microjoules: Option<i64>,
}

impl Files {
    fn read(&self) -> io::Result<Values> {
        let mut values = Values::default();
        match self {
            Self::Power { milliwatts, factors } => {
                values.milliwatts = Some(number(milliwatts)?);
                if let Some((millivolts, milliamperes)) = factors {
                    values.millivolts = Some(number(millivolts)?);
                    values.milliamperes = Some(number(milliamperes)?);
                }
            }
            Self::MicroPower { microwatts } => {
                let microwatts = number(microwatts)?;
                values.milliwatts = Some((microwatts + 500 * microwatts.signum()) / 1000);
            }
            Self::Factors { millivolts, milliamperes } => {
                // The current first, because it shows new conversions.
                values.milliamperes = Some(number(milliamperes)?);
                values.millivolts = Some(number(millivolts)?);
            }
            Self::Energy { microjoules } => values.microjoules = Some(number(microjoules)?),
        }
        Ok(values)
    }
}

fn number(path: &Path) -> io::Result<i64> {
    let text = fs::read_to_string(path)?;
    text.trim()
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{:?} is not a number", text.trim())))
}

fn count_error(errors: &mut Vec<ReadErrors>, error: &io::Error, at_ns: u64) {
    let message = error.to_string();
    let known = errors.iter().position(|known| known.message == message);
    let place = known.or_else(|| (errors.len() >= MAX_ERRORS).then(|| errors.len() - 1));
    match place {
        Some(place) => {
            errors[place].count += 1;
            errors[place].last_ns = at_ns;
        }
        None => errors.push(ReadErrors { message, count: 1, first_ns: at_ns, last_ns: at_ns }),
    }
}
