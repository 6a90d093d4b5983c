//! The result of `optimize`: the measured front of throughput and energy, and the best schedule for an objective.
//!
//! Everything is computed from the raw observations of a run. A predicted energy comes from a power model that was fitted
//! without the schedule's own trials, so predicted and measured figures can be compared.

use super::energy;
use super::measurements::{Measurements, add_energy, measurements};
use super::rows::{Interval, Report, Row};
use domain::objective::Figures;
use domain::search::{MeasuredSchedule, busy_of_stages, busy_shares};
use domain::{
    Choice, Confidence, Limit, Metric, Objective, Observation, OperatingPoint, PointPower, PointWindow,
    PowerModelError, PowerWindow, ProcessorName, ScheduleKind, Severity, Validity, comparison,
};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use store::{OperatingPointRecord, RunId, ScheduleRecord, Store, StoreError};

/// Version of the JSON. It rises if a field changes its meaning or is removed, not if one is added.
const SCHEMA: u32 = 1;

/// What a run measured of one network.
#[derive(Debug)]
pub struct Observed {
    /// The report of the run.
    pub report: Report,
    /// The schedules, in the order of the report's rows; their numbers within the run are `Row::place`.
    pub schedules: Vec<ScheduleRecord>,
    /// The operating points that the run has set, by their numbers; that of the board's file alone if there is no other.
    pub points: Vec<OperatingPointRecord>,
    processors: Vec<ProcessorName>,
    /// Power of the valid trials and of the idle board.
    windows: Vec<PointWindow>,
    /// Trials of each schedule, by its number.
    trials: BTreeMap<u32, ComparedTrials>,
}

/// The trials of a schedule, to be compared with those of another.
#[derive(Debug)]
struct ComparedTrials {
    throughput: Vec<Observation>,
    frames_per_joule: Vec<Observation>,
    /// Of the energy, as a share.
    uncertainty: f64,
}

