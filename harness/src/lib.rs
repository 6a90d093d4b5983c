//! The host side: configuration, compiler driver, boards, campaign, store, report. See ARCHITECTURE.md.

pub mod config;
