//! Figures as cells of tables.

use analysis::{Interval, Report, Row};
use domain::{ScheduleKind, Validity};

/// Stands where nothing was measured.
pub(super) const ABSENT: &str = "–";

/// A cell, or a dash.
pub(super) fn or_absent(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| ABSENT.to_owned())
}

/// A number with three significant digits or all before the point.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A number and half its interval's width in percent: `94.1 ± 0.6 %`.
pub(super) fn with_precision(interval: &Interval) -> String {
    let point = number(interval.point);
    match interval.precision() {
        Some(precision) => format!("{point} ± {} %", percent_digits(100.0 * precision)),
        None => point,
    }
}

/// A number and its interval: `94.1 [93.5, 94.7]`.
pub(super) fn with_ends(interval: &Interval, unit: &str) -> String {
    let point = format!("{}{unit}", number(interval.point));
    match interval.lo.zip(interval.hi) {
        Some((lo, hi)) => format!("{point} [{}, {}]", number(lo), number(hi)),
        None => point,
    }
}

/// Percent without more digits than they are worth.
fn percent_digits(percent: f64) -> String {
    if percent >= 9.95 { format!("{percent:.0}") } else { format!("{percent:.1}") }
}

/// The gain over the best single processor: `1.93×`.
pub(super) fn gain(row: &Row) -> Option<String> {
    row.gain_over_best_single.map(|gain| format!("{gain:.2}×"))
}

/// Predicted frames a second and how far that is off: `97.1 (+3 %)`, or `97.1 (3.5×)` where it is twice the measured
/// ones or more.
pub(super) fn predicted(row: &Row) -> Option<String> {
    let fps = number(row.predicted_fps?);
    Some(match row.prediction_error {
        Some(error) if error >= 0.995 => format!("{fps} ({:.1}×)", error + 1.0),
        Some(error) => format!("{fps} ({:+.0} %)", 100.0 * error),
        None => fps,
    })
}

/// Latency in ms: `20.9 / 21.3`.
pub(super) fn latency(row: &Row) -> Option<String> {
    row.latency_ms.map(|latency| format!("{} / {}", number(latency.p50), number(latency.p99)))
}

/// Efficiency as a share: `0.98`.
pub(super) fn efficiency(row: &Row) -> Option<String> {
    row.pipeline_efficiency.map(|share| format!("{share:.2}"))
}

/// Share of time each stage was busy, in percent.
pub(super) fn busy(row: &Row) -> Vec<String> {
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    row.stages.iter().map(|stage| or_absent(stage.busy.map(percent))).collect()
}

/// The stages, one a line: `cpu0[0..12]`, `> cpu1[12..21]`.
pub(super) fn stage_lines(row: &Row) -> Vec<String> {
    if row.peer.is_some() {
        return peer_lines(row);
    }
    let separator = if row.kind == ScheduleKind::Replicate { " | " } else { " > " };
    let parts = row.schedule.split(separator);
    let line = |(place, part): (usize, &str)| {
        if place == 0 { part.to_owned() } else { format!("{}{part}", separator.trim_start()) }
    };
    parts.enumerate().map(line).collect()
}

/// The label of a peer in two lines, `onnxruntime,` and `2 threads`; a line more for each session after the second.
fn peer_lines(row: &Row) -> Vec<String> {
    let sessions = row.peer_sessions.unwrap_or(1);
    let (engine, threads) = row.schedule.split_once(", ").unwrap_or((&row.schedule, ""));
    let others = (2..sessions).map(|session| format!("#{}", session + 1));
    [format!("{engine},"), threads.to_owned()].into_iter().chain(others).collect()
}

/// Validity as a word.
pub(super) fn verdict(row: &Row) -> String {
    let word = match row.verdict {
        Validity::Valid => "valid",
        Validity::Void => "void",
    };
    word.to_owned()
}

/// Parameters or multiply-adds: `11.7 M`.
pub(super) fn quantity(count: u64) -> String {
    match count as f64 {
        count if count >= 1e9 => format!("{} G", number(count / 1e9)),
        count if count >= 1e6 => format!("{} M", number(count / 1e6)),
        count if count >= 1e3 => format!("{} k", number(count / 1e3)),
        count => format!("{count:.0}"),
    }
}

