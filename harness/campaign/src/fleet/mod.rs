//! Several boards at once: a run on each, in its own thread with its own connection, journal and database connection.
//! The name of the campaign links the runs.
//!
//! A board that is lost or cannot be opened is set aside with its reason, and the others continue. If equal boards share
//! the rounds, they take over its rounds. Boards of a farm that share the rounds do not wait for each other: see `farm`.

mod canaries;
mod conclusion;
mod equality;
mod farm;
mod job;
mod member;
mod queue;
mod request;

pub use canaries::{Canaries, canaries};
pub use conclusion::FleetEnd;
pub use job::FleetJob;
pub use request::{BenchJob, BenchRequest, resolve};

use crate::open::{self, OpenedBoard};
use crate::paths::Paths;
use crate::round_queue::RoundSource;
use crate::run::FleetMember;
use crate::start_barrier::StartBarrier;
use conclusion::{BoardResult, conclude};
use domain::FleetMode;
use host::exit::{Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use host::progress::Lines;
use job::Job;
use member::{RemoveOnDrop, joined, measure, report_set_aside};
use queue::round_queue;
use std::sync::Arc;
use std::thread;
use store::Store;

/// Measures on all boards.
///
/// # Errors
/// If no board could start, or if boards that share rounds differ.
pub fn bench(job: FleetJob, paths: &Paths, interrupt: &Interrupt, store: &Store) -> Outcome<FleetEnd> {
    let FleetJob { record, jobs } = job;
    if record.mode == FleetMode::Spread && jobs.iter().all(Job::is_on_farm) {
        return farm::bench(&record, &jobs, paths, interrupt, store);
    }
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
