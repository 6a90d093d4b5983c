//! The outputs of every kind of schedule are right.

mod support;

use protocol::{Capture, Event, ExecutionMode, Fault, Frames, Request, Verify};
use std::fs;
use support::{Runner, stages, two_cpus};

#[test]
fn a_network_returns_what_numpy_computed() {
    let cpu = [support::cpus()[0]];
    let expected = stages().schedule(ExecutionMode::Single, &[("expected", &cpu)]);
    let net = stages().schedule(ExecutionMode::Single, &[("net", &cpu)]);
    let mut runner = Runner::start();
    // The frame of seed 7 and its outputs were computed in make_stages.py.
    let compared = runner.compare(expected.clone(), net.clone(), 7, 1);
    assert_eq!((compared.frames, compared.outputs.len()), (1, 2));
    for (output, name, elements) in [(&compared.outputs[0], "y", 2048), (&compared.outputs[1], "z", 128)] {
        assert_eq!((output.name.as_str(), output.elements, output.non_finite), (name, elements, 0));
        assert!(output.max_reference > 1.0 && output.max_abs < 1e-5 * output.max_reference, "{output:?}");
    }
    // Another frame has other outputs, so the comparison can fail.
    let other = runner.compare(expected, net, 8, 1);
    assert!(other.outputs[0].max_abs > 0.1 * other.outputs[0].max_reference, "{other:?}");
    assert!(!other.outputs[0].identical);
}

#[test]
fn outputs_are_compared_with_files() {
    let cpu = [support::cpus()[0]];
    let (first, second) = two_cpus();
    let single = stages().schedule(ExecutionMode::Single, &[("net", &cpu)]);
    let replicas = stages().schedule(ExecutionMode::Replicate, &[("net", &[first]), ("net", &[second])]);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(format!("0-{name}.bin")).to_str().unwrap().to_owned();
    let mut runner = Runner::start();
    let frames = Frames { seed: 7, distinct: 1, integers_below: 8, file: None };
    let folder_path = folder.path().to_str().unwrap().to_owned();
    runner.ask(&Request::Capture(Capture { id: 1, schedule: single.clone(), frames, folder: folder_path }));
    let places = |what: &str, count: usize| (0..count).map(|place| file(&format!("{what}{place}"))).collect();
    let request = |schedule: &protocol::Schedule| Verify {
        id: 2,
        schedule: schedule.clone(),
        inputs: places("input", schedule.inputs.len()),
        outputs: places("output", schedule.outputs.len()),
    };
    let mut verify = |request: Verify| match runner.ask(&Request::Verify(request)) {
        Event::Compared(compared) => Ok(compared),
        Event::Failed { fault, message, .. } => Err((fault, message)),
        other => panic!("{other:?}"),
    };
    for (schedule, times) in [(&single, 1), (&replicas, 2)] {
        let compared = verify(request(schedule)).unwrap();
        assert!(compared.outputs.iter().all(|output| output.identical && output.max_reference > 1.0));
        assert_eq!(compared.outputs[1].elements, 128 * times);
    }
    // One element that is wrong, then one that is NaN.
    let right = fs::read(file("output1")).unwrap();
    for (value, non_finite) in [(1e3_f32, 0), (f32::NAN, 1)] {
        let mut wrong = right.clone();
        wrong[4..8].copy_from_slice(&value.to_ne_bytes());
        fs::write(file("output1"), &wrong).unwrap();
        let output = verify(request(&single)).unwrap().outputs[1].clone();
        assert!(!output.identical && output.non_finite == non_finite, "{output:?}");
        assert_eq!(output.max_abs > 900.0, non_finite == 0, "{output:?}");
    }
    fs::write(file("output1"), &right[4..]).unwrap();
    let (fault, message) = verify(request(&single)).unwrap_err();
    assert_eq!(fault, Fault::Request);
    assert!(message.contains("508 bytes, expected 512"), "{message}");
}

#[test]
fn pipelines_and_replicas_return_the_same_bits_as_a_single_stage() {
    let (first, second) = two_cpus();
    let (zero, one) = ([first], [second]);
    let single = stages().schedule(ExecutionMode::Single, &[("net", &zero)]);
    // `a` skips the middle stage; `head` returns two tensors.
    let three =
        stages().schedule(ExecutionMode::Pipeline, &[("head", &zero), ("middle", &one), ("tail", &zero)]);
    let mut shared = stages().schedule(
        ExecutionMode::Pipeline,
        &[("head", &zero), ("middle", &one), ("middle", &zero), ("tail", &zero), ("tail", &one)],
    );
    shared.stages[2].replica = true;
    shared.stages[4].replica = true;
    let alone = stages().schedule(ExecutionMode::Pipeline, &[("net", &one)]);
    let replicas = stages().schedule(ExecutionMode::Replicate, &[("net", &zero), ("net", &one)]);
    let mut runner = Runner::start();
    // With frames in flight, and then once for each replica.
    for (candidate, times) in [(three, 1), (shared, 3), (alone, 1), (replicas, 2)] {
        let compared = runner.compare(single.clone(), candidate.clone(), 3, 40);
        assert_eq!(compared.frames, 40);
        for output in &compared.outputs {
            assert!(output.identical && output.max_reference > 1.0, "{candidate:?}: {output:?}");
        }
        assert_eq!(compared.outputs[1].elements, 40 * 128 * times);
    }
}
