//! Which schedules a search measures next, and at which operating points.
//!
//! Profiles predict every schedule, but not exactly. So the search alternates: measure, calibrate the predictions by what was
//! measured, and measure the schedules that are now predicted to be better than all measured ones. It ends when no other
//! schedule is predicted to be better by more than the prediction error.
//!
//! [`calibrate`] scales the time of each processor under contention by the median, over the measured pipelines at all points,
//! of measured to predicted stage times, and that of a processor alone by the measured single schedules. [`next`] takes
//! candidates from the exact front ([`crate::front()`]) of every operating point, from the neighbours of the measured
//! pipelines, which differ by one unit at one cut, and from the same schedules at neighbouring points.
//!
//! The gain of a candidate is the additive version of the ε-indicator (Zitzler et al. 2003, "Performance assessment of
//! multiobjective optimizers"): the factor by which it is better, in throughput or energy, than each measured schedule, for
//! the measured schedule that comes closest to it.

use crate::costs::Costs;
use crate::front::{FrontCosts, FrontPoint, front};
use crate::network::Network;
use crate::objective::{Choice, Figures, Limit, Objective};
use crate::operating_point::{OperatingPoint, neighbours as neighbouring_points};
use crate::planner::{Options, PlanError, plan};
use crate::power_model::PowerModel;
use crate::prediction::{periods_ns, predict};
use crate::processor::ProcessorName;
use crate::processor_set::{Exclusions, members};
use crate::samples::Samples;
use crate::schedule::{Schedule, ScheduleKind};
use crate::units::Millijoules;

/// A prediction is never taken to be closer than this share.
const LEAST_UNCERTAINTY: f64 = 0.01;

/// Kinds of schedules with one stage, which are predicted by the times of a processor alone.
const ALONE: [ScheduleKind; 2] = [ScheduleKind::Single, ScheduleKind::Merged];

/// An operating point with its predictions.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictedPoint {
    /// The point.
    pub point: OperatingPoint,
    /// Times on a processor while the others are idle, for the processors that the point has.
    pub alone: Costs,
    /// Times while all of them work on a pipeline. The same processors in the same order.
    pub contended: Costs,
    /// For the same processors. Absent without a power meter; then throughput alone counts.
    pub power: Option<PowerModel>,
}

/// A measured schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredSchedule {
    /// Place of its operating point among the predicted ones.
    pub at: usize,
    /// The schedule.
    pub schedule: Schedule,
    /// Its figures; absent if its trials are void or failed.
    pub figures: Option<Figures>,
    /// Time that each stage worked for a frame, in ns; of a stage with replicas, each of them for a frame of any. Empty if not
    /// known.
    pub stage_ns: Vec<f64>,
}

/// How predictions are scaled by measurements.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Factors of the times under contention.
    contended: Vec<(ProcessorName, f64)>,
    /// Factors of the times of single schedules.
    alone: Vec<(ProcessorName, f64)>,
    /// Measured over predicted throughput of replicates, by the scaled costs.
    pub replicate: f64,
    /// Measured over predicted throughput of pipelines, by the scaled costs.
    pub pipeline: f64,
    /// How far predicted rates are off, as a share: the median.
    pub uncertainty: f64,
}

