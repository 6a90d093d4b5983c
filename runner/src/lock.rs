//! One user of a machine at a time: a lock on a file that the kernel releases when its holder dies. The file is in one
//! place for all users, whatever `TMPDIR` says. Its first line names the holder, the second the process id, and the third,
//! if the harness is on this machine too, the harness' process id.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Names another file. Tests set it, so that they do not wait for a bench on the same machine.
const VARIABLE: &str = "EDGEPIPE_LOCK";
/// File name of the lock.
const NAME: &str = "edgepipe-board.lock";
/// Any user may create files here, on most systems; `/tmp` is the fallback.
const FOLDER: &str = "/run/lock";
/// The kernel needs a moment to end a process that was killed.
const GONE: Duration = Duration::from_secs(2);
/// Tries to open a file that others create or remove at the same time, and to lock one that others only look at.
const TRIES: u32 = 5;
/// A holder whose harness was killed restores the board within this time, and is waited for.
const ENDING: Duration = Duration::from_secs(150);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// A lock held, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Held {
    _file: File,
}

/// Who has the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Nobody.
    Nobody,
    /// Somebody, as the file says it, and the process that holds the lock.
    Somebody { text: String, pid: Option<i32> },
}

/// The lock file of this machine. Every user finds the same one: the choice depends on the machine alone.
fn path() -> PathBuf {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return path.into();
    }
    Path::new(if is_for_all(Path::new(FOLDER)) { FOLDER } else { "/tmp" }).join(NAME)
}

/// Whether any user may create files in a folder: by its mode, and not on a file system that is mounted read-only, as
/// that of a container may be.
fn is_for_all(folder: &Path) -> bool {
    let is_open = std::fs::metadata(folder)
        .is_ok_and(|metadata| metadata.is_dir() && metadata.permissions().mode() & 0o002 != 0);
    let read_only = rustix::fs::StatVfsMountFlags::RDONLY;
    is_open && rustix::fs::statvfs(folder).is_ok_and(|system| !system.f_flag.contains(read_only))
}

/// A lock file that was opened; another user's file may be readable only.
struct Opened {
    file: File,
    unwritable: Option<std::io::Error>,
}

/// Opens the lock file, and creates it if there is none.
///
/// It is opened without `O_CREAT` first: with `fs.protected_regular`, the kernel refuses that flag in `/tmp` for a file
/// of another user, even to root.
fn open(path: &Path) -> Result<Opened, String> {
    let mut last = None;
    for _ in 0..TRIES {
        match open_existing(path, true) {
            Ok(file) => return regular(path, Opened { file, unwritable: None }),
            Err(error) if error.kind() == ErrorKind::NotFound => match create(path) {
                Ok(()) => continue,
                Err(error) => last = Some(error),
            },
            Err(error) if error.kind() == ErrorKind::PermissionDenied => match open_existing(path, false) {
                Ok(file) => return regular(path, Opened { file, unwritable: Some(error) }),
                Err(error) => last = Some(error),
            },
            Err(error) => return Err(refusal(path, &error.to_string())),
        }
        std::thread::sleep(PAUSE);
    }
    Err(refusal(
        path,
        &last.map_or_else(|| "others create and remove it".to_owned(), |error| error.to_string()),
    ))
}

fn open_existing(path: &Path, write: bool) -> std::io::Result<File> {
    // A pipe in its place must not make anybody wait.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).write(write).custom_flags(i32::try_from(flags.bits()).unwrap_or(0));
    options.open(path)
}

fn regular(path: &Path, opened: Opened) -> Result<Opened, String> {
    let is_file = opened.file.metadata().is_ok_and(|metadata| metadata.is_file());
    if is_file { Ok(opened) } else { Err(refusal(path, "it is no regular file")) }
}

/// Creates the file with its final mode in one step, so that no other user finds one that only we may open.
fn create(path: &Path) -> std::io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    // A process of the same number may have died here.
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

