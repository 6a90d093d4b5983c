//! Simulations of the real arrivals and the real queue, with a stage of known speed instead of threads and clocks. Their
//! latencies and drops are compared with theory.

use crate::arrivals::{Arrival, Arrivals};
use crate::waiting_line::{Offered, WaitingLine};
use domain::stream::{self, Share};
use protocol::{ArrivalTimes, QueuePolicy, StreamLoad};

const MS: u64 = 1_000_000;
/// Simulated campaigns: with so many, the share of intervals that hold the truth is known within 2 %.
const CAMPAIGNS: u64 = 500;

/// What a schedule with one stage did with the first frames of a stream.
#[derive(Debug, Default)]
struct Simulated {
    /// From scheduled arrival to completion, in ms, in the order of completion.
    latency_ms: Vec<f64>,
    /// Each completion or drop, in the order of time: its stream, and whether it is a drop.
    decided: Vec<(u64, u32, bool)>,
}

struct Simulation {
    line: WaitingLine,
    service_ns: u64,
    free_ns: u64,
    result: Simulated,
}

impl Simulation {
    /// Lets the stage take and complete frames until `now_ns`.
    fn run_until(&mut self, now_ns: u64) {
        while self.free_ns <= now_ns
            && let Some(arrival) = self.line.take()
        {
            self.free_ns = self.free_ns.max(arrival.scheduled_ns) + self.service_ns;
            self.result.latency_ms.push((self.free_ns - arrival.scheduled_ns) as f64 / 1e6);
            self.result.decided.push((self.free_ns, arrival.stream, false));
        }
    }

    fn drop_frame(&mut self, arrival: &Arrival, now_ns: u64) {
        self.result.decided.push((now_ns, arrival.stream, true));
    }
}

/// Frames of `service_ns` each.
fn simulate(load: &StreamLoad, service_ns: u64, frames: usize) -> Simulated {
    let (line, result) = (WaitingLine::new(load), Simulated::default());
    let mut simulation = Simulation { line, service_ns, free_ns: 0, result };
    let mut unblocked_ns = 0;
    for arrival in Arrivals::new(load, 0).take(frames) {
        let now = arrival.scheduled_ns.max(unblocked_ns);
        simulation.run_until(now);
        match simulation.line.offer(arrival) {
            Offered::Waits => {}
            Offered::Replaces(oldest) => simulation.drop_frame(&oldest, now),
            Offered::Dropped => simulation.drop_frame(&arrival, now),
            Offered::Blocked => {
                unblocked_ns = simulation.free_ns;
                simulation.run_until(unblocked_ns);
                assert_eq!(simulation.line.offer(arrival), Offered::Waits, "a frame was taken");
            }
        }
    }
    simulation.run_until(u64::MAX);
    simulation.result.decided.sort_unstable();
    simulation.result
}

impl Simulated {
    fn drops(&self) -> usize {
        self.decided.iter().filter(|(_, _, dropped)| *dropped).count()
    }

    /// Drops in equal parts of the time.
    fn sections(&self, number: usize) -> Vec<Share> {
        let size = self.decided.len().div_ceil(number);
        let share = |section: &[(u64, u32, bool)]| Share {
            part: section.iter().filter(|(_, _, dropped)| *dropped).count() as u64,
            whole: section.len() as u64,
        };
        self.decided.chunks(size).map(share).collect()
    }
}

fn load(fps: f64, queue: u32, policy: QueuePolicy, arrivals: ArrivalTimes, seed: u64) -> StreamLoad {
    StreamLoad { fps, streams: 1, queue, policy, arrivals, deadline_ns: None, seed }
}

/// Arrivals each 10 ms.
fn camera(queue: u32, policy: QueuePolicy) -> StreamLoad {
    load(100.0, queue, policy, ArrivalTimes::Constant, 0)
}

#[test]
fn without_contention_the_latency_is_that_of_the_stage() {
    for policy in [QueuePolicy::DropOldest, QueuePolicy::DropNewest, QueuePolicy::Block] {
        for service_ns in [4 * MS, 10 * MS] {
            let found = simulate(&camera(1, policy), service_ns, 1000);
            assert_eq!(found.drops(), 0, "{policy:?}");
            assert_eq!(found.latency_ms, vec![service_ns as f64 / 1e6; 1000], "{policy:?}");
        }
    }
}