/// Scales predictions by the measured schedules.
///
/// # Errors
/// If a schedule does not fit the network and the costs of its point.
pub fn calibrate(
    network: &Network,
    points: &[PredictedPoint],
    measured: &[MeasuredSchedule],
) -> Result<Calibration, PlanError> {
    let (mut contended, mut alone) = (Ratios::default(), Ratios::default());
    for known in measured {
        let (costs, ratios) = match known.schedule.kind() {
            ScheduleKind::Pipeline => (&points[known.at].contended, &mut contended),
            ScheduleKind::Single | ScheduleKind::Merged => (&points[known.at].alone, &mut alone),
            ScheduleKind::Replicate | ScheduleKind::Peer => continue,
        };
        let prediction = predict(network, costs, &known.schedule)?;
        let periods = periods_ns(&known.schedule, &prediction.stage_ns);
        for ((processor, predicted), found) in known.schedule.processors().zip(periods).zip(&known.stage_ns) {
            if predicted > 0.0 && *found > 0.0 {
                ratios.add(processor, found / predicted);
            }
        }
    }
    let (contended, alone) = (contended.medians(), alone.medians());
    let ratios_of = |kinds: &[ScheduleKind], factors: &[(ProcessorName, f64)]| {
        let of_kind = measured.iter().filter(|known| kinds.contains(&known.schedule.kind()));
        let ratios = of_kind.filter_map(|known| {
            let (figures, point) = (known.figures?, &points[known.at]);
            let costs = if kinds == ALONE { &point.alone } else { &point.contended };
            let ratio = scaled(costs, factors).and_then(|costs| {
                let prediction = predict(network, &costs, &known.schedule)?;
                Ok(figures.fps / prediction.throughput.0)
            });
            Some(ratio)
        });
        ratios.collect::<Result<Vec<f64>, PlanError>>()
    };
    let singles = ratios_of(&ALONE, &alone)?;
    let pipelines = ratios_of(&[ScheduleKind::Pipeline], &contended)?;
    let replicates = ratios_of(&[ScheduleKind::Replicate], &contended)?;
    let (pipeline, replicate) = (median(&pipelines).unwrap_or(1.0), median(&replicates).unwrap_or(1.0));
    let off =
        |ratios: &[f64], of: f64| ratios.iter().map(|ratio| (ratio / of - 1.0).abs()).collect::<Vec<f64>>();
    // At one point, the factor of a single schedule is its own.
    let singles = if points.len() > 1 { off(&singles, 1.0) } else { Vec::new() };
    let all = [singles, off(&pipelines, pipeline), off(&replicates, replicate)].concat();
    let uncertainty = median(&all).unwrap_or(0.0).max(LEAST_UNCERTAINTY);
    Ok(Calibration { contended, alone, replicate, pipeline, uncertainty })
}

/// Ratios by processor.
#[derive(Debug, Default)]
struct Ratios(Vec<(ProcessorName, Vec<f64>)>);

impl Ratios {
    fn add(&mut self, processor: &ProcessorName, ratio: f64) {
        match self.0.iter_mut().find(|(known, _)| known == processor) {
            Some((_, ratios)) => ratios.push(ratio),
            None => self.0.push((processor.clone(), vec![ratio])),
        }
    }

    fn medians(self) -> Vec<(ProcessorName, f64)> {
        self.0.into_iter().filter_map(|(name, ratios)| Some((name, median(&ratios)?))).collect()
    }
}

/// The costs with the times of each processor multiplied by its factor, if it has one.
fn scaled(costs: &Costs, factors: &[(ProcessorName, f64)]) -> Result<Costs, PlanError> {
    let factor = |name: &ProcessorName| {
        factors.iter().find(|(known, _)| known == name).map_or(1.0, |(_, factor)| *factor)
    };
    let factors: Vec<f64> = costs.processors().iter().map(factor).collect();
    Ok(costs.scaled(&factors)?)
}

fn median(values: &[f64]) -> Option<f64> {
    Samples::new(values).ok().map(|samples| samples.median())
}

/// A schedule to measure.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Place of its operating point among the predicted ones.
    pub at: usize,
    /// The schedule with its calibrated prediction. The energy is 0 without a power model.
    pub point: FrontPoint,
    /// Its predicted figures.
    pub figures: Figures,
    /// By how much it is predicted to be better than what is measured, as a share; may be negative.
    pub gain: f64,
}

/// What is known when the next schedules are chosen.
#[derive(Debug, Clone, Copy)]
pub struct Knowledge<'a> {
    /// The network.
    pub network: &'a Network,
    /// All operating points.
    pub points: &'a [PredictedPoint],
    /// How predictions are scaled.
    pub calibration: &'a Calibration,
    /// All schedules that were tried.
    pub measured: &'a [MeasuredSchedule],
}

/// All schedules worth measuring, best first: the predicted fronts and the neighbours of measured schedules, without those
/// that were tried.
///
/// # Errors
/// If network, costs and schedules do not fit each other.
pub fn next(knowledge: Knowledge<'_>, objective: Objective) -> Result<Vec<Candidate>, PlanError> {
    let Knowledge { network, points, calibration, measured } = knowledge;
    let known: Vec<Figures> = measured.iter().filter_map(|known| known.figures).collect();
    let best: Vec<&MeasuredSchedule> =
        measured.iter().filter(|known| is_near_best(known, measured)).collect();
    let all: Vec<OperatingPoint> = points.iter().map(|known| known.point.clone()).collect();
    // Schedules to consider at each point besides its front.
    let mut more: Vec<Vec<Schedule>> = vec![Vec::new(); points.len()];
    for known in best {
        more[known.at].extend(neighbours(network, &known.schedule)?);
        for at in neighbouring_points(&all, known.at) {
            more[at].push(known.schedule.clone());
        }
    }
    let mut candidates: Vec<Candidate> = Vec::new();
    for ((at, predicted), more) in points.iter().enumerate().zip(more) {
        let costs = Scaled {
            alone: scaled(&predicted.alone, &calibration.alone)?,
            contended: scaled(&predicted.contended, &calibration.contended)?,
            power: predicted.power.as_ref(),
            calibration,
        };
        let has =
            |schedule: &Schedule| schedule.processors().all(|name| predicted.alone.index_of(name).is_some());
        let mut of_point: Vec<Candidate> = Vec::new();
        for schedule in costs.front(network, objective)?.into_iter().chain(more.into_iter().filter(has)) {
            let is_tried = measured.iter().any(|tried| tried.at == at && tried.schedule == schedule);
            if is_tried || of_point.iter().any(|candidate| candidate.point.schedule == schedule) {
                continue;
            }
            let point = costs.point(network, schedule)?;
            let figures = Figures {
                fps: point.throughput().0,
                mj_per_frame: costs.power.is_some().then_some(point.energy.0),
            };
            if let Some(gain) = gain(objective, figures, &known) {
                of_point.push(Candidate { at, point, figures, gain });
            }
        }
        candidates.append(&mut of_point);
    }
    candidates.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    Ok(candidates)
}

