//! Baselines and checks of databases that were written by the real store.

use super::CheckFormat;
use analysis::gate::{Baseline, CheckReport, GateVerdict, Identity, NotCompared, check};
use config::Thresholds;
use domain::gate::Ruling;
use domain::{FloatFormat, QueuePlan, QueueReason, SplitMix64, Winograd};
use std::path::{Path, PathBuf};
use store::fixture::{self, Place};
use store::{Outcome, Record, RunId, RunRecorder, RunStart, Status, Store, StoredRun};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn thresholds(text: &str) -> Thresholds {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("thresholds.yaml");
    std::fs::write(&path, text).unwrap();
    Thresholds::read(&path).unwrap()
}

const STRICT: &str = "false_alarms: 2%\nbetween_runs: 0.2%\nthroughput: 0.5%\nlatency_p50: none\nlatency_p99: none\n\
                      joules_per_frame: none\n";

/// A run of five trials of four schedules, in which schedule `place` took `factor` times as long.
fn run(store: &Store, place: &Place, number: u64, slow: Option<(u32, f64)>) -> StoredRun {
    run_with(store, place, number, slow, |_| {})
}

fn run_with(
    store: &Store,
    place: &Place,
    number: u64,
    slow: Option<(u32, f64)>,
    change: impl FnOnce(&mut RunStart),
) -> StoredRun {
    let begun = fixture::BEGUN + number * 3_600_000_000_000;
    let mut start = fixture::run_start_at(begun);
    change(&mut start);
    let id: RunId = start.id.clone();
    let mut recorder = RunRecorder::create(store, &place.runs(), start).unwrap();
    let mut numbers = SplitMix64::new(number);
    for mut record in fixture::records("resnet18", 5) {
        if let Record::Trial(trial) = &mut record {
            let planned = fixture::planned("resnet18").swap_remove(trial.schedule as usize);
            let factor = slow.filter(|(slow, _)| *slow == trial.schedule).map_or(1.0, |(_, factor)| factor);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few milliseconds")]
            let frame_ns = (planned.frame_ns as f64 * factor * (1.0 + 0.002 * numbers.unit())) as u64;
            let planned = fixture::Planned { frame_ns, ..planned };
            trial.outcome = Outcome::Measured(Box::new(planned.measured(numbers.below(100_000) as u64, 40)));
        }
        recorder.record(record).unwrap();
    }
    recorder.finish(Status::Complete, begun + 90_000_000_000).unwrap();
    store.run(id.as_str()).unwrap()
}

fn checked(store: &Store, baseline: &[StoredRun], run: &StoredRun, text: &str) -> CheckReport {
    let baseline = Baseline::of(store, "main", baseline).unwrap();
    let figures = analysis::schedule_figures(store, run).unwrap();
    check(&baseline, run.start.id.as_str(), &figures, Vec::new(), &thresholds(text))
}

/// A run of five trials of 400 frames of each schedule under a camera. The slowest frames of the pipeline take so much longer.
fn camera_run(store: &Store, place: &Place, number: u64, slow_ns: u64) -> StoredRun {
    let begun = fixture::BEGUN + number * 3_600_000_000_000;
    let mut start = fixture::run_start_at(begun);
    start.configuration =
        "experiment: { load: { stream: { fps: 30, queue: 2, policy: drop_oldest, deadline_ms: 33 } } }"
            .into();
    let id: RunId = start.id.clone();
    let mut recorder = RunRecorder::create(store, &place.runs(), start).unwrap();
    let mut numbers = SplitMix64::new(number);
    for mut record in fixture::records("resnet18", 5) {
        if let Record::Trial(trial) = &mut record {
            let planned = fixture::planned("resnet18").swap_remove(trial.schedule as usize);
            let mut measured = planned.streamed(numbers.below(100_000) as u64, 400, fixture::camera());
            let streamed = measured.stream.as_mut().unwrap();
            if trial.schedule == 2 {
                // Two of a hundred frames.
                streamed.since_arrival_ns.iter_mut().step_by(50).for_each(|since| *since += slow_ns);
            }
            trial.outcome = Outcome::Measured(Box::new(measured));
        }
        recorder.record(record).unwrap();
    }
    recorder.finish(Status::Complete, begun + 90_000_000_000).unwrap();
    store.run(id.as_str()).unwrap()
}

