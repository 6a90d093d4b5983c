//! TVM's runtime library, loaded once for the life of the process.

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::path::PathBuf;
use tvm_ffi::Function;

/// The library beside the runner, below its own folder.
const RUNTIME: &str = "lib/libtvm_runtime.so";

/// The loaded runtime. It stays loaded to the end of the process: modules and tensors live by its code.
#[derive(Debug)]
pub(crate) struct Runtime {
    _library: std::mem::ManuallyDrop<Library>,
}

/// Why the runtime could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("failed to load TVM's runtime from {}: {reason}; copy it there beside libtvm_ffi.so", path.display())]
pub(crate) struct RuntimeError {
    path: PathBuf,
    reason: String,
}

impl Runtime {
    /// Loads the runtime. To be called first of all in `main`, before any other thread starts.
    pub(crate) fn load() -> Result<Self, RuntimeError> {
        let program = std::env::current_exe()
            .map_err(|error| RuntimeError { path: RUNTIME.into(), reason: error.to_string() })?;
        let path = program.with_file_name(RUNTIME);
        if !path.is_file() {
            return Err(RuntimeError { path, reason: "there is no such file".to_owned() });
        }
        set_environment();
        #[expect(unsafe_code, reason = "a library's initialisers run when it is loaded")]
        // SAFETY: it is TVM's own runtime; its initialisers register functions and nothing else.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
        match library {
            Ok(library) => Ok(Self { _library: std::mem::ManuallyDrop::new(library) }),
            Err(error) => Err(RuntimeError { path, reason: error.to_string() }),
        }
    }
}

/// TVM reads these whenever it needs them, so they are set before anything of it runs.
///
/// `TVM_BIND_THREADS=0`: left to itself TVM binds every calling thread to the same core and ranks cores by their
/// highest frequency, which is wrong on boards with unlike cores; the runner binds threads itself.
/// `TVM_NUM_THREADS=1`: a thread that asked for no pool runs its kernels itself.
/// `TVM_THREAD_POOL_SPIN_COUNT`: workers look so often for the next kernel before they sleep. TVM's own 300,000
/// looks keep the CPUs of a waiting stage busy for tens of milliseconds, which costs power and hides that it
/// waits; these last about 2 ms, far longer than the gaps between the kernels of a frame.
///
/// Every other `TVM_*` variable of the board's user is removed: `TVM_EXCLUDE_WORKER0` and the like change what is measured.
fn set_environment() {
    #[expect(unsafe_code, reason = "the environment is shared by all threads")]
    // SAFETY: called from `main` before it starts a thread.
    unsafe {
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"TVM_") {
                std::env::remove_var(name);
            }
        }
        std::env::set_var("TVM_BIND_THREADS", "0");
        std::env::set_var("TVM_NUM_THREADS", "1");
        std::env::set_var("TVM_THREAD_POOL_SPIN_COUNT", "10000");
    }
}

/// Gives the memory that TVM's allocators keep for later back to the system.
pub(crate) fn release_memory() {
    let clear = Function::get_global("vm.builtin.memory_manager.clear");
    if let Err(error) = clear.and_then(|clear| clear.call_packed(&[])) {
        eprintln!("failed to release TVM's pooled memory: {}", super::text(&error));
    }
}
