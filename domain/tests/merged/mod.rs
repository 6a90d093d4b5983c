//! Merged processors of random problems.

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
