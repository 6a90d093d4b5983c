//! Predicts the schedules of a network in every round, from a profile made just before they are measured.

use crate::compare::ComparedNetwork;
use crate::frame_times::{ProfileError, typical, window};
use crate::link::{LinkedNetwork, LinkedSchedule};
use crate::open::OpenedBoard;
use crate::processors::Processor;
use crate::profile::costs_now;
use crate::runner_client::{LOADING, RunnerClient};
use crate::schedule_message::nanoseconds;
use crate::stop::Stop;
use crate::trial_order::Slot;
use boards::SessionError;
use config::Experiment;
use domain::{Load, Prediction, QueueLength, ScheduleKind, predict_timed};
use host::progress::Progress;
use protocol::{Event, Request};
use std::time::Duration;

/// Predictions of one network in one round.
#[derive(Debug)]
pub(crate) struct RoundPrediction {
    network: usize,
    round: u32,
    /// By schedule; absent for a peer.
    schedules: Vec<Option<Prediction>>,
}

impl RoundPrediction {
    /// Whether an experiment asks for them. A search profiles at its operating points, and the rate of a stream is that of its
    /// arrivals.
    pub(crate) fn is_wanted(experiment: &Experiment) -> bool {
        experiment.profile.every_round && experiment.search.is_none() && experiment.load == Load::Saturating
    }

    fn none(slot: &Slot) -> Self {
        Self { network: slot.network, round: slot.round, schedules: Vec::new() }
    }

    /// Profiles the network of a trial, and predicts its schedules. If that fails, `progress` says why, and no schedule is predicted.
    ///
    /// # Errors
    /// If the board is lost, or the user interrupts.
    pub(crate) fn make(
        board: &mut OpenedBoard,
        network: &ComparedNetwork,
        slot: &Slot,
        progress: &Progress,
    ) -> Result<Self, Stop> {
        let linked = &network.linked;
        progress.doing(&format!("profiling {}, round {}", linked.plan.name(), slot.round + 1));
        let processors = board.found.processors.clone();
        match predict(&mut board.runner, &board.loaded.experiment, linked, &processors) {
            Ok(schedules) => Ok(Self { schedules, ..Self::none(slot) }),
            Err(ProfileError::Session(error @ (SessionError::Interrupted | SessionError::Board(_)))) => {
                Err(error.into())
            }
            Err(error) => {
                progress.warn(&error.to_string());
                Ok(Self::none(slot))
            }
        }
    }

    /// Whether these are of the network and round of a trial.
    pub(crate) fn is_of(&self, slot: &Slot) -> bool {
        (self.network, self.round) == (slot.network, slot.round)
    }

    /// The prediction of the schedule of a trial.
    pub(crate) fn of(&self, slot: &Slot) -> Option<Prediction> {
        self.schedules.get(slot.schedule).cloned().flatten().filter(|_| self.is_of(slot))
    }
}

/// Predicts the schedules of a network from what its units, its frames and the stages of its pipelines take now. In the order of the
/// schedules; absent for a peer.
fn predict(
    runner: &mut RunnerClient,
    experiment: &Experiment,
    network: &LinkedNetwork,
    processors: &[Processor],
) -> Result<Vec<Option<Prediction>>, ProfileError> {
    let LinkedNetwork { plan, schedules } = network;
    let compiled = &plan.compiled;
    let needs_contended = |linked: &LinkedSchedule| match linked.planned.schedule.kind() {
        ScheduleKind::Replicate => true,
        ScheduleKind::Pipeline => !has_timed_stages(linked),
        ScheduleKind::Single | ScheduleKind::Merged | ScheduleKind::Peer => false,
    };
    let contended = schedules.iter().any(needs_contended);
    let costs = costs_now(runner, experiment, compiled, processors, &plan.links, contended)?;
    let predict = |linked: &LinkedSchedule| {
        let schedule = &linked.planned.schedule;
        let predicted = costs.predict(&compiled.network, schedule);
        let predicted = predicted.map_err(|failure| ProfileError::Artifact(failure.error))?;
        let Some(by_units) = predicted.as_ref().filter(|_| has_timed_stages(linked)) else {
            return Ok(predicted);
        };
        let stages_ns = measure_stages(runner, experiment, linked, by_units)?;
        let timed = predict_timed(&compiled.network, &costs.alone, schedule, &stages_ns);
        timed.map(Some).map_err(|error| ProfileError::Artifact(error.into()))
    };
    schedules.iter().map(predict).collect()
}

/// Whether the stages of a schedule are timed at once: those of pipelines on CPUs. Frames on a GPU overlap, so one that is repeated
/// does not show its rate.
fn has_timed_stages(linked: &LinkedSchedule) -> bool {
    let is_cpu = |stage: &protocol::Stage| matches!(stage.processor, protocol::Processor::Cpu(_));
    linked.planned.schedule.kind() == ScheduleKind::Pipeline && linked.message.stages.iter().all(is_cpu)
}

/// Times the stages of a pipeline at once: each repeats a frame, and none waits for another. Returns the median time of each in ns,
/// in stage order. `predicted` says how long that takes at least.
///
/// # Errors
/// As [`RunnerClient::request`].
fn measure_stages(
    runner: &mut RunnerClient,
    experiment: &Experiment,
    linked: &LinkedSchedule,
    predicted: &Prediction,
) -> Result<Vec<f64>, ProfileError> {
    let rule = &experiment.profile;
    let slowest = predicted.stage_ns.iter().copied().fold(0.0, f64::max);
    let slowest = nanoseconds(Duration::try_from_secs_f64(slowest / 1e9).unwrap_or_default());
    let (min_ns, max_ns) = window(nanoseconds(rule.min), nanoseconds(rule.max), slowest);
    let task = format!("time the stages of {}", linked.planned.schedule.label());
    let sysfs = runner.sysfs().to_owned();
    let event = runner.request(&task, rule.max + Duration::from_nanos(max_ns) + LOADING, |id| {
        Request::Trial(protocol::Trial {
            id,
            schedule: linked.message.clone(),
            frames: linked.frames.clone(),
            load: protocol::Load::Saturating,
            queue_depth: QueueLength::DEFAULT,
            isolate: Some(protocol::Isolate { min_frames: 1, min_ns, max_ns, at_once: true }),
            warm_up: protocol::WarmUpRule { min_frames: 1, min_ns: 0, max_ns: 0 },
            measure: protocol::WindowRule { min_frames: 1, min_ns: 0, max_ns: 1, max_frames: 1 },
            timeline_frames: 0,
            power: None,
            sysfs: sysfs.clone(),
            slow_down_per_mille: Vec::new(),
        })
    })?;
    let Event::Measured(measured) = event else { return Err(runner.unexpected(&task, &event).into()) };
    Ok(measured.isolated.iter().map(|stage| typical(&stage.samples_ns) as f64).collect())
}
