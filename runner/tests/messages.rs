//! Every message that a request can fail with, as far as a test can provoke it, in one snapshot to be reviewed as prose. After
//! each failure the runner answers the next request.

#![expect(clippy::unwrap_used, reason = "a test panics if its assumptions fail")]

mod gpu;
mod support;

use gpu::Plans;
use protocol::launch_plan::LaunchPlan;
use protocol::{
    Capture, Compare, CudaProcessor, CudaProgram, Event, ExecutionMode, Frames, Idle, Isolate, Meter,
    MeterKind, Peak, Phase, Processor, Profile, Program, Request, Schedule, StageLibrary, Transfer, Trial,
    Verify,
};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;
use support::{Runner, cpus, processor, stages, trial, two_cpus};

fn net() -> Schedule {
    stages().schedule(ExecutionMode::Single, &[("net", &[cpus()[0]])])
}

fn library_of(trial: &mut Trial) -> &mut StageLibrary {
    match &mut trial.schedule.stages[0].program {
        Program::Library(library) => library,
        Program::OnnxRuntime(_) | Program::Cuda(_) => panic!("these tests run stage libraries"),
    }
}

/// Collects failures as text, with all that differs between machines replaced.
struct Messages {
    runner: Runner,
    folder: tempfile::TempDir,
    text: String,
}

impl Messages {
    fn new() -> Self {
        Self::of(Runner::start())
    }

