//! Trials under a stream, on real stage libraries.

#![expect(clippy::unwrap_used, reason = "a test panics if its assumptions fail")]

mod support;

use protocol::{
    ArrivalTimes, Event, ExecutionMode, Fault, Load, Measured, Phase, QueuePolicy, Request, Schedule,
    StreamLoad, Streamed, Trial,
};
use std::process::Command;
use std::time::Duration;
use support::{Runner, repeated, stages, trial, two_cpus};

const MS: u64 = 1_000_000;

fn load(fps: f64, policy: QueuePolicy) -> StreamLoad {
    StreamLoad {
        fps,
        streams: 1,
        queue: 2,
        policy,
        arrivals: ArrivalTimes::Constant,
        deadline_ns: None,
        seed: 1,
    }
}

fn under(load: StreamLoad, schedule: Schedule) -> Trial {
    Trial { load: Load::Stream(load), ..trial(schedule) }
}

/// Checks that hold for every trial under a stream.
fn check<'m>(trial: &Trial, measured: &'m Measured) -> &'m Streamed {
    let streamed = measured.stream.as_ref().unwrap();
    assert_eq!(Load::Stream(streamed.load), trial.load);
    let window = &measured.window;
    let completed = window.completed_ns.len();
    assert_eq!((window.latency_ns.len(), streamed.since_arrival_ns.len()), (completed, completed));
    // A frame enters its first stage after its arrival.
    assert!(
        streamed.since_arrival_ns.iter().zip(&window.latency_ns).all(|(since, latency)| since >= latency)
    );
    let arrived = &streamed.arrived;
    let arrivals = arrived.scheduled_ns.len();
    assert_eq!((arrived.late_ns.len(), arrived.waiting.len()), (arrivals, arrivals));
    assert!(arrived.scheduled_ns.is_sorted() && streamed.dropped.dropped_ns.is_sorted());
    let closed = *window.completed_ns.last().unwrap();
    assert!(arrived.scheduled_ns.iter().all(|at| (1..=closed).contains(at)));
    let most = streamed.load.queue * streamed.load.streams;
    assert!(arrived.waiting.iter().all(|waiting| *waiting <= most), "{:?}", arrived.waiting);
    streamed
}

#[test]
fn frames_of_a_camera_arrive_at_equal_distances() {
    let (one, other) = two_cpus();
    let mut runner = Runner::start();
    for schedule in [
        stages().schedule(ExecutionMode::Single, &[("net", &[one])]),
        stages()
            .schedule(ExecutionMode::Pipeline, &[("head", &[one]), ("middle", &[other]), ("tail", &[one])]),
        stages().schedule(ExecutionMode::Replicate, &[("net", &[one]), ("net", &[other])]),
        stages().onnx(&[&[one]]),
        stages().onnx(&[&[one], &[other]]),
    ] {
        let trial = under(load(200.0, QueuePolicy::DropOldest), schedule);
        let measured = runner.measure(&trial);
        let streamed = check(&trial, &measured);
        let distances = streamed.arrived.scheduled_ns.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(
            distances.into_iter().all(|distance| distance == 5 * MS),
            "{:?}",
            streamed.arrived.scheduled_ns
        );
        assert!(streamed.completed_stream.is_empty() && streamed.rest.is_none());
    }
}

#[test]
fn each_policy_handles_frames_that_no_stage_can_take() {
    let (one, _) = two_cpus();
    let mut runner = Runner::start();
    for policy in [QueuePolicy::DropOldest, QueuePolicy::DropNewest, QueuePolicy::Block] {
        let schedule = stages().schedule(ExecutionMode::Single, &[("net", &[one])]);
        // A stage that spins for 100 times its own time is slower than the arrivals on any machine.
        let trial = Trial { slow_down_per_mille: vec![100_000], ..under(load(10_000.0, policy), schedule) };
        let measured = runner.measure(&trial);
        let streamed = check(&trial, &measured);
        let drops = streamed.dropped.dropped_ns.len();
        assert_eq!(drops == 0, policy == QueuePolicy::Block, "{policy:?}: {drops}");
        let waited = &streamed.dropped.since_arrival_ns;
        if policy == QueuePolicy::DropOldest {
            // It has waited until two more frames arrived.
            assert!(waited.iter().all(|waited| *waited >= MS / 10), "{waited:?}");
        }
        if policy == QueuePolicy::Block {
            assert!(!measured.warm_up.steady, "latency grows");
            // Those that the source could not offer are counted too.
            let arrivals = streamed.arrived.scheduled_ns.len() as u64;
            let expected = measured.window.completed_ns.last().unwrap() / (MS / 10);
            assert!(arrivals.abs_diff(expected) <= 1, "{arrivals} of {expected}");
            let latency = &streamed.since_arrival_ns;
            assert!(latency.last() > latency.first(), "{latency:?}");
        }
    }
}

