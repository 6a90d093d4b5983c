//! Predicts the speed of a schedule from costs.

use crate::costs::Costs;
use crate::network::{Cut, Network};
use crate::processor::ProcessorName;
use crate::samples::median_in_place;
use crate::schedule::{Schedule, ScheduleKind, Stage};
use crate::units::FramesPerSecond;
use serde::{Deserialize, Serialize};

/// Number of frames for each replica of a stage that may be computed, or wait for an earlier one. The runner has places
/// for twice as many.
const AHEAD: f64 = 8.0;

/// The prediction of a schedule from costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Time of each replica of each stage for one frame, in ns, in stage order, with what it takes to receive its boundary.
    pub stage_ns: Vec<f64>,
    /// Steady rate: that of the slowest stage, where a stage has the rates of all its replicas. Infinite if that stage costs
    /// nothing.
    pub throughput: FramesPerSecond,
}

impl Prediction {
    /// Whether all of its numbers are finite.
    pub fn is_finite(&self) -> bool {
        self.throughput.0.is_finite() && self.stage_ns.iter().all(|ns| ns.is_finite())
    }

    /// Median rate, and median time of each stage, of predictions of one schedule; absent if there are none, or if they do not have
    /// the same stages.
    pub fn median(of: &[&Self]) -> Option<Self> {
        let middle = |mut values: Vec<f64>| median_in_place(&mut values);
        let stages = of.first()?.stage_ns.len();
        if of.iter().any(|prediction| prediction.stage_ns.len() != stages) {
            return None;
        }
        let stage = |place: usize| middle(of.iter().map(|prediction| prediction.stage_ns[place]).collect());
        let throughput = middle(of.iter().map(|prediction| prediction.throughput.0).collect())?;
        let stage_ns = (0..stages).map(stage).collect::<Option<_>>()?;
        Some(Self { stage_ns, throughput: FramesPerSecond(throughput) })
    }

    fn new(schedule: &Schedule, stage_ns: Vec<f64>) -> Self {
        let periods = periods_ns(schedule, &stage_ns);
        Self { stage_ns, throughput: FramesPerSecond::from_frame_ns(slowest(&periods)) }
    }
}

/// Time between two frames of each stage in ns, once for each of its replicas. `stage_ns` are the times of the replicas.
pub fn periods_ns(schedule: &Schedule, stage_ns: &[f64]) -> Vec<f64> {
    let in_order = schedule.kind() == ScheduleKind::Pipeline;
    let mut left = stage_ns;
    let period = |replicas: &[Stage]| {
        let (own, others) = left.split_at(replicas.len().min(left.len()));
        left = others;
        let times = own.iter().copied();
        let period = if in_order { period_ns(times) } else { shared_ns(times) };
        std::iter::repeat_n(period, own.len())
    };
    schedule.replicas().flat_map(period).collect()
}

/// Time between two frames of replicas with these times: the inverse of the sum of their rates.
pub(crate) fn shared_ns(times: impl IntoIterator<Item = f64>) -> f64 {
    let mut times = times.into_iter();
    let first = times.next().unwrap_or(0.0);
    let others: Option<f64> = times.map(|ns| 1.0 / ns).reduce(|sum, rate| sum + rate);
    others.map_or(first, |others| 1.0 / (1.0 / first + others))
}

/// Time between two frames of a stage whose replicas have these times. Frames leave in their order, so while the slowest replica
/// has one, only [`AHEAD`] for each replica can follow it.
pub(crate) fn period_ns(times: impl IntoIterator<Item = f64> + Clone) -> f64 {
    let (count, longest) =
        times.clone().into_iter().fold((0.0, 0.0_f64), |(count, longest), ns| (count + 1.0, longest.max(ns)));
    if count > 1.0 { shared_ns(times).max(longest / (AHEAD * count)) } else { longest }
}

impl Prediction {
    /// Shortest and longest latency in ns of a frame of a schedule whose stages have one processor each. It is shortest if the
    /// frame waits nowhere, and longest if it takes the last of `before` places in the queue of the first stage while `between`
    /// frames wait for each other stage. Then each stage also has one frame, and each of `overlapping` stages a second one. Each
    /// frame ahead delays it by at most the time of the slowest stage.
    pub fn latency_ns(&self, before: u32, between: u32, overlapping: u32) -> (f64, f64) {
        let alone: f64 = self.stage_ns.iter().sum();
        let later = self.stage_ns.len().saturating_sub(1) as f64;
        let ahead = f64::from(before) + later * (f64::from(between) + 1.0) + f64::from(overlapping);
        (alone, alone + ahead * slowest(&self.stage_ns))
    }
}

