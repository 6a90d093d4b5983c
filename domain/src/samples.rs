//! Observations of one quantity and their descriptive statistics.

use crate::units::Nanoseconds;

/// Factor that makes the median absolute deviation of normal numbers their standard deviation: 1 / Φ⁻¹(3/4).
pub const MAD_TO_DEVIATION: f64 = 1.482_602_218_505_602;

/// Observations of one quantity. There is at least one, all are finite, and they are kept in ascending order.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    ascending: Vec<f64>,
}

impl Samples {
    /// These observations, in any order.
    pub fn new(values: &[f64]) -> Result<Self, SamplesError> {
        if values.is_empty() {
            return Err(SamplesError::Empty);
        }
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            return Err(SamplesError::NotFinite { place, value: values[place] });
        }
        let mut ascending = values.to_vec();
        ascending.sort_unstable_by(f64::total_cmp);
        Ok(Self { ascending })
    }

    /// These durations, in ns.
    pub fn of_durations(durations: &[Nanoseconds]) -> Result<Self, SamplesError> {
        Self::new(&durations.iter().map(|duration| duration.as_f64()).collect::<Vec<_>>())
    }

    /// The observations in ascending order.
    pub fn ascending(&self) -> &[f64] {
        &self.ascending
    }

    /// How many there are; at least one.
    pub fn count(&self) -> usize {
        self.ascending.len()
    }

    /// The least.
    pub fn least(&self) -> f64 {
        self.ascending[0]
    }

    /// The greatest.
    pub fn greatest(&self) -> f64 {
        self.ascending[self.ascending.len() - 1]
    }

    /// The value below which the share `p` lies, `p` from 0 to 1 (taken as 0 or 1 beyond): linear between order
    /// statistics, type 7 of Hyndman & Fan 1996, "Sample quantiles in statistical packages".
    pub fn quantile(&self, p: f64) -> f64 {
        quantile_of_ascending(&self.ascending, p)
    }

    /// The median: the middle one, or the mean of the middle two.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The arithmetic mean.
    pub fn mean(&self) -> f64 {
        self.ascending.iter().sum::<f64>() / self.ascending.len() as f64
    }

    /// The standard deviation, with divisor n − 1; absent for a single observation.
    pub fn deviation(&self) -> Option<f64> {
        if self.count() < 2 {
            return None;
        }
        let mean = self.mean();
        let squares: f64 = self.ascending.iter().map(|value| (value - mean).powi(2)).sum();
        Some((squares / (self.count() - 1) as f64).sqrt())
    }

    /// The median absolute deviation from the median (Hampel 1974, "The influence curve and its role in robust
    /// estimation"), without the factor [`MAD_TO_DEVIATION`].
    pub fn median_absolute_deviation(&self) -> f64 {
        let median = self.median();
        let mut distances: Vec<f64> = self.ascending.iter().map(|value| (value - median).abs()).collect();
        median_in_place(&mut distances).unwrap_or(0.0)
    }

    /// Whether a value is an outlier among these: its modified z-score is above 3.5 (Iglewicz & Hoaglin 1993, "How to
    /// detect and handle outliers"; if more than half are equal, with the mean absolute deviation instead of the
    /// median one). Outliers are labelled, never dropped.
    pub fn is_outlying(&self, value: f64) -> bool {
        let median = self.median();
        let by_median = MAD_TO_DEVIATION * self.median_absolute_deviation();
        let scale = if by_median > 0.0 {
            by_median
        } else {
            let sum: f64 = self.ascending.iter().map(|other| (other - median).abs()).sum();
            1.253_314 * sum / self.count() as f64
        };
        (value - median).abs() > 3.5 * scale
    }
}

/// The median of numbers, as of [`Samples`], without sorting them all; their order is lost. Absent if there are none.
pub fn median_in_place(values: &mut [f64]) -> Option<f64> {
    let place = values.len().checked_sub(1)? / 2;
    let is_odd = values.len() % 2 == 1;
    let (_, &mut below, greater) = values.select_nth_unstable_by(place, f64::total_cmp);
    let above = if is_odd { below } else { greater.iter().copied().min_by(f64::total_cmp)? };
    Some((below + 0.5 * (above - below)).clamp(below, above))
}

/// Type-7 quantile of numbers in ascending order, of which there is at least one.
pub(crate) fn quantile_of_ascending(ascending: &[f64], p: f64) -> f64 {
    let (place, share) = place_of_quantile(ascending.len(), p);
    let above = (place + 1).min(ascending.len() - 1);
    between(ascending[place], ascending[above], share)
}

