//! The result of `optimize`: the measured front of throughput and energy, and the best schedule for an objective.
//!
//! Everything is computed from the raw observations of a run. A predicted energy comes from a power model that was fitted
//! without the schedule's own trials, so predicted and measured figures can be compared.

use super::measurements::{add_energy, measurements};
use super::rows::{Interval, Report, Row};
use domain::objective::Figures;
use domain::search::{MeasuredSchedule, busy_shares};
use domain::{
    Choice, Costs, Limit, Objective, PowerModel, PowerModelError, PowerWindow, ScheduleKind, Severity,
    Transfer, Validity,
};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use store::{RunId, ScheduleRecord, Store, StoreError};

/// Version of the JSON. It rises if a field changes its meaning or is removed, not if one is added.
const SCHEMA: u32 = 1;

/// What a run measured of one network.
#[derive(Debug)]
pub struct Observed {
    /// The report of the run.
    pub report: Report,
    /// The schedules, in the order of the report's rows; their numbers within the run are `Row::place`.
    pub schedules: Vec<ScheduleRecord>,
    /// Power of the valid trials and of the idle board.
    windows: Vec<PowerWindow>,
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
        let processors: Vec<&str> =
            run.start.processors.iter().map(|processor| processor.name.as_str()).collect();
        let mut windows = Vec::new();
        if let Some(power) = meter.section(idle.as_ref()).and_then(|section| section.idle_mw) {
            windows.push(PowerWindow {
                schedule: None,
                busy: vec![0.0; processors.len()],
                power: domain::Milliwatts(power.point),
                uncertainty: domain::Milliwatts(power.hi.map_or(0.0, |hi| hi - power.point)),
            });
        }
        for measured in schedules.iter().filter(|measured| measured.validity() == Validity::Valid) {
            let schedule = &measured.record.schedule;
            if schedule.kind() == ScheduleKind::Peer {
                continue;
            }
            for trial in measured.valid() {
                let Some(drawn) = trial.energy.drawn() else { continue };
                let mut busy = vec![0.0; processors.len()];
                for (stage, shares) in schedule.stages().iter().zip(&trial.stages) {
                    let at = processors.iter().position(|name| *name == stage.processor.as_str());
                    if let Some(at) = at {
                        busy[at] = shares.busy;
                    }
                }
                windows.push(PowerWindow {
                    schedule: Some(measured.record.place),
                    busy,
                    power: drawn.mean_power(),
                    uncertainty: drawn.power_uncertainty(),
                });
            }
        }
        Ok(Self { report, schedules: store.schedules(&run)?, windows })
    }

    /// The power model of the board's processors.
    ///
    /// # Errors
    /// If the trials with energy do not determine it.
    pub fn power_model(&self) -> Result<PowerModel, PowerModelError> {
        PowerModel::fit(self.report.measured_on.processors.len(), &self.windows)
    }

    /// Whether any trial has energy.
    pub fn has_energy(&self) -> bool {
        self.windows.iter().any(|window| window.schedule.is_some())
    }

    /// The schedules of the board's own processors with their figures, for the search.
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

    /// Predicted energy per frame, from the times predicted before the trials and the power model of all other trials.
    fn predicted_energy(&self, record: &ScheduleRecord) -> Option<Interval> {
        let prediction = record.prediction.as_ref()?;
        let others: Vec<PowerWindow> =
            self.windows.iter().filter(|window| window.schedule != Some(record.place)).cloned().collect();
        let processors = &self.report.measured_on.processors;
        let model = PowerModel::fit(processors.len(), &others).ok()?;
        let names = processors.iter().map(|processor| processor.name.as_str().into()).collect();
        // Only the places of the processors are needed.
        let costs = Costs::new(names, vec![vec![0.0]; processors.len()], Transfer::FREE).ok()?;
        let fps = prediction.throughput.0;
        let busy = busy_shares(&record.schedule, &prediction.stage_ns, fps, &costs);
        let energy = model.predict_energy(&busy, fps, self.rate_error(record.place));
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
    /// Probability with which an interval holds the true value.
    pub confidence: f64,
    /// The measured front, fastest first: no other measured schedule is better in throughput and energy. Without energy, the
    /// fastest schedule alone.
    pub front: Vec<FrontRow>,
    /// The best schedule for the objective; absent if none meets it, or the objective is `pareto`.
    pub best: Option<FrontRow>,
    /// Whether the intervals of `best` meet the requirement too, and not its figures alone; absent without a requirement.
    pub certain: Option<bool>,
    /// Where nothing meets the requirement: the schedule that comes closest.
    pub closest: Option<Closest>,
    /// The single processors.
    pub baselines: Vec<FrontRow>,
    /// The other measured schedules, in the order in which they were added.
    pub others: Vec<FrontRow>,
    /// Throughput of `best` over the fastest single processor, by trials of the same round.
    pub throughput_gain: Option<Interval>,
    /// Frames per joule of `best` over the single processor with the most, by trials of the same round.
    pub energy_gain: Option<Interval>,
    /// The fitted power model; absent without energy.
    pub power_model: Option<PowerModelSection>,
    /// Why there is no energy or no power model.
    pub energy_absent_reason: Option<String>,
    /// Schedules that were measured.
    pub schedules_measured: usize,
    /// Schedules whose trials are all void or failed.
    pub schedules_void: usize,
    /// Why the first of them is void.
    pub void_reason: Option<String>,
}

/// A measured schedule.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FrontRow {
    /// Its label.
    pub schedule: String,
    /// `single`, `pipeline` or `replicate`.
    #[schemars(with = "String")]
    pub kind: ScheduleKind,
    /// Its processors, in stage order.
    pub processors: Vec<String>,
    /// Settings of the board that decide speed and power.
    pub operating_point: OperatingPoint,
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

/// Settings of the board, as they were during the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct OperatingPoint {
    /// Power mode; absent if the board has none.
    pub power_mode: Option<String>,
    /// Frequency governors of the used CPUs; absent if unknown.
    pub governor: Option<String>,
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

    /// The result of what was observed; `None` if the run has no network.
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
        if !observed.has_energy() {
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
        let model = observed.power_model();
        let reason = || tried.iter().find_map(|row| row.energy_absent_reason.clone());
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
            power_model: model.ok().map(|model| observed.section(&model)),
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
            operating_point: OperatingPoint {
                power_mode: self.report.measured_on.power_mode.clone(),
                governor: self.report.measured_on.governor.clone(),
            },
            throughput_fps: row.throughput_fps?,
            energy_mj_per_frame: row.energy_mj_per_frame,
            predicted_fps: row.predicted_fps,
            predicted_mj_per_frame: predicted.map(|energy| energy.point),
            predicted_mj_per_frame_interval: predicted,
            trials: row.trials,
        })
    }

    fn section(&self, model: &PowerModel) -> PowerModelSection {
        let names = self.report.measured_on.processors.iter().map(|processor| processor.name.clone());
        PowerModelSection {
            idle_mw: model.idle_mw(),
            dynamic_mw: names.enumerate().map(|(at, name)| (name, model.dynamic_mw(at))).collect(),
            residual_mw: model.residual_mw(),
            left_out_error: model.left_out_share(),
            windows: model.windows(),
        }
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
        Objective::Throughput | Objective::Energy | Objective::Pareto => String::new(),
    }
}
