//! The front of throughput and energy: every schedule that no other one beats in both.
//!
//! # Model
//! A frame of a pipeline with the frame time `T` (its slowest stage) takes `E = P_idle · T + Σ D_p · t_p`, where `D_p` is the
//! power that a processor adds while it works and `t_p` the time of its stage ([`crate::power_model`]). The front contains
//! single schedules, pipelines on any processors in any order, and copies of the network on any set of processors. A
//! single schedule is predicted by the costs of a processor alone, the others by the costs under contention.
//!
//! # Method
//! The ε-constraint method (Haimes, Lasdon & Wismer 1971, "On a bicriterion formulation of the problems of integrated system
//! identification and system optimization"). For a limit of the frame time, dynamic programming over the labels (processors
//! used, cut) finds the pipeline whose stages take the least energy. Let `rest(S, q, a)` be the least energy of units `a..N`
//! on exactly the processors `S`, received from `q`, no stage longer than `limit`:
//!
//! ```text
//! rest({}, q, N) = 0
//! rest(S, q, a)  = min over p in S, b > a of  D_p · time(q, p, a, b) + rest(S − p, p, b),  time(q, p, a, b) ≤ limit
//! ```
//!
//! For given `p` the first term is `D_p · before(b)` plus a number that does not depend on `b`. So of two ends `b < b'`, the
//! farther one can only be better if its sum is less; the ends worth looking at form a stack, as in [`crate::planner`], and
//! the best end is the farthest one within the limit, found by binary search.
//!
//! The pipeline found under a limit dominates all that are slower than itself and within the limit. So the search goes on
//! below its frame time, until nothing is left. Parts of the range are left out if even the least energy known for them plus
//! the idle power of their shortest frame is more than a faster schedule needs.
//!
//! # Cost
//! Each limit takes O(2^P · P · Q · N · log N), as the planner does. There are at most two limits for each pipeline that no
//! other one beats in time and energy above idle power. `benches/front.rs` measures the whole front.
//!
//! # Ties
//! Among schedules with equal time and energy the first one found is kept: single, then replicate, then pipelines.

use crate::costs::Costs;
use crate::network::{Boundary, Cut, Network};
use crate::planner::{MOST_PROCESSORS, Options, PlanError, plan};
use crate::power_model::PowerModel;
use crate::prediction::{Prediction, check_units, predict, stage_time_ns};
use crate::schedule::{Schedule, ScheduleKind, Stage};
use crate::units::{FramesPerSecond, Millijoules, Milliwatts};

/// A schedule with its predicted time, energy and power.
#[derive(Debug, Clone, PartialEq)]
pub struct FrontPoint {
    /// The schedule.
    pub schedule: Schedule,
    /// Its times.
    pub prediction: Prediction,
    /// Energy per frame, idle power included.
    pub energy: Millijoules,
}

impl FrontPoint {
    /// Predicts the energy of a schedule from its stage times. `processors[s]` is the place of the processor of stage `s`
    /// in the power model.
    pub fn new(schedule: Schedule, prediction: Prediction, power: &PowerModel, processors: &[usize]) -> Self {
        let frame_ns = frame_ns(schedule.kind(), &prediction);
        let of_stages: f64 = match schedule.kind() {
            ScheduleKind::Replicate => processors.iter().map(|at| power.dynamic_mw(*at) * frame_ns).sum(),
            _ => processors.iter().zip(&prediction.stage_ns).map(|(at, ns)| power.dynamic_mw(*at) * ns).sum(),
        };
        let energy = Millijoules((power.idle_mw() * frame_ns + of_stages) * 1e-9);
        Self { schedule, prediction, energy }
    }

    /// Predicted rate.
    pub fn throughput(&self) -> FramesPerSecond {
        self.prediction.throughput
    }

    /// Mean power while frames arrive as fast as they are processed.
    pub fn power(&self) -> Milliwatts {
        Milliwatts(self.energy.0 * self.prediction.throughput.0)
    }
}

/// Time per frame in ns; 0 if the rate is infinite.
fn frame_ns(kind: ScheduleKind, prediction: &Prediction) -> f64 {
    match kind {
        ScheduleKind::Single | ScheduleKind::Pipeline => {
            prediction.stage_ns.iter().copied().fold(0.0, f64::max)
        }
        ScheduleKind::Replicate | ScheduleKind::Peer => 1e9 / prediction.throughput.0,
    }
}

/// Costs of a network for schedules of one stage and of several.
#[derive(Debug, Clone, Copy)]
pub struct FrontCosts<'a> {
    /// Times on a processor while the others are idle.
    pub alone: &'a Costs,
    /// Times while all processors work. The same processors in the same order.
    pub contended: &'a Costs,
}

