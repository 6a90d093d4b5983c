//! Storage of results: a journal for each run, and one database for all runs.
//!
//! A record is first written to the journal and synced to the disk. Then it is stored in the database, in one transaction
//! that also updates how much of the journal the database has. So the database has each record at most once, and
//! [`Store::catch_up`] completes it after a full disk, a lock or a kill.
//!
//! Invariants: raw observations are never changed, and are read back exactly as the runner sent them. Several processes can
//! use one database at the same time. This crate computes no figures.

mod catalog;
mod database;
mod error;
mod file_system;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
mod holder;
mod insertion;
mod journal;
mod journal_import;
mod machine;
mod merge;
mod power;
mod processor_record;
mod record;
mod recorder;
mod run_id;
pub mod schema;
mod selection;
mod streams;
mod tables;
#[cfg(test)]
mod tests;
mod trials;

pub use catalog::{RunFilter, RunSummary, StoredCampaign, StoredRun};
pub use database::{Access, Store};
pub use error::StoreError;
pub use journal::{JournalError, path_of as journal_path};
pub use journal_import::{DamagedJournal, ImportedJournal, JournalImport};
pub use merge::{Import, ImportStatus, Merged};
pub use processor_record::{GpuRecord, ProcessorRecord};
pub use record::{
    CampaignRecord, ComparisonRecord, Cooling, Finished, NetworkRecord, OperatingPointRecord, Outcome,
    PRECISION, PowerCycleRecord, ProfileRecord, Record, Resumed, Revision, RunStart, ScheduleRecord,
    StateRecord, Status, TransferRecord, TrialRecord, Versions, WINOGRAD, is_within,
};
pub use recorder::{Continued, RunRecorder};
pub use run_id::RunId;
