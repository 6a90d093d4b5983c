//! The thread that reads a meter.

use super::pace::Pace;
use super::rail::Rail;
use super::{Found, find};
use crate::affinity::keep_off;
use crate::clock::{monotonic_ns, thread_cpu_ns};
use protocol::{Meter, PowerReadings};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The other rails are read once in so many readings of the total.
const OTHERS_EVERY: u64 = 4;

/// A meter being read. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<PowerReadings>>,
}

impl Sampler {
    /// Begins to read, on a thread that keeps off the CPUs `busy` where there are others.
    ///
    /// # Errors
    /// Where the meter is not there or lacks the rail called the total. The message finishes "failed to …".
    pub(crate) fn start(meter: &Meter, busy: &[u32]) -> Result<Self, String> {
        let found = find(meter)?;
        let total = meter.total.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, busy) = (Arc::clone(&stop), busy.to_vec());
        let thread = std::thread::Builder::new()
            .name("power".to_owned())
            .spawn(move || {
                keep_off(&busy);
                sample(found, total, &flag)
            })
            .map_err(|error| format!("failed to start the thread that reads the power meter: {error}"))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Reads everything a last time and gives all readings.
    pub(crate) fn finish(mut self) -> Result<PowerReadings, String> {
        self.end().unwrap_or_else(|| Err("failed to read the power meter: it was ended before".to_owned()))
    }

    fn end(&mut self) -> Option<Result<PowerReadings, String>> {
        let thread = self.thread.take()?;
        self.stop.store(true, Ordering::Release);
        thread.thread().unpark();
        Some(thread.join().map_err(|_| "failed to read the power meter: its thread panicked".to_owned()))
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        drop(self.end());
    }
}

fn sample(found: Found, total: String, stop: &AtomicBool) -> PowerReadings {
    let Found { driver, mut rails } = found;
    let mut pace = Pace::new(rails.first().is_some_and(Rail::is_counter));
    let mut count = 0u64;
    let mut next_ns = monotonic_ns();
    loop {
        let last = stop.load(Ordering::Acquire);
        let before_ns = thread_cpu_ns();
        let others = last || count.is_multiple_of(OTHERS_EVERY);
        for (place, rail) in rails.iter_mut().enumerate() {
            let at_ns = monotonic_ns();
            if place == 0 {
                pace.observe(at_ns, rail.read());
            } else if others {
                rail.read();
            }
        }
        if last {
            break;
        }
        count += 1;
        // On average over readings with the other rails and without.
        let now_ns = monotonic_ns();
        let mean_ns =
            if count < 2 * OTHERS_EVERY { thread_cpu_ns() - before_ns } else { thread_cpu_ns() / count };
        let period = pace.period(now_ns, mean_ns);
        next_ns = (next_ns + u64::try_from(period.as_nanos()).unwrap_or(u64::MAX)).max(now_ns);
        while !stop.load(Ordering::Acquire) {
            let now_ns = monotonic_ns();
            if now_ns >= next_ns {
                break;
            }
            std::thread::park_timeout(Duration::from_nanos(next_ns - now_ns));
        }
    }
    let rails = rails.into_iter().map(Rail::into_readings).collect();
    PowerReadings { driver: driver.to_owned(), total, rails, cpu_ns: thread_cpu_ns() }
}
