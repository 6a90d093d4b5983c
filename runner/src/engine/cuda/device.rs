//! Devices with their contexts. A process has one context on each device, which all stages share.

use super::api::{Address, CallError, Handle};
use super::driver::{Driver, NoDriver, advice, is_fatal};
use crate::failure::Failure;
use crate::memory;
use protocol::{CudaDevice, CudaSystem};
use std::collections::BTreeMap;
use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Numbers of device attributes. Source: `CUdevice_attribute` in cuda.h.
mod attribute {
    use std::ffi::c_int;

    pub(super) const MAX_THREADS_PER_BLOCK: c_int = 1;
    pub(super) const CLOCK_KHZ: c_int = 13;
    pub(super) const MULTIPROCESSORS: c_int = 16;
    pub(super) const INTEGRATED: c_int = 18;
    pub(super) const L2_BYTES: c_int = 38;
    pub(super) const MAJOR: c_int = 75;
    pub(super) const MINOR: c_int = 76;
}

/// `CU_CTX_SCHED_BLOCKING_SYNC`: a thread that waits for the device sleeps. By default it would spin on a CPU that other
/// stages need.
const BLOCKING_SYNC: u32 = 4;

/// A device whose context this process holds.
pub(super) struct Device {
    pub(super) driver: &'static Driver,
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) arch: Arch,
    pub(super) max_threads_per_block: u32,
    is_integrated: bool,
    ordinal: c_int,
    context: Handle,
    /// Whether a call has failed after which the context is unusable.
    lost: AtomicBool,
}

// SAFETY: the context may be used by all threads at the same time.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// Compute capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Arch {
    major: u32,
    minor: u32,
}

impl Arch {
    /// Parses `sm_62`. The minor version is the last digit.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sm_")?;
        let number: u32 = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        (10..=999).contains(&number).then_some(Self { major: number / 10, minor: number % 10 })
    }
}

impl std::fmt::Display for Arch {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "sm_{}{}", self.major, self.minor)
    }
}

/// The devices in use, by number.
static DEVICES: Mutex<BTreeMap<u32, Arc<Device>>> = Mutex::new(BTreeMap::new());

