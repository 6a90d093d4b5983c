//! What a run already has when it goes on.

use store::{
    self, ProcessorRecord, ProfileRecord, RunId, ScheduleRecord, Store, StoreError, StoredRun, TransferRecord,
};

/// What a run already has when it goes on.
#[derive(Debug, Clone, Default)]
pub struct Before {
    pub(super) processors: Vec<ProcessorRecord>,
    pub(super) networks: Vec<String>,
    pub(super) profiles: Vec<ProfileRecord>,
    pub(super) transfers: Vec<TransferRecord>,
    pub(super) schedules: Vec<ScheduleRecord>,
    /// Schedule and round of every trial that was measured.
    pub(super) measured: Vec<(u32, u32)>,
}

impl Before {
    pub(super) fn read(store: &Store, run: &RunId) -> Result<Self, StoreError> {
        let run: StoredRun = store.run(run.as_str())?;
        let mut measured = Vec::new();
        store.each_trial(&run, |trial| {
            if matches!(trial.outcome, store::Outcome::Measured(_)) {
                measured.push((trial.schedule, trial.round));
            }
        })?;
        Ok(Self {
            processors: run.start.processors.clone(),
            networks: store.networks(&run)?.iter().map(|record| record.network.name().to_owned()).collect(),
            profiles: store.profiles(&run)?,
            transfers: store.transfers(&run)?,
            schedules: store.schedules(&run)?,
            measured,
        })
    }
}
