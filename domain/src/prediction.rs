//! How fast a schedule will be, by the costs.

use crate::costs::Costs;
use crate::network::{Cut, Network};
use crate::processor::ProcessorName;
use crate::schedule::{Schedule, ScheduleKind, Stage};
use crate::units::FramesPerSecond;
use serde::{Deserialize, Serialize};

/// What the costs say of a schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Time of each stage for one frame, in ns, in stage order, with what it takes to receive its boundary.
    pub stage_ns: Vec<f64>,
    /// Steady rate: that of the slowest stage of a pipeline, the sum of the rates of a replicate. Infinite where
    /// that stage costs nothing.
    pub throughput: FramesPerSecond,
}

impl Prediction {
    fn new(kind: ScheduleKind, stage_ns: Vec<f64>) -> Self {
        let throughput = match kind {
            ScheduleKind::Single | ScheduleKind::Merged | ScheduleKind::Pipeline => {
                FramesPerSecond::from_frame_ns(slowest(&stage_ns))
            }
            ScheduleKind::Replicate | ScheduleKind::Peer => {
                FramesPerSecond(stage_ns.iter().map(|ns| FramesPerSecond::from_frame_ns(*ns).0).sum())
            }
        };
        Self { stage_ns, throughput }
    }
}

impl Prediction {
    /// Latency in ns of a frame of a schedule whose stages follow each other: if it waits nowhere, and at most, if it takes the
    /// last of `before` places in the queue of the first stage while `between` frames wait for each other stage. Each frame ahead
    /// of it, of which every stage has one too and `overlapping` stages another, delays it by at most the time of the slowest
    /// stage.
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

/// Predicts a schedule. The first stage of a pipeline receives nothing; every later one receives all tensors alive
/// at its first cut, also those that only pass it by.
pub fn predict(network: &Network, costs: &Costs, schedule: &Schedule) -> Result<Prediction, PredictionError> {
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
    let mut from = None;
    let mut stage_ns = Vec::with_capacity(schedule.stages().len());
    for stage in schedule.stages() {
        let processor = index(stage)?;
        let (first, end) = (Cut(stage.first), Cut(stage.end));
        stage_ns.push(stage_time_ns(network, costs, from, processor, first, end));
        from = (schedule.kind() == ScheduleKind::Pipeline).then_some(processor);
    }
    Ok(Prediction::new(schedule.kind(), stage_ns))
}

/// Time of a stage in ns, received from the processor `from`. The planner decides by this function too, so that
/// prediction and plan agree to the last bit.
pub(crate) fn stage_time_ns(
    network: &Network,
    costs: &Costs,
    from: Option<usize>,
    processor: usize,
    first: Cut,
    end: Cut,
) -> f64 {
    let receive =
        from.map_or(0.0, |from| costs.transfer_ns(from, processor, network.boundaries()[first.0].bytes()));
    receive + costs.compute_ns(processor, first, end)
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
                let prediction = Prediction::new(ScheduleKind::Pipeline, stage_ns.to_vec());
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
}
