//! The pipeline with the least latency among those that keep up with a rate.
//!
//! A frame that waits for no other takes the sum of the stage times. A pipeline keeps up with a stream if no stage takes longer than
//! the time between two frames. So the planner minimizes the sum over all cuts and all assignments of processors, with a limit on
//! each stage. As in [`planner`](crate::planner), each processor has at most one stage, and a merged processor excludes its parts. A
//! stage has one processor: replicas make no frame faster.
//!
//! # Method
//! Dynamic programming over the processors that are still free, the sender, and the first unit that is left. For given sender and
//! processor, a stage takes longer the more units it has, so its ends are tried until one exceeds the limit.
//!
//! # Cost
//! Time O(2^P · P² · N²) for N units and P processors, so P is limited to [`MOST_PROCESSORS`].

use crate::costs::Costs;
use crate::network::{Cut, Network};
use crate::planner::{Plan, PlanError};
use crate::prediction::{check_units, predict, stage_time_ns};
use crate::processor_set::{Exclusions, Set, members};
use crate::schedule::{Schedule, Stage};
use std::collections::HashMap;

/// Most processors of a plan.
pub const MOST_PROCESSORS: usize = 8;

/// The pipeline with the least latency whose stages take at most `period_ns`. It is a single schedule if no pipeline has a lower
/// latency. Absent if nothing keeps up with that rate.
pub fn plan_for_rate(network: &Network, costs: &Costs, period_ns: f64) -> Result<Option<Plan>, PlanError> {
    check_units(network, costs)?;
    let found = costs.processors().len();
    if found > MOST_PROCESSORS {
        return Err(PlanError::TooManyForLatency { found });
    }
    let exclusions = Exclusions::of(costs.processors());
    let mut search = Search { network, costs, exclusions, period_ns, known: HashMap::new() };
    let mut place = Place { free: search.exclusions.all(), from: None, first: 0 };
    let mut stages = Vec::new();
    while place.first < network.len() {
        let Some((processor, end)) = search.least(place).stage else { return Ok(None) };
        let name = costs.processors()[processor].clone();
        stages.push(Stage { processor: name, first: place.first, end });
        place = search.after(place, processor, end);
    }
    let schedule = Schedule::pipeline(network, stages)?;
    let prediction = predict(network, costs, &schedule)?;
    Ok(Some(Plan { schedule, prediction }))
}

/// What is left to be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    free: Set,
    from: Option<usize>,
    first: usize,
}

/// The least latency of what is left, and its first stage; infinite without one.
#[derive(Debug, Clone, Copy)]
struct Least {
    latency_ns: f64,
    stage: Option<(usize, usize)>,
}

struct Search<'a> {
    network: &'a Network,
    costs: &'a Costs,
    exclusions: Exclusions,
    period_ns: f64,
    known: HashMap<Place, Least>,
}

impl Search<'_> {
    fn after(&self, place: Place, processor: usize, end: usize) -> Place {
        let free = place.free & self.exclusions.beside(1 << processor);
        Place { free, from: Some(processor), first: end }
    }

    fn least(&mut self, place: Place) -> Least {
        if place.first == self.network.len() {
            return Least { latency_ns: 0.0, stage: None };
        }
        if let Some(known) = self.known.get(&place) {
            return *known;
        }
        let mut least = Least { latency_ns: f64::INFINITY, stage: None };
        for processor in members(place.free) {
            // The longest stage first, so that of equal latencies the one with fewer stages is taken.
            let time = |search: &Self, end: usize| {
                let (first, end) = (Cut(place.first), Cut(end));
                stage_time_ns(search.network, search.costs, place.from.as_slice(), processor, first, end)
            };
            let ends = place.first + 1..=self.network.len();
            let longest = ends.take_while(|end| time(self, *end) <= self.period_ns).last();
            for end in (place.first + 1..=longest.unwrap_or(place.first)).rev() {
                let rest = self.least(self.after(place, processor, end)).latency_ns;
                let latency_ns = time(self, end) + rest;
                if latency_ns < least.latency_ns {
                    least = Least { latency_ns, stage: Some((processor, end)) };
                }
            }
        }
        self.known.insert(place, least);
        least
    }
}
