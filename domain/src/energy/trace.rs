//! Readings of one rail.

use super::refresh::{self, Refresh};

/// Readings of a rail over time. Times are seconds since the window opened, ascending; those before it are negative.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    rail: String,
    at_s: Vec<f64>,
    values: Values,
    step: Step,
    errors: u64,
    fault: Option<String>,
}

/// What the readings are of.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    /// Power in mW, the values that distinguish conversions, and mean voltage in V and current in A, if known.
    Power { milliwatts: Vec<f64>, marks: Vec<i64>, means: Option<(f64, f64)> },
    /// Energy in mJ since the first reading; `None` if the counter decreased and has no range.
    Energy { millijoules: Option<Vec<f64>> },
}

/// Properties of a meter, as estimated from readings. Those of one trial may reveal little; those of a run reveal more.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Character {
    /// How often it refreshes; `None` for counters, and if the readings changed too rarely.
    pub refresh: Option<Refresh>,
    pub(super) step: Step,
}

/// Least differences between two readings that were not equal.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Step {
    milliwatts: Option<f64>,
    millivolts: Option<f64>,
    milliamperes: Option<f64>,
}

impl Character {
    /// Properties of the meter from two of its rails: the better known refresh time, and the larger steps, which are safe for both.
    #[must_use]
    pub(super) fn of_both(self, other: Self) -> Self {
        let most = |one: Option<f64>, other: Option<f64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        };
        Self {
            refresh: Refresh::better(self.refresh, other.refresh),
            step: Step {
                milliwatts: most(self.step.milliwatts, other.step.milliwatts),
                millivolts: most(self.step.millivolts, other.step.millivolts),
                milliamperes: most(self.step.milliamperes, other.step.milliamperes),
            },
        }
    }

    /// The same, with the other's steps for those that are not known.
    #[must_use]
    pub(super) fn or(self, other: Self) -> Self {
        let step = Step {
            milliwatts: self.step.milliwatts.or(other.step.milliwatts),
            millivolts: self.step.millivolts.or(other.step.millivolts),
            milliamperes: self.step.milliamperes.or(other.step.milliamperes),
        };
        Self { step, ..self }
    }

    /// Combines the properties: the better known refresh time, and the smaller steps.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        // With few values it may be several steps of the meter, never less than one.
        let least = |one: Option<f64>, other: Option<f64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self {
            refresh: Refresh::better(self.refresh, other.refresh),
            step: Step {
                milliwatts: least(self.step.milliwatts, other.step.milliwatts),
                millivolts: least(self.step.millivolts, other.step.millivolts),
                milliamperes: least(self.step.milliamperes, other.step.milliamperes),
            },
        }
    }
}

/// Why series are not a valid trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// The series differ in length.
    #[error("{times} times for {values} values")]
    Lengths {
        /// Times.
        times: usize,
        /// Values.
        values: usize,
    },
    /// The time stamp of a reading is before that of the previous one.
    #[error("reading {index} is older than the one before it")]
    Order {
        /// Its place.
        index: usize,
    },
}

impl Trace {
    /// Readings of a power in mW, at times in ns since the window opened.
    pub fn of_power(rail: &str, at_ns: &[i64], milliwatts: &[i64]) -> Result<Self, TraceError> {
        check(at_ns, milliwatts.len())?;
        let values = Values::Power {
            milliwatts: milliwatts.iter().map(|value| *value as f64).collect(),
            marks: milliwatts.to_vec(),
            means: None,
        };
        let step = Step { milliwatts: step(milliwatts), ..Step::default() };
        Ok(Self { step, ..Self::new(rail, at_ns, values) })
    }

    /// Readings of a voltage in mV and a current in mA. `milliwatts` is the driver's product of the two, if it has one;
    /// otherwise they are multiplied here.
    pub fn of_factors(
        rail: &str,
        at_ns: &[i64],
        millivolts: &[i64],
        milliamperes: &[i64],
        milliwatts: Option<&[i64]>,
    ) -> Result<Self, TraceError> {
        for series in [Some(millivolts), Some(milliamperes), milliwatts].into_iter().flatten() {
            check(at_ns, series.len())?;
        }
        let product = |(volts, amperes): (&i64, &i64)| *volts as f64 * *amperes as f64 / 1000.0;
        let power = match milliwatts {
            Some(given) => given.iter().map(|value| *value as f64).collect(),
            None => millivolts.iter().zip(milliamperes).map(product).collect(),
        };
        let means = Some((mean(millivolts) / 1000.0, mean(milliamperes) / 1000.0));
        let values = Values::Power { milliwatts: power, marks: milliamperes.to_vec(), means };
        let step = Step { milliwatts: None, millivolts: step(millivolts), milliamperes: step(milliamperes) };
        Ok(Self { step, ..Self::new(rail, at_ns, values) })
    }

