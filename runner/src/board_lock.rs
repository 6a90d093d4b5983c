//! The lock of a board: one session at a time. The kernel releases it when its holder dies.
//!
//! The file has the same path for all users, independent of `TMPDIR`. Its first line names the session, the second the
//! process id of the holder. If the harness runs on this machine too, the third line has the harness' process id.

use protocol::LockHolder;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Overrides the path. Tests set it, so that they do not wait for a benchmark on the same machine.
const VARIABLE: &str = "EDGEPIPE_LOCK";
const NAME: &str = "edgepipe-board.lock";
/// On most systems every user may create files here; `/tmp` is the fallback.
const FOLDER: &str = "/run/lock";
/// Time for the kernel to end a killed process.
const KILLING: Duration = Duration::from_secs(2);
/// Attempts to open a file that other processes create or remove, and to lock a file while another process checks it.
const ATTEMPTS: u32 = 5;
/// Time for a holder whose harness was killed to restore the board's state.
const RESTORING: Duration = Duration::from_secs(150);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// The lock, which is released when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    _file: File,
}

/// The session that has the lock, as the file names it, and its process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    name: String,
    pid: Option<i32>,
}

/// Why the lock was not taken.
#[derive(Debug)]
pub(crate) enum TakeError {
    /// The named session has it.
    Busy(String),
    /// The file cannot be used, with the reason.
    Unusable(String),
}

/// The lock file of this machine. The choice depends on the machine alone, so all users find the same file.
fn path() -> PathBuf {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return path.into();
    }
    Path::new(if is_open_to_all(Path::new(FOLDER)) { FOLDER } else { "/tmp" }).join(NAME)
}

/// Whether any user may create files in a folder: its mode allows it, and the file system is not mounted read-only, as in
/// some containers.
fn is_open_to_all(folder: &Path) -> bool {
    let is_open = std::fs::metadata(folder)
        .is_ok_and(|metadata| metadata.is_dir() && metadata.permissions().mode() & 0o002 != 0);
    let read_only = rustix::fs::StatVfsMountFlags::RDONLY;
    is_open && rustix::fs::statvfs(folder).is_ok_and(|system| !system.f_flag.contains(read_only))
}

/// An open lock file.
struct Opened {
    file: File,
    /// Why the file can only be read, if another user owns it.
    read_only: Option<std::io::Error>,
}

/// Opens the lock file, and creates it if it does not exist.
///
/// The first attempt is without `O_CREAT`: with `fs.protected_regular`, the kernel rejects that flag in `/tmp` for a file of
/// another user, even for root.
fn open(path: &Path) -> Result<Opened, String> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        match open_existing(path, true) {
            Ok(file) => return regular(path, Opened { file, read_only: None }),
            Err(error) if error.kind() == ErrorKind::NotFound => match create(path) {
                Ok(()) => continue,
                Err(error) => last = Some(error),
            },
            Err(error) if error.kind() == ErrorKind::PermissionDenied => match open_existing(path, false) {
                Ok(file) => return regular(path, Opened { file, read_only: Some(error) }),
                Err(error) => last = Some(error),
            },
            Err(error) => return Err(unusable(path, &error.to_string())),
        }
        std::thread::sleep(PAUSE);
    }
    Err(unusable(
        path,
        &last.map_or_else(
            || "other processes keep creating and removing it".to_owned(),
            |error| error.to_string(),
        ),
    ))
}

fn open_existing(path: &Path, write: bool) -> std::io::Result<File> {
    // Opening must not block if the path is a pipe.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).write(write).custom_flags(i32::try_from(flags.bits()).unwrap_or(0));
    options.open(path)
}

fn regular(path: &Path, opened: Opened) -> Result<Opened, String> {
    let is_file = opened.file.metadata().is_ok_and(|metadata| metadata.is_file());
    if is_file { Ok(opened) } else { Err(unusable(path, "it is not a regular file")) }
}

/// Creates the file with its final mode in one step, so that other users can open it from the start.
fn create(path: &Path) -> std::io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    // A dead process with the same id may have left it.
    let _ = std::fs::remove_file(&fresh);
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).and_then(|file| {
        file.set_permissions(std::fs::Permissions::from_mode(0o666))?;
        std::fs::hard_link(&fresh, path)
    });
    let _ = std::fs::remove_file(&fresh);
    match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Says why the file cannot be used, who owns it, and what to do.
