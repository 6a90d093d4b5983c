//! ONNX Runtime as an engine: the same frames and trials as for stage libraries.

mod support;

use protocol::{ExecutionMode, Fault, OnnxGpu, OnnxProvider, Program, Request, Schedule};
use support::{Runner, cpus, endless, repeated, stages, threads_of, trial, two_cpus};

fn invalid(change: impl FnOnce(&mut protocol::OnnxModel)) -> Schedule {
    let mut schedule = stages().onnx(&[&[cpus()[0]]]);
    let Program::OnnxRuntime(model) = &mut schedule.stages[0].program else { panic!("no model") };
    change(model);
    schedule
}

#[test]
fn its_outputs_are_those_of_the_stage_library() {
    let (first, second) = two_cpus();
    let library = stages().schedule(ExecutionMode::Single, &[("net", &[first])]);
    let mut runner = Runner::start();
    for (sessions, times) in [(&[&[first][..]][..], 1), (&[&[first, second]], 1), (&[&[first], &[second]], 2)]
    {
        let compared = runner.compare(library.clone(), stages().onnx(sessions), 3, 5);
        for (output, elements) in compared.outputs.iter().zip([2048, 128]) {
            assert_eq!((output.elements, output.non_finite), (5 * elements * times, 0), "{sessions:?}");
            assert!(output.max_reference > 1.0, "{output:?}");
            assert!(output.max_abs < 1e-5 * output.max_reference, "{sessions:?}: {output:?}");
        }
    }
}

#[test]
fn a_trial_measures_it_like_a_stage_library() {
    let (first, second) = two_cpus();
    let mut runner = Runner::start();
    let measured = runner.measure(&trial(stages().onnx(&[&[first], &[second]])));
    assert!(measured.window.completed_ns.len() >= 30, "{measured:?}");
    assert!(measured.stages.iter().all(|stage| stage.frames > 0 && stage.cpu_ns > 0), "{measured:?}");
    assert_eq!(measured.weights_bytes, 0, "the model contains them");
    let mut long = trial(stages().onnx(&[&[first, second]]));
    long.measure.min_ns = 1_000_000_000;
    repeated(|| {
        let stage = runner.measure(&long).stages.remove(0);
        if stage.busy_ns > 900_000_000 { Ok(()) } else { Err(format!("{stage:?}")) }
    });
    // The session's worker inherits its name and CPUs from the stage's thread. (One more thread, of the library itself,
    // stays on the first CPU.)
    runner.send(&Request::Trial(endless(long)));
    while !matches!(runner.event(), protocol::Event::Phase { phase: protocol::Phase::WarmUp, .. }) {}
    let threads = threads_of(runner.child.id(), "stage");
    let free = threads.iter().filter(|(_, cpus)| cpus.contains(['-', ','])).count();
    assert_eq!(free, 2, "{threads:?}");
}

#[test]
fn files_that_it_cannot_load_are_errors() {
    let mut runner = Runner::start();
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.onnx");
    std::fs::write(&text, "no model").unwrap();
    let absent = folder.path().join("absent").display().to_string();
    for (schedule, expected) in [
        (invalid(|model| model.runtime.clone_from(&absent)), "failed to load ONNX Runtime"),
        (invalid(|model| model.runtime = text.display().to_string()), "failed to load ONNX Runtime"),
        (invalid(|model| model.model.clone_from(&absent)), "the file does not exist"),
        (invalid(|model| model.model = text.display().to_string()), "failed to load model"),
    ] {
        let (fault, message) = runner.fails(&Request::Trial(trial(schedule)));
        assert_eq!(fault, Fault::StageLibrary, "{message}");
        assert!(message.starts_with("failed to ") && message.contains(expected), "{message}");
    }
    for (provider, name) in
        [(OnnxProvider::Cuda, "CUDAExecutionProvider"), (OnnxProvider::Tensorrt, "TensorrtExecutionProvider")]
    {
        let gpu = Some(OnnxGpu { provider, device: 0 });
        let (fault, message) = runner.fails(&Request::Trial(trial(invalid(|model| model.gpu = gpu))));
        assert_eq!(fault, Fault::StageLibrary, "{message}");
        assert!(message.contains(&format!("was built without {name}; name a library")), "{message}");
    }
    let mut renamed = stages().onnx(&[&[cpus()[0]]]);
    renamed.values[0].name = "image".to_owned();
    let (fault, message) = runner.fails(&Request::Trial(trial(renamed)));
    assert_eq!(fault, Fault::StageLibrary, "{message}");
    assert!(message.contains("it has no image, only x"), "{message}");
    runner.measure(&trial(stages().onnx(&[&[cpus()[0]]])));
}
