//! The HTML page. What a browser makes of it is checked by `browser`.

use super::{Report, Scenario, troubled};
use crate::Format;
use analysis::Summary;
use analysis::{Interval, Timeline};
use domain::ScheduleKind;
use std::collections::BTreeSet;

fn page(report: &Report) -> String {
    crate::render(report, Format::Html, false)
}

/// A report of a run in which energy was measured.
pub(super) fn with_energy() -> Report {
    let mut report = Scenario::sound().report();
    for (place, row) in report.rows.iter_mut().enumerate() {
        let point = [410.0, 395.0, 310.0, 330.0][place % 4] * if place < 4 { 1.0 } else { 0.3 };
        row.energy_mj_per_frame = Some(Interval { point, lo: Some(point * 0.96), hi: Some(point * 1.05) });
        row.energy_absent_reason = None;
    }
    report
}

/// As large as the whole zoo: nineteen networks with eight schedules each, five of them of several stages, all with
/// long names, with timelines, energy and peers, from slow networks to fast ones.
pub(super) fn zoo() -> Report {
    let mut report = with_energy();
    let (rows, network) = (report.rows[..4].to_vec(), report.networks[0].clone());
    report.rows.clear();
    report.networks.clear();
    for number in 0..19 {
        let name = format!("efficientnet_b{number}_of_a_long_name");
        report.networks.push(analysis::NetworkSection { name: name.clone(), ..network.clone() });
        for copy in 0..8 {
            let mut row = rows[[0, 1, 2, 2, 2, 3, 3, 1][copy]].clone();
            row.network.clone_from(&name);
            row.place = u32::try_from(report.rows.len()).unwrap();
            let pace = 1.3_f64.powi(number - 6);
            let times = |figure: Interval, factor: f64| Interval {
                point: figure.point * factor,
                lo: figure.lo.map(|lo| lo * factor),
                hi: figure.hi.map(|hi| hi * factor),
            };
            row.throughput_fps = row.throughput_fps.map(|fps| times(fps, pace));
            row.predicted_fps = row.predicted_fps.map(|fps| fps * pace);
            row.energy_mj_per_frame = row.energy_mj_per_frame.map(|energy| times(energy, 1.0 / pace));
            if copy == 7 {
                row.kind = ScheduleKind::Peer;
                "onnxruntime, 2 threads".clone_into(&mut row.schedule);
            }
            report.rows.push(row);
        }
    }
    for (kind, peer, mean) in [
        (ScheduleKind::Single, "onnxruntime, 1 thread", 1.11),
        (ScheduleKind::Pipeline, "onnxruntime, 2 threads", 1.23),
        (ScheduleKind::Replicate, "2 × onnxruntime, 1 thread", 0.97),
    ] {
        report.summary.push(Summary {
            kind,
            over_peer: Some(peer.to_owned()),
            networks: 19,
            gain_geometric_mean: mean,
            gain_least: 0.8 * mean,
            gain_greatest: 1.6 * mean,
        });
    }
    report.timelines = report
        .rows
        .iter()
        .filter(|row| row.stages.len() > 1)
        .map(|row| Timeline { place: row.place, round: 0, spans: spans(row.stages.len()) })
        .collect();
    report
}

fn spans(stages: usize) -> Vec<protocol::Span> {
    let stages = i64::try_from(stages).unwrap();
    let all = (0..32).flat_map(|frame| (0..stages).map(move |stage| (frame, stage)));
    let span = |(frame, stage): (i64, i64)| protocol::Span {
        frame: frame.unsigned_abs(),
        stage: u32::try_from(stage).unwrap(),
        begin_ns: (frame + stage - 2) * 10_123_457,
        end_ns: (frame + stage - 1) * 10_123_457 - 400_000 * stage,
    };
    all.map(span).collect()
}

/// A report whose every name is an attack or at least a nuisance.
pub(super) fn hostile() -> Report {
    let mut report = zoo();
    report.networks.truncate(2);
    let name = r#"<script>alert("1")</script> & 'net' onload="x" </title></style>"#;
    let old = report.networks[0].name.clone();
    name.clone_into(&mut report.networks[0].name);
    for row in report.rows.iter_mut().filter(|row| row.network == old) {
        name.clone_into(&mut row.network);
        row.schedule = format!("{}<img src=x onerror=alert(2)>", row.schedule);
        for stage in &mut row.stages {
            "\"><svg onload=alert(3)>".clone_into(&mut stage.processor);
            "<b>".clone_into(&mut stage.first);
        }
    }
    let kept: BTreeSet<String> = report.networks.iter().map(|network| network.name.clone()).collect();
    report.rows.retain(|row| kept.contains(&row.network));
    report.run.command = vec!["<script>".to_owned(), "--\u{0}\u{7}".to_owned()];
    "a'b\"c<d>&".clone_into(&mut report.run.experiment);
    report
}

#[test]
fn nothing_on_a_page_comes_from_elsewhere() {
    for report in [Scenario::sound().report(), troubled(), zoo(), hostile(), with_energy()] {
        let page = page(&report);
        for forbidden in [
            "http:",
            "https:",
            "//",
            "<script",
            "@import",
            "<img",
            "url(data",
            "<iframe",
            "<link rel=\"style",
        ] {
            let found = page.contains(forbidden);
            assert!(!found, "{forbidden} in {}", around(&page, forbidden));
        }
        let urls: BTreeSet<&str> = page
            .match_indices("url(")
            .map(|(at, _)| page[at..].split_inclusive(')').next().unwrap())
            .collect();
        assert!(urls.iter().all(|url| url.starts_with("url(#")), "{urls:?}");
    }
}

