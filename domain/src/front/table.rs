//! The dynamic programmes of the front, for limits of the stages' time and energy.

use crate::costs::Costs;
use crate::network::Network;
use crate::planner::{group_period_ns, receive_ns};
use crate::power_model::PowerModel;
use crate::prediction::{period_ns, shared_ns};
use crate::processor_set::{Exclusions, Group, Set, members};
use crate::schedule::Stage;
use std::collections::{BTreeMap, VecDeque};

/// First and last cut, by `s · G + q` for G groups; the last one is before the first if there is none.
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

/// The sets of processors that exclude the same ones, such as `a` and `b`, and `a+b`. For what comes before them, they are
/// alike.
struct State {
    /// The processors that cannot be used beside them, among these their own.
    excluded: Set,
    /// All that are in one of the sets.
    members: Set,
    /// Processors in the largest of the sets.
    most: u32,
    /// The most processors that can be used beside them.
    most_beside: u32,
    /// The groups that may hand over to them, each with the place of the state of both together.
    senders: Vec<(usize, usize)>,
    /// The groups that may have their first stage, each with the place of the state of the others.
    firsts: Vec<(usize, usize)>,
    /// What the units before each cut take at least, each on the best of the members, in ns.
    least_ns: Vec<f64>,
    /// The same on the best of the processors that may come before.
    least_ns_beside: Vec<f64>,
    /// The same of their energy, in mW · ns.
    least_energy_beside: Vec<f64>,
}

/// The states that can be reached by adding groups to no processors at all. A state that is a part of another one comes before
/// it.
fn states(exclusions: &Exclusions, groups: &[Group], costs: &Costs, power: &PowerModel) -> Vec<State> {
    let excluded: Vec<Set> =
        groups.iter().map(|group| exclusions.all() & !exclusions.beside(group.set)).collect();
    let mut found: BTreeMap<Set, usize> = BTreeMap::from([(0, 0)]);
    let mut next = Some(0);
    while let Some(state) = next {
        for (group, excluded) in groups.iter().zip(&excluded).filter(|(group, _)| group.set & state == 0) {
            debug_assert!(state | excluded > state, "{group:?}");
            found.insert(state | excluded, 0);
        }
        next = found.range(state + 1..).next().map(|(later, _)| *later);
    }
    for (place, known) in found.values_mut().enumerate() {
        *known = place;
    }
    let state = |excluded: &Set| {
        let beside = exclusions.all() & !excluded;
        State {
            excluded: *excluded,
            members: 0,
            most: 0,
            most_beside: exclusions.largest(beside),
            senders: Vec::new(),
            firsts: Vec::new(),
            least_ns: Vec::new(),
            least_ns_beside: least_sums(costs, beside, |_| 1.0),
            least_energy_beside: least_sums(costs, beside, |at| power.dynamic_mw(at)),
        }
    };
    let mut states: Vec<State> = found.keys().map(state).collect();
    for place in 0..states.len() {
        let State { excluded: own, members, most, .. } = states[place];
        for (at, group) in groups.iter().enumerate().filter(|(_, group)| group.set & own == 0) {
            let both = found[&(own | excluded[at])];
            states[place].senders.push((at, both));
            let State { members: of_both, most: most_of_both, firsts, .. } = &mut states[both];
            firsts.push((at, place));
            *of_both |= members | group.set;
            *most_of_both = (*most_of_both).max(most + group.set.count_ones());
        }
    }
    for state in &mut states {
        // Among equal schedules, that with the first group is found.
        state.firsts.sort_unstable();
        state.least_ns = least_sums(costs, state.members, |_| 1.0);
    }
    states
}

