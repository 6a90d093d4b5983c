//! The front of throughput and energy: every schedule that no other one beats in both.
//!
//! # Model
//! A frame of a pipeline with the frame time `T` (the longest period of a stage) takes `E = P_idle · T + Σ D_p · t_p`, where `D_p`
//! is the power that a processor adds while it works and `t_p` its time for a frame ([`crate::power_model`]). Of a stage with
//! replicas, every processor works for the period of the stage. The front contains single schedules, pipelines on any processors
//! in any order with stages on any groups of them, and copies of the network on any set of processors. A merged processor is one
//! like any other, but never used beside its parts. A single schedule is predicted by the costs of a processor alone, the others
//! by the costs under contention.
//!
//! # Method
//! The ε-constraint method (Haimes, Lasdon & Wismer 1971, "On a bicriterion formulation of the problems of integrated system
//! identification and system optimization"). For a limit of the frame time, dynamic programming over the labels (processors
//! used, cut) finds the pipeline whose stages take the least energy. Let `rest(S, Q, a)` be the least energy of units `a..N`
//! on exactly the processors `S`, received from the group `Q`, no period longer than `limit`. Sets that exclude the same
//! processors, as a merged processor and its parts do, have one entry: the least of theirs.
//!
//! ```text
//! rest({}, Q, N) = 0
//! rest(S, Q, a)  = min over G within S, b > a of  D_G · period(Q, G, a, b) + rest(S − G, G, b),  period(Q, G, a, b) ≤ limit
//! ```
//!
//! For one processor the first term is `D_p · before(b)` plus a number that does not depend on `b`. So of two ends `b < b'`, the
//! farther one can only be better if its sum is less; the ends worth looking at form a stack, as in [`crate::planner`], and
//! the best end is the farthest one within the limit. It is mostly the best end of the adjacent cut, or next to it.
//!
//! For several processors the period is no sum over units. But without the limit for the slowest replica, it is at least the
//! sum of the periods of the units, because the inverse of a sum of inverses is concave (Hardy, Littlewood & Pólya 1934,
//! "Inequalities", on means of sums). So the stack gives a lower bound of the energy, and only ends whose bound is below the
//! best known energy are evaluated.
//!
//! The pipeline found under a limit dominates all that are slower than itself and within the limit. So the search goes on
//! below its frame time, until nothing is left. Parts of the range are left out if even the least energy known for them plus
//! the idle power of their shortest frame is more than a faster schedule needs.
//!
//! Each range is within one that was searched before, with a longer limit and no less energy. So a state `(S, Q, a)` is
//! left out in a range if it was too expensive in the enclosing one. It is too expensive if `rest`, plus the least energy
//! of the units before `a` (from a second dynamic programme, which starts at the first unit), is more than a faster
//! schedule needs. The cuts that are left for `S` and `Q` lie in a window, which becomes narrower from range to range.
//!
//! # Cost
//! Without groups, a limit takes O(2^P · P · Q · W) for windows of W ≤ N cuts, if the best ends of adjacent cuts are neighbours.
//! There are at most two limits for each pipeline that no other one beats in time and energy above idle power.
//! With groups there are more such pipelines, each with more states and ends to look at, so more than 31 groups are not
//! considered: those of 5 processors, or of 4 and the 3 merged ones of neighbours. Of 6 processors, only the fastest pipeline may
//! have replicas. A test compares this with the exact front, on 20 random boards: at the rates of its 117 schedules, the median
//! schedule needs no more energy, and the worst one 17 % more.
//!
//! `benches/front.rs` measures the whole front, on a 2-core virtual machine: 300 units took 6 to 7 ms on 4 processors, 7 to 8 ms
//! with 3 merged ones, 66 to 70 ms on 6, and 66 to 73 ms with 5 merged ones. On 6, no stage has replicas; with them, it took
//! 0.8 to 1 s, and 0.3 to 0.4 s with the merged ones.
//!
//! # Ties
//! Among schedules with equal time and energy the first one found is kept: single, then replicate, then pipelines.

