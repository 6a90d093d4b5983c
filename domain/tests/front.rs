//! The front of throughput and energy against an enumeration of every schedule there is.
#![cfg(test)]

mod merged;

use domain::{
    Boundary, Bytes, Costs, FrontCosts, FrontPoint, Link, Milliwatts, Network, PlanError, PowerModel,
    Schedule, ScheduleKind, Stage, Tensor, Transfer, Unit, front,
};
use merged::{cpus_of, groups, name, period, processors};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// A problem with whole costs and powers, so that sums are exact and ties are many.
#[derive(Debug, Clone)]
struct Problem {
    /// Bytes at each cut.
    bytes: Vec<u64>,
    /// The CPUs of each processor, one bit each.
    cpus: Vec<u32>,
    alone: Vec<Vec<f64>>,
    contended: Vec<Vec<f64>>,
    links: Vec<Vec<(u8, u8)>>,
    idle: f64,
    dynamic: Vec<f64>,
}

/// Frame time in ns and energy in mW · ns.
type Figures = (f64, f64);

impl Problem {
    fn receive_ns(&self, from: usize, to: usize, cut: usize) -> f64 {
        let (fixed, per_byte) = self.links[from][to];
        f64::from(fixed) + f64::from(per_byte) * self.bytes[cut] as f64
    }

    /// Whether these processors, one bit each, have no CPU in common.
    fn are_apart(&self, set: usize) -> bool {
        let members = (0..self.cpus.len()).filter(|at| set & 1 << at != 0).map(|at| self.cpus[at]);
        members.clone().map(u32::count_ones).sum::<u32>()
            == members.fold(0, |all, cpus| all | cpus).count_ones()
    }

    /// Figures of every schedule, by the words of the specification.
    fn every_schedule(&self) -> Vec<Figures> {
        let mut all = self.without_pipelines();
        self.extend(&groups(&self.cpus), &mut Vec::new(), (0.0, 0.0), &mut all);
        all
    }

    /// Figures of single schedules and replicates.
    fn without_pipelines(&self) -> Vec<Figures> {
        let processors = self.contended.len();
        let mut all = Vec::new();
        for (row, dynamic) in self.alone.iter().zip(&self.dynamic) {
            let time: f64 = row.iter().sum();
            all.push((time, (self.idle + dynamic) * time));
        }
        for set in 1usize..1 << processors {
            if set.count_ones() < 2 || !self.are_apart(set) {
                continue;
            }
            let members = || (0..processors).filter(|at| set & 1 << at != 0);
            let rate: f64 = members().map(|at| 1.0 / self.contended[at].iter().sum::<f64>()).sum();
            let power = self.idle + members().map(|at| self.dynamic[at]).sum::<f64>();
            all.push((1.0 / rate, power / rate));
        }
        all
    }

    /// Times of a group's processors for the units `first..end`, received from another group.
    fn times(&self, from: Option<&Vec<usize>>, group: &[usize], (first, end): (usize, usize)) -> Vec<f64> {
        let time = |processor: &usize| {
            let senders = from.into_iter().flatten();
            let receive = senders.map(|from| self.receive_ns(*from, *processor, first)).fold(0.0, f64::max);
            receive + self.contended[*processor][first..end].iter().sum::<f64>()
        };
        group.iter().map(time).collect()
    }

    fn dynamic(&self, group: &[usize]) -> f64 {
        group.iter().map(|at| self.dynamic[*at]).sum()
    }

