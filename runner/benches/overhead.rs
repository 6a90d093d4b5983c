//! The overhead of the runner: stages of one operator on one element, so that a frame is nearly all overhead.
//!
//! Run `cargo bench -p runner` with the environment of `cargo xtask test` (`EDGEPIPE_PYTHON`). It prints the median and
//! the best of several trials, and fails if even the best adds more than 10 µs per frame to a stage. It also shows a slow
//! stage next to a fast one: the fast one sleeps for most of each frame, and the overhead is the kernel's wake-up of a
//! sleeping CPU, a few µs on a board and 10 to 20 µs in a virtual machine.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark panics if its assumptions fail")]

#[path = "../tests/support/mod.rs"]
mod support;

use protocol::{ExecutionMode, Measured, Occupancy, Schedule};
use support::{Runner, stages, trial, two_cpus};

/// Trials of each schedule.
const TRIALS: usize = 15;
/// Limit on the overhead of a stage, in ns per frame.
const LIMIT_NS: f64 = 10_000.0;

fn main() {
    let (first, second) = two_cpus();
    let (zero, one) = ([first], [second]);
    let single = stages().schedule(ExecutionMode::Single, &[("relu", &zero)]);
    let apart = stages().schedule(ExecutionMode::Pipeline, &[("relu", &zero), ("relu_again", &one)]);
    // The fast stage sleeps for most of each frame, so the slow one wakes it every time.
    let slow_first = stages().schedule(ExecutionMode::Pipeline, &[("busy", &zero), ("light_after", &one)]);
    let slow_last = stages().schedule(ExecutionMode::Pipeline, &[("light", &zero), ("busy_again", &one)]);
    let together = stages().schedule(ExecutionMode::Pipeline, &[("relu", &zero), ("relu_again", &zero)]);
    let replicas = stages().schedule(ExecutionMode::Replicate, &[("relu", &zero), ("relu", &one)]);
    let mut runner = Runner::start();
    println!("{:34} {:>22} {:>22} {:>14}", "", "frame, ns", "added to a stage, ns", "latency, ns");
    let mut worst = 0.0_f64;
    for (name, schedule, judged) in [
        ("single", single, true),
        ("slow before fast, two CPUs", slow_first, false),
        ("fast before slow, two CPUs", slow_last, false),
        ("pipeline of two, two CPUs", apart, true),
        ("pipeline of two, one CPU", together, false),
        ("two replicas", replicas, false),
    ] {
        let measured: Vec<_> = (0..TRIALS).map(|_| measure(&mut runner, &schedule)).collect();
        let frame = spread(&measured, frame_ns);
        let added = spread(&measured, added_ns);
        let latency = spread(&measured, |measured| {
            let mut sorted = measured.window.latency_ns.clone();
            sorted.sort_unstable();
            sorted[sorted.len() / 2] as f64
        });
        println!(
            "{name:34} {:>9.0} (best {:>5.0}) {:>9.0} (best {:>5.0}) {:>14.0}",
            frame.1, frame.0, added.1, added.0, latency.1
        );
        if judged {
            worst = worst.max(added.0);
        }
    }
    // A window of 100,000 frames, more than a network of some milliseconds a frame ever needs.
    let mut usual = trial(stages().schedule(ExecutionMode::Single, &[("net", &zero)]));
    usual.measure.max_frames = 100_000;
    let anonymous = Runner::start().measure(&usual).anonymous_bytes;
    println!("memory that no file backs: {:.1} MiB", anonymous as f64 / f64::from(1 << 20));
    assert!(worst <= LIMIT_NS, "a stage adds {worst:.0} ns a frame, more than {LIMIT_NS}");
}

fn measure(runner: &mut Runner, schedule: &Schedule) -> Measured {
    let mut trial = trial(schedule.clone());
    trial.measure.min_ns = 200_000_000;
    trial.timeline_frames = 100_000;
    runner.measure(&trial)
}

fn frame_ns(measured: &Measured) -> f64 {
    let completed = &measured.window.completed_ns;
    *completed.last().unwrap() as f64 / completed.len() as f64
}

/// Time of the slowest stage between the end of a frame in its engine and the start of the next one: the median over the
/// frames of the timeline, which other load hardly affects.
fn added_ns(measured: &Measured) -> f64 {
    let mean = |stage: &Occupancy| stage.busy_ns as f64 / stage.frames as f64;
    let slowest = (0..).zip(&measured.stages).max_by(|a, b| mean(a.1).total_cmp(&mean(b.1))).unwrap().0;
    let spans: Vec<_> = measured.timeline.iter().filter(|span| span.stage == slowest).collect();
    let mut gaps: Vec<_> = spans.windows(2).map(|pair| pair[1].begin_ns - pair[0].end_ns).collect();
    gaps.sort_unstable();
    gaps[gaps.len() / 2] as f64
}

/// Minimum and median.
fn spread(measured: &[Measured], of: impl Fn(&Measured) -> f64) -> (f64, f64) {
    let mut values: Vec<f64> = measured.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2])
}
