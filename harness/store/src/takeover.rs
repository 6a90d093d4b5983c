//! Taking records over from journals into the database: those of runs that were killed, or whose database was full,
//! locked, read-only or moved away.
//!
//! Each journal is handled by itself. One that is damaged gives what comes before the damage, is moved aside, and leaves
//! a sound journal behind, so that its run can go on.

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

/// What was found in the journals.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TakeOver {
    /// Journals of which something was brought into the database.
    pub runs: Vec<CaughtUp>,
    /// Journals that are damaged.
    pub damaged: Vec<Damaged>,
    /// Journals that cannot be read; a sentence each.
    pub unreadable: Vec<String>,
}

impl TakeOver {
    /// What to tell the user; the same of many journals in one line.
    pub fn messages(&self) -> Vec<String> {
        let mut messages = Vec::new();
        let records: usize = self.runs.iter().map(|run| run.imported).sum();
        match self.runs.as_slice() {
            [] => {}
            [one] => messages.push(format!(
                "note: took {} of the run {} over from its journal",
                counted(records, "record"),
                one.run
            )),
            many => messages.push(format!(
                "note: took {} of {} over from their journals",
                counted(records, "record"),
                counted(many.len(), "run")
            )),
        }
        let damaged = self.damaged.iter().map(ToString::to_string);
        let warnings: Vec<String> = damaged.chain(self.unreadable.iter().cloned()).collect();
        messages.extend(warnings.iter().take(MOST_WARNINGS).map(|warning| format!("warning: {warning}")));
        if let Some(more @ 1..) = warnings.len().checked_sub(MOST_WARNINGS) {
            messages.push(format!(
                "warning: {} more could not be used as a whole; those that are damaged are now named \
                 journal.damaged.jsonl in their folders",
                counted(more, "journal")
            ));
        }
        messages
    }
}

/// Most journals that are told of one by one.
const MOST_WARNINGS: usize = 5;

/// A journal of which something was brought into the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaughtUp {
    /// The journal.
    pub journal: PathBuf,
    /// Its run.
    pub run: RunId,
    /// Records brought in.
    pub imported: usize,
}

/// A damaged journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The journal.
    pub journal: PathBuf,
    /// Its run, if the database has anything of it.
    pub run: Option<RunId>,
    /// First line that cannot be used.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
    /// Whether it looks like one of a later version.
    pub newer: bool,
    /// Whether the run can go on from the lines before it.
    pub resumable: bool,
    /// Where the damaged journal is now, or why it could not be moved.
    pub moved: Result<PathBuf, String>,
}

