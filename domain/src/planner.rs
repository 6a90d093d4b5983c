//! The optimal partition: the pipeline with the smallest bottleneck.
//!
//! A pipeline's rate is that of its slowest stage, so the planner minimises the greatest period of a stage over all cuts and all
//! assignments of processors to stages. Each processor has at most one stage and any may stay unused; a merged processor excludes
//! its parts, so the sets below are those whose processors have no CPU in common. A stage may have a group of several
//! processors, each a replica of it; its period is the inverse of the sum of their rates. A replica costs the units of the stage
//! on its processor, and in every stage but the first also the hand-over of all tensors alive at its first cut, from the
//! processor of the stage before from which it takes longest. The whole network on a group is not a pipeline: see
//! [`fastest_replicate`](crate::search::fastest_replicate).
//!
//! # Method
//! Partitioning a chain over heterogeneous processors for the least bottleneck is solved by dynamic programming (Bokhari
//! 1988, "Partitioning problems in parallel, pipeline, and distributed computing"; Pınar & Aykanat 2004, "Fast
//! optimal load balancing algorithms for 1D partitioning"; with free assignment of P heterogeneous processors it is
//! exponential in P alone, Benoit & Robert 2008, "Mapping pipeline skeletons onto heterogeneous platforms", who replicate stages
//! too).
//!
//! Let `rest(S, Q, a)` be the least bottleneck of units `a..N` on exactly the processors `S`, received from the group `Q`:
//!
//! ```text
//! rest({}, Q, N) = 0
//! rest(S, Q, a)  = min over G within S, b > a of  max( period(Q, G, a, b),  rest(S − G, G, b) )
//! ```
//!
//! For given G the first term grows with b. So of two ends b < b', b' can only be better where its rest is less; the
//! ends worth looking at form a stack on which, as `a` goes down, new ends are pushed after popping those they
//! dominate. On the stack the first term rises and the second falls: the best end is where they cross, found by
//! binary search.
//!
//! The best pipeline without groups is found first. What takes longer is left out of the search with groups, and so are the cuts
//! `a` whose units before them do not fit on the other processors within that time.
//!
//! # Cost
//! Of P processors there are 3^P pairs of a set S and a group G within it, and 4^P triples with a sender Q. Time O(4^P · N · log N) and
//! memory O(3^P · N) for N units; with equal links the sender does not matter. More than 6 processors form no groups: then time is
//! O(2^P · P² · N · log N). `benches/planner.rs` measures it: 300 units on 6 different processors took 10 to 11 ms with equal
//! links and 45 to 52 ms with different ones, on a busy 2-core virtual machine.
//!
//! # Ties
//! Among the pipelines of least bottleneck the one with the fewest processors is taken; among those, from the first
//! stage on, the processor that comes first in the costs before any group, and for it the earliest cut.

use crate::costs::{Costs, CostsError, Transfer};
use crate::network::{Boundary, Cut, Network};
use crate::prediction::{Prediction, PredictionError, check_units, period_ns, predict, stage_time_ns};
use crate::processor_set::{Exclusions, Group, Set, members};
use crate::schedule::{Schedule, ScheduleError, Stage};
use crate::units::Bytes;
use serde::{Deserialize, Serialize};

/// Most processors of a plan. Twelve with different links take 100 MB for 300 units.
pub const MOST_PROCESSORS: usize = 12;

/// Most groups: those of 6 processors, or of 4 and their 3 merged ones. With more, no stage has replicas.
const MOST_GROUPS: usize = 63;

/// Constraints of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Most processors that are used; if absent, all. With 1 the plan is the best single processor.
    pub max_processors: Option<usize>,
}

/// A schedule with its prediction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The planned schedule.
    pub schedule: Schedule,
    /// By the costs the plan was made with.
    pub prediction: Prediction,
}

