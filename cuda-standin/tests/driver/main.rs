//! The library as a program uses it: the driver's functions, called as foreign functions.

#![allow(
    unsafe_code,
    missing_docs,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    reason = "a test of foreign functions"
)]

mod api;
mod faults;
mod kernels;
mod refusals;

/// Kernels written by hand.
const PTX: &str = include_str!("kernels.ptx");
