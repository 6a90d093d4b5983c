//! Real files in temporary folders.

mod damage;
mod document;
mod files;
pub(crate) mod fixture;
mod journals;
mod merge;
mod migrations;
mod mutated;
mod power;
mod processes;
mod records;
mod size;
