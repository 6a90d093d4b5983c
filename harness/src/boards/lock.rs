//! One user at a time. A lock on a file that the kernel lets go of when its holder dies, whatever kills it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// A board held.
#[derive(Debug)]
pub struct BoardLock {
    // Held for its lock, which goes with it.
    _file: File,
}

/// Why a board cannot be had.
#[derive(Debug, Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error(
        "failed to take the board {board}: it is in use by {holder}. Two measurements at once would spoil each other; wait for it or end it"
    )]
    Busy {
        /// The board.
        board: String,
        /// What the holder wrote of itself.
        holder: String,
    },
    /// The lock file cannot be used.
    #[error("failed to take the board {board}: the lock {}: {reason}", path.display())]
    File {
        /// The board.
        board: String,
        /// The lock file.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
}

impl BoardLock {
    /// Takes this machine. The lock stands for the machine, not for a checkout: two checkouts share its CPUs.
    ///
    /// # Errors
    /// Where another process holds it.
    pub fn local(board: &str) -> Result<Self, LockError> {
        Self::take(board, &std::env::temp_dir().join("edgepipe-local-board.lock"))
    }

    fn take(board: &str, path: &Path) -> Result<Self, LockError> {
        let failed = |reason| LockError::File { board: board.to_owned(), path: path.to_path_buf(), reason };
        let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o666).custom_flags(no_follow);
        let mut file = options.open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // What cannot be read is not known; the board is busy all the same.
                let _ = file.read_to_string(&mut holder);
                let first = holder.lines().next().unwrap_or("").trim();
                let holder = if first.is_empty() { "another process" } else { first }.to_owned();
                return Err(LockError::Busy { board: board.to_owned(), holder });
            }
            Err(TryLockError::Error(reason)) => return Err(failed(reason)),
        }
        // Another user of the machine must be able to take it next; the umask may have narrowed the mode.
        let _ = file.set_permissions(std::fs::Permissions::from_mode(0o666));
        // The runner reads the same file, where somebody reaches this machine over SSH.
        let line = format!("{}\npid {}\n", holder(board), std::process::id());
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        file.write_all(line.as_bytes()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// This process in words, as the user of a board: for whoever finds it taken, under whatever name.
pub fn holder(board: &str) -> String {
    let command = crate::provenance::command_line();
    let verb = command.iter().find(|word| ["bench", "plan", "boards"].contains(&word.as_str()));
    let user =
        std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "somebody".to_owned());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let since = crate::store::Date::from_unix_ns(crate::store::unix_ns()).to_minutes();
    let verb = verb.map_or("edgepipe", String::as_str);
    format!("process {} ({verb}) of {user} on {host} as {board}, since {since}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_user_is_refused_and_told_who_is_first() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lock");
        let first = BoardLock::take("local", &path).expect("the lock is free");
        let error = BoardLock::take("local", &path).expect_err("the lock is taken");
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        BoardLock::take("local", &path).expect("the lock is free again");
    }

    #[test]
    fn a_link_in_the_place_of_the_lock_is_not_followed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (path, victim) = (folder.path().join("lock"), folder.path().join("victim"));
        std::fs::write(&victim, "precious").expect("a file");
        std::os::unix::fs::symlink(&victim, &path).expect("a link");
        assert!(matches!(BoardLock::take("local", &path), Err(LockError::File { .. })));
        assert_eq!(std::fs::read_to_string(&victim).expect("the file"), "precious");
    }
}
