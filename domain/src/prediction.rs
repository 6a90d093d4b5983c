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