impl Observed {
    /// Reads a run.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn read(store: &Store, run: &RunId) -> Result<Self, StoreError> {
        let report = Report::build(store, run)?;
        let run = store.run(run.as_str())?;
        let mut schedules = measurements(store, &run)?;
        let idle = store.idle_power(&run)?;
        let meter = add_energy(&mut schedules, idle.as_ref());
        let mut points = store.operating_points(&run)?;
        if points.is_empty() {
            let (number, point) = (0, OperatingPoint::default());
            points.push(OperatingPointRecord { number, point, state: run.start.state.clone(), idle: None });
        }
        let names = run.start.processors.iter().map(|processor| ProcessorName::new(&processor.name));
        let processors: Vec<ProcessorName> = names.filter(|name| !name.is_merged()).collect();
        let mut windows = Vec::new();
        for record in &points {
            let idle = if record.number == 0 { idle.as_ref() } else { record.idle.as_ref() };
            if let Some(power) = meter.section(idle).and_then(|section| section.idle_mw) {
                windows.push(PointWindow {
                    point: record.point.clone(),
                    window: PowerWindow {
                        schedule: None,
                        busy: vec![0.0; processors.len()],
                        power: domain::Milliwatts(power.point),
                        uncertainty: domain::Milliwatts(power.hi.map_or(0.0, |hi| hi - power.point)),
                    },
                });
            }
        }
        for measured in schedules.iter().filter(|measured| measured.validity() == Validity::Valid) {
            let schedule = &measured.record.schedule;
            let point = points.iter().find(|record| record.number == measured.record.point);
            let (false, Some(point)) = (schedule.kind() == ScheduleKind::Peer, point) else { continue };
            for trial in measured.valid() {
                let Some(drawn) = trial.energy.drawn() else { continue };
                let stages = schedule.processors().zip(trial.stages.iter().map(|shares| shares.busy));
                let busy = busy_of_stages(stages, &processors);
                windows.push(PointWindow {
                    point: point.point.clone(),
                    window: PowerWindow {
                        schedule: Some(measured.record.place),
                        busy,
                        power: drawn.mean_power(),
                        uncertainty: drawn.power_uncertainty(),
                    },
                });
            }
        }
        let compared = |measured: &Measurements| {
            let trials = measured.counted();
            let (throughput, frames_per_joule) = (measured.throughputs(), energy::frames_per_joule(&trials));
            ComparedTrials { throughput, frames_per_joule, uncertainty: energy::uncertainty(&trials) }
        };
        let trials = schedules.iter().map(|measured| (measured.record.place, compared(measured))).collect();
        Ok(Self { report, schedules: store.schedules(&run)?, points, processors, windows, trials })
    }

    /// The power model of the board's processors at all operating points.
    ///
    /// # Errors
    /// If the trials with energy do not determine it.
    pub fn power_model(&self) -> Result<PointPower, PowerModelError> {
        PointPower::fit(&self.processors, &self.windows)
    }

    /// The schedules of the board's own processors with their figures, for the search. Operating points have their numbers.
    pub fn measured(&self) -> Vec<MeasuredSchedule> {
        let tried = self.schedules.iter().filter(|record| record.schedule.kind() != ScheduleKind::Peer);
        let measured = tried.filter_map(|record| {
            let row = self.row(record.place)?;
            // A schedule that was not tried yet is neither good nor bad.
            if row.trials + row.trials_void + row.trials_failed == 0 && !row.is_wrong() {
                return None;
            }
            let figures = figures(row).filter(|_| !row.is_void());
            let stage_ns = figures.map(|figures| {
                row.stages.iter().map(|stage| stage.busy.map(|busy| busy * 1e9 / figures.fps)).collect()
            });
            Some(MeasuredSchedule {
                at: usize::try_from(record.point).ok()?,
                schedule: record.schedule.clone(),
                figures,
                stage_ns: stage_ns.and_then(|stages: Option<Vec<f64>>| stages).unwrap_or_default(),
            })
        });
        measured.collect()
    }

    fn row(&self, place: u32) -> Option<&Row> {
        self.report.rows.iter().find(|row| row.place == place)
    }

    fn is_at_default(&self, row: &Row) -> bool {
        self.schedules.iter().any(|record| record.place == row.place && record.point == 0)
    }

    fn point_of(&self, record: &ScheduleRecord) -> Option<&OperatingPointRecord> {
        self.points.iter().find(|point| point.number == record.point)
    }

    /// Predicted energy per frame, from the times predicted before the trials and the power model of all other trials.
    fn predicted_energy(&self, record: &ScheduleRecord) -> Option<Interval> {
        let prediction = record.prediction.as_ref()?;
        let others: Vec<PointWindow> = self
            .windows
            .iter()
            .filter(|window| window.window.schedule != Some(record.place))
            .cloned()
            .collect();
        let model = PointPower::fit(&self.processors, &others).ok()?;
        let fps = prediction.throughput.0;
        let busy = busy_shares(&record.schedule, &prediction.stage_ns, fps, &self.processors);
        let point = &self.point_of(record)?.point;
        let energy = model.predict_energy(point, &busy, fps, self.rate_error(record.place));
        let (lo, hi) = (energy.point - energy.half_width, energy.point + energy.half_width);
        energy.point.is_finite().then_some(Interval { point: energy.point, lo: Some(lo), hi: Some(hi) })
    }

    /// How far the predicted rates of the other schedules were off: twice the root mean square, as a share.
    fn rate_error(&self, place: u32) -> f64 {
        let others = self.report.rows.iter().filter(|row| row.place != place && !row.is_void());
        let errors: Vec<f64> = others.filter_map(|row| row.prediction_error).collect();
        let squares: f64 = errors.iter().map(|error| error * error).sum();
        if errors.is_empty() { 0.0 } else { 2.0 * (squares / errors.len() as f64).sqrt() }
    }
}

/// Figures of a row by which it is chosen.
fn figures(row: &Row) -> Option<Figures> {
    Some(Figures {
        fps: row.throughput_fps?.point,
        mj_per_frame: row.energy_mj_per_frame.map(|energy| energy.point),
    })
}

