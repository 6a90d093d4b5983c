//! What comes out of a schedule is right, whatever way it runs.

mod rig;

use protocol::Kind;
use rig::{Runner, stages, two_cpus};

#[test]
fn a_network_gives_what_was_computed_by_other_means() {
    let cpu = [rig::cpus()[0]];
    let expected = stages().schedule(Kind::Single, &[("expected", &cpu)]);
    let net = stages().schedule(Kind::Single, &[("net", &cpu)]);
    let mut runner = Runner::start();
    // The frame of seed 7 and its outputs were computed in make_stages.py.
    let compared = runner.compare(expected.clone(), net.clone(), 7, 1);
    assert_eq!((compared.frames, compared.outputs.len()), (1, 2));
    for (output, name, elements) in [(&compared.outputs[0], "y", 2048), (&compared.outputs[1], "z", 128)] {
        assert_eq!((output.name.as_str(), output.elements, output.non_finite), (name, elements, 0));
        assert!(output.max_reference > 1.0 && output.max_abs < 1e-5 * output.max_reference, "{output:?}");
    }
    // Another frame gives something else, so the comparison can tell.
    let other = runner.compare(expected, net, 8, 1);
    assert!(other.outputs[0].max_abs > 0.1 * other.outputs[0].max_reference, "{other:?}");
    assert!(!other.outputs[0].identical);
}

#[test]
fn pipelines_and_replicas_give_the_same_bits_as_a_single_stage() {
    let (first, second) = two_cpus();
    let (zero, one) = ([first], [second]);
    let single = stages().schedule(Kind::Single, &[("net", &zero)]);
    // `a` skips the middle stage; `head` returns two tensors.
    let three = stages().schedule(Kind::Pipeline, &[("head", &zero), ("middle", &one), ("tail", &zero)]);
    let alone = stages().schedule(Kind::Pipeline, &[("net", &one)]);
    let replicas = stages().schedule(Kind::Replicate, &[("net", &zero), ("net", &one)]);
    let mut runner = Runner::start();
    for (candidate, times) in [(three, 1), (alone, 1), (replicas, 2)] {
        let compared = runner.compare(single.clone(), candidate.clone(), 3, 40);
        assert_eq!(compared.frames, 40);
        for output in &compared.outputs {
            assert!(output.identical && output.max_reference > 1.0, "{candidate:?}: {output:?}");
        }
        assert_eq!(compared.outputs[1].elements, 40 * 128 * times);
    }
}
