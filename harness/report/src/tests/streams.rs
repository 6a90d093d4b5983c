//! Reports on runs under a stream.

use super::Scenario;
use crate::Format;
use store::fixture;

#[test]
fn terminal() {
    insta::assert_snapshot!(crate::render(&Scenario::camera().report(), Format::Terminal, false));
}

#[test]
fn markdown() {
    insta::assert_snapshot!(crate::render(&Scenario::camera().report(), Format::Markdown, false));
}

#[test]
fn latex() {
    insta::assert_snapshot!(crate::render(&Scenario::camera().report(), Format::LatexTable, false));
}

#[test]
fn json_rows_have_the_figures_of_the_stream() {
    let text = crate::render(&Scenario::camera().report(), Format::Json, false);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let row = &report["rows"][0];
    let load = serde_json::json!({ "stream": { "fps": 30.0, "queue": 2, "policy": "drop_oldest", "deadline_ms": 33.0 } });
    assert_eq!(row["load"], load);
    let latency = &row["latency_ms"];
    let figures: Vec<f64> = ["p50", "p90", "p99", "max"].map(|name| latency[name].as_f64().unwrap()).into();
    assert!(figures.is_sorted() && figures[0] > 20.0, "{figures:?}");
    let interval = &row["latency_ms_intervals"]["p99"];
    assert!(
        interval["lo"].as_f64() <= Some(figures[2]) && interval["hi"].as_f64() >= Some(figures[2]),
        "{interval}"
    );
    assert_eq!(interval["frames_needed"], 368);
    // Every tenth frame is dropped.
    let drops = &row["drop_rate"];
    assert!((drops["point"].as_f64().unwrap() - 0.1).abs() < 0.002, "{drops}");
    assert!(drops["lo"].as_f64() <= Some(0.1) && drops["hi"].as_f64() >= Some(0.1), "{drops}");
    assert_eq!(row["deadline_misses"], 0);
    assert!(row["age_ms"].as_f64().unwrap() > figures[0]);
    assert_eq!(row["stream"]["dropped_at_queue"].as_u64(), Some(3 * 44));
    let text = crate::render(&Scenario::small().report(), Format::Json, false);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let row = &report["rows"][0];
    assert_eq!(row["load"], "saturating");
    assert!(row["latency_ms"]["max"].as_f64() >= row["latency_ms"]["p99"].as_f64());
    for absent in ["latency_ms_intervals", "drop_rate", "deadline_misses", "age_ms", "stream"] {
        assert!(row[absent].is_null(), "{absent}");
    }
}

#[test]
fn csv_has_a_column_for_each_figure() {
    let text = crate::render(&Scenario::camera().report(), Format::Csv, false);
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    // The load is quoted, because it has commas.
    let line = lines.next().unwrap();
    let (before, after) = line.split_once('"').unwrap();
    let (load, after) = after.split_once('"').unwrap();
    assert_eq!(load, "a stream of 30 frames/s, queue of 2, drop_oldest, deadline 33 ms");
    let cells: Vec<&str> = before
        .trim_end_matches(',')
        .split(',')
        .chain([load])
        .chain(after.strip_prefix(',').unwrap().split(','))
        .collect();
    let cell = |name: &str| cells[names.iter().position(|known| *known == name).unwrap()];
    assert_eq!(
        (cell("frames_arrived"), cell("frames_dropped"), cell("deadline_misses")),
        ("1332", "132", "0")
    );
    assert!(cell("latency_ms_p99_hi").parse::<f64>().unwrap() >= cell("latency_ms_p99").parse().unwrap());
}

#[test]
fn the_page_draws_latencies_queue_and_drops() {
    let (mut report, store, _place) = Scenario::camera().stored();
    report.read_timelines(&store).unwrap();
    assert_eq!(report.streams.len(), 4);
    let page = crate::render(&report, Format::Html, false);
    for part in [
        "Latency of the stream",
        "Queue of the stream",
        "by latency in ms from the scheduled arrival",
        "Load: a stream of 30 frames/s, queue of 2, drop_oldest, deadline 33 ms.",
        "Marks at the top are drops",
    ] {
        assert!(page.contains(part), "{part:?} is missing");
    }
    let saturating = crate::render(&Scenario::sound().report(), Format::Html, false);
    assert!(!saturating.contains("of the stream"));
}

#[test]
fn four_cameras_are_told_apart() {
    let load = protocol::StreamLoad { streams: 4, fps: 7.5, deadline_ns: None, ..fixture::camera() };
    let report = Scenario::under(load, "{ fps: 7.5, streams: 4, queue: 2, policy: drop_oldest }").report();
    let streams = &report.rows[0].stream.as_ref().unwrap().streams;
    assert_eq!(streams.len(), 4);
    assert_eq!(streams.iter().map(|stream| stream.completed).sum::<u64>(), 1200);
    assert_eq!(report.rows[0].deadline_misses, None);
    let text = crate::render(&report, Format::Terminal, false);
    assert!(text.contains("load: 4 streams of 7.5 frames/s each"), "{text}");
    assert!(text.contains("streams of cpu0:"), "{text}");
}
