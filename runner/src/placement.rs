//! Threads of a stage on the CPUs of its processor.

use crate::affinity::{bind, this_thread};
use crate::engine::spread_over;
use crate::failure::Failure;
use protocol::Binding;
use std::collections::BTreeSet;

/// Settles the calling thread, and the pool of workers its kernels use, on the CPUs of a binding. With as many
/// threads as CPUs each thread gets a CPU of its own; with fewer they may move among all of them. Gives the ids
/// of all threads, the caller's first.
///
/// No other thread may start meanwhile: workers are recognised as the threads that are new.
pub(crate) fn settle(binding: &Binding) -> Result<Vec<u32>, Failure> {
    bind(None, &binding.cpus, binding)?;
    let own = this_thread();
    let threads = usize::try_from(binding.threads).unwrap_or(1);
    if threads == 1 {
        return Ok(vec![own]);
    }
    let before = tasks();
    spread_over(&binding.cpus[..threads]).map_err(Failure::internal)?;
    let workers: Vec<u32> = tasks().difference(&before).copied().collect();
    if workers.len() + 1 != threads {
        return Err(Failure::internal(format!(
            "failed to set up TVM's thread pool: {} workers came up for {threads} threads",
            workers.len()
        )));
    }
    let all: Vec<u32> = std::iter::once(own).chain(workers).collect();
    if threads == binding.cpus.len() {
        for (thread, cpu) in all.iter().zip(&binding.cpus) {
            bind(Some(*thread), &[*cpu], binding)?;
        }
    }
    Ok(all)
}

/// Threads of this process.
fn tasks() -> BTreeSet<u32> {
    let Ok(folder) = std::fs::read_dir("/proc/self/task") else { return BTreeSet::new() };
    folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
