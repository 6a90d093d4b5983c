//! Several boards at once: a run on each, in its own thread with its own connection, journal and database connection.
//! The name of the campaign links the runs.
//!
//! A board that is lost or cannot be opened is set aside with its reason, and the others continue. If equal boards share
//! the rounds, they take over its rounds.

mod equality;
mod job;
mod request;

pub use job::FleetJob;
pub use request::{BenchJob, BenchRequest, resolve};

use crate::measure::{MAX_ROUNDS, is_narrow};
use crate::open::{self, OpenedBoard};
use crate::paths::Paths;
use crate::profile::ProfileRecords;
use crate::round_queue::{RoundQueue, RoundSource};
use crate::run::{FleetMember, RunEnd, resume_as, run_as};
use crate::start_barrier::StartBarrier;
use analysis::CampaignReport;
use domain::{FleetMode, precision};
use host::exit::{Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use host::progress::{self, Lines};
use job::Job;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::Instant;
use store::{self, Access, CampaignRecord, Store, StoreError, StoredRun};

/// A board with the result of its run.
type BoardResult = (String, Outcome<RunEnd>);

/// How a bench on several boards ended.
#[derive(Debug)]
pub struct FleetEnd {
    /// The report of all boards.
    pub report: CampaignReport,
    /// The exit code of the command.
    pub exit: Exit,
    /// What the user can do about missing boards or trials.
    pub advice: Option<String>,
}

/// Measures on all boards.
///
/// # Errors
/// If no board could start, or if boards that share rounds differ.
pub fn bench(job: FleetJob, paths: &Paths, interrupt: &Interrupt, store: &Store) -> Outcome<FleetEnd> {
    let FleetJob { record, jobs } = job;
    let lines = Lines::new(record.boards.iter().map(String::as_str));
    let opened = open_all(&lines, &jobs, paths, interrupt);
    let queue = match record.mode {
        FleetMode::Repeat => None,
        FleetMode::Spread => {
            let queue = check_equal(&opened).and_then(|()| round_queue(&record, &jobs, interrupt, store));
            match queue {
                Ok(queue) => Some(Arc::new(queue)),
                Err(failure) => return Err(close_all(opened, failure)),
            }
        }
    };
    let has_local = opened.iter().flatten().any(|opened| opened.loaded().board.connect.is_local());
    let barrier = has_local.then(|| Arc::new(StartBarrier::new(opened.iter().flatten().count())));
    let mut results: Vec<BoardResult> = Vec::new();
    let mut work: Vec<(&Job, OpenedBoard, Option<RoundSource>)> = Vec::new();
    for (board, (job, opened)) in jobs.iter().zip(opened).enumerate() {
        match opened {
            Ok(opened) => {
                let source = queue.clone().map(|queue| RoundSource { queue, board });
                work.push((job, opened, source));
            }
            Err(failure) => {
                if let Some(queue) = &queue {
                    queue.remove(board);
                }
                results.push((job.board().to_owned(), Err(failure)));
            }
        }
    }
    let measured: Vec<BoardResult> = thread::scope(|scope| {
        let threads: Vec<_> = work
            .into_iter()
            .map(|(job, opened, rounds)| {
                let (lines, record, barrier) = (&lines, record.clone(), barrier.as_ref());
                let thread = scope.spawn(move || {
                    lines.speaking_for(job.board(), || {
                        // Even if this thread panics, no other one waits for it.
                        let _remove = rounds.clone().map(RemoveOnDrop);
                        let preparation = barrier.map(StartBarrier::prepare);
                        let member = FleetMember { record, rounds, preparation };
                        let result = measure(opened, job, paths, member);
                        report_set_aside(&result, interrupt);
                        result
                    })
                });
                (job.board().to_owned(), thread)
            })
            .collect();
        threads.into_iter().map(|(board, thread)| (board, joined(thread.join()))).collect()
    });
    results.extend(measured);
    conclude(&record, &results, interrupt, store)
}

/// Releases all boards after a failure.
fn close_all(opened: Vec<Outcome<OpenedBoard>>, failure: Failure) -> Failure {
    opened.into_iter().flatten().fold(failure, |failure, opened| {
        let closed = opened.close(Ok(())).and_then(|((), closed)| closed);
        failure.after_closing(closed)
    })
}

/// Removes a board from the queue when this is dropped.
struct RemoveOnDrop(RoundSource);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        self.0.queue.remove(self.0.board);
    }
}

