//! Streams, events, and graphs of captured work.

use super::{CURRENT, enqueue, in_context, put, start_stream, stream};
use crate::device::Device;
use crate::fault::{Code, Fault};
use crate::stream::{Event, Task};
use std::ffi::{c_char, c_int, c_uint, c_ulonglong};
use std::sync::Arc;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreate(place: *mut usize, flags: c_uint) -> c_int {
    in_context("cuStreamCreate", |device| {
        if flags > 1 {
            return Err(Fault::new(Code::INVALID_VALUE, format!("invalid flags {flags:#x}")));
        }
        let stream = start_stream(device, flags == 0)?;
        let handle = device.add(stream, |objects| &mut objects.streams);
        // SAFETY: the caller passes a place for the result.
        unsafe { put(place, handle) }
    })
}

/// `cuStreamDestroy`: the work that is left is done all the same.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamDestroy_v2(handle: usize) -> c_int {
    in_context("cuStreamDestroy_v2", |device| {
        device.with(|objects| objects.streams.remove(handle))?.close();
        Ok(())
    })
}

/// A stream that is not capturing.
fn quiet(device: &'static Arc<Device>, handle: usize) -> Result<Arc<crate::stream::Stream>, Fault> {
    let stream = stream(device, handle)?;
    if stream.is_capturing() {
        return Err(Fault::new(Code::STREAM_CAPTURE_UNSUPPORTED, "the stream is capturing"));
    }
    Ok(stream)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamSynchronize(handle: usize) -> c_int {
    in_context("cuStreamSynchronize", |device| {
        quiet(device, handle)?.synchronize();
        device.check_context(CURRENT.get())
    })
}

fn ready(is_ready: bool) -> Result<(), Fault> {
    if is_ready { Ok(()) } else { Err(Fault::new(Code::NOT_READY, "work is left")) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamQuery(handle: usize) -> c_int {
    in_context("cuStreamQuery", |device| ready(quiet(device, handle)?.is_idle()))
}

fn event(device: &Device, handle: usize) -> Result<Arc<Event>, Fault> {
    device.with(|objects| objects.events.get(handle).map(Arc::clone))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamWaitEvent(handle: usize, waited: usize, flags: c_uint) -> c_int {
    in_context("cuStreamWaitEvent", |device| {
        if flags != 0 {
            return Err(Fault::new(Code::INVALID_VALUE, "flags must be 0"));
        }
        let waited = event(device, waited)?;
        if quiet(device, handle).is_err() && stream(device, handle).is_ok() {
            let message = "captures of several streams are not supported";
            return Err(Fault::new(Code::STREAM_CAPTURE_UNSUPPORTED, message));
        }
        let number = waited.asked();
        enqueue(device, handle, [Task::WaitForEvent(waited, number)])
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventCreate(place: *mut usize, flags: c_uint) -> c_int {
    in_context("cuEventCreate", |device| {
        // Blocking waits, no time.
        if flags > 3 {
            return Err(Fault::new(Code::INVALID_VALUE, format!("invalid flags {flags:#x}")));
        }
        let handle = device.add(Arc::new(Event::new(flags & 2 == 0)), |objects| &mut objects.events);
        // SAFETY: as above.
        unsafe { put(place, handle) }
    })
}

/// `cuEventDestroy`.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventDestroy_v2(handle: usize) -> c_int {
    in_context("cuEventDestroy_v2", |device| device.with(|objects| objects.events.remove(handle)).map(drop))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventRecord(handle: usize, stream: usize) -> c_int {
    in_context("cuEventRecord", |device| {
        let recorded = event(device, handle)?;
        if quiet(device, stream).is_err() && super::stream(device, stream).is_ok() {
            let message = "records of events in a capture are not supported";
            return Err(Fault::new(Code::STREAM_CAPTURE_UNSUPPORTED, message));
        }
        let number = recorded.ask();
        enqueue(device, stream, [Task::Record(recorded, number)])
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventSynchronize(handle: usize) -> c_int {
    in_context("cuEventSynchronize", |device| {
        event(device, handle)?.synchronize();
        device.check_context(CURRENT.get())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventQuery(handle: usize) -> c_int {
    in_context("cuEventQuery", |device| ready(event(device, handle)?.is_complete()))
}

fn elapsed(name: &str, milliseconds: *mut f32, begin: usize, end: usize) -> c_int {
    in_context(name, |device| {
        let (begin, end) = (event(device, begin)?, event(device, end)?);
        if !begin.has_time || !end.has_time {
            return Err(Fault::new(Code::INVALID_HANDLE, "the event was created without a time"));
        }
        if begin.asked() == 0 || end.asked() == 0 {
            return Err(Fault::new(Code::INVALID_HANDLE, "the event was never recorded"));
        }
        ready(begin.is_complete() && end.is_complete())?;
        let (Some(from), Some(to)) = (begin.time(), end.time()) else { return ready(false) };
        let forward = to.saturating_duration_since(from).as_secs_f32();
        let backward = from.saturating_duration_since(to).as_secs_f32();
        // SAFETY: as above.
        unsafe { put(milliseconds, (forward - backward) * 1e3) }
    })
}

/// Milliseconds between two events: those of the interpreter, not of a GPU.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, begin: usize, end: usize) -> c_int {
    elapsed("cuEventElapsedTime", milliseconds, begin, end)
}

/// As of CUDA 12.8.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventElapsedTime_v2(milliseconds: *mut f32, begin: usize, end: usize) -> c_int {
    elapsed("cuEventElapsedTime_v2", milliseconds, begin, end)
}

fn begin_capture(name: &str, handle: usize, mode: c_uint) -> c_int {
    in_context(name, |device| {
        if mode > 2 {
            return Err(Fault::new(Code::INVALID_VALUE, format!("invalid capture mode {mode}")));
        }
        if handle < 2 || !stream(device, handle)?.begin_capture() {
            let message = "the default stream cannot capture, nor a stream that is capturing";
            return Err(Fault::new(Code::STREAM_CAPTURE_UNSUPPORTED, message));
        }
        Ok(())
    })
}

/// As of CUDA 10.1.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamBeginCapture_v2(handle: usize, mode: c_uint) -> c_int {
    begin_capture("cuStreamBeginCapture_v2", handle, mode)
}

/// As of CUDA 10.0, in the global mode.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamBeginCapture(handle: usize) -> c_int {
    begin_capture("cuStreamBeginCapture", handle, 0)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamEndCapture(handle: usize, place: *mut usize) -> c_int {
    in_context("cuStreamEndCapture", |device| {
        let Some(tasks) = stream(device, handle)?.end_capture() else {
            return Err(Fault::new(Code::INVALID_VALUE, "the stream is not capturing"));
        };
        let handle = device.add(Arc::new(tasks), |objects| &mut objects.graphs);
        // SAFETY: as above.
        unsafe { put(place, handle) }
    })
}

/// Makes a graph that can be launched. `since` is the driver version that has the function.
fn instantiate(name: &str, place: *mut usize, graph: usize, since: i32) -> c_int {
    in_context(name, |device| {
        if device.settings.driver_version < since {
            return Err(Fault::new(
                Code::NOT_SUPPORTED,
                format!("a driver of version {since} has this function"),
            ));
        }
        let tasks = device.with(|objects| objects.graphs.get(graph).map(Arc::clone))?;
        let handle = device.add(tasks, |objects| &mut objects.graphs);
        // SAFETY: as above.
        unsafe { put(place, handle) }
    })
}

/// As of CUDA 10.0, with a place for the node that failed and a log, which stay as they are.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphInstantiate(
    place: *mut usize,
    graph: usize,
    _error_node: *mut usize,
    _log: *mut c_char,
    _log_bytes: usize,
) -> c_int {
    instantiate("cuGraphInstantiate", place, graph, 10000)
}

/// As of CUDA 11.0.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphInstantiate_v2(
    place: *mut usize,
    graph: usize,
    _error_node: *mut usize,
    _log: *mut c_char,
    _log_bytes: usize,
) -> c_int {
    instantiate("cuGraphInstantiate_v2", place, graph, 11000)
}

/// As of CUDA 11.4.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphInstantiateWithFlags(
    place: *mut usize,
    graph: usize,
    _flags: c_ulonglong,
) -> c_int {
    instantiate("cuGraphInstantiateWithFlags", place, graph, 11040)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphLaunch(graph: usize, stream: usize) -> c_int {
    in_context("cuGraphLaunch", |device| {
        let tasks = device.with(|objects| objects.graphs.get(graph).map(Arc::clone))?;
        quiet(device, stream)?;
        enqueue(device, stream, tasks.iter().cloned())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphExecDestroy(graph: usize) -> c_int {
    in_context("cuGraphExecDestroy", |device| device.with(|objects| objects.graphs.remove(graph)).map(drop))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphDestroy(graph: usize) -> c_int {
    in_context("cuGraphDestroy", |device| device.with(|objects| objects.graphs.remove(graph)).map(drop))
}