/// The result of `optimize`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "Result of edgepipe optimize")]
pub struct Optimization {
    /// Version of this format.
    pub schema: u32,
    /// The board.
    pub board: String,
    /// The network.
    pub network: String,
    /// The run with all trials.
    pub run: String,
    /// `running` (or killed), `complete`, `interrupted` or `failed`.
    pub status: String,
    /// What was optimized, in words.
    pub objective: String,
    /// Probability with which an interval contains the true value.
    pub confidence: f64,
    /// The measured front, fastest first: no other measured schedule is better in both throughput and energy. Without energy, the
    /// fastest schedule alone.
    pub front: Vec<FrontRow>,
    /// The best schedule for the objective; absent if none meets it, or the objective is `pareto`.
    pub best: Option<FrontRow>,
    /// Whether the intervals of `best` meet the requirement too, and not its figures alone; absent without a requirement.
    pub certain: Option<bool>,
    /// If nothing meets the requirement: the schedule that comes closest.
    pub closest: Option<Closest>,
    /// The single processors.
    pub baselines: Vec<FrontRow>,
    /// The other measured schedules, in the order in which they were added.
    pub others: Vec<FrontRow>,
    /// Throughput of `best` over the fastest single processor, by trials of the same round.
    pub throughput_gain: Option<Interval>,
    /// Frames per joule of `best` over the single processor with the most, by trials of the same round.
    pub energy_gain: Option<Interval>,
    /// The best schedule for the objective at the point of the board's file; absent if the run has one point only.
    pub best_at_default_point: Option<FrontRow>,
    /// Throughput of `best` over `best_at_default_point`, by trials of the same round.
    pub throughput_gain_over_default_point: Option<Interval>,
    /// Frames per joule of `best` over `best_at_default_point`, by trials of the same round.
    pub energy_gain_over_default_point: Option<Interval>,
    /// Shell commands that set the operating point of `best` by hand; empty if the run has one point only.
    pub commands: Vec<String>,
    /// The fitted power model at the point of the board's file; absent without energy.
    pub power_model: Option<PowerModelSection>,
    /// Why there is no energy or no power model.
    pub energy_absent_reason: Option<String>,
    /// Why the schedules cannot be judged by the objective: it needs energy, and no trial has any. Then `front` has the fastest
    /// schedule alone, and there is no `best`.
    pub not_judged_reason: Option<String>,
    /// Schedules that were measured.
    pub schedules_measured: usize,
    /// Schedules whose trials are all void or failed.
    pub schedules_void: usize,
    /// Why the first void schedule is void.
    pub void_reason: Option<String>,
}

/// A measured schedule.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FrontRow {
    /// Its label.
    pub schedule: String,
    /// `single`, `merged`, `pipeline` or `replicate`.
    #[schemars(with = "String")]
    pub kind: ScheduleKind,
    /// Its processors, in stage order.
    pub processors: Vec<String>,
    /// Settings of the board that decide speed and power.
    pub operating_point: PointSection,
    /// Frames per second.
    pub throughput_fps: Interval,
    /// Energy per frame in mJ, idle power included. Absent if it was not measured.
    pub energy_mj_per_frame: Option<Interval>,
    /// Frames per second as predicted before its trials.
    pub predicted_fps: Option<f64>,
    /// Energy per frame in mJ from the predicted times and a power model fitted without its trials.
    pub predicted_mj_per_frame: Option<f64>,
    /// The interval of that prediction.
    pub predicted_mj_per_frame_interval: Option<Interval>,
    /// Valid trials.
    pub trials: usize,
}

/// Settings of the board, as they were during the trials.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "OperatingPoint")]
pub struct PointSection {
    /// Number within the run; 0 is the point of the board's file.
    pub number: u32,
    /// In words; absent if the run has one point only.
    pub label: Option<String>,
    /// Power mode; absent if the board has none.
    pub power_mode: Option<String>,
    /// Frequency governors of the used CPUs; absent if unknown.
    pub governor: Option<String>,
    /// Frequency in MHz at which the memory clock is locked. Absent if it is not locked, or the points of the run do not
    /// differ in it.
    pub memory_mhz: Option<f64>,
    /// Highest frequency of each processor in MHz. Empty if the run has one point only; a processor that is offline at this
    /// point, or whose clock is not known, is absent.
    pub max_mhz: BTreeMap<String, f64>,
}

