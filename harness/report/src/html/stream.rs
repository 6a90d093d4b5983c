//! Streams of a network: latency distribution, queue over time, drops, and a table of all figures.

use super::super::cells;
use super::super::streams;
use super::fragments::{confidence, schedule, scrolling};
use super::marks;
use crate::scale::{Scale, percent};
use analysis::{Report, Row, StreamTrace};
use maud::{Markup, html};

/// Height of a drawn distribution and of a drawn queue.
const HEIGHT: f64 = 46.0;

/// Nothing without a stream.
pub(super) fn figure(report: &Report, name: &str, place: usize, rows: &[&Row]) -> Markup {
    let rows: Vec<&&Row> = rows.iter().filter(|row| row.stream.is_some()).collect();
    if rows.is_empty() {
        return html! {};
    }
    html! {
        figure {
            h4 { "Latency of the stream" }
            (distributions(name, place, &rows))
        }
        @let traces: Vec<(&Row, &StreamTrace)> = rows
            .iter()
            .filter_map(|row| Some((**row, report.streams.iter().find(|trace| trace.place == row.place)?)))
            .collect();
        @if !traces.is_empty() {
            figure {
                h4 { "Queue of the stream" }
                (queues(name, place, &traces))
            }
        }
        (figures(report, name, &rows))
    }
}

/// A histogram of each schedule over one axis.
fn distributions(name: &str, place: usize, rows: &[&&Row]) -> Markup {
    let longest = rows.iter().filter_map(|row| row.latency_ms).map(|latency| latency.max).fold(0.0, f64::max);
    let scale = Scale::from_zero(longest);
    let grid = format!("l{place}");
    let table = html! {
        table.chart {
            caption {
                "Frames of " (name) " by latency in ms from the scheduled arrival. Lines mark p50, p90 and p99."
            }
            thead {
                tr {
                    th scope="col" { "Schedule" }
                    th.plot scope="col" { span.hide { "Drawn" } (marks::axis(&grid, &scale, &scale.few_ticks(), "")) }
                    th.n scope="col" { "p99 ms" }
                }
            }
            tbody {
                @for row in rows {
                    tr {
                        th scope="row" { (schedule(row)) }
                        td.plot { (distribution(row, &scale, &grid)) }
                        td { (cells::or_dash(row.latency_ms.map(|latency| cells::number(latency.p99)))) }
                    }
                }
            }
        }
    };
    scrolling(&format!("Latency distribution of {name}"), &table)
}

fn distribution(row: &Row, scale: &Scale, grid: &str) -> Markup {
    let most = row.latency_distribution.iter().map(|bin| bin.share).fold(0.0, f64::max);
    let mut begin_ms = 0.0;
    let mut bars = Vec::new();
    for bin in &row.latency_distribution {
        let (from, to) = (scale.place(begin_ms), scale.place(bin.up_to_ms));
        begin_ms = bin.up_to_ms;
        if bin.share > 0.0 && most > 0.0 {
            // A single slow frame stays visible.
            bars.push((from, to - from, (HEIGHT * bin.share / most).max(1.0)));
        }
    }
    let marks = row.latency_ms.map(|latency| [latency.p50, latency.p90, latency.p99]).unwrap_or_default();
    html! {
        svg width="100%" height=(HEIGHT) role="img" {
            title { (cells::label(row)) ": " (cells::or_dash(cells::latency(row))) " ms (p50 / p99)" }
            (marks::grid(grid))
            @for (x, width, height) in bars {
                rect class={ "bar " (row.kind) } x=(percent(x)) width=(percent(width))
                    y=(format!("{:.1}", HEIGHT - height)) height=(format!("{height:.1}")) {}
            }
            @for mark in marks.into_iter().filter(|mark| *mark > 0.0) {
                line.notch x1=(percent(scale.place(mark))) x2=(percent(scale.place(mark))) y1="0" y2=(HEIGHT) {}
            }
        }
    }
}

