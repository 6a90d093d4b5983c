//! What figures a report has, and which it has not.

use crate::Report;
use crate::scenario::{Scenario, row, troubled};
use domain::{FramesPerSecond, Prediction, ReasonCode, Severity, Validity};
use protocol::Fault;
use store::fixture;
use store::{Outcome, Record, Status};

fn close(left: f64, right: f64, share: f64) -> bool {
    (left - right).abs() <= share * right.abs()
}

fn codes(report: &Report, network: &str, kind: &str) -> Vec<(&'static str, Severity)> {
    row(report, network, kind).reasons.iter().map(|reason| (reason.code.as_str(), reason.severity)).collect()
}

#[test]
fn figures_are_those_of_the_windows() {
    let report = Scenario::sound().report();
    assert!(!report.has_void_rows());
    assert_eq!(report.rows.len(), 8);
    let single = row(&report, "resnet18", "single");
    // Frames come every 20 ms and up to 2 % more.
    let fps = single.throughput_fps.unwrap();
    assert!(close(fps.point, 1000.0 / 20.2, 0.005), "{fps:?}");
    assert!(fps.lo.unwrap() < fps.point && fps.point < fps.hi.unwrap());
    assert_eq!((single.trials, single.trials_void, single.frames), (5, 0, 200));
    let latency = single.latency_ms.unwrap();
    assert!(
        close(latency.p50, 20.2, 0.005) && latency.p99 <= 20.4 && latency.p50 < latency.p99,
        "{latency:?}"
    );
    assert!(close(single.stages[0].isolated_ms.unwrap(), 19.6 * 1.01, 0.006));
    assert!(close(single.stages[0].busy.unwrap(), 0.97, 1e-6));

    let pipeline = row(&report, "resnet18", "pipeline");
    assert_eq!(pipeline.schedule, "cpu0[0..2] > cpu1[2..4]");
    assert_eq!(pipeline.processors, ["cpu0", "cpu1"]);
    let (first, last) = (&pipeline.stages[0].first, &pipeline.stages[1].first);
    assert_eq!((first.as_str(), last.as_str()), ("conv1", "layer1.1"));
    assert_eq!(pipeline.best_single.as_deref(), Some("cpu0"));
    let gain = pipeline.gain_over_best_single.unwrap();
    assert!(close(gain, 20.0 / 10.6, 0.005), "{gain}");
    assert!(close(pipeline.gain_over["cpu0"], gain, 1e-12));
    assert!(close(pipeline.gain_over["cpu1"], 20.4 / 10.6, 0.005));
    let interval = pipeline.gain_over_intervals["cpu1"];
    assert!(interval.lo.unwrap() < interval.point && interval.point < interval.hi.unwrap());
    assert!(close(pipeline.pipeline_efficiency.unwrap(), 0.98, 0.01));
    assert!(close(pipeline.predicted_fps.unwrap(), 1e9 / 10.3e6, 1e-6));
    assert!(close(pipeline.prediction_error.unwrap(), 10.6 * 1.01 / 10.3 - 1.0, 0.05));
    // Two copies, each as fast as it is alone.
    let replicate = row(&report, "resnet18", "replicate");
    assert!(close(replicate.pipeline_efficiency.unwrap(), 0.98, 0.01));

    let summary = &report.summary[0];
    assert_eq!((summary.kind.as_str(), summary.networks), ("pipeline", 2));
    assert!(close(summary.gain_geometric_mean, gain, 0.01));
    assert!(summary.gain_least <= summary.gain_geometric_mean);
}

#[test]
fn the_best_single_gains_nothing_over_itself_and_energy_is_absent_with_a_reason() {
    let report = Scenario::sound().report();
    for row in &report.rows {
        assert_eq!(row.energy_mj_per_frame, None);
        assert_eq!(row.energy_absent_reason.as_deref(), Some("the board has no power meter configured"));
        if row.kind.as_str() == "single" {
            let itself = &row.processors[0];
            assert_eq!(row.gain_over.get(itself), Some(&1.0));
            assert!(row.gain_over_best_single.is_some_and(|gain| gain <= 1.0));
        }
    }
}

#[test]
fn outputs_that_differ_void_a_row_and_its_gains() {
    let report = troubled();
    assert!(report.has_void_rows());
    let pipeline = row(&report, "resnet18", "pipeline");
    assert_eq!(pipeline.verdict, Validity::Void);
    assert!(pipeline.throughput_fps.is_some(), "shown, but not counted");
    assert!(pipeline.gain_over.is_empty() && pipeline.gain_over_best_single.is_none());
    assert_eq!(codes(&report, "resnet18", "pipeline"), [("outputs_differ", Severity::Void)]);
    // The other network's pipeline alone makes the summary.
    assert_eq!((report.summary[0].kind.as_str(), report.summary[0].networks), ("pipeline", 1));
}

