//! The regression gate: baselines kept in files, and runs compared with them.
//!
//! A baseline holds the figures of single trials of one or several runs, and what they were measured on; it is committed
//! below `results/baselines/`. [`check`] judges a run by the rules of [`domain::gate`].

mod baseline;
mod check;
mod identity;

pub use baseline::{Baseline, BaselineRow, BaselineRun, BaselineTrial};
pub use check::{CheckReport, CheckedRow, GateVerdict, NotCompared, check};
pub use identity::{Difference, Identity};
