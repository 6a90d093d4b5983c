//! Traces of trials, by the rules of the trace event format.

use super::{Scenario, row};
use crate::Row;
use serde_json::Value;
use std::collections::BTreeMap;

fn trace(kind: &str) -> (Row, Vec<Value>, usize) {
    let (report, store, _place) = Scenario::sound().stored();
    let row = row(&report, "resnet18", kind).clone();
    let run = store.run(&report.run.id).unwrap();
    let trial = store.last_trial(&run, row.place, row.typical_round.unwrap()).unwrap().unwrap();
    let store::Outcome::Measured(measured) = &trial.outcome else { panic!("it was measured") };
    let trace: Value = serde_json::from_str(&crate::trace(&report, &row, &trial).unwrap()).unwrap();
    assert_eq!(trace["displayTimeUnit"], "ms");
    assert_eq!(trace["otherData"]["run"], report.run.id);
    (row, trace["traceEvents"].as_array().unwrap().clone(), measured.timeline.len())
}

fn of<'e>(events: &'e [Value], phase: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["ph"] == phase).collect()
}

#[test]
fn every_kept_frame_is_a_slice_on_the_thread_of_its_stage() {
    for kind in ["single", "pipeline", "replicate"] {
        let (row, events, spans) = trace(kind);
        let slices = of(&events, "X");
        assert_eq!(slices.len(), spans, "{kind}");
        let names: BTreeMap<u64, &Value> = of(&events, "M")
            .into_iter()
            .filter(|event| event["name"] == "thread_name")
            .map(|event| (event["tid"].as_u64().unwrap(), &event["args"]["name"]))
            .collect();
        assert_eq!(names.len(), row.stages.len());
        for slice in slices {
            assert!(names.contains_key(&slice["tid"].as_u64().unwrap()));
            assert!(slice["dur"].as_f64().unwrap() > 0.0);
        }
        for event in events.iter().filter(|event| event["ph"] != "M") {
            assert!(event["ts"].as_f64().unwrap() >= 0.0, "{event}");
            assert_eq!(event["pid"], 1);
        }
    }
}

#[test]
fn arrows_lead_from_each_stage_to_the_next() {
    let (_, events, _) = trace("pipeline");
    let (begins, ends) = (of(&events, "s"), of(&events, "f"));
    assert!(!begins.is_empty() && begins.len() == ends.len());
    let slices = of(&events, "X");
    let within = |event: &Value| {
        slices.iter().any(|slice| {
            let (ts, begin) = (event["ts"].as_f64().unwrap(), slice["ts"].as_f64().unwrap());
            slice["tid"] == event["tid"] && (begin..=begin + slice["dur"].as_f64().unwrap()).contains(&ts)
        })
    };
    for (begin, end) in begins.iter().zip(&ends) {
        assert_eq!(begin["id"], end["id"]);
        assert_eq!(begin["tid"].as_u64().unwrap() + 1, end["tid"].as_u64().unwrap());
        assert!(within(begin) && within(end), "{begin} {end}");
    }
    let (_, events, _) = trace("replicate");
    assert!(of(&events, "s").is_empty(), "nothing goes from one copy to another");
}

#[test]
fn frames_in_flight_end_at_none() {
    let (_, events, _) = trace("pipeline");
    let counts: Vec<i64> =
        of(&events, "C").iter().filter_map(|event| event["args"]["frames"].as_i64()).collect();
    assert_eq!(counts.last(), Some(&0));
    assert!(counts.iter().all(|count| *count >= 0) && counts.contains(&2), "{counts:?}");
}

#[test]
fn a_trial_without_a_timeline_has_no_trace_and_says_so() {
    let mut scenario = Scenario::sound();
    scenario.measured(2, 0).timeline.clear();
    let (report, store, _place) = scenario.stored();
    let run = store.run(&report.run.id).unwrap();
    let trial = store.last_trial(&run, 2, 0).unwrap().unwrap();
    let row = report.rows.iter().find(|row| row.place == 2).unwrap();
    assert!(crate::trace(&report, row, &trial).unwrap_err().contains("timeline_frames"));
    assert!(store.last_trial(&run, 2, 99).unwrap().is_none());
}