/// The two values between which the type-7 quantile of `count` values lies, and its share of the way from the lower one; without
/// sorting them all. `least` has the least of the values, in any order, up to the quantile and the next one at least. Returned
/// are those as well, in which all lower quantiles are found.
pub(crate) fn quantile_in_place<T: Copy + Ord>(
    least: &mut [T],
    count: usize,
    p: f64,
) -> ((T, T, f64), &mut [T]) {
    let (place, share) = place_of_quantile(count, p);
    let (_, &mut below, greater) = least.select_nth_unstable(place);
    if let Some(next) = (0..greater.len()).min_by_key(|next| greater[*next]) {
        greater.swap(0, next);
    }
    let above = greater.first().copied().unwrap_or(below);
    let known = least.len().min(place + 2);
    ((below, above, share), &mut least[..known])
}

/// Place of the value below the type-7 quantile of `count` values in ascending order, and the share of the way to the next.
fn place_of_quantile(count: usize, p: f64) -> (usize, f64) {
    let last = count - 1;
    let position = p.clamp(0.0, 1.0) * last as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to the last index")]
    let place = (position.floor() as usize).min(last);
    (place, position - place as f64)
}

/// The value at a share of the way between two.
pub(crate) fn between(below: f64, above: f64, share: f64) -> f64 {
    // As a weighted sum this could leave the two values by a rounding error.
    (below + share * (above - below)).clamp(below, above)
}

/// Why these are not valid samples.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SamplesError {
    /// There are none.
    #[error("failed to use the samples: there are none")]
    Empty,
    /// One is infinite or NaN.
    #[error("failed to use the samples: number {place} is {value}")]
    NotFinite {
        /// Its place.
        place: usize,
        /// Its value.
        value: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples(values: &[f64]) -> Samples {
        Samples::new(values).unwrap()
    }

    #[test]
    fn the_median_without_sorting_is_the_same() {
        let mut random = crate::SplitMix64::new(7);
        for count in 1..60 {
            let mut values: Vec<f64> = (0..count).map(|_| (random.unit() * 20.0).round() / 3.0).collect();
            let sorted = samples(&values).median();
            assert_eq!(median_in_place(&mut values).map(f64::to_bits), Some(sorted.to_bits()), "{count}");
        }
        assert_eq!(median_in_place(&mut []), None);
    }

    #[test]
    fn quantiles_of_type_7() {
        let four = samples(&[4.0, 1.0, 3.0, 2.0]);
        let check = |p, wanted: f64| assert!((four.quantile(p) - wanted).abs() < 1e-12, "{p}");
        check(0.0, 1.0);
        check(0.25, 1.75);
        check(0.5, 2.5);
        check(0.9, 3.7);
        check(1.0, 4.0);
        check(2.0, 4.0);
        assert!((samples(&[7.0]).quantile(0.99) - 7.0).abs() < 1e-12);
    }

    #[test]
    fn spread() {
        let nine = samples(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert!((nine.mean() - 5.0).abs() < 1e-12);
        assert!((nine.deviation().unwrap() - (32.0_f64 / 7.0).sqrt()).abs() < 1e-12);
        assert!((nine.median_absolute_deviation() - 0.5).abs() < 1e-12);
        assert_eq!(samples(&[1.0]).deviation(), None);
    }

    #[test]
    fn outlying_values_are_told() {
        let trials = samples(&[100.0, 101.0, 99.0, 100.5, 80.0]);
        assert!(trials.is_outlying(80.0) && !trials.is_outlying(99.0));
        let equal = samples(&[5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 6.0]);
        assert!(equal.is_outlying(6.0) && !equal.is_outlying(5.0));
        assert!(!samples(&[3.0, 3.0]).is_outlying(3.0));
    }

    #[test]
    fn what_are_no_samples() {
        assert_eq!(Samples::new(&[]), Err(SamplesError::Empty));
        let error = Samples::new(&[1.0, f64::NAN]).unwrap_err();
        assert_eq!(error.to_string(), "failed to use the samples: number 1 is NaN");
    }

    proptest! {
        #[test]
        fn quantiles_rise_and_stay_inside(
            values in proptest::collection::vec(-1e12..1e12_f64, 1..40),
            mut shares in proptest::collection::vec(0.0..=1.0_f64, 2),
        ) {
            let samples = samples(&values);
            shares.sort_unstable_by(f64::total_cmp);
            let (low, high) = (samples.quantile(shares[0]), samples.quantile(shares[1]));
            prop_assert!(samples.least() <= low && low <= high && high <= samples.greatest());
        }
    }
}
