//! Runs the trials, round by round, until there are as many as the experiment asks for and the intervals are narrow
//! enough.

use crate::compare::ComparedNetwork;
use crate::open::OpenedBoard;
use crate::prior::PriorResults;
use crate::round_prediction::RoundPrediction;
use crate::round_queue::RoundSource;
use crate::runner_client::RunnerClient;
use crate::stop::Stop;
use crate::sustained;
use crate::trial;
use crate::trial_order::{self, Slot};
use analysis::Report;
use boards::{PowerCycle, SessionError};
use config::Experiment;
use domain::{Load, SustainedLoad, precision, stream};
use host::date::unix_ns;
use host::exit::{Exit, Failure};
use host::interrupt::Interrupt;
use host::progress::{self, Progress};
use protocol::Processor;
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};
use store::{self, Cooling, PowerCycleRecord, RunRecorder, Store, StoreError, TrialRecord};

/// A schedule is given up after this number of failures in a row.
const MAX_FAILURES: u32 = 2;

/// Most rounds, even if the intervals are still too wide.
pub(crate) const MAX_ROUNDS: u32 = 10_000;

/// The trials of a run were measured.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) failed_trials: u32,
}

/// Measures the rounds of one board.
///
/// # Errors
/// If the board is lost, a trial cannot be recorded, or the user interrupts.
pub(crate) fn measure(
    board: &mut OpenedBoard,
    store: &Store,
    recorder: &mut RunRecorder<'_>,
    networks: &[ComparedNetwork],
    prior: &PriorResults,
) -> Result<Measured, Stop> {
    let experiment = board.loaded.experiment.clone();
    let mut trials = Trials::new(board, recorder, networks, prior);
    let start = Instant::now();
    let slots = trials.remaining(0..experiment.trials);
    let progress = Progress::begin("measure", slots.len());
    trials
        .run_and_end(&slots, progress, |trials| format!("{} trials{}", trials.measured, trials.failures()))?;
    let Some(wanted) = experiment.precision else { return Ok(trials.result()) };
    let mut rounds = experiment.trials;
    let result = loop {
        if trials.all_given_up() {
            break "no schedule is left: each failed in two rounds in a row".to_owned();
        }
        let has_enough = rounds >= precision::FEWEST_ROUNDS;
        if has_enough && is_narrow(Report::build(store, trials.recorder.run()), rounds, wanted) {
            break format!("±{:.1} % reached after {rounds} rounds", 100.0 * wanted);
        }
        if start.elapsed() >= experiment.max_time || rounds >= MAX_ROUNDS {
            let minutes = experiment.max_time.as_secs_f64() / 60.0;
            break format!(
                "±{:.1} % not reached in {minutes:.1} minutes and {rounds} rounds",
                100.0 * wanted
            );
        }
        let slots = trials.remaining(rounds..rounds + 1);
        rounds += 1;
        if !slots.is_empty() {
            let progress = Progress::begin("refine", slots.len());
            trials.run_and_end(&slots, progress, |_| format!("round {rounds}"))?;
        }
    };
    progress::say("refine", &result);
    Ok(trials.result())
}

/// Measures the rounds that a board takes from a queue shared with equal boards.
///
/// # Errors
/// As [`measure`], and if every trial of a round fails while other boards could measure it.
pub(crate) fn measure_from_queue(
    board: &mut OpenedBoard,
    recorder: &mut RunRecorder<'_>,
    networks: &[ComparedNetwork],
    prior: &PriorResults,
    source: &RoundSource,
) -> Result<Measured, Stop> {
    let interrupt = board.interrupt.clone();
    let mut trials = Trials::new(board, recorder, networks, prior);
    let mut rounds = 0;
    let progress = Progress::begin("measure", 0);
    while let Some(round) = source.queue.next(source.board) {
        let slots = trials.remaining(round..round + 1);
        progress.more(slots.len());
        let measured = trials.measured;
        match trials.run(&slots, &progress) {
            Ok(()) => {}
            Err(Stop::Interrupted) => break,
            Err(stop) => return Err(stop),
        }
        // A board that fails at once would take the rounds faster than all others.
        if let Some(error) = trials.last_failure.as_ref().filter(|_| measured == trials.measured)
            && source.queue.has_others()
        {
            let message = format!("failed to measure any trial of round {}: {error}", round + 1);
            return Err(Failure::new(Exit::Board, message).into());
        }
        rounds += 1;
        source.queue.finish(source.board);
    }
    let interrupted = if interrupt.is_set() { "interrupted after " } else { "" };
    progress.end(&format!("{interrupted}{} trials in {rounds} rounds{}", trials.measured, trials.failures()));
    if interrupt.is_set() { Err(Stop::Interrupted) } else { Ok(trials.result()) }
}

