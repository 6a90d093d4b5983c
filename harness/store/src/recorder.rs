//! Records a run: in the journal, then in the database.

use super::catalog::{self, StoredRun};
use super::database::Store;
use super::error::{RowError, StoreError};
use super::insertion;
use super::journal::{self, Journal, Lines};
use super::record::{
    ComparisonRecord, Finished, NetworkRecord, OperatingPointRecord, PowerCycleRecord, ProfileRecord, Record,
    Resumed, RunStart, ScheduleRecord, Status, TransferRecord, TrialRecord,
};
use super::run_id::RunId;
use rusqlite::{Transaction, TransactionBehavior, params};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

/// Records a run.
///
/// A method fails if the record cannot be written to the journal, or refers to a network or schedule that the run lacks. A
/// database that is full, read-only or locked does not end a run: its records stay in the journal and are imported with the
/// next record that succeeds. [`RunRecorder::trouble`] returns the error, and [`RunRecorder::finish`] fails if it persists.
#[derive(Debug)]
pub struct RunRecorder<'s> {
    store: &'s Store,
    journal: Journal,
    run: RunId,
    networks: BTreeSet<String>,
    schedules: BTreeSet<u32>,
    trouble: Option<StoreError>,
}

/// The result of resuming a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continued {
    /// Records imported from the journal into the database.
    pub imported: usize,
    /// Bytes truncated from the journal: a record that was incomplete when the run was killed.
    pub cut_off_bytes: u64,
}

impl<'s> RunRecorder<'s> {
    /// Starts a run. Its journal is below `runs`, in a directory with the name of the run.
    pub fn create(store: &'s Store, runs: &Path, start: RunStart) -> Result<Self, StoreError> {
        let mut recorder = Self {
            store,
            journal: Journal::create(runs, &start.id)?,
            run: start.id.clone(),
            networks: BTreeSet::new(),
            schedules: BTreeSet::new(),
            trouble: None,
        };
        recorder.keep(&Record::Run(Box::new(start)))?;
        Ok(recorder)
    }

    /// Resumes a run: imports the records of its journal that the database lacks, and records the time and the command of the
    /// resumption. [`Store::run`] then returns all of it.
    pub fn resume(
        store: &'s Store,
        runs: &Path,
        run: &RunId,
        resumed: Resumed,
    ) -> Result<(Self, Continued), StoreError> {
        let path = journal::path_of(runs, run);
        let known = store.rows(run.as_str(), |connection| catalog::find(connection, run.as_str()))?;
        let kept = if path.exists() { journal::length(&path)? } else { 0 };
        if known.is_some_and(|known| known.journal_bytes > kept) {
            return Err(StoreError::Elsewhere { run: run.to_string(), journal: path });
        }
        let (journal, cut_off_bytes) = Journal::reopen(&path)?;
        let imported = store.import(&path, run)?;
        let stored = store.run(run.as_str())?;
        let networks = store.networks(&stored)?;
        let schedules = store.schedules(&stored)?;
        let mut recorder = Self {
            store,
            journal,
            run: run.clone(),
            networks: networks.iter().map(|record| record.network.name().to_owned()).collect(),
            schedules: schedules.iter().map(|record| record.place).collect(),
            trouble: None,
        };
        recorder.keep(&Record::Resumed(resumed))?;
        Ok((recorder, Continued { imported, cut_off_bytes }))
    }

    /// The run.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// The journal.
    pub fn journal(&self) -> &Path {
        self.journal.path()
    }

    /// Why the database lacks records of the journal, if it does.
    pub fn trouble(&self) -> Option<&StoreError> {
        self.trouble.as_ref()
    }

    /// Records a network, once and before any record that refers to it.
    pub fn record_network(&mut self, network: NetworkRecord) -> Result<(), StoreError> {
        let name = network.network.name().to_owned();
        if self.networks.contains(&name) {
            return Err(self.twice(&format!("a second network {name:?}")));
        }
        self.keep(&Record::Network(Box::new(network)))?;
        self.networks.insert(name);
        Ok(())
    }

    /// Records a raw profile. It replaces an earlier one of the same network and processor.
    pub fn record_profile(&mut self, profile: ProfileRecord) -> Result<(), StoreError> {
        self.check_network(&profile.network)?;
        self.keep(&Record::Profile(profile))
    }

    /// Records the idle power. It replaces an earlier reading.
    pub fn record_idle(&mut self, idled: protocol::Idled) -> Result<(), StoreError> {
        self.keep(&Record::Idle(idled))
    }

    /// Records raw timings of hand-overs. They replace earlier ones between the same processors.
    pub fn record_transfer(&mut self, transfer: TransferRecord) -> Result<(), StoreError> {
        self.keep(&Record::Transfer(transfer))
    }

    /// Records that the board was brought to an operating point. It replaces an earlier record of the same point, but not its
    /// idle power.
    pub fn record_operating_point(&mut self, point: OperatingPointRecord) -> Result<(), StoreError> {
        self.keep(&Record::OperatingPoint(Box::new(point)))
    }

    /// Records that the board was power-cycled.
    pub fn record_power_cycle(&mut self, cycle: PowerCycleRecord) -> Result<(), StoreError> {
        self.keep(&Record::PowerCycle(cycle))
    }

    /// Records a schedule, each `place` once and before any record that refers to it. A prediction that is not finite is
    /// dropped.
    pub fn record_schedule(&mut self, mut schedule: ScheduleRecord) -> Result<(), StoreError> {
        self.check_network(&schedule.network)?;
        let place = schedule.place;
        if self.schedules.contains(&place) {
            return Err(self.twice(&format!("a second schedule {place}")));
        }
        schedule.prediction = schedule.prediction.filter(domain::Prediction::is_finite);
        self.keep(&Record::Schedule(schedule))?;
        self.schedules.insert(place);
        Ok(())
    }

