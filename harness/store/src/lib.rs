//! What is kept: a journal for each run, and one database for all of them.
//!
//! A record goes to the journal first, is on the disk there, and then goes into the database in one transaction,
//! which also notes how far the journal has been brought in. So a record is in the database once or not at all, and
//! [`Store::catch_up`] finishes what a full disk, a lock or a kill left undone.
//!
//! Invariants: raw observations are never changed, and come back from the database as the runner sent them. Several
//! harnesses may use one database at the same time. Nothing here derives a figure from a sample.

mod catalog;
mod database;
mod error;
mod file_system;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
mod holder;
mod insertion;
mod journal;
mod machine;
mod merge;
mod power;
mod record;
mod recorder;
mod run_id;
#[cfg(not(feature = "fixture"))]
mod schema;
#[cfg(feature = "fixture")]
pub mod schema;
mod selection;
mod tables;
mod takeover;
#[cfg(test)]
mod tests;
mod trials;

pub use catalog::{RunFilter, RunSummary, StoredCampaign, StoredRun};
pub use database::{Access, Store};
pub use error::StoreError;
pub use journal::{JournalError, path_of as journal_path};
pub use merge::{Import, Merged, Standing};
pub use record::{
    CampaignRecord, ComparisonRecord, Cooling, Finished, NetworkRecord, Outcome, ProcessorRecord,
    ProfileRecord, Record, Resumed, Revision, RunStart, ScheduleRecord, StateRecord, Status, TransferRecord,
    TrialRecord, Versions, is_within,
};
pub use recorder::{Continued, RunRecorder};
pub use run_id::RunId;
pub use takeover::{CaughtUp, Damaged, TakeOver};
