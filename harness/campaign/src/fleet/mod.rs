//! Several boards at once: a run on each, in a thread of its own with its own link, journal and database connection,
//! tied together by the name of their campaign.
//!
//! A board that is lost or cannot be had is set aside with its reason; the others go on. Where equal boards share the
//! rounds, what it had to do goes to them (see [`Dealer`]).

mod asked;
mod likeness;

pub use asked::{Asked, Request, asked};

use crate::measuring::MAX_ROUNDS;
use crate::{Campaign, Dealer, Ended, Observed, Part, Paths, Seat, StartLine, is_narrow};
use analysis::CampaignReport;
use config::{Connect, Loaded};
use domain::{FleetMode, precision};
use host::exit::{Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use host::progress::{self, Lines};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::Instant;
use store::{self, Access, CampaignRecord, Store, StoreError, StoredRun};

/// A board with its work.
#[derive(Debug)]
struct Job {
    loaded: Loaded,
    /// What it has already.
    before: Option<StoredRun>,
}

impl Job {
    fn board(&self) -> &str {
        &self.loaded.board.name
    }
}

/// A board, and how it went.
type Fate = (String, Outcome<Ended>);

/// One `bench` on several boards.
#[derive(Debug)]
pub struct Several {
    record: CampaignRecord,
    jobs: Vec<Job>,
}

/// How a bench on several boards ended.
#[derive(Debug)]
pub struct FleetEnded {
    /// What was measured.
    pub report: CampaignReport,
    /// The exit code of the command.
    pub exit: Exit,
    /// What the user can do about boards or trials that are missing.
    pub advice: Option<String>,
}

impl Several {
    /// The boards and how they share the trials.
    pub fn record(&self) -> &CampaignRecord {
        &self.record
    }

    /// Measures on all boards.
    ///
    /// # Errors
    /// If no board could begin, or if boards that share rounds differ.
    pub fn bench(self, paths: &Paths, interrupt: &Interrupt, store: &Store) -> Outcome<FleetEnded> {
        let Self { record, jobs } = self;
        let lines = Lines::new(record.boards.iter().map(String::as_str));
        let opened = open(&lines, &jobs, paths, interrupt);
        let dealer = match record.mode {
            FleetMode::Repeat => None,
            FleetMode::Spread => {
                let dealt = check_alike(&opened).and_then(|()| dealer(&record, &jobs, interrupt, store));
                match dealt {
                    Ok(dealer) => Some(Arc::new(dealer)),
                    Err(failure) => return Err(close_all(opened, failure)),
                }
            }
        };
        let is_here = opened.iter().flatten().any(|one| one.loaded().board.connect == Connect::Local);
        let start = is_here.then(|| Arc::new(StartLine::new(opened.iter().flatten().count())));
        let mut fates: Vec<Fate> = Vec::new();
        let mut work: Vec<(usize, &Job, Campaign, Option<Seat>)> = Vec::new();
        for (board, (job, opened)) in jobs.iter().zip(opened).enumerate() {
            match opened {
                Ok(campaign) => {
                    let seat = dealer.clone().map(|dealer| Seat { dealer, board });
                    work.push((board, job, campaign, seat));
                }
                Err(failure) => {
                    if let Some(dealer) = &dealer {
                        dealer.lost(board);
                    }
                    fates.push((job.board().to_owned(), Err(failure)));
                }
            }
        }
        let measured: Vec<Fate> = thread::scope(|scope| {
            let threads: Vec<_> = work
                .into_iter()
                .map(|(board, job, campaign, seat)| {
                    let (lines, record) = (&lines, record.clone());
                    let (dealer, start) = (dealer.as_ref(), start.as_ref());
                    let thread = scope.spawn(move || {
                        lines.speaking_for(job.board(), || {
                            // Even where this thread panics, nobody waits for it.
                            let _leaves = dealer.map(|dealer| Leaves { dealer, board });
                            let turn = start.map(StartLine::turn);
                            let part = Part { record, seat, turn };
                            let fate = measure(campaign.as_part(part), job, paths);
                            set_aside(&fate, interrupt);
                            fate
                        })
                    });
                    (job.board().to_owned(), thread)
                })
                .collect();
            threads.into_iter().map(|(board, thread)| (board, joined(thread.join()))).collect()
        });
        fates.extend(measured);
        conclude(&record, &fates, interrupt, store)
    }
}

/// Lets go of all boards after a failure.
fn close_all(opened: Vec<Outcome<Campaign>>, failure: Failure) -> Failure {
    opened.into_iter().flatten().fold(failure, |failure, campaign| {
        let closed = campaign.close(Ok(())).and_then(|((), closed)| closed);
        failure.after_closing(closed)
    })
}

/// A board that goes on with no more rounds when this is dropped.
struct Leaves<'d> {
    dealer: &'d Dealer,
    board: usize,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.dealer.lost(self.board);
    }
}

