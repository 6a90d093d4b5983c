//! A campaign: from a checked configuration to recorded trials.

mod before;
mod dealer;
pub mod fleet;
mod layers;
mod limits;
mod link;
mod measuring;
mod order;
mod pairs;
mod part;
mod peers;
mod plan;
mod planning;
mod power;
mod prepare;
pub mod processors;
pub mod provenance;
mod start_line;
mod state;
mod trials;
mod wire;

pub use before::Before;
pub use dealer::{Dealer, Lead, MoreWanted, Observed};
pub use link::Link;
pub(crate) use measuring::is_narrow;
pub use pairs::{Pair, Pairing};
pub use part::{Part, Seat};
pub use plan::{Planned, Plans};
pub use start_line::{StartLine, Turn};

use crate::provenance::Provenance;
use boards::Board;
use boards::session::SessionError;
use compiler::{Cache, Compiler, Kit};
use config::{self, Connect, Loaded};
use host::date::unix_ns;
use host::exit::{Ending as _, Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use host::progress::{self, Progress};
use measuring::Field;
use peers::OnnxRuntime;
use prepare::{Prepared, Workshop};
use processors::Processor;
use std::path::PathBuf;
use store::{
    ComparisonRecord, ProcessorRecord, Resumed, RunId, RunRecorder, RunStart, StateRecord, Status, Store,
};
use trials::Ready;

/// Where things lie.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Folder with `compiler/` and `ci/`: the checkout, or the unpacked archive.
    pub root: PathBuf,
    /// Folder with `configs/`.
    pub settings: PathBuf,
    /// Folder with `results/`.
    pub work: PathBuf,
    /// Cache, journals, logs.
    pub state: PathBuf,
    /// The private Python.
    pub python: PathBuf,
    /// The runner for this machine.
    pub runner: PathBuf,
    /// Links for this machine in place of `cc`, which it lacks.
    pub linker: Option<PathBuf>,
    /// The results database.
    pub database: PathBuf,
    /// Folder of the journals that belong to it.
    pub runs: PathBuf,
}

impl Paths {
    /// Refuses paths that no request can name: requests to compiler and runner are JSON, and JSON is UTF-8.
    fn check(&self) -> Outcome<()> {
        let named = [&self.root, &self.settings, &self.state, &self.python, &self.runner];
        match named.into_iter().find(|path| path.to_str().is_none()) {
            None => Ok(()),
            Some(path) => Err(Failure::new(
                Exit::Usage,
                format!(
                    "failed to use {}: its path is not UTF-8; rename its directory, or move the checkout",
                    path.display()
                ),
            )),
        }
    }

    /// The runner that was built for a board, else this machine's own where it is of the same kind.
    ///
    /// # Errors
    /// Where none was.
    pub fn runner_for(&self, board: &config::Board) -> Outcome<PathBuf> {
        let target = board.target.as_ref().filter(|_| board.connect != Connect::Local);
        let Some(target) = target else { return Ok(self.runner.clone()) };
        let (triple, runner) = (target.triple.text(), Kit::of(&self.state, target).runner());
        if runner.is_file() {
            return Ok(runner);
        }
        if target.triple.architecture() == std::env::consts::ARCH {
            return Ok(self.runner.clone());
        }
        Err(Failure::new(
            Exit::Board,
            format!(
                "failed to find a runner for the board {} ({triple}) at {}; {}",
                board.name,
                runner.display(),
                host::runner_of_board(&board.name)
            ),
        ))
    }
}

/// How a campaign ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The run.
    pub run: RunId,
    /// Whether the user stopped it.
    pub interrupted: bool,
    /// Trials that failed.
    pub failed_trials: u32,
}

/// A board taken, with its runner started.
#[derive(Debug)]
pub struct Campaign {
    loaded: Loaded,
    paths: Paths,
    interrupt: Interrupt,
    link: Link,
    workshop: Workshop,
    processors: Vec<Processor>,
    machine: protocol::MachineState,
    /// The state it was brought to.
    state: Option<StateRecord>,
    /// What it is among other boards, where there are some.
    part: Option<Part>,
    /// What the plan is made from.
    observed: Observed,
}

/// A network with its schedules.
#[derive(Debug)]
pub struct PlannedNetwork {
    /// Number of its first schedule within the run.
    first: usize,
    prepared: Prepared,
    /// What is to be measured.
    pub planned: Vec<Planned>,
}

