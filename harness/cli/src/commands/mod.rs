//! The commands: one file each, with its arguments and its `run`.

pub(crate) mod baseline;
pub(crate) mod bench;
pub(crate) mod boards;
pub(crate) mod check;
pub(crate) mod farm;
pub(crate) mod history;
pub(crate) mod layers;
pub(crate) mod optimize;
pub(crate) mod plan;
pub(crate) mod report;
pub(crate) mod results;
pub(crate) mod selftest;
pub(crate) mod shell;
pub(crate) mod target;
pub(crate) mod verify_claims;
