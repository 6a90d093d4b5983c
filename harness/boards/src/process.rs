//! A program on a board, whether it is a child of ours or at the end of an SSH channel.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ssh::{Connection, Opened};
use host::interrupt::Interrupt;

/// Time to end a program on a board by force.
const KILLING: Duration = Duration::from_secs(5);

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// By itself.
    Code(i32),
    /// By a signal, by its name without SIG or its number.
    Signal(String),
    /// Unknown, because the link to it is lost; a whole sentence.
    Lost(String),
}

impl Ending {
    /// What completes "the runner …", with the likely cause.
    pub fn describe(&self) -> String {
        let (signal, cause) = match self {
            Self::Code(code) => return format!("ended with exit code {code}"),
            Self::Lost(_) => return "is out of reach".to_owned(),
            Self::Signal(signal) => match signal.as_str() {
                "9" | "KILL" => {
                    return format!(
                        "was killed (signal 9); unless somebody did that, the board ran out of memory: `dmesg` there \
                         names the process, `{} boards` shows the limit of a cgroup; a smaller network or \
                         frames.distinct needs less",
                        host::program()
                    );
                }
                "4" | "ILL" => {
                    (4, "its processor lacks an instruction of the code: correct `mcpu` in the board's file")
                }
                "6" | "ABRT" => (6, "it gave up by itself; its last words tell why"),
                "7" | "BUS" => {
                    (7, "a file it uses was cut short, or the memory is damaged: is the board's disk full?")
                }
                "11" | "SEGV" => (11, "a bug, of a stage library or of ours"),
                "15" | "TERM" => (15, "somebody ended it, or the board shuts down"),
                other => return format!("was ended by signal {other}"),
            },
        };
        format!("was ended by signal {signal} ({cause})")
    }

    /// The same, where its last words may tell more.
    pub fn describe_with(&self, log: &str) -> String {
        let words = ["memory allocation of", "bad_alloc", "annot allocate memory"];
        if matches!(self, Self::Lost(_)) || !words.iter().any(|word| log.contains(word)) {
            return self.describe();
        }
        let ended = match self {
            Self::Signal(signal) => format!("ended by signal {signal}"),
            Self::Code(code) => format!("ended with exit code {code}"),
            Self::Lost(_) => String::new(),
        };
        format!(
            "ran out of memory and {ended}; a smaller network or frames.distinct needs less, and `free` and `ulimit -v` \
             on the board say what there is"
        )
    }
}

impl From<ExitStatus> for Ending {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or(0).to_string()),
        }
    }
}

/// Set once, when a program has ended.
#[derive(Debug, Default)]
pub struct End {
    ending: Mutex<Option<Ending>>,
    changed: Condvar,
}

impl End {
    /// Says how it ended; the first word counts.
    pub fn set(&self, ending: Ending) {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(ending);
        self.changed.notify_all();
    }

    /// How it ended, if it has.
    pub fn get(&self) -> Option<Ending> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the end.
    pub fn wait(&self, patience: Duration) -> Option<Ending> {
        let ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(ending, patience, |ending| ending.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

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
    /// Where it does not start.
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
    /// Where it takes no more.
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

    /// Waits for its end for so long.
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

    /// Whether it is at the end of a network.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_program_ended_names_the_likely_cause() {
        let signal = |name: &str| Ending::Signal(name.to_owned());
        let allocation = "memory allocation of 602112 bytes failed";
        let table = [
            (Ending::Code(7), "", "ended with exit code 7"),
            (
                signal("KILL"),
                "",
                "was killed (signal 9); unless somebody did that, the board ran out of memory",
            ),
            (signal("9"), "", "was killed (signal 9); unless somebody did that, the board ran out of memory"),
            (
                signal("ILL"),
                "",
                "was ended by signal 4 (its processor lacks an instruction of the code: correct `mcpu`",
            ),
            (signal("BUS"), "", "is the board's disk full?"),
            (signal("TERM"), "", "or the board shuts down"),
            (signal("SEGV"), "", "was ended by signal 11 (a bug"),
            (signal("ABRT"), "panicked", "was ended by signal 6 (it gave up by itself"),
            (signal("ABRT"), allocation, "ran out of memory and ended by signal ABRT"),
            (signal("6"), "what():  std::bad_alloc", "ran out of memory and ended by signal 6"),
            (
                Ending::Code(71),
                "failed to start a thread: Cannot allocate memory",
                "ran out of memory and ended with",
            ),
        ];
        for (ending, log, expected) in table {
            let text = ending.describe_with(log);
            assert!(text.contains(expected), "{ending:?}, {log:?}: {text}");
        }
    }
}
