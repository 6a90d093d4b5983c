//! The table of streams: latency from the scheduled arrival, drops and age, by which every text format draws it.

use super::cells::{self, number, or_dash};
use analysis::{Interval, LatencyQuantile, Report, Row};

/// Names of the columns.
pub(super) const COLUMNS: [&str; 9] =
    ["schedule", "p50 ms", "p90 ms", "p99 ms", "max ms", "dropped", "late", "age ms", "jitter ms"];

/// Rows under a stream.
pub(super) fn rows(report: &Report) -> Vec<&Row> {
    report.rows.iter().filter(|row| row.stream.is_some()).collect()
}

/// The cells of a row, each interval after its figure.
pub(super) fn cells(row: &Row) -> [String; 9] {
    let latency = |quantile: fn(&analysis::LatencyIntervals) -> LatencyQuantile| {
        let quantile = row.latency_ms_intervals.as_ref().map(quantile);
        or_dash(quantile.map(|quantile| cells::with_ends(&Interval::from(quantile), "")))
    };
    let longest = row.latency_ms.map(|latency| number(latency.max));
    let jitter = row.stream.as_ref().and_then(|stream| stream.jitter_ms).map(number);
    [
        cells::label(row),
        latency(|latency| latency.p50),
        latency(|latency| latency.p90),
        latency(|latency| latency.p99),
        or_dash(longest),
        or_dash(row.drop_rate.as_ref().map(percent)),
        or_dash(late(row)),
        or_dash(row.age_ms_interval.as_ref().map(|age| cells::with_interval(age, ""))),
        or_dash(jitter),
    ]
}

/// Frames that completed after the deadline, with their share of the completed ones: `12 (1.3 %)`.
pub(super) fn late(row: &Row) -> Option<String> {
    let (misses, completed) = (row.deadline_misses?, row.stream.as_ref()?.completed);
    let share = if completed == 0 { 0.0 } else { 100.0 * misses as f64 / completed as f64 };
    Some(format!("{misses} ({} %)", few_digits(share)))
}

/// A share with its interval: `9.1 % [8.0, 10.2]`.
pub(super) fn percent(share: &Interval) -> String {
    let shown = |share: f64| few_digits(100.0 * share);
    match share.lo.zip(share.hi) {
        Some((lo, hi)) => format!("{} % [{}, {}]", shown(share.point), shown(lo), shown(hi)),
        None => format!("{} %", shown(share.point)),
    }
}

/// Percent with one digit after the point, with two below 1.
fn few_digits(percent: f64) -> String {
    match percent {
        0.0 => "0".to_owned(),
        percent if percent >= 99.95 => "100".to_owned(),
        percent if percent < 1.0 => format!("{percent:.2}"),
        percent => format!("{percent:.1}"),
    }
}

/// What the columns mean, one sentence each; empty without a stream.
pub(super) fn legend(report: &Report) -> Vec<String> {
    let rows = rows(report);
    if rows.is_empty() {
        return Vec::new();
    }
    let deadline = if rows.iter().any(|row| row.deadline_misses.is_some()) {
        "late: frames that completed after their deadline; "
    } else {
        ""
    };
    let mut sentences = vec![format!(
        "stream: latency from the scheduled arrival to the result, over the frames of all trials, with intervals; dropped: \
         share of the frames that were dropped because a queue was full; {deadline}age: mean time since the arrival of the \
         frame to which the newest result belongs; jitter: standard deviation of the time between results"
    )];
    let lacking = rows.iter().filter_map(|row| {
        let latency = row.latency_ms_intervals.as_ref()?;
        let quantiles = [("p50", latency.p50), ("p90", latency.p90), ("p99", latency.p99)];
        let (name, quantile) = quantiles.into_iter().find(|(_, quantile)| quantile.hi.is_none())?;
        Some((name, quantile, row))
    });
    sentences.extend(lacking.min_by_key(|(_, _, row)| row.frames).and_then(|(name, quantile, row)| {
        let more = "raise `trials` or `measure.min_seconds`";
        let (needed, frames) = (quantile.frames_needed?, row.frames);
        if frames < needed {
            return Some(format!(
                "{name} has no interval: {frames} frames, and at least {needed} are needed; {more}"
            ));
        }
        // Without both ends, the order of the frames is not known, which another sentence tells.
        quantile.lo.map(|_| {
            format!(
                "the interval of {name} has no upper end if the longest latencies are of consecutive frames (here of \
                 {}), because they count as one event; {more}",
                cells::label(row)
            )
        })
    }));
    sentences.extend(source(&rows));
    sentences
}

/// How well the source kept its pace.
fn source(rows: &[&Row]) -> Option<String> {
    let most = |figure: fn(&analysis::StreamSection) -> Option<f64>| {
        rows.iter().filter_map(|row| figure(row.stream.as_ref()?)).max_by(f64::total_cmp)
    };
    let late_ms = most(|stream| stream.source_late_p99_ms)?;
    let share = most(|stream| stream.source_cpu_share)?;
    let late = if late_ms < 10.0 { format!("{:.0} µs", 1e3 * late_ms) } else { format!("{late_ms:.0} ms") };
    Some(format!(
        "99 of 100 frames were offered at most {late} late; the thread that offers them used {:.2} % of a CPU",
        100.0 * share
    ))
}

/// The highest sustained rate in words.
fn sustained(row: &Row) -> Option<String> {
    let rate = row.sustained_fps?;
    let (name, rate) = (cells::label(row), cells::with_interval(&rate, ""));
    let share = row.sustained_share.map_or(String::new(), |share| {
        format!(", {} of its saturated throughput in the same rounds", cells::with_interval(&share, ""))
    });
    Some(format!("{name} sustains {rate} frames/s{share}; its figures are those at this rate"))
}

/// Sentences about single rows.
pub(super) fn sentences(row: &Row) -> impl Iterator<Item = String> {
    sustained(row).into_iter().chain(queues(row)).chain(shares(row))
}

/// The queues that the planner chose, and what it expected.
fn queues(row: &Row) -> Option<String> {
    row.queues.map(|queues| format!("{}: {queues}", cells::label(row)))
}

/// How several streams shared a schedule: `12/40/41/40 completed, 3/0/0/1 dropped`.
fn shares(row: &Row) -> Option<String> {
    let streams = &row.stream.as_ref()?.streams;
    if streams.is_empty() {
        return None;
    }
    let list = |count: fn(&analysis::StreamShare) -> u64| {
        streams.iter().map(|stream| count(stream).to_string()).collect::<Vec<_>>().join("/")
    };
    let (completed, dropped) = (list(|stream| stream.completed), list(|stream| stream.dropped));
    Some(format!("streams of {}: {completed} frames completed, {dropped} dropped", cells::label(row)))
}
