//! CPU time of the thread that feeds a GPU: copies, launches and waiting, without the kernels' work.
//!
//! Run `cargo bench -p runner --bench gpu` with the environment of `cargo xtask test` (`EDGEPIPE_PYTHON`,
//! `EDGEPIPE_TEST_LIBCUDA`). Kernels do nothing in the stand-in, and what remains is the runner's own cost and that of the
//! stand-in's functions, which differs from that of a real driver. It prints the best of several trials, with kernels as one
//! graph and one by one, and fails if 100 frames/s would take more than 5 % of a CPU.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark panics if its assumptions fail")]

#[path = "../tests/gpu/mod.rs"]
mod gpu;
#[path = "../tests/support/mod.rs"]
mod support;

use gpu::Plans;
use support::trial;

const TRIALS: usize = 10;
/// Limit in ns per frame: 5 % of a CPU at 100 frames/s.
const LIMIT_NS: f64 = 0.05 * 1e9 / 100.0;

fn main() {
    let plans = Plans::new();
    let mut worst = 0.0_f64;
    println!("{:20} {:>26} {:>28}", "", "CPU time of a frame, µs", "CPU at 100 frames/s, %");
    for (name, faults) in [("one graph", ""), ("one launch each", "cuStreamBeginCapture_v2=801")] {
        let mut runner = gpu::runner(&[("CUDA_STANDIN_EMPTY", "1"), ("CUDA_STANDIN_FAULT", faults)]);
        let mut best = f64::INFINITY;
        for _ in 0..TRIALS {
            let mut trial = trial(plans.single("net"));
            trial.measure.min_ns = 200_000_000;
            let stage = &runner.measure(&trial).stages[0];
            best = best.min(stage.cpu_ns as f64 / stage.frames as f64);
        }
        println!("{name:20} {:>26.1} {:>28.2}", best / 1e3, best * 100.0 / 1e7);
        worst = worst.max(best);
    }
    assert!(worst <= LIMIT_NS, "feeding the GPU takes {worst:.0} ns a frame, more than {LIMIT_NS}");
}
