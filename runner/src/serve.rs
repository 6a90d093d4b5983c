//! Requests one by one, until standard input ends.

use crate::engine::{self, Runtime, WeightsCache};
use crate::failure::Failure;
use crate::lease::Lease;
use crate::outlet::Outlet;
use crate::{capture, compare, idle, peak, profile, state, transfer, trial};
use protocol::{Event, Fault, Request};
use std::io::{BufRead as _, Read as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// Longest request. A large network's list of weights takes about 100 kB.
const LONGEST_LINE: u64 = 64 << 20;

/// Answers requests. Returns only where standard input cannot be read at all; its end ends the process, also in
/// the middle of a trial.
/// With `patience`, so does a silence of that length.
pub(crate) fn serve(outlet: &mut Outlet, _runtime: &Runtime, patience: Option<Duration>) {
    let mut cache = WeightsCache::default();
    let lines = read_lines(outlet.clone(), patience);
    while let Ok(line) = lines.recv() {
        let event = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => answer(&request, &mut cache, outlet),
            Err(error) => {
                let message = format!("failed to read a request: {error}");
                Event::Failed { id: None, fault: Fault::Request, message }
            }
        };
        outlet.send(&event);
        // All tensors are gone by now; the next network has other sizes.
        engine::release_memory();
    }
}

fn answer(request: &Request, cache: &mut WeightsCache, outlet: &mut Outlet) -> Event {
    let (id, result) = match request {
        Request::State { id, sysfs, thorough } => {
            let sysfs = Path::new(sysfs);
            let state = if *thorough { state::read_thoroughly(sysfs) } else { state::read(sysfs) };
            (*id, Ok(Event::State { id: *id, state: Box::new(state) }))
        }
        Request::Profile(request) => (request.id, profile::profile(request, cache).map(Event::Profiled)),
        Request::Transfer(request) => (request.id, transfer::transfer(request).map(Event::Transferred)),
        Request::Idle(request) => (request.id, idle::idle(request).map(Event::Idled)),
        Request::Peak(request) => (request.id, peak::peak(request).map(Event::Peaked)),
        Request::Compare(request) => (request.id, compare::compare(request, cache).map(Event::Compared)),
        Request::Verify(request) => (request.id, compare::verify(request, cache).map(Event::Compared)),
        Request::Capture(request) => (request.id, capture::capture(request, cache).map(Event::Captured)),
        Request::Trial(request) => {
            let announce = |phase| outlet.send(&Event::Phase { id: request.id, phase });
            let measured = trial::measure(request, cache, announce);
            (request.id, measured.map(|measured| Event::Measured(Box::new(measured))))
        }
    };
    result.unwrap_or_else(|Failure { fault, message }| Event::Failed { id: Some(id), fault, message })
}

/// Reads lines on a thread of its own. It ends the whole process when standard input ends, so that a harness
/// that is gone never leaves a busy board behind.
///
/// An empty line is a heartbeat and is answered at once, also in the middle of a trial.
fn read_lines(mut outlet: Outlet, patience: Option<Duration>) -> Receiver<Vec<u8>> {
    let (sender, lines) = sync_channel(16);
    let lease = Lease::default();
    if let Some(patience) = patience {
        lease.watch(patience, || engine::exit_at_once(0));
    }
    let reader = move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            match input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
                Ok(0) => engine::exit_at_once(0),
                Ok(_) => {
                    lease.renew();
                    if line.trim_ascii().is_empty() {
                        outlet.send(&Event::Heartbeat {});
                    } else {
                        drop(sender.send(line));
                    }
                }
                Err(error) => {
                    eprintln!("failed to read standard input: {error}; ending");
                    engine::exit_at_once(0);
                }
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("requests".to_owned()).spawn(reader) {
        eprintln!("failed to start the thread that reads requests: {error}");
    }
    lines
}