/// Thresholds for streams.
const STREAMS: &str = "false_alarms: 2%\nbetween_runs: 0.2%\nthroughput: 0.5%\nlatency_p50: 5%\nlatency_p90: 5%\n\
                       latency_p99: 5%\ndelivered: 1%\non_time: 5%\nage: 5%\njoules_per_frame: none\n";

#[test]
fn slower_frames_of_a_stream_fail_and_the_same_ones_pass() {
    let place = Place::new();
    let store = place.open();
    let before = camera_run(&store, &place, 0, 0);
    let same = camera_run(&store, &place, 1, 0);
    let slower = camera_run(&store, &place, 2, 20_000_000);
    let passed = checked(&store, std::slice::from_ref(&before), &same, STREAMS);
    assert_eq!(passed.verdict, GateVerdict::Pass, "{passed:?}");
    let measures: Vec<&str> = passed.rows.iter().take(7).map(|row| row.measure.as_str()).collect();
    let wanted = ["throughput", "latency_p50", "latency_p90", "latency_p99", "delivered", "on_time", "age"];
    assert_eq!(measures, wanted);
    let failed = checked(&store, std::slice::from_ref(&before), &slower, STREAMS);
    assert_eq!(failed.verdict, GateVerdict::Fail);
    let regressions = failed.rows.iter().filter(|row| row.ruling == Ruling::Regression);
    let found: Vec<(&str, u32)> = regressions
        .map(|row| (row.measure.as_str(), if row.schedule.contains('>') { 2 } else { 0 }))
        .collect();
    assert_eq!(found, [("latency_p99", 2)]);
}

#[test]
fn a_stream_is_not_compared_with_another_load() {
    let place = Place::new();
    let store = place.open();
    let (saturating, camera) = (run(&store, &place, 0, None), camera_run(&store, &place, 1, 0));
    let differences = Identity::of(&saturating).differences(&Identity::of(&camera));
    let shown: Vec<String> = differences.iter().map(ToString::to_string).collect();
    let wanted =
        "load: unknown in the baseline, a stream of 30 frames/s, queue of 2, drop_oldest, deadline 33 ms now";
    assert_eq!(shown, [wanted]);
}

#[test]
fn a_slower_schedule_fails_and_the_same_one_passes() {
    let place = Place::new();
    let store = place.open();
    let before = run(&store, &place, 0, None);
    let same = run(&store, &place, 1, None);
    let slower = run(&store, &place, 2, Some((2, 1.05)));
    let passed = checked(&store, std::slice::from_ref(&before), &same, STRICT);
    assert_eq!((passed.verdict, passed.rows.len()), (GateVerdict::Pass, 4), "{passed:?}");
    let failed = checked(&store, std::slice::from_ref(&before), &slower, STRICT);
    assert_eq!(failed.verdict, GateVerdict::Fail);
    let regressions: Vec<&str> = failed
        .rows
        .iter()
        .filter(|row| row.ruling == Ruling::Regression)
        .map(|row| row.schedule.as_str())
        .collect();
    assert_eq!(regressions, ["cpu0[0..2] > cpu1[2..4]"]);
    let faster = checked(&store, &[slower], &before, STRICT);
    assert_eq!(faster.verdict, GateVerdict::Pass);
    assert!(faster.rows.iter().any(|row| row.ruling == Ruling::Improvement));
    // If runs differ by 5 %, one run on each side is inconclusive.
    let wide = STRICT.replace("0.2%", "5%");
    let unsure = checked(&store, &[before], &same, &wide);
    assert!(unsure.rows.iter().all(|row| row.ruling == Ruling::Inconclusive && row.more_trials.is_none()));
}

