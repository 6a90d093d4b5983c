//! Initialization, the device and its primary context.

use super::{CURRENT, IS_INITIALIZED, call, in_context, put, synchronize};
use crate::device::Device;
use crate::fault::{Code, Fault};
use std::ffi::{CStr, c_char, c_int, c_uint};

/// `CUdevice`, the only one.
const DEVICE: c_int = 0;

fn check(device: c_int) -> Result<(), Fault> {
    if device == DEVICE {
        Ok(())
    } else {
        Err(Fault::new(Code::INVALID_DEVICE, format!("there is no device {device}; the only one is 0")))
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuInit(flags: c_uint) -> c_int {
    call("cuInit", |_| {
        if flags != 0 {
            return Err(Fault::new(Code::INVALID_VALUE, "flags must be 0"));
        }
        IS_INITIALIZED.get_or_init(|| ());
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    // SAFETY: the caller passes a place for the result.
    call("cuDriverGetVersion", |device| unsafe { put(version, device.settings.driver_version) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    // SAFETY: as above.
    call("cuDeviceGetCount", |_| unsafe { put(count, 1) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    call("cuDeviceGet", |_| {
        check(ordinal)?;
        // SAFETY: as above.
        unsafe { put(device, DEVICE) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, length: c_int, device: c_int) -> c_int {
    call("cuDeviceGetName", |stand_in| {
        check(device)?;
        let room = usize::try_from(length).unwrap_or(0);
        if name.is_null() || room == 0 {
            return Err(Fault::new(Code::INVALID_VALUE, "no room for the name"));
        }
        let mut text = stand_in.name().into_bytes();
        text.truncate(room - 1);
        text.push(0);
        // SAFETY: the caller passes room for `length` bytes.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr().cast(), name, text.len()) };
        Ok(())
    })
}

/// `cuDeviceTotalMem`.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) -> c_int {
    call("cuDeviceTotalMem_v2", |stand_in| {
        check(device)?;
        // SAFETY: as above.
        unsafe { put(bytes, stand_in.settings.memory_bytes as usize) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int) -> c_int {
    call("cuDeviceGetAttribute", |stand_in| {
        check(device)?;
        let found = self::attribute(stand_in, attribute).ok_or_else(|| {
            Fault::new(Code::INVALID_VALUE, format!("the attribute {attribute} is not known to this driver"))
        })?;
        // SAFETY: as above.
        unsafe { put(value, found) }
    })
}

/// The value of a `CUdevice_attribute`.
fn attribute(device: &Device, attribute: c_int) -> Option<c_int> {
    let architecture = &device.settings.architecture;
    Some(match attribute {
        // Most threads of a block, and by axis.
        1..=3 => 1024,
        4 => 64,
        // Most blocks of a grid by axis.
        5 => i32::MAX,
        6 | 7 => 65535,
        // Shared memory of a block, in bytes.
        8 => 48 << 10,
        // Constant memory, registers of a multiprocessor.
        9 | 82 => 64 << 10,
        // Threads of a warp.
        10 => 32,
        12 => architecture.block_registers,
        13 => architecture.clock_khz,
        16 => architecture.multiprocessors,
        18 => architecture.is_integrated.into(),
        // Maps host memory, kernels side by side, asynchronous engines, unified addressing, managed memory.
        19 | 31 | 40 | 41 | 83 => 1,
        // Compute mode: any process.
        20 => 0,
        38 => architecture.cache_bytes,
        39 => architecture.threads,
        75 => (architecture.number / 10) as c_int,
        76 => (architecture.number % 10) as c_int,
        81 => architecture.shared_bytes,
        // Managed memory that host and device access at once.
        89 => c_int::from(!architecture.is_integrated),
        106 if device.settings.driver_version >= 11000 => architecture.blocks,
        _ => return None,
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, device: c_int) -> c_int {
    call("cuDevicePrimaryCtxRetain", |stand_in| {
        check(device)?;
        if context.is_null() {
            return Err(Fault::new(Code::INVALID_VALUE, "the pointer for the context is null"));
        }
        // SAFETY: as above.
        unsafe { put(context, stand_in.retain()) }
    })
}

fn release(name: &str, device: c_int) -> c_int {
    call(name, |stand_in| {
        check(device)?;
        stand_in.release()
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRelease(device: c_int) -> c_int {
    release("cuDevicePrimaryCtxRelease", device)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> c_int {
    release("cuDevicePrimaryCtxRelease_v2", device)
}

fn reset(name: &str, device: c_int) -> c_int {
    call(name, |stand_in| {
        check(device)?;
        stand_in.reset();
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxReset(device: c_int) -> c_int {
    reset("cuDevicePrimaryCtxReset", device)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxReset_v2(device: c_int) -> c_int {
    reset("cuDevicePrimaryCtxReset_v2", device)
}

fn set_flags(name: &str, device: c_int, flags: c_uint) -> c_int {
    call(name, |stand_in| {
        check(device)?;
        // Scheduling (0, 1, 2, 4), mapping of host memory, local memory kept.
        if flags & !0x1f != 0 || !matches!(flags & 7, 0 | 1 | 2 | 4) {
            return Err(Fault::new(Code::INVALID_VALUE, format!("invalid flags {flags:#x}")));
        }
        stand_in.set_flags(flags)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxSetFlags(device: c_int, flags: c_uint) -> c_int {
    set_flags("cuDevicePrimaryCtxSetFlags", device, flags)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxSetFlags_v2(device: c_int, flags: c_uint) -> c_int {
    set_flags("cuDevicePrimaryCtxSetFlags_v2", device, flags)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxGetState(
    device: c_int,
    flags: *mut c_uint,
    active: *mut c_int,
) -> c_int {
    call("cuDevicePrimaryCtxGetState", |stand_in| {
        check(device)?;
        let (found, is_active) = stand_in.context_state();
        // SAFETY: as above.
        unsafe {
            put(flags, found)?;
            put(active, is_active.into())
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxSetCurrent(context: usize) -> c_int {
    call("cuCtxSetCurrent", |device| {
        if context != 0 && !device.is_context(context) {
            return Err(Fault::new(Code::INVALID_CONTEXT, "the handle is not that of an active context"));
        }
        CURRENT.set(context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetCurrent(context: *mut usize) -> c_int {
    // SAFETY: as above.
    call("cuCtxGetCurrent", |_| unsafe { put(context, CURRENT.get()) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetDevice(device: *mut c_int) -> c_int {
    // SAFETY: as above.
    in_context("cuCtxGetDevice", |_| unsafe { put(device, DEVICE) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxSynchronize() -> c_int {
    in_context("cuCtxSynchronize", synchronize)
}

fn text(
    code: c_int,
    place: *mut *const c_char,
    choose: fn((&'static CStr, &'static CStr)) -> &'static CStr,
) -> c_int {
    let found = Code(code).text().map(choose);
    if place.is_null() {
        return Code::INVALID_VALUE.0;
    }
    // SAFETY: as above.
    unsafe { place.write(found.map_or(std::ptr::null(), CStr::as_ptr)) };
    if found.is_some() { Code::SUCCESS.0 } else { Code::INVALID_VALUE.0 }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorName(code: c_int, name: *mut *const c_char) -> c_int {
    text(code, name, |(name, _)| name)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorString(code: c_int, string: *mut *const c_char) -> c_int {
    text(code, string, |(_, string)| string)
}
