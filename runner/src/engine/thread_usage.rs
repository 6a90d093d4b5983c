//! Calls of the C library without a safe wrapper: CPU time, usage and priority of a thread, and immediate exit.
#![expect(unsafe_code, reason = "calls into the C library")]

/// Exits without running exit handlers: destructors of libraries would race with the stage threads.
pub(crate) fn exit_immediately(status: i32) -> ! {
    super::onnx_provider::remove_engines();
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(status) }
}

/// CPU time of a thread of this process, in ns; `None` if there is no such thread.
pub(crate) fn thread_cpu_ns(thread: u32) -> Option<u64> {
    // The kernel's encoding of a thread's CPU clock: the inverted id, then 6 for "per thread, scheduler's time"
    // (include/linux/posix-timers_types.h). pthread_getcpuclockid computes the same from a pthread_t.
    let clock = (!i32::try_from(thread).ok()? << 3) | 6;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to; an unknown clock is answered with an error.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) } != 0;
    if failed {
        return None;
    }
    Some(u64::try_from(time.tv_sec).ok()? * 1_000_000_000 + u64::try_from(time.tv_nsec).ok()?)
}

/// Gives the calling thread the lowest real-time priority, so that it runs as soon as it wakes up. Without the permission to do
/// so, nothing changes.
pub(crate) fn prefer_current_thread() {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: `priority` is valid for reading; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
}

/// Page faults and context switches of a thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ThreadUsage {
    pub(crate) minor_faults: u64,
    pub(crate) major_faults: u64,
    pub(crate) voluntary_switches: u64,
    pub(crate) involuntary_switches: u64,
}

impl ThreadUsage {
    /// Totals of the calling thread.
    pub(crate) fn now() -> Self {
        // SAFETY: all fields of rusage are integers, for which zero is valid, and it is written to as a whole.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            let failed = libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) != 0;
            debug_assert!(!failed, "every kernel since 2.6.26 knows RUSAGE_THREAD");
            usage
        };
        let count = |value: libc::c_long| u64::try_from(value).unwrap_or(0);
        Self {
            minor_faults: count(usage.ru_minflt),
            major_faults: count(usage.ru_majflt),
            voluntary_switches: count(usage.ru_nvcsw),
            involuntary_switches: count(usage.ru_nivcsw),
        }
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            minor_faults: self.minor_faults - earlier.minor_faults,
            major_faults: self.major_faults - earlier.major_faults,
            voluntary_switches: self.voluntary_switches - earlier.voluntary_switches,
            involuntary_switches: self.involuntary_switches - earlier.involuntary_switches,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_uses_cpu_time_and_faults_on_fresh_memory() {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let (cpu, usage) = (thread_cpu_ns(tid).unwrap(), ThreadUsage::now());
        let fresh = std::hint::black_box(vec![1_u8; 16 << 20]);
        assert!(thread_cpu_ns(tid).unwrap() > cpu);
        let since = ThreadUsage::now().since(usage);
        assert!(since.minor_faults > 1, "{since:?}");
        drop(fresh);
    }

    #[test]
    fn a_thread_that_does_not_exist_has_no_cpu_time() {
        assert_eq!(thread_cpu_ns(0x3fff_fffe), None);
    }
}
