//! Power from the busy shares of processors, fitted to trials.
//!
//! # Model
//! `P = P_idle + Σ busy_p · D_p` for one operating point: `busy_p` is the share of the window in which the stage on processor
//! `p` worked, `D_p` the power that it adds while it works. Linear models of utilization are the usual ones for boards with
//! one meter (Economou et al. 2006, "Full-system power analysis and modeling for server environments"; Bertran et al. 2010,
//! "Decomposable and responsive power models for multicore processors"). A meter that refreshes every 0.4 s cannot tell
//! units apart, so energy is attributed to processors and stages, not to kernels.
//!
//! # Fit
//! Non-negative least squares by the active-set method (Lawson & Hanson 1974, "Solving least squares problems", chapter 23),
//! over the windows of the trials and of the idle board.
//!
//! # Uncertainty
//! `residual` is the standard deviation of the windows around the model. `left_out` is the same for schedules whose own
//! trials were left out of the fit; it shows how well the model predicts schedules that were not measured. The interval of a
//! predicted power is the prediction interval of linear regression (Draper & Smith 1998, "Applied regression analysis",
//! chapter 5) with the greater of the two, widened by the uncertainty of the meter, which all windows have in common.

use crate::distributions::student_quantile;
use crate::units::{Millijoules, Milliwatts};

/// A pivot below this share of the diagonal is rounding: the columns are collinear.
const RANK: f64 = 1e-9;

/// Power of one window.
#[derive(Debug, Clone, PartialEq)]
pub struct PowerWindow {
    /// Number of the schedule; `None` for the idle board.
    pub schedule: Option<u32>,
    /// Share of the window in which each processor worked, by processor.
    pub busy: Vec<f64>,
    /// Mean power.
    pub power: Milliwatts,
    /// With a probability of 95 % the power at the sensor is no further off than this.
    pub uncertainty: Milliwatts,
}

/// A fitted model.
#[derive(Debug, Clone, PartialEq)]
pub struct PowerModel {
    /// Idle power, then the dynamic power of each processor, in mW. None is negative.
    coefficients: Vec<f64>,
    /// Inverse of the normal matrix; 0 in the rows of coefficients that are 0.
    inverse: Vec<Vec<f64>>,
    residual_mw: f64,
    left_out_mw: Option<f64>,
    left_out_share: Option<f64>,
    meter_mw: f64,
    windows: usize,
    freedom: usize,
}

/// A predicted figure: with a probability of 95 %, a measurement is no further away than `half_width`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Predicted {
    /// The figure.
    pub point: f64,
    /// In the unit of the figure.
    pub half_width: f64,
}

impl PowerModel {
    /// A model with known coefficients in mW, without uncertainty.
    ///
    /// # Errors
    /// If a coefficient is negative or not a number.
    pub fn known(idle: Milliwatts, dynamic: &[Milliwatts]) -> Result<Self, PowerModelError> {
        let coefficients: Vec<f64> =
            std::iter::once(idle).chain(dynamic.iter().copied()).map(|power| power.0).collect();
        if let Some(value) = coefficients.iter().find(|value| !value.is_finite() || **value < 0.0) {
            return Err(PowerModelError::Value { value: *value });
        }
        let count = coefficients.len();
        Ok(Self {
            coefficients,
            inverse: vec![vec![0.0; count]; count],
            residual_mw: 0.0,
            left_out_mw: None,
            left_out_share: None,
            meter_mw: 0.0,
            windows: 0,
            freedom: 1,
        })
    }

    /// Fits the model of this many processors to windows.
    ///
    /// # Errors
    /// If there are too few windows, or they do not tell the processors apart.
    pub fn fit(processors: usize, windows: &[PowerWindow]) -> Result<Self, PowerModelError> {
        let mut model = Self::fit_once(processors, windows)?;
        let mut schedules: Vec<u32> = windows.iter().filter_map(|window| window.schedule).collect();
        schedules.sort_unstable();
        schedules.dedup();
        let (mut squares, mut shares, mut count) = (0.0, 0.0, 0);
        for schedule in schedules {
            let is_own = |window: &&PowerWindow| window.schedule == Some(schedule);
            let others: Vec<PowerWindow> = windows.iter().filter(|window| !is_own(window)).cloned().collect();
            // The only schedule that uses a processor cannot be left out.
            let Ok(without) = Self::fit_once(processors, &others) else { continue };
            for window in windows.iter().filter(is_own) {
                let error = without.power(&window.busy) - window.power.0;
                squares += error * error;
                shares += (error / window.power.0).powi(2);
                count += 1;
            }
        }
        if count > 0 {
            model.left_out_mw = Some((squares / f64::from(count)).sqrt());
            model.left_out_share = Some((shares / f64::from(count)).sqrt());
        }
        Ok(model)
    }

