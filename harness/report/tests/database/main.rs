//! Databases that are damaged, merged, written by earlier versions, or changed at random, and the reports of them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod damage;
mod merge;
mod migrations;
mod mutated;
mod size;
