//! Why a request failed, in the words of the protocol.

use protocol::Fault;

/// A failed request: the kind for the harness, the message for people. The message finishes "failed to …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// Kind of failure.
    pub(crate) fault: Fault,
    /// What failed, and what to do about it.
    pub(crate) message: String,
}

impl Failure {
    /// The request makes no sense.
    pub(crate) fn request(message: impl Into<String>) -> Self {
        Self { fault: Fault::Request, message: message.into() }
    }

    /// A stage library does not load or does not fit.
    pub(crate) fn library(message: impl Into<String>) -> Self {
        Self { fault: Fault::StageLibrary, message: message.into() }
    }

    /// A weights file cannot be used.
    pub(crate) fn weights(message: impl Into<String>) -> Self {
        Self { fault: Fault::Weights, message: message.into() }
    }

    /// A thread cannot run where it should.
    pub(crate) fn affinity(message: impl Into<String>) -> Self {
        Self { fault: Fault::Affinity, message: message.into() }
    }

    /// A stage raised an error.
    pub(crate) fn execution(message: impl Into<String>) -> Self {
        Self { fault: Fault::Execution, message: message.into() }
    }

    /// The power meter is not there, or not as asked.
    pub(crate) fn meter(message: impl Into<String>) -> Self {
        Self { fault: Fault::Meter, message: message.into() }
    }

    /// A bug.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self { fault: Fault::Internal, message: message.into() }
    }
}
