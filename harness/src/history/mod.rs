//! `cargo xtask history`: a figure of a network over runs and revisions.
//!
//! [`History::build`] takes the runs of the database to series of points; what kind of thing is compared with what is
//! decided here, where the level changed in [`domain::history`]. Everything else is a pure function to text.

mod conditions;
mod rows;
mod series;
mod terminal;
#[cfg(test)]
mod tests;
mod texts;

use crate::cli::HistoryFormat;

pub use rows::{Condition, Figure, History, LeftOut, Measure, Point, SCHEMA, Segment, Series, Step};
pub use series::{Asked, HistoryError};

impl History {
    /// The history as text that ends with a line end.
    pub fn render(&self, format: HistoryFormat) -> String {
        match format {
            HistoryFormat::Terminal => terminal::render(self),
            HistoryFormat::Markdown => texts::markdown(self),
            HistoryFormat::Csv => texts::csv(self),
            // Every number is finite and every key a string, so there is nothing to fail.
            HistoryFormat::Json => {
                serde_json::to_string_pretty(self).map_or_else(|error| error.to_string(), |text| text + "\n")
            }
        }
    }

    /// The JSON Schema of [`HistoryFormat::Json`], as `results/history.schema.json` has it.
    pub fn json_schema() -> String {
        format!("{:#}\n", schemars::schema_for!(History).to_value())
    }
}