/// The trials of a run, with their counts so far.
pub(crate) struct Trials<'a, 's> {
    board: &'a mut OpenedBoard,
    experiment: Experiment,
    recorder: &'a mut RunRecorder<'s>,
    networks: &'a [ComparedNetwork],
    prior: &'a PriorResults,
    pub(crate) measured: usize,
    failed: u32,
    last_failure: Option<String>,
    /// By network and schedule.
    failures_in_a_row: Vec<Vec<u32>>,
    /// The last ones; absent if the experiment wants none.
    predicted: Option<RoundPrediction>,
}

impl<'a, 's> Trials<'a, 's> {
    pub(crate) fn new(
        board: &'a mut OpenedBoard,
        recorder: &'a mut RunRecorder<'s>,
        networks: &'a [ComparedNetwork],
        prior: &'a PriorResults,
    ) -> Self {
        let experiment = board.loaded.experiment.clone();
        let failures_in_a_row = networks.iter().map(|network| vec![0; network.usable.len()]).collect();
        let (measured, failed, last_failure) = (0, 0, None);
        Self {
            board,
            experiment,
            recorder,
            networks,
            prior,
            measured,
            failed,
            last_failure,
            failures_in_a_row,
            predicted: None,
        }
    }

    pub(crate) fn result(&self) -> Measured {
        Measured { failed_trials: self.failed }
    }

