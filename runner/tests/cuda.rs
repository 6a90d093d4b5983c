//! Stages on a GPU, which the stand-in for `libcuda` emulates: outputs, pipelines with CPUs, profiles, hand-overs, and what the
//! runner reports.

mod gpu;
mod support;

use gpu::{Plans, gpu, runner};
use protocol::{
    ArrivalTimes, Call, CudaSystem, Event, ExecutionMode, Frames, Isolate, Load, MachineState, Processor,
    Profile, Profiled, QueuePolicy, Request, StreamLoad, Transfer, Transferred, Trial,
};
use support::{Runner, cpus, cpus_at_work, processor, repeated, stages, trial, two_cpus};

fn state(runner: &mut Runner, thorough: bool) -> MachineState {
    match runner.ask(&Request::State { id: 1, sysfs: "/sys".to_owned(), thorough }) {
        Event::State { state, .. } => *state,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_thorough_state_shows_the_gpu_and_a_board_without_a_driver_has_none() {
    let mut with = runner(&[("CUDA_STANDIN_MEMORY_MIB", "3000")]);
    assert_eq!(state(&mut with, false).cuda, None);
    let CudaSystem { driver_path, driver_version, emulated, devices, problem } =
        state(&mut with, true).cuda.unwrap();
    assert_eq!((driver_path, driver_version, emulated), (gpu::library().display().to_string(), 10020, true));
    assert_eq!(problem, None);
    let [device] = &devices[..] else { panic!("{devices:?}") };
    assert_eq!((device.index, device.name.as_str()), (0, "sm_62 GPU emulated on CPUs"));
    assert_eq!((device.arch.as_str(), device.memory_bytes, device.integrated), ("sm_62", 3000 << 20, true));
    assert!(device.multiprocessors == 2 && device.max_khz.is_some() && device.l2_bytes == Some(512 << 10));

    let mut broken = Runner::start_with(|command| {
        command.env("EDGEPIPE_LIBCUDA", "/nowhere/libcuda.so");
    });
    let found = state(&mut broken, true).cuda.unwrap();
    assert!(found.devices.is_empty() && found.problem.unwrap().contains("/nowhere/libcuda.so"));
}

#[test]
fn stages_on_cpus_never_load_the_driver() {
    let mut runner = runner(&[]);
    let net = stages().schedule(ExecutionMode::Single, &[("net", &[cpus()[0]])]);
    runner.measure(&trial(net));
    state(&mut runner, false);
    let maps =
        |runner: &Runner| std::fs::read_to_string(format!("/proc/{}/maps", runner.child.id())).unwrap();
    let name = gpu::library().file_name().unwrap().to_str().unwrap().to_owned();
    assert!(!maps(&runner).contains(&name));
    // The check can fail.
    state(&mut runner, true);
    assert!(maps(&runner).contains(&name));
}

#[test]
fn a_gpu_computes_what_cpus_compute_alone_and_in_pipelines_with_them() {
    let (first, second) = two_cpus();
    let plans = Plans::new();
    let mut runner = runner(&[("CUDA_STANDIN_CHECK", "1")]);
    let reference = stages().schedule(ExecutionMode::Single, &[("net", &[first])]);
    let pipeline = || {
        let placed: [(&str, &[u32]); 3] = [("head", &[first]), ("middle", &[second]), ("tail", &[first])];
        stages().schedule(ExecutionMode::Pipeline, &placed)
    };
    let mut candidates = vec![plans.single("net")];
    // Each stage on the GPU alone, then all of them, which share its context.
    for on_gpu in [&["head"][..], &["middle"], &["tail"], &["head", "tail"], &["head", "middle", "tail"]] {
        let mut schedule = pipeline();
        for (place, name) in ["head", "middle", "tail"].iter().enumerate() {
            if on_gpu.contains(name) {
                plans.move_to_gpu(&mut schedule, place, name);
            }
        }
        candidates.push(schedule);
    }
    let mut replicas = stages().schedule(ExecutionMode::Replicate, &[("net", &[first]), ("net", &[second])]);
    plans.move_to_gpu(&mut replicas, 1, "net");
    candidates.push(replicas);
    for candidate in candidates {
        let compared = runner.compare(reference.clone(), candidate.clone(), 7, 4);
        assert_eq!(compared.frames, 4);
        for output in &compared.outputs {
            assert_eq!(output.non_finite, 0, "{output:?}");
            let tolerance = 1e-5 * output.max_reference;
            assert!(output.max_reference > 1.0 && output.max_abs < tolerance, "{output:?} of {candidate:?}");
        }
    }
}

#[test]
fn trials_report_the_memory_of_the_gpu_and_share_weights() {
    let (first, second) = two_cpus();
    let plans = Plans::new();
    let mut runner = runner(&[]);
    let mut replicas = stages().schedule(ExecutionMode::Replicate, &[("net", &[first]), ("net", &[second])]);
    plans.move_to_gpu(&mut replicas, 0, "net");
    plans.move_to_gpu(&mut replicas, 1, "net");
    let mut trial = trial(replicas);
    trial.isolate = Some(Isolate { min_frames: 2, min_ns: 0, max_ns: 100_000_000_000, at_once: false });
    // Twice: the second trial finds no memory of the first.
    for _ in 0..2 {
        let measured = runner.measure(&trial);
        assert!(!measured.window.completed_ns.is_empty() && measured.isolated.len() == 2);
        let [one, other] = &measured.cuda[..] else { panic!("{:?}", measured.cuda) };
        assert_eq!((one.stage, other.stage), (0, 1));
        assert!(one.graph && other.graph && one.module_load_ns > 0);
        assert_eq!((one.arena_bytes, other.arena_bytes), (2 * (3072 + 5 * 8192 + 512), one.arena_bytes));
        // 864 and 2304 bytes, each rounded up to 256; the other replica uses the same.
        assert_eq!((one.weights_bytes, other.weights_bytes), (1024 + 2304, 0));
    }
    let on_cpus = stages().schedule(ExecutionMode::Single, &[("net", &[first])]);
    assert!(runner.measure(&support::trial(on_cpus)).cuda.is_empty());
}

#[test]
fn every_load_reaches_a_gpu_whose_frames_overlap() {
    let (first, _) = two_cpus();
    let plans = Plans::new();
    let mut runner = runner(&[]);
    let mut pipeline = stages()
        .schedule(ExecutionMode::Pipeline, &[("head", &[first]), ("middle", &[first]), ("tail", &[first])]);
    plans.move_to_gpu(&mut pipeline, 0, "head");
    let stream = |fps: f64, policy: QueuePolicy| {
        let arrivals = ArrivalTimes::Constant;
        Load::Stream(StreamLoad { fps, streams: 2, queue: 2, policy, arrivals, deadline_ns: None, seed: 1 })
    };
    for schedule in [plans.single("net"), pipeline] {
        for load in [
            stream(20.0, QueuePolicy::DropOldest),
            stream(10_000.0, QueuePolicy::DropNewest),
            stream(10_000.0, QueuePolicy::Block),
            Load::OneAtATime,
        ] {
            let trial = Trial { load, ..trial(schedule.clone()) };
            let measured = runner.measure(&trial);
            let window = &measured.window;
            assert!(window.completed_ns.len() >= 30);
            let entered = window
                .completed_ns
                .iter()
                .zip(&window.latency_ns)
                .map(|(at, latency)| at.saturating_sub(*latency));
            match &measured.stream {
                Some(streamed) => assert_eq!(streamed.since_arrival_ns.len(), window.completed_ns.len()),
                None => assert!(
                    entered.skip(1).zip(&window.completed_ns).all(|(entered, before)| entered >= *before)
                ),
            }
        }
    }
}

#[test]
fn graphs_and_single_launches_have_equal_outputs_with_old_and_new_drivers() {
    let plans = Plans::new();
    let captured = |settings: &[(&str, &str)], folder: &std::path::Path| {
        let mut runner = runner(settings);
        std::fs::create_dir(folder).unwrap();
        let schedule = plans.single("net");
        let graph = runner.measure(&trial(schedule.clone())).cuda[0].graph;
        let frames = Frames { seed: 3, distinct: 3, integers_below: 8, file: None };
        let folder_text = folder.display().to_string();
        runner.ask(&Request::Capture(protocol::Capture { id: 1, schedule, frames, folder: folder_text }));
        let outputs: Vec<Vec<u8>> =
            (0..3).map(|frame| std::fs::read(folder.join(format!("{frame}-output0.bin"))).unwrap()).collect();
        (graph, outputs)
    };
    let (graph, with) = captured(&[], &plans.folder().join("with"));
    assert!(graph && with[0] != with[1]);
    for (refused, has_graph) in [
        ("cuStreamBeginCapture_v2=801", false),
        ("cuStreamEndCapture=801", false),
        ("cuGraphInstantiate=801", false),
        ("cuGraphInstantiateWithFlags=801", true),
    ] {
        let found = captured(&[("CUDA_STANDIN_FAULT", refused)], &plans.folder().join(refused));
        assert!(found == (has_graph, with.clone()), "{refused}");
    }
    // Drivers since 11.4 instantiate a graph by another function.
    for version in ["11000", "12040"] {
        let found = captured(&[("CUDA_STANDIN_DRIVER", version)], &plans.folder().join(version));
        assert!(found == (true, with.clone()), "{version}");
    }
}

#[test]
fn a_request_frees_its_device_memory() {
    let plans = Plans::new();
    // A tenth of this is enough for one stage.
    let mut runner = runner(&[("CUDA_STANDIN_MEMORY_MIB", "1")]);
    let cpu = stages().schedule(ExecutionMode::Single, &[("net", &[cpus()[0]])]);
    for _ in 0..30 {
        runner.compare(cpu.clone(), plans.single("net"), 1, 1);
    }
}

fn profile(runner: &mut Runner, plans: &Plans) -> Profiled {
    let schedule = plans.single("net");
    let plan = gpu::plan("net");
    let call =
        |launch: &protocol::launch_plan::Launch| Call { function: launch.kernel.clone(), unit: launch.unit };
    let request = Profile {
        id: 4,
        values: schedule.values,
        stage: schedule.stages[0].clone(),
        calls: plan.launches.iter().map(call).collect(),
        frames: Frames { seed: 1, distinct: 2, integers_below: 8, file: None },
        warm_up_frames: 1,
        min_frames: 5,
        min_ns: 0,
        max_ns: 100_000_000_000,
    };
    match runner.ask(&Request::Profile(request)) {
        Event::Profiled(profiled) => profiled,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_profile_times_each_kernel_by_events_within_its_frame() {
    let plans = Plans::new();
    let mut runner = runner(&[]);
    repeated(|| {
        let profiled = profile(&mut runner, &plans);
        let units: Vec<u32> = profiled.calls.iter().map(|call| call.unit).collect();
        assert_eq!(units, [0, 0, 1, 2, 3, 4]);
        assert!(profiled.frame_ns.len() >= 5 && profiled.cuda.is_some());
        for (frame, whole) in profiled.instrumented_frame_ns.iter().enumerate() {
            let kernels: u64 = profiled.calls.iter().map(|call| call.samples_ns[frame]).sum();
            assert!(kernels <= whole + whole / 20 + 7000, "{kernels} of {whole}");
        }
        // A convolution of 8 channels does far more work than the copy of an image.
        let fastest = |place: usize| profiled.calls[place].samples_ns.iter().min().copied().unwrap();
        if fastest(3) > 4 * fastest(2) { Ok(()) } else { Err(format!("{:?}", profiled.calls)) }
    });
}

fn transfer(runner: &mut Runner, from: Processor, to: Processor) -> Transferred {
    let sizes = vec![64, 4 << 20];
    match runner.ask(&Request::Transfer(Transfer { id: 9, from, to, sizes, rounds: 10 })) {
        Event::Transferred(transferred) => transferred,
        other => panic!("{other:?}"),
    }
}

#[test]
fn hand_overs_to_and_from_a_gpu_include_their_copies() {
    let (first, second) = two_cpus();
    let mut runner = runner(&[]);
    let (cpu, gpu) = (processor("cpu", &[first]), Processor::Cuda(gpu(second)));
    for (from, to, reads_again) in [(&cpu, &gpu, false), (&gpu, &cpu, true), (&gpu, &gpu, false)] {
        let found = repeated(|| {
            let found = transfer(&mut runner, from.clone(), to.clone());
            let fastest = |place: usize| found.sizes[place].first_ns.iter().min().copied().unwrap();
            if fastest(1) > 2 * fastest(0) { Ok(found) } else { Err(format!("{found:?}")) }
        });
        for size in &found.sizes {
            let again = if reads_again { 10 } else { 0 };
            assert_eq!((size.first_ns.len(), size.again_ns.len()), (10, again));
        }
    }
}

#[test]
fn the_thread_that_feeds_the_gpu_is_bound_and_sleeps_while_it_waits() {
    let plans = Plans::new();
    let mut schedule = plans.single("net");
    let last = *cpus().last().unwrap();
    schedule.stages[0].processor = Processor::Cuda(gpu(last));
    let trial = trial(schedule);
    assert_eq!(cpus_at_work(&mut runner(&[]), trial.clone(), "stage0", 1), [last.to_string()]);
    let mut runner = runner(&[]);
    repeated(|| {
        let stage = runner.measure(&trial).stages.remove(0);
        // The stand-in computes on threads of its own: the stage's thread mostly waits.
        assert!(stage.cpu_ns < stage.busy_ns / 2, "{stage:?}");
        // Other load may hold the thread back until there is nothing to wait for.
        if stage.voluntary_switches >= stage.frames { Ok(()) } else { Err(format!("{stage:?}")) }
    });
}
