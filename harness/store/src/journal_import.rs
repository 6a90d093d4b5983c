//! Imports records from journals that the database lacks: of runs that were killed, or whose database was full, locked,
//! read-only or moved away.
//!
//! Each journal is imported independently. From a damaged one, the records before the damage are imported; it is renamed
//! and a valid journal of these records takes its place, so that the run can be resumed.

use super::catalog;
use super::database::Store;
use super::error::StoreError;
use super::journal::{self, JournalError, Lines};
use super::record::{Finished, Record, Status};
use super::run_id::RunId;
use host::date;
use rusqlite::ErrorCode;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The result of importing all journals.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct JournalImport {
    /// Journals from which records were imported.
    pub runs: Vec<ImportedJournal>,
    /// Damaged journals.
    pub damaged: Vec<DamagedJournal>,
    /// Errors of journals that cannot be read.
    pub unreadable: Vec<String>,
}

impl JournalImport {
    /// Messages for the user. Those of many journals are merged.
    pub fn messages(&self) -> Vec<String> {
        let mut messages = Vec::new();
        let records: usize = self.runs.iter().map(|run| run.imported).sum();
        match self.runs.as_slice() {
            [] => {}
            [one] => messages.push(format!(
                "note: imported {} of run {} from its journal",
                counted(records, "record"),
                one.run
            )),
            many => messages.push(format!(
                "note: imported {} of {} from their journals",
                counted(records, "record"),
                counted(many.len(), "run")
            )),
        }
        let damaged = self.damaged.iter().map(ToString::to_string);
        let warnings: Vec<String> = damaged.chain(self.unreadable.iter().cloned()).collect();
        messages.extend(warnings.iter().take(MOST_WARNINGS).map(|warning| format!("warning: {warning}")));
        if let Some(more @ 1..) = warnings.len().checked_sub(MOST_WARNINGS) {
            messages.push(format!(
                "warning: {more} more {} could not be imported completely; damaged ones were renamed to journal.damaged.jsonl in \
                 their directories",
                if more == 1 { "journal" } else { "journals" }
            ));
        }
        messages
    }
}

/// Maximum number of journals with a message of their own.
const MOST_WARNINGS: usize = 5;

/// A journal from which records were imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedJournal {
    /// The journal.
    pub journal: PathBuf,
    /// Its run.
    pub run: RunId,
    /// Number of imported records.
    pub imported: usize,
}

/// A damaged journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedJournal {
    /// The journal.
    pub journal: PathBuf,
    /// Its run, if the database has records of it.
    pub run: Option<RunId>,
    /// First invalid line.
    pub line: usize,
    /// The error in it.
    pub reason: String,
    /// Whether a later version probably wrote it.
    pub newer: bool,
    /// Whether the run can be resumed from the lines before it.
    pub resumable: bool,
    /// The new path of the damaged journal, or why it could not be renamed.
    pub moved: Result<PathBuf, String>,
}