    /// Figures of every pipeline but those that have a better one with the same processors up to the same cut: for problems
    /// with more pipelines than can be enumerated.
    fn best_pipelines(&self) -> Vec<Figures> {
        let units = self.bytes.len() - 1;
        let groups = groups(&self.cpus);
        // The slowest stage and the energy, by the cut that is reached, the CPUs used and the last group.
        let mut known: Vec<BTreeMap<(u32, usize), Vec<Figures>>> = vec![BTreeMap::new(); units + 1];
        for first in 0..units {
            let mut labels: Vec<(u32, Option<usize>, Vec<Figures>)> = known[first]
                .iter()
                .map(|((used, last), labels)| (*used, Some(*last), labels.clone()))
                .collect();
            if first == 0 {
                labels.push((0, None, vec![(0.0, 0.0)]));
            }
            for (used, last, labels) in labels {
                for (next, group) in groups.iter().enumerate() {
                    let cpus = cpus_of(group, &self.cpus);
                    if used & cpus != 0 {
                        continue;
                    }
                    for (end, reached) in known.iter_mut().enumerate().skip(first + 1) {
                        let time = period(&self.times(last.map(|last| &groups[last]), group, (first, end)));
                        let longer = reached.entry((used | cpus, next)).or_default();
                        for (slowest, energy) in &labels {
                            let label = (slowest.max(time), energy + self.dynamic(group) * time);
                            if !longer.iter().any(|other| other.0 <= label.0 && other.1 <= label.1) {
                                longer.retain(|other| other.0 < label.0 || other.1 < label.1);
                                longer.push(label);
                            }
                        }
                    }
                }
            }
        }
        // The whole network on one group is no pipeline.
        let several =
            known[units].iter().filter(|((used, last), _)| *used != cpus_of(&groups[*last], &self.cpus));
        several
            .flat_map(|(_, labels)| labels)
            .map(|(slowest, energy)| (*slowest, self.idle * slowest + energy))
            .collect()
    }

    fn extend(
        &self,
        groups: &[Vec<usize>],
        used: &mut Vec<(usize, usize)>,
        (slowest, energy): Figures,
        all: &mut Vec<Figures>,
    ) {
        let units = self.bytes.len() - 1;
        let first = used.last().map_or(0, |last| last.1);
        if first == units {
            if used.len() > 1 {
                all.push((slowest, self.idle * slowest + energy));
            }
            return;
        }
        for (at, group) in groups.iter().enumerate() {
            let cpus = cpus_of(group, &self.cpus);
            if used.iter().any(|(other, _)| cpus_of(&groups[*other], &self.cpus) & cpus != 0) {
                continue;
            }
            for end in first + 1..=units {
                let from = used.last().map(|last| &groups[last.0]);
                let time = period(&self.times(from, group, (first, end)));
                used.push((at, end));
                self.extend(groups, used, (slowest.max(time), energy + self.dynamic(group) * time), all);
                used.pop();
            }
        }
    }

    fn network(&self) -> Network {
        let unit = |index| Unit { name: format!("u{index}"), operators: vec![], macs: 0, parameters: 0 };
        let boundary = |(cut, bytes): (usize, &u64)| Boundary {
            tensors: vec![Tensor {
                value: format!("t{cut}"),
                shape: vec![*bytes],
                dtype: "int8".to_owned(),
                bytes: Bytes(*bytes),
            }],
        };
        let units = (0..self.bytes.len() - 1).map(unit).collect();
        Network::new("n", units, self.bytes.iter().enumerate().map(boundary).collect()).unwrap()
    }

    fn costs(&self, unit_ns: &[Vec<f64>]) -> Costs {
        let link = |(fixed, per_byte): &(u8, u8)| Link {
            fixed_ns: f64::from(*fixed),
            ns_per_byte: f64::from(*per_byte),
        };
        let links = self.links.iter().map(|row| row.iter().map(link).collect()).collect();
        let names = self.cpus.iter().map(|cpus| name(*cpus)).collect();
        Costs::new(names, unit_ns.to_vec(), Transfer::Pairs(links)).unwrap()
    }

    fn power(&self) -> PowerModel {
        let dynamic: Vec<Milliwatts> = self.dynamic.iter().map(|power| Milliwatts(*power)).collect();
        PowerModel::known(Milliwatts(self.idle), &dynamic).unwrap()
    }

    fn front(&self) -> Vec<FrontPoint> {
        let (alone, contended) = (self.costs(&self.alone), self.costs(&self.contended));
        let costs = FrontCosts { alone: &alone, contended: &contended };
        front(&self.network(), costs, &self.power()).unwrap()
    }
}

fn figures(point: &FrontPoint) -> Figures {
    (1e9 / point.throughput().0, point.energy.0 * 1e9)
}

/// Whether one is as good as the other in both, up to rounding.
fn covers(one: Figures, other: Figures) -> bool {
    let no_more = |a: f64, b: f64| a <= b * (1.0 + 1e-12) + 1e-12;
    no_more(one.0, other.0) && no_more(one.1, other.1)
}