    /// Records a comparison of outputs.
    pub fn record_comparison(&mut self, comparison: ComparisonRecord) -> Result<(), StoreError> {
        self.check_schedule(comparison.schedule)?;
        self.check_schedule(comparison.reference)?;
        self.keep(&Record::Comparison(comparison))
    }

    /// Records a trial. A prediction that is not finite is dropped.
    pub fn record_trial(&mut self, mut trial: TrialRecord) -> Result<(), StoreError> {
        trial.prediction = trial.prediction.filter(domain::Prediction::is_finite);
        self.check_schedule(trial.schedule)?;
        self.keep(&Record::Trial(trial))
    }

    /// Ends the run.
    ///
    /// # Errors
    /// [`StoreError::InJournal`] if the database still lacks records; the journal has all of them then.
    pub fn finish(self, status: Status, unix_ns: u64) -> Result<(), StoreError> {
        self.finish_because(status, unix_ns, None)
    }

    /// Ends the run with an error.
    ///
    /// # Errors
    /// As [`RunRecorder::finish`].
    pub fn finish_because(
        mut self,
        status: Status,
        unix_ns: u64,
        reason: Option<String>,
    ) -> Result<(), StoreError> {
        self.keep(&Record::Finished(Finished { unix_ns, status, reason }))?;
        let journal = self.journal.path().to_path_buf();
        match self.trouble {
            None => Ok(()),
            Some(reason) => {
                Err(StoreError::InJournal { run: self.run.to_string(), journal, reason: Box::new(reason) })
            }
        }
    }

    /// Records any record.
    #[cfg(any(test, feature = "fixture"))]
    pub fn record(&mut self, record: Record) -> Result<(), StoreError> {
        match record {
            Record::Network(network) => self.record_network(*network),
            Record::Profile(profile) => self.record_profile(profile),
            Record::Idle(idled) => self.record_idle(idled),
            Record::Transfer(transfer) => self.record_transfer(transfer),
            Record::OperatingPoint(point) => self.record_operating_point(*point),
            Record::Schedule(schedule) => self.record_schedule(schedule),
            Record::Comparison(comparison) => self.record_comparison(comparison),
            Record::Trial(trial) => self.record_trial(trial),
            Record::Run(_) | Record::Resumed(_) | Record::PowerCycle(_) | Record::Finished(_) => {
                self.keep(&record)
            }
        }
    }

    /// Makes all further writes to the journal fail, like a full disk.
    #[cfg(test)]
    pub(crate) fn break_journal(&mut self) {
        self.journal.break_off();
    }

    fn check_network(&self, name: &str) -> Result<(), StoreError> {
        if self.networks.contains(name) { Ok(()) } else { Err(self.missing(format!("network {name:?}"))) }
    }

    fn check_schedule(&self, place: u32) -> Result<(), StoreError> {
        if self.schedules.contains(&place) { Ok(()) } else { Err(self.missing(format!("schedule {place}"))) }
    }

    fn missing(&self, missing: String) -> StoreError {
        StoreError::Dangling { run: self.run.to_string(), missing }
    }

    fn twice(&self, what: &str) -> StoreError {
        self.missing(format!("place for {what}"))
    }

    fn keep(&mut self, record: &Record) -> Result<(), StoreError> {
        let bytes = self.journal.append(record)?;
        let stored = if self.trouble.is_some() {
            self.store.import(self.journal.path(), &self.run).map(|_| ())
        } else {
            self.store.bring_in(&self.run, &bytes, record).map(|_| ())
        };
        match (stored, self.trouble.is_some()) {
            (Ok(()), true) => {
                tracing::info!("{} has all results again", self.store.path.display());
                self.trouble = None;
            }
            (Ok(()), false) => {}
            (Err(error), before) => {
                if !before {
                    tracing::warn!(
                        "{error}; the run continues, its results are kept in {}",
                        self.journal.path().display()
                    );
                }
                self.trouble = Some(error);
            }
        }
        Ok(())
    }
}

impl Store {
    /// Imports the records of a journal that the database lacks. Returns their number.
    fn import(&self, path: &Path, run: &RunId) -> Result<usize, StoreError> {
        let stored = self.rows(run.as_str(), |connection| catalog::find(connection, run.as_str()))?;
        let from = stored.map_or(0, |stored: StoredRun| stored.journal_bytes);
        let mut imported = 0;
        for line in Lines::open(path, from)? {
            let (bytes, record) = line?;
            imported += usize::from(self.bring_in(run, &bytes, &record)?);
        }
        Ok(imported)
    }

    /// Adds a record and updates the imported length of the journal, in one transaction. False if another process was faster.
    #[doc(hidden)]
    pub fn bring_in(&self, run: &RunId, bytes: &Range<u64>, record: &Record) -> Result<bool, StoreError> {
        let add = || -> Result<bool, RowError> {
            let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
            if let Record::Run(start) = record
                && catalog::find(&transaction, run.as_str())?.is_none()
            {
                insertion::insert_run(&transaction, start)?;
            }
            let number: i64 = {
                let mut advance = transaction.prepare_cached(
                    "UPDATE runs SET journal_bytes = ?3 WHERE id = ?1 AND journal_bytes = ?2 RETURNING number",
                )?;
                let mut rows = advance.query(params![run.as_str(), bytes.start, bytes.end])?;
                match rows.next()? {
                    Some(row) => row.get(0)?,
                    None => return Ok(false),
                }
            };
            insertion::insert(&transaction, number, record)?;
            transaction.commit()?;
            Ok(true)
        };
        add().map_err(|error| StoreError::of_rows(&self.path, "keep results", run.as_str(), error))
    }
}
