//! The format of the numbers that a network is computed in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Format of the float32 tensors of a network on a GPU. CPUs always compute in single precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FloatFormat {
    /// Single precision: IEEE 754 binary32.
    #[default]
    Fp32,
    /// Half precision: IEEE 754 binary16.
    Fp16,
}

impl FloatFormat {
    /// Whether it is single precision.
    pub fn is_single(&self) -> bool {
        *self == Self::Fp32
    }
}

impl fmt::Display for FloatFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
        })
    }
}