#[test]
fn an_overloaded_camera_drops_the_frames_that_no_stage_can_take() {
    // 100 frames/s arrive, and the stage computes 80.
    for queue in [1, 2, 5] {
        for (policy, shortest, longest) in [
            // A frame waits behind as many as the queue takes.
            (QueuePolicy::DropNewest, 12.5 * f64::from(queue), 12.5 * f64::from(queue + 1)),
            // A frame waits until as many newer ones have arrived as the queue takes.
            (QueuePolicy::DropOldest, 12.5 + 10.0 * f64::from(queue - 1), 12.5 + 10.0 * f64::from(queue)),
        ] {
            let found = simulate(&camera(queue, policy), 12_500_000, 10_000);
            let share = stream::share(&found.sections(10), 1).unwrap();
            assert!(share.holds(0.2), "{policy:?}: {share:?}");
            let steady = &found.latency_ms[100..found.latency_ms.len() - usize::try_from(queue).unwrap() - 1];
            let is_between = |latency: &f64| (shortest..=longest).contains(latency);
            assert!(steady.iter().all(is_between), "{policy:?} with a queue of {queue}");
        }
    }
}

#[test]
fn a_blocked_source_drops_nothing_and_falls_behind() {
    let found = simulate(&camera(2, QueuePolicy::Block), 12_500_000, 1000);
    assert_eq!((found.drops(), found.latency_ms.len()), (0, 1000));
    for (frame, latency) in found.latency_ms.iter().enumerate() {
        let expected = 12.5 + 2.5 * frame as f64;
        assert!((latency - expected).abs() < 1e-6, "frame {frame}: {latency}");
    }
}

/// Probability that a frame waits at most `t` service times before a stage with utilization `rho` takes it: Poisson
/// arrivals, equal service times, one stage, an unlimited queue (Erlang 1909).
fn erlang(t: f64, rho: f64) -> f64 {
    let mut sum = 0.0;
    let mut k = 0.0;
    while k <= t {
        let x = rho * (t - k);
        let mut term = x.exp();
        let mut factor = 1.0;
        while factor <= k {
            term *= -x / factor;
            factor += 1.0;
        }
        sum += term;
        k += 1.0;
    }
    (1.0 - rho) * sum
}

/// The latency that a share `p` of the frames does not exceed, in service times.
fn theory(p: f64, rho: f64) -> f64 {
    let (mut low, mut high) = (0.0, 40.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if erlang(middle, rho) < p { low = middle } else { high = middle }
    }
    1.0 + f64::midpoint(low, high)
}

#[test]
fn latencies_of_random_arrivals_agree_with_theory() {
    // 70 frames/s on a stage that computes 100.
    assert!((erlang(0.0, 0.7) - 0.3).abs() < 1e-12, "a frame finds the stage free with probability 1 - rho");
    let percentiles = [0.5, 0.9, 0.99];
    let mut covered = [0; 3];
    for campaign in 0..CAMPAIGNS {
        let trials: Vec<Vec<f64>> = (0..5)
            .map(|round| {
                let seed = campaign * 5 + round;
                let load = load(70.0, 1024, QueuePolicy::Block, ArrivalTimes::Poisson, seed);
                // The queue is empty at first.
                simulate(&load, 10 * MS, 4500).latency_ms.split_off(500)
            })
            .collect();
        let trials: Vec<&[f64]> = trials.iter().map(Vec::as_slice).collect();
        for (covered, p) in covered.iter_mut().zip(percentiles) {
            // Without an upper end, an interval holds everything above the lower one.
            let interval = stream::quantile(&trials, p).unwrap();
            let expected_ms = 10.0 * theory(p, 0.7);
            *covered += u64::from(
                interval.lo.unwrap() <= expected_ms && interval.hi.is_none_or(|hi| expected_ms <= hi),
            );
        }
    }
    for (covered, p) in covered.into_iter().zip(percentiles) {
        let percent = 100.0 * covered as f64 / CAMPAIGNS as f64;
        println!("{percent:.1} % of the intervals of p{:.0} hold the truth", 100.0 * p);
        assert!((93.0..=97.5).contains(&percent), "{percent} % of the intervals of p{:.0}", 100.0 * p);
    }
}

/// Share of frames that find a stage busy and `queue` frames waiting: Poisson arrivals, equal service times, utilization
/// `rho`, by the Markov chain of the frames left behind by a departure (Gross & Harris, "Fundamentals of queueing theory").
fn loss(rho: f64, queue: usize) -> f64 {
    // Probability of k arrivals in a service time.
    let poisson = |k: usize| (1..=k).fold((-rho).exp(), |term, i| term * rho / i as f64);
    // Unnormalized probabilities of 0 ..= queue frames left behind.
    let mut left = vec![1.0];
    for state in 0..queue {
        let from_others: f64 = (1..=state).map(|other| left[other] * poisson(state + 1 - other)).sum();
        let next = (left[state] - left[0] * poisson(state) - from_others) / poisson(0);
        left.push(next);
    }
    let empty = left[0] / left.iter().sum::<f64>();
    1.0 - 1.0 / (empty + rho)
}

