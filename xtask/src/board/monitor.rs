//! QEMU's monitor: a socket that takes commands as JSON lines. It answers as long as the machine is there.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Name of the socket in the machine's folder.
pub(super) const SOCKET: &str = "monitor.sock";
/// A monitor that says nothing for so long belongs to a QEMU that hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to the monitor.
#[derive(Debug)]
pub(super) struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects to the machine of `folder`; `None`: there is none.
    pub(super) fn connect(folder: &Path) -> Result<Option<Self>> {
        // The path of a socket may have 107 bytes, and a checkout may lie deeper than that.
        let Ok(place) = File::open(folder) else { return Ok(None) };
        let short = format!("/proc/self/fd/{}/{SOCKET}", place.as_raw_fd());
        let Ok(stream) = UnixStream::connect(&short) else { return Ok(None) };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut monitor = Self { stream: BufReader::new(stream) };
        let greeting = monitor.line()?;
        if !greeting.contains("\"QMP\"") {
            bail!("failed to talk to QEMU's monitor in {}: unexpected greeting {greeting}", folder.display());
        }
        monitor.run("qmp_capabilities")?;
        Ok(Some(monitor))
    }

    /// Runs a command without arguments and waits for its answer, which it returns.
    pub(super) fn run(&mut self, command: &str) -> Result<String> {
        let fail = || format!("failed to send {command} to QEMU");
        writeln!(self.stream.get_mut(), "{{\"execute\": \"{command}\"}}").with_context(fail)?;
        loop {
            let line = self.line().with_context(fail)?;
            if line.contains("\"return\"") {
                return Ok(line);
            }
            if line.contains("\"error\"") {
                bail!("{}: {line}", fail());
            }
            // Anything else is an event.
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).context("failed to read from QEMU's monitor")?;
        if read == 0 {
            bail!("failed to read from QEMU's monitor: it was closed");
        }
        Ok(line.trim().to_owned())
    }
}
