//! The regression gate: baselines kept in files, and runs held against them.
//!
//! A baseline is the figures of single trials of one or several runs, with what they were measured on; it is committed
//! below `results/baselines/`. [`check`] judges a run by the rules of [`domain::gate`] and writes nothing down; what it
//! says is rendered as text, Markdown, `JUnit` XML or JSON.

mod baseline;
mod check;
mod identity;
mod render;
#[cfg(test)]
mod tests;

pub use baseline::{Baseline, BaselineRow, BaselineRun, BaselineTrial};
pub use check::{CheckReport, CheckedRow, NotCompared, Verdict, check};
pub use identity::{Difference, Identity};
pub use render::Format;

/// The JSON Schemas of what this writes: file name below `results/`, and contents.
#[cfg(test)]
fn schemas() -> [(&'static str, String); 2] {
    let text = |schema: schemars::Schema| format!("{:#}\n", schema.to_value());
    [
        ("baseline.schema.json", text(schemars::schema_for!(Baseline))),
        ("check.schema.json", text(schemars::schema_for!(CheckReport))),
    ]
}
