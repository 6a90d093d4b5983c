//! How often intervals hold the truth, simulated with known truth and fixed seeds. The figures stand in the
//! documentation of `statistics` and `comparison`; `--nocapture` prints them.
#![cfg(test)]

use domain::comparison::compare;
use domain::statistics::{Bootstrap, bootstrap_interval, median_interval};
use domain::{Confidence, Observation, Samples, SplitMix64};

/// Noise of a trial, in per cent of its figure.
#[derive(Debug, Clone, Copy)]
enum Noise {
    /// Normal.
    Normal,
    /// Exponential: a trial is only ever slower.
    Exponential,
    /// Log-normal with σ = 0.5, to the slow side.
    LogNormal,
    /// Normal, and one trial in ten much slower.
    Bursts,
}

const NOISES: [Noise; 4] = [Noise::Normal, Noise::Exponential, Noise::LogNormal, Noise::Bursts];

impl Noise {
    fn draw(self, numbers: &mut SplitMix64) -> f64 {
        // Never 0, where the logarithm is infinite.
        let mut uniform = || numbers.unit().max(1e-12);
        match self {
            Self::Normal => normal(uniform(), uniform()),
            Self::Exponential => uniform().ln(),
            Self::LogNormal => -2.0 * (0.5 * normal(uniform(), uniform())).exp(),
            Self::Bursts => {
                let burst = if uniform() < 0.1 { 5.0 * uniform().ln() } else { 0.0 };
                normal(uniform(), uniform()) + burst
            }
        }
    }

    /// A sequence of its own for each noise and number of trials.
    fn seed(self, count: u32) -> u64 {
        10_000 * (1 + self as u64) + u64::from(count)
    }

    /// Median of the noise. For bursts it is the root of 0.9 Φ(x) + 0.1 (Φ(x) + exp(x/5 + 1/50) Φ(−x − 1/5)) = 1/2,
    /// the distribution of a normal number less, one time in ten, an exponential one of mean 5.
    fn median(self) -> f64 {
        match self {
            Self::Normal => 0.0,
            Self::Exponential => 0.5_f64.ln(),
            Self::LogNormal => -2.0,
            Self::Bursts => -0.116_901_938,
        }
    }
}

/// A normal number from two uniform ones (Box & Muller 1958).
fn normal(one: f64, other: f64) -> f64 {
    (-2.0 * one.ln()).sqrt() * (std::f64::consts::TAU * other).cos()
}

/// A figure around 100 frames per second.
fn figure(noise: f64) -> f64 {
    100.0 + noise
}

fn share(hits: usize, of: usize) -> f64 {
    hits as f64 / of as f64
}

fn draw(noise: Noise, count: u32, numbers: &mut SplitMix64) -> Samples {
    let values: Vec<f64> = (0..count).map(|_| figure(noise.draw(numbers))).collect();
    Samples::new(&values).unwrap()
}

#[test]
fn intervals_of_the_median_hold_it_as_often_as_they_say() {
    const CAMPAIGNS: usize = 4000;
    for noise in NOISES {
        for count in [2_u32, 3, 4, 5, 6, 8, 10, 20, 30] {
            let mut numbers = SplitMix64::new(noise.seed(count));
            let covered = (0..CAMPAIGNS)
                .filter(|_| {
                    let samples = draw(noise, count, &mut numbers);
                    median_interval(&samples, Confidence::P95).holds(figure(noise.median()))
                })
                .count();
            let covered = share(covered, CAMPAIGNS);
            println!("{noise:?} {count} trials: {:.1} %", 100.0 * covered);
            assert!((0.93..=0.97).contains(&covered), "{noise:?}, {count} trials: {covered}");
        }
    }
}

#[test]
fn the_bootstrap_of_the_median_is_nearly_as_good() {
    const CAMPAIGNS: usize = 300;
    for kind in [Bootstrap::Percentile, Bootstrap::Bca] {
        for noise in [Noise::Normal, Noise::Exponential] {
            for count in [5, 10, 20] {
                let mut numbers = SplitMix64::new(100 + noise.seed(count));
                let covered = (0..CAMPAIGNS)
                    .filter(|_| {
                        let samples = draw(noise, count, &mut numbers);
                        let seed = numbers.next_u64();
                        let median = |ascending: &[f64]| {
                            0.5 * (ascending[(ascending.len() - 1) / 2] + ascending[ascending.len() / 2])
                        };
                        bootstrap_interval(&samples, median, kind, Confidence::P95, 300, seed)
                            .holds(figure(noise.median()))
                    })
                    .count();
                let covered = share(covered, CAMPAIGNS);
                println!("{kind:?} {noise:?} {count} trials: {:.1} %", 100.0 * covered);
                assert!((0.88..=0.98).contains(&covered), "{kind:?}, {noise:?}, {count} trials: {covered}");
            }
        }
    }
}

#[test]
fn ratios_hold_the_truth_under_noise_and_drift() {
    const CAMPAIGNS: usize = 2000;
    for noise in NOISES {
        for count in [3, 5, 6, 10, 20] {
            let mut numbers = SplitMix64::new(1000 + noise.seed(count));
            let covered = (0..CAMPAIGNS)
                .filter(|_| {
                    let (mut left, mut right, mut drift) = (vec![], vec![], 1.0);
                    for round in 0..count {
                        drift *= 1.0 + 0.03 * (numbers.unit() - 0.5);
                        let mut trial = |speed: f64| speed * drift * figure(noise.draw(&mut numbers));
                        left.push(Observation { round, value: trial(1.7) });
                        right.push(Observation { round, value: trial(1.0) });
                    }
                    compare(&left, &right, Confidence::P95).unwrap().ratio.holds(1.7)
                })
                .count();
            let covered = share(covered, CAMPAIGNS);
            println!("ratio, {noise:?} {count} rounds: {:.1} %", 100.0 * covered);
            assert!((0.93..=0.975).contains(&covered), "{noise:?}, {count} rounds: {covered}");
        }
    }
}

#[test]
fn pairing_is_narrower_than_not_pairing_where_rounds_differ() {
    let mut numbers = SplitMix64::new(5);
    let (mut left, mut right, mut values) = (vec![], vec![], vec![]);
    for round in 0..10 {
        let round_speed = 1.0 + 0.2 * numbers.unit();
        let mut trial = || round_speed * figure(Noise::Normal.draw(&mut numbers));
        let (one, other) = (trial(), trial());
        left.push(Observation { round, value: one });
        right.push(Observation { round, value: other });
        values.push(one);
    }
    let paired = compare(&left, &right, Confidence::P95).unwrap().ratio.precision().unwrap();
    let alone = median_interval(&Samples::new(&values).unwrap(), Confidence::P95).precision().unwrap();
    assert!(3.0 * paired < alone, "{paired} {alone}");
}
