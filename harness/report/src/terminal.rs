//! One table per network, for reading.

use super::cells::{self, or_dash};
use super::notes::{self, Note};
use super::streams;
use analysis::{Report, Row};
use tabled::builder::Builder;
use tabled::settings::object::{Columns, Rows};
use tabled::settings::style::HorizontalLine;
use tabled::settings::{Alignment, Padding, Style};

/// Width of a report in columns, unless `--wide` is given.
const WIDTH: usize = 100;
/// Labels are not broken into less.
const NARROWEST: usize = 8;
/// Room for labels in the table of streams.
const ROOM: usize = 22;

/// The report as text without colours.
pub(super) fn render(report: &Report, wide: bool) -> String {
    let mut out = cells::heading(report).iter().map(|line| wrapped(line, WIDTH, 2)).collect::<String>();
    let mut shown: Vec<&str> = Vec::new();
    for row in &report.rows {
        if shown.contains(&row.network.as_str()) {
            continue;
        }
        shown.push(&row.network);
        let rows: Vec<&Row> = report.rows.iter().filter(|other| other.network == row.network).collect();
        out.extend(["\n", &row.network, " (", &cells::network(report, &row.network), ")\n"]);
        out += &table(&rows, wide);
        let under_streams: Vec<&Row> = rows.into_iter().filter(|row| row.stream.is_some()).collect();
        if !under_streams.is_empty() {
            out.extend(["\n", &stream_table(&under_streams, wide)]);
        }
    }
    if report.rows.is_empty() {
        out += "\nno schedule was planned in this run\n";
    }
    out += &legend(report);
    for note in notes::notes(report) {
        out += "\n";
        out += &noted(&note);
    }
    let summary = cells::summary(report);
    if !summary.is_empty() {
        out += "\n";
        out += &summary.iter().map(|sentence| wrapped(sentence, WIDTH, 2)).collect::<String>();
    }
    out
}

/// The table of a network. Labels are broken if the table would be too wide.
fn table(rows: &[&Row], wide: bool) -> String {
    let mut room =
        rows.iter().flat_map(|row| cells::stage_lines(row)).map(|line| length(&line)).max().unwrap_or(0);
    loop {
        let text = table_with_labels(rows, wide, room);
        let widest = text.lines().map(length).max().unwrap_or(0);
        if wide || widest <= WIDTH || room <= NARROWEST {
            return text;
        }
        room = room.saturating_sub(widest - WIDTH).max(NARROWEST);
    }
}

fn table_with_labels(rows: &[&Row], wide: bool, room: usize) -> String {
    let mut builder = Builder::default();
    let gain = if wide { "gain over\nbest single" } else { "gain\nover best\nsingle" };
    let latency = "latency ms\np50 / p99";
    let header =
        ["schedule", "frames/s", gain, "predicted", "eff.", "busy", latency, "mJ/\nframe", "verdict"];
    builder.push_record(header);
    for row in rows {
        let (throughput, gain) = (row.throughput_fps.as_ref(), row.gain_over_best_single_interval.as_ref());
        let energy = row.energy_mj_per_frame.as_ref();
        let (label, busy, throughput, gain, energy) = if wide {
            (
                cells::label(row),
                cells::busy(row).join(" "),
                throughput.map(|interval| cells::with_interval(interval, "")),
                gain.map(|interval| cells::with_interval(interval, "×")),
                energy.map(|interval| cells::with_interval(interval, "")),
            )
        } else {
            let (label, busy) = label_and_busy(row, room);
            let energy = energy.map(|interval| cells::with_precision(interval).replacen(" ±", "\n±", 1));
            (label, busy, throughput.map(cells::with_precision), cells::gain(row), energy)
        };
        builder.push_record([
            label,
            or_dash(throughput),
            or_dash(gain),
            or_dash(cells::predicted(row)),
            or_dash(cells::efficiency(row)),
            busy,
            or_dash(cells::latency(row)),
            or_dash(energy),
            cells::verdict(row),
        ]);
    }
    drawn(builder, 1..8)
}

