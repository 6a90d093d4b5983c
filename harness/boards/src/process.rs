//! A program on a board: a child process, or the other end of an SSH channel.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ending::{End, Ending};
use crate::ssh::{Connection, Opened};
use host::interrupt::Interrupt;

/// Time to end a program on a board by force.
const KILLING: Duration = Duration::from_secs(5);

#[derive(Debug)]
enum Handle {
    Child(Child),
    Channel { end: Arc<End>, connection: Arc<Connection>, pid: Option<u32> },
}

/// A running program with its three streams.
#[derive(Debug)]
pub struct Process {
    stdin: Option<File>,
    stdout: Option<File>,
    stderr: Option<File>,
    handle: Handle,
}

impl Process {
    /// Starts a program on this machine.
    ///
    /// # Errors
    /// If it does not start.
    pub fn local(program: &Path) -> std::io::Result<Self> {
        let mut child = environment::command(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is the harness' to handle; the end of stdin ends the runner.
            .process_group(0)
            .spawn()?;
        let file = |fd: std::os::fd::OwnedFd| File::from(fd);
        Ok(Self {
            stdin: child.stdin.take().map(|stdin| file(stdin.into())),
            stdout: child.stdout.take().map(|stdout| file(stdout.into())),
            stderr: child.stderr.take().map(|stderr| file(stderr.into())),
            handle: Handle::Child(child),
        })
    }

    /// A program at the end of a channel.
    pub fn remote(opened: Opened, connection: Arc<Connection>) -> Self {
        Self {
            stdin: Some(opened.stdin.into()),
            stdout: Some(opened.stdout.into()),
            stderr: Some(opened.stderr.into()),
            handle: Handle::Channel { end: opened.end, connection, pid: None },
        }
    }

    /// Its standard output, once.
    pub fn take_stdout(&mut self) -> Option<impl Read + Send + use<>> {
        self.stdout.take()
    }

    /// Its standard error, once.
    pub fn take_stderr(&mut self) -> Option<impl Read + Send + use<>> {
        self.stderr.take()
    }

    /// Writes to its standard input.
    ///
    /// # Errors
    /// If it takes no more.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.stdin {
            Some(stdin) => stdin.write_all(bytes),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Ends its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits for its end, at most this long.
    pub fn wait(&mut self, patience: Duration) -> Option<Ending> {
        match &mut self.handle {
            Handle::Channel { end, .. } => end.wait(patience),
            Handle::Child(child) => {
                let deadline = Instant::now() + patience;
                loop {
                    match child.try_wait() {
                        Ok(Some(status)) => return Some(status.into()),
                        Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                        Ok(None) | Err(_) => return None,
                    }
                }
            }
        }
    }

    /// Whether it runs on another machine.
    pub fn is_remote(&self) -> bool {
        matches!(self.handle, Handle::Channel { .. })
    }

    /// Its number on its board, which is needed to end it by force there.
    pub fn set_pid(&mut self, number: u32) {
        if let Handle::Channel { pid, .. } = &mut self.handle {
            *pid = Some(number);
        }
    }

    /// Ends it by force.
    pub fn kill(&mut self) {
        self.stdin = None;
        match &mut self.handle {
            Handle::Child(child) => {
                // It is ours and did not heed the end of its input; a failure to kill means it is gone.
                let _ = child.kill();
                let _ = child.wait();
            }
            Handle::Channel { end, connection, pid: Some(pid) } if connection.lost().is_none() => {
                let script = format!("kill -9 {pid}");
                // Where the board is out of reach, the runner's lease ends it.
                let _ = connection.run("end the runner", &script, KILLING, &Interrupt::default());
                end.wait(Duration::from_millis(500));
            }
            Handle::Channel { .. } => {}
        }
    }
}
