//! The device, its context, and what belongs to the context.

use crate::execute::Counts;
use crate::fault::{Code, Fault};
use crate::launch;
use crate::memory::{self, Memory};
use crate::program::Program;
use crate::settings::{Effect, Settings};
use crate::shadow::{Checks, Shadow};
use crate::stream::{Event, KernelLaunch, Stream, Task, Worker};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A loaded module.
#[derive(Debug)]
pub struct Module {
    /// Its kernels.
    pub programs: Vec<Arc<Program>>,
    /// `.version`, as 50 for 5.0.
    pub ptx_version: i32,
    /// Addresses of its variables.
    pub variables: Vec<u64>,
}

/// A kernel of a loaded module.
#[derive(Debug, Clone)]
pub struct Function {
    /// Handle of its module.
    pub module: usize,
    /// The kernel.
    pub program: Arc<Program>,
    /// `.version` of its module, as 50 for 5.0.
    pub ptx_version: i32,
}

/// Objects by handle. Handles are never used again.
#[derive(Debug)]
pub struct Table<T>(BTreeMap<usize, T>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Table<T> {
    /// The object of a handle.
    pub fn get(&self, handle: usize) -> Result<&T, Fault> {
        self.0.get(&handle).ok_or_else(|| unknown(handle))
    }

    /// Takes the object of a handle out.
    pub fn remove(&mut self, handle: usize) -> Result<T, Fault> {
        self.0.remove(&handle).ok_or_else(|| unknown(handle))
    }

    /// All objects.
    pub fn all(&self) -> impl Iterator<Item = (usize, &T)> {
        self.0.iter().map(|(handle, object)| (*handle, object))
    }
}

fn unknown(handle: usize) -> Fault {
    Fault::new(Code::INVALID_HANDLE, format!("no object has the handle {handle:#x}"))
}

/// What belongs to the context.
#[derive(Debug, Default)]
pub struct Objects {
    /// Streams; the default stream is not among them.
    pub streams: Table<Arc<Stream>>,
    /// Events.
    pub events: Table<Arc<Event>>,
    /// Modules.
    pub modules: Table<Module>,
    /// Kernels.
    pub functions: Table<Function>,
    /// Captured graphs, and those that can be launched.
    pub graphs: Table<Arc<Vec<Task>>>,
    /// The default stream, once it was used.
    pub default_stream: Option<Arc<Stream>>,
}

/// The primary context.
#[derive(Debug, Default)]
struct Context {
    /// Handle while it is active.
    handle: Option<usize>,
    retained: u32,
    flags: u32,
    /// The fault that made it unusable.
    lost: Option<Fault>,
    objects: Objects,
}

/// The device.
#[derive(Debug)]
pub struct Device {
    /// Its properties.
    pub settings: Settings,
    /// Its memory.
    pub memory: Memory,
    context: Mutex<Context>,
    next_handle: Mutex<usize>,
    /// Records of accesses by allocation, and the number of launches so far. A launch holds the lock while it runs.
    checks: Mutex<(HashMap<u64, Shadow>, u32)>,
    counts: Mutex<BTreeMap<String, Counts>>,
    reports: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reports that are kept.
const REPORTS: usize = 100;

impl Device {
    /// A device with these settings.
    pub fn new(settings: Settings) -> Self {
        Self {
            memory: Memory::new(settings.memory_bytes),
            settings,
            context: Mutex::default(),
            next_handle: Mutex::new(0x100),
            checks: Mutex::default(),
            counts: Mutex::default(),
            reports: Mutex::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> String {
        format!("sm_{} GPU emulated on CPUs", self.settings.architecture.number)
    }

    fn new_handle(&self) -> usize {
        let mut next = lock(&self.next_handle);
        *next += 0x10;
        *next
    }

    /// Adds an object to a table of the context and returns its handle.
    pub fn add<T>(&self, object: T, table: impl FnOnce(&mut Objects) -> &mut Table<T>) -> usize {
        let handle = self.new_handle();
        table(&mut lock(&self.context).objects).0.insert(handle, object);
        handle
    }

    /// Works with the context's objects.
    pub fn with<T>(&self, work: impl FnOnce(&mut Objects) -> T) -> T {
        work(&mut lock(&self.context).objects)
    }

    /// Retains the context and returns its handle.
    pub fn retain(&self) -> usize {
        let handle = self.new_handle();
        let mut context = lock(&self.context);
        context.retained += 1;
        *context.handle.get_or_insert(handle)
    }

    /// Releases the context; the last one ends it.
    pub fn release(&self) -> Result<(), Fault> {
        let mut context = lock(&self.context);
        if context.retained == 0 {
            return Err(Fault::new(
                Code::INVALID_CONTEXT,
                "failed to release the context: it is not retained",
            ));
        }
        context.retained -= 1;
        let ends = context.retained == 0;
        drop(context);
        if ends {
            self.reset();
        }
        Ok(())
    }

    /// Destroys the context with all that belongs to it. A kernel that hangs is left alone.
    pub fn reset(&self) {
        let mut context = lock(&self.context);
        context.handle = None;
        context.lost = None;
        let objects = std::mem::take(&mut context.objects);
        drop(context);
        for stream in objects.streams.0.values().chain(&objects.default_stream) {
            stream.abandon();
        }
        objects.events.0.values().for_each(|event| event.give_up());
        self.memory.clear();
    }

    /// Flags of the context, and whether it is active.
    pub fn context_state(&self) -> (u32, bool) {
        let context = lock(&self.context);
        (context.flags, context.handle.is_some())
    }

    /// Sets the flags of the context. Before CUDA 11 it must not be active.
    pub fn set_flags(&self, flags: u32) -> Result<(), Fault> {
        let mut context = lock(&self.context);
        if context.handle.is_some() && self.settings.driver_version < 11000 {
            let message =
                "failed to set the flags of the context: it is active, set them before it is retained";
            return Err(Fault::new(Code::PRIMARY_CONTEXT_ACTIVE, message));
        }
        context.flags = flags;
        Ok(())
    }

    /// Refuses if the context of this handle is not the active one, or is lost.
    pub fn check_context(&self, handle: usize) -> Result<(), Fault> {
        let context = lock(&self.context);
        if handle == 0 {
            let message = "this thread has no current context: call cuCtxSetCurrent";
            return Err(Fault::new(Code::INVALID_CONTEXT, message));
        }
        if context.handle != Some(handle) {
            return Err(Fault::new(
                Code::CONTEXT_IS_DESTROYED,
                "the current context of this thread is destroyed",
            ));
        }
        context.lost.as_ref().map_or(Ok(()), |fault| {
            let message = format!("the context is lost: {}", fault.message);
            Err(Fault { code: fault.code, message })
        })
    }

    /// Whether a handle is that of the active context.
    pub fn is_context(&self, handle: usize) -> bool {
        lock(&self.context).handle == Some(handle)
    }

    /// Keeps a report, and prints it.
    pub fn report(&self, message: &str) {
        eprintln!("cuda-standin: {message}");
        let mut reports = lock(&self.reports);
        if reports.len() == REPORTS {
            reports.remove(0);
        }
        reports.push(message.to_owned());
    }

    /// The last reports, oldest first.
    pub fn reports(&self) -> Vec<String> {
        lock(&self.reports).clone()
    }

    /// What each kernel did so far.
    pub fn counts(&self) -> BTreeMap<String, Counts> {
        lock(&self.counts).clone()
    }

    /// Forgets the record of accesses to an allocation.
    pub fn forget(&self, start: u64) {
        if self.settings.is_checked {
            lock(&self.checks).0.remove(&start);
        }
    }

    /// All streams, the default stream included.
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        self.with(|objects| {
            objects.streams.0.values().chain(&objects.default_stream).map(Arc::clone).collect()
        })
    }

    /// Runs a kernel now.
    fn launch(&self, kernel: &KernelLaunch, is_abandoned: &dyn Fn() -> bool) -> Result<Counts, Fault> {
        let name = &kernel.program.name;
        match self.settings.demanded(&format!("kernel:{name}")) {
            Some(Effect::Fail(code)) => {
                return Err(Fault::new(code, format!("kernel {name}: failed by CUDA_STANDIN_FAULT")));
            }
            Some(Effect::Hang) => {
                while !is_abandoned() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                return Ok(Counts::default());
            }
            None => {}
        }
        let memory = self.memory.snapshot();
        let work = kernel.work(&memory);
        let mut counts = if self.settings.is_empty {
            launch::check_shape(&work)?;
            Counts::default()
        } else if self.settings.is_checked {
            let mut state = lock(&self.checks);
            let (shadows, launches) = &mut *state;
            *launches += 1;
            let epoch = *launches;
            launch::run(work, Some(Checks::new(shadows, epoch)))?
        } else {
            launch::run(work, None)?
        };
        counts.launches = 1;
        Ok(counts)
    }

    /// Where the host has bytes at an address of the device, or of the host itself.
    fn host(&self, address: u64, bytes: u64) -> Result<*mut u8, Fault> {
        let allocations = self.memory.snapshot();
        if let Some(place) = memory::find(&allocations, address, bytes, &mut 0) {
            return Ok(allocations[place].host(address));
        }
        if memory::is_of_device(address) {
            let message = format!("a copy of {bytes} bytes at {address:#x}, which is not in an allocation");
            return Err(Fault::new(Code::INVALID_VALUE, message));
        }
        Ok(address as *mut u8)
    }

    /// Refuses bytes of the device that are not in an allocation.
    pub fn check_device_bytes(&self, address: u64, bytes: u64) -> Result<(), Fault> {
        if memory::find(&self.memory.snapshot(), address, bytes, &mut 0).is_none() {
            let message = format!("{bytes} bytes at {address:#x} are not in an allocation");
            return Err(Fault::new(Code::INVALID_VALUE, message));
        }
        Ok(())
    }
}

impl Worker for Device {
    fn run(&self, task: &Task, is_abandoned: &dyn Fn() -> bool) -> Result<(), Fault> {
        match task {
            Task::Copy { to, from, bytes } => {
                let (to, from) = (self.host(*to, *bytes)?, self.host(*from, *bytes)?);
                // SAFETY: both sides are in an allocation, or memory that the caller of the driver vouches for.
                unsafe { std::ptr::copy(from, to, *bytes as usize) };
            }
            Task::Fill { to, pattern, size, count } => {
                let to = self.host(*to, count * *size as u64)?;
                let pattern = &pattern.to_le_bytes()[..*size];
                for number in 0..*count as usize {
                    // SAFETY: as above.
                    unsafe { std::ptr::copy(pattern.as_ptr(), to.add(number * size), *size) };
                }
            }
            Task::Kernel(kernel) => {
                let counts = self.launch(kernel, is_abandoned)?;
                lock(&self.counts).entry(kernel.program.name.clone()).or_default().add(&counts);
            }
            Task::Record(..) | Task::WaitForEvent(..) | Task::WaitForStream(..) => {}
        }
        Ok(())
    }

    fn is_lost(&self) -> bool {
        lock(&self.context).lost.is_some()
    }

    fn lose(&self, fault: Fault) {
        self.report(&fault.message);
        lock(&self.context).lost.get_or_insert(fault);
    }
}
