//! A campaign on one board as a part of one on several.

use super::before::Before;
use super::dealer::{Dealer, Lead, Observed};
use super::measuring::{Field, Interrupted, Tally};
use super::{Campaign, PlannedNetwork, Turn};
use host::exit::{Exit, Failure, Outcome};
use host::progress::{self, Progress};
use std::sync::Arc;
use store::{CampaignRecord, RunRecorder};

/// What a board is among others.
#[derive(Debug)]
pub struct Part {
    /// What all of them do.
    pub record: CampaignRecord,
    /// Where the boards share the rounds.
    pub seat: Option<Seat>,
    /// Where one of them is the machine that the harness runs on; held until all is prepared.
    pub turn: Option<Turn>,
}

/// A board's place at the dealer.
#[derive(Debug, Clone)]
pub struct Seat {
    /// Who deals.
    pub dealer: Arc<Dealer>,
    /// The board's number.
    pub board: usize,
}

impl Campaign {
    /// Plans from the profiles of one board, whichever measures them first, so that all measure the same schedules.
    pub(super) fn plan_alike(
        &mut self,
        recorder: &mut RunRecorder<'_>,
        before: &Before,
        seat: &Seat,
    ) -> Outcome<Vec<PlannedNetwork>> {
        match seat.dealer.lead(seat.board) {
            Lead::Interrupted => Err(Failure::new(Exit::Trial, "interrupted")),
            Lead::Known(observed) => {
                progress::say("profile", "as another of these equal boards measured it");
                self.plan(Some(recorder), &before.with(&observed))
            }
            Lead::Measure => {
                let planned = self.plan(Some(recorder), before);
                let observed = std::mem::take(&mut self.observed);
                // Where there is no plan the board is lost, and another one profiles.
                if planned.is_ok() {
                    seat.dealer.observed(observed);
                }
                planned
            }
        }
    }

    /// Measures the rounds it is dealt. Says whether the user stopped it, and how many trials failed.
    pub(super) fn measure_dealt(
        &mut self,
        recorder: &mut RunRecorder<'_>,
        field: &Field<'_>,
        seat: &Seat,
    ) -> Outcome<(bool, u32)> {
        let experiment = self.loaded.experiment.clone();
        let mut tally = Tally::new(field);
        let mut rounds = 0;
        let progress = Progress::begin("measure", 0);
        while let Some(round) = seat.dealer.next(seat.board) {
            let slots = field.left(round..round + 1, &experiment);
            progress.more(slots.len());
            let measured = tally.measured;
            if let Err(Interrupted) =
                self.slots(recorder, field, &experiment, &slots, &mut tally, &progress)?
            {
                break;
            }
            // A board that can do nothing would be through with round after round faster than all others.
            if let Some(error) = tally.last_failure.as_ref().filter(|_| measured == tally.measured)
                && seat.dealer.has_others()
            {
                let message = format!("failed to measure anything of round {}: {error}", round + 1);
                return Err(Failure::new(Exit::Board, message));
            }
            rounds += 1;
            seat.dealer.done(seat.board);
        }
        let interrupted = self.interrupt.is_set();
        let failures = match tally.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        let ended = if interrupted { "interrupted after " } else { "" };
        progress.end(&format!("{ended}{} trials in {rounds} rounds{failures}", tally.measured));
        Ok((interrupted, tally.failed))
    }
}

impl Before {
    /// The same with what another board observed.
    fn with(&self, observed: &Observed) -> Self {
        Self { profiles: observed.profiles.clone(), transfers: observed.transfers.clone(), ..self.clone() }
    }
}
