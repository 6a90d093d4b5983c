//! Binding threads to CPUs.

use crate::failure::Failure;
use protocol::{Processor, format_cpu_list, parse_cpu_list};
use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_setaffinity};
use std::collections::BTreeSet;
use std::path::Path;

/// Binds a thread (`None`: the calling one) to CPUs of a processor.
///
/// # Errors
/// If it cannot use all of them; the message says which, why, and what to do.
pub(crate) fn bind(thread: Option<u32>, cpus: &[u32], processor: &str) -> Result<(), Failure> {
    let fail = || bind_failure(cpus, processor, Path::new("/sys"));
    let mut wanted = CpuSet::new();
    for cpu in cpus {
        let place = usize::try_from(*cpu).ok().filter(|place| *place < CpuSet::MAX_CPU);
        wanted.set(place.ok_or_else(fail)?);
    }
    let pid = thread.and_then(|thread| Pid::from_raw(i32::try_from(thread).ok()?));
    // The kernel silently skips CPUs that are offline or forbidden, so the result is read back.
    match sched_setaffinity(pid, &wanted).and_then(|()| sched_getaffinity(pid)) {
        Ok(actual) if actual == wanted => Ok(()),
        _ => Err(fail()),
    }
}

/// Binds the calling thread to the first CPU of a processor.
pub(crate) fn bind_to_first(processor: &Processor) -> Result<(), Failure> {
    let name = processor.name();
    let first = processor.cpus().first();
    let first =
        first.ok_or_else(|| Failure::request(format!("failed to bind processor {name}: it has no CPUs")))?;
    bind(None, &[*first], name)
}

/// Id of the calling thread.
pub(crate) fn current_thread() -> u32 {
    gettid().as_raw_nonzero().get().unsigned_abs()
}

/// CPUs that the calling thread may use.
pub(crate) fn allowed_cpus() -> Vec<u32> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..).zip(0..CpuSet::MAX_CPU).filter(|(_, place)| set.is_set(*place)).map(|(cpu, _)| cpu).collect()
}

/// Moves the calling thread off these CPUs if it may use others. Best effort: without other CPUs, or if the system refuses,
/// nothing changes.
pub(crate) fn avoid(cpus: &[u32]) {
    let mut others = CpuSet::new();
    let rest = allowed_cpus().into_iter().filter(|cpu| !cpus.contains(cpu));
    for cpu in rest.filter_map(|cpu| usize::try_from(cpu).ok()) {
        others.set(cpu);
    }
    if others.count() > 0 {
        sched_setaffinity(None, &others).ok();
    }
}

/// Runs `start` and also returns the ids of the threads that it started. No other thread may start meanwhile.
pub(crate) fn with_new_threads<T>(
    start: impl FnOnce() -> Result<T, Failure>,
) -> Result<(Vec<u32>, T), Failure> {
    let before = threads();
    let started = start()?;
    Ok((threads().difference(&before).copied().collect(), started))
}

/// Ids of the threads of this process.
fn threads() -> BTreeSet<u32> {
    let Ok(folder) = std::fs::read_dir("/proc/self/task") else { return BTreeSet::new() };
    folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn bind_failure(cpus: &[u32], processor: &str, sys: &Path) -> Failure {
    let list = |name: &str| {
        let text = std::fs::read_to_string(sys.join("devices/system/cpu").join(name)).unwrap_or_default();
        parse_cpu_list(&text)
    };
    let (present, online) = (list("present"), list("online"));
    let reason = if let Some(cpu) = cpus.iter().find(|cpu| !present.contains(cpu)) {
        format!(
            "CPU {cpu} does not exist, the board has CPUs {}; correct `cpus` of the processor, or `host_cpus` \
             of the GPU",
            format_cpu_list(&present)
        )
    } else if let Some(cpu) = cpus.iter().find(|cpu| !online.contains(cpu)) {
        format!(
            "CPU {cpu} is offline; choose a power mode that uses it, or write 1 to \
             /sys/devices/system/cpu/cpu{cpu}/online as root"
        )
    } else {
        "a cpuset or taskset restricts the runner to other CPUs; start it without that restriction".to_owned()
    };
    Failure::affinity(format!(
        "failed to bind processor {processor} to CPUs {}: {reason}",
        format_cpu_list(cpus)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_is_bound() {
        let before = allowed_cpus();
        let last = *before.last().unwrap();
        std::thread::spawn(move || {
            bind(None, &[last], "denver").unwrap();
            assert_eq!(allowed_cpus(), [last]);
        })
        .join()
        .unwrap();
        assert_eq!(allowed_cpus(), before);
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_named() {
        for cpu in [999, 100_000] {
            let failure = bind(None, &[allowed_cpus()[0], cpu], "denver").unwrap_err();
            assert_eq!(failure.fault, protocol::Fault::Affinity);
            assert!(failure.message.contains(&format!("CPU {cpu} does not exist")), "{failure}");
        }
        bind(None, &allowed_cpus(), "denver").unwrap();
    }

    #[test]
    fn the_message_says_how_to_use_an_offline_cpu() {
        let sys = tempfile::tempdir().unwrap();
        let folder = sys.path().join("devices/system/cpu");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("present"), "0-5\n").unwrap();
        std::fs::write(folder.join("online"), "0,3-5\n").unwrap();
        let message = bind_failure(&[1, 2], "denver", sys.path()).message;
        assert!(message.contains("denver") && message.contains("CPU 1 is offline"), "{message}");
        let message = bind_failure(&[3], "denver", sys.path()).message;
        assert!(message.contains("cpuset"), "{message}");
    }
}
