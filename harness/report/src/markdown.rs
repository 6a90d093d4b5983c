//! For documents and pull requests.

use super::cells::{self, or_dash};
use super::{notes, peers, streams};
use analysis::{Report, Row};

const COLUMNS: [&str; 9] = [
    "schedule",
    "frames/s",
    "gain over best single",
    "predicted",
    "efficiency",
    "busy",
    "latency ms p50 / p99",
    "mJ/frame",
    "verdict",
];

/// The report as GitHub's Markdown.
pub(super) fn render(report: &Report) -> String {
    let mut out = String::new();
    for line in cells::heading(report) {
        out.extend(["- ", &escaped(&line), "\n"]);
    }
    let mut network = None;
    for row in &report.rows {
        if network != Some(&row.network) {
            network = Some(&row.network);
            let described = cells::network(report, &row.network);
            out.extend(["\n### ", &escaped(&row.network), "\n\n", &described, "\n\n"]);
            out += &line(&COLUMNS.map(str::to_owned));
            out += "|---|--:|--:|--:|--:|--:|--:|--:|---|\n";
        }
        out += &line(&record(row));
    }
    if let Some(table) = peers::table(report) {
        out += "\n### Compared with other inference engines\n\n";
        for (place, cells) in table.iter().enumerate() {
            let cells: Vec<String> = cells.iter().map(|cell| escaped(cell)).collect();
            out.extend(["| ", &cells.join(" | "), " |\n"]);
            if place == 0 {
                out.extend(["|---|", &"--:|".repeat(cells.len() - 1), "\n"]);
            }
        }
    }
    out += &stream_table(report);
    let energy = notes::energy(report);
    let notes = notes::notes(report);
    let meter = notes::meter(report);
    if !notes.is_empty() || !energy.is_empty() || !meter.is_empty() {
        out += "\n";
    }
    for reason in energy {
        out.extend(["- mJ/frame was not measured: ", &escaped(reason), "\n"]);
    }
    for sentence in meter {
        out.extend(["- ", &escaped(&sentence), "\n"]);
    }
    for note in notes {
        let remedy =
            if note.remedy.is_empty() { String::new() } else { format!("; {}", escaped(&note.remedy)) };
        let (place, text) = (escaped(&note.place), escaped(&note.text));
        out.extend(["- **", note.label, "** ", &place, ": ", &text, &remedy, "\n"]);
    }
    for sentence in cells::summary(report) {
        out.extend(["\n**", &escaped(&sentence), "**\n"]);
    }
    out
}

/// Latency, drops and age of rows under a stream; empty without one.
fn stream_table(report: &Report) -> String {
    let rows = streams::rows(report);
    if rows.is_empty() {
        return String::new();
    }
    let mut out = "\n### Latency of the stream\n\n".to_owned();
    out.extend(["| network | ", &streams::COLUMNS.join(" | "), " |\n|---|---|", &"--:|".repeat(8), "\n"]);
    for row in &rows {
        let cells = streams::cells(row).map(|cell| escaped(&cell));
        out.extend(["| ", &escaped(&row.network), " | ", &cells.join(" | "), " |\n"]);
    }
    out += "\n";
    for sentence in rows.iter().flat_map(|row| streams::sentences(row)).chain(streams::legend(report)) {
        out.extend(["- ", &escaped(&sentence), "\n"]);
    }
    out
}

fn record(row: &Row) -> [String; 9] {
    let interval = |interval: &analysis::Interval, unit| cells::with_interval(interval, unit);
    let cells = [
        cells::label(row),
        or_dash(row.throughput_fps.as_ref().map(|fps| interval(fps, ""))),
        or_dash(row.gain_over_best_single_interval.as_ref().map(|gain| interval(gain, "×"))),
        or_dash(cells::predicted(row)),
        or_dash(cells::efficiency(row)),
        cells::busy(row).join(", "),
        or_dash(cells::latency(row)),
        or_dash(row.energy_mj_per_frame.as_ref().map(|energy| interval(energy, ""))),
        cells::verdict(row),
    ];
    cells.map(|cell| escaped(&cell))
}

fn line(cells: &[String; 9]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// Text that Markdown shows unchanged, on one line; code in backticks stays code.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '|' | '<' | '*' | '\\' => out.extend(['\\', character]),
            '\n' | '\r' => out.push(' '),
            other => out.push(other),
        }
    }
    // Brackets are common here, links are not meant.
    out.replace("](", "]\\(")
}
