//! Disturbances of a window, detected from its frames and the machine's state. Nothing is dropped: the report shows a
//! warning beside the figures.

use crate::samples::Samples;
use crate::steady::steadiness;
use crate::units::{FramesPerSecond, Nanoseconds};
use crate::validity::{Reason, ReasonCode, Severity};

/// Smallest reported change of throughput within a window.
const PACE: f64 = 0.05;
/// Smallest reported distance of an outlier from the median. Without it, tiny deviations among trials that agree closely
/// would be outliers.
const OUTLIER: f64 = 0.03;
/// Fewest trials in which outliers are searched.
const FEWEST: usize = 5;
/// Smallest reported rise of a temperature within a window, in degrees Celsius.
const WARMER: f64 = 8.0;
/// Smallest reported number of minor page faults per frame: each costs about a microsecond.
const FAULTS: f64 = 100.0;

/// Changes of throughput within the window, from `frame_times` in the order of completion; see [`steadiness`].
pub fn pace(frame_times: &[Nanoseconds]) -> Option<Reason> {
    let found = steadiness(frame_times)?;
    let rate = |pace_ns: f64| FramesPerSecond::from_frame_ns(pace_ns);
    let slowest = found.stretches.iter().max_by(|one, other| one.pace_ns.total_cmp(&other.pace_ns))?;
    let fastest = found.stretches.iter().min_by(|one, other| one.pace_ns.total_cmp(&other.pace_ns))?;
    let share = 1.0 - fastest.pace_ns / slowest.pace_ns;
    (share > PACE).then(|| {
        let text = format!(
            "throughput changed within the window: {} in frames {} to {}, {} in frames {} to {}",
            rate(fastest.pace_ns),
            fastest.first,
            fastest.end,
            rate(slowest.pace_ns),
            slowest.first,
            slowest.end
        );
        let remedy = "check for other processes and for lower clocks; all frames are counted";
        Reason::new(ReasonCode::PaceChanged, Severity::Warn, text, remedy)
    })
}

/// Outliers among the trials of a schedule, which are pairs of round and throughput; see [`Samples::is_outlying`].
pub fn outliers(trials: &[(u32, FramesPerSecond)]) -> Option<Reason> {
    if trials.len() < FEWEST {
        return None;
    }
    let rates: Vec<f64> = trials.iter().map(|(_, rate)| rate.0).collect();
    let samples = Samples::new(&rates).ok()?;
    let median = samples.median();
    let is_outlier = |rate: f64| samples.is_outlying(rate) && (rate / median - 1.0).abs() > OUTLIER;
    let found: Vec<String> = trials
        .iter()
        .filter(|(_, rate)| is_outlier(rate.0))
        .map(|(round, rate)| format!("{rate} in round {}", round + 1))
        .collect();
    (!found.is_empty()).then(|| {
        let text = format!(
            "outliers in {} of {} trials: {}; the median is {}",
            found.len(),
            trials.len(),
            found.join(", "),
            FramesPerSecond(median)
        );
        let remedy = "outliers are counted and widen the interval; more trials narrow it";
        Reason::new(ReasonCode::OutlyingTrials, Severity::Warn, text, remedy)
    })
}

/// Temperature of a zone before and after the window, in degrees Celsius.
pub fn warmer(zone: &str, before: f64, after: f64) -> Option<Reason> {
    (after - before >= WARMER).then(|| {
        let text = format!("{zone} warmed from {before:.0} to {after:.0} °C during the window");
        let remedy = "let the board cool down between trials (`cooldown_seconds`), or improve its cooling";
        Reason::new(ReasonCode::Warmed, Severity::Warn, text, remedy)
    })
}

/// Minor page faults of all stages in the window.
pub fn minor_faults(faults: u64, frames: usize) -> Option<Reason> {
    let each = faults as f64 / frames.max(1) as f64;
    (each >= FAULTS).then(|| {
        let text = format!("{each:.0} minor page faults per frame");
        let remedy = "the engine may release its memory after each frame; if it does not, raise `warm_up`";
        Reason::new(ReasonCode::MinorFaults, Severity::Warn, text, remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(paces: &[(usize, u64)]) -> Vec<Nanoseconds> {
        let wobble = |frame: usize| (frame * 7919 % 13) as u64;
        paces
            .iter()
            .flat_map(|&(count, ns)| (0..count).map(move |frame| Nanoseconds(ns + ns / 1000 * wobble(frame))))
            .collect()
    }

    #[test]
    fn a_change_of_pace_is_told_with_its_place() {
        assert_eq!(pace(&frames(&[(200, 1_000_000)])), None);
        assert_eq!(pace(&frames(&[(100, 1_000_000), (100, 1_020_000)])), None, "too little to tell");
        let found = pace(&frames(&[(100, 1_000_000), (100, 1_500_000)])).unwrap();
        assert_eq!((found.code, found.severity), (ReasonCode::PaceChanged, Severity::Warn));
        assert!(found.text.contains("in frames 0 to 100"), "{}", found.text);
        assert_eq!(pace(&frames(&[(5, 1_000_000)])), None, "too few to tell");
    }

    #[test]
    fn an_outlier_is_named() {
        let trials = |rates: &[f64]| -> Vec<(u32, FramesPerSecond)> {
            (0..).zip(rates.iter().map(|rate| FramesPerSecond(*rate))).collect()
        };
        let found = outliers(&trials(&[100.0, 101.0, 50.0, 99.0, 100.5])).unwrap();
        assert_eq!(found.code, ReasonCode::OutlyingTrials);
        assert!(
            found.text.starts_with("outliers in 1 of 5 trials: 50.0") && found.text.contains("round 3"),
            "{}",
            found.text
        );
        assert_eq!(outliers(&trials(&[100.0, 100.1, 100.2, 100.0, 101.5])), None, "apart, but by little");
        assert_eq!(outliers(&trials(&[100.0, 101.0, 50.0])), None, "too few to tell");
    }

    #[test]
    fn warmth_and_fresh_pages() {
        assert!(warmer("MCPU-therm", 40.0, 49.5).unwrap().text.contains("from 40 to 50 °C"));
        assert_eq!(warmer("PMIC-Die", 100.0, 100.0), None);
        assert_eq!(minor_faults(900, 10), None);
        assert!(minor_faults(5000, 10).unwrap().text.starts_with("500 minor page faults"));
    }
}
