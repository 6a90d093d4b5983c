//! TVM's pool of worker threads, which belongs to the thread that calls the kernels.

use super::text;
use tvm_ffi::{Array, Function};

/// "One core per thread" in TVM's `ThreadGroup::AffinityMode`.
const ONE_CORE_PER_THREAD: i32 = -2;

/// Gives the calling thread a pool, so that its kernels run on `cpus.len()` threads, itself among them. Workers
/// are created here and inherit the CPUs of the caller; binding each to its own is the caller's business.
pub(crate) fn spread_over(cpus: &[u32]) -> Result<(), String> {
    let fail = |error: &tvm_ffi::Error| format!("failed to set up TVM's thread pool: {}", text(error));
    let configure = Function::get_global("runtime.config_threadpool").map_err(|error| fail(&error))?;
    // The number of threads is taken from the length of this list; without it TVM makes one for each core.
    let list: Array<tvm_ffi::String> =
        cpus.iter().map(|cpu| tvm_ffi::String::from(cpu.to_string())).collect();
    let threads = i32::try_from(cpus.len()).unwrap_or(i32::MAX);
    configure.call_tuple((ONE_CORE_PER_THREAD, threads, list)).map_err(|error| fail(&error))?;
    Ok(())
}
