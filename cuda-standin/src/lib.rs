//! A stand-in for `libcuda.so.1`: the CUDA driver API on CPUs, by interpreting PTX. For tests on machines without a
//! GPU; its times mean nothing.
//!
//! It does what a driver does with correct programs, refuses what a driver refuses, and reports what a GPU would leave
//! unnoticed. Streams are threads of their own, so that a program that forgets to wait is caught. Variables of the
//! environment:
//!
//! | variable | meaning |
//! |---|---|
//! | `CUDA_STANDIN_ARCH` | architecture of the device, such as `sm_62` (the default) |
//! | `CUDA_STANDIN_DRIVER` | version of the driver: 10020 (the default) is 10.2 |
//! | `CUDA_STANDIN_MEMORY_MIB` | memory of the device |
//! | `CUDA_STANDIN_CHECK=1` | checked mode: finds races between threads, counts accesses; several times slower |
//! | `CUDA_STANDIN_EMPTY=1` | kernels do nothing |
//! | `CUDA_STANDIN_FAULT` | faults on demand: `FUNCTION=CODE`, `kernel:NAME=CODE`, `kernel:NAME=hang`, separated by commas; `@N` after the name means from the Nth call on, `@N!` that one only |
//!
//! Always checked: bounds and alignment of each access, barriers that not all threads of a warp reach, and the shape of
//! a launch.

#![allow(unsafe_code, reason = "a driver gets and gives pointers; the interpreter works on raw memory")]
#![expect(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_ptr_alignment,
    clippy::cast_sign_loss,
    reason = "the arithmetic of a processor keeps the low bits and reinterprets signs"
)]
#![expect(
    clippy::inline_always,
    reason = "an operation that is not inlined into its loop over the lanes is not vectorized"
)]
#![expect(clippy::float_cmp, reason = "comparisons are those of the instructions")]

pub mod access;
mod api;
pub mod conversions;
pub mod device;
pub mod execute;
pub mod fault;
pub mod half;
pub mod lanes;
pub mod launch;
pub mod load;
pub mod memory;
pub mod operations;
pub mod program;
pub mod ptx;
pub mod settings;
pub mod shadow;
pub mod stream;
