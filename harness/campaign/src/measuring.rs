//! The trials of a campaign: round after round, until there are as many as were asked for and intervals are as narrow.

use super::before::Before;
use super::order::{self, Slot};
use super::trials::{self, Ready};
use super::{Campaign, PlannedNetwork};
use analysis::Report;
use boards::session::SessionError;
use config::Experiment;
use domain::precision;
use host::date::unix_ns;
use host::exit::Outcome;
use host::progress::{self, Progress};
use std::ops::Range;
use std::time::{Duration, Instant};
use store::{self, RunRecorder, Store, StoreError, TrialRecord};

/// Trials of a schedule that may fail in a row before the rest of it is given up.
const FAILURES_IN_A_ROW: u32 = 2;

/// Limit on the rounds of a run, for any precision.
pub(crate) const MAX_ROUNDS: u32 = 10_000;

/// What is measured, and how far that is.
pub(super) struct Field<'a> {
    pub(super) networks: &'a [PlannedNetwork],
    /// Schedules by network.
    pub(super) ready: &'a [Vec<Ready>],
    /// Which of them may be measured.
    pub(super) usable: &'a [Vec<bool>],
    pub(super) before: &'a Before,
}

/// Counts of a campaign.
pub(super) struct Tally {
    pub(super) measured: usize,
    pub(super) failed: u32,
    pub(super) last_failure: Option<String>,
    /// Failures in a row, by network and schedule.
    in_a_row: Vec<Vec<u32>>,
}

impl Tally {
    pub(super) fn new(field: &Field<'_>) -> Self {
        let in_a_row = field.ready.iter().map(|ready| vec![0; ready.len()]).collect();
        Self { measured: 0, failed: 0, last_failure: None, in_a_row }
    }
}

/// The user stopped it.
pub(super) struct Interrupted;

impl Campaign {
    /// Measures round by round. Says whether the user stopped it, and how many trials failed.
    pub(super) fn measure(
        &mut self,
        store: &Store,
        recorder: &mut RunRecorder<'_>,
        field: &Field<'_>,
    ) -> Outcome<(bool, u32)> {
        let experiment = self.loaded.experiment.clone();
        let mut tally = Tally::new(field);
        let begun = Instant::now();
        let planned = field.left(0..experiment.trials, &experiment);
        let progress = Progress::begin("measure", planned.len());
        if let Err(Interrupted) = self.slots(recorder, field, &experiment, &planned, &mut tally, &progress)? {
            progress.end(&format!("interrupted after {} trials", tally.measured));
            return Ok((true, tally.failed));
        }
        let failures = match tally.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        progress.end(&format!("{} trials{failures}", tally.measured));
        let Some(wanted) = experiment.precision else { return Ok((false, tally.failed)) };
        let mut rounds = experiment.trials;
        let said = loop {
            if field.is_nothing_left(&tally) {
                break "every schedule was given up".to_owned();
            }
            if is_precise(store, recorder, rounds, wanted) {
                break format!("±{:.1} % reached after {rounds} rounds", 100.0 * wanted);
            }
            if begun.elapsed() >= experiment.max_time || rounds >= MAX_ROUNDS {
                let minutes = experiment.max_time.as_secs_f64() / 60.0;
                break format!(
                    "±{:.1} % not reached in {minutes:.1} minutes and {rounds} rounds",
                    100.0 * wanted
                );
            }
            let slots = field.left(rounds..rounds + 1, &experiment);
            rounds += 1;
            let progress = Progress::begin("refine", slots.len());
            if let Err(Interrupted) =
                self.slots(recorder, field, &experiment, &slots, &mut tally, &progress)?
            {
                progress.end(&format!("interrupted after {} trials", tally.measured));
                return Ok((true, tally.failed));
            }
            if !slots.is_empty() {
                progress.end(&format!("round {rounds}"));
            }
        };
        progress::say("refine", &said);
        Ok((false, tally.failed))
    }

