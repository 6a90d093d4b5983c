//! Comparison with other inference engines, over all networks.

use super::fragments::scrolling;
use super::marks;
use crate::scale::{Scale, percent};
use analysis::{Report, Summary};
use maud::{Markup, html};

/// Whether there is anything to say.
pub(super) fn is_there(report: &Report) -> bool {
    compared(report).next().is_some()
}

fn compared(report: &Report) -> impl Iterator<Item = (&Summary, &str)> {
    report.summary.iter().filter_map(|summary| Some((summary, summary.over_peer.as_deref()?)))
}

pub(super) fn section(report: &Report) -> Markup {
    if !is_there(report) {
        return html! {};
    }
    let ends = || compared(report).flat_map(|(summary, _)| [summary.gain_least, summary.gain_greatest]);
    let scale = Scale::round(ends().fold(0.9, f64::min), ends().fold(1.1, f64::max));
    let kinds = compared(report).map(|(summary, _)| summary.kind);
    let table = html! {
        table.chart {
            caption {
                "Throughput over that of another engine in the same rounds. A line spans the networks from the smallest to \
                 the largest gain; the mark is their geometric mean."
            }
            thead {
                tr {
                    th scope="col" { "Schedule, over" }
                    th.plot scope="col" { span.hide { "Chart" } (marks::axis("over", &scale, &scale.few_ticks(), "×")) }
                    th.n scope="col" { "Geometric mean" }
                    th.n scope="col" { "Minimum" }
                    th.n scope="col" { "Maximum" }
                    th.n scope="col" { "Networks" }
                }
            }
            tbody { @for (summary, peer) in compared(report) { (line(summary, peer, &scale)) } }
        }
    };
    html! {
        section aria-labelledby="peers" {
            h2 #peers { "Compared with other inference engines" }
            figure { (marks::legend(kinds)) (scrolling("Gain over other engines", &table)) }
        }
    }
}

fn line(summary: &Summary, peer: &str, scale: &Scale) -> Markup {
    let times = |gain: f64| format!("{gain:.2}×");
    let (mean, least, greatest) = (summary.gain_geometric_mean, summary.gain_least, summary.gain_greatest);
    html! {
        tr {
            th scope="row" { (summary.kind) small { "over " (peer) } }
            td.plot {
                svg.row role="img" width="100%" height="24" {
                    title { (summary.kind) " over " (peer) ": " (times(mean)) ", from " (times(least)) " to " (times(greatest)) }
                    (marks::grid("over"))
                    @let one = percent(scale.place(1.0));
                    line.one x1=(one) x2=(one) y1="0" y2="100%" {}
                    line class={ "whisker " (summary.kind) } x1=(percent(scale.place(least)))
                        x2=(percent(scale.place(greatest))) y1="12" y2="12" {}
                    (marks::mark(summary.kind, &percent(scale.place(mean)), "12", false))
                }
            }
            td { b { (times(mean)) } }
            td { (times(least)) }
            td { (times(greatest)) }
            td { (summary.networks) }
        }
    }
}
