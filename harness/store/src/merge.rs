//! Results of another database brought into this one.
//!
//! Rows are copied by what the schema says of itself, so a table or column that a later migration adds comes along:
//! rows that belong to a run refer to their owner with `ON DELETE CASCADE` and get fresh numbers; rows that runs share
//! (boards, machines, networks) are found by their content, or added. Everything happens in one transaction.
//!
//! A run's name is drawn at random, so two runs of one name are the same run. Its journal only ever grows, so of two
//! states of it the one with more bytes of the journal has all that the other has; this is checked on the trials.

use super::catalog::{RunFilter, StoredRun};
use super::database::Store;
use super::error::StoreError;
use super::run_id::RunId;
use super::tables::{self, Table};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Another database, ready to be imported. It is a copy in the latest schema; the original is only read.
#[derive(Debug)]
pub struct Import {
    original: PathBuf,
    copy: Store,
    folder: TempDir,
}

/// How a run of the other database stands here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is not here yet.
    New,
    /// It went on there.
    Further,
    /// All of it is here already.
    Present,
}

/// A run of the other database and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// The run as it is there.
    pub run: StoredRun,
    /// How it stood here before.
    pub standing: Standing,
}

/// Name of the copy within its folder, and of what is attached.
const COPY: &str = "other.db";

impl Store {
    /// Reads another database, all of it.
    ///
    /// # Errors
    /// Where it is not there, empty, of another program, of a later version, damaged, or this database itself.
    pub fn read_other(&self, other: &Path) -> Result<Import, StoreError> {
        let same = other.canonicalize().ok().zip(self.path.canonicalize().ok());
        if same.is_some_and(|(other, own)| other == own) {
            return Err(StoreError::Itself { path: other.to_path_buf() });
        }
        let mut prefix = self.path.file_name().unwrap_or_default().to_os_string();
        prefix.push("-import-");
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        // Beside this database, because it may be too large for a temporary folder in memory.
        let folder = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(parent)
            .map_err(|source| StoreError::Folder { path: parent.to_path_buf(), source })?;
        let copy = Store::copy(other, &folder.path().join(COPY)).map_err(StoreError::of_other)?;
        Ok(Import { original: other.to_path_buf(), copy, folder })
    }

    /// How each run of the other database stands here, the earliest first.
    ///
    /// # Errors
    /// Where a run went on here and there, each with other trials, and where a value there is damaged.
    pub fn compare_with(&self, import: &Import) -> Result<Vec<Merged>, StoreError> {
        let mut ids = import.copy.runs(&RunFilter::default()).map_err(StoreError::of_other)?;
        ids.reverse();
        let mut merged = Vec::new();
        for id in ids {
            let there = import.copy.run(id.as_str()).map_err(StoreError::of_other)?;
            let here = self.rows(id.as_str(), |connection| super::catalog::find(connection, id.as_str()))?;
            let standing = match &here {
                None => Standing::New,
                Some(here) if there.journal_bytes > here.journal_bytes => Standing::Further,
                Some(_) => Standing::Present,
            };
            if standing != Standing::Present {
                import.check(&there).map_err(StoreError::of_other)?;
            }
            merged.push(Merged { run: there, standing });
        }
        self.attached(import, |connection| {
            for further in merged.iter().filter(|one| one.standing == Standing::Further) {
                if lacks_trials(connection, &further.run.start.id)? {
                    return Ok(Err(further.run.start.id.clone()));
                }
            }
            Ok(Ok(()))
        })?
        .map_err(|run| StoreError::Diverged { path: import.original.clone(), run: run.to_string() })?;
        Ok(merged)
    }

    /// Takes over the runs that are not here, and what is new of those that went on there.
    ///
    /// # Errors
    /// As [`Store::compare_with`], and where this database cannot be written; it is as before then.
    pub fn merge(&self, import: &Import) -> Result<Vec<Merged>, StoreError> {
        let merged = self.compare_with(import)?;
        let wanted: Vec<&Merged> = merged.iter().filter(|one| one.standing != Standing::Present).collect();
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
    /// Reads all of a run, so that nothing damaged is taken over.
    fn check(&self, run: &StoredRun) -> Result<(), StoreError> {
        self.copy.networks(run)?;
        self.copy.profiles(run)?;
        self.copy.transfers(run)?;
        self.copy.schedules(run)?;
        self.copy.comparisons(run)?;
        self.copy.each_trial(run, |_| {})
    }
}

/// Whether a run has trials here that it has not there.
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

/// Copies the runs in `temp.wanted` with all that belongs to them. `taken_TABLE` has the number of each row there, and
/// the one it gets here.
fn copy(connection: &Connection, tables: &[Table]) -> rusqlite::Result<()> {
    let each = |statement: &dyn Fn(&Table) -> Option<String>| -> rusqlite::Result<()> {
        tables.iter().filter_map(statement).try_for_each(|sql| connection.execute_batch(&sql))
    };
    each(&Table::begin)?;
    // Which rows: of runs, from the owner down, …
    each(&Table::take_owned)?;
    // … and of what they share, whatever is referred to.
    let shared = tables.iter().rev().flat_map(|table| table.take_shared(tables));
    shared.into_iter().try_for_each(|sql| connection.execute_batch(&sql))?;
    each(&|table| Some(table.copy()))?;
    each(&Table::end)
}
