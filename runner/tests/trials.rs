//! Trials, profiles and timed hand-overs.

#![expect(clippy::unwrap_used, reason = "a test panics if its assumptions fail")]

mod support;

use protocol::{
    Event, ExecutionMode, Fault, Frames, Isolate, Measured, Phase, Processor, Profile, Request, Span,
    Transfer, Trial,
};
use support::{Runner, cpus_at_work, repeated, stages, threads_of, trial, two_cpus};

/// Checks that hold for every trial.
fn check(trial: &Trial, measured: &Measured) {
    let window = &measured.window;
    let frames = window.completed_ns.len();
    let length = *window.completed_ns.last().unwrap();
    let rule = &trial.measure;
    assert!(frames as u64 >= u64::from(rule.min_frames) && length >= rule.min_ns, "{frames} in {length} ns");
    assert!(window.completed_ns.is_sorted() && measured.warm_up.completed_ns.is_sorted());
    assert_eq!(window.latency_ns.len(), frames);
    // On a busy machine the time ends first.
    let warm_up = &measured.warm_up.completed_ns;
    let in_time = warm_up.len() as u64 >= u64::from(trial.warm_up.min_frames);
    assert!(in_time || warm_up.last() >= Some(&trial.warm_up.max_ns), "{warm_up:?}");
    let stages = trial.schedule.stages.len();
    assert_eq!(measured.stages.len(), stages);
    for stage in &measured.stages {
        let accounted = stage.busy_ns + stage.waiting_input_ns + stage.waiting_output_ns;
        assert!(accounted <= length + 1_000_000, "{stage:?} in a window of {length} ns");
        assert!(stage.busy_ns > 0 && stage.cpu_ns > 0 && stage.frames > 0, "{stage:?}");
    }
    if trial.schedule.kind == ExecutionMode::Replicate {
        assert_eq!(window.completed_by.len(), frames);
        for (place, stage) in (0..).zip(&measured.stages) {
            let own = window.completed_by.iter().filter(|by| **by == place).count() as u64;
            assert!(
                stage.frames.abs_diff(own) <= 1,
                "stage {place}: {} frames, {own} completions",
                stage.frames
            );
        }
    } else {
        assert!(window.completed_by.is_empty());
        let last = measured.stages.last().unwrap().frames;
        let has_replicas = trial.schedule.stages.last().unwrap().replica;
        assert!(has_replicas || last.abs_diff(frames as u64) <= 1, "{last} of {frames}");
    }
    let replicate = trial.schedule.kind == ExecutionMode::Replicate;
    let groups = trial.schedule.stages.iter().filter(|stage| !stage.replica).count();
    let spans = frames.min(20) * if replicate { 1 } else { groups };
    assert_eq!(measured.timeline.len(), spans);
    assert!(measured.timeline.iter().all(|span| span.begin_ns < span.end_ns));
    assert!(measured.host.runner_ns >= measured.host.overhead_ns && measured.host.wall_ns > 0);
    assert!(measured.resident_bytes > measured.anonymous_bytes && measured.anonymous_bytes > 0);
    assert!(!measured.before.cpus.is_empty() && !measured.after.cpus.is_empty());
}

#[test]
fn a_single_stage_is_measured() {
    let mut runner = Runner::start();
    let cpu = [support::cpus()[0]];
    let trial = trial(stages().schedule(ExecutionMode::Single, &[("net", &cpu)]));
    let measured = runner.measure(&trial);
    check(&trial, &measured);
    let weights = std::fs::metadata(stages().folder.join("weights.bin")).unwrap().len();
    assert_eq!((measured.id, measured.weights_bytes), (42, weights));
    assert!(measured.isolated.is_empty());
    let stage = &measured.stages[0];
    assert_eq!((stage.waiting_input_ns, stage.waiting_output_ns), (0, 0), "a single stage does not wait");
    // Frames follow each other without a gap: each begins after the one before it has ended.
    assert!(measured.timeline.windows(2).all(|pair| pair[0].end_ns <= pair[1].begin_ns));
}

