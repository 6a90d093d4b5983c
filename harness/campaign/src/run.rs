//! A run: all steps on one board, recorded.

use crate::canary;
use crate::compare;
use crate::compile::CompiledNetwork;
use crate::link::{self, LinkedNetwork};
use crate::measure::{Measured, measure, measure_from_queue, record_power_cycles};
use crate::open::OpenedBoard;
use crate::optimize;
use crate::plan::{self, NetworkPlan};
use crate::prior::PriorResults;
use crate::processors::Processor;
use crate::profile;
use crate::provenance::Provenance;
use crate::recording::Recording;
use crate::round_queue::{ProfileSource, RoundSource};
use crate::start_barrier::PreparationGuard;
use crate::stop::Stop;
use crate::verify;
use compiler::StageLayout;
use host::date::unix_ns;
use host::exit::{Ending as _, Exit, Failure, Outcome};
use host::progress;
use store::{
    CampaignRecord, NetworkRecord, ProcessorRecord, Resumed, RunId, RunRecorder, RunStart, ScheduleRecord,
    Status, Store,
};

/// How a run ended that could measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEnd {
    /// The run.
    pub run: RunId,
    /// Whether the user stopped it.
    pub interrupted: bool,
    /// Number of failed trials.
    pub failed_trials: u32,
}

/// What a board needs to know as one of several.
#[derive(Debug)]
pub(crate) struct FleetMember {
    pub(crate) record: CampaignRecord,
    /// Present if the boards share the rounds.
    pub(crate) rounds: Option<RoundSource>,
    /// Present if this machine is one of the boards; held until the board is prepared.
    pub(crate) preparation: Option<PreparationGuard>,
}

/// Plans without measuring trials or recording anything.
///
/// # Errors
/// If a network cannot be compiled, verified, profiled or cut as the experiment asks.
pub fn plan(board: &mut OpenedBoard) -> Outcome<Vec<NetworkPlan>> {
    let networks = link_without_recording(board)?;
    Ok(networks.into_iter().map(|network| network.plan).collect())
}

pub(crate) fn link_without_recording(board: &mut OpenedBoard) -> Outcome<Vec<LinkedNetwork>> {
    let (networks, _) = prepare(board, &PriorResults::default(), &mut Recording(None))?;
    Ok(networks)
}

/// Starts a new run on one board.
///
/// # Errors
/// Whatever prevents the trials. A failed trial is recorded and counted, and is not an error.
pub fn run(board: &mut OpenedBoard, store: &Store) -> Outcome<RunEnd> {
    run_as(board, store, None)
}

/// Resumes a run: measures what it lacks.
///
/// # Errors
/// As [`run()`], and if the board's processors have changed.
pub fn resume(board: &mut OpenedBoard, store: &Store, run: &RunId) -> Outcome<RunEnd> {
    resume_as(board, store, run, None)
}

pub(crate) fn run_as(board: &mut OpenedBoard, store: &Store, member: Option<FleetMember>) -> Outcome<RunEnd> {
    let version = board.runner.runner_version().unwrap_or("unknown");
    let provenance = Provenance::collect(&board.paths.root, version);
    if let Some(reason) = &provenance.git_absent {
        progress::say("note", &format!("this run has no git revision: {reason}"));
    }
    let compiler = board.builder.compiler.versions(&board.builder.cache);
    if compiler.is_none() {
        progress::say(
            "note",
            &format!(
                "this run has no compiler versions, because the compiler does not start; `{} setup` checks the private \
                 Python environment",
                host::program()
            ),
        );
    }
    let idle = board.idle_power()?;
    let begun_unix_ns = unix_ns();
    let start = RunStart {
        id: RunId::new(begun_unix_ns),
        begun_unix_ns,
        experiment: board.loaded.experiment.name.clone(),
        board: board.loaded.board.name.clone(),
        processors: board.processors().iter().map(Processor::record).collect(),
        machine: board.machine().clone(),
        host: provenance.host.clone(),
        command: provenance.command.clone(),
        configuration: board.loaded.to_yaml().ending(Exit::Bug)?,
        seed: board.loaded.experiment.seed,
        rounds: board.loaded.experiment.trials,
        versions: provenance.versions(compiler),
        revision: provenance.revision(),
        provenance: serde_json::to_value(&provenance).ending(Exit::Bug)?,
        campaign: member.as_ref().map(|member| member.record.clone()),
        state: board.found.state.clone(),
    };
    let mut recorder = RunRecorder::create(store, &board.paths.runs, start)?;
    if let Some(idle) = idle {
        recorder.record_idle(idle)?;
    }
    execute(board, store, recorder, &PriorResults::default(), member)
}

