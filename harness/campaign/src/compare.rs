//! Compares the outputs of each schedule with those of the baseline on the same frames.

use crate::link::{self, LinkedNetwork, LinkedSchedule};
use crate::open::OpenedBoard;
use crate::runner_client::{RunnerClient, loading_time};
use crate::stop::Stop;
use crate::tolerance::Tolerance;
use boards::SessionError;
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
    /// By schedule; absent if the comparison failed.
    comparisons: Vec<Option<ComparisonRecord>>,
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
        let mut network = ComparedNetwork { linked, usable: Vec::new(), comparisons: Vec::new() };
        let equal = compare_rest(board, recorder, &mut network, &progress)?;
        progress.step(&format!("{name}: {equal} of {count} schedules agree"));
        compared.push(network);
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
    let equal = compare_rest(board, recorder, network, &progress)?;
    progress.end(&format!("{equal} of {} new schedules agree", network.usable.len() - known));
    Ok(())
}

/// Compares the schedules that are not compared yet. Returns how many agree with the baseline.
fn compare_rest(
    board: &mut OpenedBoard,
    recorder: &mut RunRecorder<'_>,
    network: &mut ComparedNetwork,
    progress: &Progress,
) -> Result<usize, Stop> {
    let ComparedNetwork { linked: LinkedNetwork { plan, schedules }, usable, comparisons } = network;
    let (name, mut equal) = (plan.name(), 0);
    let is_single = |linked: &LinkedSchedule| linked.planned.schedule.kind() == domain::ScheduleKind::Single;
    let single = schedules.iter().position(is_single);
    let baseline = match single {
        Some(position) => schedules[position].clone(),
        None => link::first_single(board, &plan.compiled)?,
    };
    for (position, candidate) in schedules.iter().enumerate().skip(usable.len()) {
        let (place, label) = (plan.place(position), candidate.planned.schedule.label());
        // Outputs do not depend on the operating point.
        let is_same = |known: &usize| schedules[*known].planned.schedule == candidate.planned.schedule;
        let known = (0..position).filter(is_same).find_map(|known| comparisons[known].clone());
        let uses_gpu = |linked: &LinkedSchedule| {
            let mut names = linked.planned.schedule.processors();
            let known = board.found.processors.iter().filter(|known| known.kind.is_gpu());
            let gpus: Vec<_> = known.map(|known| &known.name).collect();
            names.any(|name| gpus.contains(&name))
        };
        let on_gpu = uses_gpu(candidate) || uses_gpu(&baseline);
        let tolerance = Tolerance::of(&board.loaded.experiment, plan.compiled.precision, on_gpu);
        let comparison = match known {
            Some(known) => Some(ComparisonRecord { schedule: place, ..known }),
            None => match request(&mut board.runner, name, &baseline, candidate) {
                Err(error @ (SessionError::Interrupted | SessionError::Board(_))) => return Err(error.into()),
                Err(error) => {
                    // Its trials fail for the same reason, and record it.
                    progress.warn(&error.to_string());
                    None
                }
                Ok(compared) => Some(ComparisonRecord {
                    schedule: place,
                    reference: single.map_or(place, |single| plan.place(single)),
                    tolerance: tolerance.value,
                    compared,
                }),
            },
        };
        let agrees = comparison.as_ref().is_none_or(ComparisonRecord::within_tolerance);
        if !agrees {
            progress.warn(&format!(
                "{name} on {label}: outputs differ from the baseline's; this schedule is void"
            ));
        }
        usable.push(agrees);
        if let Some(comparison) = &comparison {
            equal += usize::from(agrees);
            recorder.record_comparison(comparison.clone())?;
        }
        comparisons.push(comparison);
    }
    Ok(equal)
}

fn request(
    runner: &mut RunnerClient,
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
                distinct: reference.frames.distinct.min(MAX_FRAMES),
                ..reference.frames.clone()
            },
        })
    })?;
    match event {
        Event::Compared(compared) => Ok(compared),
        other => Err(runner.unexpected(&task, &other)),
    }
}
