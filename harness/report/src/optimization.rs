//! The result of `optimize` as text.

mod documents;
mod drawing;

use crate::cells;
use crate::csv::quoted;
use crate::format::json;
use crate::html::front as page;
use analysis::{FrontRow, Interval, Optimization};
use clap::ValueEnum;
use std::fmt::Write as _;
use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::style::HorizontalLine;
use tabled::settings::{Alignment, Padding, Style};

/// Formats of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OptimizeFormat {
    /// A drawing of the front and a table, for reading.
    Terminal,
    /// For documents and pull requests.
    Markdown,
    /// One row per measured schedule, for spreadsheets.
    Csv,
    /// For programs; the schema is results/optimization.schema.json.
    Json,
    /// One self-contained page with a drawing of the front, for a browser.
    Html,
    /// The table as a complete LaTeX document.
    Latex,
    /// The table alone, for `\input`.
    LatexTable,
}

/// The result as text that ends with a newline.
pub(super) fn render(result: &Optimization, format: OptimizeFormat) -> String {
    match format {
        OptimizeFormat::Terminal => terminal(result),
        OptimizeFormat::Markdown => documents::markdown(&parts(result)),
        OptimizeFormat::Csv => csv(result),
        OptimizeFormat::Json => json(result),
        OptimizeFormat::Html => page::render(result, &texts(result)),
        OptimizeFormat::Latex => crate::latex::document_of(&documents::latex(&parts(result))),
        OptimizeFormat::LatexTable => documents::latex(&parts(result)),
    }
}

/// A schedule with its marks: on the front, best, baseline.
struct Line<'a> {
    row: &'a FrontRow,
    on_front: bool,
    is_best: bool,
}

fn lines(result: &Optimization) -> Vec<Line<'_>> {
    let is_best = |row: &FrontRow| result.best.as_ref().is_some_and(|best| best.schedule == row.schedule);
    let mut rows: Vec<&FrontRow> = result.front.iter().collect();
    let others = result.best.iter().chain(result.closest.iter().map(|closest| &closest.point));
    for row in others.chain(&result.baselines) {
        if rows.iter().all(|known| known.schedule != row.schedule) {
            rows.push(row);
        }
    }
    let front = result.front.len();
    let line = |(at, row)| Line { row, on_front: at < front, is_best: is_best(row) };
    rows.into_iter().enumerate().map(line).collect()
}

/// Those of the table, and then all other measured schedules.
fn all_lines(result: &Optimization) -> Vec<Line<'_>> {
    let mut lines = lines(result);
    for row in &result.others {
        if lines.iter().all(|line| line.row.schedule != row.schedule) {
            lines.push(Line { row, on_front: false, is_best: false });
        }
    }
    lines
}

/// What the drawing shows of each schedule whose energy is known.
fn marks(result: &Optimization) -> Vec<drawing::Mark> {
    let mark = |line: &Line<'_>| {
        let sign = match line {
            Line { is_best: true, .. } => drawing::Sign::Best,
            Line { on_front: true, .. } => drawing::Sign::Front,
            Line { .. } => drawing::Sign::Other,
        };
        let energy_mj_per_frame = line.row.energy_mj_per_frame?.point;
        Some(drawing::Mark { throughput_fps: line.row.throughput_fps.point, energy_mj_per_frame, sign })
    };
    all_lines(result).iter().filter_map(mark).collect()
}

fn terminal(result: &Optimization) -> String {
    let mut out = format!(
        "{} on {}: {}\nrun {}, {}; {} schedules measured",
        result.network, result.board, result.objective, result.run, result.status, result.schedules_measured
    );
    if result.schedules_void > 0 {
        let _ = write!(out, ", {} void", result.schedules_void);
    }
    out += "\n";
    if let Some(reason) = &result.void_reason {
        let _ = writeln!(out, "void, for example {reason}");
    }
    out += "\n";
    let drawing = drawing::draw(&marks(result));
    if !drawing.is_empty() {
        out.extend([&drawing, "\n"]);
    }
    out += &table(result);
    out.extend([legend(result), "\n"]);
    if let Some(point) = operating_point(result) {
        let _ = writeln!(out, "operating point: {point}");
    }
    out += &model(result);
    out += "\n";
    out += &conclusion(result);
    out
}

