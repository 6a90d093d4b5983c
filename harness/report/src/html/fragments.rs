//! Pieces of HTML that several sections share.

use super::super::cells;
use analysis::{Report, Row};
use maud::{Markup, html};

pub(super) fn confidence(report: &Report) -> String {
    format!("{:.0}\u{2009}%", 100.0 * report.confidence)
}

/// A table that scrolls sideways if it is too wide, also with the keyboard.
pub(super) fn scrolling(label: &str, table: &Markup) -> Markup {
    html! { div.scroll role="region" tabindex="0" aria-label=(label) { (table) } }
}

/// A schedule's name as shown, with a place to break after each stage.
pub(super) fn schedule(row: &Row) -> Markup {
    html! {
        code.schedule {
            @for (place, part) in cells::stage_lines(row).iter().enumerate() {
                @if place > 0 { " " wbr; }
                span { (part) }
            }
        }
    }
}

/// What a figure is of.
pub(super) fn place(row: &Row) -> String {
    format!("{} {}", row.network, cells::label(row))
}