/// The front, from the fastest schedule to the one with the least energy per frame. `power` has the processors of the costs
/// in their order.
///
/// # Errors
/// If network, costs and power do not fit each other, or there are more than [`MOST_PROCESSORS`] processors.
pub fn front(
    network: &Network,
    costs: FrontCosts<'_>,
    power: &PowerModel,
) -> Result<Vec<FrontPoint>, PlanError> {
    check_units(network, costs.alone)?;
    check_units(network, costs.contended)?;
    let processors = costs.contended.processors().len();
    if processors > MOST_PROCESSORS {
        return Err(PlanError::TooManyProcessors { found: processors });
    }
    if costs.alone.processors() != costs.contended.processors() || power.processors() != processors {
        return Err(PlanError::OtherProcessors);
    }
    let mut search = Search::new(network, costs, power);
    search.add_singles()?;
    search.add_replicates()?;
    search.add_pipelines()?;
    Ok(search.complete.into_iter().map(|complete| complete.point).collect())
}

/// A set of processors, one bit each.
type Set = usize;

/// A complete schedule on the front.
#[derive(Debug)]
struct Complete {
    frame_ns: f64,
    /// Idle power included, in mW · ns.
    energy: f64,
    point: FrontPoint,
}

/// An end of a stage.
#[derive(Clone, Copy)]
struct End {
    /// Units before this end on the processor of the stage, in ns.
    before_ns: f64,
    /// Their energy and the least energy of what comes after this end.
    energy: f64,
}

struct Search<'a> {
    network: &'a Network,
    costs: FrontCosts<'a>,
    power: &'a PowerModel,
    /// Time to receive each boundary: `receive[q · P + p][cut]`.
    receive: Vec<Vec<f64>>,
    /// `rest[(S · P + q) · (N + 1) + a]` for the present limit; infinite if there is no such pipeline.
    rest: Vec<f64>,
    /// What the units before each cut take at least, each on the best processor of `S`, in ns: `[S][cut]`.
    least_ns: Vec<Vec<f64>>,
    /// The same for their energy, in mW · ns.
    least_energy: Vec<Vec<f64>>,
    /// By frame time; energy falls.
    complete: Vec<Complete>,
}

impl<'a> Search<'a> {
    fn new(network: &'a Network, costs: FrontCosts<'a>, power: &'a PowerModel) -> Self {
        let processors = costs.contended.processors().len();
        let bytes: Vec<_> = network.boundaries().iter().map(Boundary::bytes).collect();
        let receive = (0..processors * processors)
            .map(|pair| {
                let (from, to) = (pair / processors, pair % processors);
                bytes.iter().map(|bytes| costs.contended.transfer_ns(from, to, *bytes)).collect()
            })
            .collect();
        let rest = vec![f64::INFINITY; (processors << processors) * (network.len() + 1)];
        let least = |mw: &dyn Fn(usize) -> f64| -> Vec<Vec<f64>> {
            let of_set = |set: Set| {
                let of_unit = |unit: usize| {
                    let on = |at: usize| mw(at) * costs.contended.unit_ns(at)[unit];
                    members(set).map(on).fold(f64::INFINITY, f64::min)
                };
                let sums = (0..network.len()).scan(0.0, |sum, unit| {
                    *sum += of_unit(unit);
                    Some(*sum)
                });
                std::iter::once(0.0).chain(sums).collect()
            };
            (0..1usize << processors).map(of_set).collect()
        };
        let (least_ns, least_energy) = (least(&|_| 1.0), least(&|at| power.dynamic_mw(at)));
        Self { network, costs, power, receive, rest, least_ns, least_energy, complete: Vec::new() }
    }

    fn processors(&self) -> usize {
        self.costs.contended.processors().len()
    }

    /// Adds a complete schedule unless one is known that is as good in both. Returns its frame time.
    fn add(&mut self, costs: &Costs, schedule: Schedule) -> Result<f64, PlanError> {
        let prediction = predict(self.network, costs, &schedule)?;
        let places: Vec<usize> = schedule.processors().filter_map(|name| costs.index_of(name)).collect();
        let point = FrontPoint::new(schedule, prediction, self.power, &places);
        let frame_ns = frame_ns(point.schedule.kind(), &point.prediction);
        let energy = point.energy.0 * 1e9;
        if self.best_energy(frame_ns) > energy {
            let first = self.complete.partition_point(|known| known.frame_ns < frame_ns);
            let worse = self.complete[first..].iter().take_while(|known| known.energy >= energy).count();
            self.complete.splice(first..first + worse, [Complete { frame_ns, energy, point }]);
        }
        Ok(frame_ns)
    }

