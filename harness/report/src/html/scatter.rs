//! Points over two axes.

use super::marks;
use crate::scale::{self, Scale, percent};
use domain::ScheduleKind;
use maud::{Markup, html};

/// Height of the drawing's area.
const HEIGHT: f64 = 300.0;

/// Most points for which each shows its name under the pointer.
const TOLD: usize = 60;

/// A schedule in a drawing.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub(super) kind: ScheduleKind,
    pub(super) x: f64,
    pub(super) y: f64,
    /// Ends of the interval in y.
    pub(super) range: Option<(f64, f64)>,
    /// Ends of the interval in x.
    pub(super) x_range: Option<(f64, f64)>,
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
    /// A line across the drawing, and the half width of the band around it.
    pub(super) band: Option<(f64, f64)>,
    pub(super) points: Vec<Point>,
    /// Places of two points that a line joins.
    pub(super) joined: Vec<(usize, usize)>,
}

/// Width of the drawing that names are placed for, and of a letter, both in pixels; on a phone names are left out.
const WIDTH: f64 = 860.0;
const LETTER: f64 = 7.2;
/// Height that a name takes.
const LINE: f64 = 14.0;
/// Room that a mark takes to either side.
const MARK: f64 = 9.0;

impl Plot {
    /// Whether each point's name is written, and whether to its left: the first of them that would lie on no other name
    /// and on no mark. What is left out is in the table.
    fn names(&self) -> Vec<Option<bool>> {
        let at = |point: &Point| {
            (WIDTH * self.x.place(point.x) / 100.0, HEIGHT * (1.0 - self.y.place(point.y) / 100.0))
        };
        let marks: Vec<(f64, f64)> = self.points.iter().map(at).collect();
        let mut taken: Vec<(f64, f64, f64)> = Vec::new();
        let mut place = |point: &Point, own: usize| {
            let ((x, y), width) = (at(point), LETTER * point.label.as_ref()?.chars().count() as f64);
            [false, true].into_iter().find(|left| {
                let from = if *left { x - MARK - width } else { x + MARK };
                let free = |(other, to, height): &(f64, f64, f64)| {
                    from + width < *other || *to < from || (height - y).abs() >= LINE
                };
                let clear = |(other, (mark_x, mark_y)): (usize, &(f64, f64))| {
                    other == own
                        || *mark_x < from - 5.0
                        || *mark_x > from + width + 5.0
                        || (mark_y - y).abs() >= MARK
                };
                let inside = from >= 0.0 && from + width <= WIDTH;
                let fits = inside && taken.iter().all(free) && marks.iter().enumerate().all(clear);
                if fits {
                    taken.push((from, from + width, y));
                }
                fits
            })
        };
        self.points.iter().enumerate().map(|(own, point)| place(point, own)).collect()
    }

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
                                line class={ "whisker " (point.kind) } x1=(x(point.x)) x2=(x(point.x)) y1=(y(lo)) y2=(y(hi)) {}
                            }
                            @if let Some((lo, hi)) = point.x_range {
                                line class={ "whisker " (point.kind) } x1=(x(lo)) x2=(x(hi)) y1=(y(point.y)) y2=(y(point.y)) {}
                            }
                            (marks::mark(point.kind, &x(point.x), &y(point.y), false))
                        }
                    }
                    @for (point, left) in self.points.iter().zip(self.names()) {
                        @if let (Some(label), Some(left)) = (&point.label, left) {
                            text class=(if left { "name left" } else { "name" }) x=(x(point.x)) y=(y(point.y)) dx=(if left { "-9" } else { "9" }) dy="4" { (label) }
                        }
                    }
                }
            }
            p.unit { (self.x_unit) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: &[(f64, f64, &str)]) -> Plot {
        let points = points.iter().map(|&(x, y, label)| Point {
            kind: ScheduleKind::Single,
            x,
            y,
            range: None,
            x_range: None,
            label: (!label.is_empty()).then(|| label.to_owned()),
            name: String::new(),
        });
        Plot {
            title: String::new(),
            description: String::new(),
            x: Scale::exactly(100.0),
            y: Scale::exactly(100.0),
            x_unit: "",
            y_unit: "",
            suffix: "",
            band: None,
            points: points.collect(),
            joined: Vec::new(),
        }
    }

    #[test]
    fn names_lie_on_no_other_name_and_no_mark() {
        let (right, left) = (Some(false), Some(true));
        for (points, wanted) in [
            (vec![(10.0, 50.0, "one"), (80.0, 50.0, "other")], vec![right, right]),
            // The second one would lie on the first one's name to its right, and so goes to the left.
            (vec![(40.0, 50.0, "one"), (42.5, 52.0, "other")], vec![left, right]),
            // Nothing is free.
            (
                vec![(50.0, 50.0, "one"), (50.0, 51.0, "other"), (50.0, 50.5, "third")],
                vec![right, left, None],
            ),
            // A mark without a name is not written over either, and nothing leaves the drawing.
            (vec![(50.0, 50.0, "one"), (52.0, 50.0, "")], vec![left, None]),
            (vec![(99.0, 50.0, "a name"), (2.0, 50.0, "a name")], vec![left, right]),
        ] {
            assert_eq!(plot(&points).names(), wanted, "{points:?}");
        }
    }
}