#[test]
fn drops_of_random_arrivals_agree_with_theory() {
    // Without a queue every frame that finds the stage busy is lost: rho / (1 + rho).
    assert!((loss(0.9, 0) - 0.9 / 1.9).abs() < 1e-12);
    for policy in [QueuePolicy::DropNewest, QueuePolicy::DropOldest] {
        for queue in [1, 3] {
            let expected = loss(0.9, queue);
            let covered = (0..CAMPAIGNS).filter(|seed| {
                let queue = u32::try_from(queue).unwrap();
                let found =
                    simulate(&load(90.0, queue, policy, ArrivalTimes::Poisson, *seed), 10 * MS, 10_000);
                stream::share(&found.sections(10), 1).unwrap().holds(expected)
            });
            let percent = 100.0 * covered.count() as f64 / CAMPAIGNS as f64;
            println!("{policy:?}, queue of {queue}: {percent:.1} % of the intervals hold {expected:.4}");
            assert!((93.0..=97.5).contains(&percent), "{percent} % ({policy:?}, queue of {queue})");
        }
    }
}

/// Share of the frames that are dropped or later than the deadline, with the real queue.
fn lost(load: &StreamLoad, service_ns: u64, deadline_ms: f64) -> f64 {
    let frames = 10_000;
    let found = simulate(load, service_ns, frames);
    let late = found.latency_ms.iter().filter(|latency| **latency > deadline_ms).count();
    (found.drops() + late) as f64 / frames as f64
}

#[test]
fn no_queue_of_another_length_loses_fewer_frames_than_the_planned_one() {
    let service_ms = 10.0;
    let stage = domain::queue_model::StageModel { ns: 1e6 * service_ms, spread: Vec::new(), overlaps: false };
    let line = domain::queue_model::Line { stages: vec![stage], side_by_side: false };
    for (policy, planned_policy) in [
        (QueuePolicy::DropOldest, domain::QueuePolicy::DropOldest),
        (QueuePolicy::DropNewest, domain::QueuePolicy::DropNewest),
    ] {
        for (arrivals, planned_arrivals) in [
            (ArrivalTimes::Constant, domain::ArrivalTimes::Constant),
            (ArrivalTimes::Poisson, domain::ArrivalTimes::Poisson),
        ] {
            for fps in [70.0, 95.0, 140.0] {
                for deadline_ms in [12.0, 29.0, 200.0] {
                    let stream = domain::StreamLoad {
                        fps,
                        streams: 1,
                        queue: domain::QueueLength::Auto,
                        policy: planned_policy,
                        deadline_ms: Some(deadline_ms),
                        arrivals: planned_arrivals,
                    };
                    let plan = domain::plan_queues(Some(&line), &stream, domain::QueueLength::Auto);
                    let of = |queue: u32| lost(&load(fps, queue, policy, arrivals, 7), 10 * MS, deadline_ms);
                    let chosen = of(plan.before);
                    let expected = plan.expected.unwrap();
                    assert!(
                        (chosen - expected.dropped - expected.late).abs() < 0.03,
                        "{fps} frames/s, {deadline_ms} ms: {plan}, and {chosen} are lost"
                    );
                    for other in (1..=22).chain([48]) {
                        let lost = of(other);
                        assert!(
                            chosen <= lost + 0.005,
                            "{policy:?}, {arrivals:?}, {fps} frames/s, {deadline_ms} ms: {plan} loses {chosen}, a queue of \
                             {other} {lost}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn streams_share_an_overloaded_stage_fairly() {
    for arrivals in [ArrivalTimes::Constant, ArrivalTimes::Poisson] {
        let load = StreamLoad { streams: 4, ..load(50.0, 2, QueuePolicy::DropOldest, arrivals, 3) };
        let found = simulate(&load, 10 * MS, 8000);
        let completed = |stream: u32| {
            found.decided.iter().filter(|(_, of, dropped)| *of == stream && !dropped).count() as f64
        };
        let all: Vec<f64> = (0..4).map(completed).collect();
        let mean = all.iter().sum::<f64>() / 4.0;
        assert!(all.iter().all(|own| (own / mean - 1.0).abs() < 0.03), "{arrivals:?}: {all:?}");
    }
}