impl PlannedNetwork {
    /// Names of the units, in order.
    pub fn unit_names(&self) -> Vec<&str> {
        self.prepared.network.units().iter().map(|unit| unit.name.as_str()).collect()
    }

    /// Number of a schedule within the run.
    fn place(&self, position: usize) -> u32 {
        u32::try_from(self.first + position).unwrap_or(u32::MAX)
    }

    /// The network's name.
    pub fn name(&self) -> &str {
        &self.prepared.name
    }
}

/// What is found and made ready on a board that was taken.
struct SetUp {
    workshop: Workshop,
    processors: Vec<Processor>,
    machine: protocol::MachineState,
    state: Option<StateRecord>,
}

impl SetUp {
    fn new(link: &mut Link, loaded: &Loaded, paths: &Paths, interrupt: &Interrupt) -> Outcome<Self> {
        let board = &loaded.board;
        // First of all: a power mode decides which CPUs there are.
        let brought = link.bring()?;
        let machine = link.state()?;
        let state = StateRecord::new(board.state.asked(), brought);
        let processors = processors::resolve(board, &machine)?;
        for note in limits::check(board, &machine, &processors)? {
            progress::say("warning", &note);
        }
        if let Some(note) = processors::left_out(board) {
            progress::say("note", &note);
        }
        let names: Vec<&str> = processors.iter().map(|processor| processor.name.as_str()).collect();
        config::check_processors(&loaded.experiment, &names).ending(Exit::Usage)?;
        let cache = Cache::open(paths.state.join("cache"), &paths.root).ending(Exit::Usage)?;
        let compiler = Compiler {
            python: paths.python.clone(),
            root: paths.root.clone(),
            logs: paths.state.join("logs"),
            linker: paths.linker.clone(),
            kit: board
                .target
                .as_ref()
                .filter(|_| board.connect != Connect::Local)
                .map(|target| Kit::of(&paths.state, target))
                .filter(|kit| kit.runner().is_file()),
        };
        let is_peer = |spec: &config::ScheduleSpec| matches!(spec, config::ScheduleSpec::Peer(_));
        let asked = loaded.experiment.schedules.iter().any(is_peer);
        if asked && compiler.kit.is_some() {
            return Err(Failure::new(
                Exit::Usage,
                format!(
                    "failed to place a peer on the board {}: this version has ONNX Runtime for this machine's kind \
                     of processor only; leave the peers out of the experiment",
                    loaded.board.name
                ),
            ));
        }
        let peer = asked.then(|| OnnxRuntime::find(&paths.python)).transpose()?;
        let workshop = Workshop { cache, compiler, interrupt: interrupt.clone(), peer };
        Ok(Self { workshop, processors, machine, state })
    }
}

/// Closes a link after a failure; a board that could not be restored then decides the exit code.
fn closing<T>(mut link: Link, outcome: Outcome<T>) -> Outcome<(T, Link)> {
    match outcome {
        Ok(value) => Ok((value, link)),
        Err(failure) => {
            let closed = link.close().ending(Exit::Board);
            Err(failure.after_closing(closed))
        }
    }
}

impl Campaign {
    /// Takes the board, starts the runner and finds the processors.
    ///
    /// # Errors
    /// Where the board is busy or lacks what the configuration asks for.
    pub fn open(loaded: Loaded, paths: Paths, interrupt: Interrupt) -> Outcome<Self> {
        paths.check()?;
        let runner = paths.runner_for(&loaded.board)?;
        let reached = Board::take(&loaded.board, runner, &interrupt)?;
        let mut link = Link::new(reached, interrupt.clone());
        let set_up = SetUp::new(&mut link, &loaded, &paths, &interrupt);
        let (SetUp { workshop, processors, machine, state }, link) = closing(link, set_up)?;
        let (part, observed) = (None, Observed::default());
        Ok(Self { loaded, paths, interrupt, link, workshop, processors, machine, state, part, observed })
    }

    /// Makes it a part of a campaign on several boards.
    #[must_use]
    pub fn as_part(mut self, part: Part) -> Self {
        self.part = Some(part);
        self
    }

    /// The configuration.
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// The board as it was found.
    pub fn found(&self) -> &protocol::MachineState {
        &self.machine
    }

    /// Restores the board's state and lets go of it. Returns the outcome of the work, and whether the state could be
    /// restored: what was measured counts either way.
    ///
    /// # Errors
    /// With the failure of the work; its exit code is [`Exit::Board`] if the board could not be restored either.
    pub fn close<T>(mut self, outcome: Outcome<T>) -> Outcome<(T, Outcome<()>)> {
        let closed = self.link.close().ending(Exit::Board);
        match outcome {
            Ok(value) => Ok((value, closed)),
            Err(failure) => Err(failure.after_closing(closed)),
        }
    }

