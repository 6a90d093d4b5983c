//! Figures of a stream: latency, drops and age, with intervals, and whether the source kept its pace.
//!
//! Frames of a stream are not independent: a frame that waits long is often followed by others that wait. So no interval
//! here treats them as independent. The frames of all trials are cut into at least [`SECTIONS`] consecutive sections, a share
//! is that of all frames together, and its variance is estimated from the shares of the sections (sectioning;
//! Asmussen & Glynn 2007, "Stochastic simulation", chapter III). Sections are longer than the memory of a queue unless a trial is very short.

use crate::distributions::student_quantile;
use crate::samples::{Samples, quantile_of_ascending};
use crate::statistics::{Confidence, Interval, Method};
use crate::units::{FramesPerSecond, Nanoseconds};
use crate::validity::{Reason, ReasonCode, Severity};

/// Fewest sections of all trials together.
pub const SECTIONS: usize = 10;

/// Sections of each trial, if there are this many trials.
pub fn sections_of_each(trials: usize) -> usize {
    SECTIONS.div_ceil(trials.max(1))
}

/// Frames that a quantile needs: with fewer, all of them may lie on the same side of it by chance (probability 2.5 %), so
/// that no interval of 95 % has both ends. 6 for the median, 36 for p90, 368 for p99.
pub fn frames_needed(p: f64) -> usize {
    let rarer = p.max(1.0 - p);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and small")]
    {
        (Confidence::P95.tail().ln() / rarer.ln()).ceil() as usize
    }
}

/// A quantile over the frames of all trials, each in the order of completion. Absent without frames. Both ends are absent with
/// fewer than [`frames_needed`]. The upper end is also absent if the quantile may exceed all frames, because the frames depend on
/// each other.
///
/// The variance cannot be estimated from the quantiles of sections: a short section hardly has a frame above a high quantile, so
/// its quantiles are too low and too similar. The share of frames above the quantile has no such bias. The interval of this share
/// over the sections is converted to an interval of the quantile: the values that these shares of the frames exceed (Woodruff
/// 1952, "Confidence intervals for medians and other position measures").
pub fn quantile(trials: &[&[f64]], p: f64) -> Option<Interval> {
    let mut all: Vec<f64> = trials.iter().flat_map(|trial| trial.iter().copied()).collect();
    all.sort_unstable_by(f64::total_cmp);
    let point = (!all.is_empty()).then(|| quantile_of_ascending(&all, p))?;
    let absent = Interval::absent(point, Confidence::P95, all.len());
    let each = sections_of_each(trials.len());
    let sections: Vec<Share> = trials
        .iter()
        .flat_map(|trial| trial.chunks(trial.len().div_ceil(each).max(1)))
        .map(|section| Share {
            part: section.iter().filter(|frame| **frame > point).count() as u64,
            whole: section.len() as u64,
        })
        .collect();
    if all.len() < frames_needed(p) || sections.len() < 2 {
        return Some(absent);
    }
    let half = reach(sections.len()) * deviation(&sections);
    let end = |p: f64| quantile_of_ascending(&all, p);
    if p + half >= 1.0 {
        return Some(Interval { lo: Some(end((p - half).max(0.0))), ..absent });
    }
    let ends = (end((p - half).max(0.0)), end(p + half));
    Some(Interval::around(point, ends, Confidence::P95, Method::Sections, all.len()))
}

/// The longest latency. Its lower end is itself: a longer one is possible however many frames there are.
pub fn longest(trials: &[&[f64]]) -> Option<Interval> {
    let frames = trials.iter().map(|trial| trial.len()).sum();
    let longest = trials.iter().flat_map(|trial| trial.iter().copied()).max_by(f64::total_cmp)?;
    Some(Interval { lo: Some(longest), ..Interval::absent(longest, Confidence::P95, frames) })
}

/// Counts of a section.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Frames that count, such as dropped ones.
    pub part: u64,
    /// All frames.
    pub whole: u64,
}

