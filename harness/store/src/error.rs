//! Errors of the database, each with its remedy.

use super::file_system::beside;
use super::journal::{JournalError, by};
use super::{file_system, holder};
use host::exit::{Coded, Exit};
use rusqlite::ErrorCode;
use std::io;
use std::path::{Path, PathBuf};

/// Results could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database does not exist.
    #[error("failed to open {}: no such file; `{program} bench` creates it", path.display(), program = host::program())]
    Missing {
        /// The database.
        path: PathBuf,
    },
    /// The directory of the database does not exist and cannot be created.
    #[error("failed to create the directory {} for results: {source}; create it, or fix its permissions", path.display())]
    Folder {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// `SQLite` cannot name the temporary directory.
    #[error(
        "failed to copy the results to the temporary directory {}: its path is not UTF-8; set TMPDIR to another directory",
        path.display()
    )]
    TemporaryFolder {
        /// The directory.
        path: PathBuf,
    },
    /// The file cannot be opened or created.
    #[error("failed to open {}: {detail}; fix the permissions of the file and its directory", path.display())]
    CannotOpen {
        /// The database.
        path: PathBuf,
        /// The message of `SQLite`.
        detail: String,
    },
    /// It was written by a later version.
    #[error(
        "failed to open {}: its schema version is {found}, but this version of edgepipe supports at most {known}; update \
         edgepipe, or move the file away to start a new one",
        path.display()
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// The latest supported version.
        known: u32,
    },
    /// An update of the schema broke references and was rolled back.
    #[error(
        "failed to update the schema of {} from version {found}: rows of the table {table} would have invalid references; \
         the file is unchanged; keep a copy of it and report this as a bug",
        path.display()
    )]
    Migration {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// One of the tables.
        table: String,
    },
    /// The file is empty.
    #[error("failed to read {}: the file is empty; choose another file", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A database cannot be imported into itself.
    #[error("failed to import {}: it is also the destination of the import; choose another file", path.display())]
    Itself {
        /// The file.
        path: PathBuf,
    },
    /// The other database cannot be read.
    #[error(
        "failed to import {}: {detail}; nothing was imported; copy it again from its origin while no program writes to it",
        path.display()
    )]
    Unreadable {
        /// The other database.
        path: PathBuf,
        /// The finding.
        detail: String,
    },
    /// A run was continued in both databases.
    #[error(
        "failed to import run {run} from {}: each database has trials of it that the other lacks; nothing was imported; \
         keep only one of the two databases",
        path.display()
    )]
    Diverged {
        /// The other database.
        path: PathBuf,
        /// The run.
        run: String,
    },
    /// A run was continued elsewhere.
    #[error(
        "failed to resume run {run}: the database has more records of it than its journal {} on this machine, because it \
         was continued on another machine and imported; resume it there, or start a new run",
        journal.display()
    )]
    Elsewhere {
        /// The run.
        run: String,
        /// The journal.
        journal: PathBuf,
    },
    /// The file belongs to another program.
    #[error("failed to open {}: it is the database of another program; choose another file, or move it away", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// The file is damaged, or is not a database.
    #[error(
        "failed to read {}: {detail}; choose another file, or move this one and its -wal and -shm files away: the next \
         `{program} bench` then creates a new database from the journals",
        path.display(), program = host::program())]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// The finding.
        detail: String,
    },
    /// Another process has locked the database.
    #[error("failed to use {}: it is locked by another process{}; wait until it ends, or stop it", path.display(), by(holder))]
    Locked {
        /// The database.
        path: PathBuf,
        /// The process, if known.
        holder: String,
    },
    /// The path is not a regular file.
    #[error("failed to open {}: it is {what}; choose a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// The kind of file.
        what: &'static str,
    },
    /// The file system lacks what a database needs.
    #[error("failed to use {}: {detail}; {}", path.display(), file_system::remedy(path))]
    FileSystem {
        /// The database.
        path: PathBuf,
        /// The message of `SQLite`.
        detail: String,
    },
    /// The database is read-only.
    #[error("failed to write to {}: the file or its directory is read-only; fix the permissions", path.display())]
    ReadOnly {
        /// The database.
        path: PathBuf,
    },
    /// The disk is full.
    #[error("failed to write to {}: the disk is full; free some space", path.display())]
    Full {
        /// The database.
        path: PathBuf,
    },
    /// Any other error of `SQLite`.
    #[error("failed to {doing} in {}: {source}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// The operation.
        doing: &'static str,
        /// The message of `SQLite`.
        source: rusqlite::Error,
    },
    /// The run does not exist.
    #[error("failed to find run {asked:?} in {}: {known}", path.display())]
    NoSuchRun {
        /// The database.
        path: PathBuf,
        /// The requested run.
        asked: String,
        /// Runs that exist.
        known: String,
    },
    /// A record refers to something that the run lacks.
    #[error("failed to store a record of run {run}: the run has no {missing}; this is a bug")]
    Dangling {
        /// The run.
        run: String,
        /// The missing item.
        missing: String,
    },
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal has records that the database lacks.
    #[error(
        "{reason}\nno result is lost: the journal {} has all of them; fix the problem, then `{program} bench --resume {run}` \
         stores them in the database",
        journal.display(), program = host::program())]
    InJournal {
        /// The run.
        run: String,
        /// The journal.
        journal: PathBuf,
        /// Why the database lacks them.
        reason: Box<StoreError>,
    },
}

