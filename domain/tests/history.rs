//! How often steps are found where there are some and where there are none, simulated with known truth and fixed
//! seeds. `cargo test -p domain --test history -- --nocapture` prints the shares.
#![cfg(test)]

use domain::statistics::{Confidence, Interval, median_interval};
use domain::{History, Samples, SplitMix64, history};
use proptest::prelude::*;

/// What a series is made of, in shares of the figure.
#[derive(Debug, Clone, Copy)]
struct Truth {
    runs: usize,
    trials: usize,
    /// Deviation of trials within a run.
    trial_noise: f64,
    /// Deviation of runs.
    run_noise: f64,
    /// Correlation of a run with the one before.
    memory: f64,
    /// One run in ten is off by up to ten deviations.
    bad_runs: bool,
}

const QUIET: Truth =
    Truth { runs: 12, trials: 5, trial_noise: 0.01, run_noise: 0.0, memory: 0.0, bad_runs: false };
const USUAL: Truth = Truth { run_noise: 0.01, ..QUIET };

/// A normal number from two uniform ones (Box & Muller 1958).
fn normal(numbers: &mut SplitMix64) -> f64 {
    let radius = (-2.0 * numbers.unit().max(1e-12).ln()).sqrt();
    radius * (std::f64::consts::TAU * numbers.unit()).cos()
}

/// A series whose runs have these factors of 100.
fn series(truth: Truth, numbers: &mut SplitMix64, factor: impl Fn(usize) -> f64) -> Vec<Interval> {
    let mut state = 0.0;
    let fresh = (1.0 - truth.memory * truth.memory).sqrt();
    (0..truth.runs)
        .map(|run| {
            state = truth.memory * state + fresh * normal(numbers);
            let mut off = truth.run_noise * state;
            if truth.bad_runs && numbers.unit() < 0.1 {
                off -= 10.0 * truth.run_noise * numbers.unit();
            }
            let level = (100.0 * factor(run)).ln() + off;
            let trials: Vec<f64> =
                (0..truth.trials).map(|_| (level + truth.trial_noise * normal(numbers)).exp()).collect();
            median_interval(&Samples::new(&trials).unwrap(), Confidence::P95)
        })
        .collect()
}

/// Share of series of which this is true.
fn share(
    name: &str,
    truth: Truth,
    count: usize,
    factor: impl Fn(usize) -> f64,
    holds: impl Fn(&History) -> bool,
) -> f64 {
    let mut numbers = SplitMix64::new(truth.runs as u64 * 1000 + truth.trials as u64);
    let found = (0..count).filter(|_| holds(&history(&series(truth, &mut numbers, &factor)))).count();
    let share = found as f64 / count as f64;
    println!("{name:<44} {:>5.1} %", 100.0 * share);
    share
}

fn false_alarms(name: &str, truth: Truth, count: usize) -> f64 {
    share(
        &format!("no step, {} runs, {name}", truth.runs),
        truth,
        count,
        |_| 1.0,
        |found| !found.steps.is_empty(),
    )
}

/// Share in which one step is found, within a run of where it is, and its interval holds the truth.
fn detections(name: &str, truth: Truth, ratio: f64, count: usize) -> f64 {
    let at = truth.runs / 2;
    let name = format!("step of {:+.0} %, {} runs, {name}", 100.0 * (ratio - 1.0), truth.runs);
    let factor = |run| if run < at { 1.0 } else { ratio };
    share(&name, truth, count, factor, |found| {
        matches!(found.steps.as_slice(), [step] if step.first.abs_diff(at) <= 1
            && step.ratio.lo.unwrap() < 1.0_f64.max(ratio) && step.ratio.hi.unwrap() > 1.0_f64.min(ratio))
    })
}

const SERIES: usize = 100;

#[test]
fn series_without_a_step_seldom_show_one() {
    let much = Truth { run_noise: 0.05, ..QUIET };
    let single = Truth { trials: 1, ..USUAL };
    let bad = Truth { bad_runs: true, ..USUAL };
    for (runs, name, truth, most) in [
        (4, "noise of trials alone", QUIET, 0.04),
        (4, "noise of runs too", USUAL, 0.04),
        (4, "one trial a run", single, 0.04),
        (12, "noise of trials alone", QUIET, 0.04),
        (12, "noise of runs too", USUAL, 0.04),
        (12, "noise of runs much greater", much, 0.04),
        (12, "one trial a run", single, 0.04),
        (12, "bad runs", bad, 0.04),
        (30, "noise of runs too", USUAL, 0.04),
        // Two bad runs in a row look like a level of their own, and happen in one series in four.
        (30, "bad runs", bad, 0.1),
    ] {
        let found = false_alarms(name, Truth { runs, ..truth }, SERIES);
        assert!(found <= most, "{name}, {runs} runs: {found}");
    }
}