/// The pipeline with the smallest bottleneck. It is a single schedule if no pipeline is faster than one processor.
pub fn plan(network: &Network, costs: &Costs, options: &Options) -> Result<Plan, PlanError> {
    check_units(network, costs)?;
    let processors = costs.processors().len();
    if processors > MOST_PROCESSORS {
        return Err(PlanError::TooManyProcessors { found: processors });
    }
    let most = options.max_processors.unwrap_or(processors).min(processors);
    if most == 0 {
        return Err(PlanError::NoProcessors);
    }
    let exclusions = Exclusions::of(costs.processors());
    let (alone, all) = (exclusions.groups(0), exclusions.groups(MOST_GROUPS));
    let apart = Search::new(network, costs, most, alone, f64::INFINITY).fill();
    let limit = apart.least().0;
    let stages = if all.len() == processors {
        apart.stages()
    } else {
        Search::new(network, costs, most, all, limit).fill().stages()
    };
    finished(network, costs, Schedule::pipeline(network, stages)?)
}

/// The fastest single processor; on a tie, the first in the costs.
pub fn best_single(network: &Network, costs: &Costs) -> Result<Plan, PlanError> {
    plan(network, costs, &Options { max_processors: Some(1) })
}

fn finished(network: &Network, costs: &Costs, schedule: Schedule) -> Result<Plan, PlanError> {
    let prediction = predict(network, costs, &schedule)?;
    Ok(Plan { schedule, prediction })
}

/// An end of a stage, and the least bottleneck of what comes after it.
#[derive(Clone, Copy)]
struct End {
    at: usize,
    rest: f64,
}

/// The table of the dynamic programme.
struct Search<'a> {
    network: &'a Network,
    costs: &'a Costs,
    max_processors: usize,
    exclusions: Exclusions,
    /// Those that may have a stage.
    groups: Vec<Group>,
    /// A bottleneck that is known to be possible; what takes longer is left out.
    limit: f64,
    /// Distinct senders.
    senders: usize,
    /// Time to receive each boundary: `receive[q · P + p][cut]`. Bytes alive at each cut are summed once.
    receive: Vec<Vec<f64>>,
    /// `rest[(S · senders + q) · (N + 1) + a]`; infinite where there is no such pipeline.
    rest: Vec<f64>,
}

impl<'a> Search<'a> {
    fn new(
        network: &'a Network,
        costs: &'a Costs,
        max_processors: usize,
        groups: Vec<Group>,
        limit: f64,
    ) -> Self {
        let processors = costs.processors().len();
        let exclusions = Exclusions::of(costs.processors());
        let senders = match costs.transfer() {
            Transfer::Uniform(_) => 1,
            Transfer::Pairs(_) => groups.len(),
        };
        let receive = receive_ns(network, costs, &groups[..senders]);
        let rest = vec![f64::INFINITY; (senders << processors) * (network.len() + 1)];
        Self { network, costs, max_processors, exclusions, groups, limit, senders, receive, rest }
    }

    /// The row of senders for a group.
    fn sender(&self, group: usize) -> usize {
        if self.senders == 1 { 0 } else { group }
    }

    /// Row of the table for a set and a sender.
    fn row(&self, set: Set, sender: usize) -> usize {
        (set * self.senders + sender) * (self.network.len() + 1)
    }

    /// Fills the table, smaller sets first: a subset of a set is a smaller number.
    fn fill(mut self) -> Self {
        let units = self.network.len();
        for sender in 0..self.senders {
            let row = self.row(0, sender);
            self.rest[row + units] = 0.0;
        }
        let mut stack = Vec::with_capacity(units);
        // The first stage is not in the table, so the sets in it have at least one processor less.
        let is_rest = |set: &Set| (set.count_ones() as usize) < self.max_processors;
        let sets: Vec<Set> = self.exclusions.sets().filter(is_rest).collect();
        for set in sets {
            let farthest = self.farthest_cut(self.exclusions.beside(set));
            for group in 0..self.groups.len() {
                if self.groups[group].set & !set == 0 {
                    self.fill_from(set, group, farthest, &mut stack);
                }
            }
        }
        self
    }