/// Settings of the board during the run. If it has several operating points, the names of the schedules have them.
fn operating_point(result: &Optimization) -> Option<String> {
    let point = &result.front.first()?.operating_point;
    if point.label.is_some() {
        return None;
    }
    let part = |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("{name} {value}"));
    let parts: Vec<String> = [part("power mode", &point.power_mode), part("governor", &point.governor)]
        .into_iter()
        .flatten()
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// What a page says besides the figures.
fn texts(result: &Optimization) -> page::Texts {
    let heading = match &result.best {
        Some(best) => {
            let energy = best.energy_mj_per_frame;
            let energy =
                energy.map(|mj| format!(" with {} mJ/frame", cells::number(mj.point))).unwrap_or_default();
            format!("{} reaches {} frames/s{energy}", best.schedule, cells::number(best.throughput_fps.point))
        }
        None if result.closest.is_some() => "No schedule meets the requirement".to_owned(),
        None if result.not_judged_reason.is_some() => {
            "No schedule could be chosen: no trial has energy".to_owned()
        }
        None => format!("{} schedules are best in throughput and energy", result.front.len()),
    };
    page::Texts { heading, sentences: sentences(result), operating_point: operating_point(result) }
}

/// Power model and conclusion.
fn sentences(result: &Optimization) -> Vec<String> {
    let texts = [model(result), conclusion(result)];
    texts.iter().flat_map(|text| text.lines()).map(str::to_owned).collect()
}

/// The table for documents.
fn parts(result: &Optimization) -> documents::Parts {
    let Optimization { network, board, objective, run, status, schedules_measured, .. } = result;
    documents::Parts {
        caption: format!(
            "{network} on {board}: {objective}; run {run}, {status}, {schedules_measured} schedules measured"
        ),
        run: run.clone(),
        operating_point: operating_point(result),
        headings: HEADINGS,
        records: records(result),
        legend: legend(result),
        sentences: sentences(result),
    }
}

const HEADINGS: [&str; 8] = ["", "schedule", "frames/s", "predicted", "mJ/frame", "predicted", "W", "trials"];

/// The cells of the table, by line.
fn records(result: &Optimization) -> Vec<[String; 8]> {
    let record = |line: &Line<'_>| {
        let row = line.row;
        let watts = row.energy_mj_per_frame.map(|energy| energy.point * row.throughput_fps.point / 1000.0);
        let number = |value: Option<f64>| cells::or_dash(value.map(cells::number));
        [
            if line.on_front { "*".to_owned() } else { String::new() },
            row.schedule.clone(),
            cells::with_precision(&row.throughput_fps),
            number(row.predicted_fps),
            cells::or_dash(row.energy_mj_per_frame.as_ref().map(cells::with_precision)),
            number(row.predicted_mj_per_frame),
            number(watts),
            row.trials.to_string(),
        ]
    };
    lines(result).iter().map(record).collect()
}

/// What `*` means.
fn legend(result: &Optimization) -> &'static str {
    // Without energy, the front is the fastest schedule alone.
    if result.front.iter().any(|row| row.energy_mj_per_frame.is_some()) {
        "* on the front: no other measured schedule is better in both throughput and energy"
    } else {
        "* the fastest measured schedule"
    }
}

