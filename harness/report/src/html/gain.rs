//! The first figure: what each network gains, over each of its baselines.

use super::super::cells::{self, number, or_dash, with_interval};
use super::super::headline;
use super::fragments::{confidence, scrolling};
use super::marks;
use crate::scale::{Scale, percent};
use analysis::{Interval, Report, Row};
use domain::{ScheduleKind, Validity};
use maud::{Markup, html};

pub(super) fn section(report: &Report, names: &[&str]) -> Markup {
    let rows: Vec<(usize, &str, Vec<&Row>)> = names
        .iter()
        .enumerate()
        .map(|(place, name)| (place, *name, headline::sorted(report, name)))
        .collect();
    let points = || {
        rows.iter().flat_map(|(_, _, rows)| shown(rows)).filter_map(|row| row.gain_over_best_single_interval)
    };
    let kinds = || rows.iter().flat_map(|(_, _, rows)| shown(rows)).map(|row| row.kind);
    let has_energy = report.rows.iter().any(|row| row.energy_mj_per_frame.is_some());
    let scale = scale(points());
    let table = html! {
        table.chart {
            caption {
                "Throughput over that of the best single processor. Whiskers are " (confidence(report))
                " intervals; the line is 1×, no gain."
            }
            thead {
                tr {
                    th scope="col" { "Network" }
                    th.plot scope="col" { span.hide { "Chart" } (marks::axis("gains", &scale, &scale.few_ticks(), "×")) }
                    th.n scope="col" { "Gain" }
                    th.n scope="col" { "Pipeline, frames/s" }
                    th.n scope="col" { "Best single, frames/s" }
                    th.n scope="col" { "Gain over each" }
                    @if has_energy { th.n scope="col" { "mJ/frame, single → pipeline" } }
                }
            }
            tbody {
                @for (place, name, rows) in &rows { (line(*place, name, rows, &scale, has_energy)) }
            }
        }
    };
    html! {
        section aria-labelledby="gain" {
            h2 #gain { "Gain from pipelining" }
            @if rows.is_empty() {
                p.callout { "No network was measured." }
            } @else {
                figure {
                    (marks::legend(kinds()))
                    (scrolling("Gain of each network", &table))
                }
            }
        }
    }
}

/// The fastest of each kind that is compared with single processors.
fn shown<'r>(rows: &[&'r Row]) -> Vec<&'r Row> {
    let kinds = [ScheduleKind::Peer, ScheduleKind::Merged, ScheduleKind::Replicate, ScheduleKind::Pipeline];
    let of_kind = kinds.into_iter().filter_map(|kind| headline::fastest(rows, kind));
    of_kind.filter(|row| row.gain_over_best_single.is_some()).collect()
}

fn scale(gains: impl Iterator<Item = Interval>) -> Scale {
    let (mut lo, mut hi, mut most) = (0.9f64, 1.1f64, 1.1f64);
    for gain in gains {
        lo = lo.min(gain.lo.unwrap_or(gain.point));
        most = most.max(gain.point);
        hi = hi.max(gain.hi.unwrap_or(gain.point));
    }
    // An interval of few trials may be wider than all gains together; it runs off the axis, and its figures say how
    // far.
    Scale::round(lo.max(0.0), hi.min(1.5 * most))
}

fn line(place: usize, name: &str, rows: &[&Row], scale: &Scale, has_energy: bool) -> Markup {
    let shown = shown(rows);
    let candidate = headline::candidate(rows);
    let best = rows.iter().find(|row| row.kind == ScheduleKind::Single && row.verdict == Validity::Valid);
    let gain = candidate.and_then(|row| row.gain_over_best_single_interval);
    let fps =
        |row: Option<&Row>| or_dash(row.and_then(|row| row.throughput_fps).map(|fps| number(fps.point)));
    let over = candidate.map(|row| {
        let over = row.gain_over.iter().map(|(processor, gain)| format!("{processor} {gain:.2}×"));
        over.collect::<Vec<_>>().join(", ")
    });
    let energy = |row: Option<&Row>| {
        or_dash(row.and_then(|row| row.energy_mj_per_frame).map(|energy| number(energy.point)))
    };
    html! {
        tr {
            th scope="row" { a href={ "#n" (place) } { (name) } }
            td.plot { (drawing(name, &shown, scale)) }
            td { b { (or_dash(candidate.and_then(cells::gain))) } @if let Some(gain) = gain { (ends(&gain)) } }
            td {
                (fps(candidate))
                @if let Some(other) = candidate.filter(|row| row.kind != ScheduleKind::Pipeline) { small { (other.kind) } }
            }
            td { (fps(best.copied())) @if let Some(best) = best { small { (cells::label(best)) } } }
            td { (or_dash(over.filter(|over| !over.is_empty()))) }
            @if has_energy { td { (energy(best.copied())) " → " (energy(candidate)) } }
        }
    }
}

/// The ends of an interval, small.
pub(super) fn ends(interval: &Interval) -> Markup {
    html! {
        @if interval.is_too_wide() {
            small { "too few trials" }
        } @else if let Some((lo, hi)) = interval.lo.zip(interval.hi) {
            small { (number(lo)) "\u{2009}–\u{2009}" (number(hi)) }
        } @else {
            small { "one trial" }
        }
    }
}

fn drawing(name: &str, rows: &[&Row], scale: &Scale) -> Markup {
    let height = 10 + 14 * rows.len().max(1);
    let said: Vec<String> = rows
        .iter()
        .rev()
        .filter_map(|row| {
            Some(format!("{} {}", row.kind, with_interval(&row.gain_over_best_single_interval?, "×")))
        })
        .collect();
    let said = if said.is_empty() { "no gain is known".to_owned() } else { said.join("; ") };
    html! {
        svg.row role="img" width="100%" height=(height) {
            title { (name) ": " (said) }
            (marks::grid("gains"))
            @let one = percent(scale.place(1.0));
            line.one x1=(one) x2=(one) y1="0" y2="100%" {}
            @for (place, row) in rows.iter().rev().enumerate() {
                @if let Some(gain) = row.gain_over_best_single_interval {
                    @let y = (12 + 14 * place).to_string();
                    @if let Some((lo, hi)) = gain.lo.zip(gain.hi) {
                        line class={ "whisker " (row.kind) } x1=(percent(scale.place(lo)))
                            x2=(percent(scale.place(hi))) y1=(y) y2=(y) {}
                    }
                    (marks::mark(row.kind, &percent(scale.place(gain.point)), &y, false))
                }
            }
        }
    }
}