/// The longest queue and the drops of the typical trial of each schedule, over the time of its window.
fn queues(name: &str, place: usize, traces: &[(&Row, &StreamTrace)]) -> Markup {
    let seconds = traces.iter().map(|(_, trace)| trace.seconds).fold(0.0, f64::max);
    let scale = Scale::exactly(seconds);
    let grid = format!("q{place}");
    let table = html! {
        table.chart {
            caption {
                "Frames of " (name) " that were waiting when a frame arrived, over the seconds of a typical window. Marks at the top are drops."
            }
            thead {
                tr {
                    th scope="col" { "Schedule" }
                    th.plot scope="col" { span.hide { "Drawn" } (marks::axis(&grid, &scale, &scale.few_ticks(), "\u{2009}s")) }
                    th.n scope="col" { "longest" }
                    th.n scope="col" { "dropped" }
                }
            }
            tbody {
                @for (row, trace) in traces {
                    tr {
                        th scope="row" { (schedule(row)) }
                        td.plot { (queue(row, trace, &scale, &grid)) }
                        td { (trace.waiting.iter().max().copied().unwrap_or(0)) }
                        td { (trace.dropped.iter().map(|dropped| u64::from(*dropped)).sum::<u64>()) }
                    }
                }
            }
        }
    };
    scrolling(&format!("Queue of {name}"), &table)
}

fn queue(row: &Row, trace: &StreamTrace, scale: &Scale, grid: &str) -> Markup {
    let longest = f64::from(trace.waiting.iter().max().copied().unwrap_or(0).max(1));
    let width = trace.seconds / trace.waiting.len().max(1) as f64;
    let x = |point: usize| scale.place(width * point as f64);
    // Neighbours of equal height are one shape.
    let mut bars: Vec<(usize, usize, u32)> = Vec::new();
    for (point, waiting) in trace.waiting.iter().enumerate() {
        match bars.last_mut() {
            Some((_, end, height)) if height == waiting && *end == point => *end = point + 1,
            _ => bars.push((point, point + 1, *waiting)),
        }
    }
    let room = HEIGHT - 8.0;
    html! {
        svg width="100%" height=(HEIGHT) role="img" {
            title { (cells::label(row)) ": frames waiting over time" }
            (marks::grid(grid))
            @for (begin, end, waiting) in bars.into_iter().filter(|(_, _, waiting)| *waiting > 0) {
                @let height = room * f64::from(waiting) / longest;
                rect class={ "bar " (row.kind) } x=(percent(x(begin))) width=(percent(x(end) - x(begin)))
                    y=(format!("{:.1}", HEIGHT - height)) height=(format!("{height:.1}")) {}
            }
            @for (point, _) in trace.dropped.iter().enumerate().filter(|(_, dropped)| **dropped > 0) {
                line.notch x1=(percent(x(point))) x2=(percent(x(point))) y1="0" y2="5" {}
            }
        }
    }
}

fn figures(report: &Report, name: &str, rows: &[&&Row]) -> Markup {
    let table = html! {
        table {
            caption { "Stream of " (name) ", " (confidence(report)) " intervals in brackets" }
            thead {
                tr {
                    @for (place, column) in streams::COLUMNS.into_iter().enumerate() {
                        @if place == 0 { th scope="col" { "Schedule" } } @else { th.n scope="col" { (column) } }
                    }
                }
            }
            tbody {
                @for row in rows {
                    tr {
                        th scope="row" { (schedule(row)) }
                        @for cell in streams::cells(row).into_iter().skip(1) {
                            @let interval = cell.find('[').unwrap_or(cell.len());
                            td {
                                (cell[..interval].trim_end())
                                @if interval < cell.len() { small { (cell[interval..]) } }
                            }
                        }
                    }
                }
            }
        }
    };
    html! {
        (scrolling(&format!("Stream of {name}"), &table))
        @for sentence in rows.iter().flat_map(|row| streams::sentences(row)) { p.muted { (sentence) } }
    }
}