fn table(result: &Optimization) -> String {
    let mut builder = Builder::default();
    builder.push_record(HEADINGS);
    for record in records(result) {
        builder.push_record(record);
    }
    let mut table = builder.build();
    table
        .with(Style::empty().horizontals([(1, HorizontalLine::new('─'))]))
        .with(Padding::new(0, 2, 0, 0))
        .modify(Columns::new(2..), Alignment::right());
    let text = table.to_string();
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// The power model, or why there is none.
fn model(result: &Optimization) -> String {
    let Some(model) = &result.power_model else {
        return match &result.energy_absent_reason {
            Some(reason) => format!("energy: {reason}\n"),
            None => String::new(),
        };
    };
    let dynamic: Vec<String> = model
        .dynamic_mw
        .iter()
        .map(|(name, milliwatts)| format!("{name} {} mW while it works", cells::number(*milliwatts)))
        .collect();
    let left_out = model
        .left_out_error
        .map(|share| format!("; error for schedules left out of the fit {:.1} %", 100.0 * share))
        .unwrap_or_default();
    format!(
        "power model: idle {} mW, {}; residual {} mW{left_out}\n",
        cells::number(model.idle_mw),
        dynamic.join(", "),
        cells::number(model.residual_mw)
    )
}

fn conclusion(result: &Optimization) -> String {
    if let Some(best) = &result.best {
        let mut out =
            format!("best: {}, {}", best.schedule, cells::with_interval(&best.throughput_fps, " frames/s"));
        if let Some(energy) = &best.energy_mj_per_frame {
            let _ = write!(out, ", {}", cells::with_interval(energy, " mJ/frame"));
        }
        out += "\n";
        if result.certain == Some(false) {
            out += "its figures meet the requirement, but its intervals include values that miss it; measure more trials (--trials)\n";
        }
        if let Some(gain) = &result.throughput_gain {
            let _ = writeln!(
                out,
                "frames/s over the fastest single processor: {}",
                cells::with_interval(gain, "×")
            );
        }
        let over_default = |what: &str, gain: &Option<Interval>| {
            let gain = gain.as_ref().map(|gain| cells::with_interval(gain, "×"));
            gain.map(|gain| format!("{what} over the best at the board's own operating point: {gain}\n"))
        };
        if let Some(gain) = &result.energy_gain {
            let _ = writeln!(
                out,
                "frames per joule over the most efficient single processor: {}",
                cells::with_interval(gain, "×")
            );
        }
        out.extend(over_default("frames/s", &result.throughput_gain_over_default_point));
        out.extend(over_default("frames per joule", &result.energy_gain_over_default_point));
        if !result.commands.is_empty() {
            let _ = write!(
                out,
                "to set the operating point of the best schedule by hand:\n  {}\n",
                result.commands.join("\n  ")
            );
        }
        return out;
    }
    match &result.closest {
        Some(closest) => {
            format!(
                "no schedule meets the requirement; the closest is {}: {}\n",
                closest.point.schedule, closest.text
            )
        }
        None if result.front.is_empty() => "no schedule has a valid trial\n".to_owned(),
        None => match &result.not_judged_reason {
            Some(reason) => format!(
                "no schedule can be chosen by {}: {reason}; the fastest schedule is shown instead\n",
                result.objective
            ),
            None => String::new(),
        },
    }
}

const COLUMNS: [&str; 21] = [
    "board",
    "network",
    "schedule",
    "kind",
    "processors",
    "power_mode",
    "governor",
    "operating_point",
    "on_front",
    "best",
    "throughput_fps",
    "throughput_fps_lo",
    "throughput_fps_hi",
    "energy_mj_per_frame",
    "energy_mj_per_frame_lo",
    "energy_mj_per_frame_hi",
    "predicted_fps",
    "predicted_mj_per_frame",
    "predicted_mj_per_frame_lo",
    "predicted_mj_per_frame_hi",
    "trials",
];

fn csv(result: &Optimization) -> String {
    let mut out = COLUMNS.join(",") + "\n";
    for line in all_lines(result) {
        let row = line.row;
        let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let ends = |interval: Option<Interval>| {
            let (lo, hi) =
                (interval.and_then(|interval| interval.lo), interval.and_then(|interval| interval.hi));
            [number(interval.map(|interval| interval.point)), number(lo), number(hi)]
        };
        let mut cells = vec![
            result.board.clone(),
            result.network.clone(),
            row.schedule.clone(),
            row.kind.to_string(),
            row.processors.join(" "),
            row.operating_point.power_mode.clone().unwrap_or_default(),
            row.operating_point.governor.clone().unwrap_or_default(),
            row.operating_point.label.clone().unwrap_or_default(),
            line.on_front.to_string(),
            line.is_best.to_string(),
        ];
        cells.extend(ends(Some(row.throughput_fps)));
        cells.extend(ends(row.energy_mj_per_frame));
        cells.push(number(row.predicted_fps));
        // The point is given where there is no interval too.
        let [_, lo, hi] = ends(row.predicted_mj_per_frame_interval);
        cells.extend([number(row.predicted_mj_per_frame), lo, hi, row.trials.to_string()]);
        let cells: Vec<String> = cells.iter().map(|cell| quoted(cell)).collect();
        out += &(cells.join(",") + "\n");
    }
    out
}