/// Opens all boards at the same time.
fn open_all(lines: &Lines, jobs: &[Job], paths: &Paths, interrupt: &Interrupt) -> Vec<Outcome<OpenedBoard>> {
    let open = |job: &Job| {
        let opened = open::open(job.loaded.clone(), paths.clone(), interrupt.clone());
        report_set_aside(&opened, interrupt);
        opened
    };
    let open = &open;
    thread::scope(|scope| {
        let threads: Vec<_> = jobs
            .iter()
            .map(|job| scope.spawn(move || lines.speaking_for(job.board(), || open(job))))
            .collect();
        threads.into_iter().map(|thread| joined(thread.join())).collect()
    })
}

/// Reports why a board is set aside, unless the user interrupted.
fn report_set_aside<T>(outcome: &Outcome<T>, interrupt: &Interrupt) {
    if let Err(failure) = outcome
        && !interrupt.is_set()
    {
        progress::say("set aside", &failure.to_string());
    }
}

fn joined<T>(thread: thread::Result<Outcome<T>>) -> Outcome<T> {
    thread.unwrap_or_else(|_| {
        Err(Failure::new(Exit::Bug, "the thread of a board panicked; what it measured is in its journal"))
    })
}

fn measure(mut board: OpenedBoard, job: &Job, paths: &Paths, member: FleetMember) -> Outcome<RunEnd> {
    // A database connection belongs to one thread.
    let store = Store::open(&paths.database, Access::ReadWrite).map_err(Failure::from);
    let ended = store.and_then(|store| match &job.resume {
        Some(run) => resume_as(&mut board, &store, &run.start.id, Some(member)),
        None => run_as(&mut board, &store, Some(member)),
    });
    let (ended, closed) = board.close(ended)?;
    closed.map(|()| ended)
}

/// Refuses to share rounds among boards that differ.
fn check_equal(opened: &[Outcome<OpenedBoard>]) -> Outcome<()> {
    let mut boards = opened.iter().flatten();
    let Some(first) = boards.next() else { return Ok(()) };
    let differences: Vec<String> = boards
        .filter_map(|other| {
            let differences = equality::differences(first, other)?;
            Some(format!(
                "{} and {} differ in {differences}",
                first.loaded().board.name,
                other.loaded().board.name
            ))
        })
        .collect();
    if differences.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Usage,
        format!(
            "failed to spread trials over different boards: {}. `--mode repeat` measures everything on \
             each board",
            differences.join("; ")
        ),
    ))
}

/// A queue of the rounds that are not measured yet.
fn round_queue(
    record: &CampaignRecord,
    jobs: &[Job],
    interrupt: &Interrupt,
    store: &Store,
) -> Outcome<RoundQueue> {
    let (mut done, mut parts) = (BTreeSet::new(), BTreeMap::new());
    let mut profiles: Option<ProfileRecords> = None;
    let mut is_planned = false;
    for (board, run) in jobs.iter().enumerate().filter_map(|(board, job)| Some((board, job.resume.as_ref()?)))
    {
        let (whole, part) = rounds_of(store, run)?;
        done.extend(whole);
        parts.extend(part.into_iter().map(|round| (round, board)));
        let found = ProfileRecords::read(store, run)?;
        is_planned |= !store.schedules(run)?.is_empty();
        if profiles.as_ref().is_none_or(|known: &ProfileRecords| known.profiles.len() < found.profiles.len())
        {
            profiles = Some(found);
        }
    }
    // Schedules are recorded after all profiles.
    let profiles = profiles.filter(|_| is_planned);
    parts.retain(|round, _| !done.contains(round));
    let experiment = &jobs[0].loaded.experiment;
    let queue = RoundQueue::new(interrupt.clone(), jobs.len(), experiment.trials, &done, &parts);
    if let Some(profiles) = profiles {
        queue.share_profiles(profiles);
    }
    let Some(wanted) = experiment.precision else { return Ok(queue) };
    let (path, id, max_time) = (store.path().to_owned(), record.id.clone(), experiment.max_time);
    let start = Instant::now();
    Ok(queue.until(Box::new(move |rounds| {
        let pooled = || {
            let store = Store::open(&path, Access::ReadOnly)?;
            let report = CampaignReport::build(&store, id.as_str(), &BTreeMap::new())?;
            report.pooled.ok_or_else(|| StoreError::Empty { path: path.clone() })
        };
        if rounds >= precision::FEWEST_ROUNDS && is_narrow(pooled(), rounds, wanted) {
            progress::say("refine", &format!("±{:.1} % reached after {rounds} rounds", 100.0 * wanted));
            return false;
        }
        let is_over = start.elapsed() >= max_time || rounds >= MAX_ROUNDS;
        if is_over {
            let minutes = start.elapsed().as_secs_f64() / 60.0;
            let result =
                format!("±{:.1} % not reached in {minutes:.1} minutes and {rounds} rounds", 100.0 * wanted);
            progress::say("refine", &result);
        }
        !is_over
    })))
}

