//! What the runner adds to a stage: stages of one operator on one element, so that a frame is nearly all runner.
//!
//! `cargo bench -p runner` with the environment `cargo xtask test` sets (`EDGEPIPE_PYTHON`). Prints the medians and
//! the best of several trials, and fails where a stage adds more than 10 µs a frame in the best of them: other work
//! on the machine only ever makes it more.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark ends where its assumptions do")]

#[path = "../tests/rig/mod.rs"]
mod rig;

use protocol::{Kind, Measured, Schedule};
use rig::{Runner, stages, trial, two_cpus};

/// Trials of each schedule.
const TRIALS: usize = 15;
/// What the runner may add to a stage, in ns a frame.
const LIMIT_NS: f64 = 10_000.0;

fn main() {
    let (first, second) = two_cpus();
    let (zero, one) = ([first], [second]);
    let single = stages().schedule(Kind::Single, &[("relu", &zero)]);
    let apart = stages().schedule(Kind::Pipeline, &[("relu", &zero), ("relu_again", &one)]);
    let together = stages().schedule(Kind::Pipeline, &[("relu", &zero), ("relu_again", &zero)]);
    let replicas = stages().schedule(Kind::Replicate, &[("relu", &zero), ("relu", &one)]);
    let mut runner = Runner::start();
    println!("{:34} {:>22} {:>22} {:>14}", "", "frame, ns", "added to a stage, ns", "latency, ns");
    let mut worst = 0.0_f64;
    for (name, schedule, judged) in [
        ("single", single, true),
        ("pipeline of two, two CPUs", apart, true),
        ("pipeline of two, one CPU", together, false),
        ("two replicas", replicas, false),
    ] {
        let measured: Vec<_> = (0..TRIALS).map(|_| measure(&mut runner, &schedule)).collect();
        let frame = spread(&measured, |measured| frame_ns(measured));
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
    let mut usual = trial(stages().schedule(Kind::Single, &[("net", &zero)]));
    usual.measure.max_frames = 100_000;
    let anonymous = Runner::start().measure(&usual).anonymous_bytes;
    println!("memory that no file backs: {:.1} MiB", anonymous as f64 / f64::from(1 << 20));
    assert!(worst <= LIMIT_NS, "a stage adds {worst:.0} ns a frame, more than {LIMIT_NS}");
}

fn measure(runner: &mut Runner, schedule: &Schedule) -> Measured {
    let mut trial = trial(schedule.clone());
    trial.measure.min_ns = 200_000_000;
    runner.measure(&trial)
}

fn frame_ns(measured: &Measured) -> f64 {
    let completed = &measured.window.completed_ns;
    *completed.last().unwrap() as f64 / completed.len() as f64
}

/// Time a frame takes from stage to stage beyond the time in the slowest stage's library.
fn added_ns(measured: &Measured) -> f64 {
    let busy = measured.stages.iter().map(|stage| stage.busy_ns as f64 / stage.frames as f64);
    let stages = if measured.window.completed_by.is_empty() { 1.0 } else { measured.stages.len() as f64 };
    frame_ns(measured) * stages - busy.fold(0.0, f64::max)
}

/// Least and median.
fn spread(measured: &[Measured], of: impl Fn(&Measured) -> f64) -> (f64, f64) {
    let mut values: Vec<f64> = measured.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2])
}
