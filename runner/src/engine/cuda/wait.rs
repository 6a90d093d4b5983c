//! Reports kernels that do not end. The driver waits for them without a limit, and so does its caller, until the harness ends
//! the runner at the request's deadline; the runner's log, which is part of that error, then names them.

use crate::clock::monotonic_ns;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::Duration;

/// A wait that is longer is reported, once.
const PATIENCE_NS: u64 = 10_000_000_000;
/// How often waits are examined.
const PERIOD: Duration = Duration::from_secs(1);
/// `Wait::kernel` if any kernel may be the one.
const ANY: usize = usize::MAX;
/// Most kernels that a report names.
const NAMED: usize = 6;

static STARTED: Once = Once::new();
static WAITS: Mutex<Vec<Weak<Wait>>> = Mutex::new(Vec::new());

/// The wait of a stage for its kernels.
pub(super) struct Wait {
    /// `launch plan PATH on PROCESSOR`.
    plan: String,
    kernels: Vec<String>,
    /// When the present wait began; 0 if there is none.
    since_ns: AtomicU64,
    /// Place of the only kernel that it waits for, or [`ANY`].
    kernel: AtomicUsize,
}

impl Wait {
    /// Examined from now on, until it is dropped.
    pub(super) fn new(plan: String, kernels: Vec<String>) -> Arc<Self> {
        let wait =
            Arc::new(Self { plan, kernels, since_ns: AtomicU64::new(0), kernel: AtomicUsize::new(ANY) });
        let mut waits = WAITS.lock().unwrap_or_else(PoisonError::into_inner);
        waits.retain(|wait| wait.strong_count() > 0);
        waits.push(Arc::downgrade(&wait));
        drop(waits);
        // Without the thread, the error of the harness names no kernel.
        STARTED.call_once(|| drop(std::thread::Builder::new().name("gpu-watch".to_owned()).spawn(watch)));
        wait
    }

    /// Waits for one kernel, by its place, or for all of a frame.
    pub(super) fn during<T>(&self, kernel: Option<usize>, wait: impl FnOnce() -> T) -> T {
        self.kernel.store(kernel.unwrap_or(ANY), Ordering::Relaxed);
        self.since_ns.store(monotonic_ns(), Ordering::Relaxed);
        let result = wait();
        self.since_ns.store(0, Ordering::Relaxed);
        result
    }

    /// The report of a wait that began at `since_ns`, if it is too long.
    fn report(&self, since_ns: u64, now_ns: u64) -> Option<String> {
        let waited_ns = now_ns.saturating_sub(since_ns);
        if since_ns == 0 || waited_ns < PATIENCE_NS {
            return None;
        }
        let seconds = waited_ns / 1_000_000_000;
        Some(match (self.kernels.get(self.kernel.load(Ordering::Relaxed)), self.kernels.as_slice()) {
            (Some(kernel), _) | (None, [kernel]) => {
                format!("kernel {kernel} of {} has not ended for {seconds} s", self.plan)
            }
            (None, kernels) => {
                let names = kernels.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
                let others = match kernels.len().saturating_sub(NAMED) {
                    0 => String::new(),
                    others => format!(" and {others} others"),
                };
                format!("one of the kernels of {} has not ended for {seconds} s: {names}{others}", self.plan)
            }
        })
    }
}

fn watch() {
    // The waits that were reported.
    let mut reported: Vec<(Weak<Wait>, u64)> = Vec::new();
    loop {
        std::thread::sleep(PERIOD);
        let waits = WAITS.lock().unwrap_or_else(PoisonError::into_inner).clone();
        reported.retain(|(wait, _)| wait.strong_count() > 0);
        for wait in waits {
            let Some(known) = wait.upgrade() else { continue };
            let since_ns = known.since_ns.load(Ordering::Relaxed);
            let is_reported = reported.iter().any(|(other, at)| other.ptr_eq(&wait) && *at == since_ns);
            if let Some(report) = known.report(since_ns, monotonic_ns()).filter(|_| !is_reported) {
                eprintln!("{report}");
                reported.push((wait, since_ns));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_wait_names_the_kernels() {
        let names = |count: usize| (0..count).map(|number| format!("k{number}")).collect();
        let wait = Wait::new("launch plan net on gpu".to_owned(), names(8));
        assert_eq!(wait.report(0, PATIENCE_NS), None);
        assert_eq!(wait.report(5, PATIENCE_NS), None);
        let expected = "one of the kernels of launch plan net on gpu has not ended for 10 s: k0, k1, k2, k3, k4, k5 and \
                        2 others";
        assert_eq!(wait.report(1, PATIENCE_NS + 1).as_deref(), Some(expected));
        wait.during(Some(3), || {
            let since_ns = wait.since_ns.load(Ordering::Relaxed);
            let report = wait.report(since_ns, since_ns + 2 * PATIENCE_NS);
            assert_eq!(report.unwrap(), "kernel k3 of launch plan net on gpu has not ended for 20 s");
        });
        assert_eq!(wait.since_ns.load(Ordering::Relaxed), 0);
        let single = Wait::new("launch plan net on gpu".to_owned(), names(1));
        assert!(single.report(1, PATIENCE_NS + 1).unwrap().starts_with("kernel k0 of "));
    }
}
