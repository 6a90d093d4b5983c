//! The kernels of a stage: PTX that the driver compiles for its device, and the launches of a plan.

use super::api::{CallError, Handle};
use super::device::Device;
use super::driver::version_text;
use super::plan::CheckedPlan;
use super::stream::Stream;
use crate::clock::monotonic_ns;
use crate::failure::Failure;
use protocol::launch_plan::Argument;
use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::rc::Rc;
use std::sync::Arc;

/// Size of the buffer for the driver's log of a compilation.
const LOG_BYTES: usize = 8192;
/// Options of `cuModuleLoadDataEx`. Source: `CUjit_option` in cuda.h.
const ERROR_LOG: c_int = 5;
const ERROR_LOG_BYTES: c_int = 6;
/// `CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK`.
const MAX_THREADS_PER_BLOCK: c_int = 0;
/// `CU_FUNC_ATTRIBUTE_NUM_REGS`.
const REGISTERS: c_int = 4;

/// A loaded module. Its kernels belong to the device's context.
pub(super) struct Module {
    device: Arc<Device>,
    handle: Handle,
    /// Time that the driver took to load it.
    pub(super) load_ns: u64,
}

impl Module {
    /// Loads a plan's module. The driver compiles it, unless its cache on the board has the result.
    ///
    /// # Errors
    /// If the device or the driver is too old for it, or the driver cannot compile it; with the driver's log.
    pub(super) fn load(device: &Arc<Device>, plan: &CheckedPlan, path: &str) -> Result<Self, Failure> {
        let driver = device.driver;
        let fail = |reason: String| {
            Failure::library(format!(
                "failed to load the kernels of {path} on GPU {}: {reason}",
                device.index
            ))
        };
        if device.arch < plan.arch {
            return Err(Failure::device(format!(
                "failed to load the kernels of {path} on GPU {}: they are compiled for {}, but the GPU ({}) is {}; set `arch: \
                 {}` for the processor and compile again",
                device.index, plan.arch, device.name, device.arch, device.arch
            )));
        }
        let (major, minor) = plan.ptx_version;
        let too_new = |latest: &str| {
            Failure::device(format!(
                "failed to load the kernels of {path} on GPU {}: they are PTX {major}.{minor}, and the driver, of CUDA {}, \
                 reads {latest}; update the driver, or compile for an older architecture",
                device.index,
                version_text(driver.version)
            ))
        };
        if let Some(latest) = driver.latest_ptx()
            && latest < plan.ptx_version
        {
            return Err(too_new(&format!("up to {}.{}", latest.0, latest.1)));
        }
        let text = CString::new(plan.plan.ptx.as_str())
            .map_err(|_| fail("its PTX contains a NUL byte; compile and deploy it again".to_owned()))?;
        let mut log = vec![0_u8; LOG_BYTES];
        let mut options = [ERROR_LOG, ERROR_LOG_BYTES];
        let mut values: [*mut c_void; 2] =
            [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut(LOG_BYTES)];
        let mut handle = std::ptr::null_mut();
        let begin = monotonic_ns();
        // SAFETY: the text ends with NUL, the options are two, and the log has the size in its option.
        let loaded = unsafe {
            driver.api.module_load(
                &raw mut handle,
                text.as_ptr().cast(),
                2,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        let load_ns = monotonic_ns() - begin;
        if let Err(error) = loaded {
            /// `CUDA_ERROR_UNSUPPORTED_PTX_VERSION`.
            const UNSUPPORTED_PTX: c_int = 222;
            if error.code == UNSUPPORTED_PTX {
                return Err(too_new("older versions only"));
            }
            let log = String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or_default());
            let log = log.trim().lines().map(str::trim).collect::<Vec<_>>().join(" | ");
            let log = if log.is_empty() { String::new() } else { format!(": {log}") };
            return Err(fail(format!(
                "{}{log}; compile and deploy it again, and report it if that does not help",
                device.describe(device.note(error))
            )));
        }
        Ok(Self { device: Arc::clone(device), handle, load_ns })
    }

    fn kernel(&self, name: &str) -> Result<Handle, CallError> {
        let mut function = std::ptr::null_mut();
        // A name with a NUL byte is as unknown as its beginning.
        let name = CString::new(name).unwrap_or_default();
        // SAFETY: the module is loaded, and the name ends with NUL.
        let found =
            unsafe { self.device.driver.api.module_function(&raw mut function, self.handle, name.as_ptr()) };
        found.map(|()| function).map_err(|error| self.device.note(error))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if !self.device.is_lost() {
            // SAFETY: the module is loaded, and nothing uses its kernels afterwards.
            self.device.ended(unsafe { self.device.driver.api.module_unload(self.handle) });
        }
    }
}

/// A launch with everything that the driver needs.
pub(super) struct PreparedLaunch {
    pub(super) kernel: Rc<str>,
    function: Handle,
    grid: [u32; 3],
    block: [u32; 3],
    /// Addresses of the arguments, and pointers to them, which the driver dereferences.
    addresses: Box<[u64]>,
    pointers: Box<[*mut c_void]>,
}

impl PreparedLaunch {
    /// Prepares all launches of a plan whose values start at `arena` and whose weights are at `weights`.
    ///
    /// # Errors
    /// If the driver does not find a kernel, or cannot launch so many of its threads.
    pub(super) fn all(
        module: &Module,
        plan: &CheckedPlan,
        arena: u64,
        weights: &[u64],
        path: &str,
    ) -> Result<Vec<Self>, Failure> {
        let mut kernels: HashMap<&str, (Handle, Rc<str>)> = HashMap::new();
        let mut launches = Vec::with_capacity(plan.plan.launches.len());
        for launch in &plan.plan.launches {
            let name = launch.kernel.as_str();
            let fail = |reason: String| {
                Failure::library(format!(
                    "failed to load kernel {name} of {path}: {reason}; compile and deploy it again"
                ))
            };
            let (function, kernel) = if let Some(known) = kernels.get(name) {
                known.clone()
            } else {
                let function = module.kernel(name).map_err(|error| fail(module.device.describe(error)))?;
                kernels.entry(name).or_insert((function, name.into())).clone()
            };
            check_threads(&module.device, function, launch.block).map_err(fail)?;
            let address = |argument: &Argument| match argument {
                Argument::Value(index) => arena + plan.value(*index).offset,
                Argument::Weight(index) => weights[*index as usize],
            };
            let mut addresses: Box<[u64]> = launch.arguments.iter().map(address).collect();
            let pointers = addresses.iter_mut().map(|address| std::ptr::from_mut(address).cast()).collect();
            let (grid, block) = (launch.grid, launch.block);
            launches.push(Self { kernel, function, grid, block, addresses, pointers });
        }
        Ok(launches)
    }

