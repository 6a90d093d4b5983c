//! The formats of a run's report.

use crate::{csv, html, junit, latex, markdown, paper, terminal};
use analysis::Report;
use clap::ValueEnum;

/// Formats of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One table per network, for reading.
    Terminal,
    /// For documents and pull requests.
    Markdown,
    /// One row per schedule, for spreadsheets.
    Csv,
    /// For programs; the schema is results/report.schema.json, or results/campaign.schema.json for several boards.
    Json,
    /// JUnit XML, one test per schedule, for CI systems.
    Junit,
    /// One self-contained page with charts, for a browser.
    Html,
    /// The paper's table (network, processors, pipeline, gain, energy) in Markdown.
    Paper,
    /// The paper's table as a complete LaTeX document.
    Latex,
    /// The paper's table alone, for `\input`.
    LatexTable,
}

/// The report as text that ends with a newline. Terminal tables fit 100 columns unless `wide`.
pub fn render(report: &Report, format: Format, wide: bool) -> String {
    match format {
        Format::Terminal => terminal::render(report, wide),
        Format::Markdown => markdown::render(report),
        Format::Csv => csv::render(report),
        Format::Json => json(report),
        Format::Junit => junit::render(report),
        Format::Html => html::render(report),
        Format::Latex => latex::document(report),
        Format::LatexTable => latex::table(report),
        Format::Paper => paper::markdown(report),
    }
}

/// JSON with indentation, and a newline at the end.
pub(crate) fn json(value: &impl serde::Serialize) -> String {
    // All numbers are finite and all keys are strings, so this cannot fail.
    serde_json::to_string_pretty(value).map_or_else(|error| error.to_string(), |text| text + "\n")
}
