//! The journal of a run: JSON lines, each on the disk before the run goes on. What the database cannot take just now
//! is not lost, and a run that was killed can go on.

use super::holder;
use super::record::Record;
use super::run_id::RunId;
use protocol::MAX_LINE_BYTES;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// File name within the folder of a run.
pub(super) const NAME: &str = "journal.jsonl";
/// Longest record: what a runner sends in a line, with what the harness adds.
const LONGEST_RECORD: u64 = MAX_LINE_BYTES + (16 << 20);
/// Others look whether a journal is in use, and hold it for a moment.
const MOMENT: Duration = Duration::from_millis(200);
/// Some editors put it at the begin of a file.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Path of a run's journal, in a folder of its own below `runs`.
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
    /// A new journal in a new folder below `runs`.
    pub(super) fn create(runs: &Path, id: &RunId) -> Result<Self, JournalError> {
        let path = path_of(runs, id);
        let folder = runs.join(id.as_str());
        let create = || {
            std::fs::create_dir_all(&folder)?;
            let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
            // The name is on the disk once the folder is.
            File::open(&folder)?.sync_all()?;
            Ok(file)
        };
        let file = create().map_err(|source| JournalError::Create { path: path.clone(), source })?;
        lock(&file, &path)?;
        Ok(Self { path, file, end: 0 })
    }

    /// A journal that was written before. What its last writer did not finish is taken off; says how many bytes.
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

    /// Writes a record and waits until it is on the disk. Says which bytes it takes.
    pub(super) fn append(&mut self, record: &Record) -> Result<Range<u64>, JournalError> {
        let error = |source| JournalError::Write { path: self.path.clone(), source };
        let mut line = serde_json::to_vec(record).map_err(|source| error(source.into()))?;
        line.push(b'\n');
        if let Err(source) = self.file.write_all(&line).and_then(|()| self.file.sync_data()) {
            // Half a line would spoil the next; where even this fails, the next reader takes it off.
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
    let deadline = Instant::now() + MOMENT;
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

/// The records of a journal, each with the bytes it takes.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    /// Number of the last line that was read, counted from where reading began.
    pub(super) number: usize,
    /// Its text, with the end of the line.
    pub(super) text: Vec<u8>,
    /// End of the last whole record.
    pub(super) at: u64,
    /// Bytes after it that are no whole line, known once the iteration has ended.
    pub(super) cut_off: u64,
    damaged: bool,
}

impl Lines {
    /// Reads from an offset at which a record begins.
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

    /// The file that is read.
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
                return Err(damaged(format!("it is longer than {} MiB", LONGEST_RECORD >> 20), false));
            }
            // A power cut may leave zeros where the file system had not written the data yet.
            if line.contains(&0) {
                return Err(damaged("it has NUL bytes".to_owned(), false));
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

/// What is wrong with a line, without the parser's own count of lines.
fn fault(line: &[u8], error: &serde_json::Error) -> String {
    if line.contains(&0) {
        return "it has NUL bytes".to_owned();
    }
    if std::str::from_utf8(line).is_err() {
        return "it is not UTF-8 text".to_owned();
    }
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    format!("{what}, in column {}", error.column())
}

/// Whether a line is a sound one with something that this version does not know.
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

/// Journals below `runs`, in the order of their runs' names; none where there is no such folder.
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

/// Why a journal could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// There is no place for it.
    #[error("failed to create the journal {}: {source}; free or mend that folder, nothing was measured yet", path.display())]
    Create {
        /// The journal.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record did not reach the disk.
    #[error("failed to write to the journal {}: {source}; what was written before is kept, mend this and go on with --resume", path.display())]
    Write {
        /// The journal.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be read.
    #[error("failed to read the journal {}: {source}; mend its permissions, or move it away", path.display())]
    Read {
        /// The journal.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process writes it.
    #[error("failed to take the journal {}: the run is still going on{}; wait for its end, or end it", path.display(), by(holder))]
    InUse {
        /// The journal.
        path: PathBuf,
        /// Who writes it, where that is known.
        holder: String,
    },
    /// Its file system cannot lock files.
    #[error(
        "failed to lock the journal {}: {source}; its file system has no locks, as some network shares: put the results on \
         a local disk by --database FILE",
        path.display()
    )]
    Lock {
        /// The journal.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is none of ours.
    #[error(
        "failed to read line {line} of the journal {}: {reason}; what the database has of the run stays there: begin a new \
         run for the rest",
        path.display()
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
        /// Whether it looks like one of a later version.
        newer: bool,
    },
}

/// Who, as a part of a sentence.
pub(super) fn by(holder: &str) -> String {
    if holder.is_empty() { String::new() } else { format!(", in {holder}") }
}
