//! The interval between readings of a meter.

use std::time::Duration;

/// Interval until the meter's refresh time is known.
const SEARCHING: Duration = Duration::from_millis(20);
/// Time after which the search for the refresh time is given up: the load may be constant.
const SEARCH_LIMIT: Duration = Duration::from_secs(5);
/// Interval if the refresh time was not found.
const UNKNOWN: Duration = Duration::from_millis(50);
/// Interval of a counter, which is exact at any time: only readings near the ends of the window matter.
const COUNTER: Duration = Duration::from_millis(50);
/// Readings for each refresh of the meter.
const OVERSAMPLING: u32 = 8;
/// Longest interval, except for slow readings.
const LONGEST: Duration = Duration::from_millis(60);
/// Intervals between changes to observe before the refresh time is known.
const MIN_CHANGES: usize = 6;
/// Longest interval for readings that take much CPU time.
const LONGEST_SLOW: Duration = Duration::from_millis(250);
/// Share of a CPU that reading may take.
const MAX_CPU_SHARE: f64 = 0.003;

/// Derives the interval from the changes of the total's readings.
#[derive(Debug)]
pub(super) struct Pace {
    counter: bool,
    value: Option<i64>,
    begun_ns: Option<u64>,
    changed_ns: Option<u64>,
    intervals_ns: Vec<u64>,
    found: Option<Duration>,
}

impl Pace {
    pub(super) fn new(counter: bool) -> Self {
        Self { counter, value: None, begun_ns: None, changed_ns: None, intervals_ns: Vec::new(), found: None }
    }

    /// Takes a reading of the total into account; `None` if it failed or is that of a counter.
    pub(super) fn observe(&mut self, now_ns: u64, value: Option<i64>) {
        self.begun_ns.get_or_insert(now_ns);
        let Some(value) = value else { return };
        if self.found.is_none() && self.value.is_some_and(|before| before != value) {
            if let Some(before) = self.changed_ns {
                self.intervals_ns.push(now_ns - before);
            }
            self.changed_ns = Some(now_ns);
            if self.intervals_ns.len() >= MIN_CHANGES {
                // A conversion with the same value as the one before is invisible, so only the shorter intervals are those
                // between two conversions. The first quartile is a sufficient estimate here.
                self.intervals_ns.sort_unstable();
                let refresh = Duration::from_nanos(self.intervals_ns[self.intervals_ns.len() / 4]);
                self.found = Some((refresh / OVERSAMPLING).clamp(SEARCHING, LONGEST));
            }
        }
        self.value = Some(value);
    }

    /// Time from one reading to the next, if a reading takes `cpu_ns` of CPU time.
    pub(super) fn period(&self, now_ns: u64, cpu_ns: u64) -> Duration {
        let since = Duration::from_nanos(now_ns - self.begun_ns.unwrap_or(now_ns));
        let interval = match self.found {
            _ if self.counter => COUNTER,
            Some(found) => found,
            None if since < SEARCH_LIMIT => SEARCHING,
            None => UNKNOWN,
        };
        let affordable = Duration::from_nanos(cpu_ns).div_f64(MAX_CPU_SHARE);
        interval.max(affordable.min(LONGEST_SLOW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// The interval after reading a meter that refreshes every `refresh` ms for `seconds`.
    fn after(refresh: u64, seconds: u64) -> Duration {
        let mut pace = Pace::new(false);
        let mut now = 0;
        while now < seconds * 1000 * MS {
            pace.observe(now, i64::try_from(now / (refresh * MS)).ok());
            now += u64::try_from(pace.period(now, 0).as_nanos()).unwrap();
        }
        pace.period(now, 0)
    }

    #[test]
    fn the_interval_follows_the_refresh_time() {
        assert_eq!(after(400, 10), Duration::from_millis(50));
        assert_eq!(after(7, 10), SEARCHING, "not shorter than the minimum");
        assert_eq!(after(5_000, 60), LONGEST);
        assert_eq!(after(1_000_000, 1), SEARCHING);
        assert_eq!(after(1_000_000, 10), UNKNOWN);
    }

    #[test]
    fn slow_readings_have_a_longer_interval() {
        let pace = Pace::new(true);
        assert_eq!(pace.period(0, 0), COUNTER);
        assert_eq!(pace.period(0, 300_000), Duration::from_millis(100));
        assert_eq!(pace.period(0, 1_000_000_000), LONGEST_SLOW);
    }

    #[test]
    fn failed_readings_change_nothing() {
        let mut pace = Pace::new(false);
        for at in 0..100 {
            pace.observe(at * MS, None);
        }
        assert_eq!(pace.period(100 * MS, 0), SEARCHING);
    }
}
