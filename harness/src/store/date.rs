//! Dates from the time since 1970, in UTC.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in ns since 1970. A clock that stands before that gives 0.
pub fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A date and time of day in UTC, to the second. Its text is that of ISO 8601: `2025-01-31T09:45:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Date {
    /// The date of a moment, in ns since 1970.
    ///
    /// Days are turned into dates by Howard Hinnant's `civil_from_days` ("chrono-Compatible Low-Level Date
    /// Algorithms", 2013), for days since 1970 only.
    pub fn from_unix_ns(unix_ns: u64) -> Self {
        let seconds = unix_ns / 1_000_000_000;
        let (days, of_day) = (seconds / 86_400, seconds % 86_400);
        // Days since 1 March of the year 0, in eras of 400 years.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: of_day / 3_600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
        }
    }

    /// For reading: `2025-01-31 09:45 UTC`.
    pub fn to_minutes(self) -> String {
        let Self { year, month, day, hour, minute, .. } = self;
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
    }

    /// For names of files: `20250131-094500`.
    pub fn compact(self) -> String {
        let Self { year, month, day, hour, minute, second } = self;
        format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
    }

    /// For `touch -t`: `202501310945.00`.
    pub fn touch(self) -> String {
        let Self { year, month, day, hour, minute, second } = self;
        format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}.{second:02}")
    }
}

impl fmt::Display for Date {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second } = self;
        write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let check = |seconds: u64, wanted: &str| {
            assert_eq!(Date::from_unix_ns(seconds * 1_000_000_000 + 999).to_string(), wanted);
        };
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(951_868_800, "2000-03-01T00:00:00Z");
        check(1_709_164_800, "2024-02-29T00:00:00Z");
        check(1_735_689_599, "2024-12-31T23:59:59Z");
        check(1_763_904_602, "2025-11-23T13:30:02Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
        let date = Date::from_unix_ns(1_763_904_602_000_000_000);
        assert_eq!(date.to_minutes(), "2025-11-23 13:30 UTC");
        assert_eq!(date.compact(), "20251123-133002");
        assert_eq!(date.touch(), "202511231330.02");
    }
}