fn around<'p>(page: &'p str, what: &str) -> &'p str {
    let at = page.find(what).unwrap_or(0);
    let begin = (at.saturating_sub(80)..=at).find(|place| page.is_char_boundary(*place)).unwrap_or(at);
    let end = (at + what.len()..page.len()).take(80).rfind(|place| page.is_char_boundary(*place));
    &page[begin..end.unwrap_or(at + what.len())]
}

#[test]
fn every_reference_within_a_page_leads_somewhere_and_names_are_unique() {
    for report in [Scenario::sound().report(), troubled(), zoo(), hostile(), with_energy()] {
        let page = page(&report);
        let values = |attribute: &str| -> Vec<String> {
            let parts = page.split(attribute).skip(1);
            parts.map(|part| part.split(['"', ')']).next().unwrap().to_owned()).collect()
        };
        let names = values(" id=\"");
        let unique: BTreeSet<&String> = names.iter().collect();
        assert_eq!(unique.len(), names.len(), "{names:?}");
        for reference in values("href=\"#").iter().chain(&values("url(#")).chain(&values("labelledby=\"")) {
            assert!(unique.contains(reference), "#{reference}");
        }
    }
}

#[test]
fn text_is_escaped_everywhere() {
    let page = page(&hostile());
    assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;"), "the name is shown as it is");
    for raw in ["<script", "<img", "<b>\"", "\"><svg onload", "</title></style>\"", "'net' onload=\""] {
        assert!(!page.contains(raw), "{}", around(&page, raw));
    }
    assert_eq!(page.matches("</style>").count(), 1);
    assert_eq!(page.matches("</title></style>").count(), 0);
}

/// Headings a reader can walk along: no level is left out.
#[test]
fn headings_are_in_order() {
    for report in [Scenario::sound().report(), troubled(), zoo(), with_energy()] {
        let page = page(&report);
        let levels: Vec<u8> = page
            .match_indices("<h")
            .filter_map(|(at, _)| page.as_bytes().get(at + 2).filter(|byte| byte.is_ascii_digit()))
            .map(|digit| digit - b'0')
            .collect();
        assert_eq!(page.matches("<h1").count(), 1);
        assert_eq!(levels[0], 1);
        for pair in levels.windows(2) {
            assert!(pair[1] <= pair[0] + 1, "h{} after h{}", pair[1], pair[0]);
        }
    }
}

#[test]
fn drawings_have_names_and_tables_have_captions() {
    for report in [Scenario::sound().report(), troubled(), zoo(), with_energy()] {
        let page = page(&report);
        for svg in page.split("<svg").skip(1).map(|rest| rest.split("</svg>").next().unwrap()) {
            let hidden = svg.contains("aria-hidden=\"true\"");
            assert!(hidden || (svg.contains("role=\"img\"") && svg.contains("<title>")), "{svg}");
        }
        for table in page.split("<table").skip(1) {
            assert!(table.contains("<caption>"), "{}", &table[..200.min(table.len())]);
        }
    }
}

#[test]
fn the_whole_zoo_is_less_than_half_a_megabyte() {
    let report = zoo();
    let page = page(&report);
    assert!(page.len() < 500_000, "{} bytes", page.len());
    let drawn = page.matches("<figure class=\"gantt\">").count();
    assert!(drawn >= report.networks.len(), "{drawn} timelines");
    // What is left out is said.
    assert!(drawn == report.timelines.len() || page.contains("not drawn"), "{drawn}");
}

#[test]
fn a_page_says_what_is_absent_and_what_does_not_count() {
    let page = page(&troubled());
    for said in [
        "No energy was measured</strong>: the board has no power meter configured",
        "This run is interrupted, not complete.",
        "none: git cannot be started",
        "<span class=\"chip\">void</span>",
        "What to do: ",
    ] {
        assert!(page.contains(said), "{said}");
    }
    let page = super::pages::page(&with_energy());
    assert!(!page.contains("No energy was measured") && page.contains("millijoules per frame"));
}

#[test]
fn a_void_pipeline_gives_no_headline() {
    let report = troubled();
    let page = page(&report);
    let findings: Vec<&str> =
        page.split("<p class=\"finding\">").skip(1).map(|rest| rest.split('<').next().unwrap()).collect();
    assert_eq!(findings.len(), 2, "{findings:?}");
    // The pipeline of resnet18 gave other outputs, so its replicate is told.
    assert!(findings.iter().any(|finding| finding.starts_with("Replicate")), "{findings:?}");
}

#[test]
fn timelines_are_those_of_the_typical_trials() {
    let (report, store, _place) = Scenario::sound().stored();
    let mut report = report;
    report.read_timelines(&store).unwrap();
    // A pipeline and a replicate of each of two networks.
    assert_eq!(report.timelines.len(), 4);
    for timeline in &report.timelines {
        let row = report.rows.iter().find(|row| row.place == timeline.place).unwrap();
        assert_eq!(Some(timeline.round), row.typical_round);
        assert!(timeline.spans.iter().all(|span| (span.stage as usize) < row.stages.len()));
        assert!(timeline.spans.is_sorted_by_key(|span| span.begin_ns));
    }
    assert_eq!(page(&report).matches("<figure class=\"gantt\">").count(), 4);
}
