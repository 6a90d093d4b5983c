//! Energy from a sensor that shows the mean of its last conversion.
//!
//! Conversion k lasts from t(k) − T to t(k), and its mean is shown from t(k) to t(k) + T (INA3221 data sheet, Texas
//! Instruments SBOS576, "Averaging function": the registers change when all averages are done, and conversions follow
//! each other without a pause). So the shown value lags by T. Its integral from T to W + T is the energy from 0 to W,
//! except for parts of a conversion at both ends. Values that are shown after W include times without load, so the
//! integral stops at W, and the energy of a time T is missing. The last value before W covers the part up to the end of
//! its conversion. No value covers the rest, so a likely one is used: it lies between the last value and the mean, and
//! is closer to the last value if successive conversions are similar. A change between two readings is placed in the
//! middle, which is right on average: this is the trapezoid rule.

use super::drawn::{Absence, Drawn};
use super::refresh::{Refresh, nanoseconds};
use super::trace::{Character, Trace, Values};
use crate::units::{Millijoules, Milliwatts, Nanoseconds};

/// Fewest conversions in a window.
const CONVERSIONS: f64 = 10.0;
/// Conversions that may be missing in a row.
const BRIDGED: f64 = 3.0;
/// Half the width of the interval that contains 95 % of a normal distribution, in standard deviations.
const COVERAGE: f64 = 1.96;

/// Energy of the window from 0 to `window`.
pub(super) fn drawn(trace: &Trace, window: Nanoseconds, character: Character) -> Result<Drawn, Absence> {
    let meter = || trace.rail().to_owned();
    let (at, length) = (trace.at_s(), window.as_f64() / 1e9);
    let Values::Power { milliwatts, .. } = trace.values() else {
        return Err(Absence::RefreshUnknown { meter: meter() });
    };
    let readings = at.iter().filter(|at| (0.0..=length).contains(*at)).count();
    let (errors, fault) = trace.errors();
    if readings < 2 {
        return Err(Absence::TooFewReadings { meter: meter(), readings, errors, fault });
    }
    let (Some(refresh), Some(step)) = (character.refresh, trace.step(character)) else {
        return Err(Absence::RefreshUnknown { meter: meter() });
    };
    // A meter that is faster than its reader is known at the reader's pace.
    let shown = Shown { at, milliwatts };
    let spacing = shown.spacing();
    let refresh = Refresh { period_s: refresh.period_s.max(spacing), ..refresh };
    let period = refresh.period_s;
    if length < CONVERSIONS * period {
        return Err(Absence::WindowTooShort {
            meter: meter(),
            window,
            refresh: refresh.period(),
            needed: nanoseconds(CONVERSIONS * period),
        });
    }
    let allowed = BRIDGED * period.max(2.0 * spacing);
    let gap = shown.longest_gap(period, length);
    if gap > allowed {
        let (gap, allowed) = (nanoseconds(gap), nanoseconds(allowed));
        return Err(Absence::Gap { meter: meter(), gap, allowed, errors, fault });
    }
    let energy = shown.integral(period, length) + shown.missing_end(period, length);
    Ok(Drawn {
        energy: Millijoules(energy),
        uncertainty: Millijoules(shown.uncertainty(refresh, length, step)),
        window,
        refresh: Some(refresh.period()),
        step: Some(Milliwatts(step)),
        readings,
    })
}

/// What the sensor showed.
struct Shown<'a> {
    at: &'a [f64],
    milliwatts: &'a [f64],
}