pub(crate) fn resume_as(
    board: &mut OpenedBoard,
    store: &Store,
    run: &RunId,
    member: Option<FleetMember>,
) -> Outcome<RunEnd> {
    let resumed =
        Resumed { unix_ns: unix_ns(), command: host::arguments(), state: board.found.state.clone() };
    let (recorder, continued) = RunRecorder::resume(store, &board.paths.runs, run, resumed)?;
    if continued.cut_off_bytes > 0 {
        progress::say("note", "the run was killed while it wrote its last record; that record is dropped");
    }
    let prior = PriorResults::read(store, run)?;
    let processors: Vec<ProcessorRecord> = board.processors().iter().map(Processor::record).collect();
    let same = prior.processors.len() == processors.len()
        && prior.processors.iter().zip(&processors).all(|(prior, now)| now.continues(prior));
    if !same {
        return Err(Failure::new(
            Exit::Board,
            format!(
                "failed to resume the run {run}: the board's processors have changed since it began; start a new run"
            ),
        ));
    }
    execute(board, store, recorder, &prior, member)
}

/// Executes the steps, and records how the run ended.
fn execute(
    board: &mut OpenedBoard,
    store: &Store,
    mut recorder: RunRecorder<'_>,
    prior: &PriorResults,
    member: Option<FleetMember>,
) -> Outcome<RunEnd> {
    let result = steps(board, store, &mut recorder, prior, member);
    // Those of a run that ended before its next trial.
    let cycles = record_power_cycles(&mut board.runner, &mut recorder);
    let status = match &result {
        Ok(_) => Status::Complete,
        Err(Stop::Interrupted) => Status::Interrupted,
        Err(Stop::Failed(_)) if board.interrupt.is_set() => Status::Interrupted,
        Err(Stop::Failed(_)) => Status::Failed,
    };
    let run = recorder.run().clone();
    let reason = match &result {
        Err(Stop::Failed(failure)) if status == Status::Failed => Some(failure.to_string()),
        _ => None,
    };
    let finished = recorder.finish_because(status, unix_ns(), reason);
    // Report the run error before any recording error.
    let failed_trials = match result {
        Ok(measured) => measured.failed_trials,
        Err(Stop::Interrupted) => 0,
        Err(Stop::Failed(failure)) => {
            if failure.exit == Exit::Board {
                let command = if board.loaded.experiment.search.is_some() { "optimize" } else { "bench" };
                let remedy = format!(
                    "`{} {command} --resume {run}` continues once the board is reachable",
                    host::program()
                );
                progress::say("note", &format!("the results so far are kept; {remedy}"));
            }
            return Err(failure);
        }
    };
    cycles.and(finished)?;
    Ok(RunEnd { run, interrupted: status == Status::Interrupted, failed_trials })
}

fn steps(
    board: &mut OpenedBoard,
    store: &Store,
    recorder: &mut RunRecorder<'_>,
    prior: &PriorResults,
    mut member: Option<FleetMember>,
) -> Result<Measured, Stop> {
    if let Some(search) = board.loaded.experiment.search.clone() {
        let (linked, profiles) = prepare(board, prior, &mut Recording(Some(recorder)))?;
        return optimize::optimize(board, store, recorder, prior, &search, (linked, profiles.costs));
    }
    let rounds = member.as_ref().and_then(|member| member.rounds.clone());
    let linked = match &rounds {
        Some(source) => prepare_alike(board, recorder, prior, source)?,
        None => prepare(board, prior, &mut Recording(Some(recorder)))?.0,
    };
    let compared = compare::compare(board, recorder, linked)?;
    if let Some(guard) = member.as_mut().and_then(|member| member.preparation.take()) {
        guard.wait_for_all(&board.interrupt);
    }
    if let Some(source) = &rounds {
        canary::check(board, &compared, source)?;
    }
    match &rounds {
        Some(source) => measure_from_queue(board, recorder, &compared, prior, source),
        None => measure(board, store, recorder, &compared, prior),
    }
}

