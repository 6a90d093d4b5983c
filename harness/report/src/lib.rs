//! Figures to text: terminal, Markdown, CSV, JSON, LaTeX, HTML and traces. Everything here is a pure function from figures
//! to text; absent figures are shown as a dash or `null`, never as a zero.

mod campaign_text;
mod cells;
mod csv;
mod gate;
mod headline;
mod history;
mod html;
mod latex;
mod markdown;
mod notes;
mod paper;
mod peers;
mod terminal;
#[cfg(test)]
mod tests;
mod trace;

pub use gate::{CheckFormat, few_trials};
pub use history::HistoryFormat;

use analysis::gate::CheckReport;
use analysis::history::History;
use analysis::{CampaignReport, Report, Row};
use clap::ValueEnum;
use store::TrialRecord;

/// Formats of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One table per network, for reading.
    Terminal,
    /// For documents and pull requests.
    Markdown,
    /// One row per schedule, for spreadsheets.
    Csv,
    /// For programs; the schema is results/report.schema.json.
    Json,
    /// One self-contained page with charts, for a browser.
    Html,
    /// The paper's table (network, processors, pipeline, gain, energy) in Markdown.
    Paper,
    /// The paper's table as a complete LaTeX document.
    Latex,
    /// The paper's table alone, for `\\input`.
    LatexTable,
}

/// The report as text that ends with a newline. Terminal tables fit 100 columns unless `wide`.
pub fn render(report: &Report, format: Format, wide: bool) -> String {
    match format {
        Format::Terminal => terminal::render(report, wide),
        Format::Markdown => markdown::render(report),
        Format::Csv => csv::render(report),
        Format::Json => json(report),
        Format::Html => html::render(report),
        Format::Latex => latex::document(report),
        Format::LatexTable => latex::table(report),
        Format::Paper => paper::markdown(report),
    }
}

/// The report on several boards as text that ends with a newline.
pub fn render_campaign(report: &CampaignReport, format: Format, wide: bool) -> String {
    campaign_text::render(report, format, wide)
}

/// The result of a check as text that ends with a newline.
pub fn render_check(check: &CheckReport, format: CheckFormat) -> String {
    gate::render(check, format)
}

/// The history as text that ends with a newline.
pub fn render_history(history: &History, format: HistoryFormat) -> String {
    history::render(history, format)
}

/// The timeline of one trial of a row, for Perfetto.
///
/// # Errors
/// A reason if the trial has no timeline.
pub fn trace(report: &Report, row: &Row, trial: &TrialRecord) -> Result<String, String> {
    trace::render(report, row, trial)
}

/// The JSON Schema of a type, as `results/*.schema.json` has it.
#[cfg(test)]
fn schema<T: schemars::JsonSchema>() -> String {
    format!("{:#}\n", schemars::schema_for!(T).to_value())
}

fn json(value: &impl serde::Serialize) -> String {
    // All numbers are finite and all keys are strings, so this cannot fail.
    serde_json::to_string_pretty(value).map_or_else(|error| error.to_string(), |text| text + "\n")
}
