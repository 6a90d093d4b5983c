//! Failures and their exit codes.

/// Exit code for wrong usage, and for a machine that lacks something the user can install.
pub(crate) const USAGE: u8 = 2;
/// Exit code for a board that is down or cannot be reached.
pub(crate) const AWAY: u8 = 3;
/// Exit code for a bug of edgepipe.
pub(crate) const BUG: u8 = 70;

/// Marks an error as a bug of edgepipe.
#[derive(Debug)]
pub(crate) struct Bug(pub(crate) String);

impl std::fmt::Display for Bug {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} (a bug in edgepipe)", self.0)
    }
}

impl std::error::Error for Bug {}

/// A board is down, or cannot be reached.
#[derive(Debug)]
pub(crate) struct Away(String);

impl Away {
    /// `message` starts with "failed to".
    pub(crate) fn new(message: String) -> Self {
        Self(message)
    }
}

impl std::fmt::Display for Away {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Away {}

/// The harness failed and printed why; its exit code becomes ours.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) u8);

impl std::fmt::Display for Refused {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "the harness ended with exit code {}", self.0)
    }
}

impl std::error::Error for Refused {}
