//! Networks under a stream, with the real harness, compiler and runner on this machine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rig;
mod words;

use rig::Rig;
use serde_json::{Value, json};
use std::path::Path;
use words::says;

/// Benches `tiny` under a load, and returns the rows. Other load may make the source of a stream late, which voids a trial.
fn bench(rig: &Rig, load: &str, settings: &[&str]) -> (Vec<Value>, String) {
    let load = format!("load={load}");
    let mut arguments = vec!["bench", "--experiment", "tiny", "--trials", "1", "--set", &load];
    for setting in settings {
        arguments.extend(["--set", setting]);
    }
    let output = rig.command(&arguments).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let code = output.status.code().unwrap();
    assert!(
        code == 0 || (code == 4 && table.contains("void")),
        "{code}\n{table}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    (rig.rows(), table)
}

fn latencies(row: &Value) -> Vec<f64> {
    ["p50", "p90", "p99", "max"].map(|name| row["latency_ms"][name].as_f64().unwrap()).to_vec()
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn every_kind_of_schedule_runs_under_a_camera() {
    let rig = Rig::new();
    let peer = "schedules=[{single: each}, {pipeline: auto}, {replicate: all}, {peer: onnxruntime}]";
    let (rows, table) = bench(&rig, "{stream: {fps: 100, queue: 2, deadline_ms: 50}}", &[peer]);
    assert_eq!(rows.len(), 5);
    let load = "load: a stream of 100 frames/s, queue of 2, drop_oldest, deadline 50 ms";
    assert!(says(&table, load), "{table}");
    let load =
        json!({ "stream": { "fps": 100.0, "queue": 2, "policy": "drop_oldest", "deadline_ms": 50.0 } });
    for row in &rows {
        assert_eq!(row["load"], load);
        let figures = latencies(row);
        assert!(figures[0] > 0.0 && figures.is_sorted(), "{figures:?}");
        let drops = &row["drop_rate"];
        let ends = ["lo", "point", "hi"].map(|name| drops[name].as_f64().unwrap());
        assert!(ends.is_sorted() && ends[0] >= 0.0 && ends[2] <= 1.0, "{drops}");
        assert!(row["deadline_misses"].as_u64() <= row["stream"]["completed"].as_u64(), "{row}");
        assert!(row["age_ms"].as_f64().unwrap() > 0.0 && row["pipeline_efficiency"].is_null());
        assert!(row["stream"]["arrived"].as_u64().unwrap() > 0);
    }
    for format in ["markdown", "csv", "html", "latex"] {
        let (text, _) = rig.run(&["report", "--format", format], 0);
        assert!(says(&text, "100 frames/s"), "{format}: {text}");
    }
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn queues_are_chosen_for_each_schedule() {
    let rig = Rig::new();
    let schedules = "schedules=[{single: cpu0}, {pipeline: auto}, {peer: onnxruntime}]";
    let load = "{stream: {fps: 100, queue: auto, deadline_ms: 50}}";
    let (rows, table) = bench(&rig, load, &[schedules, "queue_depth=auto"]);
    assert!(says(&table, "load: a stream of 100 frames/s, queue auto, drop_oldest"), "{table}");
    for row in &rows {
        let queues = &row["queues"];
        assert_eq!(queues["before"], row["load"]["stream"]["queue"], "the runner had another queue: {row}");
        assert_eq!(
            (&queues["before_chosen"], queues["between_chosen"] == (row["kind"] == "pipeline")),
            (&true.into(), true)
        );
        let is_peer = row["kind"] == "peer";
        assert_eq!(queues["expected"].is_null(), is_peer, "{queues}");
        assert_eq!(queues["reason"] == "not_predicted", is_peer, "{queues}");
        assert!(!is_peer || queues["before"] == 2, "{queues}");
    }
    assert!(says(&table, "between stages (auto):"), "{table}");
    let load = format!("load={load}");
    let settings = ["--set", &load, "--set", "schedules=[{single: cpu0}]"];
    let (text, _) = rig.run(&[&["plan", "--experiment", "tiny"], &settings[..]].concat(), 0);
    assert!(says(&text, "(auto):") && says(&text, "; expected:"), "{text}");
    let (_, log) = rig.run(&["plan", "--experiment", "tiny", "--trials", "3"], 2);
    assert!(log.contains("unexpected argument '--trials'"), "{log}");
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn each_policy_has_its_way_with_too_many_frames() {
    let rig = Rig::new();
    // Frames arrive each 0.1 ms; a processor that takes eleven times as long computes none of `tiny` in that time.
    let settings = ["schedules=[{single: cpu0}]", "inject={slow_down: {processor: cpu0, percent: 1000}}"];
    for policy in ["drop_oldest", "drop_newest", "block"] {
        let load = format!("{{stream: {{fps: 10000, queue: 2, policy: {policy}}}}}");
        let (rows, _) = bench(&rig, &load, &settings);
        let drops = rows[0]["drop_rate"]["point"].as_f64().unwrap();
        assert_eq!(drops > 0.0, policy != "block", "{policy}: {drops}");
        let dropped = rows[0]["stream"]["dropped_at_queue"].as_u64().unwrap();
        assert_eq!(dropped > 0, policy != "block", "{policy}: {dropped}");
    }
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn a_sustained_rate_is_found_or_its_absence_told() {
    let rig = Rig::new();
    let settings = ["schedules=[{single: cpu0}]", "inject={slow_down: {processor: cpu0, percent: 1000}}"];
    let (rows, table) = bench(&rig, "{sustained: {max_drops: 1%, deadline_ms: 100, queue: 64}}", &settings);
    let row = &rows[0];
    assert_eq!(row["load"]["sustained"]["max_drops"], "1%");
    if row["verdict"] == "valid" {
        let rate = row["sustained_fps"]["point"].as_f64().unwrap();
        assert!(rate > 0.0 && table.contains("sustains"), "{table}");
        assert!(latencies(row)[2] <= 100.0 && row["drop_rate"]["point"].as_f64().unwrap() <= 0.01, "{row}");
    } else {
        assert!(row["sustained_fps"].is_null() && !row["reasons"].as_array().unwrap().is_empty(), "{row}");
    }
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn recorded_frames_are_fed_and_others_refused() {
    let rig = Rig::new();
    // What `numpy.save` writes; `tiny` has an input of 1 x 3 x 32 x 32.
    let save = |name: &str, frames: usize, width: usize| {
        let text =
            format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({frames}, 3, 32, {width}), }}");
        let mut file = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        file.extend(format!("{text:<117}\n").as_bytes());
        file.extend(
            (0..frames * 3 * 32 * width).flat_map(|place| ((place % 97) as f32 / 97.0).to_le_bytes()),
        );
        std::fs::write(rig.path(name), file).unwrap();
        format!("frames.npy={}", rig.path(name).display())
    };
    let (rows, _) = bench(&rig, "{stream: {fps: 100}}", &[&save("street.npy", 2, 32)]);
    for row in &rows {
        let codes: Vec<&str> = row["reasons"]
            .as_array()
            .unwrap()
            .iter()
            .map(|reason| reason["code"].as_str().unwrap())
            .collect();
        assert!(!codes.contains(&"outputs_not_compared") && row["trials_failed"] == 0, "{row}");
    }
    let wrong = save("wrong.npy", 2, 16);
    let (_, error) = rig.run(&["bench", "--experiment", "tiny", "--set", &wrong], 2);
    assert!(error.contains("shape (2, 3, 32, 16), expected an array of float32"), "{error}");
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn pictures_are_fed_and_what_is_none_is_refused() {
    let rig = Rig::new();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pictures/tests/data");
    let folder = rig.path("street");
    std::fs::create_dir(&folder).unwrap();
    let names = ["photo.png", "turned.jpg", "grey16.png"];
    for name in names {
        std::fs::copy(data.join(name), folder.join(name)).unwrap();
    }
    let set = format!("frames.folder={}", folder.display());
    let (rows, _) = bench(&rig, "{stream: {fps: 100}}", &[&set]);
    let (table, _) = rig.run(&["report", "--format", "markdown"], 0);
    assert!(says(&table, "; frames: pictures"), "{table}");
    for row in &rows {
        let reasons = row["reasons"].as_array().unwrap();
        let is_compared = reasons.iter().all(|reason| reason["code"] != "outputs_not_compared");
        assert!(is_compared && row["trials_failed"] == 0, "{row}");
    }
    let refused = |says: &[&str]| {
        let (_, error) = rig.run(&["bench", "--experiment", "tiny", "--set", &set], 2);
        assert!(says.iter().all(|part| error.contains(part)), "{error}");
    };
    let jpeg = std::fs::read(data.join("photo.jpg")).unwrap();
    std::fs::write(folder.join("cut.jpg"), &jpeg[..jpeg.len() / 2]).unwrap();
    refused(&["failed to feed the pictures in", "to the network tiny", "cut.jpg", "damaged or incomplete"]);
    std::fs::write(folder.join("cut.jpg"), "no picture").unwrap();
    refused(&["cut.jpg", "neither PNG nor JPEG"]);
    for name in names.into_iter().chain(["cut.jpg"]) {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    refused(&["no pictures in", "expected files named .png, .jpg or .jpeg"]);
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn one_frame_at_a_time_has_no_queue() {
    let rig = Rig::new();
    let arguments = ["bench", "--experiment", "mlperf-single-stream", "--network", "tiny", "--trials", "1"];
    let short = ["--set", "measure={min_seconds: 0.3, min_frames: 100, max_seconds: 60}"];
    rig.measure(&[&arguments[..], &short].concat());
    for row in rig.rows() {
        assert_eq!((&row["load"], &row["drop_rate"]), (&json!("one_at_a_time"), &Value::Null));
        // The times of frames do not overlap, and no median is more than twice the mean.
        let fps = row["throughput_fps"]["point"].as_f64().unwrap();
        assert!(latencies(&row)[0] <= 2.0 * 1000.0 / fps, "{row}");
    }
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn commands_that_look_for_the_highest_throughput_refuse_a_stream() {
    let rig = Rig::new();
    let load = ["--set", "load={stream: {fps: 30}}"];
    let (_, error) = rig.run(&[&["optimize", "--experiment", "tiny"], &load[..]].concat(), 2);
    assert!(error.contains("a stream of 30 frames/s") && error.contains("load: saturating"), "{error}");
    let (_, error) = rig.run(&[&["verify-claims", "--experiment", "tiny"], &load[..]].concat(), 2);
    assert!(error.contains("a stream of 30 frames/s") && error.contains("load: saturating"), "{error}");
    let zero = ["bench", "--experiment", "tiny", "--set", "load={stream: {fps: 0}}"];
    let (_, error) = rig.run(&zero, 2);
    assert!(
        error.contains("load={stream: {fps: 0}}: expected a number from 0.001 to 10000, found 0"),
        "{error}"
    );
}
