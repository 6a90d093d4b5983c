//! Searches the schedules that are best in throughput and energy.
//!
//! 1. Measures the schedules of the experiment: single processors, which are the baselines, a pipeline and a replicate.
//! 2. Fits the power model, calibrates the predictions, predicts the front, and measures those of its schedules that are
//!    predicted to be best, with the best ones so far in the same rounds. Repeats this until no other schedule is predicted
//!    to be better by more than the predictions are off, or the budget is spent.
//! 3. Adds rounds until each schedule of the measured front has the trials that the experiment asks for.

use crate::compare::{self, ComparedNetwork};
use crate::link::{self, LinkedNetwork};
use crate::measure::{Measured, Trials};
use crate::open::OpenedBoard;
use crate::plan::PlannedSchedule;
use crate::prior::PriorResults;
use crate::profile::NetworkCosts;
use crate::stop::Stop;
use crate::trial_order::Slot;
use analysis::{Observed, Optimization};
use config::Search;
use domain::search::{self, Calibration, Candidate, Knowledge};
use domain::{Objective, PowerModel, ScheduleKind, SplitMix64};
use host::exit::{Ending as _, Exit, Failure};
use host::progress::{self, Progress};
use std::time::{Duration, Instant};
use store::{RunRecorder, ScheduleRecord, Store};

/// Rounds of the schedules of the experiment before the first prediction.
const FIRST_ROUNDS: u32 = 3;
/// Rounds of new schedules.
const ROUNDS: u32 = 2;
/// Most new schedules at a time.
const NEW_SCHEDULES: usize = 4;
/// Most times that new schedules are added.
const MAX_STEPS: u32 = 25;

/// Searches from linked networks with their costs; there is one network.
///
/// # Errors
/// If the board is lost, a record cannot be written, no trial has the energy that the objective needs, or the user
/// interrupts.
pub(crate) fn optimize(
    board: &mut OpenedBoard,
    store: &Store,
    recorder: &mut RunRecorder<'_>,
    prior: &PriorResults,
    search: &Search,
    (linked, costs): (Vec<LinkedNetwork>, Vec<NetworkCosts>),
) -> Result<Measured, Stop> {
    let objective = board.loaded.experiment.objective;
    let compared = compare::compare(board, recorder, linked)?;
    let (Some(network), Some(costs)) = (compared.into_iter().next(), costs.into_iter().next()) else {
        return Err(Failure::new(Exit::Bug, "optimize was started without a network").into());
    };
    let last_round = prior.trials.iter().map(|(_, round)| round + 1).max();
    let mut steps = Optimizer {
        deadline: Instant::now() + search.budget,
        board,
        store,
        recorder,
        prior,
        network,
        costs,
        objective,
        round: last_round.unwrap_or(0),
        position: u32::try_from(prior.trials.len()).unwrap_or(u32::MAX),
        failed_trials: 0,
    };
    steps.add_recorded()?;
    steps.measure_first()?;
    steps.search()?;
    steps.confirm()?;
    Ok(Measured { failed_trials: steps.failed_trials })
}

struct Optimizer<'a, 's> {
    deadline: Instant,
    board: &'a mut OpenedBoard,
    store: &'a Store,
    recorder: &'a mut RunRecorder<'s>,
    prior: &'a PriorResults,
    network: ComparedNetwork,
    costs: NetworkCosts,
    objective: Objective,
    /// The next round.
    round: u32,
    /// The next trial's position in the order of all trials.
    position: u32,
    failed_trials: u32,
}

/// Schedules by their positions in the plan.
#[derive(Debug, Default)]
struct Standing {
    /// Valid trials of each.
    trials: Vec<u32>,
    /// Whether it failed or was void each time.
    hopeless: Vec<bool>,
    /// Those on the measured front, and the best for the objective.
    front: Vec<usize>,
    singles: Vec<usize>,
}

impl Optimizer<'_, '_> {
    /// Adds the schedules that a resumed run had added.
    fn add_recorded(&mut self) -> Result<(), Stop> {
        let first = self.network.linked.schedules.len();
        let recorded = self.prior.schedules.iter().skip(first);
        let recorded: Vec<PlannedSchedule> = recorded
            .map(|record| PlannedSchedule {
                schedule: record.schedule.clone(),
                prediction: record.prediction.clone(),
            })
            .collect();
        if recorded.is_empty() { Ok(()) } else { self.add(&recorded, false) }
    }

