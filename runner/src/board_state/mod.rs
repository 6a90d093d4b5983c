//! The settings of a board that decide its speed: setting what a session requests, and restoring what was found, however the
//! session ends.

mod apply;
mod keeper;
pub(crate) mod memory_clock;
pub(crate) mod programs;
mod saved;
pub(crate) mod settings;

pub(crate) use keeper::{StateKeeper, pending, restore_leftover};
pub(crate) use settings::clocks;