/// Takes all boards at the same time.
fn open(lines: &Lines, jobs: &[Job], paths: &Paths, interrupt: &Interrupt) -> Vec<Outcome<Campaign>> {
    let take = |job: &Job| {
        let opened = Campaign::open(job.loaded.clone(), paths.clone(), interrupt.clone());
        set_aside(&opened, interrupt);
        opened
    };
    let take = &take;
    thread::scope(|scope| {
        let threads: Vec<_> = jobs
            .iter()
            .map(|job| scope.spawn(move || lines.speaking_for(job.board(), || take(job))))
            .collect();
        threads.into_iter().map(|thread| joined(thread.join())).collect()
    })
}

/// Says why a board does not go on, where that is not the user's wish.
fn set_aside<T>(outcome: &Outcome<T>, interrupt: &Interrupt) {
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

fn measure(mut campaign: Campaign, job: &Job, paths: &Paths) -> Outcome<Ended> {
    // A connection is one thread's.
    let store = Store::open(&paths.database, Access::ReadWrite).map_err(Failure::from);
    let ended = store.and_then(|store| match &job.before {
        Some(run) => campaign.resume(&store, &run.start.id),
        None => campaign.run(&store),
    });
    let (ended, closed) = campaign.close(ended)?;
    closed.map(|()| ended)
}

/// Whether all boards that can be had are equal.
fn check_alike(opened: &[Outcome<Campaign>]) -> Outcome<()> {
    let mut campaigns = opened.iter().flatten();
    let Some(first) = campaigns.next() else { return Ok(()) };
    let words: Vec<String> = campaigns
        .filter_map(|other| {
            let unlike = likeness::unlike(first, other)?;
            Some(format!("{} and {} in {unlike}", first.loaded().board.name, other.loaded().board.name))
        })
        .collect();
    if words.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Usage,
        format!(
            "failed to spread trials over boards that are unlike: {}; one figure of them would mean nothing. \
             `--mode repeat` measures everything on each",
            words.join("; ")
        ),
    ))
}