#[test]
fn phases_are_announced_in_order_for_every_kind() {
    let (first, second) = two_cpus();
    let (zero, one) = ([first], [second]);
    let schedules = [
        stages().schedule(ExecutionMode::Single, &[("net", &zero)]),
        stages().schedule(ExecutionMode::Pipeline, &[("head", &zero), ("middle", &one), ("tail", &zero)]),
        stages().schedule(ExecutionMode::Replicate, &[("net", &zero), ("net", &one)]),
    ];
    let mut runner = Runner::start();
    for (schedule, at_once) in schedules.into_iter().flat_map(|one| [(one.clone(), false), (one, true)]) {
        let mut trial = trial(schedule);
        trial.isolate = Some(Isolate { min_frames: 5, min_ns: 0, max_ns: 100_000_000_000, at_once });
        runner.send(&Request::Trial(trial.clone()));
        let mut phases = Vec::new();
        let measured = loop {
            match runner.event() {
                Event::Phase { id: 42, phase } => phases.push(phase),
                Event::Measured(measured) => break *measured,
                other => panic!("{other:?}"),
            }
        };
        // Stages that are timed at once are not alone.
        let wanted: &[Phase] = if at_once {
            &[Phase::Load, Phase::WarmUp]
        } else {
            &[Phase::Load, Phase::Isolate, Phase::WarmUp]
        };
        assert_eq!(phases, wanted);
        check(&trial, &measured);
        assert_eq!(measured.isolated.len(), trial.schedule.stages.len());
        assert!(measured.isolated.iter().all(|stage| stage.samples_ns.len() == 5));
    }
}

#[test]
fn two_stages_on_two_cpus_run_at_once() {
    let (first, second) = two_cpus();
    let trial =
        trial(stages().schedule(ExecutionMode::Pipeline, &[("busy", &[first]), ("busy_again", &[second])]));
    // Read while kernels run, because TVM by default binds threads when it runs its first kernel.
    let cpus = cpus_at_work(&mut Runner::start(), trial.clone(), "stage", 2);
    assert_eq!(cpus, [first.to_string(), second.to_string()]);
    let measured = Runner::start().measure(&trial);
    check(&trial, &measured);
    // Stage 0 begins a later frame before stage 1 has ended this one. Other load cannot change that, although it may give
    // the two CPUs to these stages by turns, so that their spans never meet.
    let spans = |stage| measured.timeline.iter().filter(move |span| span.stage == stage);
    let ahead = |b: &Span| spans(0).any(|a| a.frame > b.frame && a.begin_ns < b.end_ns);
    assert!(spans(1).any(ahead), "{:?}", measured.timeline);
}