/// Why the file cannot be used, whose it is, and what to do.
fn refusal(path: &Path, why: &str) -> String {
    let shown = path.display();
    let remedy = format!(
        "as root, remove it (`sudo rm {shown}`) while nobody measures on this machine; the next bench creates it anew"
    );
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => format!(
            "failed to open the lock {shown} of {} (mode {:04o}): {why}; {remedy}",
            user_name(metadata.uid()),
            metadata.permissions().mode() & 0o7777
        ),
        Ok(metadata) => format!(
            "failed to open the lock {shown}: {why}: {} put something else in its place; {remedy}",
            user_name(metadata.uid())
        ),
        Err(_) => format!(
            "failed to create the lock {shown}: {why}; make {} a folder that all users may write to (mode 1777)",
            path.parent().unwrap_or(path).display()
        ),
    }
}

/// `user anna`, or the number of a user without a name.
fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.map_or_else(|| format!("user number {uid}"), |name| format!("user {name}"))
}

fn content(file: &mut File) -> String {
    let mut text = String::new();
    // An unreadable holder is unknown; the board is busy all the same.
    let _ = file.rewind().and_then(|()| std::io::Read::take(&mut *file, 4096).read_to_string(&mut text));
    text
}

/// Whether the harness of the holder was on this machine and has ended, so that the holder is about to.
fn is_ending(text: &str) -> bool {
    let harness = text.lines().nth(2).and_then(|line| line.strip_prefix("harness ")?.parse::<u32>().ok());
    harness.is_some_and(|harness| !Path::new(&format!("/proc/{harness}")).exists())
}

fn read(file: &mut File) -> Holder {
    let text = content(file);
    let mut lines = text.lines();
    let first = lines.next().filter(|line| !line.trim().is_empty()).unwrap_or("another process").to_owned();
    let pid = lines.next().and_then(|line| line.strip_prefix("pid ")).and_then(|pid| pid.parse().ok());
    Holder::Somebody { text: first, pid }
}

/// Locks the file, or says who has it. A holder that is about to end is waited for so long.
fn lock(path: &Path, opened: &mut Opened, patience: Duration) -> Result<(), Result<Holder, String>> {
    let deadline = Instant::now() + patience;
    for attempt in 1.. {
        match opened.file.try_lock() {
            Ok(()) => break,
            // Somebody who only asks for the holder has it for a moment.
            Err(TryLockError::WouldBlock) if attempt < TRIES => std::thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock)
                if Instant::now() < deadline && is_ending(&content(&mut opened.file)) =>
            {
                std::thread::sleep(PAUSE);
            }
            Err(TryLockError::WouldBlock) => return Err(Ok(read(&mut opened.file))),
            Err(TryLockError::Error(error)) => {
                return Err(Err(format!("failed to lock {}: {error}", path.display())));
            }
        }
    }
    Ok(())
}

/// Whether the path still leads to this file: one that was removed keeps nobody out.
fn is_current(path: &Path, file: &File) -> bool {
    let place = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let (named, ours) = (std::fs::symlink_metadata(path).map(place), file.metadata().map(place));
    named.ok().zip(ours.ok()).is_some_and(|(named, ours)| named == ours)
}

/// Takes the lock for `holder`. `harness` is the process id of a harness on this machine.
///
/// # Errors
/// With the one who has it, or why the file cannot be used.
pub(crate) fn take(holder: &str, harness: Option<i32>) -> Result<Held, Result<Holder, String>> {
    take_at(&path(), holder, harness)
}

fn take_at(path: &Path, holder: &str, harness: Option<i32>) -> Result<Held, Result<Holder, String>> {
    for _ in 0..TRIES {
        let mut opened = open(path).map_err(Err)?;
        lock(path, &mut opened, ENDING)?;
        if let Some(error) = &opened.unwritable {
            return Err(Err(refusal(path, &error.to_string())));
        }
        if !is_current(path, &opened.file) {
            continue;
        }
        let line: String = holder.chars().filter(|letter| !letter.is_control()).take(400).collect();
        let harness = harness.map_or_else(String::new, |harness| format!("harness {harness}\n"));
        let text = format!("{line}\npid {}\n{harness}", std::process::id());
        let mut file = opened.file;
        let written =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
        written.map_err(|error| Err(format!("failed to write {}: {error}", path.display())))?;
        return Ok(Held { _file: file });
    }
    Err(Err(refusal(path, "others remove it again and again")))
}

