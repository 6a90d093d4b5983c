//! Lines of standard input, and the lease.
//!
//! Over a network, standard input may never end: the harness' machine can lose power or its cable. So the harness sends an
//! empty line every few seconds, and a runner with a lease ends when nothing arrives for that long.

use protocol::LEASE_EXPIRED;
use std::io::{BufRead as _, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) enum Input {
    Line(Vec<u8>),
    /// An empty line.
    Heartbeat,
    /// No more input.
    End(End),
}

/// Why there is no more input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    /// A noun.
    pub(crate) reason: &'static str,
    /// The exit code that tells the harness.
    pub(crate) code: u8,
}

impl End {
    const LEASE: Self = Self { reason: "the end of its lease", code: LEASE_EXPIRED };

    /// An end that is no business of the harness.
    pub(crate) const fn of(reason: &'static str) -> Self {
        Self { reason, code: 0 }
    }
}

/// Reads lines on a thread of its own, until standard input ends, a line is longer than `max_bytes`, or nothing arrives for
/// as long as the lease. `handle` is called on the threads started here.
pub(crate) fn read_lines(
    max_bytes: u64,
    lease: Option<Duration>,
    handle: impl Fn(Input) + Send + Sync + 'static,
) {
    let handle = Arc::new(handle);
    let start = Instant::now();
    let now_ms = move || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let last_input_ms = Arc::new(AtomicU64::new(0));
    if let Some(lease) = lease {
        let (handle, last_input_ms) = (Arc::clone(&handle), Arc::clone(&last_input_ms));
        spawn("lease", move || {
            loop {
                let silence = now_ms().saturating_sub(last_input_ms.load(Ordering::Relaxed));
                let left = lease.saturating_sub(Duration::from_millis(silence));
                if left.is_zero() {
                    log(&format!("the lease has expired: no input for {silence} ms; ending"));
                    return handle(Input::End(End::LEASE));
                }
                thread::sleep(left);
            }
        });
    }
    spawn("requests", move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            match input.by_ref().take(max_bytes).read_until(b'\n', &mut line) {
                Ok(0) => return handle(Input::End(End::of("the end of its input"))),
                Ok(_) if line.len() as u64 == max_bytes && !line.ends_with(b"\n") => {
                    log(&format!(
                        "failed to read a request: the line is longer than {max_bytes} bytes; ending"
                    ));
                    return handle(Input::End(End::of("a line that is too long")));
                }
                Ok(_) => {
                    last_input_ms.store(now_ms(), Ordering::Relaxed);
                    let is_empty = line.trim_ascii().is_empty();
                    handle(if is_empty { Input::Heartbeat } else { Input::Line(line) });
                }
                Err(error) => {
                    log(&format!("failed to read standard input: {error}; ending"));
                    return handle(Input::End(End::of("an error of its input")));
                }
            }
        }
    });
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(name.to_owned()).spawn(run) {
        log(&format!("failed to start the thread \"{name}\": {error}"));
    }
}

/// Writes a line to standard error and ignores failures: the process that reads it may be gone.
pub(crate) fn log(line: &str) {
    drop(std::io::stderr().write_all(format!("{line}\n").as_bytes()));
}
