//! Modules and their kernels.

use super::{in_context, put, synchronize};
use crate::device::{Device, Function};
use crate::fault::{Code, Fault};
use crate::load;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Arc;

/// `CUjit_option` numbers of the logs.
const INFO_LOG: c_int = 3;
const INFO_LOG_BYTES: c_int = 4;
const ERROR_LOG: c_int = 5;
const ERROR_LOG_BYTES: c_int = 6;

/// The compiler's log, if the caller requests it.
#[derive(Debug, Default, Clone, Copy)]
struct Log {
    text: Option<*mut c_char>,
    /// The option that holds the size, and gets the length.
    bytes: Option<*mut *mut c_void>,
}

impl Log {
    /// Writes a message, as much as there is room for.
    unsafe fn write(self, message: &str) {
        let (Some(text), Some(bytes)) = (self.text.filter(|text| !text.is_null()), self.bytes) else {
            return;
        };
        // SAFETY: the caller of the driver vouches for its buffer and the size it names.
        unsafe {
            let room = bytes.read() as usize as u32 as usize;
            if room == 0 {
                return;
            }
            let length = message.len().min(room - 1);
            std::ptr::copy_nonoverlapping(message.as_ptr().cast(), text, length);
            text.add(length).write(0);
            bytes.write((length + 1) as *mut c_void);
        }
    }
}

fn text_of(image: *const c_void) -> Result<&'static str, Fault> {
    if image.is_null() {
        return Err(Fault::new(Code::INVALID_VALUE, "the module is null"));
    }
    // SAFETY: the caller passes a text that ends with a zero.
    let bytes = unsafe { CStr::from_ptr(image.cast()) }.to_bytes();
    if bytes.starts_with(b"\x7fELF") || bytes.starts_with(b"\x50\xed\x55\xba") {
        let message = "the module is compiled already; the stand-in reads PTX only";
        return Err(Fault::new(Code::NO_BINARY_FOR_GPU, message));
    }
    std::str::from_utf8(bytes)
        .map_err(|error| Fault::new(Code::INVALID_PTX, format!("the PTX is not UTF-8: {error}")))
}

