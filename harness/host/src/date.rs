//! Dates in UTC, from nanoseconds since 1970.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in nanoseconds since 1970. A clock set before 1970 gives 0.
pub fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A date and time of day in UTC, to the second. Displayed as in ISO 8601: `2025-01-31T09:45:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    year: u64,
    /// From 1.
    month: u64,
    /// From 1.
    day: u64,
    /// Since midnight.
    seconds: u64,
}

const DAY: u64 = 24 * 60 * 60;
/// Days from the first of March of the year 0 to 1970.
const DAYS_BEFORE_1970: u64 = 719_468;
/// Days after which the Gregorian calendar repeats: 400 years.
const DAYS_OF_ERA: u64 = 146_097;

impl Date {
    /// The date of a moment in nanoseconds since 1970.
    ///
    /// A year is taken to begin in March, so that a leap day is its last (Hinnant, "chrono-compatible low-level date
    /// algorithms", `civil_from_days`).
    pub fn from_unix_ns(unix_ns: u64) -> Self {
        let since_1970 = unix_ns / 1_000_000_000;
        let days = since_1970 / DAY + DAYS_BEFORE_1970;
        let (era, day_of_era) = (days / DAYS_OF_ERA, days % DAYS_OF_ERA);
        let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
        let year_of_era = (day_of_era - leap_days) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // Months from March on have 31, 30, 31, 30, 31 days, twice, and then again.
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = 400 * era + year_of_era + u64::from(month <= 2);
        Self { year, month, day, seconds: since_1970 % DAY }
    }

    fn hour(self) -> u64 {
        self.seconds / 3600
    }

    fn minute(self) -> u64 {
        self.seconds / 60 % 60
    }

    fn second(self) -> u64 {
        self.seconds % 60
    }

    /// For reading: `2025-01-31 09:45 UTC`.
    pub fn to_minutes(self) -> String {
        let Self { year, month, day, .. } = self;
        format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", self.hour(), self.minute())
    }

    /// For file names: `20250131-094500`.
    pub fn compact(self) -> String {
        let Self { year, month, day, .. } = self;
        let (hour, minute, second) = (self.hour(), self.minute(), self.second());
        format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
    }

    /// For `touch -t`: `202501310945.00`.
    pub fn touch(self) -> String {
        let Self { year, month, day, .. } = self;
        let (hour, minute, second) = (self.hour(), self.minute(), self.second());
        format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}.{second:02}")
    }
}

impl fmt::Display for Date {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, .. } = self;
        let (hour, minute, second) = (self.hour(), self.minute(), self.second());
        write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_day_follows_the_one_before() {
        let is_leap =
            |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let (mut year, mut month, mut day) = (1970, 1, 1);
        // Nanoseconds since 1970 end in 2554.
        for number in 0..u64::MAX / 1_000_000_000 / DAY {
            let date = Date::from_unix_ns(number * DAY * 1_000_000_000);
            assert_eq!((date.year, date.month, date.day, date.seconds), (year, month, day, 0));
            let length = match month {
                2 => 28 + u64::from(is_leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
        assert_eq!((year, month, day), (2554, 7, 21));
    }

    #[test]
    fn dates() {
        let check = |seconds: u64, wanted: &str| {
            assert_eq!(Date::from_unix_ns(seconds * 1_000_000_000 + 999).to_string(), wanted);
        };
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(951_868_800, "2000-03-01T00:00:00Z");
        check(1_763_904_602, "2025-11-23T13:30:02Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
        let date = Date::from_unix_ns(1_763_904_602_000_000_000);
        assert_eq!(date.to_minutes(), "2025-11-23 13:30 UTC");
        assert_eq!(date.compact(), "20251123-133002");
        assert_eq!(date.touch(), "202511231330.02");
        assert_eq!(Date::from_unix_ns(u64::MAX).compact(), "25540721-233433");
    }
}
