//! How often a meter is read.

use std::time::Duration;

/// Between two readings until the meter's refresh is known.
const SEARCHING: Duration = Duration::from_millis(20);
/// From here on slower, where the refresh could not be found: the load may be too even.
const SEARCH_FOR: Duration = Duration::from_secs(5);
/// Between two readings where the refresh could not be found.
const UNKNOWN: Duration = Duration::from_millis(50);
/// A counter is exact at any time; readings are only needed near the ends of the window.
const COUNTER: Duration = Duration::from_millis(50);
/// Readings for each refresh.
const OVERSAMPLING: u32 = 8;
/// Slowest pace, but for dear readings.
const SLOWEST: Duration = Duration::from_millis(60);
/// Times between two changes to see before the refresh is taken as known.
const ENOUGH: usize = 6;
/// Slowest pace of dear readings.
const SLOWEST_DEAR: Duration = Duration::from_millis(250);
/// Share of a core that reading may take.
const MOST_CPU: f64 = 0.003;

/// Finds the pace from the changes of the total's readings.
#[derive(Debug)]
pub(super) struct Pace {
    counter: bool,
    value: Option<i64>,
    begun_ns: Option<u64>,
    changed_ns: Option<u64>,
    between_ns: Vec<u64>,
    found: Option<Duration>,
}

impl Pace {
    pub(super) fn new(counter: bool) -> Self {
        Self { counter, value: None, begun_ns: None, changed_ns: None, between_ns: Vec::new(), found: None }
    }

    /// A reading of the total at `now_ns`; `None` where it failed or is of a counter.
    pub(super) fn observe(&mut self, now_ns: u64, value: Option<i64>) {
        self.begun_ns.get_or_insert(now_ns);
        let Some(value) = value else { return };
        if self.found.is_none() && self.value.is_some_and(|before| before != value) {
            if let Some(before) = self.changed_ns {
                self.between_ns.push(now_ns - before);
            }
            self.changed_ns = Some(now_ns);
            if self.between_ns.len() >= ENOUGH {
                // A conversion that gives the same value as the one before hides a change, so the short times are
                // those between two conversions. Which of them are, the analysis finds out; here a lower middle one
                // does.
                self.between_ns.sort_unstable();
                let refresh = Duration::from_nanos(self.between_ns[self.between_ns.len() / 4]);
                self.found = Some((refresh / OVERSAMPLING).clamp(SEARCHING, SLOWEST));
            }
        }
        self.value = Some(value);
    }

    /// Time from one reading to the next, where one took so much CPU time.
    pub(super) fn period(&self, now_ns: u64, cpu_ns: u64) -> Duration {
        let since = Duration::from_nanos(now_ns - self.begun_ns.unwrap_or(now_ns));
        let wanted = match self.found {
            _ if self.counter => COUNTER,
            Some(found) => found,
            None if since < SEARCH_FOR => SEARCHING,
            None => UNKNOWN,
        };
        let cheap = Duration::from_nanos(cpu_ns).div_f64(MOST_CPU);
        wanted.max(cheap.min(SLOWEST_DEAR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// The pace after a meter that refreshes every `refresh` ms was read for `seconds`.
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
    fn the_pace_follows_the_refresh() {
        assert_eq!(after(400, 10), Duration::from_millis(50));
        assert_eq!(after(7, 10), SEARCHING, "not faster than is cheap");
        assert_eq!(after(5_000, 60), SLOWEST);
        assert_eq!(after(1_000_000, 1), SEARCHING);
        assert_eq!(after(1_000_000, 10), UNKNOWN);
    }

    #[test]
    fn dear_readings_are_made_less_often() {
        let pace = Pace::new(true);
        assert_eq!(pace.period(0, 0), COUNTER);
        assert_eq!(pace.period(0, 300_000), Duration::from_millis(100));
        assert_eq!(pace.period(0, 1_000_000_000), SLOWEST_DEAR);
    }

    #[test]
    fn failed_readings_tell_nothing() {
        let mut pace = Pace::new(false);
        for at in 0..100 {
            pace.observe(at * MS, None);
        }
        assert_eq!(pace.period(100 * MS, 0), SEARCHING);
    }
}
