//! Merged processors of random problems, and the groups of processors that may share a stage.

use domain::ProcessorName;

/// A processor that has these CPUs, one bit each: `p0`, or `p0+p2`.
pub(crate) fn name(cpus: u32) -> ProcessorName {
    let parts: Vec<_> =
        (0..32).filter(|cpu| cpus & 1 << cpu != 0).map(|cpu| ProcessorName::new(format!("p{cpu}"))).collect();
    ProcessorName::merged(&parts)
}

/// One processor for each of `count` CPUs, and those of `merged` that have several of them.
pub(crate) fn processors(count: u32, merged: &[u32]) -> Vec<u32> {
    let mut all: Vec<u32> = (0..count).map(|cpu| 1 << cpu).collect();
    for cpus in merged.iter().map(|cpus| cpus & ((1 << count) - 1)) {
        if cpus.count_ones() > 1 && !all.contains(&cpus) {
            all.push(cpus);
        }
    }
    all
}

/// The groups of processors that may have a stage: each alone, in their order, and then all sets whose processors have no CPU in
/// common, one bit for each processor.
pub(crate) fn groups(cpus: &[u32]) -> Vec<Vec<usize>> {
    let several =
        (1usize..1 << cpus.len()).filter(|set| set.count_ones() > 1).map(|set| members(set, cpus.len()));
    let alone = (0..cpus.len()).map(|at| vec![at]);
    alone.chain(several.filter(|group| are_apart(group, cpus))).collect()
}

fn members(set: usize, count: usize) -> Vec<usize> {
    (0..count).filter(|at| set & 1 << at != 0).collect()
}

fn are_apart(group: &[usize], cpus: &[u32]) -> bool {
    let all = group.iter().fold(0, |all, at| all | cpus[*at]);
    group.iter().map(|at| cpus[*at].count_ones()).sum::<u32>() == all.count_ones()
}

/// The CPUs of a group, one bit each.
pub(crate) fn cpus_of(group: &[usize], cpus: &[u32]) -> u32 {
    group.iter().fold(0, |all, at| all | cpus[*at])
}

/// Time between two frames of a stage with replicas of these times: their rates add up, but no more than eight frames for each
/// replica leave in the time of the slowest.
pub(crate) fn period(times: &[f64]) -> f64 {
    let [first, others @ ..] = times else { panic!("a stage has a processor") };
    let longest = times.iter().copied().fold(0.0, f64::max);
    // Added up in the order of the product, so that equal periods are equal numbers.
    match others.iter().map(|ns| 1.0 / ns).reduce(|sum, rate| sum + rate) {
        None => *first,
        Some(rates) => (1.0 / (1.0 / first + rates)).max(longest / (8.0 * times.len() as f64)),
    }
}