/// Rounds of which a run has every trial, and rounds of which it has some.
fn rounds_of(store: &Store, run: &StoredRun) -> Result<(BTreeSet<u32>, BTreeSet<u32>), StoreError> {
    let wrong: BTreeSet<u32> = store
        .comparisons(run)?
        .iter()
        .filter(|comparison| !comparison.within_tolerance())
        .map(|comparison| comparison.schedule)
        .collect();
    let wanted: BTreeSet<u32> = store
        .schedules(run)?
        .iter()
        .map(|schedule| schedule.place)
        .filter(|place| !wrong.contains(place))
        .collect();
    let mut measured: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    store.each_brief_trial(run, |trial| {
        if matches!(trial.outcome, store::Outcome::Measured(_)) {
            measured.entry(trial.round).or_default().insert(trial.schedule);
        }
    })?;
    let (whole, part): (Vec<_>, Vec<_>) =
        measured.into_iter().partition(|(_, places)| wanted.is_subset(places));
    let rounds = |of: Vec<(u32, BTreeSet<u32>)>| of.into_iter().map(|(round, _)| round).collect();
    Ok((rounds(whole), rounds(part)))
}

/// Builds the report and chooses the exit code.
fn conclude(
    record: &CampaignRecord,
    results: &[BoardResult],
    interrupt: &Interrupt,
    store: &Store,
) -> Outcome<FleetEnd> {
    let lost: Vec<&Failure> = results.iter().filter_map(|(_, result)| result.as_ref().err()).collect();
    let reasons: BTreeMap<String, String> = results
        .iter()
        .filter_map(|(board, result)| Some((board.clone(), result.as_ref().err()?.to_string())))
        .collect();
    let has_runs = store.campaign(record.id.as_str())?.is_some();
    if !has_runs {
        let exit = if interrupt.is_set() { Exit::Trial } else { worst(&lost).unwrap_or(Exit::Board) };
        let why =
            if interrupt.is_set() { "interrupted" } else { "failed to start: every board was set aside" };
        return Err(Failure::new(exit, why));
    }
    let report = CampaignReport::build(store, record.id.as_str(), &reasons)?;
    if interrupt.is_set() {
        let advice = format!(
            "interrupted: the results so far are kept; `{} bench --resume {}` continues",
            host::program(),
            record.id
        );
        return Ok(FleetEnd { report, exit: Exit::Trial, advice: Some(advice) });
    }
    if let Some(exit) = worst(&lost) {
        let advice = format!(
            "{} of {} boards were set aside; once they are reachable, `{program} bench --resume {}` continues",
            lost.len(),
            record.boards.len(),
            record.id,
            program = host::program()
        );
        return Ok(FleetEnd { report, exit, advice: Some(advice) });
    }
    let failed = results.iter().any(|(_, result)| result.as_ref().is_ok_and(|ended| ended.failed_trials > 0));
    let exit = if failed || report.has_void_rows() { Exit::Trial } else { Exit::Fine };
    Ok(FleetEnd { report, exit, advice: None })
}

/// The exit code for several failures: bugs first, then what the user can correct, then the boards.
fn worst(failures: &[&Failure]) -> Option<Exit> {
    let rank = |exit: Exit| match exit {
        Exit::Bug => 3,
        Exit::Usage => 2,
        Exit::Fine | Exit::Regression | Exit::Board | Exit::Trial => 1,
    };
    let worst = failures.iter().map(|failure| failure.exit).max_by_key(|exit| rank(*exit))?;
    // Whatever the reason, the board is missing.
    Some(if rank(worst) == 1 { Exit::Board } else { worst })
}