/// A schedule that does not meet the requirement, but comes closer than all others.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Closest {
    /// The schedule.
    pub point: FrontRow,
    /// How far it is from the requirement, as a share of the requirement.
    pub missed_by: f64,
    /// The same as a sentence.
    pub text: String,
}

/// A fitted power model.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PowerModelSection {
    /// Power of the idle board in mW.
    pub idle_mw: f64,
    /// Power that each processor adds while it works, in mW.
    pub dynamic_mw: BTreeMap<String, f64>,
    /// Standard deviation of the trials around the model, in mW.
    pub residual_mw: f64,
    /// Error of the power of schedules that were left out of the fit, as a share: root mean square. Absent if none can be
    /// left out.
    pub left_out_error: Option<f64>,
    /// Trials and idle readings that it was fitted to.
    pub windows: usize,
}

impl Optimization {
    /// The result of a run for an objective. `None` if the run has no network.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn build(store: &Store, run: &RunId, objective: Objective) -> Result<Option<Self>, StoreError> {
        Ok(Self::of(&Observed::read(store, run)?, objective))
    }

    /// The result, computed from the observations; `None` if the run has no network.
    pub fn of(observed: &Observed, objective: Objective) -> Option<Self> {
        let report = &observed.report;
        let network = report.networks.first()?.name.clone();
        let own = |row: &&Row| row.network == network && row.kind != ScheduleKind::Peer;
        let tried: Vec<&Row> = report.rows.iter().filter(own).filter(|row| row.trials > 0).collect();
        let valid: Vec<&Row> = tried.iter().copied().filter(|row| !row.is_void()).collect();
        let known: Vec<Figures> = valid.iter().filter_map(|row| figures(row)).collect();
        let point = |row: &Row| observed.point(row);
        let mut front: Vec<&Row> = valid.iter().copied().filter(|row| is_on_front(row, &valid)).collect();
        front.sort_by(|a, b| fps(b).total_cmp(&fps(a)));
        let has_energy = known.iter().any(|figures| figures.mj_per_frame.is_some());
        if !has_energy {
            front.truncate(1);
        }
        // A schedule whose whole interval meets the requirement is preferred to one whose figure alone does.
        let careful: Vec<Figures> = valid.iter().filter_map(|row| pessimistic(row)).collect();
        let (choice, certain) = match objective.choose(&careful) {
            Choice::Met(best) if has_requirement(objective) => (Choice::Met(best), true),
            _ => (objective.choose(&known), false),
        };
        let (best, closest) = match choice {
            Choice::Met(best) => (Some(valid[best]), None),
            Choice::Missed { closest, by } => (None, Some((valid[closest], by))),
            Choice::None => (None, None),
        };
        // The best one by the same objective without changing the operating point.
        let has_points = observed.points.len() > 1;
        let default: Vec<&Row> =
            valid.iter().copied().filter(|row| has_points && observed.is_at_default(row)).collect();
        let of_default: Vec<Figures> = default.iter().filter_map(|row| figures(row)).collect();
        let at_default = match objective.choose(&of_default) {
            Choice::Met(place) | Choice::Missed { closest: place, .. } => Some(default[place]),
            Choice::None => None,
        };
        let over_default =
            |metric: Metric| best.zip(at_default).and_then(|(row, over)| observed.gain(row, over, metric));
        let model = observed.power_model();
        let reason = || tried.iter().find_map(|row| row.energy_absent_reason.clone());
        let is_judged = has_energy || valid.is_empty() || !objective.needs_energy();
        Some(Self {
            schema: SCHEMA,
            board: report.run.board.clone(),
            network: network.clone(),
            run: report.run.id.clone(),
            status: report.run.status.clone(),
            objective: objective.to_string(),
            confidence: report.confidence,
            front: front.iter().filter_map(|row| point(row)).collect(),
            best: best.and_then(point),
            certain: best.filter(|_| has_requirement(objective)).map(|_| certain),
            closest: closest.and_then(|(row, by)| {
                Some(Closest {
                    point: point(row)?,
                    missed_by: by,
                    text: missed(objective, figures(row)?, by),
                })
            }),
            baselines: valid
                .iter()
                .filter(|row| row.kind == ScheduleKind::Single)
                .filter_map(|row| point(row))
                .collect(),
            others: valid
                .iter()
                .filter(|row| row.kind != ScheduleKind::Single)
                .filter(|row| front.iter().all(|on_front| on_front.place != row.place))
                .filter_map(|row| point(row))
                .collect(),
            throughput_gain: best.and_then(|row| row.gain_over_best_single_interval),
            energy_gain: best.and_then(|row| row.energy_gain_over_best_single_interval),
            energy_absent_reason: match &model {
                Ok(_) => None,
                Err(error) => Some(reason().unwrap_or_else(|| error.to_string())),
            },
            not_judged_reason: (!is_judged).then(|| {
                let why = reason().map(|reason| format!(" ({reason})")).unwrap_or_default();
                format!("no valid trial has energy{why}")
            }),
            best_at_default_point: at_default.and_then(point),
            throughput_gain_over_default_point: over_default(Metric::Throughput),
            energy_gain_over_default_point: over_default(Metric::EnergyPerFrame),
            commands: best.map(|row| observed.commands(row)).unwrap_or_default(),
            power_model: model.ok().and_then(|model| observed.section(&model)),
            schedules_measured: valid.len(),
            schedules_void: tried.len() - valid.len(),
            void_reason: tried.iter().filter(|row| row.is_void()).find_map(|row| void_reason(row)),
        })
    }
}

