//! TVM's runtime library: loading it, its thread pool, its memory.

use super::loader::loader_message;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::path::PathBuf;
use tvm_ffi::{Array, Function};

/// Path of the library, relative to the runner's folder.
const RUNTIME: &str = "lib/libtvm_runtime.so";

/// "One core per thread" in TVM's `ThreadGroup::AffinityMode`.
const ONE_CORE_PER_THREAD: i32 = -2;

/// The loaded runtime. It is never unloaded, because modules and tensors use its code until the process exits.
#[derive(Debug)]
pub(crate) struct Runtime {
    _library: std::mem::ManuallyDrop<Library>,
}

#[derive(Debug, thiserror::Error)]
#[error("failed to load TVM's runtime from {}: {reason}; copy it there next to libtvm_ffi.so", path.display())]
pub(crate) struct RuntimeError {
    path: PathBuf,
    reason: String,
}

impl Runtime {
    /// Loads the runtime. Call it in `main` before any other thread starts.
    pub(crate) fn load() -> Result<Self, RuntimeError> {
        let program = std::env::current_exe()
            .map_err(|error| RuntimeError { path: RUNTIME.into(), reason: error.to_string() })?;
        let path = program.with_file_name(RUNTIME);
        if !path.is_file() {
            return Err(RuntimeError { path, reason: "the file does not exist".to_owned() });
        }
        set_environment();
        #[expect(unsafe_code, reason = "loading a library runs its initializers")]
        // SAFETY: the initializers of TVM's runtime only register functions.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
        match library {
            Ok(library) => Ok(Self { _library: std::mem::ManuallyDrop::new(library) }),
            Err(error) => Err(RuntimeError { path, reason: loader_message(&error) }),
        }
    }
}

/// Sets the variables that TVM reads at any time, and removes all other `TVM_*` variables, which would change what is
/// measured (`TVM_EXCLUDE_WORKER0`, for example), and CUDA's `CUDA_LAUNCH_BLOCKING`, for the same reason.
///
/// - `TVM_BIND_THREADS=0`: by default TVM binds every calling thread to the same core and ranks cores by their highest
///   frequency, which is wrong on boards with heterogeneous cores. The runner binds threads itself.
/// - `TVM_NUM_THREADS=1`: a thread without a pool runs its kernels itself.
/// - `TVM_THREAD_POOL_SPIN_COUNT`: number of polls before an idle worker sleeps. TVM's default of 300,000 keeps the CPUs of
///   a waiting stage busy for tens of milliseconds, which costs power and hides the waiting. 10,000 last about 2 ms, far
///   longer than the gaps between the kernels of a frame.
fn set_environment() {
    #[expect(unsafe_code, reason = "the environment is shared by all threads")]
    // SAFETY: called from `main` before it starts a thread.
    unsafe {
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"TVM_") || name == "CUDA_LAUNCH_BLOCKING" {
                std::env::remove_var(name);
            }
        }
        std::env::set_var("TVM_BIND_THREADS", "0");
        std::env::set_var("TVM_NUM_THREADS", "1");
        std::env::set_var("TVM_THREAD_POOL_SPIN_COUNT", "10000");
    }
}

/// Returns the memory that TVM's allocators keep for reuse to the operating system.
pub(crate) fn release_memory() {
    let clear = Function::get_global("vm.builtin.memory_manager.clear");
    if let Err(error) = clear.and_then(|clear| clear.call_packed(&[])) {
        eprintln!("failed to release TVM's pooled memory: {}", text(&error));
    }
}

/// Creates a pool for the calling thread, so that its kernels run on `cpus.len()` threads, itself included. The workers
/// inherit the caller's CPUs; the caller binds each of them afterwards.
pub(super) fn create_thread_pool(cpus: &[u32]) -> Result<(), String> {
    let fail = |error: &tvm_ffi::Error| format!("failed to create TVM's thread pool: {}", text(error));
    let configure = Function::get_global("runtime.config_threadpool").map_err(|error| fail(&error))?;
    // The length of this list is the number of threads; without it TVM creates one for each core.
    let list: Array<tvm_ffi::String> =
        cpus.iter().map(|cpu| tvm_ffi::String::from(cpu.to_string())).collect();
    let threads = i32::try_from(cpus.len()).unwrap_or(i32::MAX);
    configure.call_tuple((ONE_CORE_PER_THREAD, threads, list)).map_err(|error| fail(&error))?;
    Ok(())
}

/// TVM's error as text; `tvm_ffi::Error` itself is not `Send`.
pub(super) fn text(error: &tvm_ffi::Error) -> String {
    format!("{}: {}", error.kind(), error.message().trim_end())
}
