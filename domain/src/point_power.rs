//! Power at any operating point, from windows at a few.
//!
//! # Model
//! `P(θ) = P_idle(θ) + Σ busy_p · D_p(f_p)`, where `f_p` is the clock of processor `p` at the point θ. The dynamic power of
//! CMOS circuits is `C · V² · f`, and the voltage rises about linearly with the clock (Weiser et al. 1994, "Scheduling for
//! reduced CPU energy"; Rabaey et al. 2003, "Digital integrated circuits", chapter 5). With `V = v0 + v1 · f` this is
//! `a·f + b·f² + c·f³` without negative coefficients. Idle power has a constant part, and one for each processor, which
//! rises with its clock and disappears if it is offline.
//!
//! All coefficients come from one non-negative least-squares fit over the windows of all points ([`PowerModel::fit`]), so
//! windows at one point also tell about the others. A processor that was measured at one frequency only has one
//! coefficient, and the model is that of [`crate::power_model`].
//!
//! Each governor and each memory clock has a fit of its own, to the windows at points with the same ones. If they do not
//! determine it, the fit is that of the windows at all points.

use crate::operating_point::{OperatingPoint, PerSetting};
use crate::power_model::{PowerModel, PowerModelError, PowerWindow, Predicted};
use crate::processor::ProcessorName;
use crate::units::Milliwatts;
use std::collections::BTreeSet;

/// Power of one window at an operating point.
#[derive(Debug, Clone, PartialEq)]
pub struct PointWindow {
    /// The point.
    pub point: OperatingPoint,
    /// Schedule, busy shares and power.
    pub window: PowerWindow,
}

/// The exponents of the clock in a processor's part of the power.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Terms {
    /// Of what it adds to idle power.
    idle: &'static [i32],
    /// Of what it adds while it works.
    dynamic: &'static [i32],
}

/// The most detailed terms that this many different frequencies can determine, then simpler ones.
const LADDER: [[Terms; 3]; 3] = [
    [terms(&[], &[0]), terms(&[2], &[1, 3]), terms(&[1, 3], &[1, 2, 3])],
    [terms(&[], &[0]), terms(&[2], &[1, 3]), terms(&[2], &[1, 3])],
    [terms(&[], &[0]), terms(&[], &[2]), terms(&[], &[2])],
];

const fn terms(idle: &'static [i32], dynamic: &'static [i32]) -> Terms {
    Terms { idle, dynamic }
}

/// A model of the power at all operating points of a board.
#[derive(Debug, Clone, PartialEq)]
pub struct PointPower(PerSetting<ClockPower>);

impl PointPower {
    /// Fits the model of these processors, in the order of the busy shares.
    ///
    /// # Errors
    /// The same as of [`PowerModel::fit`].
    pub fn fit(processors: &[ProcessorName], windows: &[PointWindow]) -> Result<Self, PowerModelError> {
        let fit = |windows: &[PointWindow]| ClockPower::fit(processors, windows);
        PerSetting::fit(windows, |window| &window.point, fit).map(Self)
    }

    /// The model of one point, for these processors in this order. A merged processor adds what its parts add. It has no
    /// intervals.
    ///
    /// # Errors
    /// If one of the processors is unknown.
    pub fn at(&self, point: &OperatingPoint, names: &[ProcessorName]) -> Result<PowerModel, PowerModelError> {
        self.0.at(point).at(point, names)
    }

    /// Predicted power in mW of busy shares by processor.
    pub fn predict_power(&self, point: &OperatingPoint, busy: &[f64]) -> Predicted {
        self.0.at(point).predict_power(point, busy)
    }

    /// Predicted energy of a frame in mJ; see [`PowerModel::predict_energy`].
    pub fn predict_energy(
        &self,
        point: &OperatingPoint,
        busy: &[f64],
        fps: f64,
        rate_share: f64,
    ) -> Predicted {
        let own = self.0.at(point);
        own.model.predict_energy(&own.features(point, busy), fps, rate_share)
    }

    /// The fit that is used at a point, with its residual and its windows. Its processors are terms of the model.
    pub fn fit_at(&self, point: &OperatingPoint) -> &PowerModel {
        &self.0.at(point).model
    }
}

/// The power at operating points with the same governor and memory clock.
#[derive(Debug, Clone, PartialEq)]
struct ClockPower {
    model: PowerModel,
    processors: Vec<ProcessorName>,
    /// The highest frequency of each processor, in kHz; absent if it is not known at any point.
    highest_khz: Vec<Option<u64>>,
    terms: Vec<Terms>,
}