/// Which run it is, on which machine, when, what was asked of it: lines without an end.
pub(super) fn heading(report: &Report) -> Vec<String> {
    let (run, machine) = (&report.run, &report.measured_on);
    let models: Vec<&str> = [&machine.model, &machine.cpu].into_iter().filter_map(Option::as_deref).collect();
    let models = if models.is_empty() { String::new() } else { format!(" ({})", models.join(", ")) };
    let day = run.begun.replacen('T', " ", 1);
    let day = day.get(..16).unwrap_or(&day);
    let governor = machine
        .governor
        .as_deref()
        .map_or_else(|| "governor unknown".to_owned(), |governor| format!("governor {governor}"));
    let revision = run.revision.as_deref().map_or_else(
        || {
            run.revision_absent
                .as_deref()
                .map_or_else(|| "no git revision".to_owned(), |why| format!("no git revision ({why})"))
        },
        |commit| {
            let changed = if run.dirty == Some(true) { " with changes" } else { "" };
            format!("revision {}{changed}", commit.get(..12).unwrap_or(commit))
        },
    );
    let processors: Vec<String> = machine
        .processors
        .iter()
        .map(|processor| {
            let cpus: Vec<String> = processor.cpus.iter().map(ToString::to_string).collect();
            format!("{} = CPU {}", processor.name, cpus.join(","))
        })
        .collect();
    let (whole, board) = match run.boards.as_slice() {
        [] => ("run", run.board.clone()),
        boards => ("campaign", format!("{} equal boards", boards.len())),
    };
    let mut lines = vec![
        format!("{whole} {}: {}, {}, {day} UTC", run.id, run.experiment, run.status),
        format!("on {board}{models}: kernel {}, {governor}; {}", machine.kernel, processors.join(", ")),
        format!(
            "TVM {}, harness {}, {revision}, analysis {}; intervals of {:.0} %",
            run.tvm.as_deref().unwrap_or("unknown"),
            run.harness,
            report.analysis_version,
            100.0 * report.confidence
        ),
    ];
    if let Some(reason) = &run.ended_because {
        lines.push(format!("this run is {}: {reason}", run.status));
    }
    if let Some(state) = &machine.state {
        lines.push(format!(
            "state asked for: {}; set: {}; found before: {}",
            state.asked, state.set, state.found
        ));
        if let Some(by) = &state.leftover_of {
            lines.push(format!("the board was first restored from what another session had left: {by}"));
        }
    } else if let Some(mode) = &machine.power_mode {
        lines.push(format!("power mode {mode}, as it was found"));
    }
    if !machine.left_out.is_empty() {
        lines.push(format!(
            "left out of all schedules: {} (this version has no engine for CUDA)",
            machine.left_out.join(", ")
        ));
    }
    if let Some(injected) = &run.injected {
        lines.insert(0, format!("NOT TO BE PUBLISHED: {injected} on purpose (`inject`)"));
    }
    if let Some((asked, reached)) = run.precision_asked.zip(run.precision_reached) {
        let asked = percent_digits(100.0 * asked);
        let reached = if reached { "reached" } else { "not reached; the notes say where" };
        lines.push(format!("intervals of ±{asked} % were asked for: {reached}"));
    }
    lines
}

/// What a network is, in one line.
pub(super) fn network(report: &Report, name: &str) -> String {
    match report.networks.iter().find(|network| network.name == name) {
        Some(network) => format!(
            "{} parameters, {} multiply-adds, {} units",
            quantity(network.parameters),
            quantity(network.macs),
            network.units
        ),
        None => String::new(),
    }
}

/// Whether the machine was a noisy one, and what follows.
fn noise(report: &Report) -> Option<String> {
    let noise = report.noise.as_ref().filter(|noise| noise.noisy)?;
    let half = |share: f64| percent_digits(100.0 * share);
    Some(format!(
        "a noisy machine: half of the intervals are wider than ±{} %, the widest ±{} %, and {} of {} trials are void; \
         smaller differences than that cannot be told here",
        half(noise.typical_interval),
        half(noise.widest_interval),
        noise.trials_void,
        noise.trials
    ))
}

/// The gains in one sentence a kind, and whether the machine was a noisy one.
pub(super) fn summary(report: &Report) -> Vec<String> {
    let sentence = |summary: &analysis::Summary| {
        let gain = summary.gain_geometric_mean;
        let over = summary.over_peer.as_deref().unwrap_or("the best single processor");
        let over = format!("{} over {over}: {gain:.2}×", summary.kind);
        if summary.networks == 1 {
            return over;
        }
        format!(
            "{over}, geometric mean of {} networks ({:.2}× … {:.2}×)",
            summary.networks, summary.gain_least, summary.gain_greatest
        )
    };
    report.summary.iter().map(sentence).chain(noise(report)).collect()
}
