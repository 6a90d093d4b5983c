//! What was predicted before measuring, against what was measured.

use super::super::cells::{self, number, with_interval};
use super::fragments::{place, scrolling};
use super::marks;
use super::scatter::{Plot, Point};
use crate::scale::Scale;
use analysis::{Report, Row};
use domain::Validity;
use maud::{Markup, html};

/// Errors that are drawn at the edge instead of making the others unreadable.
const FAR: f64 = 100.0;
/// Around zero, in percent.
const BAND: f64 = 5.0;
/// Points that are named in the drawing.
const NAMED: usize = 4;
/// Most rows of the table; the tables of the networks contain all.
const LISTED: usize = 40;

pub(super) fn section(report: &Report) -> Markup {
    let mut rows: Vec<(&Row, f64, f64)> = report
        .rows
        .iter()
        .filter(|row| row.verdict == Validity::Valid)
        .filter_map(|row| {
            Some((row, 100.0 * row.prediction_error?, row.throughput_fps?.point))
                .filter(|(_, _, fps)| *fps > 0.0)
        })
        .collect();
    rows.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    html! {
        section aria-labelledby="prediction" {
            h2 #prediction { "Predicted against measured" }
            @if rows.is_empty() {
                p.callout { "No valid schedule was both predicted and measured." }
            } @else {
                p { (sentence(&rows)) }
                figure {
                    (marks::legend(rows.iter().map(|(row, _, _)| row.kind)))
                    (plot(&rows).draw())
                    (table(&rows))
                }
            }
        }
    }
}

fn sentence(rows: &[(&Row, f64, f64)]) -> String {
    let within = rows.iter().filter(|(_, error, _)| error.abs() <= BAND).count();
    let middle = rows[rows.len() / 2].1.abs();
    let (row, worst, _) = rows[0];
    format!(
        "{within} of {} schedules were predicted within {BAND:.0} % of the measurement; half of them within {middle:.1} %. \
         The largest error is that of {}: {worst:+.0} %.",
        rows.len(),
        place(row)
    )
}

fn plot(rows: &[(&Row, f64, f64)]) -> Plot {
    let reach = rows.iter().map(|(_, error, _)| error.abs()).fold(1.5 * BAND, f64::max).min(FAR);
    let speeds = || rows.iter().map(|(_, _, fps)| *fps);
    let points = rows.iter().enumerate().map(|(rank, (row, error, fps))| {
        // The interval of the measured value, as an interval of the error.
        let error_at = |end: f64| 100.0 * ((1.0 + error / 100.0) * fps / end - 1.0);
        let range = row.throughput_fps.and_then(|fps| fps.drawn_ends());
        Point {
            kind: row.kind,
            x: *fps,
            y: *error,
            range: range.filter(|(lo, _)| *lo > 0.0).map(|(lo, hi)| (error_at(hi), error_at(lo))),
            x_range: None,
            label: (rank < NAMED && error.abs() > BAND).then(|| row.network.clone()),
            name: format!("{}: {error:+.1} %", place(row)),
        }
    });
    Plot {
        title: "Prediction error over measured throughput".to_owned(),
        description: format!(
            "{} schedules. Above zero the prediction is too fast. The table below has the figures.",
            rows.len()
        ),
        x: Scale::logarithmic(speeds().fold(f64::INFINITY, f64::min), speeds().fold(0.0, f64::max)),
        y: Scale::round(-reach, reach),
        x_unit: "measured frames per second, logarithmic",
        y_unit: "predicted over measured − 1; the band is ± 5 %, whiskers show the interval of the measurement",
        suffix: "\u{2009}%",
        band: Some((0.0, BAND)),
        points: points.collect(),
        joined: Vec::new(),
    }
}

fn table(rows: &[(&Row, f64, f64)]) -> Markup {
    let table = html! {
        table {
            caption {
                "Predicted and measured frames per second, the largest error first"
                @if rows.len() > LISTED {
                    ": " (LISTED) " of " (rows.len()) "; see the networks for the others"
                }
            }
            thead {
                tr {
                    th scope="col" { "Network" }
                    th scope="col" { "Schedule" }
                    th.n scope="col" { "Predicted" }
                    th.n scope="col" { "Measured" }
                    th.n scope="col" { "Error" }
                }
            }
            tbody {
                @for (row, error, _) in rows.iter().take(LISTED) {
                    tr {
                        th scope="row" { (row.network) }
                        td.t { code { (cells::label(row)) } }
                        td { (row.predicted_fps.map(number).unwrap_or_default()) }
                        td { (row.throughput_fps.map(|fps| with_interval(&fps, "")).unwrap_or_default()) }
                        td { (format!("{error:+.1}\u{2009}%")) }
                    }
                }
            }
        }
    };
    html! { details { summary { "Predictions as a table" } (scrolling("Predicted and measured", &table)) } }
}