impl ClockPower {
    fn fit(processors: &[ProcessorName], windows: &[PointWindow]) -> Result<Self, PowerModelError> {
        let frequencies: Vec<BTreeSet<u64>> = processors
            .iter()
            .map(|name| {
                let khz = windows.iter().filter_map(|window| window.point.max_khz.get(name.as_str()));
                khz.copied().collect()
            })
            .collect();
        let highest_khz: Vec<Option<u64>> = frequencies.iter().map(|all| all.last().copied()).collect();
        let mut failed = None;
        for ladder in &LADDER {
            let of = |known: &BTreeSet<u64>| ladder[known.len().clamp(1, 3) - 1].clone();
            let terms: Vec<Terms> = frequencies.iter().map(of).collect();
            let features = |window: &PointWindow| PowerWindow {
                busy: features(processors, &highest_khz, &terms, &window.point, &window.window.busy),
                ..window.window.clone()
            };
            if let Some(window) = windows.iter().find(|window| window.window.busy.len() != processors.len()) {
                let found = window.window.busy.len();
                return Err(PowerModelError::Shares { found, expected: processors.len() });
            }
            let columns = terms.iter().map(|of| of.idle.len() + of.dynamic.len()).sum();
            match PowerModel::fit(columns, &windows.iter().map(features).collect::<Vec<_>>()) {
                Ok(model) => return Ok(Self { model, processors: processors.to_vec(), highest_khz, terms }),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or(PowerModelError::NotTold))
    }

    fn at(&self, point: &OperatingPoint, names: &[ProcessorName]) -> Result<PowerModel, PowerModelError> {
        let power = |busy: Option<&ProcessorName>| {
            let is_busy = |name: &ProcessorName| busy.is_some_and(|busy| busy.overlaps(name));
            let busy: Vec<f64> =
                self.processors.iter().map(|name| f64::from(u8::from(is_busy(name)))).collect();
            self.predict_power(point, &busy).point
        };
        let idle = power(None);
        let dynamic: Vec<Milliwatts> =
            names.iter().map(|name| Milliwatts((power(Some(name)) - idle).max(0.0))).collect();
        PowerModel::known(Milliwatts(idle), &dynamic)
    }

    fn predict_power(&self, point: &OperatingPoint, busy: &[f64]) -> Predicted {
        self.model.predict_power(&self.features(point, busy))
    }

    fn features(&self, point: &OperatingPoint, busy: &[f64]) -> Vec<f64> {
        features(&self.processors, &self.highest_khz, &self.terms, point, busy)
    }
}

/// What the coefficients are multiplied by.
fn features(
    processors: &[ProcessorName],
    highest_khz: &[Option<u64>],
    terms: &[Terms],
    point: &OperatingPoint,
    busy: &[f64],
) -> Vec<f64> {
    let mut row = Vec::new();
    for (((name, highest), terms), busy) in processors.iter().zip(highest_khz).zip(terms).zip(busy) {
        // A processor whose clock is known at other points is offline at this one.
        let ratio = match (highest, point.max_khz.get(name.as_str())) {
            (None, _) => 1.0,
            (Some(_), None) => 0.0,
            (Some(highest), Some(khz)) => *khz as f64 / *highest as f64,
        };
        row.extend(terms.idle.iter().map(|exponent| ratio.powi(*exponent)));
        row.extend(terms.dynamic.iter().map(|exponent| busy * ratio.powi(*exponent)));
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;
    use std::collections::BTreeMap;

    fn point(khz: [u64; 2]) -> OperatingPoint {
        let max_khz = ["p", "q"].map(str::to_owned).into_iter().zip(khz).collect::<BTreeMap<_, _>>();
        OperatingPoint { max_khz, ..OperatingPoint::default() }
    }

    /// True power: a voltage of 0.6 V to 1 V, leakage with it.
    fn truth(point: &OperatingPoint, busy: &[f64]) -> f64 {
        let part = |name: &str, watts: f64, busy: f64| {
            point.max_khz.get(name).map_or(0.0, |khz| {
                let ratio = *khz as f64 / 2_000_000.0;
                let volts = 0.6 + 0.4 * ratio;
                1000.0 * (0.15 * volts + watts * volts * volts * ratio * busy)
            })
        };
        1500.0 + part("p", 4.0, busy[0]) + part("q", 1.5, busy[1])
    }

    fn windows(points: &[[u64; 2]], noise: f64, seed: u64) -> Vec<PointWindow> {
        let mut random = SplitMix64::new(seed);
        let mut made = Vec::new();
        for (at, khz) in points.iter().enumerate() {
            let point = point(*khz);
            for (number, busy) in [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.6]].into_iter().enumerate() {
                let power = truth(&point, &busy) * (1.0 + noise * (2.0 * random.unit() - 1.0));
                made.push(PointWindow {
                    point: point.clone(),
                    window: PowerWindow {
                        schedule: (number > 0).then(|| u32::try_from(10 * at + number).unwrap()),
                        busy: busy.to_vec(),
                        power: Milliwatts(power),
                        uncertainty: Milliwatts(5.0),
                    },
                });
            }
        }
        made
    }

    fn names() -> [ProcessorName; 2] {
        ["p", "q"].map(ProcessorName::new)
    }

    #[test]
    fn other_points_are_predicted_from_the_corners_and_a_middle() {
        let corners =
            [[2_000_000, 2_000_000], [1_000_000, 1_000_000], [400_000, 400_000], [2_000_000, 400_000]];
        let model = PointPower::fit(&names(), &windows(&corners, 0.01, 1)).unwrap();
        for p in (400_000..=2_000_000).step_by(200_000) {
            for q in (400_000..=2_000_000).step_by(400_000) {
                let point = point([p, q]);
                for busy in [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.3, 0.9]] {
                    let (found, truth) = (model.predict_power(&point, &busy), truth(&point, &busy));
                    assert!((found.point / truth - 1.0).abs() < 0.05, "{point} {busy:?}: {found:?} {truth}");
                }
            }
        }
        let merged = model.at(&point([1_000_000, 400_000]), &["p+q".into(), "p".into(), "q".into()]).unwrap();
        let parts = merged.dynamic_mw(1) + merged.dynamic_mw(2);
        assert!((merged.dynamic_mw(0) / parts - 1.0).abs() < 1e-9, "{merged:?}");
        let one = model.at(&point([1_000_000, 400_000]), &names()[1..]).unwrap();
        let idle = truth(&point([1_000_000, 400_000]), &[0.0, 0.0]);
        let busy = truth(&point([1_000_000, 400_000]), &[0.0, 1.0]);
        assert!((one.idle_mw() / idle - 1.0).abs() < 0.04, "{one:?}");
        assert!(((one.idle_mw() + one.dynamic_mw(0)) / busy - 1.0).abs() < 0.04, "{one:?}");
    }

