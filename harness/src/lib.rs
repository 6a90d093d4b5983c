//! The host side: configuration, compiler driver, boards, campaign, store, report. See ARCHITECTURE.md.

pub mod binary;
pub mod boards;
pub mod campaign;
pub mod cli;
pub mod compiler;
pub mod config;
pub mod exit;
pub mod fleet;
pub mod gate;
mod gating;
pub mod history;
mod input_file;
pub mod interrupt;
#[cfg(test)]
mod mutation;
pub mod processors;
pub mod progress;
pub mod provenance;
pub mod report;
pub mod results;
mod selftest;
pub mod session;
pub mod store;
pub mod verbs;
