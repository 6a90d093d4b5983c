//! What disturbed a window, seen in its own frames and in the machine's state around it. Nothing is dropped for it:
//! the report says so beside the figures.

use crate::samples::Samples;
use crate::steady::steadiness;
use crate::units::{FramesPerSecond, Nanoseconds};
use crate::validity::{Reason, ReasonCode, Severity};

/// A change of pace inside a window is told from this share on.
const PACE: f64 = 0.05;
/// A trial apart from the others is told where it differs from their median by this share at least; below, trials
/// that agree closely would make every one an outlier.
const APART: f64 = 0.03;
/// Fewest trials among which one can stand apart.
const FEWEST: usize = 5;
/// A zone that warms up by so many degrees Celsius in a window is told.
const WARMER: f64 = 8.0;
/// Page faults served from memory, a frame, from which on they are told: each costs about a microsecond.
const FAULTS: f64 = 100.0;

/// Changes of pace inside the window, by `frame_times` in the order of completion ([`steadiness`] says how they are
/// found).
pub fn pace(frame_times: &[Nanoseconds]) -> Option<Reason> {
    let found = steadiness(frame_times)?;
    let rate = |pace_ns: f64| FramesPerSecond::from_frame_ns(pace_ns);
    let slowest = found.stretches.iter().max_by(|one, other| one.pace_ns.total_cmp(&other.pace_ns))?;
    let fastest = found.stretches.iter().min_by(|one, other| one.pace_ns.total_cmp(&other.pace_ns))?;
    let share = 1.0 - fastest.pace_ns / slowest.pace_ns;
    (share > PACE).then(|| {
        let text = format!(
            "the pace changed inside the window: {} in frames {} to {}, {} in frames {} to {}",
            rate(fastest.pace_ns),
            fastest.first,
            fastest.end,
            rate(slowest.pace_ns),
            slowest.first,
            slowest.end
        );
        let remedy = "look for what else ran, or for clocks that dropped; all frames count";
        Reason::new(ReasonCode::PaceChanged, Severity::Warn, text, remedy)
    })
}

/// Trials far from the others of their schedule, as pairs of round and throughput ([`Samples::is_outlying`] says how
/// far).
pub fn apart(trials: &[(u32, FramesPerSecond)]) -> Option<Reason> {
    if trials.len() < FEWEST {
        return None;
    }
    let rates: Vec<f64> = trials.iter().map(|(_, rate)| rate.0).collect();
    let samples = Samples::new(&rates).ok()?;
    let median = samples.median();
    let is_apart = |rate: f64| samples.is_outlying(rate) && (rate / median - 1.0).abs() > APART;
    let found: Vec<String> = trials
        .iter()
        .filter(|(_, rate)| is_apart(rate.0))
        .map(|(round, rate)| format!("{rate} in round {}", round + 1))
        .collect();
    (!found.is_empty()).then(|| {
        let text = format!(
            "{} of {} trials lie apart from the others: {}; the median is {}",
            found.len(),
            trials.len(),
            found.join(", "),
            FramesPerSecond(median)
        );
        let remedy = "they count, and the interval has room for them; more trials narrow it";
        Reason::new(ReasonCode::OutlyingTrials, Severity::Warn, text, remedy)
    })
}

/// Temperature of a zone before and after the window, in degrees Celsius.
pub fn warmer(zone: &str, before: f64, after: f64) -> Option<Reason> {
    (after - before >= WARMER).then(|| {
        let text = format!("{zone} rose from {before:.0} to {after:.0} °C in the window");
        let remedy = "let the board cool down between trials (`cooldown_seconds`), or cool it better";
        Reason::new(ReasonCode::Warmed, Severity::Warn, text, remedy)
    })
}

/// Page faults served from memory in the window, of all stages.
pub fn minor_faults(faults: u64, frames: usize) -> Option<Reason> {
    let each = faults as f64 / frames.max(1) as f64;
    (each >= FAULTS).then(|| {
        let text = format!("{each:.0} pages a frame were new to the process");
        let remedy =
            "an engine that gives memory back after every frame pays for it; raise `warm_up` otherwise";
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
    fn a_trial_apart_is_named() {
        let trials = |rates: &[f64]| -> Vec<(u32, FramesPerSecond)> {
            (0..).zip(rates.iter().map(|rate| FramesPerSecond(*rate))).collect()
        };
        let found = apart(&trials(&[100.0, 101.0, 50.0, 99.0, 100.5])).unwrap();
        assert_eq!(found.code, ReasonCode::OutlyingTrials);
        assert!(found.text.starts_with("1 of 5 trials") && found.text.contains("round 3"), "{}", found.text);
        assert_eq!(apart(&trials(&[100.0, 100.1, 100.2, 100.0, 101.5])), None, "apart, but by little");
        assert_eq!(apart(&trials(&[100.0, 101.0, 50.0])), None, "too few to tell");
    }

    #[test]
    fn warmth_and_fresh_pages() {
        assert!(warmer("MCPU-therm", 40.0, 49.5).unwrap().text.contains("from 40 to 50 °C"));
        assert_eq!(warmer("PMIC-Die", 100.0, 100.0), None);
        assert_eq!(minor_faults(900, 10), None);
        assert!(minor_faults(5000, 10).unwrap().text.starts_with("500 pages"));
    }
}
