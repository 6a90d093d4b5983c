//! The work of a bench on several boards.

use config::{Connect, Loaded};
use store::{CampaignRecord, StoredRun};

/// A board with its configuration.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) loaded: Loaded,
    /// The run to resume.
    pub(super) resume: Option<StoredRun>,
}

impl Job {
    pub(super) fn board(&self) -> &str {
        &self.loaded.board.name
    }

    pub(super) fn is_on_farm(&self) -> bool {
        matches!(self.loaded.board.connect, Connect::Labgrid(_))
    }
}

/// One `bench` on several boards.
#[derive(Debug)]
pub struct FleetJob {
    pub(super) record: CampaignRecord,
    pub(super) jobs: Vec<Job>,
}

impl FleetJob {
    /// The boards, and how they share the trials.
    pub fn record(&self) -> &CampaignRecord {
        &self.record
    }
}