fn load(device: &'static Arc<Device>, place: *mut usize, image: *const c_void) -> Result<(), Fault> {
    if place.is_null() {
        return Err(Fault::new(Code::INVALID_VALUE, "the pointer for the module is null"));
    }
    let module = load::module(device, text_of(image)?)?;
    let handle = device.add(module, |objects| &mut objects.modules);
    // SAFETY: the caller passes a place for the result.
    unsafe { put(place, handle) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadData(place: *mut usize, image: *const c_void) -> c_int {
    in_context("cuModuleLoadData", |device| load(device, place, image))
}

/// Of the options only the two logs have an effect.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadDataEx(
    place: *mut usize,
    image: *const c_void,
    count: c_uint,
    options: *const c_int,
    values: *mut *mut c_void,
) -> c_int {
    in_context("cuModuleLoadDataEx", |device| {
        let (mut info, mut error) = (Log::default(), Log::default());
        if count > 0 && (options.is_null() || values.is_null()) {
            return Err(Fault::new(Code::INVALID_VALUE, "the options are null"));
        }
        for number in 0..count as usize {
            // SAFETY: the caller passes `count` options and values.
            let (option, value) = unsafe { (options.add(number).read(), values.add(number)) };
            match option {
                // SAFETY: as above.
                INFO_LOG => info.text = Some(unsafe { value.read() }.cast()),
                INFO_LOG_BYTES => info.bytes = Some(value),
                // SAFETY: as above.
                ERROR_LOG => error.text = Some(unsafe { value.read() }.cast()),
                ERROR_LOG_BYTES => error.bytes = Some(value),
                0..=40 => {}
                _ => return Err(Fault::new(Code::INVALID_VALUE, format!("unknown option {option}"))),
            }
        }
        let result = load(device, place, image);
        let message = result.as_ref().err().map_or("", |fault| fault.message.as_str());
        // SAFETY: the caller passes buffers of the sizes it names.
        unsafe {
            info.write("");
            error.write(message);
        }
        result
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleUnload(handle: usize) -> c_int {
    in_context("cuModuleUnload", |device| {
        synchronize(device)?;
        let module = device.with(|objects| {
            let own: Vec<usize> = objects
                .functions
                .all()
                .filter(|(_, function)| function.module == handle)
                .map(|(function, _)| function)
                .collect();
            for function in own {
                objects.functions.remove(function)?;
            }
            objects.modules.remove(handle)
        })?;
        for address in module.variables {
            device.memory.free(address, false)?;
            device.forget(address);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetFunction(place: *mut usize, module: usize, name: *const c_char) -> c_int {
    in_context("cuModuleGetFunction", |device| {
        if name.is_null() {
            return Err(Fault::new(Code::INVALID_VALUE, "the name is null"));
        }
        // SAFETY: the caller passes a text that ends with a zero.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        let function = device.with(|objects| {
            let found = objects.modules.get(module)?;
            let program = found.programs.iter().find(|program| program.name == name);
            let program = program.ok_or_else(|| {
                let names: Vec<&str> = found.programs.iter().map(|program| program.name.as_str()).collect();
                let message = format!("the module has no kernel {name}; it has {}", names.join(", "));
                Fault::new(Code::NOT_FOUND, message)
            })?;
            Ok(Function { module, program: Arc::clone(program), ptx_version: found.ptx_version })
        })?;
        let handle = device.add(function, |objects| &mut objects.functions);
        // SAFETY: as above.
        unsafe { put(place, handle) }
    })
}

/// The kernel of a handle.
pub(super) fn function(device: &Device, handle: usize) -> Result<Function, Fault> {
    device.with(|objects| objects.functions.get(handle).cloned())
}

/// Registers of a thread are not known: they are chosen by the compiler that the stand-in does not have.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuFuncGetAttribute(value: *mut c_int, attribute: c_int, handle: usize) -> c_int {
    in_context("cuFuncGetAttribute", |device| {
        let function = function(device, handle)?;
        let program = &function.program;
        let found = match attribute {
            0 => program.max_threads.unwrap_or(1024).min(1024) as c_int,
            1 => program.shared_bytes as c_int,
            // No constants of its own; no dynamic shared memory.
            2 | 8 => 0,
            3 => program.local_bytes as c_int,
            5 => function.ptx_version,
            6 => device.settings.architecture.number as c_int,
            _ => {
                return Err(Fault::new(
                    Code::INVALID_VALUE,
                    format!("the attribute {attribute} is not known"),
                ));
            }
        };
        // SAFETY: as above.
        unsafe { put(value, found) }
    })
}

/// Offset and size of a parameter; as of CUDA 12.4.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuFuncGetParamInfo(
    handle: usize,
    index: usize,
    offset: *mut usize,
    bytes: *mut usize,
) -> c_int {
    in_context("cuFuncGetParamInfo", |device| {
        if device.settings.driver_version < 12040 {
            return Err(Fault::new(Code::NOT_SUPPORTED, "a driver of version 12040 has this function"));
        }
        let function = function(device, handle)?;
        let Some((at, size)) = function.program.parameters.get(index).copied() else {
            let count = function.program.parameters.len();
            let message = format!("kernel {} has {count} parameters", function.program.name);
            return Err(Fault::new(Code::INVALID_VALUE, message));
        };
        // SAFETY: as above.
        unsafe {
            put(offset, at)?;
            if bytes.is_null() { Ok(()) } else { put(bytes, size) }
        }
    })
}

/// By threads, shared memory and blocks; registers are not known.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: *mut c_int,
    handle: usize,
    threads: c_int,
    dynamic_bytes: usize,
) -> c_int {
    in_context("cuOccupancyMaxActiveBlocksPerMultiprocessor", |device| {
        let function = function(device, handle)?;
        let architecture = &device.settings.architecture;
        if threads <= 0 {
            return Err(Fault::new(Code::INVALID_VALUE, format!("blocks of {threads} threads")));
        }
        let by_threads = architecture.threads / (threads as u32).next_multiple_of(32) as c_int;
        let shared = function.program.shared_bytes + dynamic_bytes;
        let by_shared = (architecture.shared_bytes as usize).checked_div(shared).unwrap_or(usize::MAX);
        let by_shared = c_int::try_from(by_shared).unwrap_or(c_int::MAX);
        // SAFETY: as above.
        unsafe { put(blocks, by_threads.min(by_shared).min(architecture.blocks)) }
    })
}