/// The steps before the comparison. Takes from `prior` what is recorded already.
fn prepare(
    board: &mut OpenedBoard,
    prior: &PriorResults,
    recording: &mut Recording<'_, '_>,
) -> Outcome<(Vec<LinkedNetwork>, profile::Profiles)> {
    let networks = board.builder.compile_networks(&board.loaded.experiment, board.processors())?;
    for network in networks.iter().filter(|network| !prior.networks.contains(&network.name)) {
        recording.write(|recorder| recorder.record_network(network_record(network)))?;
    }
    let processors = board.found.processors.clone();
    verify::verify(board, &networks, &processors)?;
    let profiles = profile::profile(board, &networks, &prior.profiles, recording)?;
    let plans = plan::plan(board, networks, &profiles, prior)?;
    let linked = link::link(board, plans)?;
    for network in &linked {
        record_schedules(recording, prior, &network.plan)?;
    }
    Ok((linked, profiles))
}

/// As [`prepare`], but all boards plan from the profiles of one, so that they measure the same schedules.
fn prepare_alike(
    board: &mut OpenedBoard,
    recorder: &mut RunRecorder<'_>,
    prior: &PriorResults,
    source: &RoundSource,
) -> Outcome<Vec<LinkedNetwork>> {
    match source.queue.profile_source(source.board) {
        ProfileSource::Interrupted => Err(Failure::new(Exit::Trial, "interrupted")),
        ProfileSource::Shared(profiles) => {
            progress::say("profile", "using the profiles of another equal board");
            let prior = PriorResults { profiles: (*profiles).clone(), ..prior.clone() };
            Ok(prepare(board, &prior, &mut Recording(Some(recorder)))?.0)
        }
        ProfileSource::Measure => {
            // If this fails the board is lost, and another one profiles.
            let (linked, profiles) = prepare(board, prior, &mut Recording(Some(recorder)))?;
            source.queue.share_profiles(profiles.records);
            Ok(linked)
        }
    }
}

fn record_schedules(
    recording: &mut Recording<'_, '_>,
    prior: &PriorResults,
    plan: &NetworkPlan,
) -> Outcome<()> {
    for (position, planned) in plan.schedules.iter().enumerate() {
        let place = plan.place(position);
        match prior.schedules.iter().find(|known| known.place == place) {
            Some(known) if known.schedule == planned.schedule => continue,
            Some(known) => {
                return Err(Failure::new(
                    Exit::Usage,
                    format!(
                        "failed to resume: the run measured {} on {}, and this version of edgepipe plans {} instead; \
                         start a new run",
                        plan.name(),
                        known.schedule.label(),
                        planned.schedule.label()
                    ),
                ));
            }
            None => {}
        }
        let schedule = ScheduleRecord {
            place,
            network: plan.name().to_owned(),
            schedule: planned.schedule.clone(),
            point: 0,
            prediction: planned.prediction.clone(),
            queues: planned.queues,
        };
        recording.write(|recorder| recorder.record_schedule(schedule))?;
    }
    Ok(())
}

fn network_record(network: &CompiledNetwork) -> NetworkRecord {
    let units = network.manifest.units.len();
    let mut fallback: Vec<u32> = network
        .entries
        .iter()
        .filter_map(|(_, entry)| entry.stage(0, units, StageLayout::PLAIN))
        .flat_map(|stage| stage.fallback_units.into_iter().map(|unit| unit.unit))
        .collect();
    fallback.sort_unstable();
    fallback.dedup();
    let mut source = network.source.describe();
    if !network.precision.is_single() {
        source[store::PRECISION] = network.precision.to_string().into();
    }
    if !network.winograd.is_auto() {
        source[store::WINOGRAD] = network.winograd.to_string().into();
    }
    NetworkRecord {
        source,
        sha256: network.sha256.clone(),
        network: network.network.clone(),
        fallback_units: fallback,
    }
}