    #[test]
    fn a_memory_clock_has_a_power_of_its_own() {
        let corners =
            [[2_000_000, 2_000_000], [1_000_000, 1_000_000], [400_000, 400_000], [2_000_000, 400_000]];
        let at = |memory_khz: u64, more_mw: f64| {
            let mut windows = windows(&corners, 0.0, 3);
            for window in &mut windows {
                window.point.memory_khz = Some(memory_khz);
                window.window.power.0 += more_mw;
            }
            windows
        };
        let model = PointPower::fit(&names(), &[at(1_866_000, 900.0), at(408_000, 0.0)].concat()).unwrap();
        for (memory_khz, more_mw) in [(1_866_000, 900.0), (408_000, 0.0)] {
            let point = OperatingPoint { memory_khz: Some(memory_khz), ..point([1_000_000, 1_000_000]) };
            let (found, truth) =
                (model.predict_power(&point, &[1.0, 0.5]).point, more_mw + truth(&point, &[1.0, 0.5]));
            assert!((found / truth - 1.0).abs() < 0.05, "{point}: {found} {truth}");
            assert_eq!(model.fit_at(&point).windows(), 16);
        }
        // Without windows of its own, a memory clock has the fit of all.
        let unknown = OperatingPoint { memory_khz: Some(800_000), ..point([1_000_000, 1_000_000]) };
        assert_eq!(model.fit_at(&unknown).windows(), 32);
    }

    #[test]
    fn one_point_has_the_model_of_one_point() {
        let windows = windows(&[[2_000_000, 2_000_000]], 0.01, 7);
        let plain: Vec<PowerWindow> = windows.iter().map(|window| window.window.clone()).collect();
        let (model, expected) =
            (PointPower::fit(&names(), &windows).unwrap(), PowerModel::fit(2, &plain).unwrap());
        let found = model.at(&windows[0].point, &names()).unwrap();
        assert!((found.idle_mw() - expected.idle_mw()).abs() < 1e-6);
        assert!((found.dynamic_mw(1) - expected.dynamic_mw(1)).abs() < 1e-6);
        assert!(PointPower::fit(&names(), &[]).is_err());
    }
}
