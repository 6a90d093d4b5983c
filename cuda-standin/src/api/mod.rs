//! The functions that the library exports, by the names, numbers and rules of `cuda.h`.
//!
//! Pointers of the caller are checked for null only, as the driver does.

mod context;
mod execution;
mod memory;
mod module;
mod standin;
mod stream;

use crate::device::Device;
use crate::fault::{Code, Fault};
use crate::settings::{Effect, Settings};
use crate::stream::{Stream, Worker};
use std::cell::Cell;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

/// The device, made from the environment by the first call.
static DEVICE: OnceLock<Result<Arc<Device>, String>> = OnceLock::new();
/// Whether `cuInit` was called.
static IS_INITIALIZED: OnceLock<()> = OnceLock::new();

thread_local! {
    /// The current context of the thread, or 0.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

fn device() -> Result<&'static Arc<Device>, Fault> {
    let made = DEVICE.get_or_init(|| {
        Settings::read(|name| std::env::var(name).ok()).map(|settings| Arc::new(Device::new(settings)))
    });
    made.as_ref().map_err(|message| Fault::new(Code::INVALID_VALUE, message.clone()))
}

/// Does the work of a function that takes no context.
fn call(name: &str, work: impl FnOnce(&'static Arc<Device>) -> Result<(), Fault>) -> c_int {
    let guarded = AssertUnwindSafe(|| {
        let device = device()?;
        if let Some(Effect::Fail(code)) = device.settings.demanded(name) {
            let fault = Fault::new(code, "failed by CUDA_STANDIN_FAULT");
            if code.is_sticky() {
                Worker::lose(device.as_ref(), fault.clone());
            }
            return Err(fault);
        }
        if IS_INITIALIZED.get().is_none() && name != "cuInit" && name != "cuDriverGetVersion" {
            return Err(Fault::new(Code::NOT_INITIALIZED, "call cuInit first"));
        }
        work(device)
    });
    let result = catch_unwind(guarded)
        .unwrap_or_else(|_| Err(Fault::new(Code::UNKNOWN, "the stand-in panicked: this is a bug in it")));
    let Err(fault) = result else { return Code::SUCCESS.0 };
    // Asking whether work is done is no failure.
    if fault.code != Code::NOT_READY {
        let (symbol, _) = fault.code.text().unwrap_or((c"an unknown code", c""));
        let message = format!("{name}: {} ({})", fault.message, symbol.to_string_lossy());
        match device() {
            Ok(device) => device.report(&message),
            Err(_) => eprintln!("cuda-standin: {message}"),
        }
    }
    fault.code.0
}

/// Does the work of a function that takes the current context.
fn in_context(name: &str, work: impl FnOnce(&'static Arc<Device>) -> Result<(), Fault>) -> c_int {
    call(name, |device| {
        device.check_context(CURRENT.get())?;
        work(device)
    })
}

/// Writes a result of a function.
///
/// # Safety
/// The pointer is null or points to a value that may be written.
unsafe fn put<T>(place: *mut T, value: T) -> Result<(), Fault> {
    if place.is_null() {
        return Err(Fault::new(Code::INVALID_VALUE, "a pointer for a result is null"));
    }
    // SAFETY: as promised by the caller.
    unsafe { place.write(value) };
    Ok(())
}

/// The stream of a handle: 0 and 1 are the default stream, 2 is refused.
fn stream(device: &'static Arc<Device>, handle: usize) -> Result<Arc<Stream>, Fault> {
    match handle {
        0 | 1 => {
            if let Some(stream) = device.with(|objects| objects.default_stream.clone()) {
                return Ok(stream);
            }
            let stream = start_stream(device, true)?;
            device.with(|objects| Ok(Arc::clone(objects.default_stream.get_or_insert(stream))))
        }
        2 => Err(Fault::new(Code::NOT_SUPPORTED, "streams per thread are not supported")),
        _ => device.with(|objects| objects.streams.get(handle).map(Arc::clone)),
    }
}

fn start_stream(device: &'static Arc<Device>, is_blocking: bool) -> Result<Arc<Stream>, Fault> {
    let worker: Arc<dyn Worker> = Arc::<Device>::clone(device);
    Stream::start(&worker, is_blocking)
        .map_err(|error| Fault::new(Code::OPERATING_SYSTEM, format!("failed to start a thread: {error}")))
}

/// Adds work to a stream. The default stream and those that are not `NON_BLOCKING` wait for each other.
fn enqueue(
    device: &'static Arc<Device>,
    handle: usize,
    tasks: impl IntoIterator<Item = crate::stream::Task>,
) -> Result<(), Fault> {
    use crate::stream::Task::WaitForStream;
    let own = stream(device, handle)?;
    if own.is_capturing() {
        own.add(tasks);
        return Ok(());
    }
    let is_default = handle < 2;
    if is_default && device.streams().iter().any(|other| other.is_blocking && other.is_capturing()) {
        let message = "the default stream would wait for a stream that is capturing";
        return Err(Fault::new(Code::STREAM_CAPTURE_IMPLICIT, message));
    }
    let others = if is_default {
        device.with(|objects| objects.streams.all().map(|(_, stream)| Arc::clone(stream)).collect::<Vec<_>>())
    } else if own.is_blocking {
        device.with(|objects| objects.default_stream.iter().map(Arc::clone).collect())
    } else {
        Vec::new()
    };
    let busy = others.into_iter().filter(|other| other.is_blocking && !other.is_idle());
    own.add(busy.map(|other| WaitForStream(Arc::clone(&other), other.enqueued())).collect::<Vec<_>>());
    own.add(tasks);
    Ok(())
}

/// Waits for all streams, as calls do that must not overtake work.
fn synchronize(device: &'static Arc<Device>) -> Result<(), Fault> {
    let streams = device.streams();
    if streams.iter().any(|stream| stream.is_capturing()) {
        return Err(Fault::new(Code::STREAM_CAPTURE_UNSUPPORTED, "a stream is capturing"));
    }
    for stream in streams {
        stream.synchronize();
    }
    device.check_context(CURRENT.get())
}
