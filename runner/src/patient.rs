//! Files of the kernel, read with a time limit: the driver behind one may hang, such as that of an engine that is off.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Longest time to read a file. Sensors behind a slow bus take some 10 ms.
const PATIENCE: Duration = Duration::from_secs(1);

/// A thread that reads files.
struct Reader {
    paths: Sender<PathBuf>,
    contents: Contents,
}

/// What a thread hands over.
type Contents = Receiver<Result<Vec<u8>>>;

/// Files that gave no answer, with the thread that still waits for it.
static SILENT: Mutex<Option<HashMap<PathBuf, Contents>>> = Mutex::new(None);

thread_local! {
    // A reader of one's own: it inherits the CPUs that its thread may use.
    static READER: RefCell<Option<Reader>> = const { RefCell::new(None) };
}

impl Reader {
    fn start() -> Result<Self> {
        let (paths, asked) = channel::<PathBuf>();
        let (sender, contents) = channel();
        std::thread::Builder::new().name("reader".to_owned()).spawn(move || {
            for path in asked {
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
/// As [`std::fs::read`], and of kind [`ErrorKind::TimedOut`] if there is no answer in time. That file is not read again
/// before the answer has come.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let late = || {
        let text = format!("it gave no answer within {} s", PATIENCE.as_secs());
        Err(Error::new(ErrorKind::TimedOut, text))
    };
    {
        let mut silent = SILENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(silent) = silent.as_mut()
            && let Some(waiting) = silent.get(path)
        {
            if waiting.try_recv().is_err() {
                return late();
            }
            silent.remove(path);
        }
    }
    READER.with_borrow_mut(|reader| {
        let Reader { paths, contents } = match reader.take() {
            Some(reader) => reader,
            None => Reader::start()?,
        };
        let gone = || Error::other("the thread that reads files has ended");
        paths.send(path.to_path_buf()).map_err(|_| gone())?;
        match contents.recv_timeout(PATIENCE) {
            Ok(content) => {
                *reader = Some(Reader { paths, contents });
                content
            }
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
            Err(RecvTimeoutError::Timeout) => {
                let mut silent = SILENT.lock().unwrap_or_else(PoisonError::into_inner);
                silent.get_or_insert_default().insert(path.to_path_buf(), contents);
                late()
            }
        }
    })
}

/// The text of a file without the white space around; `None` if there is none.
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
    fn a_file_that_hangs_is_given_up_once_and_read_again_when_it_answers() {
        let folder = tempfile::tempdir().unwrap();
        let (hangs, answers) = (folder.path().join("hangs"), folder.path().join("answers"));
        std::fs::write(&answers, "42\n").unwrap();
        let made = std::process::Command::new("mkfifo").arg(&hangs).status().unwrap();
        assert!(made.success());
        assert_eq!(text(&answers).as_deref(), Some("42"));
        let error = read(&hangs).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::TimedOut, "it gave no answer within 1 s")
        );
        let begun = Instant::now();
        assert_eq!(read(&hangs).unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(begun.elapsed() < PATIENCE, "it is not waited for again");
        assert_eq!(text(&answers).as_deref(), Some("42"), "others are read by a fresh thread");
        // Opened for writing, the pipe has its first answer.
        std::fs::write(&hangs, "1").unwrap();
        std::fs::remove_file(&hangs).unwrap();
        std::fs::write(&hangs, "2").unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while read(&hangs).is_err() {
            assert!(Instant::now() < deadline);
        }
        assert_eq!(text(&hangs).as_deref(), Some("2"));
        assert_eq!(read(&folder.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
