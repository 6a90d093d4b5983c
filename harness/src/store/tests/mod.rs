//! Real files in temporary folders.

mod files;
pub(crate) mod fixture;
mod journals;
mod processes;
mod records;
mod size;