#[test]
fn four_cameras_share_the_pipeline() {
    let (one, other) = two_cpus();
    let mut runner = Runner::start();
    let schedule = stages()
        .schedule(ExecutionMode::Pipeline, &[("head", &[one]), ("middle", &[other]), ("tail", &[one])]);
    let load = StreamLoad { streams: 4, ..load(5000.0, QueuePolicy::DropOldest) };
    let mut trial = Trial { slow_down_per_mille: vec![100_000, 0, 0], ..under(load, schedule) };
    trial.measure.min_frames = 80;
    repeated(|| {
        let measured = runner.measure(&trial);
        let streamed = check(&trial, &measured);
        assert_eq!(streamed.arrived.stream.len(), streamed.arrived.scheduled_ns.len());
        let completed = |stream: u32| streamed.completed_stream.iter().filter(|of| **of == stream).count();
        let counts: Vec<usize> = (0..4).map(completed).collect();
        // Other load may stop the source until the queues are empty. Then the streams whose frames come first get them.
        let least = streamed.arrived.waiting.iter().min().copied();
        if least < Some(7) {
            return Err(format!("{least:?} frames in the queues, {counts:?} completed"));
        }
        // No queue was empty, so the streams took turns.
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        Ok(())
    });
}

#[test]
fn a_window_goes_on_when_its_lists_are_full() {
    let (one, _) = two_cpus();
    let schedule = stages().schedule(ExecutionMode::Single, &[("net", &[one])]);
    let mut trial = under(load(1000.0, QueuePolicy::DropOldest), schedule);
    (trial.measure.min_frames, trial.measure.max_frames) = (60, 20);
    let measured = Runner::start().measure(&trial);
    assert_eq!(measured.window.completed_ns.len(), 20);
    let streamed = measured.stream.as_ref().unwrap();
    assert_eq!((streamed.since_arrival_ns.len(), streamed.arrived.scheduled_ns.len()), (20, 20));
    let rest = streamed.rest.as_ref().unwrap();
    assert!(rest.completed >= 60 && rest.closed_ns > *measured.window.completed_ns.last().unwrap());
    for distribution in [&rest.since_arrival, &rest.between] {
        assert_eq!(distribution.counts.iter().sum::<u64>(), rest.completed);
    }
    assert_eq!(
        (rest.late.counts.iter().sum::<u64>(), rest.waiting.iter().sum::<u64>()),
        (rest.arrived, rest.arrived)
    );
}

#[test]
fn a_runner_that_is_stopped_for_a_while_tells_that_its_source_was_late() {
    let (one, _) = two_cpus();
    let schedule = stages().schedule(ExecutionMode::Single, &[("net", &[one])]);
    let mut trial = under(load(100.0, QueuePolicy::DropOldest), schedule);
    (trial.measure.min_ns, trial.warm_up.max_ns) = (3000 * MS, 100 * MS);
    let mut runner = Runner::start();
    repeated(|| {
        runner.send(&Request::Trial(trial.clone()));
        loop {
            if let Event::Phase { phase: Phase::WarmUp, .. } = runner.event() {
                break;
            }
        }
        let signal = |name: &str| {
            let pid = runner.child.id().to_string();
            assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
        };
        // The window opens after about 100 ms and lasts 3 s. On a machine in use, the runner may be stopped before or after it.
        std::thread::sleep(Duration::from_secs(1));
        signal("-STOP");
        std::thread::sleep(Duration::from_millis(1500));
        signal("-CONT");
        let measured = loop {
            match runner.event() {
                Event::Measured(measured) => break *measured,
                Event::Phase { .. } => {}
                other => panic!("{other:?}"),
            }
        };
        let streamed = check(&trial, &measured);
        // The frames of that time are all accounted for.
        let distances = streamed.arrived.scheduled_ns.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(distances.into_iter().all(|distance| distance == 10 * MS));
        let late = *streamed.arrived.late_ns.iter().max().unwrap();
        if late > 1000 * MS { Ok(()) } else { Err(format!("{late} ns late at most")) }
    });
}

#[test]
fn one_frame_at_a_time_waits_for_no_other() {
    let (one, other) = two_cpus();
    let mut runner = Runner::start();
    for schedule in [
        stages()
            .schedule(ExecutionMode::Pipeline, &[("head", &[one]), ("middle", &[other]), ("tail", &[one])]),
        stages().schedule(ExecutionMode::Replicate, &[("net", &[one]), ("net", &[other])]),
        stages().onnx(&[&[one]]),
    ] {
        let trial = Trial { load: Load::OneAtATime, ..trial(schedule) };
        let measured = runner.measure(&trial);
        assert!(measured.stream.is_none());
        let window = &measured.window;
        // Each frame enters after the one before it has completed.
        let entered =
            window.completed_ns.iter().zip(&window.latency_ns).map(|(at, latency)| at - latency.min(at));
        assert!(entered.skip(1).zip(&window.completed_ns).all(|(entered, before)| entered >= *before));
    }
}

#[test]
fn loads_out_of_range_are_refused() {
    let (one, _) = two_cpus();
    let schedule = stages().schedule(ExecutionMode::Single, &[("net", &[one])]);
    let mut runner = Runner::start();
    let trial = under(load(0.0, QueuePolicy::Block), schedule);
    let (fault, message) = runner.fails(&Request::Trial(trial));
    assert_eq!(fault, Fault::Request);
    assert!(message.starts_with("failed to prepare the stream: fps is 0"), "{message}");
}
