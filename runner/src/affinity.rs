//! Binding threads to CPUs.

use crate::cpulist;
use crate::failure::Failure;
use protocol::Binding;
use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_setaffinity};
use std::path::Path;

/// Binds a thread (`None`: the calling one) to CPUs of a processor, and makes sure that all of them were taken.
pub(crate) fn bind(thread: Option<u32>, cpus: &[u32], binding: &Binding) -> Result<(), Failure> {
    let mut wanted = CpuSet::new();
    for cpu in cpus {
        let place = usize::try_from(*cpu).ok().filter(|place| *place < CpuSet::MAX_CPU);
        wanted.set(place.ok_or_else(|| refusal(cpus, binding, Path::new("/sys")))?);
    }
    let pid = thread.and_then(|thread| Pid::from_raw(i32::try_from(thread).ok()?));
    // The kernel quietly leaves out CPUs that are offline or forbidden, so what it took is read back.
    let taken = sched_setaffinity(pid, &wanted).and_then(|()| sched_getaffinity(pid));
    match taken {
        Ok(taken) if taken == wanted => Ok(()),
        _ => Err(refusal(cpus, binding, Path::new("/sys"))),
    }
}

/// Id of the calling thread.
pub(crate) fn this_thread() -> u32 {
    gettid().as_raw_nonzero().get().unsigned_abs()
}

/// CPUs the process may run on.
pub(crate) fn allowed() -> Vec<u32> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..).zip(0..CpuSet::MAX_CPU).filter(|(_, place)| set.is_set(*place)).map(|(cpu, _)| cpu).collect()
}

/// Keeps the calling thread off CPUs where it may use others; otherwise, or where the system refuses, it stays as it
/// is. Good manners, no promise.
pub(crate) fn keep_off(cpus: &[u32]) {
    let mut others = CpuSet::new();
    let rest = allowed().into_iter().filter(|cpu| !cpus.contains(cpu));
    for cpu in rest.filter_map(|cpu| usize::try_from(cpu).ok()) {
        others.set(cpu);
    }
    if others.count() > 0 {
        sched_setaffinity(None, &others).ok();
    }
}

/// Says which CPU cannot be had, why, and what to do.
fn refusal(cpus: &[u32], binding: &Binding, sys: &Path) -> Failure {
    let list = |name: &str| {
        let text = std::fs::read_to_string(sys.join("devices/system/cpu").join(name)).unwrap_or_default();
        cpulist::parse(&text)
    };
    let (present, online) = (list("present"), list("online"));
    let processor = &binding.processor;
    let reason = if let Some(cpu) = cpus.iter().find(|cpu| !present.contains(cpu)) {
        format!("there is no CPU {cpu}, only {}; correct the processor's cpus", cpulist::text(&present))
    } else if let Some(cpu) = cpus.iter().find(|cpu| !online.contains(cpu)) {
        format!(
            "CPU {cpu} is offline; choose a power mode that has it, \
             or write 1 to /sys/devices/system/cpu/cpu{cpu}/online as root"
        )
    } else {
        format!(
            "the runner may not use all of CPUs {}; start it outside of the cpuset or taskset that limits it",
            cpulist::text(cpus)
        )
    };
    Failure::affinity(format!(
        "failed to bind processor {processor} to CPUs {}: {reason}",
        cpulist::text(cpus)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(cpus: &[u32]) -> Binding {
        Binding { processor: "denver".into(), cpus: cpus.into(), threads: 1 }
    }

    #[test]
    fn binding_takes_effect_and_can_be_read_back() {
        let before = allowed();
        let last = *before.last().unwrap();
        std::thread::spawn(move || {
            bind(None, &[last], &binding(&[last])).unwrap();
            assert_eq!(allowed(), [last]);
        })
        .join()
        .unwrap();
        assert_eq!(allowed(), before, "only that thread is bound");
    }

    #[test]
    fn cpus_that_do_not_exist_are_named() {
        for cpu in [999, 100_000] {
            let failure = bind(None, &[allowed()[0], cpu], &binding(&[cpu])).unwrap_err();
            assert_eq!(failure.fault, protocol::Fault::Affinity);
            assert!(failure.message.contains(&format!("no CPU {cpu}")), "{failure}");
        }
        bind(None, &allowed(), &binding(&[])).unwrap();
    }

    #[test]
    fn an_offline_cpu_comes_with_its_remedy() {
        let sys = tempfile::tempdir().unwrap();
        let folder = sys.path().join("devices/system/cpu");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("present"), "0-5\n").unwrap();
        std::fs::write(folder.join("online"), "0,3-5\n").unwrap();
        let message = refusal(&[1, 2], &binding(&[1, 2]), sys.path()).message;
        assert!(message.contains("denver") && message.contains("CPU 1 is offline"), "{message}");
        let message = refusal(&[3], &binding(&[3]), sys.path()).message;
        assert!(message.contains("cpuset"), "{message}");
    }
}
