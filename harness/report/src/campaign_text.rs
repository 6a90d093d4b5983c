//! The report on several boards as text.

use super::cells::{self, or_dash};
use super::terminal::wrapped;
use super::{csv, markdown, notes};
use crate::format::{Format, json, render as render_run};
use analysis::{BoardSection, CampaignReport};
use analysis::{Report, Row};
use domain::FleetMode;
use tabled::builder::Builder;
use tabled::settings::object::{Columns, Rows};
use tabled::settings::style::HorizontalLine;
use tabled::settings::{Alignment, Padding, Style};

/// Width of a report in columns.
const WIDTH: usize = 100;

pub(super) fn render(report: &CampaignReport, format: Format, wide: bool) -> String {
    match (format, &report.pooled) {
        (Format::Json, _) => json(report),
        (Format::Terminal, pooled) => {
            let whole =
                pooled.as_ref().map(|pooled| render_run(pooled, format, wide) + "\n").unwrap_or_default();
            whole + &terminal(report)
        }
        (Format::Markdown, pooled) => {
            let whole =
                pooled.as_ref().map(|pooled| render_run(pooled, format, wide) + "\n").unwrap_or_default();
            whole + &in_markdown(report)
        }
        (Format::Csv, None) => csv::render_all(report.reports.iter()),
        (_, Some(pooled)) => render_run(pooled, format, wide),
        // Refused before anything is measured.
        (_, None) => report.reports.iter().map(|one| render_run(one, format, wide)).collect(),
    }
}

fn heading(report: &CampaignReport) -> String {
    let campaign = &report.campaign;
    let day = campaign.begun.replacen('T', " ", 1);
    let day = day.get(..16).unwrap_or(&day);
    let what = match campaign.mode {
        FleetMode::Repeat => "each measures everything".to_owned(),
        FleetMode::Spread => format!("they shared {} rounds", campaign.rounds_planned),
    };
    let count = report.boards.len();
    format!("campaign {}: {}, {day} UTC, on {count} boards: {what}", campaign.id, campaign.experiment)
}

const BOARD: [&str; 8] = ["board", "ended", "rounds", "trials", "void", "failed", "speed", "run"];

fn boards(report: &CampaignReport) -> Vec<[String; 8]> {
    let first = report.boards.iter().find(|board| board.run.is_some()).map(|board| board.board.as_str());
    report
        .boards
        .iter()
        .map(|board| {
            let ended = match (&board.set_aside, &board.status) {
                (Some(_), _) => "set aside".to_owned(),
                (None, status) => or_dash(status.clone()),
            };
            let speed = match board.speed {
                Some(speed) => Some(format!("{speed:.2}×")),
                None => (first == Some(&board.board)).then(|| "1".to_owned()),
            };
            [
                board.board.clone(),
                ended,
                board.rounds.to_string(),
                board.trials.to_string(),
                board.trials_void.to_string(),
                board.trials_failed.to_string(),
                or_dash(speed),
                or_dash(board.run.clone()),
            ]
        })
        .collect()
}

const SCHEDULE: [&str; 7] =
    ["schedule", "board", "frames/s", "over\nfirst board", "gain over\nbest single", "mJ/frame", "verdict"];

/// Of a network, every schedule on every board, the boards beside each other.
fn schedules(report: &CampaignReport, network: &str) -> Vec<[String; 7]> {
    let mut rows: Vec<(u32, usize, &Row)> = Vec::new();
    for (board, of_board) in report.reports.iter().enumerate() {
        rows.extend(
            of_board.rows.iter().filter(|row| row.network == network).map(|row| (row.place, board, row)),
        );
    }
    rows.sort_by_key(|(place, board, _)| (*place, *board));
    let cells = |(_, _, row): &(u32, usize, &Row)| {
        let against = report.against.iter().find(|one| one.board == row.board && one.place == row.place);
        let ratio = against.and_then(|one| one.throughput.as_ref());
        [
            cells::label(row),
            row.board.clone(),
            or_dash(row.throughput_fps.as_ref().map(cells::with_precision)),
            or_dash(ratio.map(|ratio| cells::with_interval(ratio, "×"))),
            or_dash(cells::gain(row)),
            or_dash(row.energy_mj_per_frame.as_ref().map(cells::with_precision)),
            cells::verdict(row),
        ]
    };
    let mut all: Vec<[String; 7]> = rows.iter().map(cells).collect();
    for place in (1..all.len()).rev() {
        if all[place][0] == all[place - 1][0] {
            all[place][0].clear();
        }
    }
    all
}

fn networks(report: &CampaignReport) -> Vec<(&str, &Report)> {
    let mut found: Vec<(&str, &Report)> = Vec::new();
    for one in &report.reports {
        for network in &one.networks {
            if !found.iter().any(|(known, _)| *known == network.name) {
                found.push((&network.name, one));
            }
        }
    }
    found
}