/// A share of frames over all sections of this many trials. Absent without frames. If no frame counts, the upper end is at least
/// the share at which one of these frames would count with a probability of 95 %.
pub fn share(sections: &[Share], trials: usize) -> Option<Interval> {
    let sections: Vec<Share> = sections.iter().copied().filter(|section| section.whole > 0).collect();
    let part = sections.iter().fold(0u64, |sum, section| sum.saturating_add(section.part));
    let whole = sections.iter().fold(0u64, |sum, section| sum.saturating_add(section.whole));
    if whole == 0 {
        return None;
    }
    let count = usize::try_from(whole).unwrap_or(usize::MAX);
    let point = part as f64 / whole as f64;
    let rare = 1.0 - 0.05_f64.powf(1.0 / whole as f64);
    let half = if sections.len() < 2 {
        rare
    } else {
        // At the edges of each window, there can be a frame more or less.
        (reach(sections.len()) * deviation(&sections)).max(trials as f64 / whole as f64)
    };
    let half = if part == 0 || part == whole { half.max(rare) } else { half };
    let ends = ((point - half).max(0.0), (point + half).min(1.0));
    Some(Interval::around(point, ends, Confidence::P95, Method::Sections, count))
}

/// Standard deviation of the share of all sections together: that of a ratio.
fn deviation(sections: &[Share]) -> f64 {
    let sum = |of: fn(&Share) -> u64| sections.iter().map(|section| of(section) as f64).sum::<f64>();
    let whole = sum(|section| section.whole);
    let share = sum(|section| section.part) / whole;
    let residual = |section: &Share| (section.part as f64 - share * section.whole as f64).powi(2);
    let squares: f64 = sections.iter().map(residual).sum();
    let number = sections.len() as f64;
    (number / (number - 1.0) * squares).sqrt() / whole
}

fn reach(sections: usize) -> f64 {
    student_quantile(1.0 - Confidence::P95.tail(), (sections - 1) as f64)
}

/// A completed frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completed {
    /// When it completed, in ns.
    pub at_ns: u64,
    /// How long after its scheduled arrival that was, in ns.
    pub since_arrival_ns: u64,
}

/// Mean age of the newest result in ns, from the first completion to the last one: how old the frame is that a user of the
/// results sees at a random moment. `completed` is of one stream, in the order of completion.
pub fn mean_age(completed: &[Completed]) -> Option<f64> {
    let first = completed.first()?.at_ns;
    let span = completed.last()?.at_ns - first;
    if span == 0 {
        return None;
    }
    let mut newest = i128::MIN;
    let mut area = 0.0;
    for pair in completed.windows(2) {
        // A replica may complete an older frame later.
        newest = newest.max(i128::from(pair[0].at_ns) - i128::from(pair[0].since_arrival_ns));
        let age = (i128::from(pair[0].at_ns) - newest) as f64;
        let length = (pair[1].at_ns - pair[0].at_ns) as f64;
        area += length * (age + 0.5 * length);
    }
    Some(area / span as f64)
}

/// Jitter of the output: standard deviation of the times between results.
pub fn jitter(between: &[Nanoseconds]) -> Option<f64> {
    Samples::of_durations(between).ok()?.deviation()
}

/// Void if the source did not keep its pace: 1 % of the frames were late by more than a tenth of the interval of a stream
/// and by more than 1 ms, or one frame by more than 100 ms and by more than two intervals. If the interval is shorter
/// than 1 ms, 1 % of the frames may be late by one interval: frames that are offered together fill a queue that they
/// would not fill if they arrived on time.
pub fn source_pace(late_p99_ns: f64, longest_ns: f64, interval_ns: f64) -> Option<Reason> {
    let milliseconds = |ns: f64| {
        if ns < 1e6 { format!("{:.0} µs", ns / 1e3) } else { format!("{:.1} ms", ns / 1e6) }
    };
    let allowed_ns = (0.1 * interval_ns).max(interval_ns.min(1e6));
    let (text, remedy) = if longest_ns > (2.0 * interval_ns).max(1e8) {
        let text = format!(
            "the source was delayed by {}: the frames that were scheduled meanwhile were offered late or not at all",
            milliseconds(longest_ns)
        );
        (text, "something stopped the runner (SIGSTOP, a debugger, a suspended machine); measure again")
    } else if late_p99_ns > allowed_ns {
        let text = format!(
            "the source did not keep its pace: 1 % of the frames were offered more than {} late ({} allowed)",
            milliseconds(late_p99_ns),
            milliseconds(allowed_ns)
        );
        let remedy = "leave the source a CPU that no processor of the board file uses, or let the runner use real-time \
                      priorities (as root, or with CAP_SYS_NICE)";
        (text, remedy)
    } else {
        return None;
    };
    Some(Reason::new(ReasonCode::SourceLate, Severity::Void, text, remedy))
}

/// Whether latency and queue had settled when the window opened.
pub fn settled(settled: bool) -> Option<Reason> {
    (!settled).then(|| {
        let text = "latency or queue length had not settled when the window opened".to_owned();
        let remedy =
            "raise `warm_up.max_seconds`; if the schedule does not keep up with the stream, lower `fps`";
        Reason::new(ReasonCode::NotSteady, Severity::Warn, text, remedy)
    })
}