#[test]
fn a_void_baseline_enters_no_gain() {
    let mut scenario = Scenario::sound();
    // The faster of the two.
    scenario.records.push(Record::Comparison(fixture::comparison(0, 1, f64::MAX)));
    let report = scenario.report();
    let pipeline = row(&report, "resnet18", "pipeline");
    assert_eq!(row(&report, "resnet18", "single").verdict, Validity::Void);
    assert_eq!(pipeline.gain_over.keys().collect::<Vec<_>>(), ["cpu1"]);
    assert_eq!(pipeline.best_single.as_deref(), Some("cpu1"));
}

#[test]
fn outputs_nobody_compared_are_not_taken_as_right() {
    let mut scenario = Scenario::small();
    scenario.records.retain(|record| !matches!(record, Record::Comparison(_)));
    let report = scenario.report();
    assert_eq!(codes(&report, "resnet18", "pipeline"), [("outputs_not_compared", Severity::Void)]);
    assert_eq!(row(&report, "resnet18", "pipeline").verdict, Validity::Void);
    assert_eq!(row(&report, "resnet18", "single").verdict, Validity::Valid);
}

#[test]
fn a_trial_that_is_void_does_not_count() {
    let sound = Scenario::sound().report();
    let mut scenario = Scenario::sound();
    // A neighbour took half of everything, and the trial was half as fast.
    let slow = fixture::Planned { frame_ns: 21_200_000, ..fixture::planned("resnet18").swap_remove(2) };
    *scenario.measured(2, 3) = slow.measured(99, 40);
    scenario.measured(2, 3).host.steal_ns = Some(800_000_000);
    let report = scenario.report();
    let (clean, other) = (row(&sound, "resnet18", "pipeline"), row(&report, "resnet18", "pipeline"));
    assert_eq!((other.trials, other.trials_void, other.verdict), (4, 1, Validity::Valid));
    assert!(close(other.throughput_fps.unwrap().point, clean.throughput_fps.unwrap().point, 0.002));
    assert_eq!(codes(&report, "resnet18", "pipeline"), [("steal", Severity::Void)]);
    assert!(other.reasons[0].text.starts_with("1 of 5 trials is void: the hypervisor took "));
}

#[test]
fn a_trial_that_a_cpu_quota_held_up_does_not_count() {
    let mut scenario = Scenario::small();
    let watched = protocol::WatchedSettings {
        looks: 2,
        cpu_ns: 1,
        lowest: vec![],
        gpu_lowest: None,
        changes: vec![],
        throttled: vec![protocol::Throttled {
            group: "/x".to_owned(),
            milli_cpus: Some(1300),
            periods: 1,
            throttled_ns: 1_000_000,
        }],
    };
    scenario.measured(2, 0).watched = Some(watched);
    let quota = protocol::CpuQuota { group: "/x".to_owned(), milli_cpus: 1300 };
    scenario.measured(3, 0).after.cpu_quota = Some(quota);
    let report = scenario.report();
    for (kind, code, said) in [
        (
            "pipeline",
            "throttled",
            "the CPU quota of 1.3 CPUs of the cgroup /x throttled the trial for 1.00 ms",
        ),
        ("replicate", "state_changed", "the CPU quota was 1.3 CPUs instead of unknown, after the window"),
    ] {
        let row = row(&report, "resnet18", kind);
        assert_eq!((row.trials_void, row.verdict), (1, Validity::Void), "{kind}");
        let reason = row.reasons.iter().find(|reason| reason.code.as_str() == code).unwrap();
        assert!(reason.text.contains(said), "{}", reason.text);
    }
}

#[test]
fn a_trial_with_a_gpu_below_its_pinned_clock_does_not_count() {
    let mut scenario = Scenario::small();
    scenario.start.processors[1] =
        store::ProcessorRecord { name: "cpu1".to_owned(), ..store::fixture::gpu() };
    for place in 0..4 {
        let clock = protocol::Clock {
            min_hz: 1_300_500_000,
            max_hz: 1_300_500_000,
            current_hz: None,
            governor: None,
        };
        let measured = scenario.measured(place, 0);
        (measured.before.gpu, measured.after.gpu) = (Some(clock.clone()), Some(clock));
        measured.watched = Some(protocol::WatchedSettings {
            looks: 2,
            cpu_ns: 1,
            lowest: vec![],
            gpu_lowest: Some(protocol::LowestClock { hz: 854_250_000, at_ns: 3 }),
            changes: vec![],
            throttled: vec![],
        });
    }
    let report = scenario.report();
    for row in &report.rows {
        let uses = row.processors.iter().any(|name| name == "cpu1");
        let below = row.reasons.iter().find(|reason| reason.code == ReasonCode::BelowPinned);
        assert_eq!(below.is_some(), uses, "{}: {:?}", row.schedule, row.reasons);
        let text = "the GPU ran at 854 MHz, 34.3 % below the 1300 MHz it was pinned to";
        assert!(below.is_none_or(|reason| reason.text.contains(text)), "{below:?}");
        assert_eq!(row.verdict == Validity::Void, uses, "{}", row.schedule);
    }
}

