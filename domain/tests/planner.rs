//! The planner against an enumeration of every pipeline there is.
#![cfg(test)]
#![expect(clippy::float_cmp, reason = "the plan holds the very numbers that schedules are predicted by")]

mod merged;

use domain::{
    Boundary, Bytes, Costs, Cut, FramesPerSecond, Link, Network, Options, PlanError, Prediction,
    ProcessorName, Schedule, ScheduleKind, Stage, Tensor, Transfer, Unit, best_single, periods_ns, plan,
    plan_for_rate, predict, predict_timed,
};
use merged::{cpus_of, groups, name, period, processors};
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
    max_processors: Option<usize>,
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

    /// The best of all pipelines by bottleneck, processors, then group and end of each stage in turn.
    fn enumerate(&self) -> Best {
        let mut best = Best { bottleneck: f64::INFINITY, processors: 0, stages: vec![] };
        self.extend(&groups(&self.cpus), &mut vec![], 0.0, &mut best);
        best
    }

    fn extend(
        &self,
        groups: &[Vec<usize>],
        stages: &mut Vec<(usize, usize)>,
        bottleneck: f64,
        best: &mut Best,
    ) {
        let units = self.boundaries.len() - 1;
        let (from, first) = stages.last().map_or((None, 0), |&(from, end)| (Some(from), end));
        let count =
            |stages: &[(usize, usize)]| stages.iter().map(|stage| groups[stage.0].len()).sum::<usize>();
        if first == units {
            let found = Best { bottleneck, processors: count(stages), stages: stages.clone() };
            if found.before(best) {
                *best = found;
            }
            return;
        }
        for (at, group) in groups.iter().enumerate() {
            let cpus = cpus_of(group, &self.cpus);
            let too_many = count(stages) + group.len() > self.max_processors.unwrap_or(usize::MAX);
            if too_many || stages.iter().any(|stage| cpus_of(&groups[stage.0], &self.cpus) & cpus != 0) {
                continue;
            }
            // The whole network on several processors is no pipeline.
            let farthest = if first == 0 && group.len() > 1 { units - 1 } else { units };
            for end in first + 1..=farthest {
                let time = |processor: &usize| {
                    let senders = from.map_or(&[][..], |from: usize| groups[from].as_slice());
                    let times = senders.iter().map(|from| self.stage_ns(Some(*from), *processor, first, end));
                    times.reduce(f64::max).unwrap_or_else(|| self.stage_ns(None, *processor, first, end))
                };
                let times: Vec<f64> = group.iter().map(time).collect();
                stages.push((at, end));
                self.extend(groups, stages, bottleneck.max(period(&times)), best);
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
    processors: usize,
    /// Group and end of each stage.
    stages: Vec<(usize, usize)>,
}

impl Best {
    fn before(&self, other: &Self) -> bool {
        let by_stages = (self.processors, &self.stages) < (other.processors, &other.stages);
        self.bottleneck < other.bottleneck || (self.bottleneck <= other.bottleneck && by_stages)
    }
}

/// A problem with at most four CPUs and so many merged processors.
fn problem(merged: RangeInclusive<usize>) -> impl Strategy<Value = Problem> {
    let merged = proptest::collection::vec(3..16_u32, merged);
    (1..=7_usize, 1..=4_u32, merged, 1..=8_u32, any::<bool>(), proptest::option::of(1..=4_usize))
        .prop_flat_map(|(units, count, merged, greatest, uniform, max_processors)| {
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
                    max_processors,
                })
        })
}