/// The notes of all boards, each once, with the number of other boards that have it.
fn noted(report: &CampaignReport) -> Vec<String> {
    let mut found: Vec<(notes::Note, &str, usize)> = Vec::new();
    for one in report.reports.iter().filter(|_| report.pooled.is_none()) {
        for note in notes::notes(one) {
            let same = |(known, ..): &&mut (notes::Note, &str, usize)| {
                known.label == note.label && known.remedy == note.remedy
            };
            match found.iter_mut().find(same) {
                Some((_, board, others)) => *others += usize::from(*board != one.run.board),
                None => found.push((note, &one.run.board, 0)),
            }
        }
    }
    found.sort_by_key(|(note, ..)| note.label != "void");
    let sentence = |(note, board, others): (notes::Note, &str, usize)| {
        let others = match others {
            0 => String::new(),
            1 => ", and on 1 more board".to_owned(),
            others => format!(", and on {others} more boards"),
        };
        let remedy = if note.remedy.is_empty() { String::new() } else { format!("; {}", note.remedy) };
        format!("{}: {} on {board}{others}: {}{remedy}", note.label, note.place, note.text)
    };
    found.into_iter().map(sentence).collect()
}

/// Sentences about boards that were set aside, and where to find the rest.
fn sentences(report: &CampaignReport) -> Vec<String> {
    let mut sentences: Vec<String> = report
        .boards
        .iter()
        .filter_map(|board| Some(format!("{} was set aside: {}", board.board, board.set_aside.as_ref()?)))
        .collect();
    if report.campaign.mode == FleetMode::Spread && !sentences.is_empty() {
        let (measured, planned) = (report.campaign.rounds_measured, report.campaign.rounds_planned);
        sentences.push(format!(
            "the other boards took over their rounds, also unfinished ones: {measured} of {planned} rounds were measured"
        ));
    }
    if report.campaign.mode == FleetMode::Spread {
        sentences.extend(report.boards.iter().filter_map(|board| unlike(report, board)));
    }
    sentences.push(format!(
        "speed: frames/s relative to the first board, geometric mean over the schedules; for all figures and \
         notes of a board: `{} report --run RUN`",
        host::program()
    ));
    sentences
}

/// A warning if a board is significantly faster or slower than the first on most of its schedules: boards that share
/// rounds should be equal.
fn unlike(report: &CampaignReport, board: &BoardSection) -> Option<String> {
    let speed = board.speed?;
    let of_board = report.against.iter().filter(|one| one.board == board.board);
    let sides: Vec<bool> = of_board
        .filter_map(|one| {
            let ratio = one.throughput?;
            Some(if speed < 1.0 { ratio.hi? < 1.0 } else { ratio.lo? > 1.0 })
        })
        .collect();
    let different = sides.iter().filter(|is_different| **is_different).count();
    (different * 2 > sides.len()).then(|| {
        let (name, count) = (&board.board, sides.len());
        format!(
            "{name} is not equal to the first board: {speed:.2}× its frames/s, a significant difference on {different} of \
             {count} schedules; check its clocks, its cooling and other processes; gains are not affected, but intervals of \
             frames/s are wider"
        )
    })
}

fn terminal(report: &CampaignReport) -> String {
    let mut out = wrapped(&heading(report), WIDTH, 2);
    out += "\n";
    out += &table(BOARD.as_slice(), boards(report).iter().map(<[String; 8]>::as_slice), 2..7);
    if report.pooled.is_none() {
        for (network, of) in networks(report) {
            out.extend(["\n", network, " (", &cells::network(of, network), ")\n"]);
            let rows = schedules(report, network);
            out += &table(SCHEDULE.as_slice(), rows.iter().map(<[String; 7]>::as_slice), 2..6);
        }
    }
    out += "\n";
    for note in noted(report) {
        out += &wrapped(&note, WIDTH, 2);
        out += "\n";
    }
    out + &sentences(report).iter().map(|sentence| wrapped(sentence, WIDTH, 2)).collect::<String>()
}

fn table<'a>(
    header: &[&str],
    rows: impl Iterator<Item = &'a [String]>,
    numbers: std::ops::Range<usize>,
) -> String {
    let mut builder = Builder::default();
    builder.push_record(header.iter().copied());
    for row in rows {
        builder.push_record(row.iter().cloned());
    }
    let mut table = builder.build();
    table
        .with(Style::empty().horizontals([(1, HorizontalLine::new('─'))]))
        .with(Padding::new(0, 2, 0, 0))
        .modify(Columns::last(), Padding::zero())
        .modify(Columns::new(numbers), Alignment::right())
        .modify(Rows::first(), Alignment::bottom());
    table.to_string().lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

fn in_markdown(report: &CampaignReport) -> String {
    let mut out = format!("- {}\n\n", markdown::escaped(&heading(report)));
    out += &markdown_table(BOARD.as_slice(), boards(report).iter().map(<[String; 8]>::as_slice), 2..7);
    if report.pooled.is_none() {
        for (network, of) in networks(report) {
            let described = cells::network(of, network);
            out.extend(["\n### ", &markdown::escaped(network), "\n\n", &described, "\n\n"]);
            let rows = schedules(report, network);
            out += &markdown_table(SCHEDULE.as_slice(), rows.iter().map(<[String; 7]>::as_slice), 2..6);
        }
    }
    out += "\n";
    for sentence in noted(report).into_iter().chain(sentences(report)) {
        out.extend(["- ", &markdown::escaped(&sentence), "\n"]);
    }
    out
}

fn markdown_table<'a>(
    header: &[&str],
    rows: impl Iterator<Item = &'a [String]>,
    numbers: std::ops::Range<usize>,
) -> String {
    let mut out = format!("| {} |\n|", header.join(" | ").replace('\n', " "));
    for column in 0..header.len() {
        out += if numbers.contains(&column) { "--:|" } else { "---|" };
    }
    out += "\n";
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| markdown::escaped(cell)).collect();
        out.extend(["| ", &cells.join(" | "), " |\n"]);
    }
    out
}
