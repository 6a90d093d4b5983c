//! What is measured of a schedule: unit, direction, and how trials become one figure.

use crate::comparison::Observation;
use crate::samples::Samples;
use crate::statistics::{Confidence, Interval, median_interval};

/// A quantity measured in each trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Frames completed per second.
    Throughput,
    /// Median latency of the frames: to completion from entering the first stage or, in a stream, from the scheduled arrival.
    LatencyP50,
    /// 90th percentile of the same latency.
    LatencyP90,
    /// 99th percentile of the same latency.
    LatencyP99,
    /// Highest rate of a stream that a schedule sustains.
    Sustained,
    /// Share of the frames of a stream that are not dropped, in percent.
    Delivered,
    /// Share of the frames of a stream with a result before its deadline, in percent.
    OnTime,
    /// Mean age of the newest result of a stream.
    Age,
    /// Energy per frame of everything that the total rail supplies, idle power included.
    EnergyPerFrame,
    /// Mean power of the total rail over the window.
    Power,
}

/// Which change of a metric is an improvement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Such as throughput.
    MoreIsBetter,
    /// Such as latency and energy.
    LessIsBetter,
}

impl Direction {
    /// Whether a change by the factor `ratio` is an improvement.
    pub fn is_improvement(self, ratio: f64) -> bool {
        (ratio > 1.0) == (self == Self::MoreIsBetter)
    }
}

impl Metric {
    /// The metrics with a threshold in the regression gate, in the order in which they are shown.
    pub const GATED: [Self; 9] = [
        Self::Throughput,
        Self::Sustained,
        Self::LatencyP50,
        Self::LatencyP90,
        Self::LatencyP99,
        Self::Delivered,
        Self::OnTime,
        Self::Age,
        Self::EnergyPerFrame,
    ];

    /// The metrics that histories follow.
    pub const FOLLOWED: [Self; 8] = [
        Self::Throughput,
        Self::Sustained,
        Self::LatencyP50,
        Self::LatencyP99,
        Self::Delivered,
        Self::OnTime,
        Self::Age,
        Self::EnergyPerFrame,
    ];

    /// The name in `ci/thresholds.yaml` and in the results of `check`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::LatencyP50 => "latency_p50",
            Self::LatencyP90 => "latency_p90",
            Self::LatencyP99 => "latency_p99",
            Self::Sustained => "sustained",
            Self::Delivered => "delivered",
            Self::OnTime => "on_time",
            Self::Age => "age",
            Self::EnergyPerFrame => "joules_per_frame",
            Self::Power => "power",
        }
    }

    /// The name in histories.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::LatencyP50 => "latency",
            Self::EnergyPerFrame => "energy",
            Self::Throughput
            | Self::LatencyP90
            | Self::LatencyP99
            | Self::Sustained
            | Self::Delivered
            | Self::OnTime
            | Self::Age
            | Self::Power => self.name(),
        }
    }

    /// The followed metric with this short name.
    pub fn from_short_name(name: &str) -> Option<Self> {
        Self::FOLLOWED.into_iter().find(|metric| metric.short_name() == name)
    }

    /// The unit of every figure of this metric, except in baselines and results of `check`, where energy is in J.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Throughput | Self::Sustained => "frames/s",
            Self::LatencyP50 | Self::LatencyP90 | Self::LatencyP99 | Self::Age => "ms",
            Self::Delivered | Self::OnTime => "%",
            Self::EnergyPerFrame => "mJ/frame",
            Self::Power => "mW",
        }
    }

    /// Which change is an improvement.
    pub fn direction(self) -> Direction {
        match self {
            Self::Throughput | Self::Sustained | Self::Delivered | Self::OnTime => Direction::MoreIsBetter,
            Self::LatencyP50
            | Self::LatencyP90
            | Self::LatencyP99
            | Self::Age
            | Self::EnergyPerFrame
            | Self::Power => Direction::LessIsBetter,
        }
    }

    /// The figure of a schedule: the median over its trials, with its 95 % interval. Absent without trials. All metrics
    /// are aggregated this way; only the latency of a report is a quantile over the frames of all trials together.
    pub fn over_trials(self, trials: &[Observation]) -> Option<Interval> {
        let values: Vec<f64> = trials.iter().map(|trial| trial.value).collect();
        let samples = Samples::new(&values).ok()?;
        Some(median_interval(&samples, Confidence::P95))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_short_names_are_found_again() {
        let names = Metric::GATED.map(Metric::name);
        let wanted = [
            "throughput",
            "sustained",
            "latency_p50",
            "latency_p90",
            "latency_p99",
            "delivered",
            "on_time",
            "age",
            "joules_per_frame",
        ];
        assert_eq!(names, wanted);
        for metric in Metric::FOLLOWED {
            assert_eq!(Metric::from_short_name(metric.short_name()), Some(metric));
        }
        assert_eq!(Metric::from_short_name("power"), None);
    }

    #[test]
    fn faster_and_cheaper_are_improvements() {
        assert!(Metric::Throughput.direction().is_improvement(1.1));
        assert!(Metric::EnergyPerFrame.direction().is_improvement(0.9));
        assert!(!Metric::LatencyP99.direction().is_improvement(1.1));
    }

    #[test]
    fn the_figure_is_the_median_over_the_trials() {
        let trials = [30.0, 10.0, 20.0].map(|value| Observation { round: 0, value });
        let interval = Metric::Throughput.over_trials(&trials).unwrap();
        assert!((interval.point - 20.0).abs() < 1e-12 && interval.lo.is_some());
        assert_eq!(Metric::Power.over_trials(&[]), None);
    }
}
