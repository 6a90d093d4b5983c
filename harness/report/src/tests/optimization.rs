//! The result of `optimize` in each format.

use crate::{OptimizeFormat, render_optimization};
use analysis::{Closest, FrontRow, Interval, Optimization, PointSection, PowerModelSection};
use domain::ScheduleKind;
use std::collections::BTreeMap;

fn interval(point: f64, half: f64) -> Interval {
    Interval { point, lo: Some(point - half), hi: Some(point + half) }
}

fn row(schedule: &str, kind: ScheduleKind, fps: f64, energy: f64) -> FrontRow {
    FrontRow {
        schedule: schedule.to_owned(),
        kind,
        processors: schedule
            .split([' ', '|', '>'])
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
        operating_point: PointSection {
            number: 0,
            label: None,
            power_mode: Some("0 (MAXN)".to_owned()),
            governor: None,
            memory_mhz: None,
            max_mhz: BTreeMap::new(),
        },
        throughput_fps: interval(fps, 0.2),
        energy_mj_per_frame: Some(interval(energy, 2.0)),
        predicted_fps: Some(1.02 * fps),
        predicted_mj_per_frame: Some(0.97 * energy),
        predicted_mj_per_frame_interval: Some(interval(0.97 * energy, 12.0)),
        trials: 5,
    }
}

pub(super) fn result() -> Optimization {
    let front = vec![
        row("denver | a57", ScheduleKind::Replicate, 31.0, 290.0),
        row("denver > a57", ScheduleKind::Pipeline, 27.5, 262.5),
        row("a57", ScheduleKind::Single, 15.0, 240.0),
    ];
    Optimization {
        schema: 1,
        board: "tx2".to_owned(),
        network: "resnet18".to_owned(),
        run: "20261129-020000-0001".to_owned(),
        status: "complete".to_owned(),
        objective: "least energy per frame with at least 25 frames/s".to_owned(),
        confidence: 0.95,
        best: Some(front[1].clone()),
        certain: Some(true),
        closest: None,
        baselines: vec![row("denver", ScheduleKind::Single, 16.0, 310.0), front[2].clone()],
        front,
        others: vec![
            row("denver[0..12] > a57[12..21]", ScheduleKind::Pipeline, 26.9, 271.0),
            row("a57[0..7] > denver[7..21]", ScheduleKind::Pipeline, 21.4, 281.5),
        ],
        throughput_gain: Some(interval(1.72, 0.02)),
        energy_gain: Some(interval(0.91, 0.01)),
        best_at_default_point: None,
        throughput_gain_over_default_point: None,
        energy_gain_over_default_point: None,
        commands: vec![],
        power_model: Some(PowerModelSection {
            idle_mw: 2500.0,
            dynamic_mw: [("a57".to_owned(), 1210.0), ("denver".to_owned(), 2430.0)].into(),
            residual_mw: 41.0,
            left_out_error: Some(0.012),
            windows: 41,
        }),
        energy_absent_reason: None,
        not_judged_reason: None,
        schedules_measured: 9,
        schedules_void: 1,
        void_reason: Some("denver[0..9] > a57[9..21]: 5 of 5 trials are void: other programs ran".to_owned()),
    }
}

#[test]
fn a_result_is_shown_as_a_table_and_as_csv() {
    insta::assert_snapshot!(render_optimization(&result(), OptimizeFormat::Terminal));
    insta::assert_snapshot!(render_optimization(&result(), OptimizeFormat::Csv));
}

#[test]
fn a_result_is_shown_in_documents() {
    insta::assert_snapshot!(render_optimization(&result(), OptimizeFormat::Markdown));
    insta::assert_snapshot!(render_optimization(&result(), OptimizeFormat::LatexTable));
    let document = render_optimization(&result(), OptimizeFormat::Latex);
    assert!(document.contains(&render_optimization(&result(), OptimizeFormat::LatexTable)));
}

#[test]
fn a_page_draws_the_front_and_lists_every_schedule() {
    let page = render_optimization(&result(), OptimizeFormat::Html);
    assert!(!page.contains("<script") && page.contains("default-src 'none'"), "{page}");
    // Three on the front, two baselines of which one is on it, and two others.
    assert_eq!(page.matches("class=\"m ").count(), 6 + 3, "a mark for each, and three in the legend: {page}");
    assert_eq!(page.matches("class=\"joined\"").count(), 2, "{page}");
    assert!(page.contains("denver &gt; a57 (best)</text>"), "{page}");
    for schedule in ["denver | a57", "denver &gt; a57", "a57[0..7] &gt; denver[7..21]"] {
        assert!(page.contains(&format!("<code>{schedule}</code>")), "{schedule}: {page}");
    }
    assert!(page.contains("denver &gt; a57 reaches 27.5 frames/s with 262 mJ/frame"), "{page}");
    let mut plain = result();
    for row in plain.front.iter_mut().chain(&mut plain.baselines).chain(&mut plain.others) {
        row.energy_mj_per_frame = None;
    }
    plain.energy_absent_reason = Some("the board has no power meter configured".to_owned());
    let page = render_optimization(&plain, OptimizeFormat::Html);
    assert!(!page.contains("<svg class=\"plot\"") && page.contains("No energy was measured"), "{page}");
}