    /// Readings of a counter in µJ that wraps to 0 after `range`, at most once between two readings.
    pub fn of_counter(
        rail: &str,
        at_ns: &[i64],
        microjoules: &[i64],
        range: Option<u64>,
    ) -> Result<Self, TraceError> {
        check(at_ns, microjoules.len())?;
        let mut sum = Some(0.0);
        let mut millijoules = Vec::with_capacity(microjoules.len());
        for (place, value) in microjoules.iter().enumerate() {
            let before = if place == 0 { *value } else { microjoules[place - 1] };
            let more = *value as f64 - before as f64;
            // The counter takes the values 0 to range (powercap.rst: "range of the above energy counter").
            let more = if more >= 0.0 { Some(more) } else { range.map(|range| more + range as f64 + 1.0) };
            sum = sum.zip(more).map(|(sum, more)| sum + more / 1000.0);
            millijoules.extend(sum);
        }
        let millijoules = (millijoules.len() == microjoules.len()).then_some(millijoules);
        Ok(Self::new(rail, at_ns, Values::Energy { millijoules }))
    }

    fn new(rail: &str, at_ns: &[i64], values: Values) -> Self {
        let step = Step::default();
        let seconds = at_ns.iter().map(|ns| *ns as f64 / 1e9).collect();
        Self { rail: rail.to_owned(), at_s: seconds, values, step, errors: 0, fault: None }
    }

    /// The same, with readings that failed and what the system said.
    #[must_use]
    pub fn with_errors(mut self, errors: u64, fault: Option<String>) -> Self {
        self.errors = errors;
        self.fault = fault;
        self
    }

    /// Name of the rail.
    pub fn rail(&self) -> &str {
        &self.rail
    }

    /// Properties of the meter, as estimated from these readings.
    pub fn character(&self) -> Character {
        let refresh = match &self.values {
            Values::Power { marks, .. } => refresh::measure(&self.at_s, marks),
            Values::Energy { .. } => None,
        };
        Character { refresh, step: self.step }
    }

    /// Step of the power in mW for these readings of a meter: a step of the voltage times the mean current, and a step
    /// of the current times the mean voltage. The voltage hardly changes, so its step may be unknown; that of the current
    /// must be known.
    pub(super) fn step(&self, character: Character) -> Option<f64> {
        let Values::Power { means, .. } = &self.values else { return None };
        let step = character.step;
        match means {
            Some((volts, amperes)) => {
                Some(step.milliamperes? * volts.abs() + step.millivolts.unwrap_or(0.0) * amperes.abs())
            }
            None => step.milliwatts,
        }
    }

    pub(super) fn is_counter(&self) -> bool {
        matches!(self.values, Values::Energy { .. })
    }

    pub(super) fn at_s(&self) -> &[f64] {
        &self.at_s
    }

    pub(super) fn values(&self) -> &Values {
        &self.values
    }

    pub(super) fn errors(&self) -> (u64, Option<String>) {
        (self.errors, self.fault.clone())
    }
}

fn check(at_ns: &[i64], values: usize) -> Result<(), TraceError> {
    if at_ns.len() != values {
        return Err(TraceError::Lengths { times: at_ns.len(), values });
    }
    match at_ns.windows(2).position(|pair| pair[1] < pair[0]) {
        Some(place) => Err(TraceError::Order { index: place + 1 }),
        None => Ok(()),
    }
}

/// Smallest difference between two unequal values; `None` if all are equal.
fn step(values: &[i64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted
        .windows(2)
        .map(|pair| pair[1].saturating_sub(pair[0]))
        .filter(|difference| *difference > 0)
        .min()
        .map(|step| step as f64)
}

fn mean(values: &[i64]) -> f64 {
    values.iter().map(|value| *value as f64).sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_begin_anew() {
        let counter = |values: &[i64], range| {
            let at: Vec<i64> = (0..).take(values.len()).collect();
            match Trace::of_counter("package-0", &at, values, range).unwrap().values {
                Values::Energy { millijoules } => millijoules,
                Values::Power { .. } => panic!("a counter is no power"),
            }
        };
        assert_eq!(counter(&[5000, 7000, 7000], None), Some(vec![0.0, 2.0, 2.0]));
        assert_eq!(counter(&[9000, 0, 1000], Some(9999)), Some(vec![0.0, 1.0, 2.0]));
        assert_eq!(counter(&[9000, 0, 1000], None), None);
    }

    #[test]
    fn the_step_of_a_power_comes_from_its_factors() {
        let at = [0, 1, 2];
        let volts = [19_000, 19_008, 18_992];
        let changing = Trace::of_factors("r", &at, &volts, &[100, 104, 96], None).unwrap();
        let near =
            |found: Option<f64>, wanted: f64| assert!((found.unwrap() - wanted).abs() < 1e-9, "{found:?}");
        near(changing.step(changing.character()), 76.0 + 0.8);
        let even = Trace::of_factors("r", &at, &volts, &[200; 3], None).unwrap();
        assert_eq!(even.step(even.character()), None);
        near(even.step(even.character().and(changing.character())), 76.0 + 1.6);
        let power = Trace::of_power("r", &at, &[1900, 1976, 1900]).unwrap();
        near(power.step(power.character()), 76.0);
    }

    #[test]
    fn series_that_do_not_fit_are_refused() {
        assert_eq!(Trace::of_power("r", &[0, 1], &[1]), Err(TraceError::Lengths { times: 2, values: 1 }));
        assert_eq!(Trace::of_power("r", &[1, 0], &[1, 1]), Err(TraceError::Order { index: 1 }));
    }
}
