//! The optimal partition: the pipeline with the smallest bottleneck.
//!
//! A pipeline's rate is that of its slowest stage, so the planner minimises the greatest stage time over all cuts
//! and all assignments of processors to stages. Each processor has at most one stage and any may stay unused; a merged
//! processor excludes its parts, so the sets below are those whose processors have no CPU in common. A stage costs the units in it on its processor, and every stage but the first also the hand-over of all tensors
//! alive at its first cut, from the processor before it.
//!
//! # Method
//! Partitioning a chain over heterogeneous processors for the least bottleneck is solved by dynamic programming (Bokhari
//! 1988, "Partitioning problems in parallel, pipeline, and distributed computing"; Pınar & Aykanat 2004, "Fast
//! optimal load balancing algorithms for 1D partitioning"; with free assignment of P heterogeneous processors it is
//! exponential in P alone, Benoit & Robert 2008, "Mapping pipeline skeletons onto heterogeneous platforms").
//!
//! Let `rest(S, q, a)` be the least bottleneck of units `a..N` on exactly the processors `S`, received from `q`:
//!
//! ```text
//! rest({}, q, N) = 0
//! rest(S, q, a)  = min over p in S, b > a of  max( receive(q, p, a) + compute(p, a, b),  rest(S − p, p, b) )
//! ```
//!
//! For given p the first term grows with b. So of two ends b < b', b' can only be better where its rest is less; the
//! ends worth looking at form a stack on which, as `a` goes down, new ends are pushed after popping those they
//! dominate. On the stack the first term rises and the second falls: the best end is where they cross, found by
//! binary search.
//!
//! # Cost
//! Time O(2^P · P · Q · N · log N) and memory O(2^P · Q · N) for N units and P processors, where Q is the number of
//! distinct senders: 1 if all links are equal, P otherwise. `benches/planner.rs` measures it: 300 units
//! on 6 different processors took 3.4 ms with equal links and 12 ms with different ones, on a busy 2-core virtual machine.
//!
//! # Ties
//! Among the pipelines of least bottleneck the one with the fewest stages is taken; among those, from the first
//! stage on, the processor that comes first in the costs, and for it the earliest cut.

use crate::costs::{Costs, CostsError, Transfer};
use crate::network::{Cut, Network};
use crate::prediction::{Prediction, PredictionError, check_units, predict, stage_time_ns};
use crate::processor_set::{Exclusions, Set, members};
use crate::schedule::{Schedule, ScheduleError, Stage};
use serde::{Deserialize, Serialize};

/// Most processors of a plan. Twelve with different links take 100 MB for 300 units.
pub const MOST_PROCESSORS: usize = 12;

/// Constraints of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Most stages; if absent, the number of processors. With 1 the plan is the best single processor.
    pub max_stages: Option<usize>,
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
    let max_stages = options.max_stages.unwrap_or(processors).min(processors).min(network.len());
    if max_stages == 0 {
        return Err(PlanError::NoStages);
    }
    let stages = Search::new(network, costs, max_stages).fill().stages();
    finished(network, costs, Schedule::pipeline(network, stages)?)
}

/// The fastest single processor; on a tie, the first in the costs.
pub fn best_single(network: &Network, costs: &Costs) -> Result<Plan, PlanError> {
    plan(network, costs, &Options { max_stages: Some(1) })
}

fn finished(network: &Network, costs: &Costs, schedule: Schedule) -> Result<Plan, PlanError> {
    let prediction = predict(network, costs, &schedule)?;
    Ok(Plan { schedule, prediction })
}

/// An end of a stage, and the least bottleneck of what comes after it.
#[derive(Clone, Copy)]
struct End {
    /// Units before this end on the processor of the stage, in ns.
    before_ns: f64,
    rest: f64,
}

/// The table of the dynamic programme.
struct Search<'a> {
    network: &'a Network,
    costs: &'a Costs,
    max_stages: usize,
    exclusions: Exclusions,
    /// Distinct senders.
    senders: usize,
    /// Bytes alive at each cut are summed once.
    receive: Vec<Vec<f64>>,
    /// `rest[(S · senders + q) · (N + 1) + a]`; infinite where there is no such pipeline.
    rest: Vec<f64>,
}

impl<'a> Search<'a> {
    fn new(network: &'a Network, costs: &'a Costs, max_stages: usize) -> Self {
        let processors = costs.processors().len();
        let senders = match costs.transfer() {
            Transfer::Uniform(_) => 1,
            Transfer::Pairs(_) => processors,
        };
        let bytes: Vec<_> = network.boundaries().iter().map(crate::network::Boundary::bytes).collect();
        let receive = (0..senders * processors)
            .map(|pair| {
                let (from, to) = (pair / processors, pair % processors);
                bytes.iter().map(|bytes| costs.transfer_ns(from, to, *bytes)).collect()
            })
            .collect();
        let rest = vec![f64::INFINITY; (senders << processors) * (network.len() + 1)];
        let exclusions = Exclusions::of(costs.processors());
        Self { network, costs, max_stages, exclusions, senders, receive, rest }
    }

