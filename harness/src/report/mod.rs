//! What a run says: rows made from the database, and rows as text.
//!
//! [`Report::build`] takes raw observations to rows by the functions of `domain`; everything else here is a pure
//! function from rows to text. What was not measured is absent, as a dash or `null`, and never a zero. A void row
//! shows its figures and why they do not count, and enters no gain.

mod asked;
mod assembly;
mod campaign;
mod campaign_text;
mod cells;
mod csv;
mod energy;
mod figures;
mod heading;
mod headline;
mod html;
mod judgement;
mod latex;
mod markdown;
mod notes;
mod observed;
mod paper;
mod peers;
mod pooled;
mod rows;
mod terminal;
#[cfg(test)]
mod tests;
mod timeline;
mod trace;
mod trial;

use crate::cli::Format;
use crate::store::TrialRecord;

pub use campaign::{Against, BoardSection, CampaignReport, CampaignSection};
pub(crate) use csv::quoted;
pub use energy::energy_within;
pub use figures::{Figures, figures};
pub(crate) use markdown::escaped;
pub use observed::{ScheduleFigures, TrialFigures, trial_figures};
pub use rows::{
    Interval, Latency, MachineSection, NetworkSection, PowerSection, ProcessorSection, RailSection, Reason,
    Report, Row, RunSection, SCHEMA, Severity, StageSection, Summary, Verdict,
};
pub(crate) use terminal::wrapped;
pub use timeline::Timeline;

/// Frames a second of a trial on these CPUs, where nothing voids it.
pub fn valid_throughput(measured: protocol::Measured, cpus: &[u32]) -> Option<f64> {
    let limits = domain::validity::Limits::default();
    let bounds = trial::Bounds { cpus, min_frames: None, limits: &limits, state: None };
    let trial = trial::Trial::new(0, measured, bounds).ok()?;
    trial.is_valid().then_some(trial.throughput.0)
}

/// Whether something was made worse on purpose in a run.
pub fn is_injected(run: &crate::store::StoredRun) -> bool {
    asked::Asked::of(&run.start.configuration).slow_down.is_some()
}

impl Report {
    /// The report as text that ends with a line end. The terminal's tables fit 100 columns unless they may be `wide`.
    pub fn render(&self, format: Format, wide: bool) -> String {
        match format {
            Format::Terminal => terminal::render(self, wide),
            Format::Markdown => markdown::render(self),
            Format::Csv => csv::render(self),
            Format::Json => self.json(),
            Format::Html => html::render(self),
            Format::Latex => latex::document(self),
            Format::LatexTable => latex::table(self),
            Format::Paper => paper::markdown(self),
        }
    }

    /// The timeline of a trial of a row for Perfetto. An error says why there is none.
    pub fn trace(&self, row: &Row, trial: &TrialRecord) -> Result<String, String> {
        trace::render(self, row, trial)
    }

    fn json(&self) -> String {
        // Every number is finite and every key a string, so there is nothing to fail.
        serde_json::to_string_pretty(self).map_or_else(|error| error.to_string(), |text| text + "\n")
    }

    /// The JSON Schema of [`Format::Json`], as `results/report.schema.json` has it.
    pub fn json_schema() -> String {
        format!("{:#}\n", schemars::schema_for!(Report).to_value())
    }
}