    /// The last cut up to which the units fit on these processors within the limit, even if they could be shared out evenly, each
    /// on the best one.
    fn farthest_cut(&self, set: Set) -> usize {
        // Sums in another order may differ by rounding.
        let room = f64::from(set.count_ones()) * self.limit * (1.0 + 1e-9);
        let of_unit =
            |unit: usize| members(set).map(|at| self.costs.unit_ns(at)[unit]).fold(f64::INFINITY, f64::min);
        let sums = (0..self.network.len()).scan(0.0, |sum, unit| {
            *sum += of_unit(unit);
            Some(*sum)
        });
        sums.take_while(|sum| *sum <= room).count()
    }

    /// Considers a group for the first stage of `set`, for every sender and first cut.
    /// No stage can begin after the `farthest` cut.
    fn fill_from(&mut self, set: Set, group: usize, farthest: usize, stack: &mut Vec<End>) {
        let (units, processors) = (self.network.len(), self.costs.processors().len());
        let Group { set: own, members } = &self.groups[group];
        let after = self.row(set & !own, self.sender(group));
        let beside = self.exclusions.beside(set);
        stack.clear();
        for first in (0..units).rev() {
            push(stack, End { at: first + 1, rest: self.rest[after + first + 1] });
            if stack.is_empty() || first > farthest {
                continue;
            }
            for sender in 0..self.senders {
                if self.senders > 1 && self.groups[sender].set & !beside != 0 {
                    continue;
                }
                // Added up as `stage_time_ns` does it, so that the table holds the very numbers that schedules are predicted by.
                let receive = &self.receive[sender * processors..];
                let time = |processor: usize, end: usize| {
                    let before = self.costs.before_ns(processor);
                    receive[processor][first] + (before[end] - before[first])
                };
                let best = match members.as_slice() {
                    [only] => crossing(stack, |end| time(*only, end)),
                    _ => crossing(stack, |end| period_ns(members.iter().map(|member| time(*member, end)))),
                };
                let slot = self.row(set, sender) + first;
                if best <= self.limit {
                    self.rest[slot] = self.rest[slot].min(best);
                }
            }
        }
    }

    /// Walks from the first cut to the last and takes, among the decisions that keep to the least bottleneck with
    /// the fewest processors, the first.
    fn stages(&self) -> Vec<Stage> {
        let (limit, mut left) = self.least();
        let mut stages = Vec::with_capacity(left);
        let (mut from, mut free, mut first): (&[usize], _, _) = (&[], self.exclusions.all(), 0);
        while let Some((group, end)) = self.next(from, free, first, left, limit) {
            let Group { set, members } = &self.groups[group];
            let names = members.iter().map(|member| self.costs.processors()[*member].clone());
            stages.extend(names.map(|processor| Stage { processor, first, end }));
            left -= members.len();
            (from, free, first) = (members.as_slice(), free & self.exclusions.beside(*set), end);
        }
        stages
    }

    /// The least bottleneck of all, and the fewest processors that reach it.
    fn least(&self) -> (f64, usize) {
        let mut least = (f64::INFINITY, usize::MAX);
        for (at, group) in self.groups.iter().enumerate() {
            let beside = self.exclusions.beside(group.set);
            let times: Vec<f64> =
                (1..=self.farthest(group, 0)).map(|end| self.time(&[], group, 0, end)).collect();
            for set in std::iter::once(0).chain(self.exclusions.sets()) {
                let count = set.count_ones() as usize + group.members.len();
                if set & !beside != 0 || count > self.max_processors {
                    continue;
                }
                let row = self.row(set, self.sender(at));
                for (time, rest) in times.iter().zip(&self.rest[row + 1..]) {
                    let bottleneck = time.max(*rest);
                    if bottleneck < least.0 || (bottleneck <= least.0 && count < least.1) {
                        least = (bottleneck, count);
                    }
                }
            }
        }
        least
    }

    /// The last end of a stage of this group: the whole network on several processors is no pipeline.
    fn farthest(&self, group: &Group, first: usize) -> usize {
        if first == 0 && !group.is_one() { self.network.len() - 1 } else { self.network.len() }
    }

