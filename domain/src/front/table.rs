//! The dynamic programmes of the front, for limits of the stages' time and energy.

use crate::costs::Costs;
use crate::network::Network;
use crate::planner::{group_period_ns, receive_ns};
use crate::power_model::PowerModel;
use crate::prediction::{period_ns, shared_ns};
use crate::processor_set::{Exclusions, Group, Set, members};
use crate::schedule::Stage;
use std::collections::VecDeque;

/// First and last cut, by `S · G + q` for G groups; the last one is before the first if there is none.
pub(super) type Windows = Vec<(usize, usize)>;

/// A window without cuts.
const NOWHERE: (usize, usize) = (1, 0);

/// Sums in another order may differ by this share.
const ROUNDING: f64 = 1e-9;

/// An end of a stage.
#[derive(Clone, Copy)]
struct End {
    /// Units before this end on the processors of the stage, in ns.
    before_ns: f64,
    /// Their energy and the least energy of what comes after this end.
    energy: f64,
}

/// A group that hands over to the one under consideration.
struct Sender<'a> {
    /// Its place among the groups.
    group: usize,
    /// Least time to receive each boundary from it.
    receive: &'a [f64],
    /// Its row among those of the set.
    row: usize,
    /// First and last cut to consider.
    window: (usize, usize),
    /// Place on the stack of the farthest end within the limit, for the cut before.
    far: usize,
}

/// What the stages of a group take. The times of units are added up; for several processors that is a lower bound.
struct Bounds {
    /// Units before each cut, in ns.
    before_ns: Vec<f64>,
    /// By sender: time to receive each boundary, in ns. Empty for senders that have processors of the group.
    receive_ns: Vec<Vec<f64>>,
    /// Power of all its processors while they work.
    dynamic_mw: f64,
}

pub(super) struct Table<'a> {
    network: &'a Network,
    /// Under contention.
    costs: &'a Costs,
    exclusions: Exclusions,
    /// Those that may have a stage, and what it takes.
    groups: Vec<Group>,
    bounds: Vec<Bounds>,
    /// The sets of processors that can be used together, smaller numbers first.
    sets: Vec<Set>,
    /// Time in which each processor receives each boundary: `receive[q · P + p][cut]`.
    receive: Vec<Vec<f64>>,
    /// `rest[(S · G + q) · (N + 1) + a]` for the present limits and G groups, if `a` is in the window of `S` and `q`; infinite if
    /// there is no such pipeline.
    rest: Vec<f64>,
    /// A lower bound of the energy of what comes before, in the same places.
    sent: Vec<f64>,
    /// The cuts at which a pipeline within the present limits may go over from `q` to the processors of `S`.
    windows: Windows,
    /// What the units before each cut take at least, each on the best processor of `S`, in ns: `[S][cut]`.
    least_ns: Vec<Vec<f64>>,
    /// The same for their energy, in mW · ns.
    least_energy: Vec<Vec<f64>>,
}

impl<'a> Table<'a> {
    pub(super) fn new(
        network: &'a Network,
        costs: &'a Costs,
        power: &PowerModel,
        most_groups: usize,
    ) -> Self {
        let processors = costs.processors().len();
        let exclusions = Exclusions::of(costs.processors());
        let groups = exclusions.groups(most_groups);
        let receive = receive_ns(network, costs, &groups);
        let bounds = groups.iter().map(|group| {
            let shared =
                |time: &dyn Fn(usize) -> f64| shared_ns(group.members.iter().map(|member| time(*member)));
            let units = (0..network.len()).map(|unit| shared(&|member| costs.unit_ns(member)[unit]));
            let before_ns = match group.members.as_slice() {
                [only] => costs.before_ns(*only).to_vec(),
                _ => sums(units),
            };
            let from = |(at, sender): (usize, &Group)| {
                let cuts = if sender.set & group.set == 0 { network.len() } else { 0 };
                let of_cut = |cut: usize| shared(&|member| receive[at * processors + member][cut]);
                (0..cuts).map(of_cut).collect()
            };
            Bounds {
                before_ns,
                receive_ns: groups.iter().enumerate().map(from).collect(),
                dynamic_mw: group.members.iter().map(|member| power.dynamic_mw(*member)).sum(),
            }
        });
        let bounds = bounds.collect();
        let rest = vec![f64::INFINITY; (groups.len() << processors) * (network.len() + 1)];
        let least = |mw: &dyn Fn(usize) -> f64| -> Vec<Vec<f64>> {
            let of_set = |set: Set| {
                let of_unit = |unit: usize| {
                    let on = |at: usize| mw(at) * costs.unit_ns(at)[unit];
                    members(set).map(on).fold(f64::INFINITY, f64::min)
                };
                sums((0..network.len()).map(of_unit))
            };
            (0..1usize << processors).map(of_set).collect()
        };
        let (least_ns, least_energy) = (least(&|_| 1.0), least(&|at| power.dynamic_mw(at)));
        let sent = rest.clone();
        let sets = exclusions.sets().collect();
        let windows = Windows::new();
        Self {
            network,
            costs,
            exclusions,
            groups,
            bounds,
            sets,
            receive,
            rest,
            sent,
            windows,
            least_ns,
            least_energy,
        }
    }

