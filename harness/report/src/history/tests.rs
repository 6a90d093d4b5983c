use crate::HistoryFormat;
use analysis::history::{History, HistoryError, HistoryQuery};
use domain::Metric;
use std::path::Path;
use store::fixture::{self, Place};
use store::{Outcome, Record, Revision, RunRecorder, RunStart, Status, Store};

const DAY: u64 = 86_400_000_000_000;

/// A run on a day after the first, whose frames take so many times as long as usual.
fn measure(store: &Store, place: &Place, day: u32, slower: f64, change: impl Fn(&mut RunStart)) {
    measure_as(store, place, day, slower, change, "fp32");
}

/// The same of a network in this precision.
fn measure_as(
    store: &Store,
    place: &Place,
    day: u32,
    slower: f64,
    change: impl Fn(&mut RunStart),
    precision: &str,
) {
    let mut start = fixture::run_start_at(fixture::BEGUN + u64::from(day) * DAY);
    start.revision = Some(Revision { commit: format!("{day:02}").repeat(20), dirty: day % 4 == 3 });
    change(&mut start);
    let mut recorder = RunRecorder::create(store, &place.runs(), start).unwrap();
    let mut planned = fixture::planned("resnet18");
    for planned in &mut planned {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "nanoseconds of a frame")]
        let frame_ns = (planned.frame_ns as f64 * slower) as u64;
        planned.frame_ns = frame_ns;
    }
    for mut record in fixture::records("resnet18", 0) {
        if let Record::Network(network) = &mut record
            && precision != "fp32"
        {
            network.source[store::PRECISION] = precision.into();
        }
        recorder.record(record).unwrap();
    }
    for round in 0..5 {
        for (schedule, planned) in (0..).zip(&planned) {
            let position = round * 4 + schedule;
            let measured = planned.measured(u64::from(1000 * day + position), 40);
            let outcome = Outcome::Measured(Box::new(measured));
            recorder.record(Record::Trial(fixture::trial(schedule, round, position, outcome))).unwrap();
        }
    }
    recorder.finish(Status::Complete, fixture::BEGUN + u64::from(day) * DAY + 1).unwrap();
}

/// Six usual days, six slower ones, of which one is worse still, and two on another machine.
fn filled() -> (Place, Store) {
    let place = Place::new();
    let store = place.open();
    for day in 0..14 {
        let slower = match day {
            0..6 | 12.. => 1.0,
            9 => 2.0,
            _ => 1.15,
        };
        measure(&store, &place, day, slower, |start| {
            if day >= 5 {
                start.versions.harness = "0.2.0".to_owned();
            }
            if day >= 12 {
                start.machine.cpu_model = Some("Another CPU".to_owned());
                start.versions.tvm = Some("0.28.0".to_owned());
            }
        });
    }
    (place, store)
}

fn asked() -> HistoryQuery {
    HistoryQuery { network: "resnet18".to_owned(), board: None, schedule: None, metric: Metric::Throughput }
}

fn build(store: &Store, asked: &HistoryQuery) -> History {
    History::build(store, asked).unwrap()
}