    pub(super) fn slots(
        &mut self,
        recorder: &mut RunRecorder<'_>,
        field: &Field<'_>,
        experiment: &Experiment,
        slots: &[(u32, Slot)],
        tally: &mut Tally,
        progress: &Progress,
    ) -> Outcome<Result<(), Interrupted>> {
        let meter = self.loaded.board.power.meter().cloned();
        for (position, slot) in slots {
            let network = &field.networks[slot.network];
            let (name, ready) = (&network.prepared.name, &field.ready[slot.network][slot.schedule]);
            let label = ready.planned.schedule.label();
            let failures = &mut tally.in_a_row[slot.network][slot.schedule];
            if *failures >= FAILURES_IN_A_ROW {
                progress.step(&format!("{name} on {label}: given up"));
                continue;
            }
            progress.doing(&format!("{name} on {label}, round {}", slot.round + 1));
            self.cool_down(experiment);
            let settled = self.settle(progress);
            let begun_unix_ns = unix_ns();
            let (cooling, outcome) = match settled {
                Ok(cooling) => {
                    (cooling, trials::measure(&mut self.link, experiment, name, ready, meter.as_ref()))
                }
                Err(error) => (None, Err(error)),
            };
            match outcome {
                Err(SessionError::Interrupted) => return Ok(Err(Interrupted)),
                Err(error @ SessionError::Board(_)) => return Err(error.into()),
                _ => {}
            }
            // Kept before it is told: what the user has seen is never lost.
            let (said, warning) = match &outcome {
                Ok(raw) => {
                    *failures = 0;
                    tally.measured += 1;
                    let rate = trials::rate(raw)
                        .map_or_else(|| "no frame".to_owned(), |fps| format!("{fps:.2} frames/s"));
                    (rate, None)
                }
                Err(error) => {
                    // A lost link says nothing about the schedule.
                    *failures += u32::from(!error.is_lost_link());
                    tally.failed += 1;
                    tally.last_failure = Some(error.to_string());
                    ("failed".to_owned(), Some(error.to_string()))
                }
            };
            let trial = TrialRecord {
                schedule: network.place(slot.schedule),
                round: slot.round,
                position: *position,
                begun_unix_ns,
                cooling,
                outcome: match outcome {
                    Ok(raw) => store::Outcome::Measured(Box::new(raw)),
                    Err(error) => store::Outcome::Failed { fault: error.fault(), message: error.to_string() },
                },
            };
            recorder.record_trial(trial)?;
            if let Some(warning) = warning {
                progress.warn(&warning);
            }
            progress.step(&format!("{name} on {label}, round {}: {said}", slot.round + 1));
        }
        Ok(Ok(()))
    }

    fn cool_down(&self, experiment: &Experiment) {
        let deadline = Instant::now() + experiment.cooldown;
        while Instant::now() < deadline && !self.interrupt.is_set() {
            std::thread::sleep(Duration::from_millis(20).min(experiment.cooldown));
        }
    }
}

impl Field<'_> {
    /// What is not measured yet of these rounds, with its place in the order of the whole. A round more or less does
    /// not change the order of those before it.
    pub(super) fn left(&self, rounds: Range<u32>, experiment: &Experiment) -> Vec<(u32, Slot)> {
        let counts: Vec<usize> = self.ready.iter().map(Vec::len).collect();
        let slots = order::interleaved(&counts, rounds.end, experiment.seed);
        (0..).zip(slots).filter(|(_, slot)| slot.round >= rounds.start && self.is_left(slot)).collect()
    }

    fn is_left(&self, slot: &Slot) -> bool {
        let place = self.networks[slot.network].place(slot.schedule);
        self.usable[slot.network][slot.schedule] && !self.before.measured.contains(&(place, slot.round))
    }

    fn is_nothing_left(&self, tally: &Tally) -> bool {
        let schedules = self.usable.iter().flatten().zip(tally.in_a_row.iter().flatten());
        schedules.filter(|(usable, _)| **usable).all(|(_, failures)| *failures >= FAILURES_IN_A_ROW)
    }
}

/// Whether the report of what there is would show intervals as narrow as this. Void rows do not count: more trials
/// do not mend them, or they have just begun to.
fn is_precise(store: &Store, recorder: &RunRecorder<'_>, rounds: u32, wanted: f64) -> bool {
    rounds >= precision::FEWEST_ROUNDS && is_narrow(Report::build(store, recorder.run()), rounds, wanted)
}

/// The same of a report of any kind.
pub(crate) fn is_narrow(report: Result<Report, StoreError>, rounds: u32, wanted: f64) -> bool {
    match report {
        Ok(report) => {
            let counted = || report.rows.iter().filter(|row| !row.is_wrong());
            // Nothing valid yet is as imprecise as can be.
            counted().all(|row| !row.is_void())
                && precision::is_reached(
                    rounds,
                    counted().flat_map(|row| row.precisions().map(|(_, half)| half)),
                    wanted,
                )
        }
        // The records wait in the journal; without them nobody can tell, and time will end it.
        Err(error) => {
            tracing::warn!("{error}");
            false
        }
    }
}
