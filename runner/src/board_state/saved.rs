//! The file that describes the state to be restored. It exists from before the first change until everything is restored, so
//! that after a killed session or a power cut the next session can restore the board.

use protocol::SavedState;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Version of the file's format.
pub(super) const VERSION: u32 = 1;

/// The folder of the file: only its user may write to it, because the file is applied as root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateFolder(PathBuf);

impl StateFolder {
    /// `$XDG_STATE_HOME/edgepipe` or `~/.local/state/edgepipe`.
    ///
    /// # Errors
    /// If the user has no home folder. The message is a clause.
    pub(super) fn find() -> Result<Self, String> {
        let variable =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
        base.map(|base| Self(base.join("edgepipe"))).ok_or_else(|| {
            "neither HOME nor XDG_STATE_HOME is set, so the previous state cannot be saved; set one of them"
                .to_owned()
        })
    }

    pub(super) fn file(&self) -> PathBuf {
        self.0.join("board-state.json")
    }

    /// Clocks of the found mode, as stored by `jetson_clocks`.
    pub(super) fn clocks_before(&self) -> PathBuf {
        self.0.join("clocks-before.conf")
    }

    /// Clocks of the requested mode before they are pinned, as stored by `jetson_clocks`.
    pub(super) fn clocks_in_mode(&self) -> PathBuf {
        self.0.join("clocks-in-mode.conf")
    }

    /// Creates the folder, accessible to its user only.
    pub(super) fn create(&self) -> Result<(), String> {
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .recursive(true)
            .create(&self.0)
            .map_err(|error| format!("cannot create {}: {error}", self.0.display()))
    }

    /// Locks the board's state for as long as the returned file is open. Waits for a session that is restoring. `None`: the
    /// folder does not exist, so there is nothing to lock.
    ///
    /// # Errors
    /// If another session keeps the lock. The message is a clause.
    pub(super) fn lock(&self, max_wait: Duration) -> Result<Option<File>, String> {
        if !self.0.is_dir() {
            return Ok(None);
        }
        let path = self.0.join("board-state.lock");
        let failed = |error: std::io::Error| format!("cannot lock {}: {error}", path.display());
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let deadline = Instant::now() + max_wait;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(format!(
                        "another session holds the state of this board: it did not release {} within {} s",
                        path.display(),
                        max_wait.as_secs()
                    ));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    /// Reads the file; `None` if it does not exist.
    ///
    /// # Errors
    /// If it cannot be read or parsed. The message is a clause.
    pub(super) fn read(&self) -> Result<Option<SavedState>, String> {
        let path = self.file();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        let pending: SavedState = serde_json::from_slice(&bytes).map_err(|error| {
            format!(
                "cannot parse {}, which describes the state before another session: {error}; restore the board by hand, then \
                 remove the file",
                path.display()
            )
        })?;
        if pending.version == VERSION {
            return Ok(Some(pending));
        }
        Err(format!(
            "{} has format version {}, which this version of edgepipe does not support; restore the board with the version \
             that wrote it, or restore it by hand and remove the file",
            path.display(),
            pending.version
        ))
    }

    /// Writes the file; it is on disk when this returns.
    pub(super) fn write(&self, pending: &SavedState) -> Result<(), String> {
        let path = self.file();
        let write = || -> std::io::Result<()> {
            let fresh = self.0.join("board-state.new");
            let bytes = serde_json::to_vec_pretty(pending)?;
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            self.sync()
        };
        write().map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    /// Removes all files, after everything is restored.
    pub(super) fn clear(&self) -> Result<(), String> {
        // This file first: without it, the others have no meaning.
        remove(&self.file())?;
        self.remove_clocks()?;
        self.sync().map_err(|error| format!("cannot write {}: {error}", self.0.display()))
    }

    /// Removes stored clocks: `jetson_clocks` asks before it overwrites a file.
    pub(super) fn remove_clocks(&self) -> Result<(), String> {
        remove(&self.clocks_before())?;
        remove(&self.clocks_in_mode())
    }

    fn sync(&self) -> std::io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

fn remove(path: &Path) -> Result<(), String> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}
