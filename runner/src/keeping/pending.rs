//! The file on a board that says what is to be restored. It is there from before anything is changed until all is
//! restored, so that whoever comes next restores what a session that was killed, or a power cut, left behind.

use protocol::Pending;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Version of the file.
pub(crate) const VERSION: u32 = 1;

/// Where it lies: a folder of the user's own, because what lies there is obeyed as root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// `$XDG_STATE_HOME/edgepipe` or `~/.local/state/edgepipe`.
    ///
    /// # Errors
    /// Where the user has no home folder. The message is a sentence of its own.
    pub(crate) fn find() -> Result<Self, String> {
        let variable =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
        base.map(|base| Self(base.join("edgepipe"))).ok_or_else(|| {
            "neither HOME nor XDG_STATE_HOME names a folder for what is to be restored; set one of them"
                .to_owned()
        })
    }

    /// The file itself.
    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("board-state.json")
    }

    /// Where `jetson_clocks` stores the clocks of the mode that was found.
    pub(crate) fn clocks_before(&self) -> PathBuf {
        self.0.join("clocks-before.conf")
    }

    /// Where `jetson_clocks` stores the clocks of the mode that was set, before they are pinned.
    pub(crate) fn clocks_in_mode(&self) -> PathBuf {
        self.0.join("clocks-in-mode.conf")
    }

    /// Makes the folder, for its user alone.
    pub(crate) fn create(&self) -> Result<(), String> {
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .recursive(true)
            .create(&self.0)
            .map_err(|error| format!("cannot make {}: {error}", self.0.display()))
    }

    /// Keeps other sessions from the board's state for as long as the file lives; waits for one that still restores.
    /// `None` where there is no folder, and so nothing to keep from.
    ///
    /// # Errors
    /// Where another session does not let go. The message is a sentence of its own.
    pub(crate) fn lock(&self, patience: Duration) -> Result<Option<File>, String> {
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
        let deadline = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(format!(
                        "another session keeps the state of this board and has not let go of {} for {} s",
                        path.display(),
                        patience.as_secs()
                    ));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    /// What is to be restored, if anything.
    ///
    /// # Errors
    /// Where the file cannot be read or understood. The message is a sentence of its own.
    pub(crate) fn read(&self) -> Result<Option<Pending>, String> {
        let path = self.file();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        let pending: Pending = serde_json::from_slice(&bytes).map_err(|error| {
            format!(
                "cannot read {}, which says how the board was before another session ({error}); restore the board by \
                 hand, then remove the file",
                path.display()
            )
        })?;
        if pending.version == VERSION {
            return Ok(Some(pending));
        }
        Err(format!(
            "{} was written by another version of edgepipe ({}); let that one restore the board, or restore it by hand \
             and remove the file",
            path.display(),
            pending.version
        ))
    }

    /// Writes the file, on disk when this returns.
    ///
    /// # Errors
    /// Where it cannot be written. The message is a sentence of its own.
    pub(crate) fn write(&self, pending: &Pending) -> Result<(), String> {
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

    /// Nothing is to be restored any longer.
    ///
    /// # Errors
    /// Where a file cannot be removed. The message is a sentence of its own.
    pub(crate) fn clear(&self) -> Result<(), String> {
        // The file goes first: without it, the others mean nothing.
        remove(&self.file())?;
        self.forget_clocks()?;
        self.sync().map_err(|error| format!("cannot write {}: {error}", self.0.display()))
    }

    /// Removes clocks that were stored: `jetson_clocks` asks a question where its file is there.
    pub(crate) fn forget_clocks(&self) -> Result<(), String> {
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