#[test]
fn frames_leave_a_stage_with_a_slow_replica_in_their_order() {
    let (first, second) = two_cpus();
    let (zero, one) = ([first], [second]);
    let mut runner = Runner::start();
    // The stage with replicas is the first one, or the last.
    let placed: [[(&str, &[u32]); 3]; 2] = [
        [("busy", &zero), ("busy", &one), ("light_after", &one)],
        [("light", &zero), ("busy_again", &zero), ("busy_again", &one)],
    ];
    for (stages_placed, slow) in placed.iter().zip([1, 2]) {
        let mut schedule = stages().schedule(ExecutionMode::Pipeline, stages_placed);
        schedule.stages[slow].replica = true;
        let mut trial = trial(schedule);
        trial.isolate = Some(Isolate { min_frames: 3, min_ns: 0, max_ns: 100_000_000_000, at_once: false });
        trial.timeline_frames = 60;
        trial.measure.min_frames = 100;
        // Six times the time of the other replica.
        trial.slow_down_per_mille = vec![0; 3];
        trial.slow_down_per_mille[slow] = 5000;
        let measured = runner.measure(&trial);
        assert_eq!(measured.isolated.len(), 3);
        assert!(measured.window.completed_ns.is_sorted() && measured.window.completed_by.is_empty());
        let slow = u32::try_from(slow).unwrap();
        // The frames of the window, in the order of completion.
        let mut frames: Vec<u64> = measured.timeline.iter().map(|span| span.frame).collect();
        frames.dedup();
        assert_eq!(frames.len(), 60);
        assert!(frames.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{frames:?}");
        let of = |stage: u32| measured.timeline.iter().filter(move |span| span.stage == stage);
        // Later frames were ready while the slow replica had an earlier one.
        let overtaken = of(slow)
            .any(|own| of(slow - 1).any(|other| other.frame > own.frame && other.end_ns < own.end_ns));
        assert!(overtaken, "{:?}", measured.timeline);
        // The latency of a frame ends when it leaves, after it has waited for its turn.
        let begun = |frame: u64| {
            measured
                .timeline
                .iter()
                .filter(|span| span.frame == frame)
                .map(|span| span.begin_ns)
                .min()
                .unwrap()
        };
        let left: Vec<i64> = frames
            .iter()
            .zip(&measured.window.latency_ns)
            .map(|(frame, latency)| begun(*frame) + latency.cast_signed())
            .collect();
        let completed: Vec<i64> =
            measured.window.completed_ns[..60].iter().map(|completed| completed.cast_signed()).collect();
        assert_eq!(left, completed);
    }
}

#[test]
fn every_thread_of_a_stage_has_its_own_cpu() {
    let (first, second) = two_cpus();
    let mut trial = trial(stages().schedule(ExecutionMode::Single, &[("wide", &[second, first])]));
    let Processor::Cpu(cpu) = &mut trial.schedule.stages[0].processor else { panic!("not a CPU") };
    cpu.threads = 2;
    trial.measure.min_ns = 500_000_000;
    let cpus = cpus_at_work(&mut Runner::start(), trial.clone(), "stage0", 2);
    assert_eq!(cpus, [second.to_string(), first.to_string()]);
    let mut runner = Runner::start();
    // The worker's half of the work counts for the stage: without it, half of the runner's CPU time would be overhead. The kernel is
    // asked for the times of the process and its threads one after another, and other load may come between.
    repeated(|| {
        let measured = runner.measure(&trial);
        check(&trial, &measured);
        let host = &measured.host;
        if host.overhead_ns < host.runner_ns / 4 { Ok(()) } else { Err(format!("{host:?}")) }
    });
    // The pool ended with its stage.
    assert!(threads_of(runner.hello.pid, "stage").is_empty());
}

#[test]
fn a_profile_has_the_kernels_in_order() {
    let cpu = [support::cpus()[0]];
    let schedule = stages().schedule(ExecutionMode::Single, &[("net", &cpu)]);
    let request = Profile {
        id: 9,
        values: schedule.values,
        stage: schedule.stages[0].clone(),
        calls: stages().calls("net"),
        frames: Frames { seed: 1, distinct: 2, integers_below: 8, file: None },
        warm_up_frames: 3,
        min_frames: 12,
        min_ns: 0,
        max_ns: 100_000_000_000,
    };
    assert!(request.calls.len() > 4, "{:?}", request.calls);
    let mut runner = Runner::start();
    let profiled = match runner.ask(&Request::Profile(request.clone())) {
        Event::Profiled(profiled) => profiled,
        other => panic!("{other:?}"),
    };
    assert_eq!((profiled.id, profiled.frame_ns.len(), profiled.instrumented_frame_ns.len()), (9, 12, 12));
    let units: Vec<_> = profiled.calls.iter().map(|call| call.unit).collect();
    assert_eq!(units, request.calls.iter().map(|call| call.unit).collect::<Vec<_>>());
    assert!(profiled.calls.iter().all(|call| call.samples_ns.len() == 12));
    for (frame, whole) in profiled.instrumented_frame_ns.iter().enumerate() {
        let kernels: u64 = profiled.calls.iter().map(|call| call.samples_ns[frame]).sum();
        assert!(kernels > 0 && kernels <= *whole, "{kernels} of {whole} ns");
    }

    // Kernels in another order, or another number of kernels.
    let mut swapped = request.clone();
    let other = swapped.calls.iter().position(|call| call.function != swapped.calls[0].function).unwrap();
    swapped.calls.swap(0, other);
    let mut short = request;
    short.calls.pop();
    for wrong in [swapped, short] {
        let (fault, message) = runner.fails(&Request::Profile(wrong));
        assert_eq!(fault, Fault::StageLibrary);
        assert!(message.contains("kernel call"), "{message}");
    }
}

#[test]
fn a_hand_over_is_timed_for_every_size_and_round() {
    let (first, second) = two_cpus();
    let processor = |cpu| support::processor("p", &[cpu]);
    let sizes = vec![0, 100, 1 << 20];
    let request =
        Transfer { id: 6, from: processor(first), to: processor(second), sizes: sizes.clone(), rounds: 7 };
    let mut runner = Runner::start();
    match runner.ask(&Request::Transfer(request.clone())) {
        Event::Transferred(found) => {
            assert_eq!(found.id, 6);
            assert_eq!(found.sizes.iter().map(|size| size.bytes).collect::<Vec<_>>(), sizes);
            assert!(found.sizes.iter().all(|size| size.first_ns.len() == 7 && size.again_ns.len() == 7));
            assert!(found.sizes[2].first_ns.iter().all(|time| *time > 1000), "{:?}", found.sizes[2]);
        }
        other => panic!("{other:?}"),
    }
    let wrong = [
        Transfer { to: processor(999), ..request.clone() },
        Transfer { rounds: 0, ..request.clone() },
        Transfer { sizes: vec![u64::MAX], ..request },
    ];
    let faults: Vec<_> = wrong.into_iter().map(|wrong| runner.fails(&Request::Transfer(wrong)).0).collect();
    assert_eq!(faults, [Fault::Affinity, Fault::Request, Fault::Request]);
}