#[test]
fn a_step_is_marked_and_runs_that_are_not_comparable_are_kept_apart() {
    let (_place, store) = filled();
    let history = build(&store, &asked());
    let names: Vec<(&str, &str)> =
        history.series.iter().map(|series| (series.schedule.as_str(), series.kind.as_str())).collect();
    let wanted =
        [("cpu0", "single"), ("cpu1", "single"), ("pipeline", "pipeline"), ("replicate", "replicate")];
    assert_eq!(names, wanted);
    for series in &history.series {
        let lengths: Vec<usize> = series.segments.iter().map(|segment| segment.points.len()).collect();
        assert_eq!(lengths, [12, 2], "{}", series.schedule);
        let points = &series.segments[0].points;
        let steps: Vec<usize> = (0..12).filter(|place| points[*place].step.is_some()).collect();
        assert_eq!(steps, [6], "{}", series.schedule);
        let step = points[6].step.unwrap();
        assert!(step.lo < 1.0 / 1.15 && step.hi > 1.0 / 1.15 && !step.better, "{step:?}");
        assert_eq!((0..12).filter(|place| points[*place].outlying).collect::<Vec<_>>(), [9]);
        assert_eq!(points[5].changed, ["harness 0.1.0 → 0.2.0"]);
        let changed = &series.segments[1].changed_conditions;
        let wanted = ["CPU Example CPU @ 2.00GHz → Another CPU", "TVM 0.27.0.post1 → 0.28.0"];
        assert_eq!(changed.as_slice(), wanted);
    }
    // A longer latency is a worse one.
    let latency = build(&store, &HistoryQuery { metric: Metric::LatencyP50, ..asked() });
    let step = latency.series[0].segments[0].points[6].step.unwrap();
    assert!(step.ratio > 1.1 && !step.better, "{step:?}");
}

#[test]
fn machines_that_take_turns_have_series_of_their_own() {
    let place = Place::new();
    let store = place.open();
    for day in 0..8 {
        let slower = if day % 2 == 0 { 1.0 } else { 1.5 };
        measure(&store, &place, day, slower, |start| {
            start.machine.cpu_model = Some(format!("CPU {}", day % 2));
        });
    }
    for series in build(&store, &asked()).series {
        let lengths: Vec<usize> = series.segments.iter().map(|segment| segment.points.len()).collect();
        assert_eq!(lengths, [4, 4]);
        let points = series.segments.iter().flat_map(|segment| &segment.points);
        assert!(points.into_iter().all(|point| point.step.is_none()));
    }
}

#[test]
fn half_precision_begins_a_new_segment() {
    let place = Place::new();
    let store = place.open();
    for day in 0..8 {
        measure_as(&store, &place, day, 1.0, |_| {}, if day < 4 { "fp32" } else { "fp16" });
    }
    for series in build(&store, &asked()).series {
        let lengths: Vec<usize> = series.segments.iter().map(|segment| segment.points.len()).collect();
        assert_eq!(lengths, [4, 4]);
        assert_eq!(series.segments[1].changed_conditions, ["precision fp32 → fp16"]);
    }
}