fn slowest(stage_ns: &[f64]) -> f64 {
    stage_ns.iter().copied().fold(0.0, f64::max)
}

/// Predicts a schedule. The first stage receives nothing; every replica of a later one receives all tensors alive at its first
/// cut, also those that only pass it by.
pub fn predict(network: &Network, costs: &Costs, schedule: &Schedule) -> Result<Prediction, PredictionError> {
    let compute_ns =
        |_, stage: &Stage, processor| costs.compute_ns(processor, Cut(stage.first), Cut(stage.end));
    predict_stages(network, costs, schedule, compute_ns)
}

/// Predicts a schedule whose stages were timed. `compute_ns` is the time in ns of each replica of each stage for one frame, in stage
/// order, without receiving it; `costs` say what it takes to receive one. A stage without a time counts by its costs.
pub fn predict_timed(
    network: &Network,
    costs: &Costs,
    schedule: &Schedule,
    compute_ns: &[f64],
) -> Result<Prediction, PredictionError> {
    let timed = |place: usize, stage: &Stage, processor| {
        let by_costs = || costs.compute_ns(processor, Cut(stage.first), Cut(stage.end));
        compute_ns.get(place).copied().unwrap_or_else(by_costs)
    };
    predict_stages(network, costs, schedule, timed)
}

/// `compute_ns` has the place of the stage, the stage, and the place of its processor in the costs.
fn predict_stages(
    network: &Network,
    costs: &Costs,
    schedule: &Schedule,
    compute_ns: impl Fn(usize, &Stage, usize) -> f64,
) -> Result<Prediction, PredictionError> {
    check_units(network, costs)?;
    if schedule.units() != network.len() {
        return Err(PredictionError::ScheduleUnits {
            network: network.name().to_owned(),
            units: network.len(),
            schedule: schedule.units(),
        });
    }
    let index = |stage: &Stage| {
        costs
            .index_of(&stage.processor)
            .ok_or_else(|| PredictionError::NoCosts { processor: stage.processor.clone() })
    };
    let mut from = Vec::new();
    let mut stage_ns = Vec::with_capacity(schedule.stages().len());
    for replicas in schedule.replicas() {
        let processors = replicas.iter().map(index).collect::<Result<Vec<_>, _>>()?;
        for (stage, processor) in replicas.iter().zip(&processors) {
            let compute = compute_ns(stage_ns.len(), stage, *processor);
            stage_ns.push(receive_ns(network, costs, &from, *processor, Cut(stage.first)) + compute);
        }
        from = processors;
    }
    Ok(Prediction::new(schedule, stage_ns))
}

/// Time of a replica of a stage in ns, received from the processor of `from` from which it takes longest; the first stage
/// receives nothing. The planner decides by this function too, so that prediction and plan agree to the last bit.
pub(crate) fn stage_time_ns(
    network: &Network,
    costs: &Costs,
    from: &[usize],
    processor: usize,
    first: Cut,
    end: Cut,
) -> f64 {
    receive_ns(network, costs, from, processor, first) + costs.compute_ns(processor, first, end)
}

fn receive_ns(network: &Network, costs: &Costs, from: &[usize], processor: usize, first: Cut) -> f64 {
    let bytes = network.boundaries()[first.0].bytes();
    from.iter().map(|from| costs.transfer_ns(*from, processor, bytes)).fold(0.0, f64::max)
}

pub(crate) fn check_units(network: &Network, costs: &Costs) -> Result<(), PredictionError> {
    if costs.units() == network.len() {
        return Ok(());
    }
    Err(PredictionError::CostUnits {
        network: network.name().to_owned(),
        units: network.len(),
        costs: costs.units(),
    })
}

