//! Quantities with their units, so that a duration is never added to a size.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A duration in nanoseconds, or a point on a board's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanoseconds(pub u64);

impl Nanoseconds {
    /// These numbers of nanoseconds.
    pub fn of_all(values: Vec<u64>) -> Vec<Self> {
        values.into_iter().map(Self).collect()
    }

    /// As a floating-point number of nanoseconds; exact below 2^53 ns, which are 104 days.
    pub fn as_f64(self) -> f64 {
        self.0 as f64
    }

    /// In milliseconds.
    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl fmt::Display for Nanoseconds {
    /// In the unit that leaves one to three digits before the point: `870 ns`, `12.4 µs`, `3.20 ms`, `1.50 s`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.as_f64();
        match self.0 {
            0..1_000 => write!(out, "{} ns", self.0),
            1_000..1_000_000 => write!(out, "{} µs", three_digits(ns / 1e3)),
            1_000_000..1_000_000_000 => write!(out, "{} ms", three_digits(ns / 1e6)),
            _ => write!(out, "{} s", three_digits(ns / 1e9)),
        }
    }
}

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    /// In binary multiples: `512 B`, `1.50 KiB`, `12.0 MiB`, `2.25 GiB`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const KIB: u64 = 1 << 10;
        const MIB: u64 = 1 << 20;
        const GIB: u64 = 1 << 30;
        let bytes = self.0 as f64;
        match self.0 {
            0..KIB => write!(out, "{} B", self.0),
            KIB..MIB => write!(out, "{} KiB", three_digits(bytes / KIB as f64)),
            MIB..GIB => write!(out, "{} MiB", three_digits(bytes / MIB as f64)),
            _ => write!(out, "{} GiB", three_digits(bytes / GIB as f64)),
        }
    }
}

/// A rate of frames per second.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FramesPerSecond(pub f64);

impl FramesPerSecond {
    /// One frame every `ns` nanoseconds; infinite if `ns` is zero.
    pub fn from_frame_ns(ns: f64) -> Self {
        Self(1e9 / ns)
    }
}

impl fmt::Display for FramesPerSecond {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} frames/s", three_digits(self.0))
    }
}

/// A power in milliwatts.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Milliwatts(pub f64);

impl fmt::Display for Milliwatts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} mW", three_digits(self.0))
    }
}

/// An energy in millijoules.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millijoules(pub f64);

impl fmt::Display for Millijoules {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} mJ", three_digits(self.0))
    }
}

/// At least three digits, no more decimals than that needs.
fn three_digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_shown_in_the_unit_that_fits() {
        let check = |shown: String, wanted: &str| assert_eq!(shown, wanted);
        check(Nanoseconds(870).to_string(), "870 ns");
        check(Nanoseconds(12_400).to_string(), "12.4 µs");
        check(Nanoseconds(3_200_000).to_string(), "3.20 ms");
        check(Nanoseconds(1_500_000_000).to_string(), "1.50 s");
        check(Bytes(512).to_string(), "512 B");
        check(Bytes(602_112).to_string(), "588 KiB");
        check(Bytes(12 << 20).to_string(), "12.0 MiB");
        check(Bytes(9 << 28).to_string(), "2.25 GiB");
        check(FramesPerSecond(41.27).to_string(), "41.3 frames/s");
        check(Milliwatts(7421.0).to_string(), "7421 mW");
        check(Millijoules(1.5).to_string(), "1.50 mJ");
    }

    #[test]
    fn on_the_wire_a_quantity_is_a_bare_number() {
        assert_eq!(serde_json::to_string(&Nanoseconds(5)).unwrap(), "5");
        assert_eq!(serde_json::from_str::<Bytes>("7").unwrap(), Bytes(7));
        assert_eq!(serde_json::to_string(&FramesPerSecond(2.5)).unwrap(), "2.5");
    }

    #[test]
    fn a_frame_time_is_a_rate() {
        assert!((FramesPerSecond::from_frame_ns(2e6).0 - 500.0).abs() < 1e-9);
        assert!(FramesPerSecond::from_frame_ns(0.0).0.is_infinite());
    }
}
