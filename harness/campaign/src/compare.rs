//! Compares the outputs of each schedule with those of the baseline on the same frames.

use crate::link::{self, LinkedNetwork, LinkedSchedule};
use crate::open::OpenedBoard;
use crate::runner_client::{RunnerClient, loading_time};
use crate::stop::Stop;
use crate::tolerance::Tolerance;
use boards::SessionError;
use config::Experiment;
use host::progress::Progress;
use protocol::{Compared, Event, Request};
use std::time::Duration;
use store::{ComparisonRecord, RunRecorder};

/// Most distinct frames on which outputs are compared. With more, comparing a large zoo took longer than its trials.
const MAX_FRAMES: u32 = 3;

/// A network whose schedules were compared.
#[derive(Debug)]
pub(crate) struct ComparedNetwork {
    pub(crate) linked: LinkedNetwork,
    /// By schedule: whether it may be measured. One with other outputs than the baseline is void.
    pub(crate) usable: Vec<bool>,
}

/// Compares all schedules of all networks.
///
/// # Errors
/// If the board is lost, a result cannot be recorded, or the user interrupts.
pub(crate) fn compare(
    board: &mut OpenedBoard,
    recorder: &mut RunRecorder<'_>,
    networks: Vec<LinkedNetwork>,
) -> Result<Vec<ComparedNetwork>, Stop> {
    let progress = Progress::begin("compare", networks.len());
    let mut compared = Vec::new();
    for linked in networks {
        let (name, count) = (linked.plan.name().to_owned(), linked.schedules.len());
        progress.doing(&format!("{name}: outputs of {count} schedules"));
        let (usable, equal) = compare_from(board, recorder, &linked, 0, &progress)?;
        progress.step(&format!("{name}: {equal} of {count} schedules agree"));
        compared.push(ComparedNetwork { linked, usable });
    }
    progress.end(&format!("outputs of {} networks", compared.len()));
    Ok(compared)
}

/// Compares the schedules that a network has in addition to those compared already.
///
/// # Errors
/// As [`compare`].
pub(crate) fn compare_more(
    board: &mut OpenedBoard,
    recorder: &mut RunRecorder<'_>,
    network: &mut ComparedNetwork,
) -> Result<(), Stop> {
    let known = network.usable.len();
    let progress = Progress::begin("compare", 1);
    let (usable, equal) = compare_from(board, recorder, &network.linked, known, &progress)?;
    progress.end(&format!("{equal} of {} new schedules agree", usable.len()));
    network.usable.extend(usable);
    Ok(())
}

/// Compares the schedules from position `first` on. Returns which may be measured, and how many agree with the baseline.
fn compare_from(
    board: &mut OpenedBoard,
    recorder: &mut RunRecorder<'_>,
    network: &LinkedNetwork,
    first: usize,
    progress: &Progress,
) -> Result<(Vec<bool>, usize), Stop> {
    let (plan, name) = (&network.plan, network.plan.name());
    let is_single = |linked: &LinkedSchedule| linked.planned.schedule.kind() == domain::ScheduleKind::Single;
    let single = network.schedules.iter().position(is_single);
    let baseline = match single {
        Some(position) => network.schedules[position].clone(),
        None => link::first_single(board, &plan.compiled)?,
    };
    let (mut usable, mut equal) = (Vec::new(), 0);
    for (position, candidate) in network.schedules.iter().enumerate().skip(first) {
        let label = candidate.planned.schedule.label();
        match request(&mut board.runner, &board.loaded.experiment, name, &baseline, candidate) {
            Err(error @ (SessionError::Interrupted | SessionError::Board(_))) => return Err(error.into()),
            Err(error) => {
                // Its trials fail for the same reason, and record it.
                progress.warn(&error.to_string());
                usable.push(true);
            }
            Ok(compared) => {
                let place = plan.place(position);
                let uses_gpu = |linked: &LinkedSchedule| {
                    let mut names = linked.planned.schedule.processors();
                    let known = board.found.processors.iter().filter(|known| known.kind.is_gpu());
                    let gpus: Vec<_> = known.map(|known| &known.name).collect();
                    names.any(|name| gpus.contains(&name))
                };
                let on_gpu = uses_gpu(candidate) || uses_gpu(&baseline);
                let precision = plan.compiled.precision;
                let tolerance = Tolerance::of(&board.loaded.experiment, precision, on_gpu);
                let comparison = ComparisonRecord {
                    schedule: place,
                    reference: single.map_or(place, |single| plan.place(single)),
                    tolerance: tolerance.value,
                    compared,
                };
                let agrees = comparison.within_tolerance();
                if !agrees {
                    progress.warn(&format!(
                        "{name} on {label}: outputs differ from the baseline's; this schedule is void"
                    ));
                }
                usable.push(agrees);
                equal += usize::from(agrees);
                recorder.record_comparison(comparison)?;
            }
        }
    }
    Ok((usable, equal))
}

fn request(
    runner: &mut RunnerClient,
    experiment: &Experiment,
    network: &str,
    reference: &LinkedSchedule,
    candidate: &LinkedSchedule,
) -> Result<Compared, SessionError> {
    let task = format!("compare the outputs of {network} on {}", candidate.planned.schedule.label());
    let timeout = loading_time(&candidate.planned.schedule) + Duration::from_secs(60);
    let event = runner.request(&task, timeout, |id| {
        Request::Compare(protocol::Compare {
            id,
            reference: reference.message.clone(),
            candidate: candidate.message.clone(),
            frames: protocol::Frames {
                distinct: experiment.frames.distinct.min(MAX_FRAMES),
                ..reference.frames.clone()
            },
        })
    })?;
    match event {
        Event::Compared(compared) => Ok(compared),
        other => Err(runner.unexpected(&task, &other)),
    }
}
