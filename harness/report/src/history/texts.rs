//! Cells and sentences of a history, and the formats that consist of them alone.

use crate::csv::quoted;
use crate::markdown::escaped;
use analysis::history::{Figure, History, Point, Segment, Series};
use std::fmt::Write as _;

const ABSENT: &str = "–";

/// Three significant digits, or all before the point.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// `49.5 ± 1.2 %`, or `49.5 ± ?` if the interval is wider than the figure.
pub(super) fn figure(figure: &Figure) -> String {
    let point = number(figure.point);
    match (figure.lo, figure.hi) {
        (Some(_), Some(_)) if figure.is_too_wide() => format!("{point} ± ?"),
        (Some(lo), Some(hi)) => format!("{point} ± {:.1} %", 50.0 * (hi - lo) / figure.point),
        _ => point,
    }
}

/// To the minute.
pub(super) fn begun(point: &Point) -> String {
    point.begun.chars().take(16).map(|character| if character == 'T' { ' ' } else { character }).collect()
}

/// The random part of a run's name, which identifies it on the command line.
pub(super) fn short_run(point: &Point) -> String {
    point.run.rsplit('-').next().unwrap_or(&point.run).to_owned()
}

/// The short commit, with a star if there were uncommitted changes.
pub(super) fn revision(point: &Point) -> String {
    let Some(commit) = &point.revision else { return ABSENT.to_owned() };
    let short: String = commit.chars().take(9).collect();
    short + if point.dirty == Some(true) { "*" } else { "" }
}

pub(super) fn title(history: &History, series: &Series) -> String {
    let kind =
        if series.schedule == series.kind.as_str() { String::new() } else { format!(" ({})", series.kind) };
    let (network, unit) = (&history.network, history.metric.unit());
    format!("{network} on {}: {}{kind}, {unit}", series.board, series.schedule)
}

/// The conditions of a segment.
pub(super) fn common(segment: &Segment) -> String {
    let known = segment.conditions.iter().filter_map(|condition| {
        let value = condition.value.as_ref()?;
        Some(match condition.name.as_str() {
            "model" | "CPU" | "architecture" | "processors" => value.clone(),
            name => format!("{name} {value}"),
        })
    });
    let mut text = known.collect::<Vec<_>>().join(", ");
    if let Some(noise) = segment.noise.filter(|_| segment.points.len() > 3) {
        let _ = write!(
            text,
            "; spread between runs, beyond what their intervals explain: {:.1} %",
            100.0 * noise
        );
    }
    text
}

/// The description of a step.
pub(super) fn step(history: &History, point: &Point) -> Option<String> {
    let step = point.step?;
    let percent = |ratio: f64| format!("{:+.1}", 100.0 * (ratio - 1.0)).replace('-', "−");
    let (sign, word) = if step.better { ('▲', "better") } else { ('▼', "worse") };
    Some(format!(
        "{sign} {word}: {} % ({} to {}), now at {} {}",
        percent(step.ratio),
        percent(step.lo),
        percent(step.hi),
        number(point.level),
        history.metric.unit()
    ))
}

/// One line per reason.
pub(super) fn left_out(series: &Series) -> Vec<String> {
    let mut reasons: Vec<&str> = series.left_out.iter().map(|run| run.reason.as_str()).collect();
    reasons.dedup();
    let runs = |reason: &str| -> Vec<&str> {
        let of_reason = series.left_out.iter().filter(|run| run.reason == reason);
        of_reason.map(|run| run.run.as_str()).collect()
    };
    let line = |reason: &&str| {
        let runs = runs(reason);
        let (shown, more) = runs.split_at(runs.len().min(3));
        let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        format!("left out ({reason}): {}{more}", shown.join(", "))
    };
    reasons.sort_unstable();
    reasons.dedup();
    reasons.iter().map(line).collect()
}