#[test]
fn other_frames_begin_a_new_segment() {
    let check = |configurations: [&str; 2], changed: &str| {
        let place = Place::new();
        let store = place.open();
        for day in 0..4 {
            measure(&store, &place, day, 1.0, |start| {
                start.configuration = configurations[usize::from(day >= 2)].to_owned();
            });
        }
        let history = build(&store, &asked());
        let segments = &history.series[0].segments;
        assert_eq!(segments.iter().map(|segment| segment.points.len()).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(segments[1].changed_conditions, [changed]);
    };
    let frames = "experiment: { frames: { seed: 1, distinct: 8, folder: /street, folder_sha256: ab } }";
    let with_rule = |rule: &str| format!("networks: [{{ network: resnet18, pictures: {rule} }}]\n{frames}");
    check([frames, &with_rule("{ crop: 0.5 }")], r#"pictures default → {"crop":0.5}"#);
    check(
        [&with_rule("{ crop: 0.5 }"), &with_rule("{ crop: 0.75 }")],
        r#"pictures {"crop":0.5} → {"crop":0.75}"#,
    );
    let of_seed = |seed: u32| format!("experiment: {{ frames: {{ seed: {seed}, distinct: 8 }} }}");
    check([&of_seed(1), &of_seed(2)], "frames random → 8 random ones of seed 2");
}

#[test]
fn schedules_are_picked_by_kind_processors_or_label() {
    let (_place, store) = filled();
    let picked = |schedule: &str| {
        let history = build(&store, &HistoryQuery { schedule: Some(schedule.to_owned()), ..asked() });
        history.series.into_iter().map(|series| series.schedule).collect::<Vec<_>>()
    };
    assert_eq!(picked("single"), ["cpu0", "cpu1"]);
    assert_eq!(picked("pipeline"), ["pipeline"]);
    assert_eq!(picked("cpu0 > cpu1"), ["cpu0 > cpu1"]);
    let label = build(&store, &asked()).series[2].segments[0].points[0].schedule.clone();
    assert_eq!(picked(&label), [label]);
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let (place, store) = filled();
    let check = |asked: HistoryQuery, wanted: &str| {
        let error = History::build(&store, &asked).unwrap_err();
        assert!(matches!(error, HistoryError::Nothing { .. }), "{error}");
        assert!(error.to_string().contains(wanted), "{error}");
    };
    check(HistoryQuery { network: "resnet".to_owned(), ..asked() }, "measured: resnet18 on local");
    check(
        HistoryQuery { board: Some("tx2".to_owned()), ..asked() },
        "resnet18 on the board tx2; measured: resnet18",
    );
    check(
        HistoryQuery { schedule: Some("gpu".to_owned()), ..asked() },
        "measured: cpu0, cpu0 > cpu1, cpu0 | cpu1, cpu1",
    );
    let energy = build(&store, &HistoryQuery { metric: Metric::EnergyPerFrame, ..asked() });
    assert!(energy.series.iter().all(|series| series.segments.is_empty()));
    assert!(crate::render_history(&energy, HistoryFormat::Terminal).contains("left out (not measured)"));
    drop(place);
}

#[test]
fn a_run_that_does_not_count_is_left_out() {
    let place = Place::new();
    let store = place.open();
    measure(&store, &place, 0, 1.0, |_| {});
    let start = fixture::run_start_at(fixture::BEGUN + DAY);
    let mut recorder = RunRecorder::create(&store, &place.runs(), start).unwrap();
    for record in fixture::records("resnet18", 2) {
        let wrong = match record {
            Record::Comparison(comparison) => {
                Record::Comparison(fixture::comparison(comparison.schedule, 0, 5.0))
            }
            other => other,
        };
        recorder.record(wrong).unwrap();
    }
    recorder.finish(Status::Complete, fixture::BEGUN + DAY + 1).unwrap();
    let history = build(&store, &HistoryQuery { schedule: Some("pipeline".to_owned()), ..asked() });
    assert_eq!(history.series[0].segments[0].points.len(), 1);
    assert_eq!(history.series[0].left_out[0].reason, "void");
}

#[test]
fn history_as_text() {
    let (_place, store) = filled();
    let history = build(&store, &HistoryQuery { schedule: Some("pipeline".to_owned()), ..asked() });
    insta::assert_snapshot!("terminal", crate::render_history(&history, HistoryFormat::Terminal));
    insta::assert_snapshot!("markdown", crate::render_history(&history, HistoryFormat::Markdown));
    insta::assert_snapshot!("csv", crate::render_history(&history, HistoryFormat::Csv));
    let read: serde_json::Value =
        serde_json::from_str(&crate::render_history(&history, HistoryFormat::Json)).unwrap();
    assert_eq!(read["series"][0]["segments"][0]["points"].as_array().unwrap().len(), 12);
}

/// `EDGEPIPE_WRITE_SCHEMAS=1 cargo test -p report schema_of_the_history_is_current` writes it anew.
#[test]
fn schema_of_the_history_is_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../results/history.schema.json");
    if std::env::var_os("EDGEPIPE_WRITE_SCHEMAS").is_some() {
        std::fs::write(&file, crate::schema::<History>()).unwrap();
    }
    assert!(
        std::fs::read_to_string(&file).unwrap_or_default() == crate::schema::<History>(),
        "{} is not current; run\nEDGEPIPE_WRITE_SCHEMAS=1 cargo test -p report schema_of_the_history_is_current",
        file.display()
    );
}