    /// The least energy of a known schedule that takes no more time.
    fn best_energy(&self, frame_ns: f64) -> f64 {
        let behind = self.complete.partition_point(|known| known.frame_ns <= frame_ns);
        behind.checked_sub(1).map_or(f64::INFINITY, |last| self.complete[last].energy)
    }

    fn add_singles(&mut self) -> Result<(), PlanError> {
        for processor in self.costs.alone.processors() {
            self.add(self.costs.alone, Schedule::single(self.network, processor.clone()))?;
        }
        Ok(())
    }

    fn add_replicates(&mut self) -> Result<(), PlanError> {
        for set in 1usize..1 << self.processors() {
            if set.count_ones() > 1 {
                let names = members(set).map(|at| self.costs.contended.processors()[at].clone()).collect();
                self.add(self.costs.contended, Schedule::replicate(self.network, names)?)?;
            }
        }
        Ok(())
    }

    fn add_pipelines(&mut self) -> Result<(), PlanError> {
        let fastest = plan(self.network, self.costs.contended, &Options::default())?;
        if fastest.schedule.kind() != ScheduleKind::Pipeline {
            // No pipeline is faster than a single processor of these costs, but some may need less energy.
            return self.add_between(0.0, f64::INFINITY);
        }
        let fastest_ns = self.add(self.costs.contended, fastest.schedule)?;
        self.fill(fastest_ns, f64::INFINITY);
        if let Some((stages, _)) = self.stages(fastest_ns) {
            self.add(self.costs.contended, Schedule::pipeline(self.network, stages)?)?;
        }
        self.add_between(fastest_ns, f64::INFINITY)
    }

    /// Adds the pipelines of the front whose frame time is above `least_ns` and at most `most_ns`.
    fn add_between(&mut self, least_ns: f64, most_ns: f64) -> Result<(), PlanError> {
        // Lower and upper end of the frame time, and the least energy of stages that are known for it.
        let mut ranges = vec![(least_ns, most_ns, 0.0)];
        while let Some((least_ns, most_ns, least_energy)) = ranges.pop() {
            // Longer frames need more than a faster schedule, for idle power alone.
            let idle_mw = self.power.idle_mw();
            let best_energy = self.best_energy(least_ns);
            let longest_ns =
                if idle_mw > 0.0 { (best_energy - least_energy) / idle_mw } else { f64::INFINITY };
            let most_ns = most_ns.min(longest_ns);
            if most_ns.is_nan() || most_ns <= least_ns {
                continue;
            }
            self.fill(most_ns, best_energy - idle_mw * least_ns);
            let Some((stages, energy)) = self.stages(most_ns) else { continue };
            let found_ns = self.add(self.costs.contended, Schedule::pipeline(self.network, stages)?)?;
            if found_ns <= least_ns {
                continue;
            }
            let below_ns = found_ns.next_down();
            let middle_ns = 0.5 * (least_ns + below_ns);
            if idle_mw > 0.0 && middle_ns > least_ns && middle_ns < below_ns {
                // The lower half first, because what is found there shortens the upper one.
                ranges.push((middle_ns, below_ns, energy));
                ranges.push((least_ns, middle_ns, energy));
            } else {
                ranges.push((least_ns, below_ns, energy));
            }
        }
        Ok(())
    }

    /// Row of the table for a set and a sender.
    fn row(&self, set: Set, sender: usize) -> usize {
        (set * self.processors() + sender) * (self.network.len() + 1)
    }

    /// Fills the table for limits of the stages' time and energy, smaller sets first: a subset of a set is a smaller number.
    fn fill(&mut self, limit_ns: f64, most_energy: f64) {
        let units = self.network.len();
        self.rest.fill(f64::INFINITY);
        for sender in 0..self.processors() {
            let row = self.row(0, sender);
            self.rest[row + units] = 0.0;
        }
        let mut stack = Vec::with_capacity(units);
        // The first stage is not in the table, so the sets in it have one processor less.
        for set in 1..(1usize << self.processors()) - 1 {
            for processor in members(set) {
                self.fill_from(set, processor, (limit_ns, most_energy), &mut stack);
            }
        }
    }

