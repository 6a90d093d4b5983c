//! How a program on a board ended, with the likely cause.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With an exit code.
    Code(i32),
    /// By a signal: its name without SIG, or its number.
    Signal(String),
    /// Unknown, because the connection is lost; a complete sentence.
    Lost(String),
}

impl Ending {
    /// Why the program is gone, if only its link failed: the connection is lost, or its lease has expired. A complete
    /// sentence.
    pub fn lost(&self) -> Option<String> {
        match self {
            Self::Lost(reason) => Some(reason.clone()),
            Self::Code(code) if *code == i32::from(protocol::LEASE_EXPIRED) => Some(
                "the board ended the program because nothing arrived from this machine for too long: this machine was \
                 suspended, or it or the board was too busy"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// Completes "the runner …", with the likely cause.
    pub fn describe(&self) -> String {
        let (signal, cause) = match self {
            Self::Code(code) => return format!("ended with exit code {code}"),
            Self::Lost(_) => return "cannot be reached".to_owned(),
            Self::Signal(signal) => match signal.as_str() {
                "9" | "KILL" => {
                    return format!(
                        "was killed (signal 9); unless someone killed it, the board ran out of memory: check `dmesg` on \
                         the board, and the cgroup limit that `{} boards` shows; a smaller network or `frames.distinct` \
                         needs less",
                        host::program()
                    );
                }
                "4" | "ILL" => (4, "illegal instruction: correct `mcpu` in the board's file"),
                "6" | "ABRT" => (6, "it aborted; see its log"),
                "7" | "BUS" => (
                    7,
                    "a file that it uses was truncated, or memory is damaged: check the board's disk space",
                ),
                "11" | "SEGV" => (11, "segmentation fault: a bug in a stage library or in edgepipe"),
                "15" | "TERM" => (15, "someone ended it, or the board is shutting down"),
                other => return format!("was ended by signal {other}"),
            },
        };
        format!("was ended by signal {signal} ({cause})")
    }

    /// As [`Ending::describe`], with the cause that its log suggests.
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
            "ran out of memory and {ended}; a smaller network or `frames.distinct` needs less; `free` and `ulimit -v` on \
             the board show the limits"
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

/// How a program ended, once it has.
#[derive(Debug, Default)]
pub struct End {
    ending: Mutex<Option<Ending>>,
    changed: Condvar,
}

impl End {
    /// Sets how it ended; later calls are ignored.
    pub fn set(&self, ending: Ending) {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(ending);
        self.changed.notify_all();
    }

    /// How it ended, if it has.
    pub fn get(&self) -> Option<Ending> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the end, for at most this time.
    pub fn wait(&self, patience: Duration) -> Option<Ending> {
        let ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(ending, patience, |ending| ending.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likely_cause_is_named() {
        let signal = |name: &str| Ending::Signal(name.to_owned());
        let allocation = "memory allocation of 602112 bytes failed";
        let table = [
            (Ending::Code(7), "", "ended with exit code 7"),
            (
                signal("KILL"),
                "",
                "was killed (signal 9); unless someone killed it, the board ran out of memory",
            ),
            (signal("9"), "", "was killed (signal 9); unless someone killed it, the board ran out of memory"),
            (signal("ILL"), "", "was ended by signal 4 (illegal instruction: correct `mcpu`"),
            (signal("BUS"), "", "check the board's disk space"),
            (signal("TERM"), "", "or the board is shutting down"),
            (signal("SEGV"), "", "was ended by signal 11 (segmentation fault"),
            (signal("ABRT"), "panicked", "was ended by signal 6 (it aborted"),
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

    #[test]
    fn only_an_expired_lease_and_a_lost_connection_are_failures_of_the_link() {
        let expired = Ending::Code(protocol::LEASE_EXPIRED.into()).lost().unwrap_or_default();
        assert!(expired.contains("nothing arrived from this machine"), "{expired}");
        assert_eq!(Ending::Lost("no route".to_owned()).lost().as_deref(), Some("no route"));
        for ending in [Ending::Code(0), Ending::Code(71), Ending::Signal("KILL".to_owned())] {
            assert_eq!(ending.lost(), None, "{ending:?}");
        }
    }
}