fn devices() -> std::sync::MutexGuard<'static, BTreeMap<u32, Arc<Device>>> {
    DEVICES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    /// A device with its context, which becomes current on the calling thread. `user` completes "failed to use GPU N for …".
    pub(super) fn open(index: u32, user: &str) -> Result<Arc<Self>, Failure> {
        let fail =
            |reason: String| Failure::device(format!("failed to use GPU {index} for {user}: {reason}"));
        let driver = Driver::get().map_err(|NoDriver { reason, .. }| fail(reason.clone()))?;
        let mut devices = devices();
        let device = match devices.get(&index) {
            Some(known) => Arc::clone(known),
            None => Arc::new(Self::retain(driver, index).map_err(fail)?),
        };
        device.enter().map_err(|error| fail(driver.describe(error)))?;
        devices.insert(index, Arc::clone(&device));
        Ok(device)
    }

    fn retain(driver: &'static Driver, index: u32) -> Result<Self, String> {
        let api = &driver.api;
        let refuse = |error: CallError| format!("{}; {}", driver.describe(error), advice(error.code));
        let count = count(driver).map_err(refuse)?;
        let ordinal = c_int::try_from(index).ok().filter(|ordinal| *ordinal < count).ok_or_else(|| {
            let has = if count == 1 {
                "1 GPU, number 0".to_owned()
            } else {
                format!("{count} GPUs, numbered from 0")
            };
            format!("the board has {has}; correct `device` of the processor")
        })?;
        let (handle, found) = describe(driver, ordinal).map_err(refuse)?;
        let arch = Arch::parse(&found.arch).ok_or_else(|| format!("unknown architecture {}", found.arch))?;
        let attribute = |number| attribute_of(driver, handle, number);
        let max_threads = attribute(attribute::MAX_THREADS_PER_BLOCK).map_err(refuse)?;
        let mut context = std::ptr::null_mut();
        // SAFETY: the device exists, and `context` is valid to write to.
        unsafe {
            api.context_flags(handle, BLOCKING_SYNC).map_err(refuse)?;
            api.context_retain(&raw mut context, handle).map_err(refuse)?;
        }
        Ok(Self {
            driver,
            index,
            name: found.name,
            arch,
            max_threads_per_block: u32::try_from(max_threads).unwrap_or(0),
            is_integrated: found.integrated,
            ordinal: handle,
            context,
            lost: AtomicBool::new(false),
        })
    }

    /// Makes the context current on the calling thread.
    pub(super) fn enter(&self) -> Result<(), CallError> {
        // SAFETY: the context is retained until `self` is dropped.
        unsafe { self.driver.api.context_set(self.context) }.map_err(|error| self.note(error))
    }

    /// Remembers whether an error makes the context unusable. Call it for each failed call.
    pub(super) fn note(&self, error: CallError) -> CallError {
        if is_fatal(error.code) {
            self.lost.store(true, Ordering::Release);
        }
        error
    }

    /// Takes the result of a call that destroys something. It reports errors of earlier work, of which only those matter that
    /// make the context unusable.
    pub(super) fn ended(&self, result: Result<(), CallError>) {
        result.map_err(|error| self.note(error)).ok();
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// A failed call in words, with what follows from it.
    pub(super) fn describe(&self, error: CallError) -> String {
        let text = self.driver.describe(error);
        if is_fatal(error.code) { format!("{text}; the GPU is reset before the next request") } else { text }
    }

    /// Allocates device memory. `purpose` completes "… for".
    pub(super) fn allocate(self: &Arc<Self>, bytes: u64, purpose: &str) -> Result<Memory, Failure> {
        let api = &self.driver.api;
        let fail = |reason: String| {
            Failure::device(format!(
                "failed to allocate {bytes} bytes of memory of GPU {} for {purpose}: {reason}",
                self.index
            ))
        };
        if self.is_integrated {
            // The board's memory: the kernel would end a program that takes too much of it.
            memory::check_available(bytes).map_err(fail)?;
        }
        let size = usize::try_from(bytes).map_err(|error| fail(error.to_string()))?;
        let mut address = 0;
        // SAFETY: `address` is valid to write to. The driver refuses 0 bytes.
        unsafe { api.memory_allocate(&raw mut address, size.max(1)) }.map_err(|error| {
            let (mut free, mut total) = (0, 0);
            // SAFETY: both are valid to write to.
            let known = unsafe { api.memory_info(&raw mut free, &raw mut total) };
            let free =
                known.map_or_else(|_| String::new(), |()| format!("; {free} of {total} bytes are free"));
            fail(format!(
                "{}{free}; choose a smaller network or fewer stages on this GPU, or {}",
                self.describe(self.note(error)),
                advice(2)
            ))
        })?;
        Ok(Memory { device: Arc::clone(self), address, bytes })
    }

    fn release(&self) -> Result<(), CallError> {
        // SAFETY: this process has retained the context once, and no engine uses it any more.
        unsafe { self.driver.api.context_release(self.ordinal) }
    }

    /// Destroys the context with all its memory, so that the next [`Device::open`] creates a new one that works.
    fn reset(&self) -> Result<(), CallError> {
        // SAFETY: no engine uses the context any more.
        unsafe { self.driver.api.context_reset(self.ordinal) }?;
        self.release()
    }
}

/// Resets the devices that a request has lost. Call it between requests, when all engines are dropped.
///
/// # Errors
/// If a device stays unusable: only a new process can use it then.
pub(crate) fn recover_devices() -> Result<(), String> {
    let mut devices = devices();
    let lost: Vec<Arc<Device>> = devices.values().filter(|device| device.is_lost()).cloned().collect();
    for device in lost {
        devices.remove(&device.index);
        let fail = |reason: String| {
            format!(
                "failed to reset GPU {} after a failure: {reason}; this runner ends; a new one can use it",
                device.index
            )
        };
        device.reset().map_err(|error| fail(device.driver.describe(error)))?;
        let fresh = Device::retain(device.driver, device.index).map_err(&fail)?;
        let fresh = Arc::new(fresh);
        let works = fresh.enter().map_err(|error| device.driver.describe(error));
        works.map_err(&fail)?;
        drop(fresh.allocate(1, "a check").map_err(|failure| fail(failure.message))?);
        devices.insert(device.index, fresh);
    }
    Ok(())
}