mod table;

use crate::costs::Costs;
use crate::network::Network;
use crate::planner::{MOST_PROCESSORS, Options, PlanError, plan};
use crate::power_model::PowerModel;
use crate::prediction::{Prediction, check_units, periods_ns, predict};
use crate::processor_set::{Exclusions, members};
use crate::schedule::{Schedule, ScheduleKind};
use crate::units::{FramesPerSecond, Millijoules, Milliwatts};
use table::{Table, Windows};

/// Most groups: those of 5 processors, or of 4 and their 3 merged ones. With more, no stage has replicas.
const MOST_GROUPS: usize = 31;

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
        let periods = periods_ns(&schedule, &prediction.stage_ns);
        let of_stages: f64 = processors.iter().zip(&periods).map(|(at, ns)| power.dynamic_mw(*at) * ns).sum();
        let energy = Millijoules((power.idle_mw() * longest_ns(&periods) + of_stages) * 1e-9);
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

fn longest_ns(periods: &[f64]) -> f64 {
    periods.iter().copied().fold(0.0, f64::max)
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
    front_of(network, costs, power, MOST_GROUPS)
}

fn front_of(
    network: &Network,
    costs: FrontCosts<'_>,
    power: &PowerModel,
    most_groups: usize,
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
    let mut search = Search::new(network, costs, power, most_groups);
    search.add_singles()?;
    search.add_replicates()?;
    search.add_pipelines()?;
    Ok(search.complete.into_iter().map(|complete| complete.point).collect())
}

/// Frame times that may have further pipelines of the front.
struct Range {
    /// The frame time is above this one.
    least_ns: f64,
    /// The frame time is at most this one.
    most_ns: f64,
    /// The least energy of stages that is known for it.
    least_energy: f64,
    windows: Windows,
}

/// A complete schedule on the front.
#[derive(Debug)]
struct Complete {
    frame_ns: f64,
    /// Idle power included, in mW · ns.
    energy: f64,
    point: FrontPoint,
}

struct Search<'a> {
    network: &'a Network,
    costs: FrontCosts<'a>,
    power: &'a PowerModel,
    table: Table<'a>,
    /// By frame time; energy falls.
    complete: Vec<Complete>,
}

impl<'a> Search<'a> {
    fn new(network: &'a Network, costs: FrontCosts<'a>, power: &'a PowerModel, most_groups: usize) -> Self {
        let table = Table::new(network, costs.contended, power, most_groups);
        Self { network, costs, power, table, complete: Vec::new() }
    }

