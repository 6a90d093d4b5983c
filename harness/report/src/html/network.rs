//! A network: its finding, throughput, stages, timelines and all figures.

use super::super::cells::{self, number, or_dash};
use super::super::headline;
use super::fragments::{confidence, schedule, scrolling};
use super::{facts, gain, marks, occupancy, stream};
use crate::scale::{Scale, percent};
use analysis::{Report, Row};
use domain::{ScheduleKind, Validity};
use maud::{Markup, PreEscaped, html};
use std::collections::BTreeMap;

pub(super) fn section(
    report: &Report,
    name: &str,
    place: usize,
    timelines: &BTreeMap<u32, String>,
) -> Markup {
    let rows = headline::sorted(report, name);
    let said = headline::headline(&rows);
    let drawn: Vec<&String> = rows.iter().filter_map(|row| timelines.get(&row.place)).collect();
    let with_stages = rows.iter().filter(|row| row.stages.len() > 1 && row.typical_round.is_some()).count();
    html! {
        article.network aria-labelledby={ "n" (place) } {
            h3 id={ "n" (place) } { @for part in name.split_inclusive('_') { (part) wbr; } }
            p.described { (cells::network(report, name)) }
            p.finding { (said.finding) }
            p.detail { (said.detail) }
            @if !rows.is_empty() {
                (throughput(report, name, place, &rows))
                (stream::figure(report, name, place, &rows))
                (occupancy::figure(name, &rows))
            }
            @if with_stages > 0 {
                h4 { "Timeline of one window" }
                @for figure in &drawn { (PreEscaped(figure)) }
                @if drawn.len() < with_stages { (left_out(report, with_stages - drawn.len())) }
            }
            @if !rows.is_empty() { (figures(report, name, &rows)) }
            (facts::of_network(report, name))
        }
    }
}

fn left_out(report: &Report, count: usize) -> Markup {
    html! {
        p.muted {
            @if count == 1 { "One more timeline is" } @else { (count) " more timelines are" }
            " not drawn, because frames were not recorded or the page is full. "
            code { (host::program()) " report --run " (report.run.id) " --trace --schedule NUMBER" }
            " writes one for Perfetto."
        }
    }
}

/// Axis of frames a second. A whisker of few trials may run off it.
fn axis_of(rows: &[&Row]) -> Scale {
    let (mut most, mut reach) = (0.0f64, 0.0f64);
    for row in rows {
        let Some(fps) = row.throughput_fps else { continue };
        most = most.max(fps.point).max(row.predicted_fps.unwrap_or(0.0).min(1.5 * fps.point));
        reach = reach.max(fps.hi.unwrap_or(fps.point));
    }
    Scale::from_zero(most.max(reach.min(1.3 * most)))
}

fn throughput(report: &Report, name: &str, place: usize, rows: &[&Row]) -> Markup {
    let scale = axis_of(rows);
    let grid = format!("g{place}");
    html! {
        figure {
            h4 { "Throughput" }
            (marks::legend(rows.iter().map(|row| row.kind)))
            table.bars role="table" {
                caption {
                    "Frames per second of " (name) ": medians over the trials with " (confidence(report))
                    " intervals. A notch marks the prediction."
                }
                thead role="rowgroup" {
                    tr role="row" {
                        th.label role="columnheader" scope="col" { "Schedule" }
                        th.plot role="columnheader" scope="col" { span.hide { "Chart" } (marks::axis(&grid, &scale, &scale.ticks(), "")) }
                        th.n.value role="columnheader" scope="col" { "frames/s" }
                        th.n.times role="columnheader" scope="col" { "gain" }
                    }
                }
                tbody role="rowgroup" { @for row in rows { (bar_row(row, &scale, &grid)) } }
            }
        }
    }
}