/// Device memory, freed when this is dropped.
pub(super) struct Memory {
    pub(super) device: Arc<Device>,
    pub(super) address: Address,
    pub(super) bytes: u64,
}

impl Drop for Memory {
    fn drop(&mut self) {
        // A lost context frees its memory when it is reset.
        if self.device.is_lost() {
            return;
        }
        let freed = self.device.enter().and_then(|()| {
            // SAFETY: the memory was allocated in this context, and its users are dropped before it.
            unsafe { self.device.driver.api.memory_free(self.address) }
        });
        if let Err(error) = freed {
            eprintln!("failed to free memory of GPU {}: {}", self.device.index, self.device.describe(error));
        }
    }
}

/// The driver and its devices; `None` on a board without `libcuda`.
pub(crate) fn system() -> Option<CudaSystem> {
    let driver = match Driver::get() {
        Ok(driver) => driver,
        Err(absent) if absent.is_absent => return None,
        Err(NoDriver { path, version, emulated, reason, .. }) => {
            return Some(CudaSystem {
                driver_path: path.clone(),
                driver_version: *version,
                emulated: *emulated,
                devices: Vec::new(),
                problem: Some(reason.clone()),
            });
        }
    };
    let mut devices = Vec::new();
    let asked = count(driver).and_then(|count| {
        (0..count).try_for_each(|ordinal| describe(driver, ordinal).map(|(_, device)| devices.push(device)))
    });
    let problem = asked.err().map(|error| format!("{}; {}", driver.describe(error), advice(error.code)));
    Some(CudaSystem {
        driver_path: driver.path.clone(),
        driver_version: driver.version,
        emulated: driver.emulated,
        devices,
        problem,
    })
}

fn count(driver: &Driver) -> Result<c_int, CallError> {
    let mut count = 0;
    // SAFETY: `count` is valid to write to.
    unsafe { driver.api.device_count(&raw mut count) }?;
    Ok(count)
}

fn attribute_of(driver: &Driver, device: c_int, number: c_int) -> Result<c_int, CallError> {
    let mut value = 0;
    // SAFETY: `value` is valid to write to; an unknown attribute is an error.
    unsafe { driver.api.device_attribute(&raw mut value, number, device) }?;
    Ok(value)
}

/// The driver's handle of a device, and what it reports. Needs no context.
fn describe(driver: &Driver, ordinal: c_int) -> Result<(c_int, CudaDevice), CallError> {
    let (mut handle, mut memory, mut name) = (0, 0, [0; 128]);
    // SAFETY: all are valid to write to, and the last byte of the name stays 0.
    unsafe {
        driver.api.device(&raw mut handle, ordinal)?;
        driver.api.device_memory(&raw mut memory, handle)?;
        driver.api.device_name(name.as_mut_ptr(), c_int::try_from(name.len() - 1).unwrap_or(0), handle)?;
    }
    // SAFETY: the driver terminates the name, and so does the last byte.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    let required =
        |number| attribute_of(driver, handle, number).map(|value| u32::try_from(value).unwrap_or(0));
    let optional = |number| {
        let value = attribute_of(driver, handle, number).ok()?;
        u64::try_from(value).ok().filter(|value| *value > 0)
    };
    let arch = Arch { major: required(attribute::MAJOR)?, minor: required(attribute::MINOR)? };
    let device = CudaDevice {
        index: u32::try_from(ordinal).unwrap_or(0),
        name,
        arch: arch.to_string(),
        memory_bytes: memory as u64,
        multiprocessors: required(attribute::MULTIPROCESSORS)?,
        max_khz: optional(attribute::CLOCK_KHZ),
        l2_bytes: optional(attribute::L2_BYTES),
        integrated: optional(attribute::INTEGRATED).is_some(),
    };
    Ok((handle, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_ordered_by_age() {
        let arch = |text| Arch::parse(text).unwrap();
        assert!(
            arch("sm_53") < arch("sm_62") && arch("sm_62") < arch("sm_72") && arch("sm_90") < arch("sm_101")
        );
        assert_eq!(arch("sm_101").to_string(), "sm_101");
        for invalid in ["sm_", "sm_6", "62", "sm_62a", "sm_+62", ""] {
            assert_eq!(Arch::parse(invalid), None, "{invalid}");
        }
    }
}
