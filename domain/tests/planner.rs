//! The planner against an enumeration of every pipeline there is.
#![cfg(test)]
#![expect(clippy::float_cmp, reason = "the plan holds the very numbers that schedules are predicted by")]

mod merged;

use domain::{
    Boundary, Bytes, Costs, Cut, FramesPerSecond, Link, Network, Options, PlanError, Prediction,
    ProcessorName, Schedule, ScheduleKind, Stage, Tensor, Transfer, Unit, best_single, plan, plan_for_rate,
    predict,
};
use merged::{name, processors};
use proptest::prelude::*;
use std::ops::RangeInclusive;

/// A network whose boundaries hold tensors of these sizes.
fn network(boundaries: &[Vec<u64>]) -> Network {
    let unit = |index| Unit { name: format!("u{index}"), operators: vec![], macs: 0, parameters: 0 };
    let boundary = |(cut, sizes): (usize, &Vec<u64>)| Boundary {
        tensors: sizes
            .iter()
            .enumerate()
            .map(|(place, bytes)| Tensor {
                value: format!("t{cut}.{place}"),
                shape: vec![*bytes],
                dtype: "int8".to_owned(),
                bytes: Bytes(*bytes),
            })
            .collect(),
    };
    let units = (0..boundaries.len() - 1).map(unit).collect();
    Network::new("n", units, boundaries.iter().enumerate().map(boundary).collect()).unwrap()
}

fn costs(unit_ns: &[Vec<f64>], transfer: Transfer) -> Costs {
    let names = (0..unit_ns.len()).map(|index| ProcessorName::new(format!("p{index}"))).collect();
    Costs::new(names, unit_ns.to_vec(), transfer).unwrap()
}

/// A problem with whole or half costs, so that sums are exact and ties are many.
#[derive(Debug, Clone)]
struct Problem {
    boundaries: Vec<Vec<u64>>,
    /// The CPUs of each processor, one bit each.
    cpus: Vec<u32>,
    unit_ns: Vec<Vec<f64>>,
    links: Vec<Vec<(u8, u8)>>,
    uniform: bool,
    max_stages: Option<usize>,
}

impl Problem {
    fn link(&self, from: usize, to: usize) -> (f64, f64) {
        let (fixed, per_byte) = if self.uniform { self.links[0][0] } else { self.links[from][to] };
        (f64::from(fixed), f64::from(per_byte) / 2.0)
    }

    fn costs(&self) -> Costs {
        let names = self.cpus.iter().map(|cpus| name(*cpus)).collect();
        Costs::new(names, self.unit_ns.clone(), self.transfer()).unwrap()
    }

    fn transfer(&self) -> Transfer {
        let link = |from, to| {
            let (fixed_ns, ns_per_byte) = self.link(from, to);
            Link { fixed_ns, ns_per_byte }
        };
        let count = self.unit_ns.len();
        if self.uniform {
            Transfer::Uniform(link(0, 0))
        } else {
            Transfer::Pairs((0..count).map(|from| (0..count).map(|to| link(from, to)).collect()).collect())
        }
    }

    /// Time of a stage, by the words of the specification.
    fn stage_ns(&self, from: Option<usize>, processor: usize, first: usize, end: usize) -> f64 {
        let receive = from.map_or(0.0, |from| {
            let (fixed, per_byte) = self.link(from, processor);
            fixed + per_byte * self.boundaries[first].iter().sum::<u64>() as f64
        });
        receive + self.unit_ns[processor][first..end].iter().sum::<f64>()
    }

    /// The best of all pipelines by bottleneck, stages, then processor and end of each stage in turn.
    fn enumerate(&self) -> Best {
        let mut best = Best { bottleneck: f64::INFINITY, stages: vec![] };
        self.extend(&mut vec![], 0.0, &mut best);
        best
    }

