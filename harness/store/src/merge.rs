//! Imports the runs of another database.
//!
//! The schema itself determines how rows are copied, so tables and columns of later migrations are included: rows that
//! belong to a run refer to their owner with `ON DELETE CASCADE` and get new numbers; rows that runs share (boards, machines,
//! networks) are matched by content, or added. The import is one transaction.
//!
//! Run names are random, so two runs with one name are the same run. Its journal only grows, so of two states of a run the
//! one with more bytes of the journal includes the other. This is checked for trials.

use super::catalog::{RunFilter, StoredRun};
use super::database::Store;
use super::error::StoreError;
use super::run_id::RunId;
use super::tables::{self, Table};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Another database, ready to be imported: a copy with the latest schema. The original is not changed.
#[derive(Debug)]
pub struct Import {
    original: PathBuf,
    copy: Store,
    folder: TempDir,
}

/// Whether a run of the other database exists in this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportStatus {
    /// It does not exist in this database.
    New,
    /// The other database has more records of it.
    Extended,
    /// This database has all of it.
    Present,
}

/// A run of the other database.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// The run in the other database.
    pub run: StoredRun,
    /// Its status before the import.
    pub status: ImportStatus,
}

/// File name of the copy.
const COPY: &str = "other.db";

impl Store {
    /// Prepares the import of another database.
    ///
    /// # Errors
    /// If it does not exist, is empty, damaged, of another program or of a later version, or is this database.
    pub fn read_other(&self, other: &Path) -> Result<Import, StoreError> {
        let same = other.canonicalize().ok().zip(self.path.canonicalize().ok());
        if same.is_some_and(|(other, own)| other == own) {
            return Err(StoreError::Itself { path: other.to_path_buf() });
        }
        let mut prefix = self.path.file_name().unwrap_or_default().to_os_string();
        prefix.push("-import-");
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        // In the directory of this database, because it may be too large for a temporary directory in memory.
        let folder = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(parent)
            .map_err(|source| StoreError::Folder { path: parent.to_path_buf(), source })?;
        let copy = Store::copy(other, &folder.path().join(COPY)).map_err(StoreError::of_other)?;
        Ok(Import { original: other.to_path_buf(), copy, folder })
    }

    /// The runs of the other database, the earliest first.
    ///
    /// # Errors
    /// If a run has different trials in the two databases, or if the other one has a damaged value.
    pub fn compare_with(&self, import: &Import) -> Result<Vec<Merged>, StoreError> {
        let mut ids = import.copy.runs(&RunFilter::default()).map_err(StoreError::of_other)?;
        ids.reverse();
        let mut merged = Vec::new();
        for id in ids {
            let there = import.copy.run(id.as_str()).map_err(StoreError::of_other)?;
            let here = self.rows(id.as_str(), |connection| super::catalog::find(connection, id.as_str()))?;
            let status = match &here {
                None => ImportStatus::New,
                Some(here) if there.journal_bytes > here.journal_bytes => ImportStatus::Extended,
                Some(_) => ImportStatus::Present,
            };
            if status != ImportStatus::Present {
                import.check(&there).map_err(StoreError::of_other)?;
            }
            merged.push(Merged { run: there, status });
        }
        self.attached(import, |connection| {
            for extended in merged.iter().filter(|one| one.status == ImportStatus::Extended) {
                if lacks_trials(connection, &extended.run.start.id)? {
                    return Ok(Err(extended.run.start.id.clone()));
                }
            }
            Ok(Ok(()))
        })?
        .map_err(|run| StoreError::Diverged { path: import.original.clone(), run: run.to_string() })?;
        Ok(merged)
    }

    /// Imports new and extended runs.
    ///
    /// # Errors
    /// As [`Store::compare_with`], and if this database cannot be written. It is unchanged then.
    pub fn merge(&self, import: &Import) -> Result<Vec<Merged>, StoreError> {
        let merged = self.compare_with(import)?;
        let wanted: Vec<&Merged> = merged.iter().filter(|one| one.status != ImportStatus::Present).collect();
        if !wanted.is_empty() {
            self.attached(import, |connection| {
                let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
                transaction.execute_batch("CREATE TEMP TABLE wanted (number INTEGER PRIMARY KEY)")?;
                for one in wanted {
                    let id = one.run.start.id.as_str();
                    transaction.execute("DELETE FROM main.runs WHERE id = ?", params![id])?;
                    transaction.execute(
                        "INSERT INTO temp.wanted SELECT number FROM other.runs WHERE id = ?",
                        params![id],
                    )?;
                }
                copy(&transaction, &tables::read(&transaction)?)?;
                transaction.execute_batch("DROP TABLE temp.wanted")?;
                transaction.commit()
            })?;
        }
        Ok(merged)
    }

    fn attached<T>(
        &self,
        import: &Import,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let error = |source| StoreError::new(&self.path, "import results", source);
        let copy = import.folder.path().join(COPY);
        self.connection.execute("ATTACH DATABASE ?1 AS other", [copy.to_string_lossy()]).map_err(error)?;
        let worked = work(&self.connection).map_err(error);
        self.connection.execute_batch("DETACH DATABASE other").map_err(error)?;
        worked
    }
}

impl Import {
    /// Reads all of a run, so that no damaged value is imported.
    fn check(&self, run: &StoredRun) -> Result<(), StoreError> {
        self.copy.networks(run)?;
        self.copy.profiles(run)?;
        self.copy.transfers(run)?;
        self.copy.schedules(run)?;
        self.copy.comparisons(run)?;
        self.copy.each_trial(run, |_| {})
    }
}

/// Whether this database has trials of a run that the other lacks.
fn lacks_trials(connection: &Connection, run: &RunId) -> rusqlite::Result<bool> {
    let trials = |database: &str| {
        format!(
            "SELECT schedules.place, trials.round, trials.position, trials.begun_unix_ns, trials.status
             FROM {database}.runs JOIN {database}.schedules ON schedules.run = runs.number
             JOIN {database}.trials ON trials.schedule = schedules.id WHERE runs.id = ?1"
        )
    };
    let sql = format!("SELECT EXISTS ({} EXCEPT {})", trials("main"), trials("other"));
    connection.query_row(&sql, params![run.as_str()], |row| row.get(0))
}

/// Copies the runs in `temp.wanted` with all rows that belong to them. `taken_TABLE` maps row numbers of the other database
/// to those of this one.
fn copy(connection: &Connection, tables: &[Table]) -> rusqlite::Result<()> {
    let each = |statement: &dyn Fn(&Table) -> Option<String>| -> rusqlite::Result<()> {
        tables.iter().filter_map(statement).try_for_each(|sql| connection.execute_batch(&sql))
    };
    each(&Table::begin)?;
    // Select rows: those of runs, starting from their owner, …
    each(&Table::take_owned)?;
    // … and the shared rows that they refer to.
    let shared = tables.iter().rev().flat_map(|table| table.take_shared(tables));
    shared.into_iter().try_for_each(|sql| connection.execute_batch(&sql))?;
    each(&|table| Some(table.copy()))?;
    each(&Table::end)
}
