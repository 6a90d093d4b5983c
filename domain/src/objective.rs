//! What is optimized, and which of several schedules is the best by it.

use std::fmt;

/// What is optimized.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Objective {
    /// Most frames per second.
    Throughput,
    /// Most frames per second within a limit.
    ThroughputWithin(Limit),
    /// Least energy per frame.
    Energy,
    /// Least energy per frame at this many frames per second or more.
    EnergyAtLeast {
        /// Frames per second.
        min_fps: f64,
    },
    /// Least latency at the rate of the stream.
    Latency,
    /// The Pareto front, without a best point.
    Pareto,
}

/// A limit of power or energy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// Mean power in W.
    Watts(f64),
    /// Energy per frame in mJ.
    MillijoulesPerFrame(f64),
}

/// Figures of a schedule by which it is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Frames per second.
    pub fps: f64,
    /// Energy per frame in mJ; absent if it is not known.
    pub mj_per_frame: Option<f64>,
}

impl Figures {
    /// Mean power in W.
    pub fn watts(self) -> Option<f64> {
        Some(self.mj_per_frame? * self.fps / 1000.0)
    }
}

/// The best schedule, by its place in the list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice {
    /// It meets the requirement.
    Met(usize),
    /// None meets the requirement.
    Missed {
        /// The one that comes closest.
        closest: usize,
        /// How far its figure is from the requirement, as a share of the requirement.
        by: f64,
    },
    /// There is none to choose from, or none was asked for ([`Objective::Pareto`]).
    None,
}

impl Objective {
    /// Whether it cannot be judged without a power meter.
    pub fn needs_energy(self) -> bool {
        !matches!(self, Self::Throughput | Self::Latency)
    }

    /// The best of these schedules; on a tie the first. A schedule without energy is not considered if energy is needed.
    pub fn choose(self, schedules: &[Figures]) -> Choice {
        let known = || {
            let needed = self.needs_energy();
            schedules.iter().enumerate().filter(move |(_, of)| !needed || of.mj_per_frame.is_some())
        };
        let energy = |of: &Figures| of.mj_per_frame.unwrap_or(f64::INFINITY);
        let watts = |of: &Figures| of.watts().unwrap_or(f64::INFINITY);
        // Each list is reversed, because `max_by` takes the last of equals.
        let most_fps = |of: &dyn Fn(&Figures) -> bool| {
            let fitting = known().filter(|(_, figures)| of(figures)).collect::<Vec<_>>().into_iter().rev();
            fitting.max_by(|a, b| a.1.fps.total_cmp(&b.1.fps)).map(|(at, _)| at)
        };
        let least_energy = |of: &dyn Fn(&Figures) -> bool| {
            let fitting = known().filter(|(_, figures)| of(figures));
            fitting.min_by(|a, b| energy(a.1).total_cmp(&energy(b.1))).map(|(at, _)| at)
        };
        let met = match self {
            Self::Throughput => most_fps(&|_| true),
            Self::ThroughputWithin(Limit::Watts(most)) => most_fps(&|of| watts(of) <= most),
            Self::ThroughputWithin(Limit::MillijoulesPerFrame(most)) => most_fps(&|of| energy(of) <= most),
            Self::Energy => least_energy(&|_| true),
            Self::EnergyAtLeast { min_fps } => least_energy(&|of| of.fps >= min_fps),
            Self::Latency | Self::Pareto => None,
        };
        if let Some(met) = met {
            return Choice::Met(met);
        }
        let off = |of: &Figures| match self {
            Self::EnergyAtLeast { min_fps } => Some(1.0 - of.fps / min_fps),
            Self::ThroughputWithin(Limit::Watts(most)) => Some(watts(of) / most - 1.0),
            Self::ThroughputWithin(Limit::MillijoulesPerFrame(most)) => Some(energy(of) / most - 1.0),
            Self::Throughput | Self::Energy | Self::Latency | Self::Pareto => None,
        };
        let missed = known().filter_map(|(at, of)| Some((at, off(of)?)));
        match missed.min_by(|a, b| a.1.total_cmp(&b.1)) {
            Some((closest, by)) => Choice::Missed { closest, by },
            None => Choice::None,
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Throughput => out.write_str("most frames/s"),
            Self::ThroughputWithin(Limit::Watts(most)) => write!(out, "most frames/s with at most {most} W"),
            Self::ThroughputWithin(Limit::MillijoulesPerFrame(most)) => {
                write!(out, "most frames/s with at most {most} mJ/frame")
            }
            Self::Energy => out.write_str("least energy per frame"),
            Self::EnergyAtLeast { min_fps } => {
                write!(out, "least energy per frame with at least {min_fps} frames/s")
            }
            Self::Latency => out.write_str("least latency at the rate of the stream"),
            Self::Pareto => out.write_str("the Pareto front"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_objective_chooses_its_best() {
        let of = |fps: f64, mj: f64| Figures { fps, mj_per_frame: Some(mj) };
        // 50 fps with 5 W, 30 fps with 2.4 W, 20 fps with 1.2 W, and one without energy.
        let all =
            [of(50.0, 100.0), of(30.0, 80.0), of(20.0, 60.0), Figures { fps: 60.0, mj_per_frame: None }];
        let watts = |most| Objective::ThroughputWithin(Limit::Watts(most));
        let energy = |most| Objective::ThroughputWithin(Limit::MillijoulesPerFrame(most));
        let check =
            |objective: Objective, wanted: Choice| assert_eq!(objective.choose(&all), wanted, "{objective}");
        check(Objective::Throughput, Choice::Met(3));
        check(Objective::Energy, Choice::Met(2));
        check(Objective::EnergyAtLeast { min_fps: 25.0 }, Choice::Met(1));
        check(Objective::EnergyAtLeast { min_fps: 100.0 }, Choice::Missed { closest: 0, by: 0.5 });
        check(watts(3.0), Choice::Met(1));
        check(watts(0.6), Choice::Missed { closest: 2, by: 1.0 });
        check(energy(90.0), Choice::Met(1));
        check(energy(30.0), Choice::Missed { closest: 2, by: 1.0 });
        check(Objective::Pareto, Choice::None);
        check(Objective::Latency, Choice::None);
        assert_eq!(Objective::Energy.choose(&all[3..]), Choice::None);
        assert_eq!(Objective::Throughput.choose(&[of(5.0, 1.0), of(5.0, 2.0)]), Choice::Met(0));
    }
}