/// The calibrated predictions of one point.
struct Scaled<'a> {
    alone: Costs,
    contended: Costs,
    power: Option<&'a PowerModel>,
    calibration: &'a Calibration,
}

impl Scaled<'_> {
    /// The predicted front.
    fn front(&self, network: &Network, objective: Objective) -> Result<Vec<Schedule>, PlanError> {
        let Some(power) = self.power else {
            let fastest = plan(network, &self.contended, &Options::default())?.schedule;
            let singles = self.alone.processors().iter().map(|name| Schedule::single(network, name.clone()));
            return Ok(singles
                .chain([fastest])
                .chain(fastest_replicate(network, &self.contended)?)
                .collect());
        };
        let costs = FrontCosts { alone: &self.alone, contended: &self.contended };
        let found = match objective {
            // A schedule that is slower and needs as much energy draws less power, so energy above idle power counts.
            Objective::ThroughputWithin(Limit::Watts(_)) => front(network, costs, &power.without_idle())?,
            _ => front(network, costs, power)?,
        };
        Ok(found.into_iter().map(|found| found.schedule).collect())
    }

    /// The prediction of a schedule.
    fn point(&self, network: &Network, schedule: Schedule) -> Result<FrontPoint, PlanError> {
        let (costs, ratio) = match schedule.kind() {
            ScheduleKind::Single | ScheduleKind::Merged | ScheduleKind::Peer => (&self.alone, 1.0),
            ScheduleKind::Pipeline => (&self.contended, self.calibration.pipeline),
            ScheduleKind::Replicate => (&self.contended, self.calibration.replicate),
        };
        let mut prediction = predict(network, costs, &schedule)?;
        prediction.throughput.0 *= ratio;
        let Some(power) = self.power else {
            return Ok(FrontPoint { schedule, prediction, energy: Millijoules(0.0) });
        };
        let busy = busy_shares(&schedule, &prediction.stage_ns, prediction.throughput.0, costs.processors());
        let energy = Millijoules(power.predict_power(&busy).point / prediction.throughput.0);
        Ok(FrontPoint { schedule, prediction, energy })
    }
}

/// The share of time that each of these processors works, at most 1. The time of a merged processor that is not one of them
/// is time of its parts.
pub fn busy_shares(
    schedule: &Schedule,
    stage_ns: &[f64],
    fps: f64,
    processors: &[ProcessorName],
) -> Vec<f64> {
    let share = |ns: f64| {
        if schedule.kind() == ScheduleKind::Replicate { 1.0 } else { (ns * fps * 1e-9).min(1.0) }
    };
    let stages = schedule.processors().zip(periods_ns(schedule, stage_ns));
    busy_of_stages(stages.map(|(processor, ns)| (processor, share(ns))), processors)
}

/// The share of time that each of these processors works, from that of each stage with its processor. The time of a merged
/// processor that is not one of them is time of its parts.
pub fn busy_of_stages<'a>(
    stages: impl IntoIterator<Item = (&'a ProcessorName, f64)>,
    processors: &[ProcessorName],
) -> Vec<f64> {
    let mut busy = vec![0.0; processors.len()];
    for (used, share) in stages {
        let is_whole = processors.contains(used);
        for (name, busy) in processors.iter().zip(&mut busy) {
            if if is_whole { name == used } else { name.overlaps(used) } {
                *busy = share;
            }
        }
    }
    busy
}

