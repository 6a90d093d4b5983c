//! Sets of processors that a schedule can use at the same time.

use crate::processor::ProcessorName;

/// A set of processors, one bit each.
pub(crate) type Set = usize;

/// The processors of a set.
pub(crate) fn members(set: Set) -> impl Iterator<Item = usize> {
    (0..Set::BITS as usize).take_while(move |bit| set >> bit != 0).filter(move |bit| set & (1 << bit) != 0)
}

/// Processors that have a stage together, each a replica of it.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) set: Set,
    /// In the order of the processors.
    pub(crate) members: Vec<usize>,
}

impl Group {
    /// Whether it is one processor.
    pub(crate) fn is_one(&self) -> bool {
        self.members.len() == 1
    }
}

/// Which processors exclude each other, because they have CPUs in common.
#[derive(Debug)]
pub(crate) struct Exclusions {
    /// By processor: all that cannot be used beside it, and itself.
    excluded: Vec<Set>,
}

impl Exclusions {
    /// Of these processors, fewer than [`Set::BITS`].
    pub(crate) fn of(processors: &[ProcessorName]) -> Self {
        let excluded = |name: &ProcessorName| {
            let overlapping = processors.iter().enumerate().filter(|(_, other)| name.overlaps(other));
            overlapping.fold(0, |set, (at, _)| set | 1 << at)
        };
        Self { excluded: processors.iter().map(excluded).collect() }
    }

    /// All processors.
    pub(crate) fn all(&self) -> Set {
        (1 << self.excluded.len()) - 1
    }

    /// The processors that can be used beside all of `set`.
    pub(crate) fn beside(&self, set: Set) -> Set {
        members(set).fold(self.all(), |left, at| left & !self.excluded[at])
    }

    /// The most processors of `set` that can be used together.
    pub(crate) fn largest(&self, set: Set) -> u32 {
        let Some(at) = members(set).next() else { return 0 };
        let with = 1 + self.largest(set & !self.excluded[at]);
        let is_apart = self.excluded[at] & set == 1 << at;
        if is_apart { with } else { with.max(self.largest(set & !(1 << at))) }
    }

    /// The sets whose processors can be used together, smaller numbers first, without the empty one.
    pub(crate) fn sets(&self) -> impl DoubleEndedIterator<Item = Set> {
        let is_possible = |set: &Set| members(*set).all(|at| self.excluded[at] & set == 1 << at);
        (1..=self.all()).filter(is_possible)
    }

    /// The groups that may have a stage: each processor alone, and then all sets of several, unless these are more than `most` in
    /// all.
    pub(crate) fn groups(&self, most: usize) -> Vec<Group> {
        let several = self.sets().filter(|set| set.count_ones() > 1).collect::<Vec<_>>();
        let alone = (0..self.excluded.len()).map(|at| 1 << at);
        let several = Some(several).filter(|several| self.excluded.len() + several.len() <= most);
        let sets = alone.chain(several.into_iter().flatten());
        sets.map(|set| Group { set, members: members(set).collect() }).collect()
    }
}