impl Observed {
    fn point(&self, row: &Row) -> Option<FrontRow> {
        let record = self.schedules.iter().find(|record| record.place == row.place);
        let predicted = record.and_then(|record| self.predicted_energy(record));
        Some(FrontRow {
            schedule: row.schedule.clone(),
            kind: row.kind,
            processors: row.processors.clone(),
            operating_point: self.point_section(record),
            throughput_fps: row.throughput_fps?,
            energy_mj_per_frame: row.energy_mj_per_frame,
            predicted_fps: row.predicted_fps,
            predicted_mj_per_frame: predicted.map(|energy| energy.point),
            predicted_mj_per_frame_interval: predicted,
            trials: row.trials,
        })
    }

    fn point_section(&self, record: Option<&ScheduleRecord>) -> PointSection {
        let known = record.and_then(|record| self.point_of(record)).filter(|_| self.points.len() > 1);
        let mode = known.and_then(|known| known.point.power_mode.as_ref());
        let mhz = |(name, khz): (&String, &u64)| (name.clone(), *khz as f64 / 1000.0);
        PointSection {
            number: record.map_or(0, |record| record.point),
            label: known.map(|known| known.point.to_string()),
            power_mode: match mode {
                Some(mode) => Some(format!("{} ({})", mode.id, mode.name)),
                None => self.report.measured_on.power_mode.clone(),
            },
            governor: known
                .and_then(|known| known.point.governor.clone())
                .or_else(|| self.report.measured_on.governor.clone()),
            memory_mhz: known.and_then(|known| known.point.memory_khz).map(|khz| khz as f64 / 1000.0),
            max_mhz: known.map(|known| known.point.max_khz.iter().map(mhz).collect()).unwrap_or_default(),
        }
    }

