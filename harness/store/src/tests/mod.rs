//! Real files in temporary folders.

mod document;
mod files;
mod journals;
mod messages;
mod power;
mod processes;
mod records;