    /// Starts the kernel on a stream.
    pub(super) fn start(&mut self, stream: &Stream) -> Result<(), CallError> {
        let ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]) = (self.grid, self.block);
        debug_assert_eq!(self.addresses.len(), self.pointers.len());
        // SAFETY: the kernel's module is loaded as long as the engine that owns `self`; its PTX, which was
        // checked, has as many parameters as there are pointers; all of them are addresses of memory that the engine owns.
        let started = unsafe {
            stream.device.driver.api.launch(
                self.function,
                grid_x,
                grid_y,
                grid_z,
                block_x,
                block_y,
                block_z,
                0,
                stream.handle,
                self.pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        started.map_err(|error| stream.device.note(error))
    }
}

/// Checks that the device can launch so many threads of a kernel.
fn check_threads(device: &Device, function: Handle, block: [u32; 3]) -> Result<(), String> {
    let attribute = |number| {
        let mut value = 0;
        // SAFETY: `value` is valid to write to, and the function's module is loaded.
        let asked = unsafe { device.driver.api.function_attribute(&raw mut value, number, function) };
        asked.map(|()| value).map_err(|error| device.describe(device.note(error)))
    };
    let threads: u32 = block.iter().product();
    let limit = u32::try_from(attribute(MAX_THREADS_PER_BLOCK)?).unwrap_or(0);
    let limit = limit.min(device.max_threads_per_block);
    if threads <= limit {
        return Ok(());
    }
    let registers = attribute(REGISTERS);
    let registers =
        registers.map_or_else(|_| String::new(), |count| format!(", with {count} registers a thread,"));
    Err(format!(
        "a block has {threads} threads, and the kernel{registers} allows {limit} on the GPU ({})",
        device.name
    ))
}