    /// Figures of a row over those of another, by trials of the same round: throughput, or frames per joule.
    fn gain(&self, row: &Row, over: &Row, metric: Metric) -> Option<Interval> {
        let (own, other) = (self.trials.get(&row.place)?, self.trials.get(&over.place)?);
        let compare = |own: &[Observation], other: &[Observation]| {
            Some(comparison::compare(own, other, Confidence::P95).ok()?.ratio)
        };
        match metric {
            Metric::Throughput => compare(&own.throughput, &other.throughput).map(Interval::from),
            _ => compare(&own.frames_per_joule, &other.frames_per_joule)
                .map(|ratio| energy::widened(ratio, &[own.uncertainty, other.uncertainty])),
        }
    }

    /// The commands that set the operating point of a row.
    fn commands(&self, row: &Row) -> Vec<String> {
        let record = self.schedules.iter().find(|record| record.place == row.place);
        let point = record.and_then(|record| self.point_of(record)).filter(|_| self.points.len() > 1);
        let state = point.and_then(|point| point.state.as_ref());
        state.map(|state| protocol::text::commands(&state.asked)).unwrap_or_default()
    }

    fn section(&self, model: &PointPower) -> Option<PowerModelSection> {
        let default = &self.points.iter().find(|point| point.number == 0)?.point;
        let at = model.at(default, &self.processors).ok()?;
        let names = self.processors.iter().map(ToString::to_string);
        Some(PowerModelSection {
            idle_mw: at.idle_mw(),
            dynamic_mw: names.enumerate().map(|(place, name)| (name, at.dynamic_mw(place))).collect(),
            residual_mw: model.fit_at(default).residual_mw(),
            left_out_error: model.fit_at(default).left_out_share(),
            windows: model.fit_at(default).windows(),
        })
    }
}

fn void_reason(row: &Row) -> Option<String> {
    let reason = row.reasons.iter().find(|reason| reason.severity == Severity::Void)?;
    Some(format!("{}: {}", row.schedule, reason.text))
}

fn fps(row: &Row) -> f64 {
    row.throughput_fps.map_or(0.0, |interval| interval.point)
}

/// Figures at the unfavourable ends of the intervals.
fn pessimistic(row: &Row) -> Option<Figures> {
    let throughput = row.throughput_fps?;
    let energy = row.energy_mj_per_frame;
    Some(Figures {
        fps: throughput.lo.unwrap_or(0.0),
        mj_per_frame: energy.map(|energy| energy.hi.unwrap_or(f64::INFINITY)),
    })
}

/// Whether no other row is better in one figure and at least as good in the other. Without energy, throughput alone counts.
fn is_on_front(row: &Row, all: &[&Row]) -> bool {
    let Some(own) = figures(row) else { return false };
    let has_energy = all.iter().any(|row| row.energy_mj_per_frame.is_some());
    if has_energy && own.mj_per_frame.is_none() {
        return false;
    }
    let energy = |of: Figures| of.mj_per_frame.unwrap_or(f64::INFINITY);
    !all.iter().filter_map(|row| figures(row)).any(|other| {
        let no_worse = other.fps >= own.fps && energy(other) <= energy(own);
        no_worse && (other.fps > own.fps || energy(other) < energy(own))
    })
}

fn has_requirement(objective: Objective) -> bool {
    matches!(objective, Objective::EnergyAtLeast { .. } | Objective::ThroughputWithin(_))
}

/// What the closest schedule reaches and how far that is from the requirement.
fn missed(objective: Objective, reached: Figures, by: f64) -> String {
    let percent = 100.0 * by;
    match objective {
        Objective::EnergyAtLeast { min_fps } => {
            format!("{:.2} frames/s, {percent:.1} % below the required {min_fps}", reached.fps)
        }
        Objective::ThroughputWithin(Limit::Watts(most)) => {
            let watts = reached.watts().unwrap_or(f64::NAN);
            format!("{watts:.2} W, {percent:.1} % above the limit of {most} W")
        }
        Objective::ThroughputWithin(Limit::MillijoulesPerFrame(most)) => {
            let energy = reached.mj_per_frame.unwrap_or(f64::NAN);
            format!("{energy:.1} mJ/frame, {percent:.1} % above the limit of {most} mJ/frame")
        }
        Objective::Throughput | Objective::Energy | Objective::Latency | Objective::Pareto => String::new(),
    }
}