#[test]
fn three_runs_give_the_spread_between_runs() {
    let place = Place::new();
    let store = place.open();
    let runs: Vec<StoredRun> = (0..3).map(|number| run(&store, &place, number, None)).collect();
    let now = run(&store, &place, 3, None);
    let report = checked(&store, &runs, &now, &STRICT.replace("0.2%", "9%"));
    assert!(report.between_runs_estimated && report.between_runs < 0.005, "{report:?}");
    assert_eq!(report.verdict, GateVerdict::Pass);
}

#[test]
fn a_schedule_that_is_gone_is_a_gap_and_no_pass() {
    let place = Place::new();
    let store = place.open();
    let before = run(&store, &place, 0, None);
    let now = run(&store, &place, 1, None);
    let baseline = Baseline::of(&store, "main", &[before]).unwrap();
    let mut figures = analysis::schedule_figures(&store, &now).unwrap();
    figures[1].void = Some("other processes used 60 % of the CPU time".to_owned());
    figures[1].trials.clear();
    figures.remove(3);
    let report = check(&baseline, "run", &figures, Vec::new(), &thresholds(STRICT));
    assert_eq!((report.verdict, report.not_compared.len()), (GateVerdict::Incomplete, 2), "{report:?}");
}

#[test]
fn other_settings_of_a_network_are_not_compared() {
    let place = Place::new();
    let store = place.open();
    let before = run(&store, &place, 0, None);
    let now = run(&store, &place, 1, None);
    let baseline = Baseline::of(&store, "main", &[before]).unwrap();
    let mut figures = analysis::schedule_figures(&store, &now).unwrap();
    figures[1].precision = FloatFormat::Fp16;
    let report = check(&baseline, "run", &figures, Vec::new(), &thresholds(STRICT));
    assert_eq!((report.verdict, report.rows.len()), (GateVerdict::Incomplete, 3), "{report:?}");
    let missed: Vec<(&str, bool)> =
        report.not_compared.iter().map(|missed| (missed.reason.as_str(), missed.gap)).collect();
    assert_eq!(missed[0], ("computed in fp32 in the baseline and in fp16 in the run", true));
    let mut direct = analysis::schedule_figures(&store, &now).unwrap();
    direct[1].winograd = Winograd::Off;
    let missed = check(&baseline, "run", &direct, Vec::new(), &thresholds(STRICT)).not_compared;
    assert_eq!(missed[0].reason, "has `winograd: auto` in the baseline and `winograd: off` in the run");
    // A baseline in half precision keeps that in its file.
    let mut half = baseline.clone();
    half.rows[1].precision = FloatFormat::Fp16;
    let text = serde_json::to_string(&half).unwrap();
    assert_eq!(text.matches("fp16").count(), 1);
    assert_eq!(serde_json::from_str::<Baseline>(&text).unwrap(), half);
    let report = check(&half, "run", &figures, Vec::new(), &thresholds(STRICT));
    assert_eq!((report.verdict, report.rows.len()), (GateVerdict::Pass, 4), "{report:?}");
}

#[test]
fn a_pipeline_with_other_cuts_is_still_checked() {
    let place = Place::new();
    let store = place.open();
    let before = run(&store, &place, 0, None);
    let now = run(&store, &place, 1, None);
    let mut baseline = Baseline::of(&store, "main", &[before]).unwrap();
    baseline.rows[2].schedule = "cpu0[0..1] > cpu1[1..4]".to_owned();
    let figures = analysis::schedule_figures(&store, &now).unwrap();
    let report = check(&baseline, "run", &figures, Vec::new(), &thresholds(STRICT));
    assert_eq!((report.verdict, report.rows.len()), (GateVerdict::Pass, 4), "{report:?}");
    assert_eq!(report.rows[2].schedule_before.as_deref(), Some("cpu0[0..1] > cpu1[1..4]"));
}

