//! The source of a stream: a thread that offers each frame at its scheduled time.
//!
//! It sleeps until absolute times of the monotonic clock, so its errors do not add up. It runs on CPUs that no stage uses if
//! there are any, and with a real-time priority if the system allows it: a camera does not wait for a computation either.

use crate::affinity;
use crate::arrivals::{Arrival, Arrivals};
use crate::clock::{current_thread_cpu_ns, monotonic_ns, sleep_until};
use crate::engine::prefer_current_thread;
use crate::pipeline::Pipeline;
use protocol::StreamLoad;
use rustix::thread::set_current_timer_slack;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::thread::JoinHandle;

/// From the start of the thread to the first arrival.
const LEAD_NS: u64 = 1_000_000;
/// The source looks this often whether the execution has stopped.
const LOOK_NS: u64 = 50_000_000;

/// Starts the source of a pipeline. It ends after the execution has stopped. `cpus` are those of the stages.
pub(crate) fn start(
    pipeline: &Arc<Pipeline>,
    load: StreamLoad,
    cpus: &[u32],
) -> Result<JoinHandle<()>, String> {
    let (pipeline, cpus) = (Arc::clone(pipeline), cpus.to_vec());
    std::thread::Builder::new()
        .name("source".to_owned())
        .spawn(move || {
            affinity::avoid(&cpus);
            let is_apart = affinity::allowed_cpus().iter().all(|cpu| !cpus.contains(cpu));
            // By default, the kernel may let a thread sleep 50 µs longer.
            set_current_timer_slack(NonZeroU64::new(1)).ok();
            prefer_current_thread();
            offer_all(&pipeline, Arrivals::new(&load, monotonic_ns() + LEAD_NS), is_apart);
        })
        .map_err(|error| format!("failed to start the source of the stream: {error}"))
}

fn offer_all(pipeline: &Pipeline, mut arrivals: Arrivals, is_apart: bool) {
    let _guard = pipeline.stop_on_panic("the source of the stream");
    let (mut unblocked_ns, mut opened_cpu_ns) = (0, None);
    let mut next = arrivals.next();
    while let Some(arrival) = next {
        if !wait_until(arrival.scheduled_ns, pipeline) {
            break;
        }
        if opened_cpu_ns.is_none() && pipeline.is_window_open() {
            opened_cpu_ns = Some(current_thread_cpu_ns());
        }
        let late_ns = late(&arrival, unblocked_ns);
        if pipeline.offer(arrival, late_ns) {
            unblocked_ns = monotonic_ns();
        }
        next = arrivals.next();
    }
    // If the runner was stopped or the source blocked, the window may have closed before the frames of that time were offered.
    while let Some(arrival) = next.filter(|arrival| pipeline.closed_after(arrival.scheduled_ns)) {
        pipeline.record_unoffered(&arrival, late(&arrival, unblocked_ns));
        next = arrivals.next();
    }
    let used_ns = opened_cpu_ns.map_or(0, |opened| current_thread_cpu_ns().saturating_sub(opened));
    pipeline.record_source(used_ns, is_apart);
}

/// Time since the scheduled arrival, or since a full queue blocked the source no more.
fn late(arrival: &Arrival, unblocked_ns: u64) -> u64 {
    monotonic_ns().saturating_sub(arrival.scheduled_ns.max(unblocked_ns))
}

/// Returns whether the execution goes on.
fn wait_until(until_ns: u64, pipeline: &Pipeline) -> bool {
    loop {
        if pipeline.is_stopped() {
            return false;
        }
        let now = monotonic_ns();
        if now >= until_ns {
            return true;
        }
        sleep_until(until_ns.min(now + LOOK_NS));
    }
}
