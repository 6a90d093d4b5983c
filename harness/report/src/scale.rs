//! From values to places along an axis, in percent of its length, so that a drawing takes the width it is given while
//! its text keeps its size.

/// An axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    lo: f64,
    hi: f64,
    logarithmic: bool,
}

impl Scale {
    /// From zero to a round number no less than `hi`.
    pub(crate) fn from_zero(hi: f64) -> Self {
        Self::round(0.0, hi)
    }

    /// Between round numbers around `lo` and `hi`.
    pub(crate) fn round(lo: f64, hi: f64) -> Self {
        let hi = if hi > lo { hi } else { lo + 1.0 };
        let step = step(hi - lo, 7);
        Self { lo: (lo / step).floor() * step, hi: (hi / step).ceil() * step, logarithmic: false }
    }

    /// Between round numbers around positive values, with room for marks at the edges.
    pub(crate) fn around(values: impl IntoIterator<Item = f64>) -> Self {
        let (lo, hi) = values
            .into_iter()
            .fold((f64::INFINITY, 0.0_f64), |(lo, hi), value| (lo.min(value), hi.max(value)));
        let room = 0.04 * (hi - lo);
        Self::round((lo - room).max(0.0), hi + room)
    }

    /// From zero to exactly `hi`.
    pub(crate) fn exactly(hi: f64) -> Self {
        Self { lo: 0.0, hi: if hi > 0.0 { hi } else { 1.0 }, logarithmic: false }
    }

    /// Between 1, 2 or 5 times powers of ten around positive numbers.
    pub(crate) fn logarithmic(lo: f64, hi: f64) -> Self {
        let lo = if lo.is_finite() && lo > 0.0 { lo } else { 1.0 };
        let lower = candidates(lo).rfind(|value| *value <= lo).unwrap_or(lo);
        let upper = candidates(hi.max(lower * 1.5)).find(|value| *value >= hi.max(lower * 1.5));
        Self { lo: lower, hi: upper.unwrap_or(lower * 10.0), logarithmic: true }
    }

    /// Whether a value lies on the axis.
    pub(crate) fn holds(&self, value: f64) -> bool {
        (self.lo..=self.hi).contains(&value)
    }

    /// Place of a value in percent; what lies beyond an end is at the end.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(f64::MIN_POSITIVE) / self.lo).ln() / (self.hi / self.lo).ln()
        } else {
            (value - self.lo) / (self.hi - self.lo)
        };
        100.0 * share.clamp(0.0, 1.0)
    }

    /// Round values on the axis for a drawing with room for ten of them.
    pub(crate) fn ticks(&self) -> Vec<f64> {
        self.at_most(7)
    }

    /// Round values on the axis for a drawing with room for six of them.
    pub(crate) fn few_ticks(&self) -> Vec<f64> {
        self.at_most(4)
    }

    fn at_most(&self, parts: u32) -> Vec<f64> {
        if self.logarithmic {
            let all: Vec<f64> = decades(self.lo, self.hi).filter(|value| self.holds(*value)).collect();
            return if all.len() > 7 {
                all.into_iter().filter(|value| is_power(*value)).collect()
            } else {
                all
            };
        }
        let step = step(self.hi - self.lo, parts);
        let first = (self.lo / step - 1e-6).ceil();
        (0..10u8)
            .map(|tick| (first + f64::from(tick)) * step)
            .take_while(|tick| *tick <= self.hi + 1e-6 * step)
            .collect()
    }
}

/// The step of 1, 2 or 5 times a power of ten that divides a range into at most so many parts.
fn step(range: f64, most: u32) -> f64 {
    let least = range / f64::from(most);
    candidates(least).find(|step| *step >= least * 0.999_999).unwrap_or(least)
}

/// 1, 2 and 5 times the powers of ten around a value, upwards.
fn candidates(value: f64) -> impl DoubleEndedIterator<Item = f64> {
    decades(value, value)
}

fn decades(lo: f64, hi: f64) -> impl DoubleEndedIterator<Item = f64> {
    #[expect(clippy::cast_possible_truncation, reason = "exponents of doubles are within 308")]
    let exponent = |value: f64| value.log10().floor().clamp(-300.0, 300.0) as i32;
    (exponent(lo) - 1..=exponent(hi) + 1)
        .flat_map(|exponent| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(exponent)))
}

fn is_power(value: f64) -> bool {
    (value.log10() - value.log10().round()).abs() < 1e-9
}

/// A place as an attribute: `12.3%`.
pub(crate) fn percent(place: f64) -> String {
    let text = format!("{place:.2}");
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A tick's label without more digits than the step has.
pub(crate) fn label(tick: f64) -> String {
    let rounded: f64 = format!("{tick:.6}").parse().unwrap_or(tick);
    if rounded.abs() >= 10_000.0 { format!("{:.0} k", rounded / 1e3) } else { rounded.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (hi, end, ticks) in [(289.0, 300.0, 7), (31.3, 35.0, 8), (1.0, 1.0, 7), (0.0, 1.0, 7)] {
            let scale = Scale::from_zero(hi);
            assert!(scale.hi >= hi && scale.hi <= end * 1.2, "{scale:?}");
            assert!(scale.ticks().len() <= ticks, "{:?}", scale.ticks());
            assert_eq!(scale.ticks().first(), Some(&0.0));
            assert!((scale.ticks().last().unwrap() - scale.hi).abs() < 1e-9 * scale.hi);
        }
    }

    #[test]
    fn logarithmic_axes_hold_their_values() {
        for (lo, hi) in [(31.3, 289.0), (0.4, 0.4), (1.0, 1.0), (3e-3, 4e6), (10.0, 20.0)] {
            let scale = Scale::logarithmic(lo, hi);
            assert!(scale.holds(lo) && scale.holds(hi), "{scale:?}");
            let ticks = scale.ticks();
            assert!((1..=10).contains(&ticks.len()), "{ticks:?}");
            assert!(scale.place(lo) <= scale.place(hi));
        }
        assert!(Scale::logarithmic(0.0, 0.0).holds(1.0));
    }

    #[test]
    fn places_stay_on_the_axis() {
        let scale = Scale::round(0.9, 2.1);
        assert_eq!((scale.place(-7.0), scale.place(99.0)), (0.0, 100.0));
        assert_eq!(percent(scale.place(f64::NEG_INFINITY)), "0%");
        assert_eq!((percent(12.3456).as_str(), percent(50.0).as_str()), ("12.35%", "50%"));
    }

    #[test]
    fn labels_are_short() {
        assert_eq!([0.1 + 0.2, 100.0, 20_000.0].map(label), ["0.3", "100", "20 k"]);
    }
}
