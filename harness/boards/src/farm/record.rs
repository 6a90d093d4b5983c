//! What processes of this host hold: a file for each, with the name that its places are acquired under.
//!
//! A process locks its file while it lives. The system drops the lock of a process that is killed, so a file that can be
//! locked is that of a dead one, and whatever has its name on the coordinator can be freed. Names are never used twice.

use super::error::FarmError;
use host::date::unix_ns;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Largest file of this kind.
const LARGEST: u64 = 64 << 10;

/// Who holds places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Owner {
    /// The coordinator, as `host:port`.
    pub(super) coordinator: String,
    /// This host, as the coordinator shows it.
    pub(super) host: String,
    /// The user, as the coordinator shows it. Unique to the process.
    pub(super) user: String,
    /// Number of the process.
    pub(super) process: u32,
    /// When it began, ns since 1970.
    pub(super) since_unix_ns: u64,
}

impl Owner {
    /// This process.
    pub(super) fn new(coordinator: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (process, since_unix_ns) = (std::process::id(), unix_ns());
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // labgrid separates host and user by a slash.
        let plain = |text: &str| -> String {
            text.chars()
                .map(|sign| if sign.is_ascii_alphanumeric() || "-_.".contains(sign) { sign } else { '-' })
                .collect()
        };
        Self {
            coordinator: coordinator.to_owned(),
            host: plain(&this_host()),
            user: format!("edgepipe-{}-{since_unix_ns:x}-{process}-{count}", plain(&crate::lock::user())),
            process,
            since_unix_ns,
        }
    }

    /// The name that the coordinator shows.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.host, self.user)
    }
}

/// Name of this host.
fn this_host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A locked file.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) owner: Owner,
    path: PathBuf,
    // Closing it drops the lock.
    _file: File,
}

impl Record {
    /// Notes that this process may hold places from now on.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn create(folder: &Path, owner: Owner) -> Result<Self, FarmError> {
        let path = folder.join(format!("{}.json", owner.user));
        let fresh = path.with_extension("new");
        let write = || -> std::io::Result<File> {
            fs::create_dir_all(folder)?;
            let mut file = File::create(&fresh)?;
            file.lock()?;
            file.write_all(serde_json::to_string(&owner)?.as_bytes())?;
            // It must outlive a loss of power that comes after the place was acquired.
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(folder)?.sync_all()?;
            Ok(file)
        };
        match write() {
            Ok(file) => Ok(Self { owner, path, _file: file }),
            Err(error) => Err(FarmError::Record { path: fresh, reason: error.to_string() }),
        }
    }

    /// The records of dead processes of this host.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub(super) fn of_the_dead(folder: &Path) -> Result<Vec<Self>, FarmError> {
        let failed = |path: &Path, error: &std::io::Error| FarmError::Record {
            path: path.to_path_buf(),
            reason: error.to_string(),
        };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(folder, &error)),
        };
        let mut dead = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_none_or(|ending| ending != "json") {
                continue;
            }
            // A file that has just been removed is that of a process that has just ended.
            // On NFS, a lock needs write access.
            let Ok(file) = File::options().read(true).write(true).open(&path) else { continue };
            if file.try_lock().is_err() {
                continue;
            }
            let mut text = String::new();
            (&file).take(LARGEST).read_to_string(&mut text).map_err(|error| failed(&path, &error))?;
            match serde_json::from_str::<Owner>(&text) {
                // The home directory may be shared by several hosts, of which another one's processes cannot be judged here.
                Ok(owner) if owner.host == Owner::new("").host => {
                    dead.push(Self { owner, path, _file: file });
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!("{} is damaged: {error}", path.display());
                }
            }
        }
        dead.sort_by_key(|record| record.owner.since_unix_ns);
        Ok(dead)
    }

    /// Removes the file: nothing is held under this name any more.
    pub(super) fn remove(self) {
        // If it stays, the next process finds that it holds nothing.
        let _ = fs::remove_file(&self.path);
    }
}

/// The folder of these files: the same for all checkouts and installations of a user.
///
/// # Errors
/// If the user has no home directory.
pub(super) fn folder() -> Result<PathBuf, FarmError> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/state")))
        .map(|folder| folder.join("edgepipe/farm"))
        .ok_or_else(|| FarmError::Record {
            path: "~/.local/state/edgepipe".into(),
            reason: "neither XDG_STATE_HOME nor HOME is set".to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dead_processes_of_this_host_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let found = || -> Vec<String> {
            let dead = Record::of_the_dead(folder.path()).unwrap();
            dead.into_iter().map(|record| record.owner.user).collect()
        };
        assert_eq!(found(), [""; 0]);
        let alive = Record::create(folder.path(), Owner::new("lab:1")).unwrap();
        let name = alive.owner.user.clone();
        assert_eq!(found(), [""; 0]);
        let foreign =
            Owner { host: "elsewhere".to_owned(), user: "edgepipe-x".to_owned(), ..Owner::new("lab:1") };
        drop(Record::create(folder.path(), foreign).unwrap());
        fs::write(folder.path().join("damaged.json"), "{").unwrap();
        assert_eq!(found(), [""; 0]);
        // The lock of a dead process is dropped by the system, as that of a closed file. A child that another test has just
        // forked has it too, until it runs its program.
        drop(alive);
        let dead = (0..1000).find_map(|_| {
            let dead = Record::of_the_dead(folder.path()).unwrap().pop();
            if dead.is_none() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            dead
        });
        let dead = dead.unwrap();
        assert_eq!(dead.owner.user, name);
        // Two processes do not free the same.
        assert_eq!(found(), [""; 0]);
        dead.remove();
        assert_eq!(found(), [""; 0]);
    }

    #[test]
    fn names_differ_and_have_one_slash() {
        let (first, second) = (Owner::new("lab:1"), Owner::new("lab:1"));
        assert_ne!(first.name(), second.name());
        assert_eq!(first.name().matches('/').count(), 1);
    }
}
