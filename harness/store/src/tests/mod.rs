//! Real files in temporary folders.

mod document;
mod files;
mod journals;
mod power;
mod processes;
mod records;
