//! Comparing outputs, and the trials.

use super::link::Link;
use super::peers::OnnxRuntime;
use super::plan::Planned;
use super::prepare::{LOADING, Prepared, frames, nanoseconds};
use super::wire;
use crate::processors::Processor;
use anyhow::Context as _;
use boards::session::SessionError;
use config::{Experiment, SlowDown};
use host::exit::{Ending as _, Exit, Outcome};
use protocol::{Compared, Event, Measured, Meter, Request};
use std::time::Duration;

/// Distinct frames on which outputs are compared, at most: with more of them the comparison of a large zoo took longer
/// than its trials.
const COMPARED: u32 = 3;

/// A schedule ready to run.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    /// What was planned.
    pub(super) planned: Planned,
    /// What the runner is told.
    pub(super) wire: protocol::Schedule,
    /// What it is fed.
    pub(super) frames: protocol::Frames,
    /// How much slower each stage is made on purpose; empty: none is.
    pub(super) slow_down_per_mille: Vec<u32>,
}

/// Makes the planned schedules of a network ready.
///
/// # Errors
/// Where a compiled stage is missing, which is a bug.
pub(super) fn ready(
    experiment: &Experiment,
    prepared: &Prepared,
    planned: &[Planned],
    processors: &[Processor],
    peer: Option<&OnnxRuntime>,
) -> Outcome<Vec<Ready>> {
    let frames = frames(experiment, &prepared.manifest);
    let slow_down = experiment.slow_down.as_ref();
    let ready = planned.iter().map(|planned| {
        if let Some(asked) = planned.schedule.as_peer() {
            let runtime = peer.context("no peer was looked for")?;
            let wire = wire::peer(asked, &prepared.manifest, &runtime.library, &prepared.model()?)?;
            let slow_down_per_mille = Vec::new();
            return Ok(Ready { planned: planned.clone(), wire, frames: frames.clone(), slow_down_per_mille });
        }
        let deployed = prepared.deployed(&planned.schedule, processors)?;
        let wire = wire::schedule(&planned.schedule, &prepared.manifest, &deployed, processors)?;
        Ok::<_, anyhow::Error>(Ready {
            planned: planned.clone(),
            wire,
            frames: frames.clone(),
            slow_down_per_mille: slow_down.map_or_else(Vec::new, |slow_down| slowed(planned, slow_down)),
        })
    });
    ready.collect::<Result<_, _>>().ending(Exit::Bug)
}

fn slowed(planned: &Planned, slow_down: &SlowDown) -> Vec<u32> {
    let of = |stage: &domain::Stage| {
        if stage.processor.as_str() == slow_down.processor { slow_down.per_mille() } else { 0 }
    };
    planned.schedule.stages().iter().map(of).collect()
}

/// Runs `candidate` and `reference` on the same frames.
///
/// # Errors
/// As [`Link::request`].
pub(super) fn compare(
    link: &mut Link,
    experiment: &Experiment,
    network: &str,
    reference: &Ready,
    candidate: &Ready,
) -> Result<Compared, SessionError> {
    let during = format!("compare the outputs of {network} on {}", candidate.planned.schedule.label());
    let event = link.request(&during, LOADING + Duration::from_secs(60), |id| {
        Request::Compare(protocol::Compare {
            id,
            reference: reference.wire.clone(),
            candidate: candidate.wire.clone(),
            frames: protocol::Frames {
                distinct: experiment.frames.distinct.min(COMPARED),
                ..reference.frames.clone()
            },
        })
    })?;
    match event {
        Event::Compared(compared) => Ok(compared),
        other => Err(link.unexpected(&during, &other)),
    }
}

/// Measures a schedule once, and reads `meter` meanwhile.
///
/// # Errors
/// As [`Link::request`].
pub(super) fn measure(
    link: &mut Link,
    experiment: &Experiment,
    network: &str,
    ready: &Ready,
    meter: Option<&Meter>,
) -> Result<Measured, SessionError> {
    let during = format!("measure {network} on {}", ready.planned.schedule.label());
    let stages = u32::try_from(ready.wire.stages.len()).unwrap_or(u32::MAX);
    let isolate = Some(&experiment.isolate).filter(|isolate| isolate.enabled);
    let alone = isolate.map_or(Duration::ZERO, |rule| rule.max * stages);
    let patience = LOADING + alone + experiment.warm_up.max + experiment.measure.max;
    let sysfs = link.sysfs().to_owned();
    let event = link.request_once(&during, patience, |id| {
        Request::Trial(protocol::Trial {
            id,
            schedule: ready.wire.clone(),
            frames: ready.frames.clone(),
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
            slow_down_per_mille: ready.slow_down_per_mille.clone(),
        })
    })?;
    match event {
        Event::Measured(measured) => Ok(*measured),
        other => Err(link.unexpected(&during, &other)),
    }
}

/// Frames per second of a trial, for the progress display.
pub(super) fn rate(measured: &Measured) -> Option<f64> {
    let last = *measured.window.completed_ns.last()?;
    (last > 0).then(|| measured.window.completed_ns.len() as f64 * 1e9 / last as f64)
}
