//! How a command ends: an error with its exit code (see docs/getting-started.md).

use std::fmt;

/// Documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Fine = 0,
    /// A regression, or a claim that is not met.
    Regression = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// A board cannot be reached, is busy or in the wrong state.
    Board = 3,
    /// A trial failed, a schedule has no trial left that counts, or the run was interrupted.
    Trial = 4,
    /// A bug of edgepipe.
    Bug = 70,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that knows its exit code.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened.
    pub error: anyhow::Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = String::new();
        for cause in self.error.chain() {
            let cause = cause.to_string();
            // Many errors have their cause in their own sentence.
            if told.is_empty() {
                told = cause;
            } else if !told.contains(&cause) {
                told += ": ";
                told += &cause;
            }
        }
        out.write_str(&told)
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

/// Result of whatever can end a command.
pub type Outcome<T> = Result<T, Failure>;

/// Gives an error its exit code.
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
    /// A failure from a sentence.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, error: anyhow::anyhow!("{message}") }
    }

    /// The same after the board was closed. A board that is left in another state weighs more than what ended the
    /// command, unless that is a bug.
    #[must_use]
    pub fn after_closing(self, closed: Outcome<()>) -> Self {
        let Err(left_behind) = closed else { return self };
        crate::progress::say("warning", &left_behind.to_string());
        let exit = if self.exit == Exit::Bug { Exit::Bug } else { left_behind.exit };
        Self { exit, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn a_cause_is_told_once() {
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