impl Shown<'_> {
    /// Median time between two readings.
    fn spacing(&self) -> f64 {
        let mut spacing: Vec<f64> = self.at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        spacing.sort_unstable_by(f64::total_cmp);
        spacing.get(spacing.len() / 2).copied().unwrap_or(0.0)
    }

    /// The last value read at `time` or before; the first of all if there is none before.
    fn held_at(&self, time: f64) -> f64 {
        self.milliwatts[self.at.partition_point(|at| *at <= time).saturating_sub(1)]
    }

    /// Trapezoids from `from` to `to`; beyond the readings, the outermost value is used.
    fn integral(&self, from: f64, to: f64) -> f64 {
        let inner = |at: &f64| (from..to).contains(at);
        let mut before = (from, self.between(from));
        let mut sum = 0.0;
        let points = self.at.iter().zip(self.milliwatts).filter(|(at, _)| inner(at));
        for point in points.map(|(at, value)| (*at, *value)).chain([(to, self.held_at(to))]) {
            sum += (point.0 - before.0) * f64::midpoint(before.1, point.1);
            before = point;
        }
        sum
    }

    /// Energy that was not shown before `length`.
    fn missing_end(&self, period: f64, length: f64) -> f64 {
        let last = self.held_at(length);
        let mean = self.integral(period, length) / (length - period);
        let mut variance = 0.0;
        let mut count = 0u32;
        let mut time = period;
        while time <= length {
            variance += (self.held_at(time) - mean).powi(2);
            count += 1;
            time += period;
        }
        variance /= f64::from(count.max(1));
        let likeness = if variance > 0.0 {
            (1.0 - 0.5 * self.mean_square_difference(period, length) / variance).clamp(0.0, 1.0)
        } else {
            1.0
        };
        // The last value was first shown when its conversion ended.
        let until = self.at.partition_point(|at| *at <= length);
        let changed = (1..until)
            .rev()
            .find(|place| (self.milliwatts[*place] - self.milliwatts[*place - 1]).abs() > 0.0);
        let unknown = changed.map_or(0.5 * period, |place| {
            (length - f64::midpoint(self.at[place - 1], self.at[place])).rem_euclid(period)
        });
        (period - unknown) * last + unknown * (mean + likeness * (last - mean))
    }

    /// On the straight line between the readings around `time`.
    fn between(&self, time: f64) -> f64 {
        let next = self.at.partition_point(|at| *at <= time);
        if next == 0 || next == self.at.len() {
            return self.held_at(time);
        }
        let (from, to) = (self.at[next - 1], self.at[next]);
        let share = (time - from) / (to - from);
        self.milliwatts[next - 1] * (1.0 - share) + self.milliwatts[next] * share
    }

    /// Longest time without a reading that touches the part of `from` to `to`.
    fn longest_gap(&self, from: f64, to: f64) -> f64 {
        let ends = [(from, self.at[0]), (self.at[self.at.len() - 1], to)];
        let inner = self.at.windows(2).filter(|pair| pair[1] > from && pair[0] < to);
        let gaps = ends.into_iter().chain(inner.map(|pair| (pair[0], pair[1])));
        gaps.map(|(from, to)| to - from).fold(0.0, f64::max)
    }

    /// How far the energy may be off in 95 of 100 windows, in mJ:
    ///
    /// - Half a step over the whole window, because a constant load is always rounded in the same direction.
    /// - At the end, a part of a conversion (uniform from 0 to T) is unknown and replaced by the one before. At the start,
    ///   the conversion across it is split by time. Both errors depend on how much conversions differ from each other.
    /// - Each change is placed in the middle between two readings. Its error is uniform, up to half their distance.
    /// - If readings are missing, the values that they would have shown.
    /// - If conversions are faster than readings, the readings are only a sample of them.
    /// - The lag is as uncertain as the refresh time.
    fn uncertainty(&self, refresh: Refresh, length: f64, step: f64) -> f64 {
        let period = refresh.period_s;
        let square = self.mean_square_difference(period, length);
        let mut variance = period * period * square * (1.0 / 3.0 + 1.0 / 30.0);
        for (times, values) in self.at.windows(2).zip(self.milliwatts.windows(2)) {
            if times[1] <= 0.0 || times[0] >= length {
                continue;
            }
            let (gap, difference) = (times[1] - times[0], values[1] - values[0]);
            variance += (difference * gap).powi(2) / 12.0;
            if gap > 1.5 * period {
                variance += square * gap * gap / 3.0;
            }
        }
        if refresh.outpaced {
            variance += 0.5 * square * period * length;
        }
        let rounding = 0.5 * step * length;
        let lag = refresh.off_s * (self.held_at(length) - self.held_at(period)).abs();
        (rounding.powi(2) + COVERAGE * COVERAGE * variance + lag * lag).sqrt()
    }

    /// Mean square of the difference between what is shown and what was shown a conversion before.
    fn mean_square_difference(&self, period: f64, length: f64) -> f64 {
        let (mut sum, mut count) = (0.0, 0u32);
        let mut time = period;
        while time <= length {
            sum += (self.held_at(time) - self.held_at(time - period)).powi(2);
            count += 1;
            time += period;
        }
        sum / f64::from(count.max(1))
    }
}
