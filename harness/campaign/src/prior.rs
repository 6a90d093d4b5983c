//! What a resumed run already has.

use crate::profile::ProfileRecords;
use store::{ProcessorRecord, RunId, ScheduleRecord, Store, StoreError};

/// Results of a run before it was resumed; empty for a new run.
#[derive(Debug, Clone, Default)]
pub(crate) struct PriorResults {
    pub(crate) processors: Vec<ProcessorRecord>,
    /// Names of the recorded networks.
    pub(crate) networks: Vec<String>,
    pub(crate) profiles: ProfileRecords,
    /// Numbers of the operating points at which idle power was read.
    pub(crate) idle_points: Vec<u32>,
    pub(crate) schedules: Vec<ScheduleRecord>,
    /// Schedule and round of each measured trial.
    pub(crate) trials: Vec<(u32, u32)>,
}

impl PriorResults {
    pub(crate) fn read(store: &Store, run: &RunId) -> Result<Self, StoreError> {
        let run = store.run(run.as_str())?;
        let mut trials = Vec::new();
        store.each_trial(&run, |trial| {
            if matches!(trial.outcome, store::Outcome::Measured(_)) {
                trials.push((trial.schedule, trial.round));
            }
        })?;
        // An interrupted search for a sustained rate begins again.
        if let (Some(last), Some(_)) = (trials.last().copied(), analysis::load_of(&run).sustained()) {
            trials.retain(|trial| *trial != last);
        }
        Ok(Self {
            processors: run.start.processors.clone(),
            networks: store.networks(&run)?.iter().map(|record| record.network.name().to_owned()).collect(),
            profiles: ProfileRecords::read(store, &run)?,
            idle_points: store
                .operating_points(&run)?
                .iter()
                .filter(|point| point.idle.is_some())
                .map(|point| point.number)
                .collect(),
            schedules: store.schedules(&run)?,
            trials,
        })
    }
}
