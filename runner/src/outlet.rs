//! The protocol's own stream.

use protocol::Event;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio::{dup2_stdout, stderr, stdout};
use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

/// The real standard output. Descriptor 1 leads to standard error from then on, because libraries print.
/// Shared by the thread that answers requests and the one that answers heartbeats.
#[derive(Debug, Clone)]
pub(crate) struct Outlet {
    stream: Arc<Mutex<File>>,
}

impl Outlet {
    /// Takes standard output over.
    pub(crate) fn take() -> std::io::Result<Self> {
        let stream = fcntl_dupfd_cloexec(stdout(), 3)?;
        dup2_stdout(stderr())?;
        Ok(Self { stream: Arc::new(Mutex::new(File::from(stream))) })
    }

    /// Sends an event as a line, in one piece. Without a reader there is nobody to work for: the process ends.
    pub(crate) fn send(&mut self, event: &Event) {
        let mut line = match serde_json::to_vec(event) {
            Ok(line) => line,
            Err(error) => {
                eprintln!("failed to write an event: {error}");
                return;
            }
        };
        line.push(b'\n');
        if let Err(error) = self.stream.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line) {
            eprintln!("failed to send an event: {error}; ending");
            crate::engine::exit_at_once(0);
        }
    }
}