    /// The first stage from `first` on, among those with which `left` of the `free` processors can finish within `limit`.
    fn next(
        &self,
        from: &[usize],
        free: Set,
        first: usize,
        left: usize,
        limit: f64,
    ) -> Option<(usize, usize)> {
        let fits = |group: &Group| group.set & !free == 0 && group.members.len() <= left;
        self.groups.iter().enumerate().filter(|(_, group)| fits(group)).find_map(|(at, group)| {
            let others = free & self.exclusions.beside(group.set);
            let left = left - group.members.len();
            let sets: Vec<Set> =
                (0..=others).filter(|set| set & !others == 0 && set.count_ones() as usize == left).collect();
            let finishes =
                |end: usize| sets.iter().any(|&set| self.rest[self.row(set, self.sender(at)) + end] <= limit);
            (first + 1..=self.farthest(group, first))
                .take_while(|&end| self.time(from, group, first, end) <= limit)
                .find(|&end| finishes(end))
                .map(|end| (at, end))
        })
    }

    fn time(&self, from: &[usize], group: &Group, first: usize, end: usize) -> f64 {
        group_period_ns(self.network, self.costs, from, group, (first, end))
    }
}

/// The period of a stage with the units `first..end` on a group of processors, received from the processors `from`.
pub(crate) fn group_period_ns(
    network: &Network,
    costs: &Costs,
    from: &[usize],
    group: &Group,
    (first, end): (usize, usize),
) -> f64 {
    let time = |member: &usize| stage_time_ns(network, costs, from, *member, Cut(first), Cut(end));
    period_ns(group.members.iter().map(time))
}

/// Time in which each processor receives each boundary from each of these groups: `[q · P + p][cut]`.
pub(crate) fn receive_ns(network: &Network, costs: &Costs, senders: &[Group]) -> Vec<Vec<f64>> {
    let bytes: Vec<_> = network.boundaries().iter().map(Boundary::bytes).collect();
    let of_pair = |(group, to): (&Group, usize)| {
        let longest = |bytes: &Bytes| {
            let times = group.members.iter().map(|from| costs.transfer_ns(*from, to, *bytes));
            times.fold(0.0, f64::max)
        };
        bytes.iter().map(longest).collect()
    };
    let processors = 0..costs.processors().len();
    senders.iter().flat_map(|group| processors.clone().map(move |to| (group, to))).map(of_pair).collect()
}

/// Puts a nearer end on the stack; those it dominates leave. An end from which nothing can finish is not kept.
fn push(stack: &mut Vec<End>, end: End) {
    if end.rest.is_infinite() {
        return;
    }
    while stack.last().is_some_and(|top| top.rest >= end.rest) {
        stack.pop();
    }
    stack.push(end);
}

/// Least of `max(time, rest)` over the stack. From its bottom to its top, `time` falls and `rest` rises.
fn crossing(stack: &[End], time: impl Fn(usize) -> f64) -> f64 {
    let above = stack.partition_point(|end| time(end.at) >= end.rest);
    let by_time = above.checked_sub(1).map_or(f64::INFINITY, |at| time(stack[at].at));
    let by_rest = stack.get(above).map_or(f64::INFINITY, |end| end.rest);
    by_time.min(by_rest)
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// Network and costs do not fit.
    #[error(transparent)]
    Prediction(#[from] PredictionError),
    /// Time and memory double with every processor.
    #[error(
        "failed to plan for {found} processors: the limit is {MOST_PROCESSORS}; remove some from `processors`"
    )]
    TooManyProcessors {
        /// Processors given.
        found: usize,
    },
    /// The same, for the least latency.
    #[error(
        "failed to plan the least latency for {found} processors: the limit is {limit}; remove some from `processors`",
        limit = crate::rate_planner::MOST_PROCESSORS
    )]
    TooManyForLatency {
        /// Processors given.
        found: usize,
    },
    /// `max_processors` is 0.
    #[error("failed to plan a schedule without processors: `max_processors` is 0")]
    NoProcessors,
    /// Costs cannot be scaled.
    #[error(transparent)]
    Costs(#[from] CostsError),
    /// Costs and power model are of different processors.
    #[error("failed to plan: costs and power model have different processors")]
    OtherProcessors,
    /// The planned stages are not a valid schedule: a bug.
    #[error("failed to plan")]
    Schedule(#[from] ScheduleError),
}
