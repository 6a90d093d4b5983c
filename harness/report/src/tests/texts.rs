//! What reports look like.

use super::{Report, Scenario, troubled};
use crate::Format;
use std::path::Path;

#[test]
fn terminal() {
    insta::assert_snapshot!(crate::render(&Scenario::sound().report(), Format::Terminal, false));
}

#[test]
fn terminal_wide() {
    insta::assert_snapshot!(crate::render(&Scenario::sound().report(), Format::Terminal, true));
}

#[test]
fn terminal_of_a_troubled_run() {
    insta::assert_snapshot!(crate::render(&troubled(), Format::Terminal, false));
}

#[test]
fn markdown() {
    insta::assert_snapshot!(crate::render(&Scenario::sound().report(), Format::Markdown, false));
}

#[test]
fn markdown_of_a_troubled_run() {
    insta::assert_snapshot!(crate::render(&troubled(), Format::Markdown, false));
}

#[test]
fn junit_of_a_troubled_run() {
    insta::assert_snapshot!(crate::render(&troubled(), Format::Junit, false));
}

#[test]
fn csv() {
    insta::assert_snapshot!(crate::render(&Scenario::sound().report(), Format::Csv, false));
}

#[test]
fn csv_of_a_troubled_run() {
    insta::assert_snapshot!(crate::render(&troubled(), Format::Csv, false));
}

#[test]
fn an_interval_of_two_unlike_trials_is_a_question_mark_with_a_remedy() {
    let mut scenario = Scenario::sound();
    scenario.start.rounds = 2;
    scenario.records.retain(|record| !matches!(record, store::Record::Trial(trial) if trial.round > 1));
    let slower = store::fixture::planned("resnet18").swap_remove(2);
    let slower = store::fixture::Planned { frame_ns: 3 * slower.frame_ns, ..slower };
    scenario.trial(2, 1).outcome = store::Outcome::Measured(Box::new(slower.measured(9, 40)));
    let report = scenario.report();
    let wide = &report.rows[2];
    assert!(wide.throughput_fps.unwrap().precision().unwrap() > 100.0, "{:?}", wide.throughput_fps);
    let codes: Vec<Vec<&str>> = report
        .rows
        .iter()
        .map(|row| row.reasons.iter().map(|reason| reason.code.as_str()).collect())
        .collect();
    assert!(codes[2].contains(&"too_few_trials") && !codes[0].contains(&"too_few_trials"), "{codes:?}");
    let note = "throughput and gain over 2 trials: the intervals are wider than ±100 % and shown as ?";
    for (format, parts) in [
        (Format::Terminal, &[" ± ? ", note, "`--trials 5`"][..]),
        (Format::Markdown, &[" [?] |", "× [?] |", note]),
        (Format::Html, &["too few trials", "more than ±\u{2009}100.0", note]),
        (Format::Paper, &["× [?]", "too few trials; the interval is wider than the figure"]),
    ] {
        let text = crate::render(&report, format, false).replace("\n  ", " ");
        for part in parts {
            assert!(text.contains(part), "{format:?} lacks {part:?}: {text}");
        }
    }
    let json: serde_json::Value = serde_json::from_str(&crate::render(&report, Format::Json, false)).unwrap();
    assert!(json["rows"][2]["throughput_fps"]["hi"].as_f64().unwrap() > 1000.0, "the values stay");
}

#[test]
fn the_place_of_a_board_and_its_power_cycles_are_told() {
    let mut scenario = Scenario::sound();
    scenario.start.configuration =
        "board: { connect: { labgrid: { coordinator: 'lab:20408', place: tx2-1 } } }".to_owned();
    let reason = "lost the connection to 10.0.0.2: timed out".to_owned();
    let cycle = store::PowerCycleRecord {
        unix_ns: store::fixture::BEGUN + 60_000_000_000,
        place: "tx2-1".to_owned(),
        reason,
    };
    scenario.records.push(store::Record::PowerCycle(cycle));
    let report = scenario.report();
    for format in [Format::Terminal, Format::Markdown, Format::Html] {
        let text = crate::render(&report, format, true).replace("\n  ", " ");
        for part in [
            "local (place tx2-1 of lab:20408)",
            "the place tx2-1 was power-cycled at 20",
            "because the board did not answer: lost the connection to 10.0.0.2: timed out",
        ] {
            assert!(text.contains(part), "{format:?} lacks {part:?}: {text}");
        }
    }
}

