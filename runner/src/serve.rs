//! Answers requests one by one until standard input ends.

use crate::engine::{self, Runtime, WeightsCache};
use crate::failure::Failure;
use crate::input::{Input, read_lines};
use crate::{board_state, machine_state, outputs, peak, power, profile, transfer, trial};
use protocol::{Event, Fault, Hello, Request};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio::{dup2_stdout, stderr, stdout};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Limit on a request. The list of weights of a large network takes about 100 kB.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// `EX_OSERR`: the status if a GPU cannot be reset after a failure.
const UNUSABLE_DEVICE: i32 = 71;

/// Answers requests. Returns only if standard input cannot be read at all. The end of the input or of the lease exits the
/// process, also in the middle of a trial, so that a harness that is gone does not leave a busy board behind.
pub(crate) fn serve(events: &EventWriter, _runtime: &Runtime, lease: Option<Duration>) {
    events.send(&Event::Hello(Hello {
        protocol: protocol::VERSION,
        runner: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
    }));
    let mut cache = WeightsCache::default();
    let (sender, lines) = sync_channel(16);
    let heartbeats = events.clone();
    read_lines(MAX_LINE_BYTES, lease, move |input| match input {
        Input::Line(line) => drop(sender.send(line)),
        // Answered at once, also in the middle of a trial.
        Input::Heartbeat => heartbeats.send(&Event::Heartbeat {}),
        Input::End(end) => engine::exit_immediately(end.code.into()),
    });
    while let Ok(line) = lines.recv() {
        let event = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => answer(&request, &mut cache, events),
            Err(error) => {
                let message = format!("failed to read a request: {error}");
                Event::Failed { id: None, fault: Fault::Request, message }
            }
        };
        // All engines are dropped by now. A runner that cannot use its GPU any more ends, and the harness starts another.
        if let Err(message) = engine::recover_devices() {
            if let Event::Failed { message, .. } = &event {
                eprintln!("{message}");
            }
            eprintln!("{message}");
            engine::exit_immediately(UNUSABLE_DEVICE);
        }
        events.send(&event);
        // All tensors are freed by now, and the next network has tensors of other sizes.
        engine::release_memory();
    }
}

fn answer(request: &Request, cache: &mut WeightsCache, events: &EventWriter) -> Event {
    let (id, result) = match request {
        Request::State { id, sysfs, thorough } => {
            let sysfs = Path::new(sysfs);
            let read = if *thorough { machine_state::read_thoroughly } else { machine_state::read };
            (*id, Ok(Event::State { id: *id, state: Box::new(read(sysfs)) }))
        }
        Request::Clocks { id, sysfs, memory } => {
            (*id, Ok(Event::Clocks(board_state::clocks(*id, Path::new(sysfs), *memory))))
        }
        Request::Profile(request) => (request.id, profile::profile(request, cache).map(Event::Profiled)),
        Request::Transfer(request) => (request.id, transfer::transfer(request).map(Event::Transferred)),
        Request::Idle(request) => (request.id, power::idle(request).map(Event::Idled)),
        Request::Peak(request) => (request.id, peak::peak(request).map(Event::Peaked)),
        Request::Compare(request) => (request.id, outputs::compare(request, cache).map(Event::Compared)),
        Request::Verify(request) => (request.id, outputs::verify(request, cache).map(Event::Compared)),
        Request::Capture(request) => (request.id, outputs::capture(request, cache).map(Event::Captured)),
        Request::Trial(request) => {
            let announce = |phase| events.send(&Event::Phase { id: request.id, phase });
            let measured = trial::measure(request, cache, announce);
            (request.id, measured.map(|measured| Event::Measured(Box::new(measured))))
        }
    };
    result.unwrap_or_else(|Failure { fault, message }| Event::Failed { id: Some(id), fault, message })
}

/// Writes events to the original standard output. Descriptor 1 then refers to standard error, because libraries print.
#[derive(Debug, Clone)]
pub(crate) struct EventWriter {
    stream: Arc<Mutex<File>>,
}

impl EventWriter {
    pub(crate) fn take_stdout() -> std::io::Result<Self> {
        let stream = fcntl_dupfd_cloexec(stdout(), 3)?;
        dup2_stdout(stderr())?;
        Ok(Self { stream: Arc::new(Mutex::new(File::from(stream))) })
    }

    /// Writes an event as one line. If nobody reads it, the process exits.
    fn send(&self, event: &Event) {
        let mut line = match serde_json::to_vec(event) {
            Ok(line) => line,
            Err(error) => {
                eprintln!("failed to serialize an event: {error}");
                return;
            }
        };
        line.push(b'\n');
        if let Err(error) = self.stream.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line) {
            eprintln!("failed to send an event: {error}; ending");
            engine::exit_immediately(0);
        }
    }
}
