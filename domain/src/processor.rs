//! What a stage runs on: a set of CPUs or a GPU, known here by its name alone.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Name of a processor, as the board gives it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProcessorName(String);

impl ProcessorName {
    /// A processor of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProcessorName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl From<&str> for ProcessorName {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for ProcessorName {
    fn from(name: String) -> Self {
        Self(name)
    }
}

impl AsRef<str> for ProcessorName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}