#[test]
fn other_queues_of_a_schedule_are_named() {
    let place = Place::new();
    let store = place.open();
    let before = camera_run(&store, &place, 0, 0);
    let now = camera_run(&store, &place, 1, 0);
    let mut baseline = Baseline::of(&store, "main", &[before]).unwrap();
    let queues = |before: u32| QueuePlan {
        before,
        before_chosen: true,
        between: 2,
        between_chosen: false,
        expected: None,
        reason: QueueReason::LongestOnTime,
    };
    let mut figures = analysis::schedule_figures(&store, &now).unwrap();
    figures[0].queues = Some(queues(3));
    figures[2].queues = Some(queues(4));
    baseline.rows[0].queues = Some("3 before the first stage, 2 between stages".to_owned());
    baseline.rows[2].queues = Some("7 before the first stage, 2 between stages".to_owned());
    let report = check(&baseline, "run", &figures, Vec::new(), &thresholds(STREAMS));
    assert_eq!(report.verdict, GateVerdict::Pass, "{report:?}");
    let text = super::render(&report, CheckFormat::Terminal);
    let named = "; queues in the baseline: 7 before the first stage, 2 between stages; now: 4 before the first stage, 2 \
                 between stages";
    let of_pipeline = report.rows.iter().filter(|row| row.schedule == figures[2].label).count();
    assert_eq!(
        (text.matches(named).count(), text.matches("queues").count()),
        (of_pipeline, of_pipeline),
        "{text}"
    );
}

#[test]
fn differences_of_machine_and_versions_are_found() {
    let place = Place::new();
    let store = place.open();
    let before = run(&store, &place, 0, None);
    let other = run_with(&store, &place, 1, None, |start| {
        start.machine.model = Some("Test Board Mk 3".to_owned());
        start.versions.tvm = None;
        start.machine.cpus[0].max_khz = Some(1_000_000);
        start.machine.power_mode = Some(protocol::PowerMode { id: 2, name: "MAXP".to_owned() });
        // None of these makes runs incomparable.
        start.revision = None;
        start.host = "elsewhere".to_owned();
    });
    let differences = Identity::of(&before).differences(&Identity::of(&other));
    let aspects: Vec<&str> = differences.iter().map(|difference| difference.aspect.as_str()).collect();
    assert_eq!(aspects, ["frequencies", "model", "power_mode", "tvm"]);
    assert!(aspects.iter().all(|aspect| Identity::known().contains(aspect)));
    let error = Baseline::of(&store, "main", &[before, other]).unwrap_err().to_string();
    assert!(error.contains("model: Test Board Mk 2 in the baseline, Test Board Mk 3 now"), "{error}");
}

#[test]
fn another_gpu_driver_or_an_emulated_one_is_another_machine() {
    let place = Place::new();
    let store = place.open();
    let with_gpu = |at: u64, emulated: bool, driver_version: u32| {
        run_with(&store, &place, at, None, |start| {
            let gpu = store::GpuRecord { emulated, driver_version, ..store::fixture::gpu().gpu.unwrap() };
            start.processors.push(store::ProcessorRecord { gpu: Some(gpu), ..store::fixture::gpu() });
        })
    };
    let (real, newer, emulated) =
        (with_gpu(0, false, 10_020), with_gpu(1, false, 11_040), with_gpu(2, true, 10_020));
    for (other, now) in [(&newer, "driver for CUDA 11.4"), (&emulated, "driver for CUDA 10.2, emulated")] {
        let differences = Identity::of(&real).differences(&Identity::of(other));
        assert_eq!(differences.len(), 1, "{differences:?}");
        assert!(differences[0].aspect == "gpu" && Identity::known().contains(&"gpu"));
        assert!(differences[0].run.as_ref().unwrap().ends_with(now), "{differences:?}");
    }
    let without = run(&store, &place, 3, None);
    let differences = Identity::of(&real).differences(&Identity::of(&without));
    let aspects: Vec<&str> = differences.iter().map(|difference| difference.aspect.as_str()).collect();
    assert_eq!(aspects, ["gpu", "processors"]);
}

