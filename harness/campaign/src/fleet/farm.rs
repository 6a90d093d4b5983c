//! Equal boards of a farm: each takes part as soon as it is free, and is given back when no round is left for it.

use super::conclusion::{BoardResult, FleetEnd, conclude};
use super::equality;
use super::job::Job;
use super::member::{RemoveOnDrop, joined, measure, report_set_aside};
use super::queue::round_queue;
use crate::open::{self, OpenedBoard};
use crate::paths::Paths;
use crate::round_queue::{RoundQueue, RoundSource};
use crate::run::FleetMember;
use host::exit::{Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use host::progress::{self, Lines};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use store::{CampaignRecord, Store};

/// The first board that joined, which all others must equal, and its name.
type Standard = Mutex<Option<(String, equality::Aspects)>>;

/// What is the same for all boards.
struct Campaign<'a> {
    record: &'a CampaignRecord,
    paths: &'a Paths,
    interrupt: &'a Interrupt,
    queue: Arc<RoundQueue>,
    standard: Standard,
}

/// Shares the rounds among boards of farms.
///
/// # Errors
/// If no board could start.
pub(super) fn bench(
    record: &CampaignRecord,
    jobs: &[Job],
    paths: &Paths,
    interrupt: &Interrupt,
    store: &Store,
) -> Outcome<FleetEnd> {
    let lines = Lines::new(record.boards.iter().map(String::as_str));
    let queue = Arc::new(round_queue(record, jobs, interrupt, store)?.of_farm());
    let campaign = Campaign { record, paths, interrupt, queue, standard: Mutex::default() };
    let results: Vec<BoardResult> = thread::scope(|scope| {
        let threads: Vec<_> = jobs
            .iter()
            .enumerate()
            .map(|(board, job)| {
                let (lines, campaign) = (&lines, &campaign);
                let thread =
                    scope.spawn(move || lines.speaking_for(job.board(), || campaign.take_part(job, board)));
                (job, thread)
            })
            .collect();
        let ended = threads.into_iter().map(|(job, thread)| (job.board().to_owned(), joined(thread.join())));
        // A board that was not free in time is no failure.
        ended.filter_map(|(board, ended)| Some((board, ended.transpose()?))).collect()
    });
    conclude(record, &results, interrupt, store)
}

impl Campaign<'_> {
    /// Waits for a board and measures rounds on it; `None` if there were none left before it was free.
    fn take_part(&self, job: &Job, board: usize) -> Outcome<Option<crate::run::RunEnd>> {
        let source = RoundSource { queue: Arc::clone(&self.queue), board };
        let _remove = RemoveOnDrop(source.clone());
        let waiting = self.interrupt.or(self.queue.over());
        let opened =
            open::open_while(job.loaded.clone(), self.paths.clone(), self.interrupt.clone(), &waiting);
        let opened = match opened {
            Err(_) if !self.interrupt.is_set() && self.queue.over().load(Ordering::Relaxed) => {
                progress::say("farm", "no longer needed: all rounds are measured");
                return Ok(None);
            }
            opened => opened.and_then(|opened| self.check(opened)),
        };
        let result = opened.and_then(|opened| {
            self.queue.join(board);
            let member = FleetMember { record: self.record.clone(), rounds: Some(source), preparation: None };
            measure(opened, job, self.paths, member)
        });
        report_set_aside(&result, self.interrupt);
        result.map(Some)
    }

    /// Refuses a board that differs from the first one.
    fn check(&self, opened: OpenedBoard) -> Outcome<OpenedBoard> {
        let name = opened.loaded().board.name.clone();
        let ours = equality::of(&opened);
        let differences = {
            let mut standard = self.standard.lock().unwrap_or_else(PoisonError::into_inner);
            let (first, known) = standard.get_or_insert_with(|| (name, ours.clone()));
            equality::between(known, &ours)
                .map(|differences| format!("it differs from {first} in {differences}"))
        };
        let Some(differences) = differences else { return Ok(opened) };
        let failure = Failure::new(
            Exit::Board,
            format!(
                "failed to share rounds with the others: {differences}. Give different tags to boards that differ"
            ),
        );
        let closed = opened.close(Ok(())).and_then(|((), closed)| closed);
        Err(failure.after_closing(closed))
    }
}
