//! How often a meter shows a new value.

use crate::units::Nanoseconds;
use std::f64::consts::TAU;

/// Fewest times between changes for an estimate.
const ENOUGH: usize = 6;
/// The refresh time is searched up to a little above this quantile of the times between changes; a few shorter ones come from
/// readings across two conversions.
const QUANTILE: f64 = 0.2;
/// Least agreement of the times between changes with multiples of the refresh time; 1 is perfect.
const AGREEMENT: f64 = 0.5;
/// Above this share of readings that differ from the one before, the meter refreshes faster than it is read. The same
/// holds if the time between changes is shorter than that of two readings.
const MOST_CHANGES: f64 = 0.6;

/// Refresh time of a meter, as estimated from its readings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Refresh {
    /// Seconds from one conversion to the next.
    pub(super) period_s: f64,
    /// Its uncertainty in seconds.
    pub(super) off_s: f64,
    /// Whether nearly every reading differed from the one before. Then conversions may be shorter than `period_s`, and the
    /// readings are samples and not a gapless series of means.
    pub(super) outpaced: bool,
}

impl Refresh {
    /// From one conversion to the next.
    pub fn period(&self) -> Nanoseconds {
        nanoseconds(self.period_s)
    }

    /// The one that is known better: from more times between two conversions, or from more frequent readings.
    #[must_use]
    pub fn better(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(if other.off_s < one.off_s { other } else { one }),
            (one, other) => one.or(other),
        }
    }
}

/// From seconds that are not negative.
pub(super) fn nanoseconds(seconds: f64) -> Nanoseconds {
    // Saturates, which a trace of 500 years would need.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, and not negative")]
    Nanoseconds((seconds.max(0.0) * 1e9).round() as u64)
}

/// Estimates the refresh time from the times at which `marks` change. A change is assumed to be in the middle between the
/// two readings that show it. A conversion that gives the same value as the one before hides a change, so the times between
/// changes are multiples of the refresh time. It is the longest time of which they are multiples.
pub(super) fn measure(at_s: &[f64], marks: &[i64]) -> Option<Refresh> {
    let mut last: Option<f64> = None;
    let mut between = Vec::new();
    let mut spacing = Vec::new();
    let mut changes = 0usize;
    for (times, values) in at_s.windows(2).zip(marks.windows(2)) {
        spacing.push(times[1] - times[0]);
        if values[0] == values[1] {
            continue;
        }
        let middle = f64::midpoint(times[0], times[1]);
        between.extend(last.map(|before| middle - before));
        last = Some(middle);
        changes += 1;
    }
    if between.len() < ENOUGH {
        return None;
    }
    between.sort_unstable_by(f64::total_cmp);
    spacing.sort_unstable_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index below the length")]
    let low = between[(QUANTILE * between.len() as f64) as usize];
    let poll = spacing[spacing.len() / 2];
    let off_s = poll / (between.len() as f64).sqrt();
    if changes as f64 > MOST_CHANGES * spacing.len() as f64 || low < 2.0 * poll {
        return Some(Refresh { period_s: low, off_s, outpaced: true });
    }
    let agreement = |period: f64| {
        let cosines = between.iter().map(|time| (TAU * time / period).cos());
        cosines.sum::<f64>() / between.len() as f64
    };
    let candidates = std::iter::successors(Some(1.3 * low), |period| Some(period / 1.003));
    let tried: Vec<(f64, f64)> = candidates
        .take_while(|period| *period > 1.5 * poll)
        .map(|period| (agreement(period), period))
        .collect();
    let most = tried.iter().map(|(agreement, _)| *agreement).fold(0.0, f64::max);
    if most < AGREEMENT {
        // A meter without a beat, such as one that a busy program plays. The middle time does, known as well as they
        // are alike.
        let quarter = between.len() / 4;
        let spread = between[between.len() - 1 - quarter] - between[quarter];
        return Some(Refresh {
            period_s: between[between.len() / 2],
            off_s: off_s.max(0.5 * spread),
            outpaced: false,
        });
    }
    // They are multiples of its half as well.
    let (_, longest) = *tried.iter().find(|(agreement, _)| *agreement >= 0.9 * most)?;
    // Least squares of time = count × period.
    let (mut products, mut squares) = (0.0, 0.0);
    for time in &between {
        let count = (time / longest).round();
        products += time * count;
        squares += count * count;
    }
    (squares > 0.0).then(|| Refresh { period_s: products / squares, off_s, outpaced: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a meter every `poll` ms whose conversion `n` gives `value(n)`.
    fn read(refresh_ms: f64, poll_ms: f64, value: impl Fn(i64) -> i64) -> Option<Refresh> {
        let at: Vec<f64> = (0..400).map(|reading| f64::from(reading) * poll_ms / 1000.0).collect();
        #[expect(clippy::cast_possible_truncation, reason = "the number of a conversion")]
        let marks: Vec<i64> = at.iter().map(|at| value((at * 1000.0 / refresh_ms) as i64)).collect();
        measure(&at, &marks)
    }

    #[test]
    fn the_refresh_is_found_also_where_conversions_give_the_same_value() {
        let near = |found: Option<Refresh>, wanted: f64| {
            let found = found.unwrap();
            assert!((found.period_s - wanted).abs() < 0.03 * wanted, "{found:?}, not {wanted}");
            assert!(!found.outpaced);
        };
        near(read(410.0, 100.0, |n| n), 0.41);
        near(read(410.0, 100.0, |n| n * n * 7 % 3), 0.41);
        // Only every third to fifth conversion differs.
        near(read(410.0, 50.0, |n| n / 3 + n / 5), 0.41);
        near(read(140.0, 35.0, |n| (n * 2_654_435_761) >> 7 & 3), 0.14);
    }

    #[test]
    fn a_meter_that_is_faster_than_its_reader_is_told() {
        let found = read(7.0, 20.0, |n| n).unwrap();
        assert!(found.outpaced && (found.period_s - 0.02).abs() < 0.001, "{found:?}");
    }

    #[test]
    fn a_rail_that_hardly_changes_tells_nothing() {
        assert_eq!(read(410.0, 100.0, |_| 5), None);
        assert_eq!(read(410.0, 100.0, |n| i64::from(n > 20)), None);
        assert_eq!(measure(&[], &[]), None);
    }
}