    /// Links, records and compares new schedules.
    fn add(&mut self, new: &[PlannedSchedule], record: bool) -> Result<(), Stop> {
        let linked = &mut self.network.linked;
        let compiled = &linked.plan.compiled;
        let schedules = new.iter().map(|planned| &planned.schedule).collect();
        self.board.builder.link_stages(&[(compiled, schedules)], self.board.processors())?;
        let messages = link::link_schedules(self.board, compiled, new)?;
        for planned in new {
            let place = linked.plan.place(linked.plan.schedules.len());
            if record {
                self.recorder.record_schedule(ScheduleRecord {
                    place,
                    network: linked.plan.name().to_owned(),
                    schedule: planned.schedule.clone(),
                    prediction: planned.prediction.clone(),
                })?;
            }
            linked.plan.schedules.push(planned.clone());
        }
        linked.schedules.extend(messages);
        compare::compare_more(self.board, self.recorder, &mut self.network)
    }

    fn measure_first(&mut self) -> Result<(), Stop> {
        let rounds = self.board.loaded.experiment.trials.min(FIRST_ROUNDS);
        let standing = self.standing(&self.observe()?);
        let lacking = |at: &usize| standing.trials[*at] < rounds && !standing.hopeless[*at];
        let first: Vec<usize> = (0..standing.trials.len()).filter(lacking).collect();
        let most = first.iter().map(|at| rounds - standing.trials[*at]).max().unwrap_or(0);
        self.measure("measure", &first, most)
    }

    fn search(&mut self) -> Result<(), Stop> {
        for step in 0..MAX_STEPS {
            if self.is_over() {
                progress::say("search", "the budget is spent");
                return Ok(());
            }
            let observed = self.observe()?;
            if observed.measured().iter().all(|known| known.figures.is_none()) {
                progress::say("search", "every trial so far is void or failed, so nothing can be predicted");
                return Ok(());
            }
            let power = self.power_model(&observed)?;
            let (calibration, candidates) = self.candidates(&observed, power.as_ref())?;
            // The predicted front is measured at first, even if it is expected to gain less than the predictions are off.
            let threshold =
                if step == 0 && self.prior.trials.is_empty() { 0.0 } else { calibration.uncertainty };
            let best = candidates.first().map_or(0.0, |candidate| candidate.gain);
            let chosen = search::spread(candidates, threshold, NEW_SCHEDULES);
            if chosen.is_empty() {
                progress::say(
                    "search",
                    &format!(
                        "no other schedule is predicted to be better by more than {:.1} %, which is how far predictions are off",
                        100.0 * threshold.max(calibration.uncertainty)
                    ),
                );
                return Ok(());
            }
            progress::say(
                "search",
                &format!(
                    "{} new schedules, predicted to gain up to {:.1} %; {} of the budget left",
                    chosen.len(),
                    100.0 * best,
                    minutes(self.deadline.saturating_duration_since(Instant::now()))
                ),
            );
            let standing = self.standing(&observed);
            let known = self.network.linked.schedules.len();
            let planned = |candidate: Candidate| PlannedSchedule {
                schedule: candidate.point.schedule,
                prediction: Some(candidate.point.prediction),
            };
            let chosen: Vec<PlannedSchedule> = chosen.into_iter().map(planned).collect();
            self.add(&chosen, true)?;
            let mut active: Vec<usize> = (known..self.network.linked.schedules.len()).collect();
            active.extend(standing.front.iter().chain(&standing.singles).copied());
            active.sort_unstable();
            active.dedup();
            self.measure("search", &active, ROUNDS)?;
        }
        Ok(())
    }