#[test]
fn with_operating_points_the_result_has_the_gain_over_the_default_and_the_commands() {
    let mut several = result();
    for row in several.front.iter_mut().chain(&mut several.baselines) {
        row.schedule += " @ MAXN a57 2035 denver 2035 MHz";
        row.operating_point.label = Some("MAXN a57 2035 denver 2035 MHz".to_owned());
    }
    several.best_at_default_point = several.best.clone();
    let mut best = several.best.take().unwrap();
    best.schedule += " @ MAXN a57 1114 denver 1421 MHz";
    best.operating_point = PointSection {
        number: 7,
        label: Some("MAXN a57 1114 denver 1421 MHz".to_owned()),
        max_mhz: [("a57".to_owned(), 1113.6), ("denver".to_owned(), 1420.8)].into(),
        ..best.operating_point
    };
    several.best = Some(best);
    several.throughput_gain_over_default_point = Some(interval(0.93, 0.01));
    several.energy_gain_over_default_point = Some(interval(1.21, 0.02));
    several.commands = vec!["sudo nvpmodel -m 0".to_owned()];
    insta::assert_snapshot!(render_optimization(&several, OptimizeFormat::Terminal));
}

#[test]
fn a_requirement_that_nothing_meets_is_told_with_the_closest_schedule() {
    let mut missed = result();
    let point = missed.best.take().unwrap();
    (missed.throughput_gain, missed.energy_gain, missed.certain) = (None, None, None);
    let text = "31.00 frames/s, 22.5 % below the required 40".to_owned();
    missed.closest = Some(Closest { point, missed_by: 0.225, text });
    let shown = render_optimization(&missed, OptimizeFormat::Terminal);
    let last = shown.lines().last().unwrap();
    assert_eq!(
        last,
        "no schedule meets the requirement; the closest is denver > a57: 31.00 frames/s, 22.5 % below the required 40"
    );
}

#[test]
fn without_a_meter_there_are_dashes_and_the_reason() {
    let mut plain = result();
    plain.objective = "highest throughput with at least 31 frames/s".to_owned();
    // Without energy, the front is the fastest schedule.
    plain.front.truncate(1);
    plain.best = plain.front.first().cloned();
    plain.throughput_gain = Some(interval(1.94, 0.02));
    for row in plain.front.iter_mut().chain(&mut plain.best).chain(&mut plain.baselines) {
        (row.energy_mj_per_frame, row.predicted_mj_per_frame, row.predicted_mj_per_frame_interval) =
            (None, None, None);
    }
    (plain.power_model, plain.energy_gain) = (None, None);
    plain.energy_absent_reason = Some("the board has no power meter configured".to_owned());
    plain.certain = Some(false);
    insta::assert_snapshot!(render_optimization(&plain, OptimizeFormat::Terminal));
    let json: serde_json::Value =
        serde_json::from_str(&render_optimization(&plain, OptimizeFormat::Json)).unwrap();
    assert!(json["front"][0]["energy_mj_per_frame"].is_null() && json["power_model"].is_null());
}

#[test]
fn without_energy_nothing_is_chosen_by_energy() {
    let mut unknown = result();
    unknown.front.truncate(1);
    for row in unknown.front.iter_mut().chain(&mut unknown.baselines).chain(&mut unknown.others) {
        row.energy_mj_per_frame = None;
    }
    (unknown.best, unknown.certain, unknown.power_model) = (None, None, None);
    unknown.not_judged_reason = Some("no valid trial has energy (the meter was not read)".to_owned());
    let shown = render_optimization(&unknown, OptimizeFormat::Terminal);
    assert!(shown.contains("* the fastest measured schedule"), "{shown}");
    assert_eq!(
        shown.lines().last().unwrap(),
        "no schedule can be chosen by least energy per frame with at least 25 frames/s: no valid trial has energy (the meter \
         was not read); the fastest schedule is shown instead"
    );
    let page = render_optimization(&unknown, OptimizeFormat::Html);
    assert!(page.contains("No schedule could be chosen: no trial has energy"), "{page}");
    assert!(page.contains("no schedule can be chosen by least energy"), "{page}");
}

#[test]
fn of_a_long_front_the_best_and_the_ends_are_named() {
    let mut long = result();
    let label = |at: u32| format!("denver[0..{at}] > a57[{at}..21]");
    let point =
        |at: u32| row(&label(at), ScheduleKind::Pipeline, 30.0 - f64::from(at), 280.0 - f64::from(at * 2));
    long.front = (1..12).map(point).collect();
    long.best = Some(long.front[5].clone());
    (long.baselines, long.others) = (Vec::new(), Vec::new());
    let page = render_optimization(&long, OptimizeFormat::Html);
    assert_eq!(page.matches("class=\"joined\"").count(), 10, "{page}");
    let names: Vec<&str> = page
        .split("<text class=\"name")
        .skip(1)
        .filter_map(|text| Some(text.split_once('>')?.1.split_once("</text>")?.0))
        .collect();
    assert_eq!(
        names,
        [label(11), "best".to_owned(), label(1)].map(|name| name.replace('>', "&gt;")),
        "{page}"
    );
}