pub(super) struct Table<'a> {
    network: &'a Network,
    /// Under contention.
    costs: &'a Costs,
    /// Those that may have a stage, and what it takes.
    groups: Vec<Group>,
    bounds: Vec<Bounds>,
    /// The first one has no processors.
    states: Vec<State>,
    /// Time in which each processor receives each boundary: `receive[q · P + p][cut]`.
    receive: Vec<Vec<f64>>,
    /// `rest[(s · G + q) · (N + 1) + a]` for the present limits and G groups, if `a` is in the window of the state `s` and `q`;
    /// infinite if there is no such pipeline.
    rest: Vec<f64>,
    /// A lower bound of the energy of what comes before, in the same places.
    sent: Vec<f64>,
    /// The cuts at which a pipeline within the present limits may go over from `q` to the processors of the state `s`.
    windows: Windows,
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
        let states = states(&exclusions, &groups, costs, power);
        let rest = vec![f64::INFINITY; states.len() * groups.len() * (network.len() + 1)];
        let sent = rest.clone();
        let windows = Windows::new();
        Self { network, costs, groups, bounds, states, receive, rest, sent, windows }
    }

    /// The limit for the bound of a group's period, which is added up in another order.
    fn bound_ns(&self, group: usize, limit_ns: f64) -> f64 {
        if self.groups[group].is_one() { limit_ns } else { limit_ns * (1.0 + ROUNDING) }
    }

    /// Row of the table for the place of a state and a sender.
    fn row(&self, state: usize, sender: usize) -> usize {
        (state * self.groups.len() + sender) * (self.network.len() + 1)
    }

    /// Fills the table for limits of the stages' time and energy.
    pub(super) fn fill(&mut self, windows: Windows, limit_ns: f64, most_energy: f64) {
        let units = self.network.len();
        self.windows = windows;
        self.narrow_by_time(limit_ns);
        for sender in 0..self.groups.len() {
            let row = self.row(0, sender);
            self.rest[row + units] = 0.0;
        }
        let mut stack = Vec::with_capacity(units);
        // The first stage is not in the table, so its states have one processor less.
        for place in 1..self.states.len() {
            for at in 0..self.states[place].senders.len() {
                let sender = self.states[place].senders[at].0;
                let (row, (from, to)) = (self.row(place, sender), self.window(place, sender));
                self.rest[(row + from).min(row + to + 1)..=row + to].fill(f64::INFINITY);
            }
            for at in 0..self.states[place].firsts.len() {
                let first = self.states[place].firsts[at];
                self.fill_from(place, first, (limit_ns, most_energy), &mut stack);
            }
        }
    }

    /// Considers a group for the first stage of a state, for every sender and first cut. `rest` is the place of the state of the
    /// other stages.
    fn fill_from(
        &mut self,
        place: usize,
        (group, rest): (usize, usize),
        limits: (f64, f64),
        stack: &mut Vec<End>,
    ) {
        let (limit_ns, most_energy) = limits;
        let (units, groups) = (self.network.len(), self.groups.len());
        let processors = self.costs.processors().len();
        let members = &self.groups[group].members;
        let after = self.row(rest, group);
        let (nearest, farthest) = self.window(rest, group);
        let Bounds { before_ns: before, receive_ns, dynamic_mw } = &self.bounds[group];
        let bound_ns = self.bound_ns(group, limit_ns);
        stack.clear();
        let State { senders, least_energy_beside, .. } = &self.states[place];
        let mut senders: Vec<Sender<'_>> = senders
            .iter()
            .map(|(sender, _)| Sender {
                group: *sender,
                receive: &receive_ns[*sender],
                row: sender * (units + 1),
                window: self.windows[place * groups + sender],
                far: 0,
            })
            .filter(|sender| sender.window.0 <= sender.window.1)
            .collect();
        let Some(least) = senders.iter().map(|sender| sender.window.0).min() else { return };
        // The rows of smaller states are before those of this one.
        let (smaller, own) = self.rest.split_at_mut(place * groups * (units + 1));
        let after = &smaller[after..=after + units];
        for first in (least..farthest).rev() {
            if first + 1 >= nearest {
                push(stack, before[first + 1], *dynamic_mw, after[first + 1]);
            }
            let Some(bottom) = stack.first() else { continue };
            let least_rest = bottom.energy;
            let left = (most_energy - least_energy_beside[first]) * (1.0 + ROUNDING);
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

    fn window(&self, state: usize, sender: usize) -> (usize, usize) {
        self.windows[state * self.groups.len() + sender]
    }

    /// The windows of all pipelines.
    pub(super) fn all_windows(&self) -> Windows {
        let (units, groups) = (self.network.len(), self.groups.len());
        let mut windows = vec![NOWHERE; groups * self.states.len()];
        windows[..groups].fill((units, units));
        for (place, state) in self.states.iter().enumerate().skip(1) {
            for (sender, _) in &state.senders {
                windows[place * groups + sender] = (1, units - 1);
            }
        }
        windows
    }

    /// Leaves out the cuts at which a pipeline within the limit cannot go over to the processors of a state: what is before
    /// must fit on the others, and what is after it on these, even if it could be shared out evenly.
    fn narrow_by_time(&mut self, limit_ns: f64) {
        // Sums in another order may differ by rounding.
        let room = |count: u32| f64::from(count) * limit_ns * (1.0 + ROUNDING);
        for (place, state) in self.states.iter().enumerate().skip(1) {
            let (own, beside) = (&state.least_ns, &state.least_ns_beside);
            let all = own[self.network.len()];
            let least = own.partition_point(|sum| all - sum > room(state.most));
            let most = beside.partition_point(|sum| *sum <= room(state.most_beside)).saturating_sub(1);
            for (sender, _) in &state.senders {
                let window = &mut self.windows[place * self.groups.len() + sender];
                *window = (window.0.max(least), window.1.min(most));
                if window.0 > window.1 {
                    *window = NOWHERE;
                }
            }
        }
    }

    /// Fills in a lower bound of the energy of units `0..a` on any processors beside those of `s`, the last of them `q`, in the places of
    /// [`Table::rest`]. The limit of a stage leaves out what it receives, so that the cuts that reach an end are adjacent:
    /// the best of them is at the front of a queue from which worse and farther ones leave (Lemire 2006, "Streaming
    /// maximum-minimum filter").
    pub(super) fn fill_sent(&mut self, limit_ns: f64) {
        let mut sent = std::mem::take(&mut self.sent);
        let mut queue: VecDeque<(f64, f64)> = VecDeque::new();
        // The most processors are left at the beginning.
        for (place, state) in self.states.iter().enumerate().skip(1).rev() {
            for &(sender, both) in &state.senders {
                let (from, to) = self.window(place, sender);
                let row = self.row(place, sender);
                let Bounds { before_ns: before, receive_ns, dynamic_mw } = &self.bounds[sender];
                let limit_ns = self.bound_ns(sender, limit_ns);
                for cut in from..=to {
                    let is_first = before[cut] <= limit_ns;
                    sent[row + cut] = if is_first { dynamic_mw * before[cut] } else { f64::INFINITY };
                }
                for &(previous, _) in &self.states[both].senders {
                    let (first, last) = self.window(both, previous);
                    if from > to || first > last {
                        continue;
                    }
                    let (source, receive) = (self.row(both, previous), &receive_ns[previous]);
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
        for (place, state) in self.states.iter().enumerate().skip(1) {
            for (sender, _) in &state.senders {
                let row = self.row(place, *sender);
                let (from, to) = self.window(place, *sender);
                let mut fits =
                    (from..=to).filter(|cut| self.sent[row + cut] + self.rest[row + cut] <= most_energy);
                let first = fits.next();
                windows[place * self.groups.len() + sender] =
                    first.map_or(NOWHERE, |first| (first, fits.next_back().unwrap_or(first)));
            }
        }
        windows
    }

    /// The best next stage from `first` on, with the energy of it and of all that follows, the place of the state of all that
    /// follows, the group and the end of the stage, if exactly the processors of a state are to be used.
    fn next(
        &self,
        from: Option<usize>,
        state: usize,
        first: usize,
        limit_ns: f64,
    ) -> Option<(f64, usize, usize, usize)> {
        let mut best: Option<(f64, usize, usize, usize)> = None;
        let senders = from.map_or(&[][..], |from| self.groups[from].members.as_slice());
        for &(at, after) in &self.states[state].firsts {
            let (group, Bounds { before_ns, receive_ns, dynamic_mw }) = (&self.groups[at], &self.bounds[at]);
            let receive = from.map_or(0.0, |from| receive_ns[from][first]);
            let (row, (nearest, farthest)) = (self.row(after, at), self.window(after, at));
            // The whole network on one group is no pipeline.
            let farthest = farthest.min(self.network.len() - usize::from(first == 0));
            for end in nearest.max(first + 1)..=farthest {
                let known = best.map_or(f64::INFINITY, |best| best.0);
                let bound = receive + (before_ns[end] - before_ns[first]);
                if bound > self.bound_ns(at, limit_ns) {
                    break;
                }
                let rest = self.rest[row + end];
                if dynamic_mw * bound * (1.0 - ROUNDING) + rest >= known {
                    continue;
                }
                let time = group_period_ns(self.network, self.costs, senders, group, (first, end));
                if time > limit_ns {
                    break;
                }
                let energy = dynamic_mw * time + rest;
                if energy < known {
                    best = Some((energy, after, at, end));
                }
            }
        }
        best
    }

    /// The pipeline of least energy within the limit for which the table is filled, and the energy of its stages.
    pub(super) fn stages(&self, limit_ns: f64) -> Option<(Vec<Stage>, f64)> {
        let begin = |state: usize| Some((self.next(None, state, 0, limit_ns)?.0, state));
        let (energy, mut state) =
            (1..self.states.len()).filter_map(begin).min_by(|a, b| a.0.total_cmp(&b.0))?;
        let mut stages = Vec::new();
        let (mut from, mut first) = (None, 0);
        while state != 0 {
            let (_, after, at, end) = self.next(from, state, first, limit_ns)?;
            let names = self.groups[at].members.iter().map(|member| self.costs.processors()[*member].clone());
            stages.extend(names.map(|processor| Stage { processor, first, end }));
            (from, state, first) = (Some(at), after, end);
        }
        Some((stages, energy))
    }
}

/// 0, and the sums of the least costs of the first unit, the first two and so on, each on the best of these processors; a
/// processor's times count `weight` times.
fn least_sums(costs: &Costs, processors: Set, weight: impl Fn(usize) -> f64) -> Vec<f64> {
    let of_unit = |unit: usize| {
        let on = |at: usize| weight(at) * costs.unit_ns(at)[unit];
        members(processors).map(on).fold(f64::INFINITY, f64::min)
    };
    sums((0..costs.units()).map(of_unit))
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