    /// Measures the front and the baselines until each has its trials. The front may change meanwhile.
    fn confirm(&mut self) -> Result<(), Stop> {
        let wanted = self.board.loaded.experiment.trials;
        for _ in 0..3 * wanted {
            let standing = self.standing(&self.observe()?);
            let lacks = |at: &usize| standing.trials[*at] < wanted && !standing.hopeless[*at];
            let mut active: Vec<usize> = standing.front.iter().chain(&standing.singles).copied().collect();
            active.sort_unstable();
            active.dedup();
            if self.is_over() || !active.iter().any(lacks) {
                break;
            }
            self.measure("confirm", &active, 1)?;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    fn observe(&self) -> Result<Observed, Stop> {
        Ok(Observed::read(self.store, self.recorder.run())?)
    }

    /// `None` if throughput alone counts.
    fn power_model(&self, observed: &Observed) -> Result<Option<PowerModel>, Stop> {
        if !self.objective.needs_energy() {
            return Ok(None);
        }
        let reason = || observed.report.rows.iter().find_map(|row| row.energy_absent_reason.clone());
        observed.power_model().map(Some).map_err(|error| {
            let reason = reason().unwrap_or_else(|| error.to_string());
            let message = format!(
                "failed to optimize for {}: no energy is known on the board {}: {reason}",
                self.objective, self.board.loaded.board.name
            );
            Failure::new(Exit::Trial, message).into()
        })
    }

    fn candidates(
        &self,
        observed: &Observed,
        power: Option<&PowerModel>,
    ) -> Result<(Calibration, Vec<Candidate>), Stop> {
        let network = &self.network.linked.plan.compiled.network;
        let measured = observed.measured();
        let calibration = search::calibrate(network, &self.costs.contended, &measured).ending(Exit::Bug)?;
        let knowledge = Knowledge {
            network,
            alone: &self.costs.alone,
            calibration: &calibration,
            power,
            measured: &measured,
        };
        let candidates = search::next(knowledge, self.objective).ending(Exit::Bug)?;
        Ok((calibration, candidates))
    }

    fn standing(&self, observed: &Observed) -> Standing {
        let plan = &self.network.linked.plan;
        let result = Optimization::of(observed, self.objective);
        let on_front: Vec<&str> =
            result.iter().flat_map(|result| &result.front).map(|row| row.schedule.as_str()).collect();
        let best = result.as_ref().and_then(|result| {
            result.best.as_ref().or(result.closest.as_ref().map(|closest| &closest.point))
        });
        let mut standing = Standing::default();
        for (position, planned) in plan.schedules.iter().enumerate() {
            let row = observed.report.rows.iter().find(|row| row.place == plan.place(position));
            let trials = row.filter(|row| !row.is_void()).map_or(0, |row| row.trials);
            let failures = row.map_or(0, |row| row.trials_failed + row.trials_void);
            standing.trials.push(u32::try_from(trials).unwrap_or(u32::MAX));
            standing.hopeless.push(!self.network.usable[position] || (trials == 0 && failures > 1));
            let label = planned.schedule.label();
            if on_front.contains(&label.as_str()) || best.is_some_and(|best| best.schedule == label) {
                standing.front.push(position);
            }
            if planned.schedule.kind() == ScheduleKind::Single {
                standing.singles.push(position);
            }
        }
        standing
    }

    /// Measures rounds of these schedules, each in a random order of its own.
    fn measure(&mut self, step: &'static str, schedules: &[usize], rounds: u32) -> Result<(), Stop> {
        let mut slots = Vec::new();
        for round in self.round..self.round + rounds {
            let mut order: Vec<usize> =
                schedules.iter().copied().filter(|schedule| self.network.usable[*schedule]).collect();
            SplitMix64::new(self.board.loaded.experiment.seed.wrapping_add(u64::from(round)))
                .shuffle(&mut order);
            for schedule in order {
                slots.push((self.position, Slot { round, network: 0, schedule }));
                self.position += 1;
            }
        }
        self.round += rounds;
        if slots.is_empty() {
            return Ok(());
        }
        let networks = std::slice::from_ref(&self.network);
        let mut trials = Trials::new(self.board, self.recorder, networks, self.prior);
        let progress = Progress::begin(step, slots.len());
        let ended = trials.run_and_end(&slots, progress, |trials| {
            format!("{} trials{}", trials.measured, trials.failures())
        });
        self.failed_trials += trials.result().failed_trials;
        ended
    }
}

fn minutes(time: Duration) -> String {
    format!("{:.1} min", time.as_secs_f64() / 60.0)
}
