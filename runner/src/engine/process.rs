//! Calls of the C library without a safe form in Rust.
#![expect(unsafe_code, reason = "calls into the C library")]

use std::ffi::{c_int, c_long};

/// `struct timespec` of 64-bit Linux.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: c_long,
}

/// `struct rusage` of 64-bit Linux.
#[repr(C)]
#[derive(Default)]
struct Rusage {
    user_and_system_time: [i64; 4],
    max_resident: c_long,
    unmaintained_sizes: [c_long; 3],
    minor_faults: c_long,
    major_faults: c_long,
    unmaintained_counts: [c_long; 6],
    voluntary_switches: c_long,
    involuntary_switches: c_long,
}

const RUSAGE_THREAD: c_int = 1;

unsafe extern "C" {
    fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int;
    fn getrusage(who: c_int, usage: *mut Rusage) -> c_int;
    safe fn _exit(status: c_int) -> !;
}

/// Ends the process without running exit handlers: destructors of libraries would race with the stages.
pub(crate) fn exit_at_once(status: i32) -> ! {
    _exit(status)
}

/// CPU time in ns a thread of this process has used; `None` where there is no such thread.
pub(crate) fn thread_cpu_ns(thread: u32) -> Option<u64> {
    // The kernel's encoding of a thread's CPU clock: the inverted id, then 6 for "per thread, scheduler's time"
    // (include/linux/posix-timers_types.h). pthread_getcpuclockid makes the same from a pthread_t.
    let clock = (!i32::try_from(thread).ok()? << 3) | 6;
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: `time` is a valid timespec to write to; an unknown clock is answered by an error.
    let failed = unsafe { clock_gettime(clock, &raw mut time) } != 0;
    if failed {
        return None;
    }
    Some(u64::try_from(time.seconds).ok()? * 1_000_000_000 + u64::try_from(time.nanoseconds).ok()?)
}

/// What a thread has cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ThreadUsage {
    /// Page faults served without reading from disk.
    pub(crate) minor_faults: u64,
    /// Page faults that read from disk.
    pub(crate) major_faults: u64,
    /// Times it gave up the CPU.
    pub(crate) voluntary_switches: u64,
    /// Times it was made to give up the CPU.
    pub(crate) involuntary_switches: u64,
}

impl ThreadUsage {
    /// Of the calling thread.
    pub(crate) fn now() -> Self {
        let mut usage = Rusage::default();
        // SAFETY: `usage` is a valid rusage to write to.
        let failed = unsafe { getrusage(RUSAGE_THREAD, &raw mut usage) } != 0;
        debug_assert!(!failed, "RUSAGE_THREAD is known to every kernel since 2.6.26");
        let count = |value: c_long| u64::try_from(value).unwrap_or(0);
        Self {
            minor_faults: count(usage.minor_faults),
            major_faults: count(usage.major_faults),
            voluntary_switches: count(usage.voluntary_switches),
            involuntary_switches: count(usage.involuntary_switches),
        }
    }

    /// What came on top since `earlier`.
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
    fn rusage_has_the_size_the_kernel_writes() {
        assert_eq!(size_of::<Rusage>(), 144);
    }

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
