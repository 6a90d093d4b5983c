//! One page with everything: no script, no network, its drawings inline.
//!
//! Every drawing has a title and stands beside or above a table of the same figures. Shapes and hatching say what
//! colours say. Horizontal places are percentages, so drawings fit a phone and their text keeps its size.

mod energy;
mod facts;
mod gain;
mod gantt;
mod marks;
mod network;
mod occupancy;
mod over_peers;
mod prediction;
mod scale;
mod scatter;

use super::cells;
use super::headline;
use analysis::{Report, Row};
use domain::{ScheduleKind, Validity};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::collections::BTreeMap;

const STYLE: &str = include_str!("style.css");

/// Bytes up to which a page takes more timelines; it is to stay below half a megabyte.
const FULL: usize = 490_000;

/// The report as a page.
pub(super) fn render(report: &Report) -> String {
    let without = page(report, &BTreeMap::new());
    if report.timelines.is_empty() {
        return without;
    }
    page(report, &timelines(report, FULL.saturating_sub(without.len())))
}

fn page(report: &Report, timelines: &BTreeMap<u32, String>) -> String {
    let names = headline::networks(report);
    let title = format!("{} on {}", report.run.experiment, report.run.board);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content={ "edgepipe " (report.run.harness) };
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; style-src 'unsafe-inline'; img-src data:";
                link rel="icon" href="data:,";
                title { (title) " · edgepipe" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#main" { "Skip to the figures" }
                (marks::definitions())
                (header(report))
                (contents(report, &names))
                main #main {
                    (gain::section(report, &names))
                    (over_peers::section(report))
                    (networks(report, &names, timelines))
                    (prediction::section(report))
                    (energy::section(report))
                    (facts::notes(report))
                    (facts::reading(report))
                    (facts::provenance(report))
                }
                footer {
                    p {
                        "Drawn by edgepipe " (report.run.harness) " from the raw observations of run "
                        code { (report.run.id) } ", analysis " (report.analysis_version) ". "
                        code { "cargo xtask report --run " (report.run.id) " --format html" } " draws it again."
                    }
                }
            }
        }
    };
    shortened(page.into_string()) + "\n"
}

/// The same page in fewer bytes.
fn shortened(mut markup: String) -> String {
    // No name is to hold control characters, and HTML allows none.
    markup.retain(|character| !character.is_control() || character == '\n');
    // Elements of drawings are empty, and the next cell or row ends one of a table. Text cannot look like either, as it
    // is escaped.
    for element in ["line", "rect", "use", "circle", "path"] {
        markup = markup.replace(&format!("></{element}>"), "/>");
    }
    for element in ["</td>", "</tr>", "</li>"] {
        markup = markup.replace(element, "");
    }
    markup
}

fn header(report: &Report) -> Markup {
    let machine = &report.measured_on;
    let models: Vec<&str> = [&machine.model, &machine.cpu].into_iter().filter_map(Option::as_deref).collect();
    let day = report.run.begun.get(..10).unwrap_or(&report.run.begun);
    html! {
        header.page {
            p.kicker { "edgepipe · experiment " b { (report.run.experiment) } " · board " b { (report.run.board) } }
            h1 { (claim(report)) }
            p.where {
                "Measured on " (day) " on "
                @if models.is_empty() { (machine.arch) } @else { (models.join(", ")) }
                ", " (processors(report)) "."
                @if report.run.status != "complete" {
                    " " strong.void { "This run is " (report.run.status) ", not complete." }
                    @if let Some(reason) = &report.run.ended_because { " " (reason) }
                }
            }
            (tiles(report))
        }
    }
}

fn claim(report: &Report) -> String {
    let Some(summary) = report.summary.iter().find(|summary| summary.over_peer.is_none()) else {
        return format!("What {} measured on {}", report.run.experiment, report.run.board);
    };
    let (gain, kind) = (summary.gain_geometric_mean, summary.kind);
    let over = "the best single processor";
    if summary.networks == 1 {
        let told = report.rows.iter().filter(|row| row.kind == kind && row.verdict == Validity::Valid);
        let once = if told.map(|row| row.trials).max() == Some(1) { ", by one trial" } else { "" };
        return format!("A {kind} reaches {gain:.2}× {over}{once}");
    }
    format!("{kind}s reach {gain:.2}× {over}")
        .replacen('p', "P", usize::from(kind == ScheduleKind::Pipeline))
        .replacen("replicates", "Replicates", 1)
}

