//! `ProxyCommand`: a program whose standard input and output lead to a host's SSH server.

use super::error::SshError;
use super::route::Hop;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most bytes of its messages that are shown.
const MOST_WORDS: u64 = 2000;
/// Longest time for the program to end after the connection is closed.
const ENDING: Duration = Duration::from_secs(2);

/// The running program. Dropping this ends it.
#[derive(Debug)]
pub(super) struct Proxy {
    child: Child,
    command: String,
    said: Mutex<Receiver<String>>,
}

impl Proxy {
    /// Starts the command in the user's shell, as OpenSSH does, and returns the socket that leads to it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(super) fn start(hop: &Hop, command: &str) -> Result<(OwnedFd, Self), SshError> {
        let failed = |reason: String| SshError::Connect {
            host: hop.text(),
            reason: format!("failed to start the ProxyCommand `{command}`: {reason}"),
        };
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|error| failed(error.to_string()))?;
        let output = theirs.try_clone().map_err(|error| failed(error.to_string()))?;
        let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
        let mut child = Command::new(shell.unwrap_or_else(|| "/bin/sh".into()))
            .arg("-c")
            .arg(format!("exec {command}"))
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(output))
            .stderr(Stdio::piped())
            // Ctrl-C must not end it: the harness restores the board through it.
            .process_group(0)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let (sender, said) = channel();
        if let Some(mut stderr) = child.stderr.take() {
            std::thread::spawn(move || {
                let mut words = Vec::new();
                // What cannot be read is only missing in a message.
                let _ = stderr.by_ref().take(MOST_WORDS).read_to_end(&mut words);
                let _ = sender.send(String::from_utf8_lossy(&words).trim().to_owned());
                // A full pipe would stop it.
                let _ = std::io::copy(&mut stderr, &mut std::io::sink());
            });
        }
        Ok((ours, Self { child, command: command.to_owned(), said: Mutex::new(said) }))
    }

    /// How the program ended, if it has. That explains a failed handshake.
    pub(super) fn how_it_ended(&mut self) -> Option<String> {
        // The connection closes before the program ends.
        let deadline = Instant::now() + ENDING;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                _ => return None,
            }
        };
        // Its messages end with it, unless a child of it still runs.
        let said = self.said.get_mut().unwrap_or_else(PoisonError::into_inner);
        let said = said.recv_timeout(ENDING).unwrap_or_default();
        let said =
            if said.is_empty() { "it printed nothing".to_owned() } else { format!("it printed: {said}") };
        Some(format!("the ProxyCommand `{}` ended ({status}); {said}", self.command))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have started programs of its own; they are in its process group.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