    fn extend(&self, stages: &mut Vec<(usize, usize)>, bottleneck: f64, best: &mut Best) {
        let units = self.boundaries.len() - 1;
        let (from, first) = stages.last().map_or((None, 0), |&(from, end)| (Some(from), end));
        if first == units {
            let found = Best { bottleneck, stages: stages.clone() };
            if found.before(best) {
                *best = found;
            }
            return;
        }
        if stages.len() == self.max_stages.unwrap_or(usize::MAX) {
            return;
        }
        for processor in 0..self.unit_ns.len() {
            if stages.iter().any(|&(used, _)| self.cpus[used] & self.cpus[processor] != 0) {
                continue;
            }
            for end in first + 1..=units {
                let time = self.stage_ns(from, processor, first, end);
                stages.push((processor, end));
                self.extend(stages, bottleneck.max(time), best);
                stages.pop();
            }
        }
    }
}

impl Problem {
    /// The least sum of stage times of all pipelines whose stages take at most `period_ns`.
    fn least_latency(&self, period_ns: f64) -> Option<f64> {
        self.least_from(&mut vec![], period_ns)
    }

    fn least_from(&self, stages: &mut Vec<(usize, usize)>, period_ns: f64) -> Option<f64> {
        let units = self.boundaries.len() - 1;
        let (from, first) = stages.last().map_or((None, 0), |&(from, end)| (Some(from), end));
        if first == units {
            return Some(0.0);
        }
        let mut least: Option<f64> = None;
        for processor in 0..self.unit_ns.len() {
            if stages.iter().any(|&(used, _)| self.cpus[used] & self.cpus[processor] != 0) {
                continue;
            }
            for end in first + 1..=units {
                let time = self.stage_ns(from, processor, first, end);
                if time > period_ns {
                    continue;
                }
                stages.push((processor, end));
                if let Some(rest) = self.least_from(stages, period_ns) {
                    least = Some(least.map_or(time + rest, |least| least.min(time + rest)));
                }
                stages.pop();
            }
        }
        least
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Best {
    bottleneck: f64,
    /// Processor and end of each stage.
    stages: Vec<(usize, usize)>,
}

impl Best {
    fn before(&self, other: &Self) -> bool {
        let by_stages = (self.stages.len(), &self.stages) < (other.stages.len(), &other.stages);
        self.bottleneck < other.bottleneck || (self.bottleneck <= other.bottleneck && by_stages)
    }
}

/// A problem with at most four CPUs and so many merged processors.
fn problem(merged: RangeInclusive<usize>) -> impl Strategy<Value = Problem> {
    let merged = proptest::collection::vec(3..16_u32, merged);
    (1..=7_usize, 1..=4_u32, merged, 1..=8_u32, any::<bool>(), proptest::option::of(1..=4_usize))
        .prop_flat_map(|(units, count, merged, greatest, uniform, max_stages)| {
            let cpus = processors(count, &merged);
            let processors = cpus.len();
            let sizes = proptest::collection::vec(0..6_u64, 1..=3);
            let cost = (0..=greatest).prop_map(f64::from);
            let row = proptest::collection::vec(cost, units);
            let link = (0..4_u8, 0..3_u8);
            (
                proptest::collection::vec(sizes, units + 1),
                proptest::collection::vec(row, processors),
                proptest::collection::vec(proptest::collection::vec(link, processors), processors),
            )
                .prop_map(move |(boundaries, unit_ns, links)| Problem {
                    boundaries,
                    cpus: cpus.clone(),
                    unit_ns,
                    links,
                    uniform,
                    max_stages,
                })
        })
}

fn slowest_ns(prediction: &Prediction) -> f64 {
    prediction.stage_ns.iter().copied().fold(0.0, f64::max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_least_latency_at_a_rate_is_that_of_an_enumeration(problem in problem(0..=1), period_ns in 0..30_u32) {
        let (network, costs) = (network(&problem.boundaries), problem.costs());
        let period_ns = f64::from(period_ns);
        let found = plan_for_rate(&network, &costs, period_ns).unwrap();
        let latency = found.as_ref().map(|plan| plan.prediction.stage_ns.iter().sum::<f64>());
        prop_assert_eq!(latency, problem.least_latency(period_ns));
        if let Some(plan) = found {
            prop_assert!(plan.prediction.stage_ns.iter().all(|stage| *stage <= period_ns));
        }
    }

    #[test]
    fn the_plan_is_the_best_of_all_and_the_first_among_equals(problem in problem(0..=3)) {
        let network = network(&problem.boundaries);
        let costs = problem.costs();
        let plan = plan(&network, &costs, &Options { max_stages: problem.max_stages }).unwrap();
        let best = problem.enumerate();
        let stages: Vec<_> = plan
            .schedule
            .stages()
            .iter()
            .map(|stage| (costs.index_of(&stage.processor).unwrap(), stage.end))
            .collect();
        prop_assert_eq!(stages, best.stages);
        prop_assert_eq!(slowest_ns(&plan.prediction), best.bottleneck);
        prop_assert_eq!(plan.prediction.throughput, FramesPerSecond(1e9 / best.bottleneck));
    }

    #[test]
    fn costs_of_any_size_give_the_least_bottleneck(
        unit_ns in proptest::collection::vec(proptest::collection::vec(0.0..1e7_f64, 6), 1..=4),
        sizes in proptest::collection::vec(proptest::collection::vec(0..1_000_000_u64, 1..=2), 7),
        fixed in 0.0..1e6_f64,
        per_byte in 0.0..10.0_f64,
    ) {
        let network = network(&sizes);
        let costs = costs(&unit_ns, Transfer::uniform(fixed, per_byte));
        let plan = plan(&network, &costs, &Options::default()).unwrap();
        let mut least = f64::INFINITY;
        let mut visit = |stages: &[Stage]| {
            let schedule = Schedule::pipeline(&network, stages.to_vec()).unwrap();
            least = least.min(slowest_ns(&predict(&network, &costs, &schedule).unwrap()));
        };
        each_pipeline(&costs, &mut vec![], &mut visit);
        prop_assert_eq!(slowest_ns(&plan.prediction), least);
        let again = predict(&network, &costs, &plan.schedule).unwrap();
        prop_assert_eq!(again, plan.prediction);
    }

    #[test]
    fn another_processor_never_makes_the_plan_slower(problem in problem(0..=0)) {
        let network = network(&problem.boundaries);
        let transfer = Transfer::uniform(1.0, 0.5);
        let time = |processors: usize| {
            let costs = costs(&problem.unit_ns[..processors], transfer.clone());
            slowest_ns(&plan(&network, &costs, &Options::default()).unwrap().prediction)
        };
        for processors in 1..problem.unit_ns.len() {
            prop_assert!(time(processors + 1) <= time(processors));
        }
    }
}

fn each_pipeline(costs: &Costs, stages: &mut Vec<Stage>, visit: &mut impl FnMut(&[Stage])) {
    let first = stages.last().map_or(0, |stage| stage.end);
    if first == costs.units() {
        return visit(stages);
    }
    for processor in costs.processors() {
        if stages.iter().any(|stage| stage.processor == *processor) {
            continue;
        }
        for end in first + 1..=costs.units() {
            stages.push(Stage { processor: processor.clone(), first, end });
            each_pipeline(costs, stages, visit);
            stages.pop();
        }
    }
}

/// Four units between boundaries of one tensor of `bytes`.
fn four(bytes: u64) -> Network {
    network(&vec![vec![bytes]; 5])
}

#[test]
fn the_transfer_moves_the_cut_or_forbids_it() {
    let even = vec![vec![10.0; 4]; 2];
    let check = |transfer: Transfer, label: &str, slowest: f64| {
        let plan = plan(&four(8), &costs(&even, transfer), &Options::default()).unwrap();
        assert_eq!(plan.schedule.label(), label);
        assert!((slowest_ns(&plan.prediction) - slowest).abs() < 1e-9, "{:?}", plan.prediction);
    };
    check(Transfer::FREE, "p0[0..2] > p1[2..4]", 20.0);
    check(Transfer::uniform(2.0, 0.5), "p0[0..2] > p1[2..4]", 26.0);
    check(Transfer::uniform(20.0, 0.0), "p0[0..3] > p1[3..4]", 30.0);
    check(Transfer::uniform(30.0, 0.0), "p0", 40.0);
}

#[test]
fn all_that_is_alive_is_moved() {
    let sizes = [vec![1], vec![1], vec![6, 6], vec![1], vec![1]];
    let costs = costs(&vec![vec![10.0; 4]; 2], Transfer::uniform(0.0, 1.0));
    let plan = plan(&network(&sizes), &costs, &Options::default()).unwrap();
    assert_eq!(plan.schedule.label(), "p0[0..3] > p1[3..4]", "the middle would cost 20 + 12, not 20 + 6");
    assert!((slowest_ns(&plan.prediction) - 30.0).abs() < 1e-9);
}

#[test]
fn the_order_of_processors_is_free() {
    let unit_ns = vec![vec![90.0, 90.0, 5.0, 5.0], vec![5.0, 5.0, 90.0, 90.0]];
    let plan = plan(&four(1), &costs(&unit_ns, Transfer::FREE), &Options::default()).unwrap();
    assert_eq!(plan.schedule.label(), "p1[0..2] > p0[2..4]");
}

#[test]
fn links_that_differ_choose_the_order() {
    let dear = Link { fixed_ns: 100.0, ns_per_byte: 0.0 };
    let links = Transfer::Pairs(vec![vec![Link::FREE, dear], vec![Link::FREE, Link::FREE]]);
    let plan = plan(&four(1), &costs(&vec![vec![10.0; 4]; 2], links), &Options::default()).unwrap();
    assert_eq!(plan.schedule.label(), "p1[0..2] > p0[2..4]");
}

#[test]
fn a_merged_processor_is_not_used_beside_its_parts() {
    let network = four(1);
    let planned = |names: &[&str], rows: &[[f64; 4]]| {
        let names = names.iter().map(|name| ProcessorName::new(*name)).collect();
        let rows = rows.iter().map(|row| row.to_vec()).collect();
        let costs = Costs::new(names, rows, Transfer::uniform(1.0, 0.0)).unwrap();
        plan(&network, &costs, &Options::default()).unwrap().schedule
    };
    let both = planned(&["a", "b", "a+b"], &[[10.0; 4], [10.0; 4], [5.0; 4]]);
    assert_eq!((both.label().as_str(), both.kind()), ("a+b", ScheduleKind::Merged));
    let beside = planned(&["a", "b", "a+b", "gpu"], &[[10.0; 4], [10.0; 4], [5.0; 4], [5.0; 4]]);
    assert_eq!(beside.label(), "a+b[0..2] > gpu[2..4]", "and not a > b > gpu");
}

#[test]
fn singles_and_replicas() {
    let network = four(4);
    let costs = costs(&[vec![10.0; 4], vec![5.0; 4], vec![5.0; 4]], Transfer::uniform(1e6, 0.0));
    let best = best_single(&network, &costs).unwrap();
    assert_eq!((best.schedule.label().as_str(), best.schedule.kind()), ("p1", ScheduleKind::Single));
    let all = Schedule::replicate(&network, costs.processors().to_vec()).unwrap();
    let prediction = predict(&network, &costs, &all).unwrap();
    assert!((prediction.throughput.0 - 1e9 * (1.0 / 40.0 + 2.0 / 20.0)).abs() < 1e-3, "no replica receives");
}

#[test]
fn what_cannot_be_planned() {
    let four = four(4);
    let free = |units: usize, processors: usize| costs(&vec![vec![1.0; units]; processors], Transfer::FREE);
    let check = |result: Result<(), PlanError>, wanted: &str| {
        assert_eq!(result.unwrap_err().to_string(), format!("failed to {wanted}"));
    };
    let planned = |costs: &Costs, max_stages| plan(&four, costs, &Options { max_stages }).map(drop);
    check(planned(&free(3, 1), None), "plan network n: it has 4 units, the costs are for 3");
    check(
        planned(&free(4, 13), None),
        "plan for 13 processors: the limit is 12; remove some from `processors`",
    );
    check(planned(&free(4, 1), Some(0)), "plan a schedule without stages: `max_stages` is 0");
    let elsewhere = Schedule::single(&four, "gpu".into());
    let unknown = predict(&four, &free(4, 1), &elsewhere).map(drop).map_err(PlanError::from);
    check(unknown, "predict a schedule: processor gpu has no profile");
    let longer = network(&vec![vec![1]; 6]);
    let other = Schedule::from_cuts(&longer, &[("p0".into(), Some(Cut(5)))]).unwrap();
    let unlike = predict(&four, &free(4, 1), &other).map(drop).map_err(PlanError::from);
    check(unlike, "predict network n: it has 4 units, the schedule is for 5");
}
