//! Searches the schedules that are best in throughput and energy.
//!
//! 1. Measures the schedules of the experiment: single processors, which are the baselines, a pipeline and a replicate. If
//!    the board's file has operating points, it profiles the network and measures such schedules at a few of them.
//! 2. Fits the power model, calibrates the predictions, predicts the front, and measures those of its schedules that are
//!    predicted to be best, with the best ones so far in the same rounds. Repeats this until no other schedule is predicted
//!    to be better by more than the prediction error, or the budget is spent.
//!    The trials of a round are grouped by operating point, in a random order.
//!    A sweep measures the schedules of step 1 at every operating point instead.
//! 3. Adds rounds until each schedule of the measured front has the trials that the experiment asks for.

use crate::compare::{self, ComparedNetwork};
use crate::link::{self, LinkedNetwork};
use crate::measure::{Measured, Trials};
use crate::open::OpenedBoard;
use crate::plan::PlannedSchedule;
use crate::prior::PriorResults;
use crate::processors::Processor;
use crate::profile::{self, NetworkCosts};
use crate::recording::Recording;
use crate::stop::Stop;
use crate::trial_order::Slot;
use analysis::{Observed, Optimization};
use config::{ScheduleSpec, Search};
use domain::search::{self, Calibration, Candidate, Knowledge, PredictedPoint};
use domain::{
    Costs, FrequencyModel, Objective, OperatingPoint, PointPower, Schedule, ScheduleKind, SplitMix64, planner,
};
use host::exit::{Ending as _, Exit, Failure};
use host::progress::{self, Progress};
use std::time::{Duration, Instant};
use store::{RunRecorder, ScheduleRecord, Store};

