//! What several boards did: boards that are compared, and equal boards that shared the rounds.

use super::Scenario;
use crate::CampaignReport;
use crate::Format;
use domain::FleetMode;
use std::collections::BTreeMap;
use std::path::Path;
use store::fixture::{self, Place};
use store::{CampaignRecord, Record, RunRecorder, Status};

/// Which trials a board has, by round and number of the schedule.
type Has = fn(u32, u32) -> bool;

/// A campaign on three boards, of which the third has no run; each has those trials.
fn campaign(mode: FleetMode, boards: [(&str, Has, f64); 2], failed: Option<&str>) -> CampaignReport {
    let place = Place::new();
    let store = place.open();
    let names = ["shelf-1", "shelf-2", "shelf-3"].map(str::to_owned).to_vec();
    let id = fixture::run_start_at(fixture::BEGUN).id;
    for (number, (board, has, slower)) in (0..).zip(boards) {
        let mut scenario = Scenario::sound();
        for schedule in 0..4 {
            scenario.slow_down(schedule, slower);
        }
        let mut start = fixture::run_start_at(fixture::BEGUN + number * 1_000_000_000);
        start.board = board.to_owned();
        start.campaign = Some(CampaignRecord { id: id.clone(), mode, boards: names.clone() });
        let mut recorder = RunRecorder::create(&store, &place.runs(), start).unwrap();
        for record in &scenario.records {
            let is_there = match record {
                Record::Trial(trial) => has(trial.round, trial.schedule),
                _ => true,
            };
            if is_there {
                recorder.record(record.clone()).unwrap();
            }
        }
        let end = fixture::BEGUN + 90_000_000_000;
        if failed == Some(board) {
            let reason = Some("failed to reach the board shelf-2 again within 60 s".to_owned());
            recorder.finish_because(Status::Failed, end, reason).unwrap();
        } else {
            recorder.finish(Status::Complete, end).unwrap();
        }
    }
    let lost = BTreeMap::from([("shelf-3".to_owned(), "failed to connect to shelf-3.lab".to_owned())]);
    CampaignReport::build(&store, id.as_str(), &lost).unwrap()
}

fn repeated() -> CampaignReport {
    campaign(FleetMode::Repeat, [("shelf-1", |_, _| true, 1.0), ("shelf-2", |_, _| true, 1.1)], None)
}

/// All rounds but the fourth on one board; that one on another, which was lost in the third.
fn spread() -> CampaignReport {
    let first: Has = |round, _| matches!(round, 0 | 1 | 2 | 4);
    let second: Has = |round, schedule| round == 3 || (round == 2 && schedule == 1);
    campaign(FleetMode::Spread, [("shelf-1", first, 1.0), ("shelf-2", second, 1.0)], Some("shelf-2"))
}

#[test]
fn boards_that_are_compared() {
    insta::assert_snapshot!(crate::render_campaign(&repeated(), Format::Terminal, false));
}

#[test]
fn boards_that_are_compared_in_markdown() {
    insta::assert_snapshot!(crate::render_campaign(&repeated(), Format::Markdown, false));
}

#[test]
fn boards_that_shared_the_rounds() {
    insta::assert_snapshot!(crate::render_campaign(&spread(), Format::Terminal, false));
}

#[test]
fn a_table_has_a_row_for_each_schedule_on_each_board() {
    let text = crate::render_campaign(&repeated(), Format::Csv, false);
    assert_eq!(text.lines().count(), 1 + 2 * 8);
    assert_eq!(text.lines().filter(|line| line.starts_with("shelf-2,")).count(), 8);
    let text = crate::render_campaign(&spread(), Format::Csv, false);
    assert_eq!(text.lines().count(), 1 + 8);
}