#[test]
fn an_emulated_gpu_is_marked_wherever_it_is_named() {
    let mut scenario = Scenario::sound();
    let gpu = store::fixture::gpu();
    scenario.start.processors[1] = store::ProcessorRecord { name: "cpu1".to_owned(), ..gpu };
    let report = scenario.report();
    for row in &report.rows {
        let uses = row.processors.iter().any(|name| name == "cpu1");
        assert_eq!(row.emulated.len(), usize::from(uses), "{}", row.schedule);
        let codes: Vec<&str> = row.reasons.iter().map(|reason| reason.code.as_str()).collect();
        assert_eq!(codes.contains(&"emulated"), uses, "{codes:?}");
    }
    let shown = |format| crate::render(&report, format, true);
    let warning = "NO GPU: cpu1 is emulated on CPUs";
    for (format, parts) in [
        (
            Format::Terminal,
            &[warning, "cpu1 (emulated)", "driver for CUDA 10.2, fed by CPU 0 (shared with cpu0)"][..],
        ),
        (Format::Markdown, &[warning, "| cpu1 (emulated) |"]),
        (Format::Paper, &[warning, "| cpu1 (emulated) |"]),
        (Format::LatexTable, &["cpu1 (emulated)"]),
        (Format::Html, &[warning, "cpu1 (emulated)", "emulated GPU 0 (sm_62 GPU emulated on CPUs"]),
        (Format::Csv, &[",cpu1,cpu1,"]),
        (Format::Json, &["\"driver_cuda\": \"10.2\"", "\"emulated\": true"]),
    ] {
        let text = shown(format).replace("\n  ", " ");
        for part in parts {
            assert!(text.contains(part), "{format:?} lacks {part:?}: {text}");
        }
    }
    // Labels without the mark are in CSV and JSON only, which have it in a column of its own.
    let unmarked =
        |text: &str| text.lines().any(|line| line.contains("| cpu1 |") || line.starts_with("cpu1  "));
    assert!(!unmarked(&shown(Format::Terminal)) && !unmarked(&shown(Format::Markdown)));
}

#[test]
fn settings_of_a_network_are_marked_wherever_they_are_used() {
    let mut scenario = Scenario::sound();
    let gpu = store::fixture::gpu();
    scenario.start.processors[1] = store::ProcessorRecord { name: "cpu1".to_owned(), ..gpu };
    scenario.network().source =
        serde_json::json!({ "zoo": "resnet18", store::PRECISION: "fp16", store::WINOGRAD: "off" });
    let report = scenario.report();
    for row in &report.rows {
        let uses = row.network == "resnet18" && row.processors.iter().any(|name| name == "cpu1");
        let half: &[&str] = if uses { &["cpu1"] } else { &[] };
        assert_eq!(row.fp16, half, "{} on {}", row.network, row.schedule);
    }
    for (format, parts) in [
        (
            Format::Terminal,
            &["cpu1 (emulated, fp16)", "units; fp16 on GPUs, fp32 on CPUs; without Winograd's algorithm"][..],
        ),
        (
            Format::Markdown,
            &["| cpu1 (emulated, fp16) |", "units; fp16 on GPUs, fp32 on CPUs; without Winograd's algorithm"],
        ),
        (Format::Paper, &["| resnet18 (fp16 on GPUs, without Winograd) |", "> cpu1[2..4] (emulated, fp16)"]),
        (Format::LatexTable, &["resnet18 (fp16 on GPUs, without Winograd)"]),
        (Format::Html, &["cpu1 (emulated, fp16)", "fp16 on GPUs, fp32 on CPUs"]),
        (Format::Csv, &[",cpu1,cpu1,cpu1,"]),
        (
            Format::Json,
            &[
                "\"precision\": \"fp16\"",
                "\"precision\": \"fp32\"",
                "\"winograd\": \"off\"",
                "\"winograd\": \"auto\"",
            ],
        ),
    ] {
        let text = crate::render(&report, format, true).replace("\n  ", " ");
        for part in parts {
            assert!(text.contains(part), "{format:?} lacks {part:?}: {text}");
        }
    }
}

/// The same JSON on every machine: libraries of mathematics differ in the last digit.
fn rounded(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Number(number) if number.is_f64() => {
            let shortened: f64 = format!("{:.8e}", number.as_f64().unwrap()).parse().unwrap();
            *value = shortened.into();
        }
        serde_json::Value::Array(values) => values.iter_mut().for_each(rounded),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(rounded),
        _ => {}
    }
}

fn json(report: &Report) -> serde_json::Value {
    let mut value = serde_json::from_str(&crate::render(report, Format::Json, false)).unwrap();
    rounded(&mut value);
    value
}

#[test]
fn json_of_a_small_run() {
    insta::assert_snapshot!(format!("{:#}", json(&Scenario::small().report())));
}

#[test]
fn nothing_is_wider_than_a_hundred_columns() {
    for report in [Scenario::sound().report(), troubled(), Scenario::small().report()] {
        for line in crate::render(&report, Format::Terminal, false).lines() {
            assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
            assert_eq!(line.trim_end(), line);
            assert!(!line.contains('\u{1b}'), "plain text");
        }
    }
}

