//! Whether kernels may use Winograd's algorithm.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Whether convolutions of a network may use Winograd's algorithm, on all processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Winograd {
    /// If a model predicts that it is faster.
    #[default]
    Auto,
    /// Never: all convolutions are direct sums.
    Off,
}

impl Winograd {
    /// Whether it is used if it is faster.
    pub fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

impl fmt::Display for Winograd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Auto => "auto",
            Self::Off => "off",
        })
    }
}