fn problem(units: RangeInclusive<usize>, count: RangeInclusive<u32>) -> impl Strategy<Value = Problem> {
    let merged = proptest::collection::vec(3..16_u32, 0..=3);
    (units, count, merged, 1..=9_u32).prop_flat_map(|(units, count, merged, greatest)| {
        let cpus = processors(count, &merged);
        let processors = cpus.len();
        let cost = (0..=greatest).prop_map(f64::from);
        let row = proptest::collection::vec(cost, units);
        let rows = proptest::collection::vec(row, processors);
        let links =
            proptest::collection::vec(proptest::collection::vec((0..4_u8, 0..3_u8), processors), processors);
        (
            proptest::collection::vec(0..6_u64, units + 1),
            rows.clone(),
            rows,
            links,
            (0..6_u32).prop_map(f64::from),
            proptest::collection::vec((0..9_u32).prop_map(f64::from), processors),
        )
            .prop_map(move |(bytes, alone, contended, links, idle, dynamic)| Problem {
                bytes,
                cpus: cpus.clone(),
                alone,
                contended,
                links,
                idle,
                dynamic,
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_front_is_that_of_every_schedule(problem in problem(1..=7, 1..=4)) {
        is_the_front_of(&problem, &problem.every_schedule())?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_front_of_more_units_is_that_of_the_best_pipelines(problem in problem(8..=24, 2..=4)) {
        let every = [problem.without_pipelines(), problem.best_pipelines()].concat();
        is_the_front_of(&problem, &every)?;
    }
}

fn is_the_front_of(problem: &Problem, every: &[Figures]) -> Result<(), TestCaseError> {
    let found: Vec<Figures> = problem.front().iter().map(figures).collect();
    for schedule in every {
        prop_assert!(
            found.iter().any(|point| covers(*point, *schedule)),
            "{schedule:?} is not covered by {found:?}"
        );
    }
    for point in &found {
        prop_assert!(
            every.iter().any(|schedule| covers(*schedule, *point)),
            "there is no schedule with {point:?}"
        );
    }
    for pair in found.windows(2) {
        // Energies that differ by rounding alone may both stay.
        let falls = pair[0].1 > pair[1].1 * (1.0 - 1e-12);
        prop_assert!(pair[0].0 < pair[1].0 && falls, "{found:?} is no front");
    }
    Ok(())
}

fn two(idle: f64, dynamic: [f64; 2]) -> Problem {
    // The first processor is four times as fast.
    let rows = vec![vec![10.0; 4], vec![40.0; 4]];
    Problem {
        bytes: vec![0; 5],
        cpus: vec![1, 2],
        alone: rows.clone(),
        contended: rows,
        links: vec![vec![(0, 0); 2]; 2],
        idle,
        dynamic: dynamic.to_vec(),
    }
}

#[test]
fn idle_power_makes_the_slow_schedules_leave_the_front() {
    let labels =
        |problem: Problem| problem.front().iter().map(|point| point.schedule.label()).collect::<Vec<_>>();
    // Eight times the power for a quarter of the time: the slow processor needs half the energy.
    assert_eq!(
        labels(two(0.0, [8.0, 1.0])),
        ["p0 | p1", "p0[0..3] > p1[3..4]", "p0[0..2] > p1[2..4]", "p0[0..1] > p1[1..4]", "p1"]
    );
    assert_eq!(labels(two(100.0, [8.0, 1.0])), ["p0 | p1"]);
}

#[test]
fn power_is_energy_over_time() {
    let problem = two(2.0, [8.0, 1.0]);
    let of = |kind: ScheduleKind| {
        problem.front().into_iter().find(|point| point.schedule.kind() == kind).map(|point| point.power().0)
    };
    assert!((of(ScheduleKind::Replicate).unwrap() - 11.0).abs() < 1e-9, "both work all the time");
}

#[test]
fn what_cannot_be_planned() {
    let problem = two(1.0, [1.0, 1.0]);
    let (alone, network) = (problem.costs(&problem.alone), problem.network());
    let costs = FrontCosts { alone: &alone, contended: &alone };
    let three = PowerModel::known(Milliwatts(0.0), &[Milliwatts(1.0); 3]).unwrap();
    assert_eq!(front(&network, costs, &three), Err(PlanError::OtherProcessors));
    let stage = Stage { processor: "p0".into(), first: 0, end: 4 };
    assert_eq!(Schedule::pipeline(&network, vec![stage]).unwrap().kind(), ScheduleKind::Single);
}
