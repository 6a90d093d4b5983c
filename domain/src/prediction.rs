//! How fast a schedule will be, by the costs.

use crate::costs::Costs;
use crate::network::{Cut, Network};
use crate::planner::PlanError;
use crate::schedule::{Kind, Schedule, Stage};
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
    fn new(kind: Kind, stage_ns: Vec<f64>) -> Self {
        let throughput = match kind {
            Kind::Single | Kind::Pipeline => FramesPerSecond::from_frame_ns(slowest(&stage_ns)),
            Kind::Replicate | Kind::Peer => {
                FramesPerSecond(stage_ns.iter().map(|ns| FramesPerSecond::from_frame_ns(*ns).0).sum())
            }
        };
        Self { stage_ns, throughput }
    }

    /// Time of the slowest stage, in ns.
    pub fn slowest_ns(&self) -> f64 {
        slowest(&self.stage_ns)
    }
}

fn slowest(stage_ns: &[f64]) -> f64 {
    stage_ns.iter().copied().fold(0.0, f64::max)
}

/// Predicts a schedule. The first stage of a pipeline receives nothing; every later one receives all tensors alive
/// at its first cut, also those that only pass it by.
pub fn predict(network: &Network, costs: &Costs, schedule: &Schedule) -> Result<Prediction, PlanError> {
    check_units(network, costs)?;
    if schedule.units() != network.len() {
        return Err(PlanError::ScheduleUnits {
            network: network.name().to_owned(),
            units: network.len(),
            schedule: schedule.units(),
        });
    }
    let index = |stage: &Stage| {
        costs
            .index_of(&stage.processor)
            .ok_or_else(|| PlanError::NoCosts { processor: stage.processor.clone() })
    };
    let mut from = None;
    let mut stage_ns = Vec::with_capacity(schedule.stages().len());
    for stage in schedule.stages() {
        let processor = index(stage)?;
        let (first, end) = (Cut(stage.first), Cut(stage.end));
        stage_ns.push(stage_time_ns(network, costs, from, processor, first, end));
        from = (schedule.kind() == Kind::Pipeline).then_some(processor);
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

pub(crate) fn check_units(network: &Network, costs: &Costs) -> Result<(), PlanError> {
    if costs.units() == network.len() {
        return Ok(());
    }
    Err(PlanError::CostUnits {
        network: network.name().to_owned(),
        units: network.len(),
        costs: costs.units(),
    })
}