#[test]
fn what_was_made_slower_on_purpose_is_no_baseline() {
    let place = Place::new();
    let store = place.open();
    let injected = run_with(&store, &place, 0, None, |start| {
        start.configuration =
            "experiment: { inject: { slow_down: { processor: cpu0, percent: 5 } } }\n".to_owned();
    });
    let error = Baseline::of(&store, "main", &[injected]).unwrap_err().to_string();
    assert!(error.contains("made slower on purpose"), "{error}");
}

#[test]
fn the_same_run_twice_is_no_baseline_of_two() {
    let place = Place::new();
    let store = place.open();
    let before = run(&store, &place, 0, None);
    let error = Baseline::of(&store, "main", &[before.clone(), before]).unwrap_err().to_string();
    assert!(error.contains("is given twice"), "{error}");
}

#[test]
fn a_baseline_comes_back_from_its_file_and_bad_ones_are_refused() {
    let place = Place::new();
    let store = place.open();
    let before = run(&store, &place, 0, None);
    let folder = tempfile::tempdir().unwrap();
    let baseline = Baseline::of(&store, "main", &[before]).unwrap();
    let path = baseline.write(folder.path()).unwrap();
    assert_eq!(Baseline::read(folder.path(), "main").unwrap(), baseline);
    let refused = |name: &str, wanted: &str| {
        let error = Baseline::read(folder.path(), name).unwrap_err();
        assert_eq!(error.exit, host::exit::Exit::Usage);
        assert!(error.to_string().contains(wanted), "{error}");
    };
    refused("other", "known baselines: main");
    refused("../main", "as the name of a baseline");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..text.len() / 2]).unwrap();
    refused("main", "save it again");
    let spoiled = |spoil: &dyn Fn(&mut Baseline), wanted: &str| {
        let mut other = baseline.clone();
        spoil(&mut other);
        other.write(folder.path()).unwrap();
        refused("main", wanted);
    };
    spoiled(&|it| it.schema = 7, "it has version 7");
    spoiled(&|it| it.analysis_version = 99, "from a newer analysis, 99");
    spoiled(&|it| it.rows.clear(), "it has no trials");
    spoiled(&|it| it.rows.push(it.rows[0].clone()), "duplicate entry resnet18 on cpu0");
    spoiled(&|it| it.rows[1].trials[0].run = 7, "refers to run 7, which does not exist");
    spoiled(&|it| it.rows[1].trials[0].throughput_fps = -3.0, "invalid figure -3 of resnet18 on cpu1");
    spoiled(&|it| it.rows[1].trials[0].latency_p50_ms = Some(0.0), "invalid figure 0 of");
    spoiled(&|it| it.rows[0].trials[1].throughput_fps = 1e300, "of resnet18 on cpu0");
    // A copied file has the name of the copy.
    std::fs::write(folder.path().join("results/baselines/copy.json"), &text).unwrap();
    assert_eq!(Baseline::read(folder.path(), "copy").unwrap().name, "copy");
}

