//! The journal of a run: JSON lines. Each is on the disk before the run continues, so that no record is lost if the
//! database cannot be written or the run is killed.

use super::holder;
use super::record::Record;
use super::run_id::RunId;
use protocol::MAX_LINE_BYTES;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// File name in the directory of a run.
pub(super) const NAME: &str = "journal.jsonl";
/// Longest record: a line from the runner and what the harness adds to it.
const LONGEST_RECORD: u64 = MAX_LINE_BYTES + (16 << 20);
/// How long to wait for a lock. Other processes hold it briefly to test whether the journal is in use; on a busy machine, for longer.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// Some editors add it at the start of a file.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Path of a run's journal, in its own directory below `runs`.
pub fn path_of(runs: &Path, id: &RunId) -> PathBuf {
    runs.join(id.as_str()).join(NAME)
}

/// A journal open for appending. It is locked: a run has one writer.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    end: u64,
}

impl Journal {
    /// Creates a journal in a new directory below `runs`.
    pub(super) fn create(runs: &Path, id: &RunId) -> Result<Self, JournalError> {
        let path = path_of(runs, id);
        let folder = runs.join(id.as_str());
        let create = || {
            std::fs::create_dir_all(&folder)?;
            let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
            // Syncing the directory persists the file name.
            File::open(&folder)?.sync_all()?;
            Ok(file)
        };
        let file = create().map_err(|source| JournalError::Create { path: path.clone(), source })?;
        lock(&file, &path)?;
        Ok(Self { path, file, end: 0 })
    }

    /// Opens an existing journal. Truncates an incomplete last line; returns its length in bytes.
    pub(super) fn reopen(path: &Path) -> Result<(Self, u64), JournalError> {
        let read_error = |source| JournalError::Read { path: path.to_path_buf(), source };
        let file = OpenOptions::new().append(true).read(true).open(path).map_err(read_error)?;
        lock(&file, path)?;
        let mut lines = Lines::open(path, 0)?;
        for line in &mut lines {
            line?;
        }
        let (end, cut_off) = (lines.at, lines.cut_off);
        if cut_off > 0 {
            let write_error = |source| JournalError::Write { path: path.to_path_buf(), source };
            file.set_len(end).and_then(|()| file.sync_all()).map_err(write_error)?;
        }
        Ok((Self { path: path.to_path_buf(), file, end }, cut_off))
    }

    /// Appends a record and waits until it is on the disk. Returns its byte range.
    pub(super) fn append(&mut self, record: &Record) -> Result<Range<u64>, JournalError> {
        let error = |source| JournalError::Write { path: self.path.clone(), source };
        let mut line = serde_json::to_vec(record).map_err(|source| error(source.into()))?;
        line.push(b'\n');
        if let Err(source) = self.file.write_all(&line).and_then(|()| self.file.sync_data()) {
            // A partial line would damage the next one. If this fails too, the next reader truncates it.
            let _ = self.file.set_len(self.end);
            return Err(error(source));
        }
        let begin = self.end;
        self.end += line.len() as u64;
        Ok(begin..self.end)
    }

    #[cfg(test)]
    pub(super) fn break_off(&mut self) {
        self.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn lock(file: &File, path: &Path) -> Result<(), JournalError> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(JournalError::InUse { path: path.to_path_buf(), holder: holder::of(&[path]) });
            }
            Err(TryLockError::Error(source)) => {
                return Err(JournalError::Lock { path: path.to_path_buf(), source });
            }
        }
    }
}

/// The records of a journal, each with its byte range.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    /// Number of the last line read, counted from the starting offset.
    pub(super) number: usize,
    /// Its text, including the line ending.
    pub(super) text: Vec<u8>,
    /// End of the last complete record.
    pub(super) at: u64,
    /// Bytes of an incomplete line after it, known when the iteration has ended.
    pub(super) cut_off: u64,
    damaged: bool,
}

impl Lines {
    /// Reads from an offset where a record starts.
    pub(super) fn open(path: &Path, from: u64) -> Result<Self, JournalError> {
        let read_error = |source| JournalError::Read { path: path.to_path_buf(), source };
        let mut file = host::files::open(path).map_err(read_error)?;
        file.seek(SeekFrom::Start(from)).map_err(read_error)?;
        let reader = BufReader::new(file);
        Ok(Self {
            path: path.to_path_buf(),
            reader,
            number: 0,
            text: Vec::new(),
            at: from,
            cut_off: 0,
            damaged: false,
        })
    }

