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

/// Settles the calling thread on the CPUs of a binding and lets `start` bring up an engine with threads of its own,
/// which inherit the CPUs and move among them. Gives the ids of all threads, the caller's first.
///
/// No other thread may start meanwhile: the engine's are recognised as the threads that are new.
pub(crate) fn settle_with_own_threads<T>(
    binding: &Binding,
    start: impl FnOnce() -> Result<T, Failure>,
) -> Result<(Vec<u32>, T), Failure> {
    bind(None, &binding.cpus, binding)?;
    let before = tasks();
    let started = start()?;
    let own = this_thread();
    let workers = tasks().difference(&before).copied().collect::<Vec<_>>();
    Ok((std::iter::once(own).chain(workers).collect(), started))
}

/// Threads of this process.
fn tasks() -> BTreeSet<u32> {
    let Ok(folder) = std::fs::read_dir("/proc/self/task") else { return BTreeSet::new() };
    folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
