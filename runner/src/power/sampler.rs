//! Reads a meter on a thread of its own.

use super::meter::{FoundMeter, find};
use super::pace::Pace;
use super::rail::Rail;
use crate::affinity::avoid;
use crate::clock::{current_thread_cpu_ns, monotonic_ns};
use protocol::{Meter, PowerReadings};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The other rails are read once for this many readings of the total.
const OTHERS_EVERY: u64 = 4;

/// Timeout of the last reading of all rails.
const LAST_READING_TIMEOUT: Duration = Duration::from_secs(10);

/// A meter that is being read, until this is dropped.
#[derive(Debug)]
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    /// The rail being read.
    rail: Arc<Mutex<String>>,
    thread: Option<JoinHandle<PowerReadings>>,
}

impl Sampler {
    /// Starts to read, on a thread that avoids the CPUs `busy` if there are others.
    ///
    /// # Errors
    /// As [`find`].
    pub(crate) fn start(meter: &Meter, busy: &[u32]) -> Result<Self, String> {
        let found = find(meter)?;
        let stop = Arc::new(AtomicBool::new(false));
        let rail = Arc::new(Mutex::new(String::new()));
        let (flag, current_rail, busy) = (Arc::clone(&stop), Arc::clone(&rail), busy.to_vec());
        let thread = std::thread::Builder::new()
            .name("power".to_owned())
            .spawn(move || {
                avoid(&busy);
                sample(found, &flag, &current_rail)
            })
            .map_err(|error| format!("failed to start the thread that reads the power meter: {error}"))?;
        Ok(Self { stop, rail, thread: Some(thread) })
    }

    /// Reads all rails a last time and returns all readings.
    pub(crate) fn finish(mut self) -> Result<PowerReadings, String> {
        self.end()
            .unwrap_or_else(|| Err("failed to read the power meter: it has already been stopped".to_owned()))
    }

    fn end(&mut self) -> Option<Result<PowerReadings, String>> {
        let thread = self.thread.take()?;
        self.stop.store(true, Ordering::Release);
        thread.thread().unpark();
        let deadline = Instant::now() + LAST_READING_TIMEOUT;
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                // The thread ends when the driver answers, or with the process.
                let rail = self.rail.lock().unwrap_or_else(PoisonError::into_inner).clone();
                return Some(Err(format!(
                    "failed to read the power meter: rail {rail} does not answer within {} s; set `power: none` in the \
                     board's file, or repair the sensor's driver (see `dmesg` on the board)",
                    LAST_READING_TIMEOUT.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Some(thread.join().map_err(|_| "failed to read the power meter: its thread panicked".to_owned()))
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        drop(self.end());
    }
}

fn sample(found: FoundMeter, stop: &AtomicBool, current_rail: &Mutex<String>) -> PowerReadings {
    let FoundMeter { driver, total, mut rails, totals } = found;
    let mut pace = Pace::new(rails.first().is_some_and(Rail::is_counter));
    let mut count = 0u64;
    let mut next_ns = monotonic_ns();
    loop {
        let last = stop.load(Ordering::Acquire);
        let before_ns = current_thread_cpu_ns();
        let others = last || count.is_multiple_of(OTHERS_EVERY);
        for (place, rail) in rails.iter_mut().enumerate() {
            let at_ns = monotonic_ns();
            rail.name().clone_into(&mut current_rail.lock().unwrap_or_else(PoisonError::into_inner));
            if place == 0 {
                pace.observe(at_ns, rail.read());
            } else if others || place < totals {
                rail.read();
            }
        }
        if last {
            break;
        }
        count += 1;
        // The mean over readings with and without the other rails.
        let now_ns = monotonic_ns();
        let mean_ns = if count < 2 * OTHERS_EVERY {
            current_thread_cpu_ns() - before_ns
        } else {
            current_thread_cpu_ns() / count
        };
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
    PowerReadings { driver, total, rails, cpu_ns: current_thread_cpu_ns() }
}
