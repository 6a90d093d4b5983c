//! The canary: a few short trials that tell whether a board of a farm is as fast as the first one with which it shares rounds.
//! They are not recorded, so that a board that is set aside leaves nothing that could be pooled.

use crate::compare::ComparedNetwork;
use crate::open::OpenedBoard;
use crate::round_queue::RoundSource;
use crate::stop::Stop;
use crate::trial;
use boards::SessionError;
use config::Connect;
use domain::{Load, Samples, ScheduleKind};
use host::exit::{Exit, Failure};
use host::progress::{self, Progress};

/// Trials of the canary; their median counts.
const TRIALS: usize = 3;

/// Measures the first single schedule on a board of a farm, and compares it with the first board that did.
///
/// # Errors
/// If the board differs by more than its file allows, or a trial fails.
pub(crate) fn check(
    board: &mut OpenedBoard,
    networks: &[ComparedNetwork],
    source: &RoundSource,
) -> Result<(), Stop> {
    let allowed = match &board.loaded.board.connect {
        Connect::Labgrid(farm) if source.queue.is_of_farm() => farm.equal_within(),
        _ => return Ok(()),
    };
    let is_single = |kind: ScheduleKind| kind == ScheduleKind::Single;
    let canary = networks.iter().find_map(|network| {
        let schedules = network.linked.schedules.iter().zip(&network.usable);
        let mut usable =
            schedules.filter(|(schedule, usable)| **usable && is_single(schedule.planned.schedule.kind()));
        Some((network.linked.plan.name().to_owned(), usable.next()?.0))
    });
    // An experiment without baselines has no canary.
    let Some((network, schedule)) = canary else { return Ok(()) };
    let experiment = config::Experiment { load: Load::Saturating, ..board.loaded.experiment.clone() };
    let label = format!("{network} on {}", schedule.planned.schedule.label());
    let progress = Progress::begin("canary", TRIALS);
    let mut rates = Vec::new();
    for _ in 0..TRIALS {
        board.settle(&progress)?;
        let measured = trial::run(&mut board.runner, &experiment, &network, schedule, None, experiment.seed);
        match measured {
            Ok(measured) => rates.extend(trial::frames_per_second(&measured)),
            Err(error @ (SessionError::Interrupted | SessionError::Board(_))) => return Err(error.into()),
            Err(error) => progress.warn(&error.to_string()),
        }
        progress.doing(&label);
    }
    let Some(rate) = Samples::new(&rates).ok().map(|rates| rates.median()) else {
        let message = format!("failed to measure the canary, {label}: no trial succeeded");
        return Err(Failure::new(Exit::Board, message).into());
    };
    let name = &board.loaded.board.name;
    match source.queue.compare_canary(name, rate) {
        None => {
            progress.end(&format!("{rate:.2} frames/s for {label}, with which other boards are compared"));
        }
        Some((standard, ratio)) => {
            let change = format!("{:+.1} %", 100.0 * (ratio - 1.0));
            if (ratio - 1.0).abs() > allowed {
                let message = format!(
                    "failed to share rounds with {standard}: the canary, {label}, differs by {change}, and `equal_within` allows \
                     {:.1} %. Check the board's clocks and cooling, or give it tags of its own",
                    100.0 * allowed
                );
                return Err(Failure::new(Exit::Board, message).into());
            }
            progress.end(&format!("{rate:.2} frames/s for {label}, {change} compared with {standard}"));
        }
    }
    progress::say("farm", "passed the canary; takes part in the rounds");
    Ok(())
}