#[test]
fn a_step_is_found_where_it_is() {
    for (name, truth, ratio, wanted) in [
        ("noise of trials alone", QUIET, 0.95, 0.95),
        ("noise of runs too", USUAL, 0.93, 0.9),
        ("noise of runs too", Truth { runs: 30, ..USUAL }, 1.05, 0.95),
        ("noise of runs too", Truth { runs: 6, ..USUAL }, 0.8, 0.9),
        ("bad runs", Truth { runs: 30, bad_runs: true, ..USUAL }, 0.9, 0.9),
    ] {
        let found = detections(name, truth, ratio, SERIES);
        assert!(found >= wanted, "{name}, {} runs: {found}", truth.runs);
    }
}

#[test]
fn a_regression_that_was_mended_makes_two_steps() {
    let truth = Truth { runs: 20, ..USUAL };
    let factor = |run| if (8..14).contains(&run) { 0.9 } else { 1.0 };
    let found = share(
        "-10 % and back, 20 runs",
        truth,
        SERIES,
        factor,
        |found| matches!(found.steps.as_slice(), [down, up] if down.first.abs_diff(8) <= 1 && up.first.abs_diff(14) <= 1),
    );
    assert!(found >= 0.9, "{found}");
}

#[test]
fn drift_is_cut_into_steps_as_the_documentation_says() {
    // Not a promise but a fact worth knowing: correlation between runs raises false alarms.
    let truth = Truth { runs: 30, memory: 0.9, ..USUAL };
    assert!(false_alarms("runs that drift", truth, SERIES) > 0.05);
}

fn point(value: f64, share: f64) -> Interval {
    Interval {
        point: value,
        lo: Some(value * (1.0 - share)),
        hi: Some(value * (1.0 + share)),
        confidence: 0.95,
        method: domain::Method::StudentLog,
        count: 5,
    }
}

#[test]
fn a_step_within_the_intervals_is_none() {
    let steps = |share: f64| {
        let points: Vec<Interval> =
            (0..12).map(|run| point(if run < 6 { 100.0 } else { 97.0 }, share)).collect();
        history(&points).steps.len()
    };
    assert_eq!((steps(0.01), steps(0.3)), (1, 0));
}

#[test]
fn one_bad_run_is_labelled_and_no_step() {
    let points: Vec<Interval> =
        (0..12).map(|run| point(if run == 5 { 60.0 } else { 100.0 + f64::from(run % 3) }, 0.01)).collect();
    let found = history(&points);
    assert_eq!((found.outlying.as_slice(), found.steps.len()), (&[5][..], 0));
}

#[test]
fn with_three_runs_or_fewer_nothing_is_said() {
    for count in 0..4 {
        let points: Vec<Interval> =
            (0..count).map(|run| point(if run < 2 { 100.0 } else { 10.0 }, 0.001)).collect();
        let found = history(&points);
        assert_eq!((found.steps.len(), found.levels.len()), (0, usize::from(count > 0)), "{count}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn levels_follow_each_other_and_steps_lie_between(
        values in prop::collection::vec((0.1_f64..1e4, 0.0_f64..0.5, 1_usize..8, any::<bool>()), 0..16),
        scale in 1e-3_f64..1e3,
    ) {
        let points = |scale: f64| -> Vec<Interval> {
            let point = |&(value, share, count, known): &(f64, f64, usize, bool)| {
                let interval = point(value * scale, share);
                let ends = if known { (interval.lo, interval.hi) } else { (None, None) };
                Interval { count, lo: ends.0, hi: ends.1, ..interval }
            };
            values.iter().map(point).collect()
        };
        let found = history(&points(1.0));
        let mut at = 0;
        for level in &found.levels {
            prop_assert_eq!(level.first, at);
            prop_assert!(level.end > level.first && level.value > 0.0);
            at = level.end;
        }
        prop_assert_eq!(at, values.len());
        let inner: Vec<usize> = found.levels.iter().skip(1).map(|level| level.first).collect();
        prop_assert_eq!(found.steps.iter().map(|step| step.first).collect::<Vec<_>>(), inner);
        for step in &found.steps {
            prop_assert!(step.ratio.holds(step.ratio.point));
        }
        // The unit does not matter.
        let scaled = history(&points(scale));
        prop_assert_eq!(scaled.steps.len(), found.steps.len());
    }
}
