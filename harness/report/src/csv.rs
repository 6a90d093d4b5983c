//! One row a schedule, for spreadsheets: RFC 4180, but for line ends, which are single.

use analysis::{Interval, LatencyIntervals, LatencyQuantile, Report, Row, StageSection};

const COLUMNS: [&str; 69] = [
    "board",
    "network",
    "schedule",
    "kind",
    "processors",
    "emulated",
    "fp16",
    "peer",
    "peer_provider",
    "peer_gpu",
    "peer_threads",
    "peer_sessions",
    "trials",
    "trials_void",
    "trials_failed",
    "frames",
    "throughput_fps",
    "throughput_fps_lo",
    "throughput_fps_hi",
    "load",
    "sustained_fps",
    "sustained_fps_lo",
    "sustained_fps_hi",
    "latency_ms_p50",
    "latency_ms_p50_lo",
    "latency_ms_p50_hi",
    "latency_ms_p90",
    "latency_ms_p90_lo",
    "latency_ms_p90_hi",
    "latency_ms_p99",
    "latency_ms_p99_lo",
    "latency_ms_p99_hi",
    "latency_ms_max",
    "frames_arrived",
    "frames_dropped",
    "drop_rate",
    "drop_rate_lo",
    "drop_rate_hi",
    "deadline_misses",
    "age_ms",
    "age_ms_lo",
    "age_ms_hi",
    "jitter_ms",
    "energy_mj_per_frame",
    "energy_mj_per_frame_lo",
    "energy_mj_per_frame_hi",
    "energy_absent_reason",
    "mean_power_mw",
    "energy_breakdown_mj_per_frame",
    "best_single_by_energy",
    "energy_gain_over_best_single",
    "energy_gain_over_best_single_lo",
    "energy_gain_over_best_single_hi",
    "best_single",
    "gain_over_best_single",
    "gain_over_best_single_lo",
    "gain_over_best_single_hi",
    "gain_over",
    "gain_over_peer",
    "predicted_fps",
    "prediction_error",
    "pipeline_efficiency",
    "busy",
    "isolated_ms",
    "verdict",
    "reasons",
    "run",
    "begun",
    "analysis_version",
];

/// The report as comma-separated values. What is absent is empty; lists are separated by spaces, reasons are their
/// codes.
pub(super) fn render(report: &Report) -> String {
    render_all(std::iter::once(report))
}

/// Several reports as one table.
pub(super) fn render_all<'r>(reports: impl Iterator<Item = &'r Report>) -> String {
    let mut out = COLUMNS.join(",") + "\n";
    for report in reports {
        for row in &report.rows {
            let cells = record(report, row).map(|cell| quoted(&cell));
            out += &(cells.join(",") + "\n");
        }
    }
    out
}

fn record(report: &Report, row: &Row) -> [String; 69] {
    let point = |interval: Option<Interval>| number(interval.map(|interval| interval.point));
    let lo = |interval: Option<Interval>| number(interval.and_then(|interval| interval.lo));
    let hi = |interval: Option<Interval>| number(interval.and_then(|interval| interval.hi));
    let (fps, energy) = (row.throughput_fps, row.energy_mj_per_frame);
    let gain = row.gain_over_best_single_interval;
    let gains = row.gain_over.iter().map(|(name, gain)| format!("{name}={}", number(Some(*gain))));
    let rails = row.energy_breakdown_mj_per_frame.iter();
    let rails = rails.map(|(rail, energy)| format!("{rail}={}", number(Some(*energy))));
    let over_peers =
        row.gain_over_peer.iter().map(|(name, gain)| format!("{name}={}", number(Some(gain.point))));
    let of_stages = |figure: fn(&StageSection) -> Option<f64>| {
        let figures: Vec<String> =
            row.stages.iter().filter_map(figure).map(|value| number(Some(value))).collect();
        figures.join(" ")
    };
    let latency = |quantile: fn(&LatencyIntervals) -> LatencyQuantile| {
        row.latency_ms_intervals.as_ref().map(quantile).map(Interval::from)
    };
    let (p50, p90, p99) = (latency(|all| all.p50), latency(|all| all.p90), latency(|all| all.p99));
    let codes: Vec<&str> = row.reasons.iter().map(|reason| reason.code.as_str()).collect();
    [
        row.board.clone(),
        row.network.clone(),
        row.schedule.clone(),
        row.kind.to_string(),
        row.processors.join(" "),
        row.emulated.join(" "),
        row.fp16.join(" "),
        row.peer.clone().unwrap_or_default(),
        row.peer_provider.clone().unwrap_or_default(),
        row.peer_gpu.clone().unwrap_or_default(),
        row.peer_threads.map(|threads| threads.to_string()).unwrap_or_default(),
        row.peer_sessions.map(|sessions| sessions.to_string()).unwrap_or_default(),
        row.trials.to_string(),
        row.trials_void.to_string(),
        row.trials_failed.to_string(),
        row.frames.to_string(),
        point(fps),
        lo(fps),
        hi(fps),
        row.load.to_string(),
        point(row.sustained_fps),
        lo(row.sustained_fps),
        hi(row.sustained_fps),
        number(row.latency_ms.map(|latency| latency.p50)),
        lo(p50),
        hi(p50),
        number(row.latency_ms.map(|latency| latency.p90)),
        lo(p90),
        hi(p90),
        number(row.latency_ms.map(|latency| latency.p99)),
        lo(p99),
        hi(p99),
        number(row.latency_ms.map(|latency| latency.max)),
        row.stream.as_ref().map(|stream| stream.arrived.to_string()).unwrap_or_default(),
        row.stream.as_ref().map(|stream| stream.dropped_at_queue.to_string()).unwrap_or_default(),
        point(row.drop_rate),
        lo(row.drop_rate),
        hi(row.drop_rate),
        row.deadline_misses.map(|misses| misses.to_string()).unwrap_or_default(),
        number(row.age_ms),
        lo(row.age_ms_interval),
        hi(row.age_ms_interval),
        number(row.stream.as_ref().and_then(|stream| stream.jitter_ms)),
        point(energy),
        lo(energy),
        hi(energy),
        row.energy_absent_reason.clone().unwrap_or_default(),
        number(row.mean_power_mw),
        rails.collect::<Vec<_>>().join(" "),
        row.best_single_by_energy.clone().unwrap_or_default(),
        number(row.energy_gain_over_best_single),
        lo(row.energy_gain_over_best_single_interval),
        hi(row.energy_gain_over_best_single_interval),
        row.best_single.clone().unwrap_or_default(),
        number(row.gain_over_best_single),
        lo(gain),
        hi(gain),
        gains.collect::<Vec<_>>().join(" "),
        over_peers.collect::<Vec<_>>().join("; "),
        number(row.predicted_fps),
        number(row.prediction_error),
        number(row.pipeline_efficiency),
        of_stages(|stage| stage.busy),
        of_stages(|stage| stage.isolated_ms),
        super::cells::verdict(row),
        codes.join(" "),
        report.run.id.clone(),
        report.run.begun.clone(),
        report.analysis_version.to_string(),
    ]
}

/// A number of at most nine digits, without needless zeros.
fn number(value: Option<f64>) -> String {
    let rounded = value.and_then(|value| format!("{value:.8e}").parse::<f64>().ok());
    rounded.map(|value| value.to_string()).unwrap_or_default()
}

/// A cell as RFC 4180 has it.
pub(crate) fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}
