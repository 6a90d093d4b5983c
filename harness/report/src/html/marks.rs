//! The mark of each kind of schedule: colour, shape and hatching, so that readers need not distinguish colours.

use crate::scale::{self, Scale, percent};
use domain::ScheduleKind;
use maud::{Markup, html};
use std::collections::BTreeSet;

/// Shapes and hatchings, once a page.
pub(super) fn definitions() -> Markup {
    html! {
        svg.definitions width="0" height="0" aria-hidden="true" focusable="false" {
            defs {
                circle #m-single r="4.5" {}
                path #m-pipeline d="M0-6.5L6.5 0 0 6.5-6.5 0z" {}
                rect #m-replicate x="-4.5" y="-4.5" width="9" height="9" {}
                path #m-peer d="M0-6L5.8 4.5H-5.8z" {}
                path #m-merged d="M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z" {}
                pattern #h-merged width="6" height="6" patternUnits="userSpaceOnUse" {
                    rect.fill-merged width="6" height="6" {}
                    rect.gap width="6" height="1.5" {}
                }
                pattern #h-replicate width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    rect.fill-replicate width="7" height="7" {}
                    rect.gap width="2" height="7" {}
                }
                pattern #h-peer width="6" height="6" patternUnits="userSpaceOnUse" {
                    rect.fill-peer width="6" height="6" {}
                    circle.gap cx="3" cy="3" r="1.3" {}
                }
            }
        }
    }
}

/// Labels of an axis above a column of drawings, and lines at its ticks that the drawings below take over by
/// [`grid`]. The name is unique on the page.
pub(super) fn axis(name: &str, scale: &Scale, ticks: &[f64], suffix: &str) -> Markup {
    let x = |tick: f64| percent(scale.place(tick));
    html! {
        svg.axis width="100%" height="16" aria-hidden="true" focusable="false" {
            defs {
                g.grid id=(name) { @for tick in ticks { line x1=(x(*tick)) x2=(x(*tick)) y2="100%" {} } }
            }
            @for tick in ticks { text x=(x(*tick)) y="12" { (scale::label(*tick)) (suffix) } }
        }
    }
}

/// The lines of an axis in a drawing below it.
pub(super) fn grid(name: &str) -> Markup {
    html! { use href={ "#" (name) } {} }
}

/// A mark at a place of a drawing.
pub(super) fn mark(kind: ScheduleKind, x: &str, y: &str, void: bool) -> Markup {
    let class = kind.as_str();
    html! {
        use class={ "m " (class) @if void { " hollow" } } href={ "#m-" (class) } x=(x) y=(y) {}
    }
}

/// The kinds that occur, with their marks.
pub(super) fn legend(kinds: impl Iterator<Item = ScheduleKind>) -> Markup {
    let kinds: BTreeSet<ScheduleKind> = kinds.collect();
    html! {
        ul.legend {
            @for kind in kinds {
                li {
                    svg width="14" height="14" aria-hidden="true" focusable="false" { (mark(kind, "7", "7", false)) }
                    (kind)
                }
            }
        }
    }
}
