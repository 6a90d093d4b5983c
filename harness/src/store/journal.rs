//! The journal of a run: JSON lines, each on the disk before the run goes on. What the database cannot take just now
//! is not lost, and a run that was killed can go on.

use super::holder;
use super::record::Record;
use super::run_id::RunId;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// File name within the folder of a run.
const NAME: &str = "journal.jsonl";

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
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            Err(JournalError::InUse { path: path.to_path_buf(), holder: holder::of(&[path]) })
        }
        Err(TryLockError::Error(source)) => Err(JournalError::Read { path: path.to_path_buf(), source }),
    }
}

/// The records of a journal, each with the bytes it takes.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
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
        let mut file = File::open(path).map_err(read_error)?;
        file.seek(SeekFrom::Start(from)).map_err(read_error)?;
        let reader = BufReader::new(file);
        Ok(Self { path: path.to_path_buf(), reader, at: from, cut_off: 0, damaged: false })
    }

    fn read(&mut self) -> Result<Option<(Range<u64>, Record)>, JournalError> {
        let mut line = Vec::new();
        let read = self.reader.read_until(b'\n', &mut line);
        read.map_err(|source| JournalError::Read { path: self.path.clone(), source })?;
        if line.last() != Some(&b'\n') {
            self.cut_off = line.len() as u64;
            return Ok(None);
        }
        let record = serde_json::from_slice(&line).map_err(|source| JournalError::Damaged {
            path: self.path.clone(),
            offset: self.at,
            source,
        })?;
        let begin = self.at;
        self.at += line.len() as u64;
        Ok(Some((begin..self.at, record)))
    }
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

/// The run a journal is of, from its first line.
pub(super) fn run_of(path: &Path) -> Result<Option<RunId>, JournalError> {
    let Some(first) = Lines::open(path, 0)?.next() else { return Ok(None) };
    match first? {
        (_, Record::Run(run)) => Ok(Some(run.id)),
        _ => Err(JournalError::NoRun { path: path.to_path_buf() }),
    }
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
    #[error("failed to read the journal {}: {source}", path.display())]
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
    /// A line is none of ours.
    #[error(
        "failed to understand the journal {} at byte {offset}: {source}; records before it are good, remove the rest \
         or move the journal away",
        path.display()
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Where the line begins.
        offset: u64,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Its first line says nothing of a run.
    #[error("failed to understand the journal {}: its first line is not that of a run; move it away", path.display())]
    NoRun {
        /// The journal.
        path: PathBuf,
    },
}

/// Who, as a part of a sentence.
pub(super) fn by(holder: &str) -> String {
    if holder.is_empty() { String::new() } else { format!(", in {holder}") }
}
