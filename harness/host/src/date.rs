//! Dates in UTC, from nanoseconds since 1970.

use jiff::Timestamp;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in nanoseconds since 1970. A clock set before 1970 gives 0.
pub fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A date and time of day in UTC, to the second. Displayed as in ISO 8601: `2025-01-31T09:45:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(Timestamp);

impl Date {
    /// The date of a moment in nanoseconds since 1970.
    pub fn from_unix_ns(unix_ns: u64) -> Self {
        let seconds = i64::try_from(unix_ns / 1_000_000_000).unwrap_or(i64::MAX);
        Self(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
    }

    /// For reading: `2025-01-31 09:45 UTC`.
    pub fn to_minutes(self) -> String {
        self.0.strftime("%Y-%m-%d %H:%M UTC").to_string()
    }

    /// For file names: `20250131-094500`.
    pub fn compact(self) -> String {
        self.0.strftime("%Y%m%d-%H%M%S").to_string()
    }

    /// For `touch -t`: `202501310945.00`.
    pub fn touch(self) -> String {
        self.0.strftime("%Y%m%d%H%M.%S").to_string()
    }
}

impl fmt::Display for Date {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0.strftime("%Y-%m-%dT%H:%M:%SZ"))
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
        check(1_763_904_602, "2025-11-23T13:30:02Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
        let date = Date::from_unix_ns(1_763_904_602_000_000_000);
        assert_eq!(date.to_minutes(), "2025-11-23 13:30 UTC");
        assert_eq!(date.compact(), "20251123-133002");
        assert_eq!(date.touch(), "202511231330.02");
        assert_eq!(Date::from_unix_ns(u64::MAX).compact(), "25540721-233433");
    }
}
