//! The work of one of several boards, in its own thread.

use super::job::Job;
use crate::open::OpenedBoard;
use crate::paths::Paths;
use crate::round_queue::RoundSource;
use crate::run::{FleetMember, RunEnd, resume_as, run_as};
use host::exit::{Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use host::progress;
use std::thread;
use store::{Access, Store};

/// Removes a board from the queue when this is dropped.
pub(super) struct RemoveOnDrop(pub(super) RoundSource);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        self.0.queue.remove(self.0.board);
    }
}

/// Reports why a board is set aside, unless the user interrupted.
pub(super) fn report_set_aside<T>(outcome: &Outcome<T>, interrupt: &Interrupt) {
    if let Err(failure) = outcome
        && !interrupt.is_set()
    {
        progress::say("set aside", &failure.to_string());
    }
}

pub(super) fn joined<T>(thread: thread::Result<Outcome<T>>) -> Outcome<T> {
    thread.unwrap_or_else(|_| {
        Err(Failure::new(Exit::Bug, "the thread of a board panicked; what it measured is in its journal"))
    })
}

pub(super) fn measure(
    mut board: OpenedBoard,
    job: &Job,
    paths: &Paths,
    member: FleetMember,
) -> Outcome<RunEnd> {
    // A database connection belongs to one thread.
    let store = Store::open(&paths.database, Access::ReadWrite).map_err(Failure::from);
    let ended = store.and_then(|store| match &job.resume {
        Some(run) => resume_as(&mut board, &store, &run.start.id, Some(member)),
        None => run_as(&mut board, &store, Some(member)),
    });
    let (ended, closed) = board.close(ended)?;
    closed.map(|()| ended)
}