    /// Adds a complete schedule, unless a known one is as good in both. Returns its frame time.
    fn add(&mut self, costs: &Costs, schedule: Schedule) -> Result<f64, PlanError> {
        let prediction = predict(self.network, costs, &schedule)?;
        let places: Vec<usize> = schedule.processors().filter_map(|name| costs.index_of(name)).collect();
        let frame_ns = longest_ns(&periods_ns(&schedule, &prediction.stage_ns));
        let point = FrontPoint::new(schedule, prediction, self.power, &places);
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
        for set in Exclusions::of(self.costs.contended.processors()).sets() {
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
        let most_energy = self.most_energy(fastest_ns);
        self.table.fill(self.table.all_windows(), fastest_ns, most_energy);
        if let Some((stages, _)) = self.table.stages(fastest_ns) {
            self.add(self.costs.contended, Schedule::pipeline(self.network, stages)?)?;
        }
        self.add_between(fastest_ns, f64::INFINITY)
    }

    /// The most energy that the stages of a pipeline with at least this frame time may take if it is to be better than all known
    /// schedules.
    fn most_energy(&self, least_ns: f64) -> f64 {
        self.best_energy(least_ns) - self.power.idle_mw() * least_ns
    }

    /// Adds the pipelines of the front whose frame time is above `least_ns` and at most `most_ns`.
    fn add_between(&mut self, least_ns: f64, most_ns: f64) -> Result<(), PlanError> {
        let idle_mw = self.power.idle_mw();
        let mut ranges =
            vec![Range { least_ns, most_ns, least_energy: 0.0, windows: self.table.all_windows() }];
        while let Some(Range { least_ns, most_ns, least_energy, windows }) = ranges.pop() {
            // Longer frames need more than a faster schedule, for idle power alone.
            let best_energy = self.best_energy(least_ns);
            let longest_ns =
                if idle_mw > 0.0 { (best_energy - least_energy) / idle_mw } else { f64::INFINITY };
            let most_ns = most_ns.min(longest_ns);
            if most_ns.is_nan() || most_ns <= least_ns {
                continue;
            }
            let most_energy = self.most_energy(least_ns);
            self.table.fill(windows, most_ns, most_energy);
            let Some((stages, energy)) = self.table.stages(most_ns) else { continue };
            let found_ns = self.add(self.costs.contended, Schedule::pipeline(self.network, stages)?)?;
            if found_ns <= least_ns {
                continue;
            }
            let below_ns = found_ns.next_down();
            let middle_ns = 0.5 * (least_ns + below_ns);
            self.table.fill_sent(most_ns);
            let mut push = |least_ns, most_ns| {
                let windows = self.table.narrowed(self.most_energy(least_ns));
                ranges.push(Range { least_ns, most_ns, least_energy: energy, windows });
            };
            if idle_mw > 0.0 && middle_ns > least_ns && middle_ns < below_ns {
                // The lower half first, because what is found there shortens the upper one.
                push(middle_ns, below_ns);
                push(least_ns, middle_ns);
            } else {
                push(least_ns, below_ns);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::costs::Transfer;
    use crate::network::{Boundary, Tensor, Unit};
    use crate::random::SplitMix64;
    use crate::units::Bytes;

    #[test]
    fn the_front_of_six_processors_is_near_that_with_replicas() {
        let (units, processors) = (12, 6);
        let mut ratios = Vec::new();
        for seed in 0..20 {
            let mut random = SplitMix64::new(seed);
            let unit = |index| Unit { name: format!("u{index}"), operators: vec![], macs: 0, parameters: 0 };
            let boundary = |cut| Boundary {
                tensors: vec![Tensor {
                    value: format!("t{cut}"),
                    shape: vec![1],
                    dtype: "int8".to_owned(),
                    bytes: Bytes(1),
                }],
            };
            let network =
                Network::new("n", (0..units).map(unit).collect(), (0..=units).map(boundary).collect())
                    .unwrap();
            let names = (0..processors).map(|at| format!("p{at}").into()).collect();
            let speed = |at: usize| (at + 1) as f64;
            let rows = (0..processors)
                .map(|at| (0..units).map(|_| (0.1 + random.unit()) * 1e6 / speed(at)).collect())
                .collect();
            let costs = Costs::new(names, rows, Transfer::uniform(5000.0, 0.0)).unwrap();
            let dynamic: Vec<Milliwatts> =
                (0..processors).map(|at| Milliwatts(500.0 * speed(at).powf(1.6))).collect();
            let power = PowerModel::known(Milliwatts(2000.0), &dynamic).unwrap();
            let both = FrontCosts { alone: &costs, contended: &costs };
            let found = front(&network, both, &power).unwrap();
            for point in front_of(&network, both, &power, 63).unwrap() {
                let as_fast =
                    found.iter().filter(|other| other.throughput().0 >= 0.999_999 * point.throughput().0);
                let least = as_fast.map(|other| other.energy.0).fold(f64::INFINITY, f64::min);
                ratios.push(least / point.energy.0);
            }
        }
        ratios.sort_by(f64::total_cmp);
        let (median, most) = (ratios[ratios.len() / 2], ratios[ratios.len() - 1]);
        println!("energy without replicas: median {median:.4}, most {most:.4} of {}", ratios.len());
        assert!(median < 1.001 && most < 1.2, "{median} {most}");
    }
}
