//! Which schedules to measure next when the best ones are looked for.
//!
//! Profiles predict every schedule, but not exactly. So the search alternates: measure, calibrate the predictions by what was
//! measured, and measure the schedules that are now predicted to be better than all measured ones. It ends when no other
//! schedule is predicted to be better by more than the predictions are off.
//!
//! [`calibrate`] scales the time of each processor under contention by the median, over the measured pipelines, of measured
//! to predicted stage times. [`next`] takes candidates from the exact front ([`crate::front()`]) and from the neighbours of
//! the measured pipelines, which differ by one unit at one cut.
//!
//! The gain of a candidate is the additive version of the ε-indicator (Zitzler et al. 2003, "Performance assessment of
//! multiobjective optimizers"): the factor by which it is better, in throughput or energy, than each measured schedule, for
//! the measured schedule that comes closest to it.

use crate::costs::Costs;
use crate::front::{FrontCosts, FrontPoint, front};
use crate::network::Network;
use crate::objective::{Choice, Figures, Limit, Objective};
use crate::planner::{Options, PlanError, plan};
use crate::power_model::PowerModel;
use crate::prediction::predict;
use crate::samples::Samples;
use crate::schedule::{Schedule, ScheduleKind};
use crate::units::Millijoules;

/// A prediction is never taken to be closer than this share.
const LEAST_UNCERTAINTY: f64 = 0.01;

/// A measured schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredSchedule {
    /// The schedule.
    pub schedule: Schedule,
    /// Its figures; absent if its trials are void or failed.
    pub figures: Option<Figures>,
    /// Time that each stage worked for a frame, in ns; empty if not known.
    pub stage_ns: Vec<f64>,
}

/// Predictions scaled by measurements.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Times under contention, scaled.
    pub contended: Costs,
    /// Measured over predicted throughput of replicates, by the scaled costs.
    pub replicate: f64,
    /// Measured over predicted throughput of pipelines, by the scaled costs.
    pub pipeline: f64,
    /// How far predicted rates of pipelines and replicates are off, as a share: the median.
    pub uncertainty: f64,
}

/// Scales predictions by the measured schedules.
///
/// # Errors
/// If a schedule does not fit the network and the costs.
pub fn calibrate(
    network: &Network,
    contended: &Costs,
    measured: &[MeasuredSchedule],
) -> Result<Calibration, PlanError> {
    let mut ratios: Vec<Vec<f64>> = vec![Vec::new(); contended.processors().len()];
    for known in measured.iter().filter(|known| known.schedule.kind() == ScheduleKind::Pipeline) {
        let prediction = predict(network, contended, &known.schedule)?;
        for ((stage, predicted), found) in
            known.schedule.stages().iter().zip(&prediction.stage_ns).zip(&known.stage_ns)
        {
            let Some(at) = contended.index_of(&stage.processor) else { continue };
            if *predicted > 0.0 && *found > 0.0 {
                ratios[at].push(found / predicted);
            }
        }
    }
    let factors: Vec<f64> = ratios.iter().map(|ratios| median(ratios).unwrap_or(1.0)).collect();
    let scaled = contended.scaled(&factors)?;
    let ratios_of = |kind: ScheduleKind| -> Result<Vec<f64>, PlanError> {
        let of_kind = measured.iter().filter(|known| known.schedule.kind() == kind);
        let ratios = of_kind.filter_map(|known| {
            let figures = known.figures?;
            let ratio = predict(network, &scaled, &known.schedule)
                .map(|prediction| figures.fps / prediction.throughput.0);
            Some(ratio.map_err(PlanError::from))
        });
        ratios.collect()
    };
    let (pipelines, replicates) = (ratios_of(ScheduleKind::Pipeline)?, ratios_of(ScheduleKind::Replicate)?);
    let (pipeline, replicate) = (median(&pipelines).unwrap_or(1.0), median(&replicates).unwrap_or(1.0));
    let off =
        |ratios: &[f64], of: f64| ratios.iter().map(|ratio| (ratio / of - 1.0).abs()).collect::<Vec<f64>>();
    let all = [off(&pipelines, pipeline), off(&replicates, replicate)].concat();
    let uncertainty = median(&all).unwrap_or(0.0).max(LEAST_UNCERTAINTY);
    Ok(Calibration { contended: scaled, replicate, pipeline, uncertainty })
}

fn median(values: &[f64]) -> Option<f64> {
    Samples::new(values).ok().map(|samples| samples.median())
}