/// The copies of the network on several processors that have the highest predicted rate, if there are several.
///
/// # Errors
/// If network and costs do not fit each other.
pub fn fastest_replicate(network: &Network, costs: &Costs) -> Result<Option<Schedule>, PlanError> {
    let mut fastest: Option<(f64, Schedule)> = None;
    for set in Exclusions::of(costs.processors()).sets().filter(|set| set.count_ones() > 1) {
        let names = members(set).map(|at| costs.processors()[at].clone()).collect();
        let schedule = Schedule::replicate(network, names)?;
        let fps = predict(network, costs, &schedule)?.throughput.0;
        if fastest.as_ref().is_none_or(|(known, _)| fps > *known) {
            fastest = Some((fps, schedule));
        }
    }
    Ok(fastest.map(|(_, schedule)| schedule))
}

/// Whether no measured schedule is clearly better in both.
fn is_near_best(known: &MeasuredSchedule, measured: &[MeasuredSchedule]) -> bool {
    let Some(own) = known.figures else { return false };
    let energy = |of: Figures| of.mj_per_frame.unwrap_or(0.0);
    measured.iter().filter_map(|other| other.figures).all(|other| {
        other.fps <= 1.01 * own.fps || energy(other) > 0.99 * energy(own) && own.mj_per_frame.is_some()
    })
}

/// The pipelines that differ by one unit at one cut.
fn neighbours(network: &Network, schedule: &Schedule) -> Result<Vec<Schedule>, PlanError> {
    let mut found = Vec::new();
    if schedule.kind() != ScheduleKind::Pipeline {
        return Ok(found);
    }
    let cuts: Vec<usize> =
        schedule.replicas().skip(1).filter_map(|replicas| Some(replicas.first()?.first)).collect();
    for cut in cuts {
        for moved in [cut - 1, cut + 1] {
            let mut stages = schedule.stages().to_vec();
            for stage in &mut stages {
                stage.end = if stage.end == cut { moved } else { stage.end };
                stage.first = if stage.first == cut { moved } else { stage.first };
            }
            if stages.iter().all(|stage| stage.first < stage.end) {
                found.push(Schedule::pipeline(network, stages)?);
            }
        }
    }
    Ok(found)
}

/// By how much a schedule is better than the measured ones; `None` if it is of no use for the objective.
fn gain(objective: Objective, candidate: Figures, measured: &[Figures]) -> Option<f64> {
    let faster = |than: &Figures| candidate.fps / than.fps - 1.0;
    let less = |than: &Figures| match (than.mj_per_frame, candidate.mj_per_frame) {
        (Some(than), Some(own)) => than / own - 1.0,
        _ => f64::NEG_INFINITY,
    };
    if objective == Objective::Pareto || candidate.mj_per_frame.is_none() {
        let gains = measured.iter().map(|than| faster(than).max(less(than)));
        return Some(gains.fold(f64::INFINITY, f64::min)).filter(|gain| gain.is_finite());
    }
    let best = match objective.choose(measured) {
        Choice::Met(best) => &measured[best],
        // Nothing meets the requirement yet: whatever comes closer is better.
        Choice::Missed { by, .. } => {
            return match objective.choose(&[candidate]) {
                Choice::Met(_) => Some(by.max(LEAST_UNCERTAINTY) * 2.0),
                Choice::Missed { by: own, .. } => Some(by - own),
                Choice::None => None,
            };
        }
        Choice::None => return None,
    };
    let Choice::Met(_) = objective.choose(&[candidate]) else { return None };
    Some(match objective {
        Objective::Throughput | Objective::ThroughputWithin(_) => faster(best),
        Objective::Energy | Objective::EnergyAtLeast { .. } | Objective::Latency | Objective::Pareto => {
            less(best)
        }
    })
}

/// At most `most` of the candidates, which are sorted by gain: those that are predicted to gain more than `threshold`, and
/// differ by more than it from each other.
pub fn spread(candidates: Vec<Candidate>, threshold: f64, most: usize) -> Vec<Candidate> {
    let mut chosen: Vec<Candidate> = Vec::new();
    for candidate in candidates.into_iter().filter(|candidate| candidate.gain > threshold) {
        if chosen.len() == most {
            break;
        }
        let near = |one: f64, other: f64| (one / other - 1.0).abs() <= threshold.max(0.0);
        let is_alike = |other: &Candidate| {
            let energy = candidate.figures.mj_per_frame.zip(other.figures.mj_per_frame);
            near(candidate.figures.fps, other.figures.fps)
                && energy.is_none_or(|(own, other)| near(own, other))
        };
        if !chosen.iter().any(is_alike) {
            chosen.push(candidate);
        }
    }
    chosen
}
