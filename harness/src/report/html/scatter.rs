//! Points over two axes.

use super::marks;
use super::scale::{self, Scale, percent};
use maud::{Markup, html};

/// Height of the drawing's area.
const HEIGHT: f64 = 300.0;

/// Points up to which each tells its name under the pointer.
const TOLD: usize = 60;

/// A schedule in a drawing.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub(super) kind: String,
    pub(super) x: f64,
    pub(super) y: f64,
    /// Ends of the interval in y.
    pub(super) range: Option<(f64, f64)>,
    /// What is written beside it.
    pub(super) label: Option<String>,
    /// What it is.
    pub(super) name: String,
}

/// A drawing before it is drawn.
#[derive(Debug, Clone)]
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) description: String,
    pub(super) x: Scale,
    pub(super) y: Scale,
    pub(super) x_unit: &'static str,
    pub(super) y_unit: &'static str,
    /// Behind the y ticks.
    pub(super) suffix: &'static str,
    /// A line across and how far around it a band lies.
    pub(super) band: Option<(f64, f64)>,
    pub(super) points: Vec<Point>,
    /// Places of two points that a line joins.
    pub(super) joined: Vec<(usize, usize)>,
}

impl Plot {
    pub(super) fn draw(&self) -> Markup {
        let x = |value: f64| percent(self.x.place(value));
        let y = |value: f64| format!("{:.1}", HEIGHT * (1.0 - self.y.place(value) / 100.0));
        html! {
            p.unit.above { (self.y_unit) }
            div.area {
                svg.plot role="img" width="100%" height=(HEIGHT + 20.0) {
                    title { (self.title) }
                    desc { (self.description) }
                    @if let Some((middle, around)) = self.band {
                        @let top = HEIGHT * (1.0 - self.y.place(middle + around) / 100.0);
                        @let bottom = HEIGHT * (1.0 - self.y.place(middle - around) / 100.0);
                        rect.band width="100%" y=(format!("{top:.1}")) height=(format!("{:.1}", bottom - top)) {}
                    }
                    @for tick in self.x.ticks() {
                        line.grid x1=(x(tick)) x2=(x(tick)) y1="0" y2=(HEIGHT) {}
                        text.tick x=(x(tick)) y=(HEIGHT + 16.0) { (scale::label(tick)) }
                    }
                    @for tick in self.y.ticks() {
                        line.grid x1="0" x2="100%" y1=(y(tick)) y2=(y(tick)) {}
                        text.tick.left x="-8" y=(y(tick)) dy="4" { (scale::label(tick)) (self.suffix) }
                    }
                    @if let Some((middle, _)) = self.band {
                        line.one x1="0" x2="100%" y1=(y(middle)) y2=(y(middle)) {}
                    }
                    @for (from, to) in &self.joined {
                        @let (from, to) = (&self.points[*from], &self.points[*to]);
                        line.joined x1=(x(from.x)) y1=(y(from.y)) x2=(x(to.x)) y2=(y(to.y)) {}
                    }
                    @for point in &self.points {
                        g {
                            @if self.points.len() <= TOLD { title { (point.name) } }
                            @if let Some((lo, hi)) = point.range {
                                line class={ "whisker " (marks::class(&point.kind)) } x1=(x(point.x)) x2=(x(point.x)) y1=(y(lo)) y2=(y(hi)) {}
                            }
                            (marks::mark(&point.kind, &x(point.x), &y(point.y), false))
                        }
                    }
                    @for point in self.points.iter() {
                        @if let Some(label) = &point.label {
                            @let right = self.x.place(point.x) > 60.0;
                            text class=(if right { "name left" } else { "name" }) x=(x(point.x)) y=(y(point.y)) dx=(if right { "-9" } else { "9" }) dy="4" { (label) }
                        }
                    }
                }
            }
            p.unit { (self.x_unit) }
        }
    }
}