impl fmt::Display for Damaged {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { journal, line, reason, .. } = self;
        write!(out, "the journal {} cannot be used from line {line} on: {reason}; ", journal.display())?;
        match &self.run {
            Some(run) if self.resumable => write!(
                out,
                "the {} before it {} kept, and the run {run} is incomplete",
                counted(line - 1, "line"),
                if *line == 2 { "is" } else { "are" }
            )?,
            Some(run) => write!(out, "the database keeps what it has of the run {run}, which is incomplete")?,
            None => out.write_str("nothing of it could be kept")?,
        }
        match &self.moved {
            Ok(path) if self.newer => write!(
                out,
                "; it looks like a journal of a later version, and is now {}: update edgepipe and rename it to {} to have \
                 the rest taken over",
                path.display(),
                journal::NAME
            )?,
            Ok(path) => write!(out, "; all of it is now in {}", path.display())?,
            Err(error) => write!(out, "; failed to move it aside ({error}): move it away")?,
        }
        match &self.run {
            Some(run) if self.resumable && !self.newer => {
                write!(out, "; `cargo xtask bench --resume {run}` measures what is missing")
            }
            _ => Ok(()),
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

impl Store {
    /// Brings in what journals below `runs` have and the database does not. Runs that are still going on bring in their
    /// own.
    ///
    /// # Errors
    /// If the database fails. What is wrong with a journal is in the result, and the others are taken over all the same.
    pub fn catch_up(&self, runs: &Path) -> Result<TakeOver, StoreError> {
        let mut found = TakeOver::default();
        for path in journal::all(runs)? {
            match self.take_over(&path, &mut found) {
                Ok(()) => {}
                Err(StoreError::Journal(error)) => found.unreadable.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn take_over(&self, path: &Path, found: &mut TakeOver) -> Result<(), StoreError> {
        if journal::is_in_use(path) {
            return Ok(());
        }
        let length = journal::length(path)?;
        let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        let mut run = folder.and_then(|name| RunId::try_from(name.to_owned()).ok());
        // All runs' journals are looked at each time; most are in, and their size says so.
        if run.as_ref().is_some_and(|_| length > 0) && self.taken_over(run.as_ref())? == Some(length) {
            return Ok(());
        }
        let mut lines = Lines::open(path, 0)?;
        let mut sequence = Sequence::default();
        // How far the database has it, known once the first line has named the run.
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
                // This tells better than the name of a folder, which may have been renamed.
                run = Some(start.id.clone());
                here = Some(self.taken_over(run.as_ref())?.unwrap_or(0));
            }
            let (Some(run), Some(here)) = (&run, here) else { continue };
            if here == length {
                return Ok(());
            }
            if bytes.start < here && here < bytes.end {
                let reason =
                    "the database has a part of it only; the journal was changed after it was taken over";
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
            found.damaged.extend(self.set_aside(path, lines.file(), run, fault)?);
        } else if let (Some(run), true) = (run, imported > 0) {
            found.runs.push(CaughtUp { journal: path.to_path_buf(), run, imported });
        }
        Ok(())
    }

    /// How many bytes of a run's journal the database has; absent if it does not have the run.
    fn taken_over(&self, run: Option<&RunId>) -> Result<Option<u64>, StoreError> {
        let Some(run) = run else { return Ok(None) };
        let stored = self.rows(run.as_str(), |connection| catalog::find(connection, run.as_str()))?;
        Ok(stored.map(|stored| stored.journal_bytes))
    }

    /// Moves a damaged journal aside. If all of its sound lines are in the database, a journal of these takes its place.
    /// Absent if another process is doing it.
    fn set_aside(
        &self,
        path: &Path,
        file: &File,
        run: Option<RunId>,
        fault: Fault,
    ) -> Result<Option<Damaged>, StoreError> {
        if !lock(path, file)? {
            return Ok(None);
        }
        let stored = self.taken_over(run.as_ref())?;
        let run = run.filter(|_| stored.is_some());
        let aside = free_name(path);
        // A later version can read on where this one stopped; otherwise the run says why it is not whole.
        let ending = Record::Finished(Finished {
            unix_ns: date::unix_ns(),
            status: Status::Failed,
            reason: Some(format!(
                "its journal cannot be used from line {} on ({}); all of it is in {}",
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
        Ok(Some(Damaged { journal: path.to_path_buf(), run, line, reason, newer, resumable, moved }))
    }
}

/// The first line that cannot be used.
struct Fault {
    line: usize,
    reason: String,
    newer: bool,
    /// End of the line before it.
    end: u64,
}

/// Why a record does not fit into the database; absent if the error is the database's own.
fn unfit(error: &StoreError) -> Option<String> {
    match error {
        StoreError::Dangling { missing, .. } => {
            Some(format!("it names a {missing} that no line before it has"))
        }
        StoreError::Sqlite { source, .. } => {
            let is_unfit = matches!(source, rusqlite::Error::ToSqlConversionFailure(_))
                || matches!(
                    source.sqlite_error_code(),
                    Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
                );
            is_unfit.then(|| format!("the database does not take it ({source})"))
        }
        _ => None,
    }
}

/// What the lines so far say, against which the next is held. The database would take a trial a second time.
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
            return Err(format!("it is the same as line {earlier}"));
        }
        let is_first = number == 1;
        match record {
            Record::Run(_) if !is_first => Err("a second run begins".to_owned()),
            Record::Run(_) => Ok(()),
            _ if is_first => Err("it does not begin a run".to_owned()),
            Record::Network(record) => {
                let name = record.network.name().to_owned();
                if self.networks.insert(name.clone()) {
                    Ok(())
                } else {
                    Err(format!("it has the network {name:?} again"))
                }
            }
            Record::Schedule(record) => {
                self.network(&record.network)?;
                let place = record.place;
                if self.schedules.insert(place) {
                    Ok(())
                } else {
                    Err(format!("it has the schedule {place} again"))
                }
            }
            Record::Profile(record) => self.network(&record.network),
            Record::Comparison(record) => {
                self.schedule(record.schedule)?;
                self.schedule(record.reference)
            }
            Record::Trial(record) => self.schedule(record.schedule),
            Record::Resumed(_) | Record::Idle(_) | Record::Transfer(_) | Record::Finished(_) => Ok(()),
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
    format!("it names the {what}, which no line before it has; a line is missing, or two are swapped")
}

/// Locks the journal that was read. False if another process has it, or has just moved it and put another in its place.
fn lock(path: &Path, file: &File) -> Result<bool, JournalError> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(false),
        // If nobody can lock, nobody is kept out; two processes at once are unlikely.
        Ok(()) | Err(TryLockError::Error(_)) => {}
    }
    let read = file.metadata().map_err(|source| JournalError::Read { path: path.to_path_buf(), source })?;
    Ok(fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (read.dev(), read.ino())))
}

/// A name beside a journal that nothing has.
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

/// Puts a journal of the first `end` bytes and perhaps one more record in the place of another, which is moved aside.
/// Returns the length of that record.
fn replace(path: &Path, file: &File, end: u64, ending: Option<&Record>, aside: &Path) -> io::Result<u64> {
    let fresh = path.with_extension("jsonl.new");
    let write = || {
        let mut sound = OpenOptions::new().write(true).create(true).truncate(true).open(&fresh)?;
        let mut old = file;
        old.rewind()?;
        let copied = io::copy(&mut old.take(end), &mut sound)?;
        if copied < end {
            return Err(io::Error::other("it became shorter meanwhile"));
        }
        let mut line = Vec::new();
        if let Some(ending) = ending {
            serde_json::to_writer(&mut line, ending)?;
            line.push(b'\n');
        }
        sound.write_all(&line)?;
        sound.sync_all()?;
        fs::rename(path, aside)?;
        fs::rename(&fresh, path)?;
        Ok(line.len() as u64)
    };
    write().inspect_err(|_| {
        // It is of no use, and may not even be there.
        let _ = fs::remove_file(&fresh);
    })
}