fn unusable(path: &Path, why: &str) -> String {
    let shown = path.display();
    let remedy = format!(
        "as root, remove it (`sudo rm {shown}`) while no benchmark runs on this machine; the next one creates it again"
    );
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => format!(
            "failed to open the lock file {shown}, owned by {} (mode {:04o}): {why}; {remedy}",
            user_name(metadata.uid()),
            metadata.permissions().mode() & 0o7777
        ),
        Ok(metadata) => format!(
            "failed to open the lock file {shown}: {why}; {} replaced it with something else; {remedy}",
            user_name(metadata.uid())
        ),
        Err(_) => format!(
            "failed to create the lock file {shown}: {why}; make {} a folder in which all users may create files (mode 1777)",
            path.parent().unwrap_or(path).display()
        ),
    }
}

/// `user anna`, or `user 1000` if the user has no name.
fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.map_or_else(|| format!("user {uid}"), |name| format!("user {name}"))
}

fn content(file: &mut File) -> String {
    let mut text = String::new();
    // If the file cannot be read, the holder is unknown, but the board is still busy.
    let _ = file.rewind().and_then(|()| std::io::Read::take(&mut *file, 4096).read_to_string(&mut text));
    text
}

/// Whether the holder's harness ran on this machine and has ended, so that the holder is about to end.
fn is_ending(text: &str) -> bool {
    let harness = text.lines().nth(2).and_then(|line| line.strip_prefix("harness ")?.parse::<u32>().ok());
    harness.is_some_and(|harness| !Path::new(&format!("/proc/{harness}")).exists())
}

fn read(file: &mut File) -> Owner {
    let text = content(file);
    let mut lines = text.lines();
    let name = lines.next().filter(|line| !line.trim().is_empty()).unwrap_or("another process").to_owned();
    let pid = lines.next().and_then(|line| line.strip_prefix("pid ")).and_then(|pid| pid.parse().ok());
    Owner { name, pid }
}

/// Locks the file; returns its owner if another process has it. Waits for an owner that is about to end.
fn lock(path: &Path, opened: &mut Opened, max_wait: Duration) -> Result<Option<Owner>, String> {
    let deadline = Instant::now() + max_wait;
    for attempt in 1.. {
        match opened.file.try_lock() {
            Ok(()) => break,
            // A process that only checks the lock has it for a moment.
            Err(TryLockError::WouldBlock) if attempt < ATTEMPTS => std::thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock)
                if Instant::now() < deadline && is_ending(&content(&mut opened.file)) =>
            {
                std::thread::sleep(PAUSE);
            }
            Err(TryLockError::WouldBlock) => return Ok(Some(read(&mut opened.file))),
            Err(TryLockError::Error(error)) => {
                return Err(format!("failed to lock {}: {error}", path.display()));
            }
        }
    }
    Ok(None)
}

/// Whether the path still refers to this file. A removed file does not exclude other sessions.
fn is_current(path: &Path, file: &File) -> bool {
    let place = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let (named, ours) = (std::fs::symlink_metadata(path).map(place), file.metadata().map(place));
    named.ok().zip(ours.ok()).is_some_and(|(named, ours)| named == ours)
}

/// Takes the lock for a session. `harness` is the process id of a harness on this machine.
pub(crate) fn take(session: &str, harness: Option<i32>) -> Result<Held, TakeError> {
    take_at(&path(), session, harness)
}

fn take_at(path: &Path, session: &str, harness: Option<i32>) -> Result<Held, TakeError> {
    let unusable = |why: &str| TakeError::Unusable(unusable(path, why));
    for _ in 0..ATTEMPTS {
        let mut opened = open(path).map_err(TakeError::Unusable)?;
        if let Some(owner) = lock(path, &mut opened, RESTORING).map_err(TakeError::Unusable)? {
            return Err(TakeError::Busy(owner.name));
        }
        if let Some(error) = &opened.read_only {
            return Err(unusable(&error.to_string()));
        }
        if !is_current(path, &opened.file) {
            continue;
        }
        let line: String = session.chars().filter(|letter| !letter.is_control()).take(400).collect();
        let harness = harness.map_or_else(String::new, |harness| format!("harness {harness}\n"));
        let text = format!("{line}\npid {}\n{harness}", std::process::id());
        let mut file = opened.file;
        let written =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
        written
            .map_err(|error| TakeError::Unusable(format!("failed to write {}: {error}", path.display())))?;
        return Ok(Held { _file: file });
    }
    Err(unusable("other processes keep removing it"))
}

