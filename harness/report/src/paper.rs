//! The paper's table: network × processor, pipeline, gain, energy.

use super::cells::{self, number, or_dash, with_interval};
use super::headline;
use super::notes;
use analysis::{Report, Row};
use domain::{ScheduleKind, Validity};

/// The table as text without markup, by which every format draws it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Paper {
    /// Processors that were measured alone, in the board's order.
    pub(super) processors: Vec<String>,
    /// Those that are emulated on CPUs.
    emulated: Vec<String>,
    /// The best other engine has a column if one was measured.
    pub(super) has_peers: bool,
    pub(super) lines: Vec<Line>,
    /// Run, machine and what the figures are.
    pub(super) caption: String,
    /// Why there is no energy, and what does not count.
    pub(super) remarks: Vec<String>,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) network: String,
    /// Frames a second on each processor.
    pub(super) singles: Vec<String>,
    /// Frames a second of the fastest other engine.
    pub(super) peer: String,
    /// The fastest pipeline.
    pub(super) schedule: String,
    pub(super) pipeline: String,
    /// Over the best single processor, with its interval.
    pub(super) gain: String,
    /// Millijoules of a frame on the best single processor and in the pipeline.
    pub(super) energy: String,
}

impl Paper {
    pub(super) fn of(report: &Report) -> Self {
        let alone = |name: &String| {
            report
                .rows
                .iter()
                .any(|row| row.kind == ScheduleKind::Single && row.processors.first() == Some(name))
        };
        let processors = report.measured_on.processors.iter().map(|processor| processor.name.clone());
        let processors: Vec<String> = processors.filter(alone).collect();
        let lines = headline::networks(report);
        let lines: Vec<Line> = lines.into_iter().map(|network| line(report, network, &processors)).collect();
        let machine = &report.measured_on;
        let model = machine.model.as_deref().or(machine.cpu.as_deref()).unwrap_or(&machine.arch);
        let day = report.run.begun.get(..10).unwrap_or(&report.run.begun);
        let revision = report.run.revision.as_deref().map_or_else(
            || "no revision".to_owned(),
            |commit| {
                let changed = if report.run.dirty == Some(true) { " with changes" } else { "" };
                format!("revision {}{changed}", commit.get(..12).unwrap_or(commit))
            },
        );
        let has_energy = lines.iter().any(|line| line.energy.contains('→'));
        let energy = if has_energy { ", mJ/frame of this processor → of the pipeline" } else { "" };
        let caption = format!(
            "Median frames per second of each processor alone and of the fastest pipeline, gain over the best processor \
             with its {:.0} % interval{energy}. Measured on {model} ({}), {day}, run {}, {revision}.",
            100.0 * report.confidence,
            report.run.board,
            report.run.id
        );
        let mut remarks: Vec<String> =
            notes::energy(report).into_iter().map(|why| format!("Energy was not measured: {why}.")).collect();
        let void = report.rows.iter().filter(|row| row.verdict == Validity::Void).count();
        if void > 0 {
            remarks.push(format!("{void} of {} schedules are void and not shown.", report.rows.len()));
        }
        let gains = report.rows.iter().filter_map(|row| row.gain_over_best_single_interval);
        if gains.into_iter().any(|gain| gain.is_too_wide()) {
            remarks.push("[?]: too few trials; the interval is wider than the figure.".to_owned());
        }
        remarks.extend(cells::emulated(machine).map(|warning| format!("{warning}.")));
        let emulated = machine.processors.iter().filter(|processor| processor.is_emulated());
        let emulated = emulated.map(|processor| processor.name.clone()).collect();
        let has_peers = report.rows.iter().any(|row| row.kind == ScheduleKind::Peer);
        Self { processors, emulated, has_peers, lines, caption, remarks }
    }

    /// Names of the columns.
    pub(super) fn columns(&self) -> Vec<String> {
        let mut columns = vec!["network".to_owned()];
        columns.extend(self.processors.iter().map(|name| cells::processor(name, &self.emulated)));
        if self.has_peers {
            columns.push("best peer".to_owned());
        }
        columns.extend(["pipeline", "frames/s", "gain", "mJ/frame"].map(str::to_owned));
        columns
    }

    /// The cells of a line, one a column.
    pub(super) fn cells(&self, line: &Line) -> Vec<String> {
        let mut cells = vec![line.network.clone()];
        cells.extend(line.singles.iter().cloned());
        if self.has_peers {
            cells.push(line.peer.clone());
        }
        cells.extend([&line.schedule, &line.pipeline, &line.gain, &line.energy].map(Clone::clone));
        cells
    }
}

fn line(report: &Report, network: &str, processors: &[String]) -> Line {
    let rows = headline::sorted(report, network);
    let valid = |kind| headline::fastest(&rows, kind);
    let fps =
        |row: Option<&Row>| or_dash(row.and_then(|row| row.throughput_fps).map(|fps| number(fps.point)));
    let single = |name: &String| {
        let of = |row: &&&Row| row.kind == ScheduleKind::Single && row.processors.first() == Some(name);
        fps(rows.iter().filter(|row| row.verdict == Validity::Valid).find(of).copied())
    };
    let energy = |row: Option<&Row>| row.and_then(|row| row.energy_mj_per_frame).map(|mj| number(mj.point));
    let pipeline = valid(ScheduleKind::Pipeline);
    let gain = pipeline.and_then(|row| row.gain_over_best_single_interval);
    let (before, after) = (energy(valid(ScheduleKind::Single)), energy(pipeline));
    Line {
        network: named(report, network),
        singles: processors.iter().map(single).collect(),
        peer: fps(valid(ScheduleKind::Peer)),
        schedule: or_dash(pipeline.map(cells::label)),
        pipeline: fps(pipeline),
        gain: or_dash(gain.map(|gain| with_interval(&gain, "×"))),
        energy: match (before, after) {
            (None, None) => or_dash(None),
            (before, after) => format!("{} → {}", or_dash(before), or_dash(after)),
        },
    }
}

/// The name of a network, marked if GPUs compute it in half precision or kernels avoid Winograd's algorithm.
fn named(report: &Report, network: &str) -> String {
    let section = report.networks.iter().find(|known| known.name == network);
    let half = section.map(|known| known.precision).filter(|precision| !precision.is_single());
    let direct = section.is_some_and(|known| !known.winograd.is_auto());
    let mut marks = Vec::new();
    marks.extend(half.map(|precision| format!("{precision} on GPUs")));
    marks.extend(direct.then(|| "without Winograd".to_owned()));
    if marks.is_empty() { network.to_owned() } else { format!("{network} ({})", marks.join(", ")) }
}

/// As Markdown, ready to paste.
pub(super) fn markdown(report: &Report) -> String {
    let paper = Paper::of(report);
    let columns = paper.columns();
    let row = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| super::markdown::escaped(cell)).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut out = row(&columns);
    let rules: Vec<&str> = columns
        .iter()
        .map(|column| if matches!(column.as_str(), "network" | "pipeline") { "---" } else { "--:" })
        .collect();
    out.extend(["|", &rules.join("|"), "|\n"]);
    for line in &paper.lines {
        out += &row(&paper.cells(line));
    }
    out.extend(["\n", &super::markdown::escaped(&paper.caption), "\n"]);
    for remark in &paper.remarks {
        out.extend([&super::markdown::escaped(remark), "\n"]);
    }
    out
}