#[test]
fn a_schedule_with_mostly_void_trials_is_not_checked() {
    let place = Place::new();
    let store = place.open();
    let before = run(&store, &place, 0, None);
    let begun = fixture::BEGUN + 3_600_000_000_000;
    let mut recorder = RunRecorder::create(&store, &place.runs(), fixture::run_start_at(begun)).unwrap();
    for mut record in fixture::records("resnet18", 5) {
        if let Record::Trial(trial) = &mut record
            && trial.schedule == 1
            && trial.round < 3
            && let Outcome::Measured(measured) = &mut trial.outcome
        {
            measured.host.busy_ns = Some(2_000_000_000);
        }
        recorder.record(record).unwrap();
    }
    recorder.finish(Status::Complete, begun + 90_000_000_000).unwrap();
    let now = store.latest_run(&store::RunFilter::default()).unwrap().unwrap();
    let report = checked(&store, &[before], &now, STRICT);
    assert_eq!((report.verdict, report.rows.len()), (GateVerdict::Incomplete, 3), "{report:?}");
    assert!(report.not_compared[0].reason.contains("3 of 5 trials are void (other processes"), "{report:?}");
}

#[test]
fn a_single_trial_is_no_pass() {
    let place = Place::new();
    let store = place.open();
    let before = run(&store, &place, 0, None);
    let now = run(&store, &place, 1, None);
    let mut baseline = Baseline::of(&store, "main", &[before]).unwrap();
    baseline.rows[1].trials.truncate(1);
    let mut figures = analysis::schedule_figures(&store, &now).unwrap();
    figures[1].trials.truncate(1);
    let report = check(&baseline, "run", &figures, Vec::new(), &thresholds(STRICT));
    assert_eq!(report.verdict, GateVerdict::Incomplete, "{report:?}");
    assert!(
        crate::render_check(&report, CheckFormat::Terminal).contains("1 not checked"),
        "{}",
        crate::render_check(&report, CheckFormat::Terminal)
    );
}

