//! For reading: a line a run, each with its interval as a bar on one scale.

use super::texts;
use crate::terminal::wrapped;
use analysis::history::{Figure, History, Point, Segment, Series};
use std::fmt::Write as _;
use tabled::builder::Builder;
use tabled::settings::object::{Columns, Rows};
use tabled::settings::style::HorizontalLine;
use tabled::settings::{Alignment, Padding, Style};

/// Columns that paragraphs fit.
const WIDTH: usize = 100;
/// Characters of a bar.
const BAR: usize = 24;

/// The history as text without colours.
pub(super) fn render(history: &History) -> String {
    let mut out = String::new();
    for (place, series) in history.series.iter().enumerate() {
        if place > 0 {
            out += "\n";
        }
        // Writing to a String does not fail.
        let _ = writeln!(out, "{}", texts::title(history, series));
        for segment in &series.segments {
            if !segment.changed_conditions.is_empty() {
                let _ = writeln!(
                    out,
                    "not comparable with the runs above: {}",
                    segment.changed_conditions.join("; ")
                );
            }
            out += &wrapped(&texts::common(segment), WIDTH, 2);
            out += &table(history, series, segment);
        }
        for line in texts::left_out(series) {
            out += &wrapped(&line, WIDTH, 2);
        }
    }
    out + "\n" + &wrapped(&texts::legend(history), WIDTH, 0)
}

fn table(history: &History, series: &Series, segment: &Segment) -> String {
    let scale = Scale::of(series);
    let mut builder = Builder::default();
    let mut after: Vec<Vec<String>> = Vec::new();
    builder.push_record(["begun", "run", "revision", history.metric.unit(), &scale.heading()]);
    for point in &segment.points {
        builder.push_record([
            texts::begun(point),
            texts::short_run(point),
            texts::revision(point),
            texts::figure(&point.figure),
            scale.bar(point),
        ]);
        after.push(notes(history, point));
    }
    let mut table = builder.build();
    table
        .with(Style::empty().horizontals([(1, HorizontalLine::new('─'))]))
        .with(Padding::new(0, 2, 0, 0))
        .modify(Columns::last(), Padding::zero())
        .modify(Columns::new(3..4), Alignment::right())
        .modify(Rows::first(), Alignment::left());
    let text = table.to_string();
    let mut out = String::new();
    for (place, line) in text.lines().enumerate() {
        // Two lines of heading come first. What changed stands before the run with which it did.
        for note in place.checked_sub(2).and_then(|place| after.get(place)).into_iter().flatten() {
            let _ = writeln!(out, "    {note}");
        }
        let _ = writeln!(out, "  {}", line.trim_end());
    }
    out
}

fn notes(history: &History, point: &Point) -> Vec<String> {
    let mut notes: Vec<String> = texts::step(history, point).into_iter().collect();
    if !point.changed.is_empty() {
        notes.push(format!("changed: {}", point.changed.join("; ")));
    }
    notes
}

/// What the ends of a bar stand for.
struct Scale {
    least: f64,
    greatest: f64,
}

impl Scale {
    fn of(series: &Series) -> Self {
        // One bad run shall not press the others together.
        let points = || series.segments.iter().flat_map(|segment| &segment.points);
        let figures = || points().filter(|point| !point.outlying).map(|point| point.figure);
        // Neither shall an interval of two trials; its bar reaches both ends.
        let end =
            |figure: Figure, end: Option<f64>| end.filter(|_| !figure.is_too_wide()).unwrap_or(figure.point);
        let least = figures().map(|figure| end(figure, figure.lo)).fold(f64::INFINITY, f64::min);
        let greatest = figures().map(|figure| end(figure, figure.hi)).fold(0.0, f64::max);
        Self { least, greatest }
    }

    fn heading(&self) -> String {
        let (least, greatest) = (texts::number(self.least), texts::number(self.greatest));
        let room = BAR.saturating_sub(greatest.chars().count());
        format!("{least:<room$}{greatest}")
    }

    fn place(&self, value: f64) -> usize {
        let share = (value - self.least) / (self.greatest - self.least);
        if !share.is_finite() {
            return BAR / 2;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and BAR")]
        let place = (share.clamp(0.0, 1.0) * (BAR - 1) as f64).round() as usize;
        place
    }

    fn bar(&self, point: &Point) -> String {
        let Figure { point: figure, lo, hi, .. } = point.figure;
        let mut bar = [' '; BAR];
        if let (Some(lo), Some(hi)) = (lo, hi) {
            bar[self.place(lo)..=self.place(hi)].fill('─');
        }
        bar[self.place(figure)] = if point.outlying { '○' } else { '●' };
        bar.iter().collect()
    }
}