    /// The end of a summary line.
    pub(crate) fn failures(&self) -> String {
        match self.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        }
    }

    /// Trials of these rounds that are not measured yet, with their position in the order of all trials. The number of
    /// later rounds does not change the order.
    fn remaining(&self, rounds: Range<u32>) -> Vec<(u32, Slot)> {
        let counts: Vec<usize> = self.networks.iter().map(|network| network.usable.len()).collect();
        let slots = trial_order::interleaved(&counts, rounds.end, self.experiment.seed);
        let is_remaining = |slot: &Slot| {
            let network = &self.networks[slot.network];
            let trial = (network.linked.plan.place(slot.schedule), slot.round);
            slot.round >= rounds.start && network.usable[slot.schedule] && !self.prior.trials.contains(&trial)
        };
        (0..).zip(slots).filter(|(_, slot)| is_remaining(slot)).collect()
    }

    fn all_given_up(&self) -> bool {
        let usable = self.networks.iter().flat_map(|network| &network.usable);
        let mut schedules = usable.zip(self.failures_in_a_row.iter().flatten());
        schedules.all(|(usable, failures)| !usable || *failures >= MAX_FAILURES)
    }

    /// Runs these trials, each with its position in the order of all trials of the run.
    pub(crate) fn run_and_end(
        &mut self,
        slots: &[(u32, Slot)],
        progress: Progress,
        summary: impl Fn(&Self) -> String,
    ) -> Result<(), Stop> {
        let result = self.run(slots, &progress);
        match &result {
            Ok(()) => progress.end(&summary(self)),
            Err(Stop::Interrupted) => progress.end(&format!("interrupted after {} trials", self.measured)),
            Err(Stop::Failed(_)) => {}
        }
        result
    }

    pub(crate) fn run(&mut self, slots: &[(u32, Slot)], progress: &Progress) -> Result<(), Stop> {
        for (position, slot) in slots {
            let network = &self.networks[slot.network];
            let planned = &network.linked.schedules[slot.schedule].planned;
            let point = self.board.found.points.suffix(planned.point);
            let label = format!("{} on {}{point}", network.linked.plan.name(), planned.schedule.label());
            if self.failures_in_a_row[slot.network][slot.schedule] >= MAX_FAILURES {
                progress.step(&format!("{label}: skipped after two failures in a row"));
                continue;
            }
            self.predict_anew(slot, progress)?;
            let label = format!("{label}, round {}", slot.round + 1);
            progress.doing(&label);
            let result = self.trial(*position, slot, progress)?;
            progress.step(&format!("{label}: {result}"));
        }
        Ok(())
    }

    /// Profiles the network of a trial, if this is the first one of the network in its round. Without a profile, the trials of the
    /// round are measured without a prediction of their own.
    fn predict_anew(&mut self, slot: &Slot, progress: &Progress) -> Result<(), Stop> {
        let is_known = self.predicted.as_ref().is_some_and(|predicted| predicted.is_of(slot));
        if is_known || !RoundPrediction::is_wanted(&self.experiment) {
            return Ok(());
        }
        let network = &self.networks[slot.network];
        let predicted = RoundPrediction::make(self.board, network, slot, progress);
        record_power_cycles(&mut self.board.runner, self.recorder)?;
        self.predicted = Some(predicted?);
        Ok(())
    }

    /// Runs and records one trial, or those of a search for the highest sustained rate. Returns the result for the progress
    /// display.
    fn trial(&mut self, position: u32, slot: &Slot, progress: &Progress) -> Result<String, Stop> {
        let experiment = self.experiment.clone();
        match experiment.load {
            Load::Saturating | Load::OneAtATime | Load::Stream(_) => {
                self.run_trial(position, slot, progress, &experiment).map(|(result, _)| result)
            }
            Load::Sustained(wanted) => self.search(position, slot, progress, wanted),
        }
    }

    /// Finds the highest rate that a schedule sustains. Every trial of the search is recorded.
    fn search(
        &mut self,
        position: u32,
        slot: &Slot,
        progress: &Progress,
        wanted: SustainedLoad,
    ) -> Result<String, Stop> {
        let stages = &self.networks[slot.network].linked.schedules[slot.schedule].message.stages;
        // Each once: a thread that feeds a GPU may share the CPUs of another processor.
        let cpus: BTreeSet<u32> =
            stages.iter().flat_map(|stage| stage.processor.cpus().iter().copied()).collect();
        let cpus: Vec<u32> = cpus.into_iter().collect();
        let uses_gpu = stages.iter().any(|stage| matches!(stage.processor, Processor::Cuda(_)));
        let mut experiment = self.experiment.clone();
        let needed = u32::try_from(stream::frames_needed(0.99)).unwrap_or(u32::MAX);
        experiment.measure.min_frames = experiment.measure.min_frames.max(needed);
        experiment.measure.max_frames = experiment.measure.max_frames.max(needed);
        let trial = |load: Load| {
            let experiment = Experiment { load, ..experiment.clone() };
            let (_, measured) = self.run_trial(position, slot, progress, &experiment)?;
            Ok(measured)
        };
        let judge = |measured: &protocol::Measured| analysis::sustains(measured, &cpus, uses_gpu, &wanted);
        let found = sustained::search(&wanted, trial, judge)?;
        Ok(match found.and_then(|search| search.bracket()) {
            Some((sustained, failed)) => {
                format!("sustains {sustained:.2} frames/s, but not {failed:.2}")
            }
            None => "no sustained rate".to_owned(),
        })
    }

    /// Runs and records one trial. Returns the result for the progress display, and the observations if it did not fail.
    fn run_trial(
        &mut self,
        position: u32,
        slot: &Slot,
        progress: &Progress,
        experiment: &Experiment,
    ) -> Result<(String, Option<protocol::Measured>), Stop> {
        let network = &self.networks[slot.network];
        let schedule = &network.linked.schedules[slot.schedule];
        pause(self.experiment.cooldown, &self.board.interrupt);
        let brought = self.board.bring_to_point(schedule.planned.point);
        let cooled = match brought {
            Ok(record) => {
                if let Some(record) = record {
                    self.recorder.record_operating_point(record)?;
                }
                self.board.settle(progress)
            }
            Err(error) => Err(error),
        };
        let begun_unix_ns = unix_ns();
        let (cooling, outcome) = match cooled {
            Ok(cooling) => {
                let meter = self.board.loaded.board.power.meter();
                let (runner, name) = (&mut self.board.runner, network.linked.plan.name());
                let seed = self.experiment.seed.wrapping_add(slot.round.into());
                (cooling, trial::run(runner, experiment, name, schedule, meter, seed))
            }
            Err(error) => (None, Err(error)),
        };
        record_power_cycles(&mut self.board.runner, self.recorder)?;
        let place = network.linked.plan.place(slot.schedule);
        let prediction = self.predicted.as_ref().and_then(|predicted| predicted.of(slot));
        let failures = &mut self.failures_in_a_row[slot.network][slot.schedule];
        let trial = |cooling: Option<Cooling>, outcome: store::Outcome| TrialRecord {
            schedule: place,
            round: slot.round,
            position,
            begun_unix_ns,
            cooling,
            prediction: prediction.clone(),
            outcome,
        };
        // Persist before printing: a result that the user has seen is never lost.
        match outcome {
            Ok(measured) => {
                *failures = 0;
                self.measured += 1;
                let fps = trial::frames_per_second(&measured);
                let observed = store::Outcome::Measured(Box::new(measured.clone()));
                self.recorder.record_trial(trial(cooling, observed))?;
                let result = fps.map_or_else(|| "no frame".to_owned(), |fps| format!("{fps:.2} frames/s"));
                Ok((result, Some(measured)))
            }
            Err(error @ (SessionError::Interrupted | SessionError::Board(_))) => Err(error.into()),
            Err(error) => {
                // A lost connection is not the schedule's fault.
                *failures += u32::from(!error.is_lost_link());
                self.failed += 1;
                let message = error.to_string();
                self.last_failure = Some(message.clone());
                let failed = store::Outcome::Failed { fault: error.fault(), message: message.clone() };
                self.recorder.record_trial(trial(cooling, failed))?;
                progress.warn(&message);
                Ok(("failed".to_owned(), None))
            }
        }
    }
}

