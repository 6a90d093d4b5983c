//! The verdicts of `verify-claims` as terminal table, Markdown and JSON.

use crate::cells;
use crate::format::json;
use crate::markdown::escaped;
use analysis::{Claim, ClaimComparison, ClaimOnNetwork, ClaimVerdict, Claims, Interval};
use clap::ValueEnum;
use domain::{ScheduleKind, statistics};
use std::fmt::Write as _;
use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::style::HorizontalLine;
use tabled::settings::{Alignment, Padding, Style};

/// Formats of the verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClaimsFormat {
    /// A table per claim, for reading.
    Terminal,
    /// For documents and pull requests.
    Markdown,
    /// For programs; the schema is results/claims.schema.json.
    Json,
}

/// The verdicts as text that ends with a newline.
pub(super) fn render(claims: &Claims, format: ClaimsFormat) -> String {
    match format {
        ClaimsFormat::Terminal => terminal(claims),
        ClaimsFormat::Markdown => markdown(claims),
        ClaimsFormat::Json => json(claims),
    }
}

const COLUMNS: [&str; 5] = ["network", "pipeline", "over", "", "verdict"];

fn terminal(claims: &Claims) -> String {
    let mut out = heading(claims).join("\n") + "\n";
    for claim in &claims.claims {
        let _ = write!(out, "\n{}\n", title(claim));
        let records = records(claim);
        if !records.is_empty() {
            let mut builder = Builder::default();
            builder.push_record(columns(claim));
            for record in records {
                builder.push_record(record);
            }
            let mut table = builder.build();
            table
                .with(Style::empty().horizontals([(1, HorizontalLine::new('─'))]))
                .with(Padding::new(0, 2, 0, 0))
                .modify(Columns::one(3), Alignment::right());
            for line in table.to_string().lines() {
                out.extend([line.trim_end(), "\n"]);
            }
        }
        for note in notes(claim) {
            out.extend([&note, "\n"]);
        }
    }
    for note in closing(claims) {
        out.extend(["\n", &note, "\n"]);
    }
    out
}

fn markdown(claims: &Claims) -> String {
    let mut out = String::new();
    for line in heading(claims) {
        out.extend(["- ", &escaped(&line), "\n"]);
    }
    for claim in &claims.claims {
        let _ = write!(out, "\n### {}\n\n", escaped(&title(claim)));
        let row = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| escaped(cell)).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let records = records(claim);
        if !records.is_empty() {
            out += &row(&columns(claim));
            out += "|---|---|---|--:|---|\n";
            for record in &records {
                out += &row(record);
            }
        }
        let notes = notes(claim);
        if !notes.is_empty() {
            out += "\n";
        }
        for note in notes {
            out.extend(["- ", &escaped(&note), "\n"]);
        }
    }
    for note in closing(claims) {
        out.extend(["\n", &escaped(&note), "\n"]);
    }
    out
}

fn heading(claims: &Claims) -> Vec<String> {
    let mut lines = vec![format!("claims of {}", claims.source)];
    lines.extend(claims.runs.iter().map(|run| {
        format!("run {} ({}) on {}, experiment {}", run.id, run.status, run.board, run.experiment)
    }));
    lines.push(format!(
        "{:.0} % intervals; a claim holds if it holds on every network",
        100.0 * claims.confidence
    ));
    lines
}

fn title(claim: &Claim) -> String {
    format!("{}: {} – {}", claim.claim.name(), claim.verdict.name(), claim.text)
}

fn columns(claim: &Claim) -> [String; 5] {
    let mut columns = COLUMNS.map(str::to_owned);
    claim.claim.unit().clone_into(&mut columns[3]);
    columns
}

/// A row per comparison. Network and pipeline are in the first of them.
fn records(claim: &Claim) -> Vec<[String; 5]> {
    let mut records = Vec::new();
    for network in &claim.networks {
        for (place, comparison) in network.comparisons.iter().enumerate() {
            let first = |text: &str| if place == 0 { text.to_owned() } else { String::new() };
            records.push([
                first(&network.network),
                first(network.pipeline.as_deref().unwrap_or_default()),
                baseline(comparison),
                cells::or_dash(comparison.figure.as_ref().map(percent)),
                verdict(comparison),
            ]);
        }
    }
    records
}

fn baseline(comparison: &ClaimComparison) -> String {
    let best = if comparison.is_best_single { " (best)" } else { "" };
    let peer = if comparison.kind == ScheduleKind::Peer { "peer " } else { "" };
    format!("{peer}{}{best}", comparison.baseline)
}

/// In parentheses if it does not decide.
fn verdict(comparison: &ClaimComparison) -> String {
    let name = comparison.verdict.name();
    if comparison.decides { name.to_owned() } else { format!("({name})") }
}

/// A share with its interval in percent: `88.1 % [87.2, 89.0]`, or `88.1 % [?]` if it says hardly anything.
fn percent(figure: &Interval) -> String {
    let number = |share: f64| format!("{:+.1}", 100.0 * share);
    let point = format!("{} %", number(figure.point));
    // The figure is a share beyond 1, or a saving.
    let is_too_wide =
        |(lo, hi): (f64, f64)| 0.5 * (hi - lo) > statistics::WIDEST_SHOWN * (1.0 + figure.point);
    match figure.lo.zip(figure.hi) {
        Some(ends) if is_too_wide(ends) => format!("{point} [?]"),
        Some((lo, hi)) => format!("{point} [{}, {}]", number(lo), number(hi)),
        None => point,
    }
}

/// Why the claim is inconclusive on a network; networks with the same reason share a line.
fn notes(claim: &Claim) -> Vec<String> {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    let inconclusive = |network: &&ClaimOnNetwork| network.verdict == ClaimVerdict::Inconclusive;
    for network in claim.networks.iter().filter(inconclusive) {
        let Some(reason) = network.reason.as_deref() else { continue };
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, networks)) => networks.push(&network.network),
            None => reasons.push((reason, vec![&network.network])),
        }
    }
    let line = |(reason, networks): (&str, Vec<&str>)| {
        format!("{} on {}: {reason}", ClaimVerdict::Inconclusive.name(), networks.join(", "))
    };
    reasons.into_iter().map(line).collect()
}

fn closing(claims: &Claims) -> Vec<String> {
    let mut notes = Vec::new();
    let has_aside = |network: &ClaimOnNetwork| network.comparisons.iter().any(|one| !one.decides);
    if claims.claims.iter().flat_map(|claim| &claim.networks).any(has_aside) {
        notes.push("verdicts in parentheses do not count for the claim".to_owned());
    }
    if claims.trials_failed > 0 {
        notes.push(format!("{} trials failed; `report` shows why", claims.trials_failed));
    }
    notes
}