fn bar_row(row: &Row, scale: &Scale, grid: &str) -> Markup {
    let void = row.verdict == Validity::Void;
    html! {
        tr role="row" class=[void.then_some("void")] {
            th.label role="rowheader" scope="row" {
                (schedule(row)) " "
                @if row.kind != ScheduleKind::Single && row.kind != ScheduleKind::Pipeline { span.kind { (row.kind) } }
                @if void { span.chip { "void" } }
            }
            td.plot role="cell" { (bar(row, scale, grid, void)) }
            td.value role="cell" {
                @match &row.throughput_fps {
                    Some(fps) => { b { (number(fps.point)) } (gain::ends(fps)) }
                    None => { (cells::ABSENT) }
                }
            }
            td.times role="cell" { (or_dash(cells::gain(row))) }
        }
    }
}

fn bar(row: &Row, scale: &Scale, grid: &str, void: bool) -> Markup {
    let Some(fps) = row.throughput_fps else {
        return html! { span.muted { "not measured" } };
    };
    let x = |value: f64| percent(scale.place(value));
    let class = row.kind;
    html! {
        svg.row role="img" width="100%" height="22" {
            title { (cells::label(row)) ": " (cells::with_interval(&fps, " frames/s")) @if void { ", void" } }
            (marks::grid(grid))
            rect class={ "bar " (class) @if void { " hollow" } } y="3" width=(x(fps.point)) height="16" rx="2" {}
            @if let Some(predicted) = row.predicted_fps.filter(|predicted| scale.holds(*predicted)) {
                line.notch x1=(x(predicted)) x2=(x(predicted)) y1="0" y2="22" {}
            }
            @if let Some((lo, hi)) = fps.lo.zip(fps.hi) {
                line.halo x1=(x(lo)) x2=(x(hi)) y1="11" y2="11" {}
                line.interval x1=(x(lo)) x2=(x(hi)) y1="11" y2="11" {}
            }
        }
    }
}

fn figures(report: &Report, name: &str, rows: &[&Row]) -> Markup {
    let baselines: Vec<&String> = {
        let mut names: Vec<&String> = rows.iter().flat_map(|row| row.gain_over.keys()).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let has_energy = rows.iter().any(|row| row.energy_mj_per_frame.is_some());
    let table = html! {
        table {
            caption { "All figures of " (name) ", " (confidence(report)) " intervals in brackets" }
            thead {
                tr {
                    th scope="col" { "Schedule" }
                    th.n scope="col" { "No." }
                    @for baseline in &baselines { th.n scope="col" { "Gain over " (baseline) } }
                    th.n scope="col" { "Predicted" br; "frames/s" }
                    th.n scope="col" { "Efficiency" }
                    th.n scope="col" { "Latency, ms" br; "p50 / p99" }
                    @if has_energy { th.n scope="col" { "mJ/frame" } }
                    th.n scope="col" { "Trials" }
                    th.n scope="col" { "Frames" }
                    th scope="col" { "Validity" }
                }
            }
            tbody {
                @for row in rows {
                    tr class=[(row.verdict == Validity::Void).then_some("void")] {
                        th scope="row" { (schedule(row)) }
                        td { (row.place) }
                        @for baseline in &baselines {
                            td {
                                @match row.gain_over_intervals.get(*baseline) {
                                    Some(gain) => { (format!("{:.2}×", gain.point)) (gain::ends(gain)) }
                                    None => { (cells::ABSENT) }
                                }
                            }
                        }
                        td { (or_dash(cells::predicted(row))) }
                        td { (or_dash(cells::efficiency(row))) }
                        td { (or_dash(cells::latency(row))) }
                        @if has_energy {
                            td {
                                @match &row.energy_mj_per_frame {
                                    Some(energy) => { (number(energy.point)) (gain::ends(energy)) }
                                    None => { (cells::ABSENT) }
                                }
                            }
                        }
                        td { (row.trials) @if row.trials_void + row.trials_failed > 0 { small { (lost(row)) } } }
                        td { (row.frames) }
                        td.t { (cells::verdict(row)) }
                    }
                }
            }
        }
    };
    html! {
        h4 { "All figures" }
        (scrolling(&format!("All figures of {name}"), &table))
    }
}

fn lost(row: &Row) -> String {
    let void = (row.trials_void > 0).then(|| format!("{} void", row.trials_void));
    let failed = (row.trials_failed > 0).then(|| format!("{} failed", row.trials_failed));
    void.into_iter().chain(failed).collect::<Vec<_>>().join(", ")
}