    /// The groups whose processors are all in `set`.
    fn within(&self, set: Set) -> impl Iterator<Item = usize> + '_ {
        (0..self.groups.len()).filter(move |group| self.groups[*group].set & !set == 0)
    }

    /// The limit for the bound of a group's period, which is added up in another order.
    fn bound_ns(&self, group: usize, limit_ns: f64) -> f64 {
        if self.groups[group].is_one() { limit_ns } else { limit_ns * (1.0 + ROUNDING) }
    }

    /// Row of the table for a set and a sender.
    fn row(&self, set: Set, sender: usize) -> usize {
        (set * self.groups.len() + sender) * (self.network.len() + 1)
    }

    /// Fills the table for limits of the stages' time and energy, smaller sets first: a subset of a set is a smaller number.
    pub(super) fn fill(&mut self, windows: Windows, limit_ns: f64, most_energy: f64) {
        let units = self.network.len();
        self.windows = windows;
        for sender in 0..self.groups.len() {
            let row = self.row(0, sender);
            self.rest[row + units] = 0.0;
        }
        let mut stack = Vec::with_capacity(units);
        // The first stage is not in the table, so the sets in it have one processor less.
        for set in self.sets.clone() {
            let senders: Vec<usize> = self.within(self.exclusions.beside(set)).collect();
            for sender in &senders {
                let (row, (from, to)) = (self.row(set, *sender), self.window(set, *sender));
                self.rest[(row + from).min(row + to + 1)..=row + to].fill(f64::INFINITY);
            }
            let groups: Vec<usize> = self.within(set).collect();
            for group in groups {
                self.fill_from(set, group, &senders, (limit_ns, most_energy), &mut stack);
            }
        }
    }

    /// Considers a group for the first stage of `set`, for every sender and first cut.
    fn fill_from(
        &mut self,
        set: Set,
        group: usize,
        senders: &[usize],
        limits: (f64, f64),
        stack: &mut Vec<End>,
    ) {
        let (limit_ns, most_energy) = limits;
        let (units, groups) = (self.network.len(), self.groups.len());
        let processors = self.costs.processors().len();
        let Group { set: own, members } = &self.groups[group];
        let after = self.row(set & !own, group);
        let (nearest, farthest) = self.window(set & !own, group);
        let Bounds { before_ns: before, receive_ns, dynamic_mw } = &self.bounds[group];
        let bound_ns = self.bound_ns(group, limit_ns);
        stack.clear();
        let others = self.exclusions.beside(set);
        let mut senders: Vec<Sender<'_>> = senders
            .iter()
            .map(|sender| Sender {
                group: *sender,
                receive: &receive_ns[*sender],
                row: sender * (units + 1),
                window: self.windows[set * groups + sender],
                far: 0,
            })
            .filter(|sender| sender.window.0 <= sender.window.1)
            .collect();
        let Some(least) = senders.iter().map(|sender| sender.window.0).min() else { return };
        // Tables of smaller sets are before those of this one.
        let (smaller, own) = self.rest.split_at_mut(set * groups * (units + 1));
        let after = &smaller[after..=after + units];
        for first in (least..farthest).rev() {
            if first + 1 >= nearest {
                push(stack, before[first + 1], *dynamic_mw, after[first + 1]);
            }
            let Some(bottom) = stack.first() else { continue };
            let least_rest = bottom.energy;
            let left = (most_energy - self.least_energy[others][first]) * (1.0 + ROUNDING);
            for sender in
                senders.iter_mut().filter(|sender| (sender.window.0..=sender.window.1).contains(&first))
            {
                let receive_ns = sender.receive[first];
                let of_first = dynamic_mw * (receive_ns - before[first]);
                let slot = &mut own[sender.row + first];
                // The farthest end needs the least energy.
                if of_first + least_rest >= slot.min(left.next_up()) {
                    continue;
                }
                let time = |end: &End| receive_ns + (end.before_ns - before[first]);
                // Mostly the same end as for the cut before, or a neighbour.
                let mut far = sender.far.min(stack.len());
                while far > 0 && time(&stack[far - 1]) <= bound_ns {
                    far -= 1;
                }
                while far < stack.len() && time(&stack[far]) > bound_ns {
                    far += 1;
                }
                sender.far = far;
                let Some(end) = stack.get(far) else { continue };
                let energy = of_first + end.energy;
                if energy > left || energy >= *slot {
                    continue;
                }
                if members.len() == 1 {
                    *slot = energy;
                    continue;
                }
                // A lower bound: every end may be the best.
                let receive = &self.receive[sender.group * processors..];
                let time = |member: &usize, end: usize| {
                    let before = self.costs.before_ns(*member);
                    receive[*member][first] + (before[end] - before[first])
                };
                for end in nearest.max(first + 1)..=farthest {
                    let bound = of_first + dynamic_mw * before[end] + after[end];
                    if bound >= slot.min(left.next_up()) {
                        continue;
                    }
                    let period = period_ns(members.iter().map(|member| time(member, end)));
                    if period > limit_ns {
                        break;
                    }
                    let energy = dynamic_mw * period + after[end];
                    if energy <= left && energy < *slot {
                        *slot = energy;
                    }
                }
            }
        }
    }

    fn window(&self, set: Set, sender: usize) -> (usize, usize) {
        self.windows[set * self.groups.len() + sender]
    }

    /// The least energy of units `cut..N` on exactly the processors of `set`, received from `sender`.
    fn rest(&self, set: Set, sender: usize, cut: usize) -> f64 {
        let (from, to) = self.window(set, sender);
        if (from..=to).contains(&cut) { self.rest[self.row(set, sender) + cut] } else { f64::INFINITY }
    }

    /// The windows of all pipelines whose stages are within the limit.
    pub(super) fn all_windows(&self, limit_ns: f64) -> Windows {
        let (units, groups) = (self.network.len(), self.groups.len());
        let mut windows = vec![NOWHERE; groups << self.costs.processors().len()];
        windows[..groups].fill((units, units));
        for set in &self.sets {
            let (least, most) = self.first_cuts(*set, limit_ns);
            for sender in self.within(self.exclusions.beside(*set)) {
                windows[set * groups + sender] = (least.max(1), most.min(units - 1));
            }
        }
        windows
    }

    /// Fills in a lower bound of the energy of units `0..a` on any processors but those of `S`, the last of them `q`, in the places of
    /// [`Table::rest`]. The limit of a stage leaves out what it receives, so that the cuts that reach an end are adjacent:
    /// the best of them is at the front of a queue from which worse and farther ones leave (Lemire 2006, "Streaming
    /// maximum-minimum filter").
    pub(super) fn fill_sent(&mut self, limit_ns: f64) {
        let mut sent = std::mem::take(&mut self.sent);
        let mut queue: VecDeque<(f64, f64)> = VecDeque::new();
        // The most processors are left at the beginning.
        for set in self.sets.iter().copied().rev() {
            for sender in self.within(self.exclusions.beside(set)) {
                let (from, to) = self.window(set, sender);
                let row = self.row(set, sender);
                let Bounds { before_ns: before, receive_ns, dynamic_mw } = &self.bounds[sender];
                let limit_ns = self.bound_ns(sender, limit_ns);
                for cut in from..=to {
                    let is_first = before[cut] <= limit_ns;
                    sent[row + cut] = if is_first { dynamic_mw * before[cut] } else { f64::INFINITY };
                }
                let larger = set | self.groups[sender].set;
                for previous in self.within(self.exclusions.beside(larger)) {
                    let (first, last) = self.window(larger, previous);
                    let (source, receive) = (self.row(larger, previous), &receive_ns[previous]);
                    queue.clear();
                    let mut next = first;
                    for cut in from.max(first + 1)..=to {
                        while next < cut && next <= last {
                            let energy = sent[source + next] + dynamic_mw * (receive[next] - before[next]);
                            if energy.is_finite() {
                                while queue.back().is_some_and(|(_, other)| *other >= energy) {
                                    queue.pop_back();
                                }
                                queue.push_back((before[next], energy));
                            }
                            next += 1;
                        }
                        while queue.front().is_some_and(|(begin, _)| before[cut] - begin > limit_ns) {
                            queue.pop_front();
                        }
                        if let Some((_, energy)) = queue.front() {
                            let slot = &mut sent[row + cut];
                            *slot = slot.min(energy + dynamic_mw * before[cut]);
                        }
                    }
                }
            }
        }
        self.sent = sent;
    }

    /// The windows of the pipelines that need no more energy than `most_energy`, after [`Table::fill_sent`].
    pub(super) fn narrowed(&self, most_energy: f64) -> Windows {
        let most_energy = most_energy * (1.0 + ROUNDING);
        let mut windows = self.windows.clone();
        for set in &self.sets {
            for sender in self.within(self.exclusions.beside(*set)) {
                let row = self.row(*set, sender);
                let (from, to) = self.window(*set, sender);
                let mut fits =
                    (from..=to).filter(|cut| self.sent[row + cut] + self.rest[row + cut] <= most_energy);
                let first = fits.next();
                windows[set * self.groups.len() + sender] =
                    first.map_or(NOWHERE, |first| (first, fits.next_back().unwrap_or(first)));
            }
        }
        windows
    }

    /// The least and the greatest cut at which a pipeline within the limit can go over to the processors of `set`: what is
    /// before it must fit on the others, and what is after it on these, even if it could be shared out evenly.
    fn first_cuts(&self, set: Set, limit_ns: f64) -> (usize, usize) {
        let others = self.exclusions.beside(set);
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
        let senders = from.map_or(&[][..], |from| self.groups[from].members.as_slice());
        for at in self.within(set) {
            let (group, Bounds { before_ns, receive_ns, dynamic_mw }) = (&self.groups[at], &self.bounds[at]);
            let receive = from.map_or(0.0, |from| receive_ns[from][first]);
            // The whole network on several processors is no pipeline.
            let farthest = self.network.len() - usize::from(first == 0 && !group.is_one());
            for end in first + 1..=farthest {
                let known = best.map_or(f64::INFINITY, |best| best.0);
                let bound = receive + (before_ns[end] - before_ns[first]);
                if bound > self.bound_ns(at, limit_ns) {
                    break;
                }
                let rest = self.rest(set & !group.set, at, end);
                if dynamic_mw * bound * (1.0 - ROUNDING) + rest >= known {
                    continue;
                }
                let time = group_period_ns(self.network, self.costs, senders, group, (first, end));
                if time > limit_ns {
                    break;
                }
                let energy = dynamic_mw * time + rest;
                if energy < known {
                    best = Some((energy, at, end));
                }
            }
        }
        best
    }

    /// The set of processors, at least two, whose pipeline takes the least energy within the limit.
    fn best_set(&self, limit_ns: f64) -> Option<(f64, Set)> {
        let several = self.sets.iter().copied().filter(|set| set.count_ones() > 1);
        several
            .filter_map(|set| Some((self.next(None, set, 0, limit_ns)?.0, set)))
            .min_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// The pipeline of least energy within the limit for which the table is filled, and the energy of its stages.
    pub(super) fn stages(&self, limit_ns: f64) -> Option<(Vec<Stage>, f64)> {
        let (energy, mut free) = self.best_set(limit_ns)?;
        let mut stages = Vec::new();
        let (mut from, mut first) = (None, 0);
        while free != 0 {
            let (_, at, end) = self.next(from, free, first, limit_ns)?;
            let Group { set, members } = &self.groups[at];
            let names = members.iter().map(|member| self.costs.processors()[*member].clone());
            stages.extend(names.map(|processor| Stage { processor, first, end }));
            (from, free, first) = (Some(at), free & !set, end);
        }
        Some((stages, energy))
    }
}

/// 0, and the sums of the first values, the first two and so on.
fn sums(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let sums = values.scan(0.0, |sum, value| {
        *sum += value;
        Some(*sum)
    });
    std::iter::once(0.0).chain(sums).collect()
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