impl StoreError {
    /// The error for what `SQLite` reports during an operation.
    pub(super) fn new(path: &Path, doing: &'static str, source: rusqlite::Error) -> Self {
        let path = path.to_path_buf();
        let detail = match &source {
            rusqlite::Error::SqliteFailure(_, Some(detail)) => detail.clone(),
            other => other.to_string(),
        };
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                let holder = holder::of(&[&path, &beside(&path, "-wal"), &beside(&path, "-shm")]);
                Self::Locked { path, holder }
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt { path, detail },
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::NoLargeFileSupport,
            ) => Self::FileSystem { path, detail },
            Some(ErrorCode::ReadOnly) => Self::ReadOnly { path },
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => Self::CannotOpen { path, detail },
            _ => Self::Sqlite { path, doing, source },
        }
    }

    /// The same for the file that the user named, if a copy of it was read.
    pub(super) fn about(self, user: &Path) -> Self {
        let path = user.to_path_buf();
        match self {
            Self::CannotOpen { detail, .. } => Self::CannotOpen { path, detail },
            Self::Corrupt { detail, .. } => Self::Corrupt { path, detail },
            Self::FileSystem { detail, .. } => Self::FileSystem { path, detail },
            Self::Sqlite { doing, source, .. } => Self::Sqlite { path, doing, source },
            other => other,
        }
    }

    /// The same for a database that is imported, with the remedy for that.
    pub(super) fn of_other(self) -> Self {
        match self {
            Self::Missing { path } => Self::Unreadable { path, detail: "no such file".to_owned() },
            Self::Corrupt { path, detail } => Self::Unreadable { path, detail },
            other => other,
        }
    }

    /// The error for a row during an operation.
    pub(super) fn of_rows(path: &Path, doing: &'static str, run: &str, error: RowError) -> Self {
        match error {
            RowError::Sql(source) => Self::new(path, doing, source),
            RowError::Missing(missing) => Self::Dangling { run: run.to_owned(), missing },
            RowError::Damaged { what, detail } => {
                Self::Corrupt { path: path.to_path_buf(), detail: format!("{what} is damaged: {detail}") }
            }
        }
    }
}

/// A record or row could not be converted.
#[derive(Debug)]
pub(super) enum RowError {
    /// An error of `SQLite`.
    Sql(rusqlite::Error),
    /// A record refers to something that does not exist.
    Missing(String),
    /// A value that no version of edgepipe writes.
    Damaged { what: &'static str, detail: String },
}

impl RowError {
    /// An unreadable value of `what`.
    pub(super) fn damaged(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> Self {
        move |detail| Self::Damaged { what, detail: detail.to_string() }
    }
}

impl From<rusqlite::Error> for RowError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Coded for StoreError {
    fn exit(&self) -> Exit {
        match self {
            Self::Dangling { .. } => Exit::Bug,
            _ => Exit::Usage,
        }
    }
}
