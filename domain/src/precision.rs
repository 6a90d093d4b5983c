//! When to stop adding trials.
//!
//! Trials are added until the intervals are narrow enough (fixed-width sequential intervals: Chow & Robbins 1965, "On
//! the asymptotic theory of fixed-width sequential confidence intervals for the mean"). Whether to stop is decided by
//! widths alone, never by where an interval lies, so a result is not measured until it suits. What remains of the peeking
//! is that early intervals are sometimes narrow by luck: looking from the fifth round on, intervals that promise 95 %
//! held the truth in 92 to 95 % of simulated campaigns; looking from the tenth on, in 94 to 95.5 %
//! (`cargo test -p domain --test gate -- --nocapture`). So nobody looks before that.

/// Rounds before which nobody looks.
pub const FEWEST_ROUNDS: u32 = 10;

/// Whether enough was measured: so many rounds, and half of every interval's width, as a share of its point, is at most
/// `wanted`. Absent: an interval that cannot be told yet. Not reached where there are no intervals at all.
pub fn is_reached(rounds: u32, halves: impl IntoIterator<Item = Option<f64>>, wanted: f64) -> bool {
    let mut halves = halves.into_iter().peekable();
    rounds >= FEWEST_ROUNDS
        && halves.peek().is_some()
        && halves.all(|half| half.is_some_and(|half| half <= wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_intervals_have_to_be_narrow_and_the_rounds_enough() {
        assert!(is_reached(10, [Some(0.01), Some(0.02)], 0.02));
        assert!(!is_reached(10, [Some(0.01), Some(0.021)], 0.02));
        assert!(!is_reached(10, [Some(0.01), None], 0.02));
        assert!(!is_reached(9, [Some(0.01)], 0.02));
        assert!(!is_reached(10, [], 0.02));
    }
}