/// Why there is no prediction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredictionError {
    /// The costs are those of another network.
    #[error("failed to plan network {network}: it has {units} units, the costs are for {costs}")]
    CostUnits {
        /// The network.
        network: String,
        /// Its units.
        units: usize,
        /// Units of the costs.
        costs: usize,
    },
    /// The schedule is for another network.
    #[error("failed to predict network {network}: it has {units} units, the schedule is for {schedule}")]
    ScheduleUnits {
        /// The network.
        network: String,
        /// Its units.
        units: usize,
        /// Units of the schedule.
        schedule: usize,
    },
    /// A processor of the schedule has no profile.
    #[error("failed to predict a schedule: processor {processor} has no profile")]
    NoCosts {
        /// The processor.
        processor: ProcessorName,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Latencies of frames that arrive whenever the queue of the first stage has a place, in stages that keep a frame until the next
    /// queue has one.
    fn longest_latency(stage_ns: &[f64], before: usize, between: usize) -> f64 {
        let stages = stage_ns.len();
        // When each frame began and left each stage.
        let (mut starts, mut ends): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (Vec::new(), Vec::new());
        let mut longest = 0.0_f64;
        for frame in 0..200_usize {
            let arrived = frame.checked_sub(before).map_or(0.0, |other| starts[other][0]);
            let (mut own_starts, mut own_ends) = (Vec::new(), Vec::new());
            let mut ready = arrived;
            for stage in 0..stages {
                let free = frame.checked_sub(1).map_or(0.0, |other| ends[other][stage]);
                let begin = ready.max(free);
                // The place in the next queue that the frame `between` ahead leaves when it begins there.
                let place = frame.checked_sub(between).filter(|_| stage + 1 < stages);
                let place = place.map_or(0.0, |other| {
                    starts.get(other).map_or(0.0, |starts: &Vec<f64>| starts[stage + 1])
                });
                ready = (begin + stage_ns[stage]).max(place);
                own_starts.push(begin);
                own_ends.push(ready);
            }
            longest = longest.max(ready - arrived);
            starts.push(own_starts);
            ends.push(own_ends);
        }
        longest
    }

    #[test]
    fn no_frame_takes_longer_than_with_full_queues() {
        for stage_ns in
            [&[5.0][..], &[5.0, 3.0], &[3.0, 5.0], &[4.0, 4.0], &[2.0, 5.0, 3.0], &[1.0, 2.0, 3.0, 4.0]]
        {
            for (before, between) in [(1, 1), (2, 2), (4, 1), (1, 4)] {
                let throughput = FramesPerSecond::from_frame_ns(slowest(stage_ns));
                let prediction = Prediction { stage_ns: stage_ns.to_vec(), throughput };
                let (alone, most) = prediction.latency_ns(before, between, 0);
                assert!((alone - stage_ns.iter().sum::<f64>()).abs() < 1e-9);
                let found = longest_latency(stage_ns, before as usize, between as usize);
                assert!(found <= most + 1e-9, "{stage_ns:?} {before} {between}: {found} > {most}");
                // All queues fill up if the last stage is the slowest.
                let (last, others) = stage_ns.split_last().unwrap();
                let fills = others.iter().all(|other| other < last);
                assert!(!fills || found > 0.8 * most, "{stage_ns:?} {before} {between}: {found} of {most}");
            }
        }
    }

    #[test]
    fn the_median_of_predictions_is_that_of_each_number() {
        let of = |stage_ns: [f64; 2], fps| Prediction {
            stage_ns: stage_ns.to_vec(),
            throughput: FramesPerSecond(fps),
        };
        let (one, two, three) = (of([1.0, 9.0], 30.0), of([3.0, 2.0], 10.0), of([2.0, 5.0], 20.0));
        assert_eq!(Prediction::median(&[&one, &two, &three]), Some(of([2.0, 5.0], 20.0)));
        assert_eq!(Prediction::median(&[]), None);
        let other = Prediction { stage_ns: vec![1.0], throughput: FramesPerSecond(1.0) };
        assert_eq!(Prediction::median(&[&one, &other]), None);
    }

    #[test]
    fn replicas_add_their_rates_unless_one_holds_up_the_order() {
        let check = |times: &[f64], period: f64| {
            let found = period_ns(times.iter().copied());
            assert!((found - period).abs() < 1e-9, "{times:?}: {found}, expected {period}");
        };
        check(&[5.0], 5.0);
        check(&[6.0, 3.0], 2.0);
        check(&[10.0, 10.0, 5.0], 2.5);
        check(&[0.0, 0.0], 0.0);
        // 16 frames in the time of the slow one, not 100.
        check(&[160.0, 1.6], 10.0);
        assert!((shared_ns([160.0, 1.6]) - 160.0 / 101.0).abs() < 1e-9, "without an order");
    }
}