#[test]
fn long_names_of_processors_fit_too() {
    let mut scenario = Scenario::small();
    let schedule = scenario.schedule(2);
    let name = |cpu: usize| domain::ProcessorName::new(format!("efficiency-cluster-with-a-long-name-{cpu}"));
    let stages = [(0, 2), (2, 4)].map(|(first, end)| domain::Stage { processor: name(first), first, end });
    let network = store::fixture::network("resnet18").network;
    schedule.schedule = domain::Schedule::pipeline(&network, stages.to_vec()).unwrap();
    let text = crate::render(&scenario.report(), Format::Terminal, false);
    let widest = text.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100) && text.contains("1.89×") && text.contains("valid"), "{text}");
}

#[test]
fn a_stage_on_several_processors_names_them() {
    let mut scenario = Scenario::small();
    let schedule = scenario.schedule(2);
    let stage = |name: &str, first, end| domain::Stage { processor: name.into(), first, end };
    let stages = vec![stage("cpu0", 0, 2), stage("cpu1", 2, 4), stage("gpu", 2, 4)];
    let network = store::fixture::network("resnet18").network;
    schedule.schedule = domain::Schedule::pipeline(&network, stages).unwrap();
    let mut report = scenario.report();
    report.rows[2].emulated = vec!["gpu".to_owned()];
    let row = &report.rows[2];
    assert_eq!(row.schedule, "cpu0[0..2] > (cpu1 | gpu)[2..4]");
    assert_eq!(crate::cells::stage_lines(row), ["cpu0[0..2]", "> (cpu1", "| gpu (emulated))[2..4]"]);
    let label = "cpu0[0..2] > (cpu1 | gpu (emulated))[2..4]";
    assert_eq!(crate::cells::label(row), label);
    let markdown = crate::render(&report, Format::Markdown, false);
    assert!(markdown.contains("(cpu1 \\| gpu"), "{markdown}");
}

#[test]
fn a_prediction_far_off_is_a_multiple() {
    let mut scenario = Scenario::small();
    scenario.slow_down(2, 4.0);
    let text = crate::render(&scenario.report(), Format::Terminal, false);
    assert!(text.contains("97.1 (4.2×)"), "{text}");
}

#[test]
fn csv_has_as_many_cells_in_every_line() {
    let text = crate::render(&troubled(), Format::Csv, false);
    let cells = |line: &str| {
        // Commas outside of quotes.
        line.split('"').step_by(2).map(|part| part.matches(',').count()).sum::<usize>()
    };
    let head = cells(text.lines().next().unwrap());
    assert!(text.lines().count() == 9 && text.lines().all(|line| cells(line) == head), "{text}");
}

/// `EDGEPIPE_WRITE_SCHEMAS=1 cargo test -p report schemas_of_results_are_current` writes them anew.
#[test]
fn schemas_of_results_are_current() {
    let schemas = [
        ("report", crate::schema::<Report>()),
        ("optimization", crate::schema::<analysis::Optimization>()),
        ("claims", crate::schema::<analysis::Claims>()),
    ];
    for (name, current) in schemas {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../results/{name}.schema.json"));
        if std::env::var_os("EDGEPIPE_WRITE_SCHEMAS").is_some() {
            std::fs::write(&path, &current).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == current,
            "{} is not current; run\nEDGEPIPE_WRITE_SCHEMAS=1 cargo test -p report schemas_of_results_are_current",
            path.display()
        );
    }
}

#[test]
fn json_has_exactly_the_fields_of_the_schema() {
    let schema: serde_json::Value = serde_json::from_str(&crate::schema::<Report>()).unwrap();
    let names = |object: &serde_json::Value| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for report in [troubled(), Scenario::small().report()] {
        let json = json(&report);
        assert_eq!(names(&json), names(&schema["properties"]));
        for (part, definition) in [
            (&json["run"], "RunSection"),
            (&json["measured_on"], "MachineSection"),
            (&json["networks"][0], "NetworkSection"),
            (&json["rows"][0], "Row"),
            (&json["rows"][3], "Row"),
            (&json["rows"][2]["stages"][1], "StageSection"),
            (&json["rows"][0]["throughput_fps"], "Interval"),
            (&json["rows"][0]["latency_ms"], "Latency"),
            (&json["summary"][0], "Summary"),
        ] {
            assert_eq!(names(part), names(&schema["$defs"][definition]["properties"]), "{definition}");
        }
    }
}

#[test]
fn a_run_without_schedules_says_so() {
    let mut scenario = Scenario::small();
    scenario.records.clear();
    scenario.status = store::Status::Failed;
    let text = crate::render(&scenario.report(), Format::Terminal, false);
    assert!(text.contains("failed") && text.contains("no schedule was planned in this run"), "{text}");
}

#[test]
fn an_injected_slowdown_is_shown_in_every_text() {
    let mut scenario = Scenario::small();
    scenario.start.configuration =
        "experiment:\n  inject: { slow_down: { processor: cpu1, percent: 5 } }\n".to_owned();
    let report = scenario.report();
    for format in [Format::Terminal, Format::Markdown] {
        let text = crate::render(&report, format, false);
        assert!(text.contains("DO NOT PUBLISH: cpu1 made 5 % slower on purpose"), "{text}");
    }
}
