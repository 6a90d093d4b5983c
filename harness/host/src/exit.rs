//! How a command ends: an error with its exit code (see docs/getting-started.md).

use std::fmt;

/// Documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Success.
    Fine = 0,
    /// A regression, a requirement that no schedule meets, or a claim that does not hold.
    Regression = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// A board is unreachable, busy or in the wrong state.
    Board = 3,
    /// A trial failed, a schedule has no valid trial, or the run was interrupted.
    Trial = 4,
    /// A bug of edgepipe.
    Bug = 70,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error with its exit code.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The error.
    pub error: anyhow::Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for cause in self.error.chain() {
            let cause = cause.to_string();
            // Many errors include their cause in their own message.
            if text.is_empty() {
                text = cause;
            } else if !text.contains(&cause) {
                text += ": ";
                text += &cause;
            }
        }
        out.write_str(&text)
    }
}

/// An error with a documented exit code. This is the only mapping from errors to exit codes: each error type of the host
/// side implements it, and `?` turns such an error into a [`Failure`].
pub trait Coded: std::error::Error + Send + Sync + 'static {
    /// The exit code of the command that this error ends.
    fn exit(&self) -> Exit;
}

impl<E: Coded> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { exit: error.exit(), error: error.into() }
    }
}

/// The result of an operation whose error ends the command.
pub type Outcome<T> = Result<T, Failure>;

/// Adds an exit code to an error.
pub trait Ending<T> {
    /// Turns the error into a [`Failure`] with this exit code.
    fn ending(self, exit: Exit) -> Outcome<T>;
}

impl<T, E: Into<anyhow::Error>> Ending<T> for Result<T, E> {
    fn ending(self, exit: Exit) -> Outcome<T> {
        self.map_err(|error| Failure { exit, error: error.into() })
    }
}

impl Failure {
    /// A failure with a message.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, error: anyhow::anyhow!("{message}") }
    }

    /// The same failure after the board was closed. If the state of the board could not be restored, that determines the exit
    /// code, unless this failure is a bug.
    #[must_use]
    pub fn after_closing(self, closed: Outcome<()>) -> Self {
        let Err(not_restored) = closed else { return self };
        crate::progress::say("warning", &not_restored.to_string());
        let exit = if self.exit == Exit::Bug { Exit::Bug } else { not_restored.exit };
        Self { exit, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn a_cause_is_shown_once() {
        let io = std::io::Error::other("disk I/O error");
        let error = anyhow::Error::new(io)
            .context("failed to open a.db: disk I/O error; free it")
            .context("failed to start");
        let failure = Failure { exit: Exit::Usage, error };
        assert_eq!(failure.to_string(), "failed to start: failed to open a.db: disk I/O error; free it");
        let error = Err::<(), _>(std::io::Error::other("gone")).context("failed to read").unwrap_err();
        assert_eq!(Failure { exit: Exit::Usage, error }.to_string(), "failed to read: gone");
    }
}