/// Who holds the lock now.
///
/// # Errors
/// If the file cannot be used.
pub(crate) fn holder() -> Result<Holder, String> {
    holder_at(&path())
}

fn holder_at(path: &Path) -> Result<Holder, String> {
    let mut opened = open(path)?;
    match lock(path, &mut opened, Duration::ZERO) {
        Ok(()) => Ok(Holder::Nobody),
        Err(Ok(holder)) => Ok(holder),
        Err(Err(error)) => Err(error),
    }
}

/// Ends the process that holds the lock: politely, and after so long by force. Returns who it was.
///
/// # Errors
/// If it cannot be ended.
pub(crate) fn break_open(patience: impl Fn() -> Duration) -> Result<Holder, String> {
    let found = holder()?;
    let Holder::Somebody { text, pid } = &found else { return Ok(found) };
    let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) else {
        return Err(format!("failed to break the lock of {text}: its file names no process"));
    };
    let ways = [(rustix::process::Signal::TERM, patience()), (rustix::process::Signal::KILL, GONE)];
    for (signal, patience) in ways {
        match rustix::process::kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => {
                let remedy = if error == rustix::io::Errno::PERM {
                    "; ask that user to end it, or break the lock as root"
                } else {
                    ""
                };
                let pid = pid.as_raw_nonzero();
                return Err(format!("failed to end the process {pid} of {text}: {error}{remedy}"));
            }
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(25));
            if holder()? == Holder::Nobody {
                return Ok(found);
            }
        }
    }
    Err(format!("failed to break the lock of {text}: its process {} does not end", pid.as_raw_nonzero()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(path: &Path) -> String {
        match take_at(path, "second", None) {
            Err(Ok(Holder::Somebody { text, pid })) => {
                assert_eq!(pid, i32::try_from(std::process::id()).ok());
                text
            }
            other => panic!("{other:?}"),
        }
    }

    fn refused(path: &Path) -> String {
        match take_at(path, "anna", None) {
            Err(Err(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_second_user_is_refused_and_told_who_is_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = take_at(&path, "process 7 (bench) of anna\nsince noon", None).unwrap();
        assert_eq!(busy(&path), "process 7 (bench) of annasince noon");
        assert!(matches!(holder_at(&path), Ok(Holder::Somebody { .. })));
        drop(first);
        assert_eq!(holder_at(&path), Ok(Holder::Nobody));
        take_at(&path, "second", None).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn a_folder_that_some_users_may_not_write_to_holds_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, expected) in [(0o1777, true), (0o755, false), (0o777, true)] {
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_for_all(folder.path()), expected, "{mode:o}");
        }
        assert!(!is_for_all(&folder.path().join("missing")));
    }

    #[test]
    fn a_holder_whose_harness_is_gone_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let alive = i32::try_from(std::process::id()).ok();
        let held = take_at(&path, "anna", alive).unwrap();
        assert_eq!(busy(&path), "anna", "a harness that lives is not waited for");
        drop(held);
        // No process has this number.
        let held = take_at(&path, "bert", Some(i32::MAX)).unwrap();
        let releasing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(held);
        });
        take_at(&path, "carl", None).unwrap();
        releasing.join().unwrap();
    }

    #[test]
    fn any_user_may_open_the_file_whatever_the_umask_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let held = take_at(&path, "anna", None);
        rustix::process::umask(before);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o666);
        drop(held.unwrap());
    }

    #[test]
    fn a_file_that_was_removed_keeps_nobody_out() {
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
    fn what_is_no_regular_file_is_refused_with_its_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("lock"), folder.path().join("victim"));
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        let message = refused(&path);
        assert!(
            message.contains("put something else in its place") && message.contains("sudo rm"),
            "{message}"
        );
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
        let status = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(status.success());
        assert!(refused(&path).contains("it is no regular file"));
        let message = refused(&folder.path().join("missing/lock"));
        assert!(message.contains("failed to create the lock") && message.contains("mode 1777"), "{message}");
    }
}