    fn fit_once(processors: usize, windows: &[PowerWindow]) -> Result<Self, PowerModelError> {
        let count = processors + 1;
        for window in windows {
            let values = || window.busy.iter().chain([&window.power.0, &window.uncertainty.0]);
            if window.busy.len() != processors {
                return Err(PowerModelError::Shares { found: window.busy.len(), expected: processors });
            }
            if let Some(value) = values().find(|value| !value.is_finite()) {
                return Err(PowerModelError::Value { value: *value });
            }
        }
        if windows.len() < count {
            return Err(PowerModelError::TooFew { found: windows.len(), needed: count });
        }
        let row = |window: &PowerWindow| {
            std::iter::once(1.0).chain(window.busy.iter().copied()).collect::<Vec<f64>>()
        };
        let (mut normal, mut right) = (vec![vec![0.0; count]; count], vec![0.0; count]);
        for window in windows {
            let row = row(window);
            for (at, value) in row.iter().enumerate() {
                right[at] += value * window.power.0;
                for (other, with) in row.iter().enumerate() {
                    normal[at][other] += value * with;
                }
            }
        }
        let all: Vec<usize> = (0..count).collect();
        if inverse(&normal, &all).is_none() {
            return Err(PowerModelError::NotTold);
        }
        let (coefficients, used) = non_negative(&normal, &right);
        let freedom = windows.len().saturating_sub(used.len()).max(1);
        let squares: f64 =
            windows.iter().map(|window| (dot(&coefficients, &row(window)) - window.power.0).powi(2)).sum();
        let small = inverse(&normal, &used).ok_or(PowerModelError::NotTold)?;
        let mut whole = vec![vec![0.0; count]; count];
        for (row, at) in used.iter().enumerate() {
            for (column, other) in used.iter().enumerate() {
                whole[*at][*other] = small[row][column];
            }
        }
        let meter: f64 = windows.iter().map(|window| window.uncertainty.0).sum();
        Ok(Self {
            coefficients,
            inverse: whole,
            residual_mw: (squares / freedom as f64).sqrt(),
            left_out_mw: None,
            left_out_share: None,
            meter_mw: meter / windows.len() as f64,
            windows: windows.len(),
            freedom,
        })
    }

    /// Number of processors.
    pub fn processors(&self) -> usize {
        self.coefficients.len() - 1
    }

    /// Power of the idle board, in mW.
    pub fn idle_mw(&self) -> f64 {
        self.coefficients[0]
    }

    /// Power that a processor adds while it works, in mW.
    ///
    /// # Panics
    /// If there is no such processor.
    pub fn dynamic_mw(&self, processor: usize) -> f64 {
        self.coefficients[processor + 1]
    }

    /// Standard deviation of the windows around the model, in mW.
    pub fn residual_mw(&self) -> f64 {
        self.residual_mw
    }

    /// Error of the power of schedules whose trials were left out of the fit, as a share: root mean square. Absent if no
    /// schedule can be left out.
    pub fn left_out_share(&self) -> Option<f64> {
        self.left_out_share
    }

    /// Windows it was fitted to.
    pub fn windows(&self) -> usize {
        self.windows
    }

    /// The same model with the idle power 0, so that energy is that of the stages alone.
    #[must_use]
    pub fn without_idle(&self) -> Self {
        let mut model = self.clone();
        model.coefficients[0] = 0.0;
        model
    }

    /// Predicted power in mW of busy shares.
    fn power(&self, busy: &[f64]) -> f64 {
        self.coefficients[0] + dot(&self.coefficients[1..], busy)
    }

    /// Predicted power in mW of busy shares by processor, with its interval.
    pub fn predict_power(&self, busy: &[f64]) -> Predicted {
        let row: Vec<f64> = std::iter::once(1.0).chain(busy.iter().copied()).collect();
        let leverage: f64 =
            row.iter().zip(&self.inverse).map(|(value, column)| value * dot(column, &row)).sum();
        let deviation = self.residual_mw.max(self.left_out_mw.unwrap_or(0.0));
        let quantile = student_quantile(0.975, self.freedom as f64);
        let of_fit = quantile * deviation * (1.0 + leverage.max(0.0)).sqrt();
        Predicted { point: self.power(busy), half_width: of_fit.hypot(self.meter_mw) }
    }

