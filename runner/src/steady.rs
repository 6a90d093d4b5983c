//! When the pace of completions has become steady.

/// Largest group compared, in frames.
const LARGEST: usize = 32;
/// Largest difference of two medians that counts as agreement, in thousandths of the smaller.
const TOLERANCE_MILLI: u64 = 20;

/// Whether the medians of the frame times of the last two groups agree within 2 %.
///
/// `completed_ns` are ascending completions; a frame time is the distance over `stride` completions (replicas
/// finish in turn, so the pace of one is seen over as many completions as there are). A group has half of
/// `min_frames`, at least 4 and at most 32.
pub(crate) fn is_steady(completed_ns: &[u64], stride: usize, min_frames: u32) -> bool {
    let group = usize::try_from(min_frames / 2).unwrap_or(LARGEST).clamp(4, LARGEST);
    let stride = stride.max(1);
    let needed = 2 * group + stride;
    let Some(first) = completed_ns.len().checked_sub(needed) else { return false };
    let last = &completed_ns[first..];
    let median = |from: usize| {
        let mut times = [0; LARGEST];
        for (place, time) in times[..group].iter_mut().enumerate() {
            *time = last[from + place + stride] - last[from + place];
        }
        times[..group].sort_unstable();
        u64::midpoint(times[(group - 1) / 2], times[group / 2])
    };
    let (earlier, later) = (median(0), median(group));
    earlier.abs_diff(later) * 1000 <= earlier.min(later) * TOLERANCE_MILLI
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completions(times: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut now = 0;
        times
            .into_iter()
            .map(|time| {
                now += time;
                now
            })
            .collect()
    }

    #[test]
    fn a_constant_pace_is_steady_once_two_groups_are_there() {
        let all = completions([1_000_000; 40]);
        let from = (0..=40).find(|count| is_steady(&all[..*count], 1, 10));
        assert_eq!(from, Some(11));
    }

    #[test]
    fn a_pace_that_still_changes_is_not() {
        let slowing = completions((0..40).map(|place| 1_000_000 + 10_000 * place));
        assert!(!is_steady(&slowing, 1, 20));
        assert!(is_steady(&completions((0..40).map(|place| 1_000_000 + 500 * place)), 1, 20));
    }

    #[test]
    fn a_single_hiccup_does_not_matter() {
        let mut times = [1_000_000; 30];
        times[20] = 9_000_000;
        assert!(is_steady(&completions(times), 1, 20));
    }

    #[test]
    fn replicas_that_finish_in_turn_are_judged_by_their_own_pace() {
        // Two replicas of 10 ms; the second lags behind the first by 1 ms and drifts.
        let mut all: Vec<u64> = (0..40).map(|frame| frame * 10_000_000).collect();
        all.extend((0..40).map(|frame| frame * 10_020_000 + 1_000_000));
        all.sort_unstable();
        assert!(!is_steady(&all, 1, 10));
        assert!(is_steady(&all, 2, 10));
    }
}