/// Warns if latency rose throughout the window: from each third to the next, and from the first to the last by more than an
/// interval between frames and by more than 2 % of the time between these thirds. `since_arrival_ns` is in the order of
/// completion.
pub fn growth(since_arrival_ns: &[f64], interval_ns: f64, offered: FramesPerSecond) -> Option<Reason> {
    if since_arrival_ns.len() < 30 {
        return None;
    }
    let third = since_arrival_ns.len() / 3;
    let medians: Vec<f64> = [0, third, 2 * third]
        .into_iter()
        .filter_map(|first| Some(Samples::new(&since_arrival_ns[first..first + third]).ok()?.median()))
        .collect();
    let [first, second, last] = medians[..] else { return None };
    let between_ns = 2.0 * third as f64 * interval_ns;
    let grows = first < second && second < last && last - first > interval_ns.max(0.02 * between_ns);
    grows.then(|| {
        let text = format!(
            "the schedule does not keep up with {offered}: latency rose from {:.1} ms to {:.1} ms within the window, and \
             would rise further",
            first / 1e6,
            last / 1e6
        );
        let remedy = "lower `fps`, or choose a policy that drops frames; the latencies are those of this window only";
        Reason::new(ReasonCode::LatencyGrows, Severity::Warn, text, remedy)
    })
}