    /// The processors in use.
    pub fn processors(&self) -> &[Processor] {
        &self.processors
    }

    /// Begins a run: plan, compare outputs, measure.
    ///
    /// # Errors
    /// What ends the run before its trials. A failed trial is recorded and counted, not returned.
    pub fn run(&mut self, store: &Store) -> Outcome<Ended> {
        let provenance =
            Provenance::collect(&self.paths.root, self.link.runner_version().unwrap_or("unknown"));
        if let Some(reason) = &provenance.git_absent {
            progress::say("note", &format!("no git revision is recorded with this run: {reason}"));
        }
        let compiler = self.workshop.compiler.versions(&self.workshop.cache);
        if compiler.is_none() {
            progress::say(
                "note",
                &format!(
                    "the compiler's versions are not recorded with this run, because it does not start; `{} setup` \
                     checks the private Python environment",
                    host::program()
                ),
            );
        }
        let idle = self.idle_power()?;
        let begun_unix_ns = unix_ns();
        let start = RunStart {
            id: RunId::new(begun_unix_ns),
            begun_unix_ns,
            experiment: self.loaded.experiment.name.clone(),
            board: self.loaded.board.name.clone(),
            processors: self.processors.iter().map(processor_record).collect(),
            machine: self.machine.clone(),
            host: provenance.host.clone(),
            command: provenance.command.clone(),
            configuration: self.loaded.to_yaml().ending(Exit::Bug)?,
            seed: self.loaded.experiment.seed,
            rounds: self.loaded.experiment.trials,
            versions: provenance.versions(compiler),
            revision: provenance.revision(),
            provenance: serde_json::to_value(&provenance).ending(Exit::Bug)?,
            campaign: self.part.as_ref().map(|part| part.record.clone()),
            state: self.state.clone(),
        };
        let mut recorder = RunRecorder::create(store, &self.paths.runs, start)?;
        if let Some(idle) = idle {
            recorder.record_idle(idle)?;
        }
        self.go(store, recorder, &Before::default())
    }

    /// Goes on with a run that was cut off: what it has is not measured again.
    ///
    /// # Errors
    /// As [`Campaign::run`], and where the run was made on other processors.
    pub fn resume(&mut self, store: &Store, run: &RunId) -> Outcome<Ended> {
        let resumed = Resumed { unix_ns: unix_ns(), command: host::arguments(), state: self.state.clone() };
        let (recorder, continued) = RunRecorder::resume(store, &self.paths.runs, run, resumed)?;
        if continued.cut_off_bytes > 0 {
            progress::say(
                "note",
                "the last record was being written when the run was cut off; it is dropped",
            );
        }
        let before = Before::read(store, run)?;
        let now: Vec<ProcessorRecord> = self.processors.iter().map(processor_record).collect();
        if before.processors != now {
            return Err(Failure::new(
                Exit::Board,
                format!(
                    "failed to go on with the run {run}: the board's processors are not those it began with; begin a \
                     new run"
                ),
            ));
        }
        self.go(store, recorder, &before)
    }

    fn go(&mut self, store: &Store, mut recorder: RunRecorder<'_>, before: &Before) -> Outcome<Ended> {
        let seat = self.part.as_ref().and_then(|part| part.seat.clone());
        let planned = match &seat {
            Some(seat) => self.plan_alike(&mut recorder, before, seat),
            None => self.plan(Some(&mut recorder), before),
        };
        let outcome =
            planned.and_then(|networks| self.compare_and_measure(store, &mut recorder, &networks, before));
        let status = match &outcome {
            Ok((true, _)) => Status::Interrupted,
            Ok((false, _)) => Status::Complete,
            Err(_) if self.interrupt.is_set() => Status::Interrupted,
            Err(_) => Status::Failed,
        };
        let run = recorder.run().clone();
        let reason = outcome.as_ref().err().map(ToString::to_string).filter(|_| status == Status::Failed);
        let finished = recorder.finish_because(status, unix_ns(), reason).map_err(Failure::from);
        if outcome.as_ref().is_err_and(|failure| failure.exit == Exit::Board) {
            let goes_on = format!(
                "`{program} bench --resume {run}` goes on once the board is well",
                program = host::program()
            );
            progress::say("note", &format!("what was measured is kept; {goes_on}"));
        }
        // What ended the run is told rather than what became of telling it.
        let (interrupted, failed_trials) = outcome?;
        finished?;
        Ok(Ended { run, interrupted, failed_trials })
    }

