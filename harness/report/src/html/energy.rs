//! Energy of a frame against throughput.

use super::super::cells::{self, number, with_interval};
use super::super::headline;
use super::super::notes;
use super::fragments::{place, scrolling};
use super::marks;
use super::scatter::{Plot, Point};
use crate::scale::Scale;
use analysis::{Report, Row};
use domain::{ScheduleKind, Validity};
use maud::{Markup, html};

/// Schedules up to which the table has all of them.
const LISTED: usize = 40;

pub(super) fn section(report: &Report) -> Markup {
    let rows: Vec<&Row> = report
        .rows
        .iter()
        .filter(|row| row.verdict == Validity::Valid && row.throughput_fps.is_some_and(|fps| fps.point > 0.0))
        .filter(|row| row.energy_mj_per_frame.is_some_and(|energy| energy.point > 0.0))
        .collect();
    let absent = notes::energy(report);
    html! {
        section aria-labelledby="energy" {
            h2 #energy { "Energy against throughput" }
            @if rows.is_empty() {
                p.callout {
                    strong { "No energy was measured" }
                    @for reason in &absent { ": " (reason) }
                    ". Throughput alone does not show which schedule uses less energy."
                }
            } @else {
                p { "Points further right are faster, points further down use less energy. A line joins the best single processor of a network with its fastest pipeline." }
                figure {
                    (marks::legend(rows.iter().map(|row| row.kind)))
                    @let plot = plot(report, &rows);
                    (plot.draw())
                    (table(&listed(&rows, &plot), rows.len()))
                }
                @if !absent.is_empty() {
                    p.callout { "Some schedules have no energy: " (absent.join("; ")) "." }
                }
            }
        }
    }
}

fn figures(row: &Row) -> (f64, f64) {
    // Rows without either were left out above.
    let point = |interval: Option<analysis::Interval>| interval.map_or(1.0, |interval| interval.point);
    (point(row.throughput_fps), point(row.energy_mj_per_frame))
}

fn plot(report: &Report, rows: &[&Row]) -> Plot {
    let xs = || rows.iter().map(|row| figures(row).0);
    let ys = || {
        rows.iter().flat_map(|row| {
            let ends = row.energy_mj_per_frame.and_then(|energy| energy.drawn_ends());
            [figures(row).1].into_iter().chain(ends.into_iter().flat_map(|(lo, hi)| [lo, hi]))
        })
    };
    let positive = |values: &mut dyn Iterator<Item = f64>| {
        values.filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min)
    };
    let mut joined = Vec::new();
    let mut named = Vec::new();
    for network in &report.networks {
        let of_network = headline::sorted(report, &network.name);
        let at =
            |row: Option<&Row>| rows.iter().position(|other| Some(other.place) == row.map(|row| row.place));
        let (single, gained) =
            (at(headline::fastest(&of_network, ScheduleKind::Single)), at(headline::candidate(&of_network)));
        joined.extend(single.zip(gained));
        named.extend(gained.or(single));
    }
    let points = rows.iter().enumerate().map(|(at, row)| {
        let (x, y) = figures(row);
        Point {
            kind: row.kind,
            x,
            y,
            range: row.energy_mj_per_frame.and_then(|energy| energy.drawn_ends()),
            x_range: None,
            label: named.contains(&at).then(|| row.network.clone()),
            name: format!("{}: {} frames/s, {} mJ/frame", place(row), number(x), number(y)),
        }
    });
    Plot {
        title: "Energy of a frame over throughput".to_owned(),
        description: format!(
            "{} schedules of {} networks. The table below has the figures.",
            rows.len(),
            report.networks.len()
        ),
        x: Scale::logarithmic(xs().fold(f64::INFINITY, f64::min), xs().fold(0.0, f64::max)),
        y: Scale::logarithmic(positive(&mut ys()), ys().fold(0.0, f64::max)),
        x_unit: "frames per second, logarithmic",
        y_unit: "millijoules per frame, logarithmic",
        suffix: "",
        band: None,
        points: points.collect(),
        joined,
    }
}

/// All rows, or if there are many, those that the drawing joins or names; the tables of the networks contain all.
fn listed<'r>(rows: &[&'r Row], plot: &Plot) -> Vec<&'r Row> {
    if rows.len() <= LISTED {
        return rows.to_vec();
    }
    let is_listed = |at: usize| {
        plot.points[at].label.is_some() || plot.joined.iter().any(|(from, to)| *from == at || *to == at)
    };
    rows.iter().enumerate().filter(|(at, _)| is_listed(*at)).map(|(_, row)| *row).collect()
}

fn table(rows: &[&Row], of: usize) -> Markup {
    let table = html! {
        table {
            caption {
                "Energy and throughput"
                @if rows.len() < of {
                    " of the best single processor and the fastest pipeline of each network; see the networks for the other \
                     schedules"
                }
            }
            thead {
                tr {
                    th scope="col" { "Network" }
                    th scope="col" { "Schedule" }
                    th.n scope="col" { "frames/s" }
                    th.n scope="col" { "mJ/frame" }
                }
            }
            tbody {
                @for row in rows {
                    tr {
                        th scope="row" { (row.network) }
                        td.t { code { (cells::label(row)) } }
                        td { (row.throughput_fps.map(|fps| number(fps.point)).unwrap_or_default()) }
                        td { (row.energy_mj_per_frame.map(|energy| with_interval(&energy, "")).unwrap_or_default()) }
                    }
                }
            }
        }
    };
    html! { details { summary { "Energies as a table" } (scrolling("Energy and throughput", &table)) } }
}
