//! The stopping rule for trials.
//!
//! Trials are added until the intervals are narrow enough (fixed-width sequential intervals: Chow & Robbins 1965, "On
//! the asymptotic theory of fixed-width sequential confidence intervals for the mean"). Whether to stop is decided by
//! widths alone and never by the position of an interval, so a run does not continue until the result is favourable. Early
//! intervals can still be narrow by chance: if the rule starts at round 5, 95 % intervals contain the true value in 92 to
//! 95 % of simulated campaigns; if it starts at round 10, in 94 to 95.5 %
//! (`cargo test -p domain --test gate -- --nocapture`). So the rule starts at round 10.

/// The stopping rule starts at this round.
pub const FEWEST_ROUNDS: u32 = 10;

/// Whether there are enough rounds and half of every interval's width, as a share of its point, is at most `wanted`.
/// `None` is an interval that is not known yet. Without any interval the precision is not reached.
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
