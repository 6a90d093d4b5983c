//! Memory: allocation, copies and fills.

use super::{enqueue, in_context, put, synchronize};
use crate::device::Device;
use crate::fault::{Code, Fault};
use crate::memory::Kind;
use crate::stream::Task;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

fn allocate(name: &str, place: *mut u64, bytes: usize, kind: Kind) -> c_int {
    in_context(name, |device| {
        if place.is_null() {
            return Err(Fault::new(Code::INVALID_VALUE, "the pointer for the address is null"));
        }
        let address = device.memory.allocate(bytes as u64, kind)?;
        // SAFETY: the caller passes a place for the result.
        unsafe { put(place, address) }
    })
}

fn free(name: &str, address: u64, is_host: bool) -> c_int {
    in_context(name, |device| {
        if address == 0 {
            return Ok(());
        }
        synchronize(device)?;
        device.memory.free(address, is_host)?;
        device.forget(address);
        Ok(())
    })
}

/// `cuMemAlloc`.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> c_int {
    allocate("cuMemAlloc_v2", address, bytes, Kind::Device)
}

/// `cuMemFree`.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemFree_v2(address: u64) -> c_int {
    free("cuMemFree_v2", address, false)
}

/// `cuMemAllocHost`.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAllocHost_v2(place: *mut *mut c_void, bytes: usize) -> c_int {
    allocate("cuMemAllocHost_v2", place.cast(), bytes, Kind::Host)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemHostAlloc(place: *mut *mut c_void, bytes: usize, flags: c_uint) -> c_int {
    if flags & !7 != 0 {
        return in_context("cuMemHostAlloc", |_| {
            Err(Fault::new(Code::INVALID_VALUE, format!("invalid flags {flags:#x}")))
        });
    }
    allocate("cuMemHostAlloc", place.cast(), bytes, Kind::Host)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemFreeHost(place: *mut c_void) -> c_int {
    free("cuMemFreeHost", place as u64, true)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAllocManaged(address: *mut u64, bytes: usize, flags: c_uint) -> c_int {
    // Attached to all streams, or to the host.
    if !matches!(flags, 1 | 2) {
        return in_context("cuMemAllocManaged", |_| {
            Err(Fault::new(Code::INVALID_VALUE, format!("invalid flags {flags:#x}")))
        });
    }
    allocate("cuMemAllocManaged", address, bytes, Kind::Managed)
}

/// `cuMemHostGetDevicePointer`: the same address.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemHostGetDevicePointer_v2(
    address: *mut u64,
    place: *mut c_void,
    flags: c_uint,
) -> c_int {
    in_context("cuMemHostGetDevicePointer_v2", |device| {
        if flags != 0 {
            return Err(Fault::new(Code::INVALID_VALUE, "flags must be 0"));
        }
        device.check_device_bytes(place as u64, 1)?;
        // SAFETY: as above.
        unsafe { put(address, place as u64) }
    })
}

/// `cuMemGetInfo`.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int {
    in_context("cuMemGetInfo_v2", |device| {
        let (is_free, all) = device.memory.info();
        // SAFETY: as above.
        unsafe {
            put(free, is_free as usize)?;
            put(total, all as usize)
        }
    })
}

/// Enqueues a copy; `device_side` are the addresses that must be of the device.
fn copy(
    device: &'static Arc<Device>,
    stream: usize,
    (to, from, bytes): (u64, u64, usize),
    device_side: &[u64],
) -> Result<(), Fault> {
    if bytes == 0 {
        return Ok(());
    }
    for address in device_side {
        device.check_device_bytes(*address, bytes as u64)?;
    }
    if to == 0 || from == 0 {
        return Err(Fault::new(Code::INVALID_VALUE, "an address of a copy is null"));
    }
    enqueue(device, stream, [Task::Copy { to, from, bytes: bytes as u64 }])
}

/// `cuMemcpyHtoDAsync`. The host's memory is read when the stream comes to it.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const c_void,
    bytes: usize,
    stream: usize,
) -> c_int {
    in_context("cuMemcpyHtoDAsync_v2", |device| copy(device, stream, (to, from as u64, bytes), &[to]))
}

/// `cuMemcpyDtoHAsync`. The host's memory is written when the stream comes to it.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: usize) -> c_int {
    in_context("cuMemcpyDtoHAsync_v2", |device| copy(device, stream, (to as u64, from, bytes), &[from]))
}

/// `cuMemcpyDtoDAsync`.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: usize) -> c_int {
    in_context("cuMemcpyDtoDAsync_v2", |device| copy(device, stream, (to, from, bytes), &[to, from]))
}

/// Copies on the default stream, and waits.
fn copy_now(name: &str, (to, from, bytes): (u64, u64, usize), device_side: &[u64]) -> c_int {
    in_context(name, |device| {
        copy(device, 0, (to, from, bytes), device_side)?;
        super::stream(device, 0)?.synchronize();
        device.check_context(super::CURRENT.get())
    })
}

/// `cuMemcpyHtoD`.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) -> c_int {
    copy_now("cuMemcpyHtoD_v2", (to, from as u64, bytes), &[to])
}

/// `cuMemcpyDtoH`.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) -> c_int {
    copy_now("cuMemcpyDtoH_v2", (to as u64, from, bytes), &[from])
}

/// `cuMemcpyDtoD`.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> c_int {
    copy_now("cuMemcpyDtoD_v2", (to, from, bytes), &[to, from])
}

fn fill(
    device: &'static Arc<Device>,
    stream: usize,
    to: u64,
    (pattern, size): (u32, usize),
    count: usize,
) -> Result<(), Fault> {
    if count == 0 {
        return Ok(());
    }
    device.check_device_bytes(to, (count as u64).saturating_mul(size as u64))?;
    enqueue(device, stream, [Task::Fill { to, pattern, size, count: count as u64 }])
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: usize) -> c_int {
    in_context("cuMemsetD8Async", |device| fill(device, stream, to, (value.into(), 1), count))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemsetD32Async(to: u64, value: c_uint, count: usize, stream: usize) -> c_int {
    in_context("cuMemsetD32Async", |device| fill(device, stream, to, (value, 4), count))
}

/// `cuMemsetD8`.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemsetD8_v2(to: u64, value: u8, count: usize) -> c_int {
    in_context("cuMemsetD8_v2", |device| fill(device, 0, to, (value.into(), 1), count))
}
