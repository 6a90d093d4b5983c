//! How the stages of a schedule spent the time of a window.

use super::super::cells::{self, ABSENT, number};
use super::fragments::{schedule, scrolling};
use crate::scale::percent;
use analysis::{Row, StageSection};
use domain::ScheduleKind;
use maud::{Markup, html};

/// Stages of all schedules that have several; empty if there are none.
pub(super) fn figure(name: &str, rows: &[&Row]) -> Markup {
    let rows: Vec<&&Row> = rows
        .iter()
        .filter(|row| row.stages.len() > 1 && row.stages.iter().any(|stage| stage.busy.is_some()))
        .collect();
    if rows.is_empty() {
        return html! {};
    }
    let table = html! {
        table.chart.stages {
            caption { "Share of the window each stage of " (name) " was busy or waited, medians over the trials" }
            thead {
                tr {
                    th scope="col" { "Stage" }
                    th.plot scope="col" {
                        span.hide { "Drawn" }
                        svg.axis width="100%" height="16" aria-hidden="true" focusable="false" {
                            @for tick in [0, 50, 100] {
                                text x={ (tick) "%" } y="12" { (tick) "\u{2009}%" }
                            }
                        }
                    }
                    th.n scope="col" { "busy" }
                    th.n scope="col" { "waits for input" }
                    th.n scope="col" { "waits for output" }
                    th.n scope="col" { "ms alone" }
                    th.n scope="col" { "ms predicted" }
                }
            }
            @for row in rows {
                tbody {
                    tr.of { th colspan="7" scope="rowgroup" { (schedule(row)) } }
                    @for stage in &row.stages { (line(row, stage)) }
                }
            }
        }
    };
    html! {
        figure {
            h4 { "Stage occupancy" }
            ul.legend {
                li { (swatch("busy")) "busy" }
                li { (swatch("in")) "waits for input" }
                li { (swatch("out")) "waits for output" }
            }
            (scrolling(&format!("Stage occupancy of {name}"), &table))
        }
    }
}

fn swatch(class: &str) -> Markup {
    html! {
        svg.shares width="14" height="14" aria-hidden="true" focusable="false" {
            rect class=(class) width="14" height="14" {}
        }
    }
}

fn line(row: &Row, stage: &StageSection) -> Markup {
    let share = |share: Option<f64>| {
        share.map_or_else(|| ABSENT.to_owned(), |share| format!("{:.0}\u{2009}%", 100.0 * share))
    };
    let ms = |ms: Option<f64>| ms.map_or_else(|| ABSENT.to_owned(), number);
    let units = match stage.end_unit - stage.first_unit {
        1 => stage.first.clone(),
        _ => format!("{} … {}", stage.first, stage.last),
    };
    html! {
        tr {
            th scope="row" { (cells::processor(&stage.processor, &row.emulated)) @if row.kind == ScheduleKind::Pipeline { small { (units) } } }
            td.plot { (drawing(row, stage)) }
            td { (share(stage.busy)) }
            td { (share(stage.waiting_input)) }
            td { (share(stage.waiting_output)) }
            td { (ms(stage.isolated_ms)) }
            td { (ms(stage.predicted_ms)) }
        }
    }
}

/// The cells beside it say the same.
fn drawing(row: &Row, stage: &StageSection) -> Markup {
    let mut at = 0.0;
    let mut parts = Vec::new();
    for (class, share) in [("busy", stage.busy), ("in", stage.waiting_input), ("out", stage.waiting_output)] {
        let width = (100.0 * share.unwrap_or(0.0)).clamp(0.0, 100.0 - at);
        // Too narrow to be seen.
        if width >= 0.05 {
            parts.push((class, at, width));
        }
        at += width;
    }
    html! {
        svg.shares width="100%" height="14" aria-hidden="true" {
            @for (class, x, width) in parts {
                rect class={ (class) @if class == "busy" { " " (row.kind) } }
                    x=[(x > 0.0).then(|| percent(x))] width=(percent(width)) {}
            }
        }
    }
}