    fn of(runner: Runner) -> Self {
        Self { runner, folder: tempfile::tempdir().unwrap(), text: String::new() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// Sends a request that must fail.
    fn fails(&mut self, case: &str, request: &Request) {
        let (fault, message) = self.runner.fails(request);
        self.add(case, &format!("{fault:?}"), &message);
    }

    fn add(&mut self, case: &str, fault: &str, message: &str) {
        assert!(message.starts_with("failed to "), "{message}");
        let message = message
            .replace(&self.folder.path().display().to_string(), "TEMPORARY")
            .replace(&stages().folder.display().to_string(), "STAGES")
            .replace(&format!("has CPUs {}", protocol::format_cpu_list(&cpus())), "has CPUS")
            .replace(&format!("CPUs {};", cpus()[0]), "CPUs FIRST;")
            .replace(&format!("cpus[{}]", cpus()[0]), "cpus[FIRST]");
        let message = match message.split_once(" are needed, ") {
            Some((before, after)) => {
                let after = after.trim_start_matches(|letter: char| letter.is_ascii_digit());
                format!("{before} are needed, SOME{after}")
            }
            None => message,
        };
        // The rest of TVM's own errors is a stack trace.
        let message = message.lines().next().unwrap_or_default();
        writeln!(self.text, "{case}\n  {fault}: {message}").unwrap();
    }

    /// Spoils a trial of `net`.
    fn trial(&mut self, case: &str, spoil: impl FnOnce(&mut Trial)) {
        let mut trial = trial(net());
        spoil(&mut trial);
        self.fails(case, &Request::Trial(trial));
    }

    /// Runs a trial that succeeds, and returns the text.
    fn finish(mut self) -> String {
        let measured = self.runner.measure(&trial(net()));
        assert!(!measured.window.completed_ns.is_empty());
        self.text
    }
}

#[test]
fn of_requests() {
    let mut messages = Messages::new();
    let unknown_type = r#"{"state":{"id":1,"sysfs":"/sys","thorough":"yes"}}"#;
    let unknown_field = r#"{"state":{"id":1,"colour":"red"}}"#;
    for line in ["garbage", "{}", r#"{"state":{}}"#, unknown_field, unknown_type, "\u{0}\u{7f}"] {
        messages.runner.send_line(line);
        match messages.runner.event() {
            Event::Failed { id: None, fault, message } => {
                messages.add(&format!("line {line:?}"), &format!("{fault:?}"), &message);
            }
            other => panic!("{line}: {other:?}"),
        }
    }
    let (first, second) = two_cpus();
    messages.trial("no stages", |trial| trial.schedule.stages.clear());
    messages.trial("two stages of a single schedule", |trial| {
        trial.schedule.stages.push(trial.schedule.stages[0].clone());
    });
    messages.trial("input index", |trial| trial.schedule.inputs = vec![77]);
    messages.trial("stage input index", |trial| trial.schedule.stages[0].inputs = vec![77]);
    messages.trial("no outputs", |trial| trial.schedule.outputs.clear());
    messages.trial("no stage outputs", |trial| trial.schedule.stages[0].outputs.clear());
    messages.trial("output that no stage produces", |trial| {
        trial.schedule.stages[0].outputs.pop();
    });
    messages.trial("input that no stage produces", |trial| trial.schedule.inputs.clear());
    messages.trial("output that the frame provides", |trial| {
        trial.schedule.stages[0].outputs = trial.schedule.inputs.clone();
    });
    messages.trial("shape", |trial| trial.schedule.values[0].shape = vec![0]);
    messages.trial("threads", |trial| {
        let Processor::Cpu(cpu) = &mut trial.schedule.stages[0].processor else { panic!("not a CPU") };
        cpu.threads = 2;
    });
    messages.trial("no frames", |trial| trial.frames.distinct = 0);
    messages.trial("integers", |trial| trial.frames.integers_below = 257);
    messages.trial("too many frames", |trial| trial.frames.distinct = u32::MAX);
    messages.trial("window", |trial| trial.measure.max_frames = u32::MAX);
    messages.trial("CPU", |trial| {
        trial.schedule.stages[0].processor = processor("denver", &[999]);
    });

    let transfer = |sizes: &[u64], to: &[u32], rounds| {
        Request::Transfer(Transfer {
            id: 1,
            from: processor("p", &[first]),
            to: processor("p", to),
            sizes: sizes.to_vec(),
            rounds,
        })
    };
    messages.fails("transfer rounds", &transfer(&[64], &[second], 0));
    messages.fails("transfer size", &transfer(&[u64::MAX], &[second], 1));
    messages.fails("transfer without CPUs", &transfer(&[64], &[], 1));
    let peak = Peak { id: 1, processor: processor("p", &[first]), rounds: 1, streams: vec![u64::MAX] };
    messages.fails("peak size", &Request::Peak(peak));
    let meter = |kind| Meter { kind, root: "/nowhere".to_owned(), total: vec!["VDD_IN".to_owned()] };
    let idle = |kind, duration_ns| Request::Idle(Idle { id: 1, meter: meter(kind), duration_ns });
    messages.fails("idle duration", &idle(MeterKind::Rapl, 601_000_000_000));
    messages.fails("no RAPL", &idle(MeterKind::Rapl, 1));
    messages.fails("no INA3221", &idle(MeterKind::Ina3221 { rails: Vec::new() }, 1));

    let frames = Frames { seed: 1, distinct: 1, integers_below: 8, file: None };
    let relu = stages().schedule(ExecutionMode::Single, &[("relu", &[first])]);
    let compare = Compare { id: 1, reference: net(), candidate: relu, frames: frames.clone() };
    messages.fails("compare two networks", &Request::Compare(compare));
    let verify = |inputs: &[String]| {
        Request::Verify(Verify {
            id: 1,
            schedule: net(),
            inputs: inputs.to_vec(),
            outputs: vec![String::new(); 2],
        })
    };
    messages.fails("verify without files", &verify(&[]));
    let (absent, short) = (messages.path("absent"), messages.file("short", "123"));
    messages.fails("verify with a missing file", &verify(std::slice::from_ref(&absent)));
    messages.fails("verify with a short file", &verify(&[short]));
    let capture = Capture { id: 1, schedule: net(), frames, folder: absent };
    messages.fails("capture into a missing folder", &Request::Capture(capture));
    insta::assert_snapshot!(messages.finish());
}

#[test]
fn of_stage_libraries_and_weights() {
    let mut messages = Messages::new();
    let net = fs::read(stages().folder.join("net.so")).unwrap();
    let libm = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib/aarch64-linux-gnu/libm.so.6", "/lib64/libm.so.6"];
    let libm = libm.into_iter().find(|path| Path::new(path).is_file()).expect("a C library");
    let cases = [
        ("missing library", messages.path("absent.so")),
        ("text as library", messages.file("text.so", "no library at all")),
        ("empty library", messages.file("empty.so", "")),
        ("other library", messages.file("other.so", fs::read(libm).unwrap())),
    ];
    for (case, path) in cases {
        messages.trial(case, |trial| library_of(trial).path = path);
    }
    let truncated = messages.file("truncated.so", &net[..4096]);
    messages.trial("truncated library", |trial| library_of(trial).path = truncated);
    messages.trial("entry", |trial| library_of(trial).entry = "start".to_owned());
    messages.trial("shape of an output", |trial| trial.schedule.values[1].shape = vec![1, 8, 16, 17]);
    messages.trial("number of outputs", |trial| {
        trial.schedule.outputs.pop();
        trial.schedule.stages[0].outputs.pop();
    });
    messages.trial("number of offsets", |trial| {
        library_of(trial).weights.offsets.pop();
    });
    messages.trial("alignment of an offset", |trial| library_of(trial).weights.offsets[1] += 4);
    let (absent, short) = (messages.path("absent.bin"), messages.file("short.bin", vec![0; 1000]));
    messages.trial("missing weights", |trial| library_of(trial).weights.path = absent);
    messages.trial("short weights", |trial| library_of(trial).weights.path = short);

    let request = |schedule: Schedule, calls: &str| Profile {
        id: 1,
        values: schedule.values,
        stage: schedule.stages[0].clone(),
        calls: stages().calls(calls),
        frames: Frames { seed: 1, distinct: 1, integers_below: 8, file: None },
        warm_up_frames: 0,
        min_frames: 1,
        min_ns: 0,
        max_ns: 0,
    };
    messages.fails("profile with other kernels", &Request::Profile(request(self::net(), "relu")));
    let onnx = request(stages().onnx(&[&[cpus()[0]]]), "net");
    messages.fails("profile of ONNX Runtime", &Request::Profile(onnx));
    insta::assert_snapshot!(messages.finish());
}

/// Spoils the launch plan of `net` or a trial of it on the GPU.
fn on_gpu(messages: &mut Messages, case: &str, spoil: impl FnOnce(&mut Trial, &mut LaunchPlan)) {
    let (plans, mut plan) = (Plans::new(), gpu::plan("net"));
    let mut trial = trial(plans.single("net"));
    spoil(&mut trial, &mut plan);
    plans.write("net", &plan);
    let (fault, message) = messages.runner.fails(&Request::Trial(trial));
    messages.add(
        case,
        &format!("{fault:?}"),
        &message.replace(&plans.folder().display().to_string(), "PLANS"),
    );
}

fn gpu_of(trial: &mut Trial) -> (&mut CudaProcessor, &mut CudaProgram) {
    let stage = &mut trial.schedule.stages[0];
    match (&mut stage.processor, &mut stage.program) {
        (Processor::Cuda(processor), Program::Cuda(program)) => (processor, program),
        other => panic!("not on a GPU: {other:?}"),
    }
}

#[test]
fn of_launch_plans() {
    let mut messages = Messages::of(gpu::runner(&[]));
    on_gpu(&mut messages, "missing plan", |trial, _| gpu_of(trial).1.path += ".absent");
    let malformed = messages.file("malformed.cuda.json", "{\"schema\":1,");
    on_gpu(&mut messages, "malformed plan", |trial, _| gpu_of(trial).1.path = malformed);
    let unknown = serde_json::to_string(&gpu::plan("net")).unwrap().replacen("\"schema\"", "\"scheme\"", 1);
    let unknown = messages.file("unknown.cuda.json", unknown);
    on_gpu(&mut messages, "unknown field", |trial, _| gpu_of(trial).1.path = unknown);
    on_gpu(&mut messages, "schema", |_, plan| plan.schema = 7);
    on_gpu(&mut messages, "value outside of the arena", |_, plan| plan.arena_bytes = 256);
    on_gpu(&mut messages, "size of an output", |_, plan| plan.values[6].bytes = 256);
    on_gpu(&mut messages, "number of inputs", |_, plan| plan.inputs.push(1));
    on_gpu(&mut messages, "missing kernel", |_, plan| plan.launches[1].kernel = "softmax".to_owned());
    on_gpu(&mut messages, "number of arguments", |_, plan| {
        plan.launches[0].arguments.pop();
    });
    on_gpu(&mut messages, "index of an argument", |_, plan| {
        plan.launches[0].arguments[0] = protocol::launch_plan::Argument::Value(99);
    });
    on_gpu(&mut messages, "grid", |_, plan| plan.launches[0].grid = [0, 1, 1]);
    on_gpu(&mut messages, "threads of a block", |_, plan| plan.launches[0].block = [32, 32, 1]);
    on_gpu(&mut messages, "PTX that the driver cannot compile", |_, plan| {
        plan.ptx = plan.ptx.replace("max.f32", "maximum.f32");
    });
    on_gpu(&mut messages, "PTX that the driver is too old for", |_, plan| {
        plan.ptx_version = "7.8".to_owned();
    });
    on_gpu(&mut messages, "architecture of the plan", |_, plan| plan.arch = "sm_53".to_owned());
    on_gpu(&mut messages, "architecture of the device", |trial, plan| {
        gpu_of(trial).0.arch = "sm_72".to_owned();
        plan.arch = "sm_72".to_owned();
    });
    on_gpu(&mut messages, "weights outside of their file", |_, plan| plan.weights[1].offset = 64 << 20);
    let absent = messages.path("absent.bin");
    on_gpu(&mut messages, "missing weights", |trial, _| gpu_of(trial).1.weights = absent);
    on_gpu(&mut messages, "number of the device", |trial, _| gpu_of(trial).0.device = 3);
    on_gpu(&mut messages, "CPU that feeds it", |trial, _| gpu_of(trial).0.host_cpus = vec![999]);
    on_gpu(&mut messages, "no CPU that feeds it", |trial, _| gpu_of(trial).0.host_cpus.clear());
    on_gpu(&mut messages, "plan on CPUs", |trial, _| {
        trial.schedule.stages[0].processor = processor("denver", &[cpus()[0]]);
    });
    messages.trial("library on the GPU", |trial| {
        trial.schedule.stages[0].processor = Processor::Cuda(gpu::gpu(cpus()[0]));
    });
    let peak = Peak { id: 1, processor: Processor::Cuda(gpu::gpu(cpus()[0])), rounds: 1, streams: vec![64] };
    messages.fails("peak of the GPU", &Request::Peak(peak));
    works(&mut messages.runner);
    insta::assert_snapshot!(messages.finish());
}

/// Runs a trial on the GPU that succeeds.
fn works(runner: &mut Runner) {
    let plans = Plans::new();
    assert_eq!(runner.measure(&trial(plans.single("net"))).cuda.len(), 1);
}

/// Faults of the driver and the device. After those that pass, a trial on the GPU succeeds with the same runner.
#[test]
fn of_gpus() {
    let mut text = String::new();
    let mut check = |case: &str, settings: &[(&str, &str)], passes: bool| {
        let mut messages = Messages::of(gpu::runner(settings));
        on_gpu(&mut messages, case, |_, _| {});
        if passes {
            works(&mut messages.runner);
        }
        text += &messages.finish();
    };
    check("no library", &[("EDGEPIPE_LIBCUDA", "/nowhere/libcuda.so.1")], false);
    check("another library", &[("EDGEPIPE_LIBCUDA", "libm.so.6")], false);
    for (case, fault, passes) in [
        ("no device", "cuInit=100", false),
        ("device that another program uses", "cuDevicePrimaryCtxRetain@1!=46", true),
        ("out of memory for weights", "cuMemAlloc_v2@1!=2", true),
        ("out of memory for tensors", "cuMemAlloc_v2@2!=2", true),
        ("upload of weights", "cuMemcpyHtoDAsync_v2@2!=1", true),
        ("kernel that cannot be launched", "cuLaunchKernel@13!=701", true),
        ("kernel that fails in the first frame", "kernel:twice@1!=700", true),
        ("copy of an output", "cuMemcpyDtoHAsync_v2@5!=719", true),
    ] {
        check(case, &[("CUDA_STANDIN_FAULT", fault)], passes);
    }
    insta::assert_snapshot!(text);
}

/// The device reports it late, and with two frames in flight, which call learns of it first depends on time.
#[test]
fn a_kernel_that_fails_later_fails_the_trial_and_the_next_one_succeeds() {
    let mut runner = gpu::runner(&[("CUDA_STANDIN_FAULT", "kernel:twice@9!=719")]);
    let plans = Plans::new();
    let (fault, message) = runner.fails(&Request::Trial(trial(plans.single("net"))));
    assert_eq!(fault, protocol::Fault::Execution, "{message}");
    for part in [
        "failed to run launch plan",
        "CUDA_ERROR_LAUNCH_FAILED, 719); the GPU is reset before the next request",
        "(stage 0, frame ",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    works(&mut runner);
}

#[test]
fn a_runner_that_cannot_reset_its_gpu_ends_and_says_why() {
    let (log, plans) = (tempfile::NamedTempFile::new().unwrap(), Plans::new());
    let mut runner = Runner::start_with(|command| {
        let faults = "kernel:twice@1!=700,cuDevicePrimaryCtxReset=999";
        command.env("EDGEPIPE_LIBCUDA", gpu::library()).env("CUDA_STANDIN_FAULT", faults);
        command.stderr(log.reopen().unwrap());
    });
    runner.send(&Request::Trial(trial(plans.single("net"))));
    let status = runner.ended(Duration::from_secs(300));
    let log = fs::read_to_string(log.path()).unwrap();
    assert_eq!(status.code(), Some(71), "{log}");
    assert!(log.contains("kernel twice: cuStreamSynchronize failed"), "{log}");
    assert!(log.contains("failed to reset GPU 0 after a failure: "), "{log}");
}

#[test]
fn a_runner_whose_kernel_hangs_ends_with_its_input() {
    let plans = Plans::new();
    let mut runner = gpu::runner(&[("CUDA_STANDIN_FAULT", "kernel:twice@9!=hang")]);
    runner.send(&Request::Trial(trial(plans.single("net"))));
    // The ninth frame belongs to the warm-up.
    while !matches!(runner.event(), Event::Phase { phase: Phase::WarmUp, .. }) {}
    std::thread::sleep(Duration::from_millis(300));
    runner.send_line("");
    assert!(matches!(runner.event(), Event::Heartbeat {}));
    assert!(runner.child.try_wait().unwrap().is_none());
    runner.stdin = None;
    assert_eq!(runner.ended(Duration::from_secs(300)).code(), Some(0));
    assert!(runner.is_silent());
}

#[test]
fn kernels_that_do_not_end_are_named_in_the_log() {
    for (fault, expected) in [
        // The first frame waits for each kernel, and later ones for all of them.
        ("kernel:twice=hang", "kernel twice of launch plan "),
        ("kernel:twice@9!=hang", "one of the kernels of launch plan "),
    ] {
        let (log, plans) = (tempfile::NamedTempFile::new().unwrap(), Plans::new());
        let mut runner = Runner::start_with(|command| {
            command.env("EDGEPIPE_LIBCUDA", gpu::library()).env("CUDA_STANDIN_FAULT", fault);
            command.stderr(log.reopen().unwrap());
        });
        runner.send(&Request::Trial(trial(plans.single("net"))));
        let deadline = std::time::Instant::now() + Duration::from_secs(300);
        let said = || fs::read_to_string(log.path()).unwrap();
        while !said().contains("has not ended for ") {
            assert!(std::time::Instant::now() < deadline, "{fault}: {}", said());
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(said().contains(expected), "{fault}: {}", said());
    }
}

/// What TVM itself reports about wrong arguments has other words in each version.
#[test]
fn of_inputs_that_do_not_fit_start_with_the_library() {
    let mut messages = Messages::new();
    messages.trial("shape of an input", |trial| trial.schedule.values[0].shape = vec![1, 3, 16, 8]);
    messages.trial("number of weights", |trial| {
        library_of(trial).weights.offsets.pop();
        library_of(trial).weights.tensors.pop();
    });
    for line in messages.finish().lines().filter(|line| line.starts_with(' ')) {
        assert!(line.starts_with("  StageLibrary: failed to run stage library STAGES/net.so: "), "{line}");
    }
}

#[test]
fn a_stage_that_fails_on_a_frame_stops_all_stages() {
    let (first, second) = two_cpus();
    let mut messages = Messages::new();
    let single = stages().schedule(ExecutionMode::Single, &[("picky", &[first])]);
    let replicas = stages().schedule(ExecutionMode::Replicate, &[("picky", &[first]), ("picky", &[second])]);
    for schedule in [single, replicas] {
        let mut failed = 0;
        // Frame 0 passes the check at the start in three of four seeds; among 64 frames one fails for certain.
        for seed in 0..8 {
            let mut trial = trial(schedule.clone());
            trial.isolate = Some(Isolate { min_frames: 1, min_ns: 0, max_ns: 0, at_once: seed % 2 == 1 });
            trial.frames = Frames { seed: 1000 * seed, distinct: 64, integers_below: 8, file: None };
            let (fault, message) = messages.runner.fails(&Request::Trial(trial));
            assert!(message.contains("this frame is too large"), "{message}");
            if fault == protocol::Fault::Execution {
                assert!(message.contains("(stage ") && message.contains("frame "), "{message}");
                failed += 1;
            } else {
                assert_eq!(fault, protocol::Fault::StageLibrary, "{message}");
            }
        }
        assert!(failed > 0);
    }
    messages.finish();
}

#[test]
fn an_empty_line_is_a_heartbeat() {
    let mut runner = Runner::start();
    runner.send_line("");
    assert!(matches!(runner.event(), Event::Heartbeat {}));
    match runner.ask(&Request::State { id: 5, sysfs: "/sys".to_owned(), thorough: true }) {
        Event::State { id: 5, state } => assert!(!state.cpus.is_empty() && state.memory_bytes > 0),
        other => panic!("{other:?}"),
    }
}
