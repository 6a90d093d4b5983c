//! How several boards share the work of one bench.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How several boards share the trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FleetMode {
    /// Every board measures everything, which compares the boards.
    Repeat,
    /// Equal boards share the rounds, which takes less time.
    Spread,
}

impl FleetMode {
    /// Its name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Repeat => "repeat",
            Self::Spread => "spread",
        }
    }

    /// Undoes [`FleetMode::as_str`].
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Repeat, Self::Spread].into_iter().find(|mode| mode.as_str() == text)
    }
}