/// Rounds of the schedules of the experiment before the first prediction.
const FIRST_ROUNDS: u32 = 3;
/// Rounds of new schedules, unless the experiment asks for fewer trials.
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
    check_points(board, store, recorder)?;
    let last_round = prior.trials.iter().map(|(_, round)| round + 1).max();
    let mut steps = Optimizer {
        deadline: Instant::now() + search.budget,
        board,
        store,
        recorder,
        prior,
        network,
        costs: vec![(0, costs)],
        points: Vec::new(),
        objective,
        round: last_round.unwrap_or(0),
        position: u32::try_from(prior.trials.len()).unwrap_or(u32::MAX),
        failed_trials: 0,
    };
    steps.add_recorded()?;
    steps.profile_corners()?;
    steps.predict_points()?;
    if search.sweep {
        steps.sweep()?;
    } else {
        steps.measure_first()?;
        steps.search()?;
    }
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
    /// Costs at the profiled operating points, by their places.
    costs: Vec<(usize, NetworkCosts)>,
    /// Predicted costs of all operating points, without their power.
    points: Vec<PredictedPoint>,
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
                point: record.point as usize,
                prediction: record.prediction.clone(),
                queues: record.queues,
            })
            .collect();
        if recorded.is_empty() { Ok(()) } else { self.add(&recorded, false) }
    }

    /// Links, records and compares new schedules. All processors must be online, because outputs are compared with those of
    /// a single schedule.
    fn add(&mut self, new: &[PlannedSchedule], record: bool) -> Result<(), Stop> {
        self.bring_to_point(0)?;
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
                    point: u32::try_from(planned.point).unwrap_or(u32::MAX),
                    prediction: planned.prediction.clone(),
                    queues: planned.queues,
                })?;
            }
            linked.plan.schedules.push(planned.clone());
        }
        linked.schedules.extend(messages);
        compare::compare_more(self.board, self.recorder, &mut self.network)
    }

    /// Brings the board to an operating point, and records the point.
    fn bring_to_point(&mut self, at: usize) -> Result<(), Stop> {
        if let Some(record) = self.board.bring_to_point(at)? {
            self.recorder.record_operating_point(record)?;
        }
        Ok(())
    }

    /// Profiles the network at the points from which all others are predicted, and adds the first schedules there.
    fn profile_corners(&mut self) -> Result<(), Stop> {
        let corners: Vec<usize> = self.board.found.points.corners.iter().copied().skip(1).collect();
        let has_meter = self.board.loaded.board.power.meter().is_some();
        let mut first = Vec::new();
        for at in corners {
            let number = u32::try_from(at).unwrap_or(u32::MAX);
            let point = self.board.found.points.all[at].clone();
            progress::say("point", &point.settings.to_string());
            let mut record = self.board.bring_to_point(at)?;
            if !self.prior.idle_points.contains(&number) && has_meter {
                let known = record.take();
                let idle = self.board.idle_power()?;
                record = Some(known.unwrap_or_else(|| self.board.point_record(at)));
                if let Some(record) = &mut record {
                    record.idle = idle;
                }
            }
            if let Some(record) = record {
                self.recorder.record_operating_point(record)?;
            }
            let processors: Vec<Processor> = self
                .board
                .processors()
                .iter()
                .filter(|processor| point.processors.contains(&processor.name))
                .cloned()
                .collect();
            let compiled = std::slice::from_ref(&self.network.linked.plan.compiled);
            let known = &self.prior.profiles;
            let mut recording = Recording(Some(self.recorder));
            let profiles =
                profile::profile_at(self.board, compiled, &processors, number, known, &mut recording)?;
            let Some(costs) = profiles.costs.into_iter().next() else { continue };
            first.extend(self.first_schedules(at, &costs)?);
            self.costs.push((at, costs));
        }
        if first.is_empty() { Ok(()) } else { self.add(&first, true) }
    }

    /// The schedules that are measured at a profiled point, and at each point of a sweep, apart from those that the plan has:
    /// each processor alone, and a pipeline and a replicate if the experiment has such schedules.
    fn first_schedules(&self, at: usize, costs: &NetworkCosts) -> Result<Vec<PlannedSchedule>, Stop> {
        let network = &self.network.linked.plan.compiled.network;
        let names = costs.alone.processors();
        let mut schedules: Vec<Schedule> =
            names.iter().map(|name| Schedule::single(network, name.clone())).collect();
        let specs = &self.board.loaded.experiment.schedules;
        let has_pipelines = specs
            .iter()
            .any(|spec| matches!(spec, ScheduleSpec::PipelineAuto { .. } | ScheduleSpec::PipelineManual(_)));
        let has_replicates =
            specs.iter().any(|spec| matches!(spec, ScheduleSpec::ReplicateAll | ScheduleSpec::Replicate(_)));
        if names.len() > 1 && has_pipelines {
            let plan = planner::plan(network, costs.pipelined(), &planner::Options::default());
            let fastest = plan.ending(Exit::Bug)?.schedule;
            schedules.extend(Some(fastest).filter(|fastest| fastest.kind() == ScheduleKind::Pipeline));
        }
        if has_replicates {
            let replicate = search::fastest_replicate(network, &costs.contended).ending(Exit::Bug)?;
            schedules.extend(replicate);
        }
        let planned = &self.network.linked.plan.schedules;
        schedules
            .retain(|schedule| planned.iter().all(|known| known.point != at || known.schedule != *schedule));
        let with_prediction = |schedule| {
            let prediction = costs.predict(network, &schedule)?;
            Ok(PlannedSchedule { schedule, point: at, prediction, queues: None })
        };
        schedules.into_iter().map(with_prediction).collect()
    }

    /// Predicts the costs of all operating points from those of the profiled ones.
    fn predict_points(&mut self) -> Result<(), Stop> {
        let all = &self.board.found.points.all;
        let fit = |costs: &dyn Fn(&NetworkCosts) -> Costs| {
            let profiles: Vec<(OperatingPoint, Costs)> =
                self.costs.iter().map(|(at, of)| (all[*at].settings.clone(), costs(of))).collect();
            FrequencyModel::fit(&profiles)
        };
        let alone = fit(&|of| of.alone.clone()).ending(Exit::Bug)?;
        // Replicates have a factor of their own, which their measurements give.
        let contended = fit(&|of| of.pipelined().clone()).ending(Exit::Bug)?;
        if let Some(error) = alone.error() {
            progress::say(
                "point",
                &format!(
                    "{} operating points, predicted from profiles at {} of them, with an error of at most {:.1} % at these",
                    all.len(),
                    self.costs.len(),
                    100.0 * error
                ),
            );
        }
        let mut points = Vec::new();
        for (at, known) in all.iter().enumerate() {
            let profiled = self.costs.iter().find(|(profiled, _)| *profiled == at);
            let (alone, contended) = if let Some((_, costs)) = profiled {
                (costs.alone.clone(), costs.pipelined().clone())
            } else {
                let has = |name: &domain::ProcessorName| known.processors.contains(name);
                let at = |model: &FrequencyModel| model.at(&known.settings, has).ending(Exit::Bug);
                (at(&alone)?, at(&contended)?)
            };
            points.push(PredictedPoint { point: known.settings.clone(), alone, contended, power: None });
        }
        self.points = points;
        Ok(())
    }

    fn measure_first(&mut self) -> Result<(), Stop> {
        let several = self.board.found.points.are_several();
        let rounds = self.board.loaded.experiment.trials.min(if several { ROUNDS } else { FIRST_ROUNDS });
        let standing = self.standing(&self.observe()?);
        let lacking = |at: &usize| standing.trials[*at] < rounds && !standing.hopeless[*at];
        let first: Vec<usize> = (0..standing.trials.len()).filter(lacking).collect();
        let most = first.iter().map(|at| rounds - standing.trials[*at]).max().unwrap_or(0);
        self.measure("measure", &first, most)
    }

    /// Measures the schedules of the experiment at every operating point once, besides those that a resumed run has measured.
    fn sweep(&mut self) -> Result<(), Stop> {
        let mut added = Vec::new();
        for (at, point) in self.points.iter().enumerate() {
            // Its contended times are those of pipelines already.
            let costs = NetworkCosts {
                alone: point.alone.clone(),
                contended: point.contended.clone(),
                cached: false,
            };
            added.extend(self.first_schedules(at, &costs)?);
        }
        if !added.is_empty() {
            self.add(&added, true)?;
        }
        // A void trial is repeated once.
        for _ in 0..2 {
            let standing = self.standing(&self.observe()?);
            let lacks = |at: &usize| standing.trials[*at] == 0 && !standing.hopeless[*at];
            let lacking: Vec<usize> = (0..standing.trials.len()).filter(lacks).collect();
            self.measure("sweep", &lacking, 1)?;
        }
        Ok(())
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
                        "no other schedule is predicted to be better by more than the prediction error, {:.1} %",
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
                point: candidate.at,
                prediction: Some(candidate.point.prediction),
                queues: None,
            };
            let chosen: Vec<PlannedSchedule> = chosen.into_iter().map(planned).collect();
            self.add(&chosen, true)?;
            let mut active: Vec<usize> = (known..self.network.linked.schedules.len()).collect();
            active.extend(standing.front.iter().chain(&standing.singles).copied());
            // To change the operating point takes seconds. Only points that are visited anyway are measured again.
            let visited: Vec<usize> = chosen.iter().map(|planned| planned.point).chain([0]).collect();
            active.retain(|at| visited.contains(&self.network.linked.plan.schedules[*at].point));
            active.sort_unstable();
            active.dedup();
            self.measure("search", &active, ROUNDS.min(self.board.loaded.experiment.trials))?;
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
    fn power_model(&self, observed: &Observed) -> Result<Option<PointPower>, Stop> {
        if !self.objective.needs_energy() {
            return Ok(None);
        }
        observed.power_model().map(Some).map_err(|error| {
            let rows = &observed.report.rows;
            let absent = rows.iter().find_map(|row| row.energy_absent_reason.as_ref());
            let why = match absent {
                Some(reason) if rows.iter().all(|row| row.energy_mj_per_frame.is_none()) => {
                    format!("no energy is known on the board {}: {reason}", self.board.loaded.board.name)
                }
                _ => error.to_string(),
            };
            let message = format!(
                "failed to optimize for {}: {why}; `{} optimize --run {} --objective throughput` shows the measured frames/s",
                self.objective,
                host::program(),
                self.recorder.run()
            );
            Failure::new(Exit::Trial, message).into()
        })
    }

    fn candidates(
        &self,
        observed: &Observed,
        power: Option<&PointPower>,
    ) -> Result<(Calibration, Vec<Candidate>), Stop> {
        let network = &self.network.linked.plan.compiled.network;
        let measured = observed.measured();
        let with_power = |known: &PredictedPoint| {
            let power = power.map(|power| power.at(&known.point, known.alone.processors()));
            Ok::<_, domain::PowerModelError>(PredictedPoint { power: power.transpose()?, ..known.clone() })
        };
        let points: Vec<PredictedPoint> =
            self.points.iter().map(with_power).collect::<Result<_, _>>().ending(Exit::Bug)?;
        let calibration = search::calibrate(network, &points, &measured).ending(Exit::Bug)?;
        let knowledge =
            Knowledge { network, points: &points, calibration: &calibration, measured: &measured };
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
        let at_default = result.as_ref().and_then(|result| result.best_at_default_point.as_ref());
        let mut standing = Standing::default();
        let mut singles: Vec<(usize, &analysis::Row)> = Vec::new();
        for (position, planned) in plan.schedules.iter().enumerate() {
            let row = observed.report.rows.iter().find(|row| row.place == plan.place(position));
            let trials = row.filter(|row| !row.is_void()).map_or(0, |row| row.trials);
            let failures = row.map_or(0, |row| row.trials_failed + row.trials_void);
            standing.trials.push(u32::try_from(trials).unwrap_or(u32::MAX));
            standing.hopeless.push(!self.network.usable[position] || (trials == 0 && failures > 1));
            let label = row.map_or("", |row| row.schedule.as_str());
            if on_front.contains(&label) || best.iter().chain(&at_default).any(|best| best.schedule == label)
            {
                standing.front.push(position);
            }
            if planned.schedule.kind() == ScheduleKind::Single {
                singles.extend(row.filter(|row| !row.is_void()).map(|row| (position, row)));
                if planned.point == 0 {
                    standing.singles.push(position);
                }
            }
        }
        // Gains are over the best single processors of all points, by trials of the same rounds.
        let fps = |row: &analysis::Row| row.throughput_fps.map_or(0.0, |fps| fps.point);
        let energy =
            |row: &analysis::Row| row.energy_mj_per_frame.map_or(f64::INFINITY, |energy| energy.point);
        let fastest = singles.iter().max_by(|a, b| fps(a.1).total_cmp(&fps(b.1)));
        let least = singles.iter().min_by(|a, b| energy(a.1).total_cmp(&energy(b.1)));
        standing.singles.extend(fastest.into_iter().chain(least).map(|(position, _)| *position));
        standing.singles.sort_unstable();
        standing.singles.dedup();
        standing
    }

    /// Measures rounds of these schedules, each in a random order of its own. Schedules at the same operating point are
    /// neighbours, because to change it takes seconds.
    fn measure(&mut self, step: &'static str, schedules: &[usize], rounds: u32) -> Result<(), Stop> {
        let mut slots = Vec::new();
        for round in self.round..self.round + rounds {
            let mut order: Vec<usize> =
                schedules.iter().copied().filter(|schedule| self.network.usable[*schedule]).collect();
            let seed = self.board.loaded.experiment.seed.wrapping_add(u64::from(round));
            let mut random = SplitMix64::new(seed);
            random.shuffle(&mut order);
            let point = |schedule: &usize| self.network.linked.plan.schedules[*schedule].point;
            let mut points: Vec<usize> = order.iter().map(point).collect();
            points.sort_unstable();
            points.dedup();
            random.shuffle(&mut points);
            order.sort_by_key(|schedule| points.iter().position(|known| *known == point(schedule)));
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

/// A resumed run must have the same operating points, because its records have their numbers.
fn check_points(board: &OpenedBoard, store: &Store, recorder: &RunRecorder<'_>) -> Result<(), Stop> {
    let run = store.run(recorder.run().as_str())?;
    for record in store.operating_points(&run)? {
        let now = board.found.points.all.get(record.number as usize).map(|known| &known.settings);
        if now != Some(&record.point) {
            let message = format!(
                "failed to resume the run {}: its operating point {} was {}, and now it is {}; start a new run",
                recorder.run(),
                record.number,
                record.point,
                now.map_or_else(|| "none".to_owned(), ToString::to_string)
            );
            return Err(Failure::new(Exit::Board, message).into());
        }
    }
    Ok(())
}

fn minutes(time: Duration) -> String {
    format!("{:.1} min", time.as_secs_f64() / 60.0)
}
