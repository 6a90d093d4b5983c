//! Why the comparing and measuring steps of a run stop early.

use boards::SessionError;
use host::exit::Failure;
use store::StoreError;

/// Why a step stopped before it was finished.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The user pressed Ctrl-C. What was measured is kept.
    Interrupted,
    /// The run cannot continue.
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<SessionError> for Stop {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Interrupted => Self::Interrupted,
            other => Self::Failed(other.into()),
        }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}