    /// Predicted energy of a frame in mJ, from the busy shares and the frames per second. `rate_share` is the half width of
    /// the predicted rate as a share of it.
    pub fn predict_energy(&self, busy: &[f64], frames_per_second: f64, rate_share: f64) -> Predicted {
        let power = self.predict_power(busy);
        let energy = Millijoules(power.point / frames_per_second).0;
        let share = (power.half_width / power.point).hypot(rate_share);
        Predicted { point: energy, half_width: energy * share }
    }
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

/// Minimises the squares with no coefficient below 0. Returns the coefficients, and which of them are not fixed at 0.
fn non_negative(normal: &[Vec<f64>], right: &[f64]) -> (Vec<f64>, Vec<usize>) {
    let count = right.len();
    let mut solution = vec![0.0; count];
    let mut used: Vec<usize> = Vec::new();
    let scale = right.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
    // Each step takes one coefficient in; the method ends after finitely many, and the bound is a safeguard.
    for _ in 0..4 * count {
        let gradient = |at: usize| right[at] - dot(&normal[at], &solution);
        let steepest = (0..count)
            .filter(|at| !used.contains(at))
            .map(|at| (gradient(at), at))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let Some((_, next)) = steepest.filter(|(slope, _)| *slope > 1e-12 * scale) else { break };
        used.push(next);
        loop {
            let Some(inverse) = inverse(normal, &used) else {
                used.retain(|at| *at != next);
                return (solution, used);
            };
            let wanted: Vec<f64> = used.iter().map(|at| right[*at]).collect();
            let free: Vec<f64> = inverse.iter().map(|row| dot(row, &wanted)).collect();
            // The longest step towards the free solution that leaves no coefficient below 0.
            let step = used
                .iter()
                .zip(&free)
                .filter(|(_, free)| **free <= 0.0)
                .map(|(at, free)| solution[*at] / (solution[*at] - free))
                .fold(1.0_f64, f64::min);
            for (at, free) in used.iter().zip(&free) {
                solution[*at] += step * (free - solution[*at]);
            }
            if step >= 1.0 && free.iter().all(|free| *free > 0.0) {
                break;
            }
            used.retain(|at| solution[*at] > 1e-12);
            (0..count).filter(|at| !used.contains(at)).for_each(|at| solution[at] = 0.0);
            if used.is_empty() {
                break;
            }
        }
    }
    (solution, used)
}

/// Inverse of the rows and columns `used`, by Gauss-Jordan elimination with pivots on the diagonal, which are positive for a
/// normal matrix of full rank. `None` if it is singular.
fn inverse(normal: &[Vec<f64>], used: &[usize]) -> Option<Vec<Vec<f64>>> {
    let count = used.len();
    let mut rows: Vec<Vec<f64>> = used
        .iter()
        .enumerate()
        .map(|(place, at)| {
            let unit = (0..count).map(|other| if other == place { 1.0 } else { 0.0 });
            used.iter().map(|other| normal[*at][*other]).chain(unit).collect()
        })
        .collect();
    for pivot in 0..count {
        let value = rows[pivot][pivot];
        let diagonal = normal[used[pivot]][used[pivot]];
        if value.is_nan() || value <= RANK * diagonal {
            return None;
        }
        rows[pivot].iter_mut().for_each(|cell| *cell /= value);
        let of_pivot = rows[pivot].clone();
        for (place, row) in rows.iter_mut().enumerate() {
            let factor = row[pivot];
            if place != pivot && factor != 0.0 {
                row.iter_mut().zip(&of_pivot).for_each(|(cell, own)| *cell -= factor * own);
            }
        }
    }
    Some(rows.into_iter().map(|row| row[count..].to_vec()).collect())
}

/// Why there is no power model.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum PowerModelError {
    /// There are more coefficients than windows.
    #[error("failed to fit the power model: {found} trials with energy, at least {needed} are needed")]
    TooFew {
        /// Windows with energy.
        found: usize,
        /// Fewest.
        needed: usize,
    },
    /// Some processor never works, or two always work together.
    #[error(
        "failed to fit the power model: the trials with energy do not tell the processors apart; measure each processor alone \
         too (`single: each`)"
    )]
    NotTold,
    /// A window has shares of too few or too many processors.
    #[error(
        "failed to fit the power model: a window has busy shares of {found} processors, expected {expected}"
    )]
    Shares {
        /// Shares given.
        found: usize,
        /// Processors.
        expected: usize,
    },
    /// A figure is infinite, negative or not a number.
    #[error("failed to fit the power model: invalid value {value}")]
    Value {
        /// The figure.
        value: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    fn window(schedule: Option<u32>, busy: &[f64], power: f64) -> PowerWindow {
        PowerWindow { schedule, busy: busy.to_vec(), power: Milliwatts(power), uncertainty: Milliwatts(0.0) }
    }

    /// Windows of an idle board, each processor alone, both, and a pipeline, with `noise` mW at most.
    fn windows(truth: [f64; 3], noise: f64, seed: u64) -> Vec<PowerWindow> {
        let mut random = SplitMix64::new(seed);
        let shares: [(Option<u32>, [f64; 2]); 5] = [
            (None, [0.0, 0.0]),
            (Some(0), [1.0, 0.0]),
            (Some(1), [0.0, 1.0]),
            (Some(2), [1.0, 1.0]),
            (Some(3), [0.9, 0.4]),
        ];
        let mut made = Vec::new();
        for (schedule, busy) in shares {
            for _ in 0..4 {
                let power = truth[0] + truth[1] * busy[0] + truth[2] * busy[1];
                made.push(window(schedule, &busy, power + noise * (2.0 * random.unit() - 1.0)));
            }
        }
        made
    }

    #[test]
    fn a_known_truth_is_found() {
        let model = PowerModel::fit(2, &windows([2000.0, 3500.0, 900.0], 0.0, 1)).unwrap();
        let found = [model.idle_mw(), model.dynamic_mw(0), model.dynamic_mw(1)];
        for (found, truth) in found.iter().zip([2000.0, 3500.0, 900.0]) {
            assert!((found - truth).abs() < 1e-6, "{found} {truth}");
        }
        assert!(model.residual_mw() < 1e-6 && model.left_out_share().unwrap() < 1e-9);
        let energy = model.predict_energy(&[0.5, 1.0], 20.0, 0.1);
        assert!(
            (energy.point - 4650.0 / 20.0).abs() < 1e-6
                && (energy.half_width / energy.point - 0.1).abs() < 1e-6
        );
    }

    #[test]
    fn no_coefficient_is_negative() {
        // The second processor seems to save power.
        let model = PowerModel::fit(2, &windows([2000.0, 3500.0, -300.0], 0.0, 1)).unwrap();
        assert!(model.dynamic_mw(1).abs() < 1e-9, "{model:?}");
        assert!(model.residual_mw() > 50.0 && model.left_out_share().unwrap() > 0.01, "{model:?}");
    }

    /// The least squares over the quadrant, by a fine grid, are no less than those found.
    #[test]
    fn the_fit_is_the_best_of_a_grid() {
        for seed in 0..20 {
            let mut random = SplitMix64::new(seed);
            let made: Vec<PowerWindow> =
                (0..6).map(|_| window(Some(0), &[random.unit()], 10.0 * random.unit() - 3.0)).collect();
            let squares = |idle: f64, dynamic: f64| -> f64 {
                made.iter().map(|window| (idle + dynamic * window.busy[0] - window.power.0).powi(2)).sum()
            };
            let model = PowerModel::fit_once(1, &made).unwrap();
            let found = squares(model.idle_mw(), model.dynamic_mw(0));
            for idle in 0..100 {
                for dynamic in 0..200 {
                    let other = squares(f64::from(idle) * 0.1, f64::from(dynamic) * 0.1);
                    assert!(found <= other + 1e-9, "seed {seed}: {found} above {other}");
                }
            }
        }
    }

    #[test]
    fn the_interval_holds_a_new_window_as_often_as_it_says() {
        let truth = [2000.0, 3500.0, 900.0];
        let mut covered = 0;
        for seed in 0..400 {
            let model = PowerModel::fit(2, &windows(truth, 100.0, seed)).unwrap();
            let mut random = SplitMix64::new(seed + 10_000);
            let new = truth[0] + 0.7 * truth[1] + 0.7 * truth[2] + 100.0 * (2.0 * random.unit() - 1.0);
            let predicted = model.predict_power(&[0.7, 0.7]);
            covered += u32::from((predicted.point - new).abs() <= predicted.half_width);
        }
        assert!((372..=400).contains(&covered), "{covered} of 400");
    }

    #[test]
    fn what_cannot_be_fitted() {
        let check = |windows: &[PowerWindow], wanted: &str| {
            let error = PowerModel::fit(2, windows).unwrap_err().to_string();
            assert!(error.starts_with("failed to fit the power model") && error.contains(wanted), "{error}");
        };
        check(&[], "0 trials with energy, at least 3 are needed");
        let together: Vec<PowerWindow> =
            [0.0, 0.3, 0.6, 1.0].iter().map(|busy| window(Some(0), &[*busy, *busy], 5.0 + busy)).collect();
        check(&together, "do not tell the processors apart");
        let never: Vec<PowerWindow> =
            [0.0, 0.3, 0.6, 1.0].iter().map(|busy| window(Some(0), &[*busy, 0.0], 5.0 + busy)).collect();
        check(&never, "do not tell the processors apart");
        check(&[window(None, &[0.0], 1.0)], "shares of 1 processors, expected 2");
        check(&[window(None, &[0.0, f64::NAN], 1.0)], "invalid value NaN");
        assert!(PowerModel::known(Milliwatts(-1.0), &[]).is_err());
    }
}
