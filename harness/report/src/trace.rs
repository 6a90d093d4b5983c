//! A trial's timeline as trace events, the JSON that Perfetto and Chrome read: a thread a stage, a slice a frame, arrows
//! where a frame goes on, counters of the power rails.
//!
//! The format: "Trace Event Format", Google, 2016; times are microseconds. What began before the window opened would
//! have negative times, which viewers drop, so everything is moved; the opening is an event of its own.

use super::cells;
use analysis::{Report, Row};
use domain::ScheduleKind;
use protocol::{Measured, Power, Span};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use store::{Outcome, TrialRecord};

const PROCESS: u32 = 1;

/// The trace of a trial; an error message if it has none.
pub(super) fn render(report: &Report, row: &Row, trial: &TrialRecord) -> Result<String, String> {
    let measured = match &trial.outcome {
        Outcome::Measured(measured) => measured,
        Outcome::Failed { message, .. } => return Err(format!("the trial failed: {message}")),
    };
    if measured.timeline.is_empty() {
        return Err("its frames were not recorded; set `timeline_frames` and measure again".to_owned());
    }
    let first = measured.timeline.iter().map(|span| span.begin_ns).min().unwrap_or(0).min(0);
    let clock = Clock { first };
    let mut events = names(row, trial);
    events.push(json!({
        "name": "window opens", "ph": "i", "s": "p", "pid": PROCESS, "tid": 0, "ts": clock.us(0)
    }));
    events.extend(slices(row, &measured.timeline, clock));
    events.extend(in_flight(&measured.timeline, clock));
    events.extend(power(measured, clock));
    let run = &report.run;
    let trace = json!({
        "displayTimeUnit": "ms",
        "otherData": {
            "run": run.id,
            "board": run.board,
            "network": row.network,
            "schedule": cells::label(row),
            "round": trial.round,
            "window_opened_unix_ns": measured.window.opened_unix_ns,
            "window_opened_us": clock.us(0),
            "harness": run.harness,
        },
        "traceEvents": events,
    });
    Ok(format!("{trace:#}\n"))
}

/// Moves times so that none is negative.
#[derive(Debug, Clone, Copy)]
struct Clock {
    first: i64,
}

impl Clock {
    /// Microseconds of a time in ns since the window opened.
    fn us(self, ns: i64) -> f64 {
        (ns - self.first) as f64 / 1e3
    }
}

fn names(row: &Row, trial: &TrialRecord) -> Vec<Value> {
    let process = format!("{} {}, round {}", row.network, cells::label(row), trial.round + 1);
    let mut events = vec![json!({
        "name": "process_name", "ph": "M", "pid": PROCESS, "tid": 0, "args": { "name": process }
    })];
    for (place, stage) in row.stages.iter().enumerate() {
        let name = format!(
            "stage {place} on {}: {} … {}",
            cells::processor(&stage.processor, &row.emulated),
            stage.first,
            stage.last
        );
        events.push(json!({
            "name": "thread_name", "ph": "M", "pid": PROCESS, "tid": place + 1, "args": { "name": name }
        }));
        events.push(json!({
            "name": "thread_sort_index", "ph": "M", "pid": PROCESS, "tid": place + 1,
            "args": { "sort_index": place }
        }));
    }
    events
}

fn slices(row: &Row, spans: &[Span], clock: Clock) -> Vec<Value> {
    let mut events = Vec::new();
    let mut frames: BTreeMap<u64, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        frames.entry(span.frame).or_default().push(span);
        events.push(json!({
            "name": format!("frame {}", span.frame), "cat": "frame", "ph": "X", "pid": PROCESS,
            "tid": span.stage + 1, "ts": clock.us(span.begin_ns),
            "dur": (span.end_ns - span.begin_ns) as f64 / 1e3,
            "args": { "frame": span.frame },
        }));
    }
    if row.kind != ScheduleKind::Pipeline {
        return events;
    }
    for (frame, mut spans) in frames {
        spans.sort_by_key(|span| span.stage);
        for (hop, pair) in spans.windows(2).enumerate() {
            let flow = |phase: &str, span: &Span, ns: i64| {
                json!({
                    "name": "hand-over", "cat": "hand-over", "ph": phase, "bp": "e", "pid": PROCESS,
                    "tid": span.stage + 1, "ts": clock.us(ns), "id": format!("{frame}.{hop}"),
                })
            };
            // An arrow begins within its slice.
            events.push(flow("s", pair[0], (pair[0].end_ns - 1).max(pair[0].begin_ns)));
            events.push(flow("f", pair[1], pair[1].begin_ns));
        }
    }
    events
}

/// Frames between entering the first stage and leaving the last, as far as they were kept.
fn in_flight(spans: &[Span], clock: Clock) -> Vec<Value> {
    let mut frames: BTreeMap<u64, (i64, i64)> = BTreeMap::new();
    for span in spans {
        let ends = frames.entry(span.frame).or_insert((span.begin_ns, span.end_ns));
        *ends = (ends.0.min(span.begin_ns), ends.1.max(span.end_ns));
    }
    let mut changes: Vec<(i64, i64)> =
        frames.values().flat_map(|(begin, end)| [(*begin, 1), (*end, -1)]).collect();
    changes.sort_unstable();
    let mut count = 0;
    let counter = |(ns, change): (i64, i64)| {
        count += change;
        json!({
            "name": "frames in flight", "ph": "C", "pid": PROCESS, "ts": clock.us(ns), "args": { "frames": count }
        })
    };
    changes.into_iter().map(counter).collect()
}

/// A counter a rail, over the frames that were kept.
fn power(measured: &Measured, clock: Clock) -> Vec<Value> {
    let Some(Power::Read(readings)) = &measured.power else { return Vec::new() };
    let opened = measured.window.opened_monotonic_ns;
    let end = measured.timeline.iter().map(|span| span.end_ns).max().unwrap_or(0);
    let mut events = Vec::new();
    for rail in &readings.rails {
        for (at, milliwatts) in rail.begun_ns.iter().zip(&rail.milliwatts) {
            let ns = at.cast_signed().wrapping_sub(opened.cast_signed());
            if (clock.first..=end).contains(&ns) {
                events.push(json!({
                    "name": format!("power {}", rail.name), "ph": "C", "pid": PROCESS, "ts": clock.us(ns),
                    "args": { "mW": milliwatts },
                }));
            }
        }
    }
    events
}
