//! What several boards do with the trials.

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What several boards do with the trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Every board measures everything: boards are compared.
    Repeat,
    /// Equal boards share the rounds: it takes less time.
    Spread,
}

impl Mode {
    /// As it stands in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Repeat => "repeat",
            Self::Spread => "spread",
        }
    }

    /// Undoes [`Mode::as_str`].
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Repeat, Self::Spread].into_iter().find(|mode| mode.as_str() == text)
    }
}
