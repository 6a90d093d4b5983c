//! Frames on their way through the stages.

use super::super::cells::{self, number};
use super::fragments::{place, schedule, scrolling};
use crate::scale::{Scale, percent};
use analysis::Row;
use analysis::Timeline;
use domain::ScheduleKind;
use maud::{Markup, html};
use protocol::Span;
use std::collections::BTreeMap;

/// Spans a drawing shows at most.
const SPANS: usize = 20;
/// Height of a stage's lane, which style.css has too, and of the gap below it.
const LANE: usize = 22;
const GAP: usize = 12;
/// Narrowest span, in percent of the width, that has room for its frame's number on a phone.
const LABELLED: f64 = 5.0;

/// The start of a window.
pub(super) fn figure(row: &Row, timeline: &Timeline) -> Markup {
    let (spans, end_ns) = shown(row, &timeline.spans);
    let end = end_ns as f64 / 1e6;
    let scale = Scale::exactly(end);
    let lanes = row.stages.len();
    let height = lanes * (LANE + GAP);
    html! {
        figure.gantt {
            figcaption {
                (schedule(row)) " " span.muted { "the first " (number(end)) " ms of the trial of round " (timeline.round + 1) }
            }
            div.lanes {
                ol.names aria-hidden="true" {
                    @for stage in &row.stages { li { (cells::processor(&stage.processor, &row.emulated)) } }
                }
                svg.plot role="img" width="100%" height=(height + 18) {
                    title { "Timeline of " (place(row)) }
                    desc {
                        (lanes) " lanes, one per stage, show when each frame was in the stage during the first "
                        (number(end)) " ms of the window. The table below has the same figures."
                    }
                    @for tick in scale.ticks() {
                        @let x = percent(scale.place(tick));
                        line.grid x1=(x) x2=(x) y1="0" y2=(height) {}
                        text.tick x=(x) y=(height + 13) { (crate::scale::label(tick)) }
                    }
                    @if row.kind == ScheduleKind::Pipeline { (hand_overs(&spans, &scale)) }
                    g class=(row.kind) { @for span in &spans { (block(span, &scale)) } }
                }
            }
            p.unit { "ms since the window opened; numbers are frames" }
            (table(row, &spans))
        }
    }
}

/// What of the kept frames is drawn, by frame and stage, and the end of the drawing. It ends before the first stage
/// whose frames were kept no longer: a lane that is empty was idle.
fn shown<'s>(row: &Row, spans: &'s [Span]) -> (Vec<&'s Span>, i64) {
    let lanes = 0..u32::try_from(row.stages.len()).unwrap_or(0);
    let in_lanes = |span: &&Span| span.end_ns > 0 && lanes.contains(&span.stage);
    let mut ends: Vec<i64> = spans.iter().filter(in_lanes).map(|span| span.end_ns).collect();
    ends.sort_unstable();
    let last = |stage| spans.iter().filter(|span| span.stage == stage).map(|span| span.end_ns).max();
    let kept = lanes.clone().filter_map(last).min();
    let end = ends.get(SPANS.min(ends.len()).saturating_sub(1)).copied().min(kept).unwrap_or(1).max(1);
    let mut shown: Vec<&Span> = spans.iter().filter(in_lanes).filter(|span| span.begin_ns < end).collect();
    shown.sort_by_key(|span| (span.frame, span.stage));
    (shown, end)
}

fn lane(stage: u32) -> usize {
    stage as usize * (LANE + GAP)
}

fn ends(span: &Span, scale: &Scale) -> (f64, f64) {
    (scale.place(span.begin_ns as f64 / 1e6), scale.place(span.end_ns as f64 / 1e6))
}

fn block(span: &Span, scale: &Scale) -> Markup {
    let (begin, end) = ends(span, scale);
    let width = (end - begin).max(0.15);
    let y = lane(span.stage);
    html! {
        rect class=(if span.frame.is_multiple_of(2) { "a" } else { "b" }) x=(percent(begin)) y=(y) width=(percent(width)) {}
        @if width >= LABELLED { text x=(percent(begin + width / 2.0)) y=(y + 15) { (span.frame) } }
    }
}

/// Lines from where a frame leaves a stage to where the next takes it.
fn hand_overs(spans: &[&Span], scale: &Scale) -> Markup {
    let end = |span: &Span| scale.holds(span.end_ns as f64 / 1e6);
    let follows = |pair: &&[&Span]| pair[0].frame == pair[1].frame && pair[0].stage < pair[1].stage;
    let pairs = spans.windows(2).filter(follows).filter(|pair| end(pair[0]));
    html! {
        g.over {
            @for pair in pairs {
                line x1=(percent(ends(pair[0], scale).1)) y1=(lane(pair[0].stage) + LANE)
                    x2=(percent(ends(pair[1], scale).0)) y2=(lane(pair[1].stage)) {}
            }
        }
    }
}

fn table(row: &Row, spans: &[&Span]) -> Markup {
    let ms = |ns: i64| format!("{:.1}", ns as f64 / 1e6);
    let mut frames: BTreeMap<u64, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        frames.entry(span.frame).or_default().push(span);
    }
    let frames = html! {
        table.narrow {
            caption { "When each frame was in each stage, ms since the window opened" }                 thead {
                tr { th.n scope="col" { "Frame" } @for stage in &row.stages { th.n scope="col" { (cells::processor(&stage.processor, &row.emulated)) } } }
            }
            tbody {
                @for (frame, spans) in &frames {
                    tr {
                        td { (frame) }
                        @for stage in 0..row.stages.len() {
                            td {
                                @if let Some(span) = spans.iter().find(|span| span.stage as usize == stage) {
                                    (ms(span.begin_ns)) " to " (ms(span.end_ns))
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    html! {
        details {
            summary { "These frames as a table" span.hide { ": " (cells::label(row)) } }
            (scrolling(&format!("Frames of {}, schedule {}", place(row), row.place), &frames))
        }
    }
}