    /// Considers `processor` for the first stage of `set`, for every sender and first cut.
    fn fill_from(&mut self, set: Set, processor: usize, limits: (f64, f64), stack: &mut Vec<End>) {
        let (limit_ns, most_energy) = limits;
        let (units, processors) = (self.network.len(), self.processors());
        let after = self.row(set & !(1 << processor), processor);
        let before = self.costs.contended.before_ns(processor);
        let dynamic_mw = self.power.dynamic_mw(processor);
        stack.clear();
        let (least, most) = self.first_cuts(set, limit_ns);
        let others = !set & ((1 << processors) - 1);
        let senders: Vec<usize> = members(others).collect();
        for first in (least..units).rev() {
            push(stack, before[first + 1], dynamic_mw, self.rest[after + first + 1]);
            if stack.is_empty() || first > most {
                continue;
            }
            // Sums in another order may differ by rounding.
            let left = (most_energy - self.least_energy[others][first]) * (1.0 + 1e-9);
            for sender in &senders {
                let receive_ns = self.receive[sender * processors + processor][first];
                let time = |end: &End| receive_ns + (end.before_ns - before[first]);
                let far = stack.partition_point(|end| time(end) > limit_ns);
                if let Some(end) = stack.get(far) {
                    let energy = dynamic_mw * (receive_ns - before[first]) + end.energy;
                    let slot = (set * processors + sender) * (units + 1) + first;
                    if energy <= left && energy < self.rest[slot] {
                        self.rest[slot] = energy;
                    }
                }
            }
        }
    }

    /// The least and the greatest cut at which a pipeline within the limit can go over to the processors of `set`: what is
    /// before it must fit on the others, and what is after it on these, even if it could be shared out evenly.
    fn first_cuts(&self, set: Set, limit_ns: f64) -> (usize, usize) {
        let others = !set & ((1 << self.processors()) - 1);
        // Sums in another order may differ by rounding.
        let room = |set: Set| f64::from(set.count_ones()) * limit_ns * (1.0 + 1e-9);
        let (own, before) = (&self.least_ns[set], &self.least_ns[others]);
        let all = own[self.network.len()];
        let least = own.partition_point(|sum| all - sum > room(set));
        let most = before.partition_point(|sum| *sum <= room(others)).saturating_sub(1);
        (least, most)
    }

    /// The best next stage from `first` on, with the energy of it and of all that follows, if exactly the processors of `set`
    /// are to be used.
    fn next(
        &self,
        from: Option<usize>,
        set: Set,
        first: usize,
        limit_ns: f64,
    ) -> Option<(f64, usize, usize)> {
        let mut best: Option<(f64, usize, usize)> = None;
        for processor in members(set) {
            let row = self.row(set & !(1 << processor), processor);
            for end in first + 1..=self.network.len() {
                let (first, end) = (Cut(first), Cut(end));
                let time = stage_time_ns(self.network, self.costs.contended, from, processor, first, end);
                if time > limit_ns {
                    break;
                }
                let energy = self.power.dynamic_mw(processor) * time + self.rest[row + end.0];
                if energy < best.map_or(f64::INFINITY, |best| best.0) {
                    best = Some((energy, processor, end.0));
                }
            }
        }
        best
    }

    /// The set of processors, at least two, whose pipeline takes the least energy within the limit.
    fn best_set(&self, limit_ns: f64) -> Option<(f64, Set)> {
        (1usize..1 << self.processors())
            .filter(|set| set.count_ones() > 1)
            .filter_map(|set| Some((self.next(None, set, 0, limit_ns)?.0, set)))
            .min_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// The pipeline of least energy within the limit for which the table is filled, and the energy of its stages.
    fn stages(&self, limit_ns: f64) -> Option<(Vec<Stage>, f64)> {
        let (energy, mut free) = self.best_set(limit_ns)?;
        let mut stages = Vec::new();
        let (mut from, mut first) = (None, 0);
        while free != 0 {
            let (_, processor, end) = self.next(from, free, first, limit_ns)?;
            stages.push(Stage {
                processor: self.costs.contended.processors()[processor].clone(),
                first,
                end,
            });
            (from, free, first) = (Some(processor), free & !(1 << processor), end);
        }
        Some((stages, energy))
    }
}

/// Puts a nearer end on the stack; those that are farther and need no less leave. An end from which nothing can finish is
/// not kept.
fn push(stack: &mut Vec<End>, before_ns: f64, dynamic_mw: f64, rest: f64) {
    if rest.is_infinite() {
        return;
    }
    let energy = dynamic_mw * before_ns + rest;
    while stack.last().is_some_and(|top| top.energy >= energy) {
        stack.pop();
    }
    stack.push(End { before_ns, energy });
}

fn members(set: Set) -> impl Iterator<Item = usize> {
    (0..Set::BITS as usize).take_while(move |bit| set >> bit != 0).filter(move |bit| set & (1 << bit) != 0)
}