fn processors(report: &Report) -> String {
    let processors = report.measured_on.processors.iter().map(|processor| {
        let cpus: Vec<String> = processor.cpus.iter().map(ToString::to_string).collect();
        let cpus = cpus.join(", ");
        match cpus.as_str() {
            "" => processor.name.clone(),
            cpus if processor.cpus.len() == 1 => format!("{} (CPU {cpus})", processor.name),
            cpus => format!("{} (CPUs {cpus})", processor.name),
        }
    });
    processors.collect::<Vec<_>>().join(" and ")
}

/// Figures of the run as a whole.
fn tiles(report: &Report) -> Markup {
    let count = |verdict: Validity| report.rows.iter().filter(|row| row.verdict == verdict).count();
    let (valid, void) = (count(Validity::Valid), count(Validity::Void));
    let trials: usize = report.rows.iter().map(|row| row.trials).sum();
    let lost: usize = report.rows.iter().map(|row| row.trials_failed + row.trials_void).sum();
    let mut widths: Vec<f64> = report
        .rows
        .iter()
        .filter_map(|row| row.throughput_fps?.precision())
        .filter(|w| w.is_finite())
        .collect();
    widths.sort_by(f64::total_cmp);
    let measured = report.rows.iter().filter(|row| row.energy_mj_per_frame.is_some()).count();
    html! {
        ul.tiles {
            @for summary in report.summary.iter().filter(|summary| summary.over_peer.is_none()) {
                li {
                    b { (format!("{:.2}×", summary.gain_geometric_mean)) }
                    span {
                        (summary.kind) " over the best single processor"
                        @if summary.networks > 1 {
                            ", geometric mean of " (summary.networks) " networks ("
                            (format!("{:.2}× to {:.2}×", summary.gain_least, summary.gain_greatest)) ")"
                        }
                    }
                }
            }
            @if let (Some(typical), Some(widest)) = (widths.get(widths.len() / 2), widths.last()) {
                li {
                    b { "±\u{2009}" (format!("{:.1}", 100.0 * typical)) "\u{2009}%" }
                    span {
                        "half-width of a typical " (confidence(report)) " interval of throughput; the widest is ±\u{2009}"
                        (format!("{:.1}", 100.0 * widest)) "\u{2009}%"
                    }
                }
            }
            li {
                b { (valid) "\u{2009}/\u{2009}" (valid + void) }
                span {
                    "schedules count; " (trials) " trials behind them"
                    @if lost > 0 { ", " (lost) " more void or failed" }
                }
            }
            li {
                b { @if measured == 0 { "no energy" } @else { (measured) } }
                span {
                    @if measured == 0 { "was measured; throughput only" } @else { "schedules with measured energy" }
                }
            }
        }
    }
}

fn confidence(report: &Report) -> String {
    format!("{:.0}\u{2009}%", 100.0 * report.confidence)
}

fn contents(report: &Report, names: &[&str]) -> Markup {
    html! {
        nav aria-label="Contents" {
            ul {
                li { a href="#gain" { "Gain" } }
                @for (place, name) in names.iter().enumerate() {
                    li.sub { a href={ "#n" (place) } { (name) } }
                }
                @if over_peers::is_there(report) { li { a href="#peers" { "Peers" } } }
                li { a href="#prediction" { "Prediction" } }
                li { a href="#energy" { "Energy" } }
                li { a href="#notes" { "Notes" } }
                li { a href="#reading" { "How to read" } }
                li { a href="#provenance" { "Provenance" } }
            }
        }
    }
}

fn networks(report: &Report, names: &[&str], timelines: &BTreeMap<u32, String>) -> Markup {
    html! {
        section aria-labelledby="networks" {
            h2 #networks { "Networks" }
            @for (place, name) in names.iter().enumerate() {
                (network::section(report, name, place, timelines))
            }
        }
    }
}

/// Drawn timelines by schedule, as many as there is room for.
fn timelines(report: &Report, room: usize) -> BTreeMap<u32, String> {
    let mut drawn = BTreeMap::new();
    let mut bytes = 0;
    for timeline in &report.timelines {
        let Some(row) = report.rows.iter().find(|row| row.place == timeline.place) else { continue };
        let figure = shortened(gantt::figure(row, timeline).into_string());
        bytes += figure.len();
        if bytes > room {
            break;
        }
        drawn.insert(timeline.place, figure);
    }
    drawn
}

/// A table that scrolls sideways where it must, with the keyboard too.
fn scrolling(label: &str, table: &Markup) -> Markup {
    html! { div.scroll role="region" tabindex="0" aria-label=(label) { (table) } }
}

/// A schedule's name as shown, with a place to break after each stage.
fn schedule(row: &Row) -> Markup {
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
fn place(row: &Row) -> String {
    format!("{} {}", row.network, row.schedule)
}
