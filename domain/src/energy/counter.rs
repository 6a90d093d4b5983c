//! Energy from a counter of energy.

use super::drawn::{Absence, Drawn};
use super::refresh::nanoseconds;
use super::trace::{Trace, Values};
use crate::units::{Millijoules, Nanoseconds};

/// Shortest window, in readings of the counter.
const READINGS: f64 = 10.0;
/// A RAPL counter is updated about once per millisecond (Intel, Software Developer's Manual, volume 3B,
/// "RAPL interfaces").
const REFRESH_S: f64 = 1e-3;
/// Half the width of the interval that contains 95 % of a normal distribution, in standard deviations.
const COVERAGE: f64 = 1.96;

/// Energy of the window from 0 to `window`: the counter at its end minus the counter at its start. The value at the start is
/// interpolated between the readings around it. After the end the load is gone, so the value at the end is extrapolated from
/// the two readings before it.
pub(super) fn drawn(trace: &Trace, window: Nanoseconds) -> Result<Drawn, Absence> {
    let meter = || trace.rail().to_owned();
    let (at, length) = (trace.at_s(), window.as_f64() / 1e9);
    let Values::Energy { millijoules } = trace.values() else {
        return Err(Absence::RefreshUnknown { meter: meter() });
    };
    let readings = at.iter().filter(|at| (0.0..=length).contains(*at)).count();
    let (errors, fault) = trace.errors();
    let ends = Edge::around(at, 0.0).zip(Edge::around(at, length));
    let (Some((begin, end)), true) = (ends, readings >= 2) else {
        return Err(Absence::TooFewReadings { meter: meter(), readings, errors, fault });
    };
    let Some(millijoules) = millijoules else { return Err(Absence::CounterWentBack { meter: meter() }) };
    // A machine that works draws power. A counter that stands still does not count it.
    if millijoules.first() == millijoules.last() {
        return Err(Absence::RefreshUnknown { meter: meter() });
    }
    let gap = begin.gap(at).max(end.gap(at));
    if length < READINGS * gap {
        let refresh = nanoseconds(gap);
        // Where readings failed it is they that are missing; a longer window would not do by itself.
        return Err(match fault {
            None => Absence::WindowTooShort {
                meter: meter(),
                window,
                refresh,
                needed: nanoseconds(READINGS * gap),
            },
            fault => {
                let allowed = nanoseconds(length / READINGS);
                Absence::Gap { meter: meter(), gap: refresh, allowed, errors, fault }
            }
        });
    }
    // By how much the power of one gap differs from that of the next says how uneven it may be within a gap.
    let powers: Vec<f64> = at
        .windows(2)
        .zip(millijoules.windows(2))
        .filter(|(times, _)| times[1] > times[0] && times[1] > 0.0 && times[1] <= length)
        .map(|(times, values)| (values[1] - values[0]) / (times[1] - times[0]))
        .collect();
    let Some(last) = powers.last() else {
        return Err(Absence::TooFewReadings { meter: meter(), readings, errors, fault });
    };
    let rest = length - at[end.before];
    let energy = millijoules[end.before] + rest * last - begin.value(millijoules);
    let differences: Vec<f64> = powers.windows(2).map(|pair| (pair[1] - pair[0]).powi(2)).collect();
    let square = differences.iter().sum::<f64>() / differences.len().max(1) as f64;
    let stale = energy / length * REFRESH_S;
    let variance = square * (begin.gap(at).powi(2) / 12.0 + rest * rest) + stale * stale / 6.0;
    Ok(Drawn {
        energy: Millijoules(energy),
        uncertainty: Millijoules(COVERAGE * variance.sqrt()),
        window,
        refresh: None,
        step: None,
        readings,
    })
}

/// A time between two readings.
#[derive(Clone, Copy)]
struct Edge {
    before: usize,
    share: f64,
}

impl Edge {
    /// `None` if there is no reading before or after.
    fn around(at: &[f64], time: f64) -> Option<Self> {
        let after = at.partition_point(|at| *at <= time);
        let before = after.checked_sub(1)?;
        let (from, to) = (*at.get(before)?, *at.get(after)?);
        Some(Self { before, share: (time - from) / (to - from) })
    }

    fn gap(self, at: &[f64]) -> f64 {
        at[self.before + 1] - at[self.before]
    }

    fn value(self, values: &[f64]) -> f64 {
        values[self.before] * (1.0 - self.share) + values[self.before + 1] * self.share
    }
}