#[test]
fn where_all_trials_are_void_the_row_is() {
    let mut scenario = Scenario::small();
    scenario.measured(3, 0).host.steal_ns = Some(400_000_000);
    let report = scenario.report();
    let replicate = row(&report, "resnet18", "replicate");
    assert_eq!((replicate.trials, replicate.trials_void, replicate.verdict), (1, 1, Validity::Void));
    assert!(replicate.throughput_fps.is_some() && replicate.gain_over.is_empty());
}

#[test]
fn a_tick_more_or_less_is_no_load() {
    let mut scenario = Scenario::small();
    // 100 ms on two CPUs, of which the kernel counts two ticks of each too many: 20 %.
    let window = fixture::Planned { frame_ns: 2_500_000, ..fixture::planned("resnet18").swap_remove(2) };
    *scenario.measured(2, 0) = window.measured(7, 40);
    let host = &mut scenario.measured(2, 0).host;
    (host.busy_ns, host.steal_ns) = (Some(host.runner_ns + 40_000_000), Some(20_000_000));
    assert_eq!(codes(&scenario.report(), "resnet18", "pipeline"), [("prediction_off", Severity::Warn)]);
}

#[test]
fn too_few_frames_are_told_by_what_the_configuration_asked_for() {
    let check = |min_frames: u32, wanted: &[(&str, Severity)]| {
        let mut scenario = Scenario::small();
        scenario.start.configuration =
            format!("schema: 1\nexperiment:\n  measure:\n    min_frames: {min_frames}\n");
        let found = codes(&scenario.report(), "resnet18", "pipeline");
        assert_eq!(found, wanted);
    };
    check(40, &[]);
    check(50, &[("too_few_frames", Severity::Warn)]);
    check(100, &[("too_few_frames", Severity::Void)]);
}

#[test]
fn one_trial_has_no_interval() {
    let report = Scenario::small().report();
    for row in &report.rows {
        let fps = row.throughput_fps.unwrap();
        assert_eq!((row.trials, fps.lo, fps.hi), (1, None, None));
    }
}

#[test]
fn a_prediction_is_compared_with_the_trial_of_its_round() {
    let mut scenario = Scenario::sound();
    let planned = scenario.schedule(2).prediction.clone().unwrap();
    // The machine becomes slower from round to round, and the profile of each round sees it.
    for round in 1..5 {
        let tenths = 10 + u64::from(round);
        let slower = tenths as f64 / 10.0;
        let measured = scenario.measured(2, round);
        measured.window.completed_ns = (1..=40).map(|frame| frame * 1_000_000 * tenths).collect();
        scenario.trial(2, round).prediction = Some(Prediction {
            stage_ns: vec![9e6 * slower, 8e6 * slower],
            throughput: FramesPerSecond(103.0 / slower),
        });
    }
    let report = scenario.report();
    let pipeline = row(&report, "resnet18", "pipeline");
    // Those of rounds 1 to 4; the first round has no profile of its own.
    assert!(close(pipeline.predicted_fps.unwrap(), f64::midpoint(103.0 / 1.2, 103.0 / 1.3), 1e-9));
    assert!(close(pipeline.prediction_error.unwrap(), 0.03, 1e-3), "{:?}", pipeline.prediction_error);
    assert!(close(pipeline.stages[1].predicted_ms.unwrap(), 8.0 * 1.25, 1e-9));
    // Without any, the plan's.
    for round in 1..5 {
        scenario.trial(2, round).prediction = None;
    }
    let pipeline = row(&scenario.report(), "resnet18", "pipeline").clone();
    assert!(close(pipeline.predicted_fps.unwrap(), planned.throughput.0, 1e-12));
    let measured = pipeline.throughput_fps.unwrap().point;
    assert!(close(pipeline.prediction_error.unwrap(), planned.throughput.0 / measured - 1.0, 1e-9));
}

