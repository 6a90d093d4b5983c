//! A group's file.

use domain::FleetMode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Name;

/// Boards that one `bench` drives at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    /// Name of the group, the same as the file's and no board's.
    #[serde(rename = "group")]
    pub(crate) name: Name,
    /// Names of its boards.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub(crate) boards: Vec<Name>,
    /// What they do with the trials; left out: repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<FleetMode>,
}
