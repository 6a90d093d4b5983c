//! The first step: takes the board, starts its runner, brings the board to its configured state and resolves its
//! processors.

use crate::compile::ArtifactBuilder;
use crate::limits;
use crate::merged;
use crate::paths::Paths;
use crate::points::{self, Points};
use crate::processors::{self, Processor};
use crate::runner_client::RunnerClient;
use boards::Board;
use config::{Connect, Experiment, Loaded, ScheduleSpec};
use host::exit::{Ending as _, Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use host::progress;
use protocol::MachineState;
use store::StateRecord;

/// A board that is held for this process alone, with a client of its runner.
#[derive(Debug)]
pub struct OpenedBoard {
    pub(crate) loaded: Loaded,
    pub(crate) paths: Paths,
    pub(crate) interrupt: Interrupt,
    pub(crate) runner: RunnerClient,
    pub(crate) builder: ArtifactBuilder,
    pub(crate) found: FoundBoard,
}

/// What was found on a board after it was brought to its state.
#[derive(Debug)]
pub(crate) struct FoundBoard {
    pub(crate) machine: MachineState,
    /// The state it was brought to, if its file asks for one.
    pub(crate) state: Option<StateRecord>,
    /// Those of the board, then the merged ones that the experiment uses.
    pub(crate) processors: Vec<Processor>,
    pub(crate) points: Points,
}

/// Takes a board and finds what is on it.
///
/// # Errors
/// If the board is busy, cannot be reached, or lacks what the configuration asks for.
pub fn open(loaded: Loaded, paths: Paths, interrupt: Interrupt) -> Outcome<OpenedBoard> {
    let waiting = interrupt.clone();
    open_while(loaded, paths, interrupt, &waiting)
}

/// As [`open()`], but waits for the place of a farm only until `waiting` is set.
///
/// # Errors
/// As [`open()`].
pub(crate) fn open_while(
    loaded: Loaded,
    paths: Paths,
    interrupt: Interrupt,
    waiting: &Interrupt,
) -> Outcome<OpenedBoard> {
    paths.check()?;
    check_objective(&loaded.experiment)?;
    let programs = paths.programs_for(&loaded.board)?;
    let board = Board::take(&loaded.board, programs, &interrupt, waiting)?;
    let mut loaded = loaded;
    if let (Connect::Labgrid(farm), Some(place)) = (&mut loaded.board.connect, board.place()) {
        farm.settle(place);
    }
    let mut runner = RunnerClient::new(board, interrupt.clone());
    let found = find(&mut runner, &loaded)
        .and_then(|found| Ok((found, ArtifactBuilder::new(&loaded, &paths, interrupt.clone())?)));
    match found {
        Ok((found, builder)) => Ok(OpenedBoard { loaded, paths, interrupt, runner, builder, found }),
        Err(failure) => Err(failure.after_closing(runner.close().ending(Exit::Board))),
    }
}

/// Energy cannot be planned before it was measured.
fn check_objective(experiment: &Experiment) -> Outcome<()> {
    let is_planned =
        experiment.schedules.iter().any(|spec| matches!(spec, ScheduleSpec::PipelineAuto { .. }));
    if experiment.search.is_some() || !is_planned || !experiment.objective.needs_energy() {
        return Ok(());
    }
    let message = format!(
        "failed to plan the experiment {} for {}: `pipeline: auto` is planned for throughput before energy is measured; use \
         `{} optimize --experiment {}`, or `objective: throughput`",
        experiment.name,
        experiment.objective,
        host::program(),
        experiment.name
    );
    Err(Failure::new(Exit::Usage, message))
}

fn find(runner: &mut RunnerClient, loaded: &Loaded) -> Outcome<FoundBoard> {
    let board = &loaded.board;
    // The power mode decides which CPUs are online, so the state is set before the machine is read.
    let applied = runner.bring()?;
    let machine = if processors::may_have_gpus(board) { runner.whole_state()? } else { runner.state()? };
    let set = applied.set.clone();
    let state = StateRecord::new(board.state.asked(), applied);
    let mut processors = processors::resolve(board, &machine)?;
    for warning in limits::check(board, &machine, &processors)? {
        progress::say("warning", &warning);
    }
    for note in processors::notes(board, &machine, &processors) {
        progress::say("note", &note);
    }
    let names: Vec<&str> = processors.iter().map(|processor| processor.name.as_str()).collect();
    config::check_processors(&loaded.experiment, &names).ending(Exit::Usage)?;
    processors.extend(merged::used(&loaded.experiment.schedules, &processors, &machine)?);
    let points = match &loaded.experiment.search {
        Some(_) => points::find(runner, board, &processors, &set)?,
        None => Points::one(board, &processors),
    };
    Ok(FoundBoard { machine, state, processors, points })
}

impl OpenedBoard {
    /// The configuration.
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// The processors of the board.
    pub fn processors(&self) -> &[Processor] {
        &self.found.processors
    }

    pub(crate) fn machine(&self) -> &MachineState {
        &self.found.machine
    }

    /// One line about the board's CPUs and kernel.
    pub fn describe(&self) -> String {
        let machine = self.machine();
        let cpu = machine.cpu_model.as_deref().unwrap_or(&machine.arch);
        format!("{} CPUs of {cpu}, kernel {}", machine.allowed_cpus.len(), machine.kernel)
    }

    /// Restores the board's state and releases the board. Returns the result of the work and that of the restoration
    /// separately, because what was measured is valid even if the restoration failed.
    ///
    /// # Errors
    /// The failure of the work; its exit code is [`Exit::Board`] if the restoration failed too.
    pub fn close<T>(mut self, outcome: Outcome<T>) -> Outcome<(T, Outcome<()>)> {
        let closed = self.runner.close().ending(Exit::Board);
        match outcome {
            Ok(value) => Ok((value, closed)),
            Err(failure) => Err(failure.after_closing(closed)),
        }
    }
}