    fn processors(&self) -> usize {
        self.costs.processors().len()
    }

    fn sender(&self, processor: usize) -> usize {
        if self.senders == 1 { 0 } else { processor }
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
        // The first stage is not in the table, so the sets in it have one processor less.
        let is_rest = |set: &Set| (set.count_ones() as usize) < self.max_stages;
        let sets: Vec<Set> = self.exclusions.sets().filter(is_rest).collect();
        for set in sets {
            for processor in members(set) {
                self.fill_from(set, processor, &mut stack);
            }
        }
        self
    }

    /// Considers `processor` for the first stage of `set`, for every sender and first cut.
    fn fill_from(&mut self, set: Set, processor: usize, stack: &mut Vec<End>) {
        let units = self.network.len();
        let after = self.row(set & !(1 << processor), self.sender(processor));
        let before = self.costs.before_ns(processor);
        let beside = self.exclusions.beside(set);
        stack.clear();
        for first in (0..units).rev() {
            push(stack, End { before_ns: before[first + 1], rest: self.rest[after + first + 1] });
            if stack.is_empty() {
                continue;
            }
            for sender in 0..self.senders {
                if self.senders > 1 && beside & (1 << sender) == 0 {
                    continue;
                }
                let receive = self.receive[sender * self.processors() + processor][first];
                let best = crossing(stack, receive, before[first]);
                let slot = self.row(set, sender) + first;
                self.rest[slot] = self.rest[slot].min(best);
            }
        }
    }

    /// Walks from the first cut to the last and takes, among the decisions that keep to the least bottleneck with
    /// the fewest stages, the first.
    fn stages(&self) -> Vec<Stage> {
        let (limit, count) = self.least();
        let mut stages = Vec::with_capacity(count);
        let (mut from, mut free, mut first) = (None, self.exclusions.all(), 0);
        for left in (0..count).rev() {
            let Some((processor, end)) = self.next(from, free, first, left, limit) else { break };
            let name = self.costs.processors()[processor].clone();
            stages.push(Stage { processor: name, first, end });
            (from, free, first) = (Some(processor), free & self.exclusions.beside(1 << processor), end);
        }
        stages
    }

    /// The least bottleneck of all, and the fewest stages that reach it.
    fn least(&self) -> (f64, usize) {
        let mut least = (f64::INFINITY, usize::MAX);
        for processor in 0..self.processors() {
            let beside = self.exclusions.beside(1 << processor);
            for set in std::iter::once(0).chain(self.exclusions.sets()) {
                let count = set.count_ones() as usize + 1;
                if set & !beside != 0 || count > self.max_stages {
                    continue;
                }
                let row = self.row(set, self.sender(processor));
                for end in 1..=self.network.len() {
                    let bottleneck = self.time(None, processor, 0, end).max(self.rest[row + end]);
                    if bottleneck < least.0 || (bottleneck <= least.0 && count < least.1) {
                        least = (bottleneck, count);
                    }
                }
            }
        }
        least
    }

    /// The first stage from `first` on, among those after which `left` stages of the `free` processors can finish
    /// within `limit`.
    fn next(
        &self,
        from: Option<usize>,
        free: Set,
        first: usize,
        left: usize,
        limit: f64,
    ) -> Option<(usize, usize)> {
        members(free).find_map(|processor| {
            let others = free & self.exclusions.beside(1 << processor);
            let sets: Vec<Set> =
                (0..=others).filter(|set| set & !others == 0 && set.count_ones() as usize == left).collect();
            let finishes = |end: usize| {
                sets.iter().any(|&set| self.rest[self.row(set, self.sender(processor)) + end] <= limit)
            };
            (first + 1..=self.network.len())
                .take_while(|&end| self.time(from, processor, first, end) <= limit)
                .find(|&end| finishes(end))
                .map(|end| (processor, end))
        })
    }

    fn time(&self, from: Option<usize>, processor: usize, first: usize, end: usize) -> f64 {
        stage_time_ns(self.network, self.costs, from, processor, Cut(first), Cut(end))
    }
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

/// Least of `max(time, rest)` over the stack. From its bottom to its top, `time` falls and `rest` rises. The time is
/// added up as [`stage_time_ns`] does it, so that the table holds the very numbers that schedules are predicted by.
fn crossing(stack: &[End], receive: f64, before_first: f64) -> f64 {
    let time = |end: &End| receive + (end.before_ns - before_first);
    let above = stack.partition_point(|end| time(end) >= end.rest);
    let by_time = above.checked_sub(1).map_or(f64::INFINITY, |at| time(&stack[at]));
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
    /// `max_stages` is 0.
    #[error("failed to plan a schedule without stages: `max_stages` is 0")]
    NoStages,
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
