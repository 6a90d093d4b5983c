//! One trial: a request that measures one schedule once.

use crate::link::LinkedSchedule;
use crate::runner_client::{RunnerClient, loading_time};
use crate::schedule_message::nanoseconds;
use boards::SessionError;
use config::Experiment;
use protocol::{Event, Measured, Meter, Request};
use std::time::Duration;

/// Measures a schedule once, and reads `meter` at the same time.
///
/// # Errors
/// As [`RunnerClient::request_once`].
pub(crate) fn run(
    runner: &mut RunnerClient,
    experiment: &Experiment,
    network: &str,
    linked: &LinkedSchedule,
    meter: Option<&Meter>,
) -> Result<Measured, SessionError> {
    let task = format!("measure {network} on {}", linked.planned.schedule.label());
    let stages = u32::try_from(linked.message.stages.len()).unwrap_or(u32::MAX);
    let isolate = Some(&experiment.isolate).filter(|isolate| isolate.enabled);
    let isolated = isolate.map_or(Duration::ZERO, |rule| rule.max * stages);
    let loading = loading_time(&linked.planned.schedule);
    let timeout = loading + isolated + experiment.warm_up.max + experiment.measure.max;
    let sysfs = runner.sysfs().to_owned();
    let event = runner.request_once(&task, timeout, |id| {
        Request::Trial(protocol::Trial {
            id,
            schedule: linked.message.clone(),
            frames: linked.frames.clone(),
            queue_depth: experiment.queue_depth,
            isolate: isolate.map(|rule| protocol::Isolate {
                min_frames: rule.min_frames,
                min_ns: nanoseconds(rule.min),
                max_ns: nanoseconds(rule.max),
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

/// Frames per second of a trial, for the progress display.
pub(crate) fn frames_per_second(measured: &Measured) -> Option<f64> {
    let last = *measured.window.completed_ns.last()?;
    (last > 0).then(|| measured.window.completed_ns.len() as f64 * 1e9 / last as f64)
}