    fn compare_and_measure(
        &mut self,
        store: &Store,
        recorder: &mut RunRecorder<'_>,
        networks: &[PlannedNetwork],
        before: &Before,
    ) -> Outcome<(bool, u32)> {
        let mut ready = Vec::new();
        for network in networks {
            ready.push(self.ready(&network.prepared, &network.planned)?);
        }
        let mut usable = Vec::new();
        let progress = Progress::begin("compare", networks.len());
        for (network, ready) in networks.iter().zip(&ready) {
            progress.doing(&format!("{}: outputs of {} schedules", network.name(), ready.len()));
            match self.compare(recorder, network, ready, &progress)? {
                Some(fit) => {
                    let right = fit.iter().filter(|fit| **fit).count();
                    progress.step(&format!("{}: {right} of {} schedules agree", network.name(), fit.len()));
                    usable.push(fit);
                }
                None => return Ok((true, 0)),
            }
        }
        progress.end(&format!("outputs of {} networks", networks.len()));
        if let Some(turn) = self.part.as_mut().and_then(|part| part.turn.take()) {
            turn.wait_for_all(&self.interrupt);
        }
        let field = Field { networks, ready: &ready, usable: &usable, before };
        match self.part.as_ref().and_then(|part| part.seat.clone()) {
            Some(seat) => self.measure_dealt(recorder, &field, &seat),
            None => self.measure(store, recorder, &field),
        }
    }

    /// Compares all schedules of a network with a single one. Says which may be measured; `None` where the user
    /// interrupted.
    fn compare(
        &mut self,
        recorder: &mut RunRecorder<'_>,
        network: &PlannedNetwork,
        ready: &[Ready],
        progress: &Progress,
    ) -> Outcome<Option<Vec<bool>>> {
        let is_single = |ready: &Ready| ready.planned.schedule.kind() == domain::ScheduleKind::Single;
        let single = ready.iter().position(is_single);
        let baseline = match single {
            Some(position) => ready[position].clone(),
            None => self.first_single(&network.prepared)?,
        };
        let name = &network.prepared.name;
        let mut usable = Vec::new();
        for (position, candidate) in ready.iter().enumerate() {
            let label = candidate.planned.schedule.label();
            match trials::compare(&mut self.link, &self.loaded.experiment, name, &baseline, candidate) {
                Err(SessionError::Interrupted) => return Ok(None),
                Err(error @ SessionError::Board(_)) => return Err(error.into()),
                Err(error) => {
                    // Its trials will tell; they fail for the same reason and are recorded with it.
                    progress.warn(&error.to_string());
                    usable.push(true);
                }
                Ok(compared) => {
                    let place = network.place(position);
                    let comparison = ComparisonRecord {
                        schedule: place,
                        reference: single.map_or(place, |single| network.place(single)),
                        tolerance: self.loaded.experiment.tolerance,
                        compared,
                    };
                    let fit = comparison.within_tolerance();
                    if !fit {
                        progress.warn(&format!(
                            "{name} on {label} gives other outputs than the baseline; it is void"
                        ));
                    }
                    usable.push(fit);
                    recorder.record_comparison(comparison)?;
                }
            }
        }
        Ok(Some(usable))
    }

    fn ready(&self, prepared: &Prepared, planned: &[Planned]) -> Outcome<Vec<Ready>> {
        let peer = self.workshop.peer.as_ref();
        trials::ready(&self.loaded.experiment, prepared, planned, &self.processors, peer)
    }

    fn first_single(&self, prepared: &Prepared) -> Outcome<Ready> {
        let Some(processor) = self.processors.first() else {
            return Err(Failure::new(Exit::Bug, "a board without processors was opened"));
        };
        let schedule = domain::Schedule::single(&prepared.network, processor.name.clone());
        let planned = [Planned { schedule, prediction: None }];
        let mut ready = self.ready(prepared, &planned)?;
        ready.pop().ok_or_else(|| Failure::new(Exit::Bug, "a single schedule was not made ready"))
    }
}

fn processor_record(processor: &Processor) -> ProcessorRecord {
    ProcessorRecord {
        name: processor.name.to_string(),
        cpus: processor.cpus.clone(),
        threads: processor.threads,
    }
}
