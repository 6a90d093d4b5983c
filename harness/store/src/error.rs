//! What can go wrong with the database, and what to do about it.

use super::database::beside;
use super::journal::{JournalError, by};
use super::{file_system, holder};
use host::exit::{Coded, Exit};
use rusqlite::ErrorCode;
use std::io;
use std::path::{Path, PathBuf};

/// Why results could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no database yet.
    #[error("failed to open {}: there is no such file; `cargo xtask bench` makes it", path.display())]
    Missing {
        /// The database.
        path: PathBuf,
    },
    /// The folder of the database is not there and cannot be made.
    #[error("failed to make the folder {} for results: {source}; make it, or mend its permissions", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be opened or made.
    #[error("failed to open {}: {detail}; mend the permissions of the file and its folder", path.display())]
    CannotOpen {
        /// The database.
        path: PathBuf,
        /// `SQLite`'s words.
        detail: String,
    },
    /// It was written by a later version.
    #[error(
        "failed to open {}: its schema is version {found}, this harness knows up to {known}; update edgepipe, or move \
         the file away to begin a new one",
        path.display()
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The latest known here.
        known: u32,
    },
    /// An update of the schema left rows that refer to nothing, and was taken back.
    #[error(
        "failed to update the schema of {} from version {found}: rows of the table {table} would refer to nothing; the \
         file is as it was; keep a copy of it and report this as a bug",
        path.display()
    )]
    Migration {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// One of the tables.
        table: String,
    },
    /// It is an empty file.
    #[error("failed to read {}: there are no results in it, it is empty; name another file", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A database is to be merged into itself.
    #[error("failed to import {}: it is the database that results are imported into; name another file", path.display())]
    Itself {
        /// The file.
        path: PathBuf,
    },
    /// Another database cannot be read.
    #[error(
        "failed to import {}: {detail}; nothing was imported; copy it anew from where it was made, while nothing writes \
         to it",
        path.display()
    )]
    Unreadable {
        /// The other database.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A run went on in two places.
    #[error(
        "failed to import run {run} from {}: it went on there and here, with other trials; nothing was imported; move \
         one of the two databases away and keep the run as the other has it",
        path.display()
    )]
    Diverged {
        /// The other database.
        path: PathBuf,
        /// The run.
        run: String,
    },
    /// A run went on in another place.
    #[error(
        "failed to go on with run {run}: the database has more of it than its journal {} on this machine; it was \
         imported from where it went on, so go on with it there, or begin a new run",
        journal.display()
    )]
    Elsewhere {
        /// The run.
        run: String,
        /// The journal.
        journal: PathBuf,
    },
    /// It belongs to another program.
    #[error("failed to open {}: it is a database of another program; name another file, or move it away", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// It is damaged, or no database.
    #[error(
        "failed to read {}: {detail}; name another file, or move it and the files beside it that begin with its name away, and a new one is \
         made, with the runs that still have a journal",
        path.display()
    )]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Another process keeps it locked.
    #[error("failed to use {}: it is locked by another process{}; wait for its end, or end it", path.display(), by(holder))]
    Locked {
        /// The database.
        path: PathBuf,
        /// Who, where that is known.
        holder: String,
    },
    /// It is not a file.
    #[error("failed to open {}: it is {what}; name a file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// The file system does not do what a database needs.
    #[error("failed to use {}: {detail}; {}", path.display(), file_system::remedy(path))]
    FileSystem {
        /// The database.
        path: PathBuf,
        /// `SQLite`'s words.
        detail: String,
    },
    /// It may not be written.
    #[error("failed to write to {}: the file or its folder is read-only; mend the permissions", path.display())]
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
    /// Anything else `SQLite` says.
    #[error("failed to {doing} in {}: {source}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// `SQLite`'s words.
        source: rusqlite::Error,
    },
    /// There is no such run.
    #[error("failed to find run {asked:?} in {}: {known}", path.display())]
    NoSuchRun {
        /// The database.
        path: PathBuf,
        /// What was asked for.
        asked: String,
        /// What there is instead.
        known: String,
    },
    /// A record names something that the run does not have.
    #[error("failed to keep a record of run {run}: it has no {missing}; this is a bug")]
    Dangling {
        /// The run.
        run: String,
        /// What is missing.
        missing: String,
    },
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal has what the database does not.
    #[error(
        "{reason}\nnothing is lost: the results are in {}; once this is mended, `cargo xtask bench --resume {run}` \
         brings them in",
        journal.display()
    )]
    InJournal {
        /// The run.
        run: String,
        /// The journal.
        journal: PathBuf,
        /// Why they are not in the database.
        reason: Box<StoreError>,
    },
}

impl StoreError {
    /// Finds the words for what `SQLite` reports while `doing` something.
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

    /// The same of the file that the user named, if another one was read in its stead.
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

    /// The same of a database that is to be imported, with what to do about that.
    pub(super) fn of_other(self) -> Self {
        match self {
            Self::Missing { path } => Self::Unreadable { path, detail: "there is no such file".to_owned() },
            Self::Corrupt { path, detail } => Self::Unreadable { path, detail },
            other => other,
        }
    }

    /// Finds the words for what went wrong with rows while `doing` something.
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

/// What goes wrong between records and rows.
#[derive(Debug)]
pub(super) enum RowError {
    /// `SQLite` reports it.
    Sql(rusqlite::Error),
    /// A record names something that is not there.
    Missing(String),
    /// A value that no version of the harness writes.
    Damaged { what: &'static str, detail: String },
}

impl RowError {
    /// A value of `what` that cannot be read.
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