/// Deals out what is left.
fn dealer(record: &CampaignRecord, jobs: &[Job], interrupt: &Interrupt, store: &Store) -> Outcome<Dealer> {
    let (mut done, mut parts) = (BTreeSet::new(), BTreeMap::new());
    let mut observed: Option<Observed> = None;
    let mut is_planned = false;
    for (board, run) in jobs.iter().enumerate().filter_map(|(board, job)| Some((board, job.before.as_ref()?)))
    {
        let (whole, part) = rounds_of(store, run)?;
        done.extend(whole);
        parts.extend(part.into_iter().map(|round| (round, board)));
        let found = Observed { profiles: store.profiles(run)?, transfers: store.transfers(run)? };
        is_planned |= !store.schedules(run)?.is_empty();
        if observed.as_ref().is_none_or(|known| known.profiles.len() < found.profiles.len()) {
            observed = Some(found);
        }
    }
    // A schedule is recorded once all profiles are.
    let observed = observed.filter(|_| is_planned);
    parts.retain(|round, _| !done.contains(round));
    let experiment = &jobs[0].loaded.experiment;
    let dealer = Dealer::new(interrupt.clone(), jobs.len(), experiment.trials, &done, &parts);
    if let Some(observed) = observed {
        dealer.observed(observed);
    }
    let Some(wanted) = experiment.precision else { return Ok(dealer) };
    let (path, id, most) = (store.path().to_owned(), record.id.clone(), experiment.max_time);
    let begun = Instant::now();
    Ok(dealer.until(Box::new(move |rounds| {
        let pooled = || {
            let store = Store::open(&path, Access::ReadOnly)?;
            let report = CampaignReport::build(&store, id.as_str(), &BTreeMap::new())?;
            report.pooled.ok_or_else(|| StoreError::Empty { path: path.clone() })
        };
        if rounds >= precision::FEWEST_ROUNDS && is_narrow(pooled(), rounds, wanted) {
            progress::say("refine", &format!("±{:.1} % reached after {rounds} rounds", 100.0 * wanted));
            return false;
        }
        let is_over = begun.elapsed() >= most || rounds >= MAX_ROUNDS;
        if is_over {
            let minutes = begun.elapsed().as_secs_f64() / 60.0;
            let said =
                format!("±{:.1} % not reached in {minutes:.1} minutes and {rounds} rounds", 100.0 * wanted);
            progress::say("refine", &said);
        }
        !is_over
    })))
}

/// Rounds of which a run has every trial, and those of which it has some.
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
    fates: &[Fate],
    interrupt: &Interrupt,
    store: &Store,
) -> Outcome<FleetEnded> {
    let lost: Vec<&Failure> = fates.iter().filter_map(|(_, fate)| fate.as_ref().err()).collect();
    let reasons: BTreeMap<String, String> = fates
        .iter()
        .filter_map(|(board, fate)| Some((board.clone(), fate.as_ref().err()?.to_string())))
        .collect();
    let has_runs = store.campaign(record.id.as_str())?.is_some();
    if !has_runs {
        let exit = if interrupt.is_set() { Exit::Trial } else { worst(&lost).unwrap_or(Exit::Board) };
        let why =
            if interrupt.is_set() { "interrupted" } else { "failed to begin: every board was set aside" };
        return Err(Failure::new(exit, why));
    }
    let report = CampaignReport::build(store, record.id.as_str(), &reasons)?;
    if interrupt.is_set() {
        let advice = format!(
            "interrupted: what was measured is kept; `{program} bench --resume {}` goes on with it",
            record.id,
            program = host::program()
        );
        return Ok(FleetEnded { report, exit: Exit::Trial, advice: Some(advice) });
    }
    if let Some(exit) = worst(&lost) {
        let advice = format!(
            "{} of {} boards were set aside; once they are back, `{program} bench --resume {}` goes on with them",
            lost.len(),
            record.boards.len(),
            record.id,
            program = host::program()
        );
        return Ok(FleetEnded { report, exit, advice: Some(advice) });
    }
    let failed = fates.iter().any(|(_, fate)| fate.as_ref().is_ok_and(|ended| ended.failed_trials > 0));
    let exit = if failed || report.has_void_rows() { Exit::Trial } else { Exit::Fine };
    Ok(FleetEnded { report, exit, advice: None })
}

/// Of several failures the one that is told: what is ours, then what the user can mend, then the boards'.
fn worst(failures: &[&Failure]) -> Option<Exit> {
    let rank = |exit: Exit| match exit {
        Exit::Bug => 3,
        Exit::Usage => 2,
        Exit::Fine | Exit::Regression | Exit::Board | Exit::Trial => 1,
    };
    let worst = failures.iter().map(|failure| failure.exit).max_by_key(|exit| rank(*exit))?;
    // Whatever set a board aside, what matters is that it is.
    Some(if rank(worst) == 1 { Exit::Board } else { worst })
}
