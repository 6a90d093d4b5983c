//! Where Rust ends: TVM's runtime and ONNX Runtime, memory it shares with us, and the few calls of the C library that have no
//! safe form. The only module with unsafe code; everything it offers is safe.

mod code;
mod instrument;
mod library;
mod multiply;
mod onnxruntime;
mod process;
mod runtime;
mod tensor;
mod threads;
mod weights;

pub(crate) use code::Code;
pub(crate) use instrument::Instrument;
pub(crate) use library::{Library, StageCode};
pub(crate) use multiply::Multiplier;
pub(crate) use onnxruntime::OnnxSession;
pub(crate) use process::{ThreadUsage, exit_at_once, thread_cpu_ns};
pub(crate) use runtime::{Runtime, release_memory};
pub(crate) use tensor::{Dtype, Tensor, TensorSpec};
pub(crate) use threads::spread_over;
pub(crate) use weights::{WeightsCache, WeightsFile};

/// TVM's error as text; `tvm_ffi::Error` itself cannot leave its thread.
fn text(error: &tvm_ffi::Error) -> String {
    format!("{}: {}", error.kind(), error.message().trim_end())
}
