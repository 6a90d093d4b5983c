//! One user of a board at a time: a lock on a file that the kernel lets go of when its holder dies. The harness on
//! this machine takes the same one. The file's first line says who holds it, the second the process id.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The kernel needs a moment to end a process that was killed.
const GONE: Duration = Duration::from_secs(2);

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

fn path() -> PathBuf {
    std::env::temp_dir().join("edgepipe-local-board.lock")
}

fn open() -> Result<File, String> {
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o666).custom_flags(no_follow);
    options.open(path()).map_err(|error| format!("failed to open the lock {}: {error}", path().display()))
}

fn read(file: &mut File) -> Holder {
    let mut text = String::new();
    // What cannot be read is not known; the board is busy all the same.
    let _ = file.read_to_string(&mut text);
    let mut lines = text.lines();
    let first = lines.next().filter(|line| !line.trim().is_empty()).unwrap_or("another process").to_owned();
    let pid = lines.next().and_then(|line| line.strip_prefix("pid ")).and_then(|pid| pid.parse().ok());
    Holder::Somebody { text: first, pid }
}

/// Takes the lock for `holder`.
///
/// # Errors
/// With the one who has it, or why the file cannot be used.
pub(crate) fn take(holder: &str) -> Result<Held, Result<Holder, String>> {
    let mut file = open().map_err(Err)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Ok(read(&mut file))),
        Err(TryLockError::Error(error)) => {
            return Err(Err(format!("failed to lock {}: {error}", path().display())));
        }
    }
    // Another user of the machine must be able to take it next; the umask may have narrowed the mode.
    let _ = file.set_permissions(std::fs::Permissions::from_mode(0o666));
    let line: String = holder.chars().filter(|letter| !letter.is_control()).take(400).collect();
    let text = format!("{line}\npid {}\n", std::process::id());
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
    written.map_err(|error| Err(format!("failed to write {}: {error}", path().display())))?;
    Ok(Held { _file: file })
}

/// Who holds the lock now.
///
/// # Errors
/// Where the file cannot be used.
pub(crate) fn holder() -> Result<Holder, String> {
    let mut file = open()?;
    match file.try_lock() {
        Ok(()) => Ok(Holder::Nobody),
        Err(TryLockError::WouldBlock) => Ok(read(&mut file)),
        Err(TryLockError::Error(error)) => Err(format!("failed to lock {}: {error}", path().display())),
    }
}

/// Ends the process that holds the lock: politely, and after so long by force. Returns who it was.
///
/// # Errors
/// Where it cannot be ended.
pub(crate) fn break_open(patience: impl Fn() -> Duration) -> Result<Holder, String> {
    let found = holder()?;
    let Holder::Somebody { text, pid } = &found else { return Ok(found) };
    let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) else {
        return Err(format!("failed to break the lock of {text}: its file names no process"));
    };
    let ways = [(rustix::process::Signal::TERM, patience()), (rustix::process::Signal::KILL, GONE)];
    for (signal, patience) in ways {
        if let Err(error) = rustix::process::kill_process(pid, signal)
            && error != rustix::io::Errno::SRCH
        {
            return Err(format!("failed to end the process {} of {text}: {error}", pid.as_raw_nonzero()));
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
