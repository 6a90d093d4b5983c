//! Real files in temporary folders.

pub(crate) mod fixture;
mod files;
mod journals;
mod processes;
mod records;
