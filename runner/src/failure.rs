//! Failures of requests.

use protocol::Fault;

/// Why a request failed. The message starts with "failed to" and ends with what to do, where that is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    pub(crate) message: String,
}

macro_rules! constructors {
    ($($name:ident: $fault:ident),*) => {
        impl Failure {
            $(pub(crate) fn $name(message: impl Into<String>) -> Self {
                Self { fault: Fault::$fault, message: message.into() }
            })*
        }
    };
}

constructors!(
    request: Request,
    library: StageLibrary,
    weights: Weights,
    affinity: Affinity,
    execution: Execution,
    meter: Meter,
    device: Device,
    internal: Internal
);
