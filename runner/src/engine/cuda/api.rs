//! The part of CUDA's driver API that the runner calls, as `libcuda` exports it. Only CUDA 10.2 is needed; what is newer is optional.
//!
//! Signatures: NVIDIA, CUDA Driver API 10.2. Handles are pointers, device addresses are 64 bits wide.

use libloading::Library;
use std::ffi::{c_char, c_int, c_uint, c_void};

/// `CUresult`.
pub(super) type Code = c_int;
/// `CUcontext`, `CUmodule`, `CUfunction`, `CUstream`, `CUevent`, `CUgraph`, `CUgraphExec` and `CUgraphNode`.
pub(super) type Handle = *mut c_void;
/// `CUdeviceptr`.
pub(super) type Address = u64;

/// A call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallError {
    pub(super) symbol: &'static str,
    pub(super) code: Code,
}

/// Declares a table of functions. Each method calls its function and turns its code into a result.
macro_rules! functions {
    ($(#[$about:meta])* $table:ident { $($name:ident = $symbol:literal ($($argument:ident: $type:ty),*);)* }) => {
        $(#[$about])*
        pub(super) struct $table {
            $($name: unsafe extern "C" fn($($type),*) -> Code,)*
        }

        impl $table {
            /// Looks up all functions; the error is the name of the first that the library lacks.
            pub(super) fn look_up(library: &Library) -> Result<Self, &'static str> {
                Ok(Self {
                    $($name: {
                        // SAFETY: the library is the CUDA driver, whose function has this signature.
                        let found = unsafe {
                            library.get::<unsafe extern "C" fn($($type),*) -> Code>($symbol.as_bytes())
                        };
                        *found.map_err(|_| $symbol)?
                    },)*
                })
            }

            $(
                /// # Safety
                /// As the driver's function: pointers are valid for what it reads and writes, handles are alive.
                #[allow(clippy::too_many_arguments, reason = "as the driver's function")]
                #[inline]
                pub(super) unsafe fn $name(&self, $($argument: $type),*) -> Result<(), CallError> {
                    // SAFETY: as the caller promises.
                    match unsafe { (self.$name)($($argument),*) } {
                        0 => Ok(()),
                        code => Err(CallError { symbol: $symbol, code }),
                    }
                }
            )*
        }
    };
}

functions! {
    /// Functions without which no stage runs.
    Api {
        init = "cuInit" (flags: c_uint);
        driver_version = "cuDriverGetVersion" (version: *mut c_int);
        device_count = "cuDeviceGetCount" (count: *mut c_int);
        device = "cuDeviceGet" (device: *mut c_int, ordinal: c_int);
        device_name = "cuDeviceGetName" (name: *mut c_char, length: c_int, device: c_int);
        device_attribute = "cuDeviceGetAttribute" (value: *mut c_int, attribute: c_int, device: c_int);
        device_memory = "cuDeviceTotalMem_v2" (bytes: *mut usize, device: c_int);
        context_flags = "cuDevicePrimaryCtxSetFlags" (device: c_int, flags: c_uint);
        context_retain = "cuDevicePrimaryCtxRetain" (context: *mut Handle, device: c_int);
        context_release = "cuDevicePrimaryCtxRelease" (device: c_int);
        context_reset = "cuDevicePrimaryCtxReset" (device: c_int);
        context_set = "cuCtxSetCurrent" (context: Handle);
        module_load = "cuModuleLoadDataEx" (module: *mut Handle, image: *const c_void, count: c_uint, options: *mut c_int,
            values: *mut *mut c_void);
        module_unload = "cuModuleUnload" (module: Handle);
        module_function = "cuModuleGetFunction" (function: *mut Handle, module: Handle, name: *const c_char);
        function_attribute = "cuFuncGetAttribute" (value: *mut c_int, attribute: c_int, function: Handle);
        memory_allocate = "cuMemAlloc_v2" (address: *mut Address, bytes: usize);
        memory_free = "cuMemFree_v2" (address: Address);
        memory_info = "cuMemGetInfo_v2" (free: *mut usize, total: *mut usize);
        copy_to_device = "cuMemcpyHtoDAsync_v2" (to: Address, from: *const c_void, bytes: usize, stream: Handle);
        copy_to_host = "cuMemcpyDtoHAsync_v2" (to: *mut c_void, from: Address, bytes: usize, stream: Handle);
        stream_create = "cuStreamCreate" (stream: *mut Handle, flags: c_uint);
        stream_destroy = "cuStreamDestroy_v2" (stream: Handle);
        stream_wait = "cuStreamSynchronize" (stream: Handle);
        stream_wait_event = "cuStreamWaitEvent" (stream: Handle, event: Handle, flags: c_uint);
        event_create = "cuEventCreate" (event: *mut Handle, flags: c_uint);
        event_destroy = "cuEventDestroy_v2" (event: Handle);
        event_record = "cuEventRecord" (event: Handle, stream: Handle);
        event_elapsed = "cuEventElapsedTime" (milliseconds: *mut f32, start: Handle, end: Handle);
        launch = "cuLaunchKernel" (function: Handle, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint,
            block_y: c_uint, block_z: c_uint, shared_bytes: c_uint, stream: Handle, arguments: *mut *mut c_void,
            extra: *mut *mut c_void);
        error_name = "cuGetErrorName" (code: Code, name: *mut *const c_char);
        error_text = "cuGetErrorString" (code: Code, text: *mut *const c_char);
    }
}

functions! {
    /// Functions for graphs, since CUDA 10.1.
    CaptureApi {
        begin_capture = "cuStreamBeginCapture_v2" (stream: Handle, mode: c_int);
        end_capture = "cuStreamEndCapture" (stream: Handle, graph: *mut Handle);
        graph_launch = "cuGraphLaunch" (executable: Handle, stream: Handle);
        graph_destroy = "cuGraphDestroy" (graph: Handle);
        executable_destroy = "cuGraphExecDestroy" (executable: Handle);
    }
}

functions! {
    /// Instantiation of a graph since CUDA 11.4.
    InstantiateWithFlags {
        instantiate = "cuGraphInstantiateWithFlags" (executable: *mut Handle, graph: Handle, flags: u64);
    }
}

functions! {
    /// Instantiation of a graph before.
    InstantiateWithLog {
        instantiate = "cuGraphInstantiate" (executable: *mut Handle, graph: Handle, failed_node: *mut Handle, log: *mut c_char,
            log_bytes: usize);
    }
}

/// Version of the first driver with `cuGraphInstantiateWithFlags`.
const WITH_FLAGS_SINCE: u32 = 11_040;

/// All functions for graphs.
pub(super) struct GraphApi {
    pub(super) capture: CaptureApi,
    instantiate: Instantiate,
}

enum Instantiate {
    WithFlags(InstantiateWithFlags),
    WithLog(InstantiateWithLog),
}

impl GraphApi {
    /// `None` if the driver lacks one of them. `version` is the driver's.
    pub(super) fn look_up(library: &Library, version: u32) -> Option<Self> {
        let instantiate = if version >= WITH_FLAGS_SINCE {
            Instantiate::WithFlags(InstantiateWithFlags::look_up(library).ok()?)
        } else {
            Instantiate::WithLog(InstantiateWithLog::look_up(library).ok()?)
        };
        Some(Self { capture: CaptureApi::look_up(library).ok()?, instantiate })
    }

    /// # Safety
    /// The graph is alive, and so is the context of its kernels.
    pub(super) unsafe fn instantiate(&self, graph: Handle) -> Result<Handle, CallError> {
        let mut executable = std::ptr::null_mut();
        // SAFETY: as the caller promises; neither log nor node is requested.
        unsafe {
            match &self.instantiate {
                Instantiate::WithFlags(api) => api.instantiate(&raw mut executable, graph, 0)?,
                Instantiate::WithLog(api) => api.instantiate(
                    &raw mut executable,
                    graph,
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                    0,
                )?,
            }
        }
        Ok(executable)
    }
}
