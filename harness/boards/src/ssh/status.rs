//! Whether a connection still works.

use super::error::SshError;
use crate::ending::{End, Ending};
use std::sync::Arc;

/// The host of a connection, and how the connection ended.
#[derive(Debug, Clone)]
pub(super) struct Status {
    /// Host and port.
    pub(super) host: String,
    pub(super) end: Arc<End>,
}

impl Status {
    /// Why the connection is lost, if it is.
    pub(super) fn lost(&self) -> Option<SshError> {
        match self.end.get()? {
            Ending::Lost(reason) => Some(SshError::Lost { host: self.host.clone(), reason }),
            _ => None,
        }
    }

    pub(super) fn failed(&self, what: &str, reason: String) -> SshError {
        SshError::Failed { what: what.to_owned(), host: self.host.clone(), reason }
    }
}
