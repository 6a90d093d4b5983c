//! A history as text.

mod terminal;
#[cfg(test)]
mod tests;
mod texts;

use analysis::history::History;
use clap::ValueEnum;

/// Formats of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HistoryFormat {
    /// One line per run, with its interval as a bar.
    Terminal,
    /// For documents and pull requests.
    Markdown,
    /// One row per run, for spreadsheets.
    Csv,
    /// For programs; the schema is results/history.schema.json.
    Json,
}

pub(crate) fn render(history: &History, format: HistoryFormat) -> String {
    match format {
        HistoryFormat::Terminal => terminal::render(history),
        HistoryFormat::Markdown => texts::markdown(history),
        HistoryFormat::Csv => texts::csv(history),
        HistoryFormat::Json => crate::format::json(history),
    }
}
