//! Figures to text: terminal, Markdown, CSV, JSON, LaTeX, HTML and traces. Everything here is a pure function from figures
//! to text; absent figures are shown as a dash or `null`, never as a zero.

mod campaign_text;
mod cells;
mod claims;
mod csv;
mod format;
mod gate;
mod headline;
mod history;
mod html;
mod junit;
mod latex;
mod markdown;
mod notes;
mod optimization;
mod paper;
mod peers;
mod scale;
mod streams;
mod terminal;
#[cfg(test)]
mod tests;
mod trace;

pub use claims::ClaimsFormat;
pub use format::{Format, render};
pub use gate::{CheckFormat, few_trials};
pub use history::HistoryFormat;
pub use optimization::OptimizeFormat;

use analysis::gate::CheckReport;
use analysis::history::History;
use analysis::{CampaignReport, Claims, Optimization, Report, Row};
use store::TrialRecord;

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

/// The result of `optimize` as text that ends with a newline.
pub fn render_optimization(result: &Optimization, format: OptimizeFormat) -> String {
    optimization::render(result, format)
}

/// The verdicts on the paper's claims as text that ends with a newline.
pub fn render_claims(claims: &Claims, format: ClaimsFormat) -> String {
    claims::render(claims, format)
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