#[test]
fn a_slower_board_is_seen_with_its_interval() {
    let report = repeated();
    let of = |board: &str| report.boards.iter().find(|section| section.board == board).unwrap();
    // Only the first of two networks was made slower on it.
    let speed = of("shelf-2").speed.unwrap();
    assert!((speed - (1.0_f64 / 1.1).sqrt()).abs() < 0.01, "{speed}");
    for one in report.against.iter().filter(|one| one.board == "shelf-2") {
        let ratio = one.throughput.unwrap();
        let expected = if one.network == "resnet18" { 1.0 / 1.1 } else { 1.0 };
        assert!(ratio.lo.unwrap() < expected && expected < ratio.hi.unwrap(), "{one:?}");
    }
    assert_eq!(of("shelf-3").set_aside.as_deref(), Some("failed to connect to shelf-3.lab"));
    assert!(report.pooled.is_none() && report.reports.len() == 2);
}

#[test]
fn trials_of_all_boards_make_one_figure_and_gains_stay_within_rounds() {
    let report = spread();
    let pooled = report.pooled.as_ref().unwrap();
    assert_eq!(pooled.run.boards, ["shelf-1", "shelf-2"]);
    let alone = Scenario::sound().report();
    for (row, whole) in pooled.rows.iter().zip(&alone.rows) {
        // The part of a round that the lost board had begun counts besides.
        let trials = if row.place == 1 { 6 } else { 5 };
        assert_eq!((row.trials, row.trials_failed), (trials, 0), "{}", row.schedule);
        assert!(
            row.reasons.iter().all(|reason| reason.code != domain::ReasonCode::MissingTrials),
            "{:?}",
            row.reasons
        );
        let (ours, theirs) = (row.gain_over_best_single, whole.gain_over_best_single);
        match (ours, theirs) {
            (Some(ours), Some(theirs)) => assert!((ours / theirs - 1.0).abs() < 0.01),
            (ours, theirs) => assert_eq!(ours, theirs),
        }
    }
    let of = |board: &str| report.boards.iter().find(|section| section.board == board).unwrap();
    assert_eq!((of("shelf-1").rounds, of("shelf-2").rounds), (4, 2));
    let reason = of("shelf-2").set_aside.as_deref();
    assert_eq!(reason, Some("failed to reach the board shelf-2 again within 60 s"));
}

#[test]
fn a_board_that_is_slower_than_its_equals_is_told() {
    let boards = |slower| -> [(&'static str, Has, f64); 2] {
        [("shelf-1", |round, _| round < 3, 1.0), ("shelf-2", |round, _| round >= 3, slower)]
    };
    let said = |slower| {
        crate::render_campaign(&campaign(FleetMode::Spread, boards(slower), None), Format::Terminal, false)
    };
    assert!(!said(1.0).contains("is no equal"), "{}", said(1.0));
    // Only one of two networks is slower on it: half of the schedules, and then all.
    assert!(!said(1.1).contains("is no equal"), "{}", said(1.1));
    let mut slow = campaign(FleetMode::Spread, boards(1.1), None);
    slow.against.retain(|one| one.network == "resnet18");
    assert!(crate::render_campaign(&slow, Format::Terminal, false).contains("shelf-2 is not equal"));
}

/// `EDGEPIPE_WRITE_SCHEMAS=1 cargo test -p report schema_of_the_campaign_is_current` writes it anew.
#[test]
fn schema_of_the_campaign_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../results/campaign.schema.json");
    let current = crate::schema::<CampaignReport>();
    if std::env::var_os("EDGEPIPE_WRITE_SCHEMAS").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == current,
        "{} is not current; run\nEDGEPIPE_WRITE_SCHEMAS=1 cargo test -p report schema_of_the_campaign_is_current",
        path.display()
    );
}

#[test]
fn json_has_exactly_the_fields_of_the_schema() {
    let schema: serde_json::Value = serde_json::from_str(&crate::schema::<CampaignReport>()).unwrap();
    let names = |object: &serde_json::Value| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let json: serde_json::Value =
        serde_json::from_str(&crate::render_campaign(&spread(), Format::Json, false)).expect("JSON");
    assert_eq!(names(&json), names(&schema["properties"]));
    for (part, definition) in [
        (&json["campaign"], "CampaignSection"),
        (&json["boards"][1], "BoardSection"),
        (&json["against"][0], "Against"),
        (&json["pooled"], "Report"),
        (&json["reports"][0], "Report"),
    ] {
        assert_eq!(names(part), names(&schema["$defs"][definition]["properties"]), "{definition}");
    }
}