/// A table whose columns in `figures` are aligned to the right.
fn drawn(builder: Builder, figures: std::ops::Range<usize>) -> String {
    let mut table = builder.build();
    table
        .with(Style::empty().horizontals([(1, HorizontalLine::new('─'))]))
        .with(Padding::new(0, 2, 0, 0))
        .modify(Columns::last(), Padding::zero())
        .modify(Columns::new(figures), Alignment::right())
        .modify(Rows::first(), Alignment::bottom());
    let text = table.to_string();
    text.lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

/// Latency, drops and age of rows under a stream. Intervals are below their figures, unless the table may be wide.
fn stream_table(rows: &[&Row], wide: bool) -> String {
    let mut builder = Builder::default();
    builder.push_record(
        streams::COLUMNS.map(|name| if wide { name.to_owned() } else { name.replacen(' ', "\n", 1) }),
    );
    for row in rows {
        let mut cells = streams::cells(row);
        if !wide {
            cells[0] = broken_label(row);
            for cell in &mut cells[1..] {
                *cell = cell.replacen(" [", "\n[", 1).replacen(" (", "\n(", 1).replacen(", ", ",\n ", 1);
            }
        }
        builder.push_record(cells);
    }
    let mut out = drawn(builder, 1..streams::COLUMNS.len());
    for sentence in rows.iter().flat_map(|row| streams::sentences(row)) {
        out += &wrapped(&sentence, WIDTH, 2);
    }
    out
}

/// The stages, one a line, in lines that leave space for the figures.
fn broken_label(row: &Row) -> String {
    let lines = cells::stage_lines(row).into_iter().flat_map(|line| {
        let characters: Vec<char> = line.chars().collect();
        characters.chunks(ROOM).map(|part| part.iter().collect::<String>()).collect::<Vec<_>>()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The stages, one a line, each beside the share of time it works; a line that is too long is broken.
fn label_and_busy(row: &Row, room: usize) -> (String, String) {
    let (mut label, mut busy) = (Vec::new(), Vec::new());
    let shares = cells::busy(row).into_iter().chain(std::iter::repeat(String::new()));
    for (line, share) in cells::stage_lines(row).into_iter().zip(shares) {
        let characters: Vec<char> = line.chars().collect();
        let mut share = Some(share);
        for part in characters.chunks(room.max(1)) {
            label.push(part.iter().collect::<String>());
            busy.push(share.take().unwrap_or_default());
        }
    }
    (label.join("\n"), busy.join("\n"))
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Explains the columns.
fn legend(report: &Report) -> String {
    let mut out = String::new();
    if let Some(trials) = report.rows.iter().map(|row| row.trials).max() {
        let text = format!(
            "frames/s: median over the trials ± half of its interval (up to {trials} trials per schedule); predicted: \
             from the profiles, with its error; eff.: throughput over that of the slowest stage running alone; busy: \
             share of time in which each stage computes."
        );
        out += "\n";
        out += &wrapped(&text, WIDTH, 0);
    }
    for sentence in streams::legend(report) {
        out += &wrapped(&sentence, WIDTH, 2);
    }
    for reason in notes::energy(report) {
        out += &wrapped(&format!("mJ/frame was not measured: {reason}"), WIDTH, 2);
    }
    for sentence in notes::meter(report) {
        out += &wrapped(&sentence, WIDTH, 2);
    }
    out
}

fn noted(note: &Note) -> String {
    let remedy = if note.remedy.is_empty() { String::new() } else { format!("; {}", note.remedy) };
    wrapped(&format!("{}: {}: {}{remedy}", note.label, note.place, note.text), WIDTH, 2)
}

/// A paragraph wrapped to lines of at most this many characters, all but the first indented. Longer words are not split.
pub(crate) fn wrapped(text: &str, width: usize, indent: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            out += "\n";
            out += &" ".repeat(indent);
            used = indent;
        } else if used > 0 {
            out += " ";
            used += 1;
        }
        out += word;
        used += length;
    }
    out + "\n"
}