/// Notes that only the first frames of a window have individual time stamps.
pub fn stamps_limited(kept: usize, frames: u64) -> Reason {
    let text = format!(
        "{kept} of {frames} frames have individual time stamps; quantiles are from a histogram of all frames (error below 0.2 %), \
         age, jitter and queue length from the first {kept}"
    );
    let remedy = "raise `measure.max_frames` if the board has memory for more time stamps";
    Reason::new(ReasonCode::StampsLimited, Severity::Warn, text, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    #[test]
    fn a_quantile_needs_frames() {
        assert_eq!([0.5, 0.9, 0.99].map(frames_needed), [6, 36, 368]);
        let frames: Vec<f64> = (1..=367).map(|frame| f64::from(frame * 89 % 368)).collect();
        let p99 = quantile(&[&frames], 0.99).unwrap();
        assert_eq!((p99.lo, p99.hi, p99.count), (None, None, 367));
        let p90 = quantile(&[&frames], 0.9).unwrap();
        assert!(p90.lo.unwrap() < p90.point && p90.point < p90.hi.unwrap());
        // All long ones follow each other, as while a queue was long: there may be longer ones.
        let rising: Vec<f64> = (1..=1000).map(f64::from).collect();
        let p99 = quantile(&[&rising], 0.99).unwrap();
        assert!(p99.lo.unwrap() < p99.point && p99.hi.is_none(), "{p99:?}");
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[&[][..]], 0.5), None);
    }

    #[test]
    fn equal_latencies_have_an_interval_without_width() {
        let frames = vec![5e6; 400];
        let median = quantile(&[&frames, &frames], 0.5).unwrap();
        assert_eq!((median.point, median.lo, median.hi), (5e6, Some(5e6), Some(5e6)));
        assert_eq!(longest(&[&frames]).map(|longest| (longest.lo, longest.hi)), Some((Some(5e6), None)));
    }

    /// Waiting times in a queue: an autoregressive process, whose neighbours are alike.
    fn correlated(random: &mut SplitMix64, frames: usize) -> Vec<f64> {
        let mut level = 0.0;
        (0..frames)
            .map(|_| {
                let normal: f64 = (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
                level = 0.9 * level + normal;
                100.0 + level
            })
            .collect()
    }

    #[test]
    fn intervals_of_dependent_frames_hold_the_truth() {
        // The stationary deviation is 1 / sqrt(1 - 0.9^2).
        let deviation = 1.0 / (1.0 - 0.81_f64).sqrt();
        for (trials, p, z) in [(1, 0.5, 0.0), (5, 0.5, 0.0), (5, 0.9, 1.281_55), (5, 0.99, 2.326_35)] {
            let mut random = SplitMix64::new(17);
            let covered = (0..200).filter(|_| {
                let frames: Vec<Vec<f64>> =
                    (0..trials).map(|_| correlated(&mut random, 5000 / trials)).collect();
                let slices: Vec<&[f64]> = frames.iter().map(Vec::as_slice).collect();
                let (found, truth) = (quantile(&slices, p).unwrap(), 100.0 + z * deviation);
                found.lo.unwrap() <= truth && found.hi.is_none_or(|hi| truth <= hi)
            });
            let covered = covered.count();
            assert!((180..=200).contains(&covered), "{covered} of 200 at {p} in {trials} trials");
        }
    }

    #[test]
    fn a_share_without_a_case_is_not_known_to_be_zero() {
        let none = share(&[Share { part: 0, whole: 150 }; 2], 1).unwrap();
        assert_eq!((none.point, none.lo), (0.0, Some(0.0)));
        assert!((none.hi.unwrap() - 3.0 / 300.0).abs() < 1e-4, "the rule of three: {none:?}");
        let half = share(&[Share { part: 50, whole: 100 }, Share { part: 50, whole: 100 }], 1).unwrap();
        assert_eq!((half.point, half.lo, half.hi), (0.5, Some(0.495), Some(0.505)));
        let unlike = share(&[Share { part: 10, whole: 100 }, Share { part: 90, whole: 100 }], 1).unwrap();
        assert_eq!((unlike.lo, unlike.hi), (Some(0.0), Some(1.0)));
        assert_eq!(share(&[Share { part: 0, whole: 0 }], 1), None);
        assert_eq!(share(&[], 1), None);
    }

    #[test]
    fn the_age_of_the_newest_result() {
        let completed = |times: &[(u64, u64)]| -> Vec<Completed> {
            times
                .iter()
                .map(|(at_ns, since_arrival_ns)| Completed {
                    at_ns: *at_ns,
                    since_arrival_ns: *since_arrival_ns,
                })
                .collect()
        };
        // A result each 10 ns of frames that arrived 4 ns before: the age goes from 4 to 14.
        assert_eq!(mean_age(&completed(&[(10, 4), (20, 4), (30, 4)])), Some(9.0));
        // The second result is of an older frame than the first.
        assert_eq!(mean_age(&completed(&[(10, 4), (20, 19), (30, 4)])), Some(14.0));
        assert_eq!((mean_age(&completed(&[(10, 4)])), mean_age(&[])), (None, None));
    }

    #[test]
    fn a_source_that_does_not_keep_its_pace_voids() {
        let interval = 1e9 / 30.0;
        assert_eq!(source_pace(9e4, 2e6, interval), None);
        assert_eq!(source_pace(3.3e6, 9e7, interval), None);
        let late = source_pace(3.4e6, 9e7, interval).unwrap();
        assert_eq!((late.code, late.severity), (ReasonCode::SourceLate, Severity::Void));
        assert!(late.text.contains("more than 3.4 ms late (3.3 ms allowed)"), "{}", late.text);
        assert!(source_pace(1.1e6, 1.1e6, 1e6).unwrap().text.contains("(1.0 ms allowed)"));
        assert_eq!(source_pace(9e4, 1e6, 1e5), None);
        let fast = source_pace(1.1e5, 1.1e5, 1e5).unwrap();
        assert!(fast.text.contains("more than 110 µs late (100 µs allowed)"), "{}", fast.text);
        let held_up = source_pace(0.0, 2.0e9, interval).unwrap();
        assert!(held_up.text.starts_with("the source was delayed by 2000.0 ms"), "{}", held_up.text);
    }

    #[test]
    fn latency_that_grows_is_told() {
        let of = |latency: &dyn Fn(f64) -> f64| -> Vec<f64> {
            (0..300).map(|frame| latency(f64::from(frame))).collect()
        };
        let (interval, offered) = (5e6, FramesPerSecond(200.0));
        assert_eq!(growth(&of(&|_| 20e6), interval, offered), None);
        assert_eq!(growth(&of(&|frame| 20e6 + (frame % 7.0) * 4e6), interval, offered), None);
        assert_eq!(growth(&of(&|frame| 1e6 + frame * 1e4), interval, offered), None, "within a frame");
        assert_eq!(growth(&of(&|frame| 20e6 + frame * 9e4), interval, offered), None, "2 % of the time");
        assert!(growth(&of(&|frame| 900e6 + frame * 2e5), interval, offered).is_some());
        let reason = growth(&of(&|frame| 20e6 + frame * 1e6), interval, offered).unwrap();
        assert_eq!((reason.code, reason.severity), (ReasonCode::LatencyGrows, Severity::Warn));
        assert!(reason.text.contains("rose from 69.5 ms to 269.5 ms"), "{}", reason.text);
        assert_eq!(growth(&[1.0; 29], interval, offered), None);
    }
}
