//! Keeping a run: to the journal, then to the database.

use super::catalog::{self, StoredRun};
use super::database::Store;
use super::error::{RowError, StoreError};
use super::insertion;
use super::journal::{self, Journal, Lines};
use super::record::{
    ComparisonRecord, Finished, NetworkRecord, ProfileRecord, Record, Resumed, RunStart, ScheduleRecord,
    Status, TransferRecord, TrialRecord,
};
use super::run_id::RunId;
use rusqlite::{Transaction, TransactionBehavior, params};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

/// Keeps what a run yields.
///
/// A method fails where the record could not even be written to the journal, or names a network or schedule that the
/// run does not have. A database that is full, read-only or locked does not end a run: its records wait in the
/// journal and are brought in with the next one that succeeds. [`RunRecorder::trouble`] tells of it, and
/// [`RunRecorder::finish`] fails if it lasted until the end.
#[derive(Debug)]
pub struct RunRecorder<'s> {
    store: &'s Store,
    journal: Journal,
    run: RunId,
    networks: BTreeSet<String>,
    schedules: BTreeSet<u32>,
    trouble: Option<StoreError>,
}

/// What was found where a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continued {
    /// Records of the journal that were not in the database yet, and are now.
    pub imported: usize,
    /// Bytes taken off the journal's end: a record that was being written when the run was killed.
    pub cut_off_bytes: u64,
}

impl<'s> RunRecorder<'s> {
    /// Begins a run. Its journal lies below `runs`, in a folder named as the run.
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

    /// Goes on with a run that was cut off: brings into the database what its journal has and the database does not,
    /// and notes when and by which command the run goes on. [`Store::run`] then gives all of it.
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

    /// Why the database is behind the journal, if it is.
    pub fn trouble(&self) -> Option<&StoreError> {
        self.trouble.as_ref()
    }

    /// Keeps a network; once each, before anything that names it.
    pub fn record_network(&mut self, network: NetworkRecord) -> Result<(), StoreError> {
        let name = network.network.name().to_owned();
        if self.networks.contains(&name) {
            return Err(self.twice(&format!("a second network {name:?}")));
        }
        self.keep(&Record::Network(Box::new(network)))?;
        self.networks.insert(name);
        Ok(())
    }

    /// Keeps a raw profile. A later one of the same network and processor takes the place of an earlier.
    pub fn record_profile(&mut self, profile: ProfileRecord) -> Result<(), StoreError> {
        self.check_network(&profile.network)?;
        self.keep(&Record::Profile(profile))
    }

    /// Keeps what the power meter said while nothing ran. A later reading takes the place of an earlier.
    pub fn record_idle(&mut self, idled: protocol::Idled) -> Result<(), StoreError> {
        self.keep(&Record::Idle(idled))
    }

    /// Keeps raw timings of hand-overs. Later ones between the same processors take the place of earlier ones.
    pub fn record_transfer(&mut self, transfer: TransferRecord) -> Result<(), StoreError> {
        self.keep(&Record::Transfer(transfer))
    }

    /// Keeps a schedule; each `place` once, before anything that names it. A prediction that is not finite is kept as
    /// none.
    pub fn record_schedule(&mut self, mut schedule: ScheduleRecord) -> Result<(), StoreError> {
        self.check_network(&schedule.network)?;
        let place = schedule.place;
        if self.schedules.contains(&place) {
            return Err(self.twice(&format!("a second schedule {place}")));
        }
        schedule.prediction = schedule.prediction.filter(|prediction| {
            prediction.throughput.0.is_finite() && prediction.stage_ns.iter().all(|ns| ns.is_finite())
        });
        self.keep(&Record::Schedule(schedule))?;
        self.schedules.insert(place);
        Ok(())
    }

    /// Keeps a comparison of outputs.
    pub fn record_comparison(&mut self, comparison: ComparisonRecord) -> Result<(), StoreError> {
        self.check_schedule(comparison.schedule)?;
        self.check_schedule(comparison.reference)?;
        self.keep(&Record::Comparison(comparison))
    }

    /// Keeps a trial.
    pub fn record_trial(&mut self, trial: TrialRecord) -> Result<(), StoreError> {
        self.check_schedule(trial.schedule)?;
        self.keep(&Record::Trial(trial))
    }

    /// Ends the run.
    ///
    /// # Errors
    /// [`StoreError::InJournal`] where the database is still behind; all records are in the journal then.
    pub fn finish(self, status: Status, unix_ns: u64) -> Result<(), StoreError> {
        self.finish_because(status, unix_ns, None)
    }

    /// Ends the run by an error.
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

    /// Keeps a record by its kind.
    #[cfg(any(test, feature = "fixture"))]
    pub fn record(&mut self, record: Record) -> Result<(), StoreError> {
        match record {
            Record::Network(network) => self.record_network(*network),
            Record::Profile(profile) => self.record_profile(profile),
            Record::Idle(idled) => self.record_idle(idled),
            Record::Transfer(transfer) => self.record_transfer(transfer),
            Record::Schedule(schedule) => self.record_schedule(schedule),
            Record::Comparison(comparison) => self.record_comparison(comparison),
            Record::Trial(trial) => self.record_trial(trial),
            Record::Run(_) | Record::Resumed(_) | Record::Finished(_) => self.keep(&record),
        }
    }

    /// Makes every later write to the journal fail, as a full disk does.
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
                        "{error}; the run goes on, its results wait in {}",
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
    /// Brings in the records of a journal that come after those already here. Says how many there were.
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

    /// Adds a record, in one transaction with how far the journal has been brought in. False where another process
    /// was quicker.
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