fn slowest_ns(schedule: &Schedule, prediction: &Prediction) -> f64 {
    periods_ns(schedule, &prediction.stage_ns).into_iter().fold(0.0, f64::max)
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
        let plan = plan(&network, &costs, &Options { max_processors: problem.max_processors }).unwrap();
        let best = problem.enumerate();
        let groups = groups(&problem.cpus);
        let stage = |replicas: &[Stage]| {
            let group: Vec<_> =
                replicas.iter().map(|replica| costs.index_of(&replica.processor).unwrap()).collect();
            (groups.iter().position(|known| *known == group).unwrap(), replicas[0].end)
        };
        prop_assert_eq!(plan.schedule.replicas().map(stage).collect::<Vec<_>>(), best.stages);
        prop_assert_eq!(slowest_ns(&plan.schedule, &plan.prediction), best.bottleneck);
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
            // The whole network on several processors is no pipeline.
            if schedule.kind() != ScheduleKind::Replicate {
                least = least.min(slowest_ns(&schedule, &predict(&network, &costs, &schedule).unwrap()));
            }
        };
        each_pipeline(&costs, &mut vec![], &mut visit);
        prop_assert_eq!(slowest_ns(&plan.schedule, &plan.prediction), least);
        let again = predict(&network, &costs, &plan.schedule).unwrap();
        prop_assert_eq!(again, plan.prediction);
    }

    #[test]
    fn another_processor_never_makes_the_plan_slower(problem in problem(0..=0)) {
        let network = network(&problem.boundaries);
        let transfer = Transfer::uniform(1.0, 0.5);
        let time = |processors: usize| {
            let costs = costs(&problem.unit_ns[..processors], transfer.clone());
            let plan = plan(&network, &costs, &Options::default()).unwrap();
            slowest_ns(&plan.schedule, &plan.prediction)
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
    let cpus: Vec<u32> = (0..costs.processors().len()).map(|at| 1 << at).collect();
    for group in groups(&cpus) {
        let names: Vec<_> = group.iter().map(|at| costs.processors()[*at].clone()).collect();
        if stages.iter().any(|stage| names.contains(&stage.processor)) {
            continue;
        }
        for end in first + 1..=costs.units() {
            let before = stages.len();
            stages.extend(names.iter().map(|name| Stage { processor: name.clone(), first, end }));
            each_pipeline(costs, stages, visit);
            stages.truncate(before);
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
        assert!(
            (slowest_ns(&plan.schedule, &plan.prediction) - slowest).abs() < 1e-9,
            "{:?}",
            plan.prediction
        );
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
    assert!((slowest_ns(&plan.schedule, &plan.prediction) - 30.0).abs() < 1e-9);
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
    let both = planned(&["a", "b", "a+b"], &[[12.0; 4], [12.0; 4], [5.0; 4]]);
    assert_eq!((both.label().as_str(), both.kind()), ("a+b", ScheduleKind::Merged));
    let beside = planned(&["a", "b", "a+b", "gpu"], &[[12.0; 4], [12.0; 4], [5.0; 4], [5.0; 4]]);
    assert_eq!(beside.label(), "a+b[0..2] > gpu[2..4]", "and not a > b > gpu");
}

#[test]
fn a_stage_has_replicas_where_no_single_processor_keeps_up() {
    let network = four(1);
    let planned = |rows: &[[f64; 4]], transfer: Transfer| {
        let rows: Vec<Vec<f64>> = rows.iter().map(|row| row.to_vec()).collect();
        let plan = plan(&network, &costs(&rows, transfer), &Options::default()).unwrap();
        (plan.schedule.label(), slowest_ns(&plan.schedule, &plan.prediction))
    };
    // The first processor is fast at the first two units alone.
    let rows = [[5.0, 5.0, 90.0, 90.0], [30.0, 30.0, 9.0, 11.0], [30.0, 30.0, 9.0, 11.0]];
    let (label, slowest) = planned(&rows, Transfer::FREE);
    assert_eq!(label, "p0[0..2] > (p1 | p2)[2..4]");
    assert!((slowest - 10.0).abs() < 1e-9, "both stages take 10: {slowest}");
    // Both replicas receive.
    assert!((planned(&rows, Transfer::uniform(2.0, 0.0)).1 - 11.0).abs() < 1e-9);
    // From a stage with replicas, the slower link counts.
    let rows = [[1.0, 19.0, 90.0, 90.0], [1.0, 19.0, 90.0, 90.0], [90.0, 90.0, 3.0, 3.0]];
    let link = |fixed_ns| Link { fixed_ns, ns_per_byte: 0.0 };
    let links = Transfer::Pairs(vec![vec![link(1.0); 3], vec![link(6.0); 3], vec![link(0.0); 3]]);
    let (label, slowest) = planned(&rows, links);
    assert_eq!(label, "(p0 | p1)[0..2] > p2[2..4]");
    assert!((slowest - 12.0).abs() < 1e-9, "{slowest}");
    // A replica that is far slower would hold up the order.
    let rows = [[1.0, 1.0, 90.0, 90.0], [90.0, 90.0, 2.0, 2.0], [999.0; 4]];
    assert_eq!(planned(&rows, Transfer::FREE).0, "p0[0..2] > p1[2..4]");
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
    let planned = |costs: &Costs, max_processors| plan(&four, costs, &Options { max_processors }).map(drop);
    check(planned(&free(3, 1), None), "plan network n: it has 4 units, the costs are for 3");
    check(
        planned(&free(4, 13), None),
        "plan for 13 processors: the limit is 12; remove some from `processors`",
    );
    check(planned(&free(4, 1), Some(0)), "plan a schedule without processors: `max_processors` is 0");
    let elsewhere = Schedule::single(&four, "gpu".into());
    let unknown = predict(&four, &free(4, 1), &elsewhere).map(drop).map_err(PlanError::from);
    check(unknown, "predict a schedule: processor gpu has no profile");
    let longer = network(&vec![vec![1]; 6]);
    let other = Schedule::from_cuts(&longer, &[(vec!["p0".into()], Some(Cut(5)))]).unwrap();
    let unlike = predict(&four, &free(4, 1), &other).map(drop).map_err(PlanError::from);
    check(unlike, "predict network n: it has 4 units, the schedule is for 5");
}

#[test]
fn timed_stages_replace_the_costs_of_their_units() {
    let network = network(&[vec![8], vec![8], vec![8], vec![8], vec![8]]);
    let costs = costs(&[vec![1.0; 4], vec![2.0; 4]], Transfer::uniform(7.0, 0.0));
    let cuts = [(vec!["p0".into()], Some(Cut(3))), (vec!["p1".into()], None)];
    let schedule = Schedule::from_cuts(&network, &cuts).unwrap();
    let predicted = |compute: &[f64]| predict_timed(&network, &costs, &schedule, compute).unwrap().stage_ns;
    assert_eq!(predict(&network, &costs, &schedule).unwrap().stage_ns, [3.0, 9.0]);
    assert_eq!(predicted(&[5.0, 4.0]), [5.0, 11.0]);
    assert_eq!(predicted(&[5.0]), [5.0, 9.0]);
}