impl fmt::Display for DamagedJournal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { journal, line, reason, .. } = self;
        write!(out, "the journal {} is damaged at line {line}: {reason}; ", journal.display())?;
        match &self.run {
            Some(run) if self.resumable => {
                write!(out, "imported the {} before it; run {run} is incomplete", counted(line - 1, "line"))?;
            }
            Some(run) => {
                write!(out, "the database keeps the records that it has of run {run}, which is incomplete")?;
            }
            None => out.write_str("no record could be imported")?,
        }
        match &self.moved {
            Ok(path) if self.newer => write!(
                out,
                "; a later version of edgepipe probably wrote it; the journal was renamed to {}: to import the missing records, update edgepipe \
                 and rename it to {}",
                path.display(),
                journal::NAME
            )?,
            Ok(path) => write!(out, "; the journal was renamed to {}", path.display())?,
            Err(error) => write!(out, "; failed to rename the journal ({error}): move it away")?,
        }
        match &self.run {
            Some(run) if self.resumable && !self.newer => {
                write!(
                    out,
                    "; `{program} bench --resume {run}` measures the missing trials",
                    program = host::program()
                )
            }
            _ => Ok(()),
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

impl Store {
    /// Imports the records of all journals below `runs` that the database lacks. Journals of runs in progress are skipped.
    ///
    /// # Errors
    /// If the database fails. Errors of journals are part of the result and do not affect other journals.
    pub fn catch_up(&self, runs: &Path) -> Result<JournalImport, StoreError> {
        let mut found = JournalImport::default();
        for path in journal::all(runs)? {
            match self.import_journal(&path, &mut found) {
                Ok(()) => {}
                Err(StoreError::Journal(error)) => found.unreadable.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn import_journal(&self, path: &Path, found: &mut JournalImport) -> Result<(), StoreError> {
        if journal::is_in_use(path) {
            return Ok(());
        }
        let length = journal::length(path)?;
        let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        let mut run = folder.and_then(|name| RunId::try_from(name.to_owned()).ok());
        // All journals are checked each time; for most of them, the size shows that they are already imported.
        if run.as_ref().is_some_and(|_| length > 0) && self.imported_bytes(run.as_ref())? == Some(length) {
            return Ok(());
        }
        let mut lines = Lines::open(path, 0)?;
        let mut sequence = Sequence::default();
        // Length of the part in the database, known once the first line has named the run.
        let mut here = None;
        let mut imported = 0;
        let fault = loop {
            let begin = lines.at;
            let (bytes, record) = match lines.next() {
                None => break None,
                Some(Ok(line)) => line,
                Some(Err(JournalError::Damaged { line, reason, newer, .. })) => {
                    break Some(Fault { line, reason, newer, end: begin });
                }
                Some(Err(error)) => return Err(error.into()),
            };
            let fault = |reason: String| Fault { line: lines.number, reason, newer: false, end: begin };
            if let Err(reason) = sequence.check(&record, lines.number, &lines.text) {
                break Some(fault(reason));
            }
            if let Record::Run(start) = &record {
                // More reliable than the name of the directory, which may have been renamed.
                run = Some(start.id.clone());
                here = Some(self.imported_bytes(run.as_ref())?.unwrap_or(0));
            }
            let (Some(run), Some(here)) = (&run, here) else { continue };
            if here == length {
                return Ok(());
            }
            if bytes.start < here && here < bytes.end {
                let reason = "the database has only a part of this line; the journal was changed after it was imported";
                break Some(fault(reason.to_owned()));
            }
            if bytes.start >= here {
                match self.bring_in(run, &bytes, &record) {
                    Ok(is_new) => imported += usize::from(is_new),
                    Err(error) => match unfit(&error) {
                        Some(reason) => break Some(fault(reason)),
                        None => return Err(error),
                    },
                }
            }
        };
        if let Some(fault) = fault {
            found.damaged.extend(self.replace_damaged(path, lines.file(), run, fault)?);
        } else if let (Some(run), true) = (run, imported > 0) {
            found.runs.push(ImportedJournal { journal: path.to_path_buf(), run, imported });
        }
        Ok(())
    }

    /// How many bytes of a run's journal are in the database; `None` if the run is not.
    fn imported_bytes(&self, run: Option<&RunId>) -> Result<Option<u64>, StoreError> {
        let Some(run) = run else { return Ok(None) };
        let stored = self.rows(run.as_str(), |connection| catalog::find(connection, run.as_str()))?;
        Ok(stored.map(|stored| stored.journal_bytes))
    }

    /// Renames a damaged journal. If all of its valid lines are in the database, a journal of these takes its place.
    /// `None` if another process is doing it.
    fn replace_damaged(
        &self,
        path: &Path,
        file: &File,
        run: Option<RunId>,
        fault: Fault,
    ) -> Result<Option<DamagedJournal>, StoreError> {
        if !lock(path, file)? {
            return Ok(None);
        }
        let stored = self.imported_bytes(run.as_ref())?;
        let run = run.filter(|_| stored.is_some());
        let aside = free_name(path);
        // A later version can continue where this one stopped. If the journal is damaged, the run records why it is incomplete.
        let ending = Record::Finished(Finished {
            unix_ns: date::unix_ns(),
            status: Status::Failed,
            reason: Some(format!(
                "its journal is damaged at line {} ({}); the original is {}",
                fault.line,
                fault.reason,
                aside.display()
            )),
        });
        let ending = (!fault.newer).then_some(&ending);
        let resumable = fault.end > 0 && stored == Some(fault.end);
        let moved = if resumable {
            replace(path, file, fault.end, ending, &aside)
        } else {
            fs::rename(path, &aside).map(|()| 0)
        };
        if let (Some(run), Some(ending), Ok(length)) = (&run, ending, &moved)
            && resumable
        {
            self.bring_in(run, &(fault.end..fault.end + length), ending)?;
        }
        let Fault { line, reason, newer, .. } = fault;
        let moved = moved.map(|_| aside).map_err(|error| error.to_string());
        Ok(Some(DamagedJournal { journal: path.to_path_buf(), run, line, reason, newer, resumable, moved }))
    }
}

/// The first invalid line.
struct Fault {
    line: usize,
    reason: String,
    newer: bool,
    /// End of the line before it.
    end: u64,
}

/// Why the database rejects a record; `None` for errors of the database itself.
fn unfit(error: &StoreError) -> Option<String> {
    match error {
        StoreError::Dangling { missing, .. } => {
            Some(format!("it refers to a {missing}, which no earlier line defines"))
        }
        StoreError::Sqlite { source, .. } => {
            let is_unfit = matches!(source, rusqlite::Error::ToSqlConversionFailure(_))
                || matches!(
                    source.sqlite_error_code(),
                    Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
                );
            is_unfit.then(|| format!("the database rejects it ({source})"))
        }
        _ => None,
    }
}

/// The previous lines, against which the next one is checked. The database alone would accept a duplicate trial.
#[derive(Default)]
struct Sequence {
    networks: BTreeSet<String>,
    schedules: BTreeSet<u32>,
    hasher: RandomState,
    /// Hash of each line with its number.
    lines: HashMap<u64, usize>,
}

impl Sequence {
    fn check(&mut self, record: &Record, number: usize, text: &[u8]) -> Result<(), String> {
        if let Some(earlier) = self.lines.insert(self.hasher.hash_one(text), number) {
            return Err(format!("it is identical to line {earlier}"));
        }
        let is_first = number == 1;
        match record {
            Record::Run(_) if !is_first => Err("it starts a second run".to_owned()),
            Record::Run(_) => Ok(()),
            _ if is_first => Err("it does not start a run".to_owned()),
            Record::Network(record) => {
                let name = record.network.name().to_owned();
                if self.networks.insert(name.clone()) {
                    Ok(())
                } else {
                    Err(format!("it is a duplicate of network {name:?}"))
                }
            }
            Record::Schedule(record) => {
                self.network(&record.network)?;
                let place = record.place;
                if self.schedules.insert(place) {
                    Ok(())
                } else {
                    Err(format!("it is a duplicate of schedule {place}"))
                }
            }
            Record::Profile(record) => self.network(&record.network),
            Record::Comparison(record) => {
                self.schedule(record.schedule)?;
                self.schedule(record.reference)
            }
            Record::Trial(record) => self.schedule(record.schedule),
            Record::Resumed(_)
            | Record::PowerCycle(_)
            | Record::Idle(_)
            | Record::Transfer(_)
            | Record::OperatingPoint(_)
            | Record::Finished(_) => Ok(()),
        }
    }

    fn network(&self, name: &str) -> Result<(), String> {
        if self.networks.contains(name) { Ok(()) } else { Err(missing(&format!("network {name:?}"))) }
    }

    fn schedule(&self, place: u32) -> Result<(), String> {
        if self.schedules.contains(&place) { Ok(()) } else { Err(missing(&format!("schedule {place}"))) }
    }
}

fn missing(what: &str) -> String {
    format!("it refers to {what}, which no earlier line defines; a line is missing, or two are swapped")
}

/// Locks the journal that was read. False if another process has it, or has just replaced it.
fn lock(path: &Path, file: &File) -> Result<bool, JournalError> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(false),
        // Without locks, two processes at once are possible, but unlikely.
        Ok(()) | Err(TryLockError::Error(_)) => {}
    }
    let read = file.metadata().map_err(|source| JournalError::Read { path: path.to_path_buf(), source })?;
    Ok(fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (read.dev(), read.ino())))
}

/// An unused path in the directory of a journal.
fn free_name(path: &Path) -> PathBuf {
    let named = |number: u32| match number {
        1 => path.with_file_name("journal.damaged.jsonl"),
        _ => path.with_file_name(format!("journal.damaged-{number}.jsonl")),
    };
    let mut number = 1;
    while fs::symlink_metadata(named(number)).is_ok() {
        number += 1;
    }
    named(number)
}

/// Renames a journal to `aside` and replaces it by its first `end` bytes and an optional last record. Returns the length of
/// that record.
fn replace(path: &Path, file: &File, end: u64, ending: Option<&Record>, aside: &Path) -> io::Result<u64> {
    let fresh = path.with_extension("jsonl.new");
    let write = || {
        let mut valid = OpenOptions::new().write(true).create(true).truncate(true).open(&fresh)?;
        let mut old = file;
        old.rewind()?;
        let copied = io::copy(&mut old.take(end), &mut valid)?;
        if copied < end {
            return Err(io::Error::other("the journal was truncated meanwhile"));
        }
        let mut line = Vec::new();
        if let Some(ending) = ending {
            serde_json::to_writer(&mut line, ending)?;
            line.push(b'\n');
        }
        valid.write_all(&line)?;
        valid.sync_all()?;
        fs::rename(path, aside)?;
        fs::rename(&fresh, path)?;
        Ok(line.len() as u64)
    };
    write().inspect_err(|_| {
        // It may not exist.
        let _ = fs::remove_file(&fresh);
    })
}
