//! One trial: a request that measures one schedule once.

use crate::link::LinkedSchedule;
use crate::runner_client::{RunnerClient, loading_time};
use crate::schedule_message::nanoseconds;
use boards::SessionError;
use config::Experiment;
use domain::{ArrivalTimes, Load, QueueLength, QueuePlan, QueuePolicy};
use protocol::{Event, Measured, Meter, Request};
use std::time::Duration;

/// Measures a schedule once, and reads `meter` at the same time. `seed` is that of random arrivals: trials of a round have the
/// same.
///
/// # Errors
/// As [`RunnerClient::request_once`].
pub(crate) fn run(
    runner: &mut RunnerClient,
    experiment: &Experiment,
    network: &str,
    linked: &LinkedSchedule,
    meter: Option<&Meter>,
    seed: u64,
) -> Result<Measured, SessionError> {
    let task = format!("measure {network} on {}", linked.planned.schedule.label());
    let stages = u32::try_from(linked.message.stages.len()).unwrap_or(u32::MAX);
    let isolate = Some(&experiment.isolate).filter(|isolate| isolate.enabled);
    let isolated = isolate.map_or(Duration::ZERO, |rule| rule.max * stages);
    let loading = loading_time(&linked.planned.schedule);
    let (before, between) = places(experiment, linked.planned.queues.as_ref());
    let load = load_message(&experiment.load, before, seed);
    // The warm-up and the window end with a frame, which may arrive after their time.
    let arrivals = experiment.load.stream().map_or(0.0, |stream| 4.0 / stream.fps);
    let timeout = loading
        + isolated
        + experiment.warm_up.max
        + experiment.measure.max
        + Duration::from_secs_f64(arrivals);
    let sysfs = runner.sysfs().to_owned();
    let event = runner.request_once(&task, timeout, |id| {
        Request::Trial(protocol::Trial {
            id,
            schedule: linked.message.clone(),
            frames: linked.frames.clone(),
            load,
            queue_depth: between,
            isolate: isolate.map(|rule| protocol::Isolate {
                min_frames: rule.min_frames,
                min_ns: nanoseconds(rule.min),
                max_ns: nanoseconds(rule.max),
                at_once: false,
            }),
            warm_up: protocol::WarmUpRule {
                min_frames: experiment.warm_up.min_frames,
                min_ns: nanoseconds(experiment.warm_up.min),
                max_ns: nanoseconds(experiment.warm_up.max),
            },
            measure: protocol::WindowRule {
                min_frames: experiment.measure.min_frames,
                min_ns: nanoseconds(experiment.measure.min),
                max_ns: nanoseconds(experiment.measure.max),
                max_frames: experiment.measure.max_frames,
            },
            timeline_frames: experiment.timeline_frames,
            power: meter.cloned(),
            sysfs: sysfs.clone(),
            slow_down_per_mille: linked.slow_down_per_mille.clone(),
        })
    })?;
    match event {
        Event::Measured(measured) => Ok(*measured),
        other => Err(runner.unexpected(&task, &other)),
    }
}

/// Frames that can wait before the first stage and between two stages. Only the plan of a schedule says what was chosen for it.
fn places(experiment: &Experiment, planned: Option<&QueuePlan>) -> (u32, u32) {
    let given = experiment.load.stream().and_then(|stream| stream.queue.places());
    let before = given.or(planned.map(|queues| queues.before));
    let between = experiment.queue_depth.places().or(planned.map(|queues| queues.between));
    (before.unwrap_or(QueueLength::DEFAULT), between.unwrap_or(QueueLength::DEFAULT))
}

/// The load as the runner expects it, with a queue of so many places. `seed` is that of random arrivals.
fn load_message(load: &Load, queue: u32, seed: u64) -> protocol::Load {
    let stream = match load {
        Load::OneAtATime => return protocol::Load::OneAtATime,
        // A search names the rate of each trial.
        Load::Saturating | Load::Sustained(_) => return protocol::Load::Saturating,
        Load::Stream(stream) => stream,
    };
    protocol::Load::Stream(protocol::StreamLoad {
        fps: stream.fps,
        streams: stream.streams,
        queue,
        policy: match stream.policy {
            QueuePolicy::DropOldest => protocol::QueuePolicy::DropOldest,
            QueuePolicy::DropNewest => protocol::QueuePolicy::DropNewest,
            QueuePolicy::Block => protocol::QueuePolicy::Block,
        },
        arrivals: match stream.arrivals {
            ArrivalTimes::Constant => protocol::ArrivalTimes::Constant,
            ArrivalTimes::Poisson => protocol::ArrivalTimes::Poisson,
        },
        deadline_ns: stream.deadline_ms.map(|ms| nanoseconds(Duration::from_secs_f64(ms / 1e3))),
        seed,
    })
}

/// Frames per second of a trial, for the progress display.
pub(crate) fn frames_per_second(measured: &Measured) -> Option<f64> {
    let last = *measured.window.completed_ns.last()?;
    (last > 0).then(|| measured.window.completed_ns.len() as f64 * 1e9 / last as f64)
}
