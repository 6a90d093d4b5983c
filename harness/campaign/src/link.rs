//! Links the stages of all planned schedules, and describes each schedule to the runner.

use crate::compile::CompiledNetwork;
use crate::open::OpenedBoard;
use crate::plan::{NetworkPlan, PlannedSchedule};
use crate::schedule_message;
use anyhow::Context as _;
use config::SlowDown;
use host::exit::{Ending as _, Exit, Failure, Outcome};

/// A planned network whose stages are linked.
#[derive(Debug)]
pub(crate) struct LinkedNetwork {
    pub(crate) plan: NetworkPlan,
    /// In the order of the plan.
    pub(crate) schedules: Vec<LinkedSchedule>,
}

/// A schedule that the runner can execute.
#[derive(Debug, Clone)]
pub(crate) struct LinkedSchedule {
    pub(crate) planned: PlannedSchedule,
    /// What the runner is sent.
    pub(crate) message: protocol::Schedule,
    pub(crate) frames: protocol::Frames,
    /// By stage: how much slower it is made on purpose, in thousandths; empty if none is.
    pub(crate) slow_down_per_mille: Vec<u32>,
}

/// Links the stages of all plans.
///
/// # Errors
/// If a stage cannot be linked.
pub(crate) fn link(board: &OpenedBoard, plans: Vec<NetworkPlan>) -> Outcome<Vec<LinkedNetwork>> {
    let networks = plans.iter().map(|plan| {
        let schedules = plan.schedules.iter().map(|planned| &planned.schedule).collect();
        (&plan.compiled, schedules)
    });
    let networks: Vec<_> = networks.collect();
    board.builder.link_stages(&networks, board.processors())?;
    let linked = plans.into_iter().map(|plan| {
        let schedules = link_schedules(board, &plan.compiled, &plan.schedules)?;
        Ok(LinkedNetwork { plan, schedules })
    });
    linked.collect()
}

/// The network on the first processor alone: the baseline for outputs if the plan has no single schedule.
///
/// # Errors
/// If the compiled network is missing from the cache, which is a bug.
pub(crate) fn first_single(board: &OpenedBoard, compiled: &CompiledNetwork) -> Outcome<LinkedSchedule> {
    let Some(processor) = board.processors().first() else {
        return Err(Failure::new(Exit::Bug, "a board without processors was opened"));
    };
    let schedule = domain::Schedule::single(&compiled.network, processor.name.clone());
    let planned = [PlannedSchedule { schedule, point: 0, prediction: None, queues: None }];
    let mut linked = link_schedules(board, compiled, &planned)?;
    linked.pop().ok_or_else(|| Failure::new(Exit::Bug, "a single schedule was not linked"))
}

/// Describes schedules whose stages are linked.
///
/// # Errors
/// If a stage is missing from the cache, which is a bug.
pub(crate) fn link_schedules(
    board: &OpenedBoard,
    compiled: &CompiledNetwork,
    planned: &[PlannedSchedule],
) -> Outcome<Vec<LinkedSchedule>> {
    let experiment = &board.loaded.experiment;
    let linked = planned.iter().map(|planned| {
        let (message, slow_down) = if let Some(peer) = planned.schedule.as_peer() {
            let runtime = board.builder.peer.as_ref().context("ONNX Runtime was not looked up")?;
            let model = compiled.model()?;
            let (manifest, library) = (&compiled.manifest, &runtime.library);
            (schedule_message::peer(peer, manifest, library, &model, board.processors())?, None)
        } else {
            let stages = compiled.stages(&planned.schedule, board.processors())?;
            let message = schedule_message::schedule(
                &planned.schedule,
                &compiled.manifest,
                &stages,
                board.processors(),
            )?;
            (message, experiment.slow_down.as_ref())
        };
        let slow_down_per_mille = slow_down.map_or_else(Vec::new, |slow_down| slowed(planned, slow_down));
        Ok::<_, anyhow::Error>(LinkedSchedule {
            planned: planned.clone(),
            message,
            frames: compiled.frames.clone(),
            slow_down_per_mille,
        })
    });
    linked.collect::<Result<_, _>>().ending(Exit::Bug)
}

fn slowed(planned: &PlannedSchedule, slow_down: &SlowDown) -> Vec<u32> {
    let per_mille = |stage: &domain::Stage| {
        if stage.processor.parts().any(|part| part == slow_down.processor) {
            slow_down.per_mille()
        } else {
            0
        }
    };
    planned.schedule.stages().iter().map(per_mille).collect()
}