pub(super) fn legend(history: &History) -> String {
    let points =
        history.series.iter().flat_map(|series| &series.segments).map(|segment| segment.points.len());
    let few = points.max().unwrap_or(0) < 4;
    let mut text = format!(
        "Median over the trials of each run, ± half of its {:.0} % interval; * marks uncommitted changes.",
        100.0 * history.confidence
    );
    let mut points =
        history.series.iter().flat_map(|series| &series.segments).flat_map(|segment| &segment.points);
    if points.any(|point| point.figure.is_too_wide()) {
        text += " ?: too few trials; the interval is wider than the figure.";
    }
    if few {
        text += " Steps are detected only among four or more comparable runs.";
    } else {
        let _ = write!(
            text,
            " A step is marked with a false-alarm probability of {:.0} % per series; ○ marks an outlier that both \
             neighbouring runs contradict.",
            100.0 * history.false_alarms
        );
    }
    text
}

/// For documents and pull requests.
pub(super) fn markdown(history: &History) -> String {
    let mut out = String::new();
    for series in &history.series {
        let _ = writeln!(out, "### {}\n", escaped(&title(history, series)));
        for segment in &series.segments {
            if !segment.changed_conditions.is_empty() {
                let changed = escaped(&segment.changed_conditions.join("; "));
                let _ = writeln!(out, "**Not comparable with the runs above:** {changed}\n");
            }
            let _ = writeln!(out, "{}\n", escaped(&common(segment)));
            let _ = writeln!(out, "| begun | run | revision | {} | step | changed |", history.metric.unit());
            out += "|---|---|---|--:|---|---|\n";
            for point in &segment.points {
                let outlying = if point.outlying { "○ outlier" } else { "" };
                let cells = [
                    begun(point),
                    short_run(point),
                    revision(point),
                    figure(&point.figure),
                    step(history, point).unwrap_or_else(|| outlying.to_owned()),
                    point.changed.join("; "),
                ];
                let _ = writeln!(out, "| {} |", cells.map(|cell| escaped(&cell)).join(" | "));
            }
            out += "\n";
        }
        for line in left_out(series) {
            let _ = writeln!(out, "- {}\n", escaped(&line));
        }
    }
    out + &escaped(&legend(history)) + "\n"
}

/// One row per run.
pub(super) fn csv(history: &History) -> String {
    let mut out =
        "network,board,schedule,kind,segment,run,begun,revision,dirty,measure,unit,value,lo,hi,trials,level,\
                   outlying,step_ratio,step_lo,step_hi,changed_conditions,changed\n"
            .to_owned();
    for series in &history.series {
        for (place, segment) in series.segments.iter().enumerate() {
            for (of_segment, point) in segment.points.iter().enumerate() {
                let changed =
                    if of_segment == 0 { segment.changed_conditions.join("; ") } else { String::new() };
                let step = |value: fn(analysis::history::Step) -> f64| optional(point.step.map(value));
                let cells = [
                    history.network.clone(),
                    series.board.clone(),
                    point.schedule.clone(),
                    series.kind.to_string(),
                    (place + 1).to_string(),
                    point.run.clone(),
                    point.begun.clone(),
                    point.revision.clone().unwrap_or_default(),
                    point.dirty.map(|dirty| dirty.to_string()).unwrap_or_default(),
                    history.metric.short_name().to_owned(),
                    history.metric.unit().to_owned(),
                    point.figure.point.to_string(),
                    optional(point.figure.lo),
                    optional(point.figure.hi),
                    point.figure.trials.to_string(),
                    point.level.to_string(),
                    point.outlying.to_string(),
                    step(|step| step.ratio),
                    step(|step| step.lo),
                    step(|step| step.hi),
                    changed,
                    point.changed.join("; "),
                ];
                let _ = writeln!(out, "{}", cells.map(|cell| quoted(&cell)).join(","));
            }
        }
    }
    out
}

fn optional(value: Option<f64>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}