/// A schedule to measure.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
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
    /// Times on a processor while the others are idle.
    pub alone: &'a Costs,
    /// Predictions under contention.
    pub calibration: &'a Calibration,
    /// Absent without a power meter; then throughput alone counts.
    pub power: Option<&'a PowerModel>,
    /// All schedules that were tried.
    pub measured: &'a [MeasuredSchedule],
}

/// All schedules worth measuring, best first: the predicted front and the neighbours of measured pipelines, without those
/// that were tried.
///
/// # Errors
/// If network, costs and schedules do not fit each other.
pub fn next(knowledge: Knowledge<'_>, objective: Objective) -> Result<Vec<Candidate>, PlanError> {
    let mut points = predicted_front(knowledge, objective)?;
    for known in knowledge.measured.iter().filter(|known| is_near_best(known, knowledge.measured)) {
        for schedule in neighbours(knowledge.network, &known.schedule)? {
            points.push(point(knowledge, schedule)?);
        }
    }
    let known: Vec<Figures> = knowledge.measured.iter().filter_map(|known| known.figures).collect();
    let mut candidates: Vec<Candidate> = Vec::new();
    for point in points {
        let is_known = |schedule: &Schedule| *schedule == point.schedule;
        if knowledge.measured.iter().any(|tried| is_known(&tried.schedule))
            || candidates.iter().any(|candidate| is_known(&candidate.point.schedule))
        {
            continue;
        }
        let figures = Figures {
            fps: point.throughput().0,
            mj_per_frame: knowledge.power.is_some().then_some(point.energy.0),
        };
        if let Some(gain) = gain(objective, figures, &known) {
            candidates.push(Candidate { point, figures, gain });
        }
    }
    candidates.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    Ok(candidates)
}

/// The predicted front, calibrated.
fn predicted_front(knowledge: Knowledge<'_>, objective: Objective) -> Result<Vec<FrontPoint>, PlanError> {
    let Knowledge { network, alone, calibration, power, .. } = knowledge;
    let contended = &calibration.contended;
    let Some(power) = power else {
        let fastest = plan(network, contended, &Options::default())?.schedule;
        let all = Schedule::replicate(network, contended.processors().to_vec())?;
        return [fastest, all].into_iter().map(|schedule| point(knowledge, schedule)).collect();
    };
    let costs = FrontCosts { alone, contended };
    let found = match objective {
        // A schedule that is slower and needs as much energy draws less power, so energy above idle power counts.
        Objective::ThroughputWithin(Limit::Watts(_)) => front(network, costs, &power.without_idle())?,
        _ => front(network, costs, power)?,
    };
    found.into_iter().map(|found| point(knowledge, found.schedule)).collect()
}

/// The calibrated prediction of a schedule.
fn point(knowledge: Knowledge<'_>, schedule: Schedule) -> Result<FrontPoint, PlanError> {
    let Knowledge { network, alone, calibration, power, .. } = knowledge;
    let (costs, ratio) = match schedule.kind() {
        ScheduleKind::Single | ScheduleKind::Peer => (alone, 1.0),
        ScheduleKind::Pipeline => (&calibration.contended, calibration.pipeline),
        ScheduleKind::Replicate => (&calibration.contended, calibration.replicate),
    };
    let mut prediction = predict(network, costs, &schedule)?;
    prediction.throughput.0 *= ratio;
    let Some(power) = power else { return Ok(FrontPoint { schedule, prediction, energy: Millijoules(0.0) }) };
    let busy = busy_shares(&schedule, &prediction.stage_ns, prediction.throughput.0, costs);
    let energy = Millijoules(power.predict_power(&busy).point / prediction.throughput.0);
    Ok(FrontPoint { schedule, prediction, energy })
}

/// The share of time that each processor of the costs works, at most 1.
pub fn busy_shares(schedule: &Schedule, stage_ns: &[f64], fps: f64, costs: &Costs) -> Vec<f64> {
    let mut busy = vec![0.0; costs.processors().len()];
    for (stage, ns) in schedule.stages().iter().zip(stage_ns) {
        if let Some(at) = costs.index_of(&stage.processor) {
            busy[at] =
                if schedule.kind() == ScheduleKind::Replicate { 1.0 } else { (ns * fps * 1e-9).min(1.0) };
        }
    }
    busy
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
    for place in 1..schedule.stages().len() {
        let cut = schedule.stages()[place].first;
        for moved in [cut - 1, cut + 1] {
            let mut stages = schedule.stages().to_vec();
            (stages[place - 1].end, stages[place].first) = (moved, moved);
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
        Objective::Energy | Objective::EnergyAtLeast { .. } | Objective::Pareto => less(best),
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