/// Records that the board was power-cycled since the last call.
///
/// # Errors
/// If the journal cannot be written.
pub(crate) fn record_power_cycles(
    runner: &mut RunnerClient,
    recorder: &mut RunRecorder<'_>,
) -> Result<(), StoreError> {
    for PowerCycle { unix_ns, place, reason } in runner.take_power_cycles() {
        recorder.record_power_cycle(PowerCycleRecord { unix_ns, place, reason })?;
    }
    Ok(())
}

fn pause(duration: Duration, interrupt: &Interrupt) {
    let deadline = Instant::now() + duration;
    while Instant::now() < deadline && !interrupt.is_set() {
        std::thread::sleep(Duration::from_millis(20).min(duration));
    }
}

/// Whether all intervals of a report are within `wanted`. Wrong rows are ignored, because more trials do not improve
/// them.
pub(crate) fn is_narrow(report: Result<Report, StoreError>, rounds: u32, wanted: f64) -> bool {
    match report {
        Ok(report) => {
            let counted = || report.rows.iter().filter(|row| !row.is_wrong());
            // A row without a valid trial is not precise at all.
            counted().all(|row| !row.is_void())
                && precision::is_reached(
                    rounds,
                    counted().flat_map(|row| row.precisions().map(|(_, half)| half)),
                    wanted,
                )
        }
        // The records are still in the journal. Without a report the time limit ends the run.
        Err(error) => {
            tracing::warn!("{error}");
            false
        }
    }
}