    /// The file.
    pub(super) fn file(&self) -> &File {
        self.reader.get_ref()
    }

    fn read(&mut self) -> Result<Option<(Range<u64>, Record)>, JournalError> {
        let mut line = std::mem::take(&mut self.text);
        line.clear();
        let read = self.reader.by_ref().take(LONGEST_RECORD).read_until(b'\n', &mut line);
        read.map_err(|source| JournalError::Read { path: self.path.clone(), source })?;
        let damaged = |reason: String, newer| JournalError::Damaged {
            path: self.path.clone(),
            line: self.number + 1,
            reason,
            newer,
        };
        if line.last() != Some(&b'\n') {
            if line.len() as u64 == LONGEST_RECORD {
                return Err(damaged(format!("the line is longer than {} MiB", LONGEST_RECORD >> 20), false));
            }
            // After a power failure, data that was not yet written can be zeros.
            if line.contains(&0) {
                return Err(damaged("it contains NUL bytes".to_owned(), false));
            }
            self.cut_off = line.len() as u64;
            return Ok(None);
        }
        let text = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| self.at == 0).unwrap_or(&line);
        let record = serde_json::from_slice(text)
            .map_err(|error| damaged(fault(text, &error), is_newer(text, &error)))?;
        self.number += 1;
        let begin = self.at;
        self.at += line.len() as u64;
        self.text = line;
        Ok(Some((begin..self.at, record)))
    }
}

/// The error of a line, without the parser's line number.
fn fault(line: &[u8], error: &serde_json::Error) -> String {
    if line.contains(&0) {
        return "it contains NUL bytes".to_owned();
    }
    if std::str::from_utf8(line).is_err() {
        return "it is not UTF-8 text".to_owned();
    }
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    format!("{what} (column {})", error.column())
}

/// Whether a line is valid JSON with something that this version does not know.
fn is_newer(line: &[u8], error: &serde_json::Error) -> bool {
    let unknown = ["unknown variant", "unknown field"];
    unknown.iter().any(|unknown| error.to_string().starts_with(unknown))
        && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
}

impl Iterator for Lines {
    type Item = Result<(Range<u64>, Record), JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.damaged {
            return None;
        }
        let read = self.read();
        self.damaged = read.is_err();
        read.transpose()
    }
}

/// Whether a process is writing this journal.
pub(super) fn is_in_use(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Journals below `runs`, sorted by run name. Empty if the directory does not exist.
pub(super) fn all(runs: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let read_error = |source| JournalError::Read { path: runs.to_path_buf(), source };
    let entries = match std::fs::read_dir(runs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(read_error(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(read_error)?.path().join(NAME);
        if path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Length of a file in bytes.
pub(super) fn length(path: &Path) -> Result<u64, JournalError> {
    let metadata = std::fs::metadata(path);
    metadata
        .map(|metadata| metadata.len())
        .map_err(|source| JournalError::Read { path: path.to_path_buf(), source })
}

/// A journal could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The journal cannot be created.
    #[error("failed to create the journal {}: {source}; nothing was measured; fix the directory and try again", path.display())]
    Create {
        /// The journal.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A record did not reach the disk.
    #[error("failed to write to the journal {}: {source}; earlier records are safe; fix the problem and continue with --resume", path.display())]
    Write {
        /// The journal.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The journal cannot be read.
    #[error("failed to read the journal {}: {source}; fix its permissions, or move it away", path.display())]
    Read {
        /// The journal.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process is writing the journal.
    #[error("failed to lock the journal {}: the run is still in progress{}; wait until it ends, or stop it", path.display(), by(holder))]
    InUse {
        /// The journal.
        path: PathBuf,
        /// The process, if known.
        holder: String,
    },
    /// The file system cannot lock files.
    #[error(
        "failed to lock the journal {}: {source}; if its file system does not support locks, store the results on a local disk \
         with --database FILE",
        path.display()
    )]
    Lock {
        /// The journal.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A line is not a valid record.
    #[error(
        "failed to read line {line} of the journal {}: {reason}; the database keeps the records it has; start a new run for \
         the rest",
        path.display()
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// The error.
        reason: String,
        /// Whether a later version probably wrote it.
        newer: bool,
    },
}

/// The process as part of a sentence.
pub(super) fn by(holder: &str) -> String {
    if holder.is_empty() { String::new() } else { format!(": {holder}") }
}