#[test]
fn two_trials_that_differ_are_no_pass() {
    let place = Place::new();
    let store = place.open();
    let before = run(&store, &place, 0, None);
    let now = run(&store, &place, 1, None);
    let mut baseline = Baseline::of(&store, "main", &[before]).unwrap();
    baseline.rows[1].trials.truncate(2);
    let mut figures = analysis::schedule_figures(&store, &now).unwrap();
    figures[1].trials.truncate(2);
    figures[1].trials[0].throughput_fps *= 0.5;
    let report = check(&baseline, "run", &figures, Vec::new(), &thresholds(STRICT));
    assert_eq!(report.verdict, GateVerdict::Incomplete, "{report:?}");
    let text = crate::render_check(&report, CheckFormat::Terminal);
    assert!(text.contains("1 not checked") && text.contains(" % [?] ("), "{text}");
    assert!(
        text.contains("not checked: the interval is wider than ±100 %; measure at least 5 trials"),
        "{text}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&crate::render_check(&report, CheckFormat::Json)).unwrap();
    assert!(json["rows"][1]["ratio_hi"].as_f64().unwrap() > 2.0, "the values stay: {json}");
    // Five trials like these tell that nothing is known better than that, and not nothing.
    let mut many = figures.clone();
    many[1].trials = (0..6).flat_map(|_| figures[1].trials.clone()).collect();
    let report = check(&baseline, "run", &many, Vec::new(), &thresholds(STRICT));
    assert!(report.rows[1].ratio_hi.unwrap() < 3.0, "{:?}", report.rows[1]);
}

#[test]
fn a_slow_drift_within_runs_is_no_regression() {
    let place = Place::new();
    let store = place.open();
    let before = run(&store, &place, 0, None);
    let now = run(&store, &place, 1, Some((2, 1.05)));
    let baseline = Baseline::of(&store, "main", &[before]).unwrap();
    let mut figures = analysis::schedule_figures(&store, &now).unwrap();
    // Half of the trials of every schedule at two thirds of its pace.
    for trial in figures.iter_mut().flat_map(|figures| &mut figures.trials).filter(|trial| trial.round < 2) {
        trial.throughput_fps *= 0.67;
    }
    let report = check(&baseline, "run", &figures, Vec::new(), &thresholds(STRICT));
    assert_eq!(report.verdict, GateVerdict::Pass, "{report:?}");
    assert!(report.rows.iter().all(|row| row.between_runs > 0.1), "{report:?}");
    assert!((report.between_runs - 0.002).abs() < 1e-12);
}

#[test]
fn texts() {
    let place = Place::new();
    let store = place.open();
    let before = run(&store, &place, 0, None);
    let now = run(&store, &place, 1, Some((2, 1.05)));
    let baseline = Baseline::of(&store, "main", &[before]).unwrap();
    let mut figures = analysis::schedule_figures(&store, &now).unwrap();
    figures[0].void = Some("the hypervisor took 31 % of the CPU time".to_owned());
    let differences = Identity::default().differences(&Identity::default());
    let strict = STRICT.replace("latency_p50: none", "latency_p50: 0.5%");
    let report = check(&baseline, "20250131-094500-1f2e3d4c", &figures, differences, &thresholds(&strict));
    for (name, format) in [
        ("check", CheckFormat::Terminal),
        ("check_markdown", CheckFormat::Markdown),
        ("check_junit", CheckFormat::Junit),
    ] {
        insta::assert_snapshot!(name, crate::render_check(&report, format));
    }
    let json: serde_json::Value =
        serde_json::from_str(&crate::render_check(&report, CheckFormat::Json)).unwrap();
    assert_eq!((&json["verdict"], &json["schema"]), (&"fail".into(), &1.into()));
}

/// `EDGEPIPE_WRITE_SCHEMAS=1 cargo test -p report gate_are_current` writes them anew.
#[test]
fn schemas_of_the_gate_are_current() {
    let schemas = [
        ("baseline.schema.json", crate::schema::<Baseline>()),
        ("check.schema.json", crate::schema::<CheckReport>()),
    ];
    for (name, current) in schemas {
        let path = root().join("results").join(name);
        if std::env::var_os("EDGEPIPE_WRITE_SCHEMAS").is_some() {
            std::fs::write(&path, &current).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == current,
            "results/{name} is not current; run\nEDGEPIPE_WRITE_SCHEMAS=1 cargo test -p report gate_are_current"
        );
    }
}

#[test]
fn the_committed_thresholds_are_sound() {
    Thresholds::read(&root().join("ci/thresholds.yaml")).unwrap();
}

#[test]
fn many_schedules_with_the_same_reason_are_one_line() {
    let place = Place::new();
    let store = place.open();
    let before = run(&store, &place, 0, None);
    let same = run(&store, &place, 1, None);
    let mut report = checked(&store, std::slice::from_ref(&before), &same, STRICT);
    let missed = |number: usize, reason: &str| NotCompared {
        network: "alexnet".to_owned(),
        schedule: format!("s{number}"),
        reason: reason.to_owned(),
        gap: true,
    };
    report.not_compared = (0..133).map(|number| missed(number, "void in the run: noise")).collect();
    report.not_compared.push(missed(200, "new"));
    for format in [CheckFormat::Terminal, CheckFormat::Markdown] {
        let text = crate::render_check(&report, format);
        let line = "133 schedules (alexnet s0, alexnet s1, alexnet s2 and 130 more): void in the run: noise";
        assert!(text.contains(line) && text.contains("alexnet s200: new"), "{text}");
        assert_eq!(text.matches("noise").count(), 1, "{text}");
    }
}

#[test]
fn few_trials_of_many_schedules_are_one_sentence() {
    let place = Place::new();
    let store = place.open();
    let before = run(&store, &place, 0, None);
    let mut baseline = Baseline::of(&store, "main", std::slice::from_ref(&before)).unwrap();
    assert_eq!(crate::few_trials(&baseline), None);
    for row in &mut baseline.rows {
        row.trials.truncate(1);
    }
    let warning = crate::few_trials(&baseline).unwrap();
    assert!(
        warning.starts_with("4 of 4 schedules have fewer than 4 valid trials: resnet18 on "),
        "{warning}"
    );
    assert!(warning.contains(" (1) and 1 more; a check can detect little"), "{warning}");
}