#[test]
fn what_was_not_measured_is_absent() {
    let mut scenario = Scenario::small();
    scenario.records.retain(|record| !matches!(record, Record::Trial(trial) if trial.schedule == 2));
    let measured = scenario.measured(3, 0);
    measured.isolated.clear();
    scenario.schedule(3).prediction = None;
    scenario.status = Status::Interrupted;
    let report = scenario.report();
    let pipeline = row(&report, "resnet18", "pipeline");
    assert_eq!(pipeline.verdict, Validity::Void);
    assert_eq!((pipeline.trials, pipeline.frames), (0, 0));
    assert!(pipeline.throughput_fps.is_none() && pipeline.latency_ms.is_none());
    assert!(pipeline.pipeline_efficiency.is_none() && pipeline.prediction_error.is_none());
    assert!(pipeline.predicted_fps.is_some(), "predicted all the same");
    assert!(pipeline.stages.iter().all(|stage| stage.busy.is_none() && stage.isolated_ms.is_none()));
    let found: Vec<_> = codes(&report, "resnet18", "pipeline").into_iter().map(|(code, _)| code).collect();
    assert_eq!(found, ["missing_trials", "not_measured"]);
    let replicate = row(&report, "resnet18", "replicate");
    assert!(replicate.pipeline_efficiency.is_none() && replicate.predicted_fps.is_none());
    assert_eq!(replicate.verdict, Validity::Valid);
}

#[test]
fn a_failed_trial_that_was_repeated_counts_as_it_went_then() {
    let mut scenario = Scenario::small();
    let again = scenario.trial(2, 0).clone();
    let message = "failed to run a stage".to_owned();
    scenario.trial(2, 0).outcome = Outcome::Failed { fault: Some(Fault::Execution), message };
    let failed = scenario.report();
    let pipeline = row(&failed, "resnet18", "pipeline");
    assert_eq!((pipeline.trials, pipeline.trials_failed, pipeline.verdict), (0, 1, Validity::Void));
    let text = &pipeline.reasons[0].text;
    assert_eq!(text, "1 of 1 trials failed: failed to run a stage");

    scenario.records.push(Record::Trial(again));
    let repeated = scenario.report();
    let pipeline = row(&repeated, "resnet18", "pipeline");
    assert_eq!((pipeline.trials, pipeline.trials_failed, pipeline.verdict), (1, 0, Validity::Valid));
}

#[test]
fn a_window_that_makes_no_sense_is_a_failed_trial() {
    let mut scenario = Scenario::small();
    scenario.measured(2, 0).window.completed_ns = vec![5, 3];
    let report = scenario.report();
    let pipeline = row(&report, "resnet18", "pipeline");
    assert_eq!((pipeline.trials_failed, pipeline.verdict), (1, Validity::Void));
    assert!(pipeline.reasons[0].text.contains("frame 1 completed at 3 ns"), "{:?}", pipeline.reasons);
}

#[test]
fn units_without_a_rule_are_told_with_their_share() {
    let report = troubled();
    let reason = &report.networks[0].reasons[0];
    assert_eq!(reason.code, ReasonCode::FallbackUnits);
    // Two of four equal units.
    let wanted = "units without a schedule rule (layer1.0, fc) take 50 % of a frame on cpu0, \
                  50 % of a frame on cpu1";
    assert_eq!(reason.text, wanted);
}

#[test]
fn a_run_without_schedules_has_a_report() {
    let mut scenario = Scenario::small();
    scenario.records.clear();
    scenario.status = Status::Failed;
    let report = scenario.report();
    assert!(report.rows.is_empty() && report.summary.is_empty() && !report.has_void_rows());
}

#[test]
fn a_faster_schedule_gains_more_by_as_much() {
    let base = Scenario::sound().report();
    let mut scenario = Scenario::sound();
    scenario.slow_down(2, 1.25);
    let slower = scenario.report();
    let gain = |report: &Report| row(report, "resnet18", "pipeline").gain_over_best_single.unwrap();
    assert!(close(gain(&base) / gain(&slower), 1.25, 1e-3));
}

#[test]
fn what_was_injected_is_told_wherever_the_run_is_shown() {
    let mut scenario = Scenario::small();
    scenario.start.configuration =
        "experiment:\n  inject: { slow_down: { processor: cpu1, percent: 5 } }\n".to_owned();
    let report = scenario.report();
    let told = |kind: &str| {
        row(&report, "resnet18", kind).reasons.iter().any(|reason| reason.code == ReasonCode::SlowedOnPurpose)
    };
    // The first single is cpu0's.
    assert_eq!((told("single"), told("pipeline"), told("replicate")), (false, true, true));
    assert_eq!(report.run.injected.as_deref(), Some("cpu1 made 5 % slower"));
}

#[test]
fn precision_that_was_not_reached_is_told() {
    let check = |precision: &str, reached: bool| {
        let mut scenario = Scenario::sound();
        scenario.start.configuration = format!("experiment:\n  precision: {precision}\n");
        let report = scenario.report();
        assert_eq!(report.run.precision_reached, Some(reached));
        let wide = report
            .rows
            .iter()
            .flat_map(|row| &row.reasons)
            .any(|reason| reason.code == ReasonCode::Imprecise);
        assert_eq!(wide, !reached);
    };
    check("20%", true);
    check("0.01%", false);
    assert_eq!(Scenario::sound().report().run.precision_reached, None);
}