pub(crate) fn holder() -> Result<LockHolder, String> {
    Ok(holder_of(owner_at(&path())?.as_ref()))
}

fn holder_of(owner: Option<&Owner>) -> LockHolder {
    owner.map_or(LockHolder::Nobody {}, |owner| LockHolder::Session { name: owner.name.clone() })
}

fn owner_at(path: &Path) -> Result<Option<Owner>, String> {
    lock(path, &mut open(path)?, Duration::ZERO)
}

/// Ends the process that holds the lock: by SIGTERM, and after `max_wait` by SIGKILL. Returns who held it.
///
/// # Errors
/// If the process cannot be ended.
pub(crate) fn break_lock(max_wait: impl Fn() -> Duration) -> Result<LockHolder, String> {
    let path = path();
    let found = owner_at(&path)?;
    let Some(Owner { name, pid }) = &found else { return Ok(LockHolder::Nobody {}) };
    let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) else {
        return Err(format!("failed to break the lock of {name}: the lock file contains no process id"));
    };
    let signals = [(rustix::process::Signal::TERM, max_wait()), (rustix::process::Signal::KILL, KILLING)];
    for (signal, max_wait) in signals {
        match rustix::process::kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => {
                let remedy = if error == rustix::io::Errno::PERM {
                    "; ask that user to end it, or break the lock as root"
                } else {
                    ""
                };
                let pid = pid.as_raw_nonzero();
                return Err(format!("failed to end process {pid} of {name}: {error}{remedy}"));
            }
        }
        let deadline = Instant::now() + max_wait;
        while Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(25));
            if owner_at(&path)?.is_none() {
                return Ok(holder_of(found.as_ref()));
            }
        }
    }
    Err(format!("failed to break the lock of {name}: process {} does not end", pid.as_raw_nonzero()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(path: &Path) -> String {
        match take_at(path, "second", None) {
            Err(TakeError::Busy(name)) => name,
            other => panic!("{other:?}"),
        }
    }

    fn unusable_message(path: &Path) -> String {
        match take_at(path, "anna", None) {
            Err(TakeError::Unusable(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_second_session_learns_who_has_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = take_at(&path, "process 7 (bench) of anna\nsince noon", None).unwrap();
        assert_eq!(busy(&path), "process 7 (bench) of annasince noon");
        let owner = owner_at(&path).unwrap().unwrap();
        assert_eq!(owner.pid, i32::try_from(std::process::id()).ok());
        drop(first);
        assert_eq!(owner_at(&path), Ok(None));
        take_at(&path, "second", None).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no other file remains");
    }

    #[test]
    fn the_folder_must_be_writable_for_all_users() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, expected) in [(0o1777, true), (0o755, false), (0o777, true)] {
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_open_to_all(folder.path()), expected, "{mode:o}");
        }
        assert!(!is_open_to_all(&folder.path().join("missing")));
    }

    #[test]
    fn take_waits_for_a_holder_whose_harness_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let alive = i32::try_from(std::process::id()).ok();
        let held = take_at(&path, "anna", alive).unwrap();
        assert_eq!(busy(&path), "anna", "take does not wait while the harness runs");
        drop(held);
        // No process has this id.
        let held = take_at(&path, "bert", Some(i32::MAX)).unwrap();
        let releasing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(held);
        });
        take_at(&path, "carl", None).unwrap();
        releasing.join().unwrap();
    }

    #[test]
    fn every_user_may_open_the_file_for_any_umask() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let held = take_at(&path, "anna", None);
        rustix::process::umask(before);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o666);
        drop(held.unwrap());
    }

    #[test]
    fn a_removed_file_does_not_exclude_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let opened = open(&path).unwrap();
        assert!(is_current(&path, &opened.file));
        std::fs::remove_file(&path).unwrap();
        assert!(!is_current(&path, &opened.file));
        let _held = take_at(&path, "anna", None).unwrap();
        assert!(is_current(&path, &open(&path).unwrap().file));
    }

    #[test]
    fn other_kinds_of_files_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("lock"), folder.path().join("victim"));
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        let message = unusable_message(&path);
        assert!(
            message.contains(" replaced it with something else") && message.contains("sudo rm"),
            "{message}"
        );
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
        let status = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(status.success());
        assert!(unusable_message(&path).contains("it is not a regular file"));
        let message = unusable_message(&folder.path().join("missing/lock"));
        assert!(
            message.contains("failed to create the lock file") && message.contains("mode 1777"),
            "{message}"
        );
    }
}
