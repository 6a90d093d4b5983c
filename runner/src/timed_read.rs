//! Reads of kernel files with a timeout: the driver behind a file may hang, for example that of a unit that is powered off.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Sensors behind a slow bus take about 10 ms.
const TIMEOUT: Duration = Duration::from_secs(1);

/// A thread that reads files.
struct Reader {
    paths: Sender<PathBuf>,
    contents: Contents,
}

type Contents = Receiver<Result<Vec<u8>>>;

/// Files that did not answer, with the channel of the thread that still waits for them.
static HANGING: Mutex<Option<HashMap<PathBuf, Contents>>> = Mutex::new(None);

thread_local! {
    // One reader for each thread, whose CPUs it inherits.
    static READER: RefCell<Option<Reader>> = const { RefCell::new(None) };
}

impl Reader {
    fn start() -> Result<Self> {
        let (paths, requests) = channel::<PathBuf>();
        let (sender, contents) = channel();
        std::thread::Builder::new().name("reader".to_owned()).spawn(move || {
            for path in requests {
                if sender.send(std::fs::read(path)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { paths, contents })
    }
}

/// Reads a file.
///
/// # Errors
/// As [`std::fs::read`], and [`ErrorKind::TimedOut`] if the file does not answer in time. It is not read again before it
/// has answered.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let timed_out = || {
        let text = format!("no answer within {} s", TIMEOUT.as_secs());
        Err(Error::new(ErrorKind::TimedOut, text))
    };
    {
        let mut hanging = HANGING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hanging) = hanging.as_mut()
            && let Some(waiting) = hanging.get(path)
        {
            if waiting.try_recv().is_err() {
                return timed_out();
            }
            hanging.remove(path);
        }
    }
    READER.with_borrow_mut(|reader| {
        let Reader { paths, contents } = match reader.take() {
            Some(reader) => reader,
            None => Reader::start()?,
        };
        let ended = || Error::other("the thread that reads files has ended");
        paths.send(path.to_path_buf()).map_err(|_| ended())?;
        match contents.recv_timeout(TIMEOUT) {
            Ok(content) => {
                *reader = Some(Reader { paths, contents });
                content
            }
            Err(RecvTimeoutError::Disconnected) => Err(ended()),
            Err(RecvTimeoutError::Timeout) => {
                let mut hanging = HANGING.lock().unwrap_or_else(PoisonError::into_inner);
                hanging.get_or_insert_default().insert(path.to_path_buf(), contents);
                timed_out()
            }
        }
    })
}

/// The text of a file without surrounding white space; `None` if the file is empty or cannot be read.
pub(crate) fn text(path: &Path) -> Option<String> {
    // Strings of the device tree end with a NUL.
    let text = String::from_utf8_lossy(&read(path).ok()?).trim_matches(['\0', '\n', ' ']).to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_hanging_file_is_read_again_after_it_has_answered() {
        let folder = tempfile::tempdir().unwrap();
        let (hangs, answers) = (folder.path().join("hangs"), folder.path().join("answers"));
        std::fs::write(&answers, "42\n").unwrap();
        let made = std::process::Command::new("mkfifo").arg(&hangs).status().unwrap();
        assert!(made.success());
        assert_eq!(text(&answers).as_deref(), Some("42"));
        let error = read(&hangs).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::TimedOut, "no answer within 1 s"));
        // One that waited would take as long each time; other load delays one now and then.
        let soon = (0..12).any(|_| {
            let begun = Instant::now();
            assert_eq!(read(&hangs).unwrap_err().kind(), ErrorKind::TimedOut);
            begun.elapsed() < TIMEOUT
        });
        assert!(soon, "the second read returns at once");
        assert_eq!(text(&answers).as_deref(), Some("42"), "a new thread reads other files");
        // Opening the pipe for writing is its first answer.
        std::fs::write(&hangs, "1").unwrap();
        std::fs::remove_file(&hangs).unwrap();
        std::fs::write(&hangs, "2").unwrap();
        let deadline = Instant::now() + Duration::from_secs(300);
        while read(&hangs).is_err() {
            assert!(Instant::now() < deadline);
        }
        assert_eq!(text(&hangs).as_deref(), Some("2"));
        assert_eq!(read(&folder.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
