//! The board side of the benchmark: loads stage libraries, runs them as the harness requests, and reports raw observations.
//! It speaks the protocol on standard input and output; its log goes to standard error.
//!
//! With `--lease` it also ends when no input arrives for that long. `hold` keeps the board's lock and state, `holder` prints
//! who has the lock, `break` ends the holder, `pending` prints the state to be restored, `restore` restores it.
//!
//! Exit codes: 0 standard input has ended, 2 wrong arguments, 3 another session has the lock, 69 TVM's runtime library cannot
//! be loaded, 71 the system refused something, 75 the lease has expired.

mod accounting;
mod affinity;
mod arrivals;
mod board_lock;
mod board_state;
mod cgroups;
mod clock;
mod engine;
mod failure;
mod frames;
mod hold;
mod in_order;
mod input;
mod machine_state;
mod memory;
mod outputs;
mod peak;
mod pipeline;
mod power;
mod profile;
mod queue;
mod recorder;
mod schedule;
mod serve;
#[cfg(test)]
mod simulated_queue;
mod source;
mod stage_threads;
mod stream_queue;
mod stream_recorder;
mod timed_read;
mod transfer;
mod trial;
mod waiting_line;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

/// Wrong arguments.
const USAGE: u8 = 2;
/// `EX_UNAVAILABLE`: TVM's runtime library cannot be loaded.
const UNAVAILABLE: u8 = 69;
/// `EX_OSERR`: the system refused something.
const SYSTEM: u8 = 71;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(|word| word.to_str().unwrap_or("?")).collect();
    match words.as_slice() {
        [] => serve(None),
        ["--lease", seconds] => match lease(seconds) {
            Some(lease) => serve(Some(lease)),
            None => usage(&words),
        },
        ["hold", holder] => hold::hold(holder, None),
        ["hold", holder, "--lease", seconds] => match lease(seconds) {
            Some(lease) => hold::hold(holder, Some(lease)),
            None => usage(&words),
        },
        ["holder"] => hold::print_holder(),
        ["break"] => hold::break_lock(),
        ["pending"] => hold::print_pending(),
        ["restore"] => hold::restore(),
        ["--version"] => {
            print_version();
            ExitCode::SUCCESS
        }
        other => usage(other),
    }
}

fn lease(seconds: &str) -> Option<Duration> {
    seconds.parse().ok().filter(|seconds| (1..=3600).contains(seconds)).map(Duration::from_secs)
}

fn usage(words: &[&str]) -> ExitCode {
    eprintln!(
        "failed to parse the arguments \"{}\"; usage: runner [--lease SECONDS] | runner hold HOLDER [--lease SECONDS] | \
         runner holder | runner break | runner pending | runner restore | runner --version; SECONDS are from 1 to 3600",
        words.join(" ")
    );
    ExitCode::from(USAGE)
}

#[expect(clippy::print_stdout, reason = "--version does not speak the protocol")]
fn print_version() {
    println!("runner {} (protocol {})", env!("CARGO_PKG_VERSION"), protocol::VERSION);
}

fn serve(lease: Option<Duration>) -> ExitCode {
    engine::disable_tf32();
    let runtime = match engine::Runtime::load() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(UNAVAILABLE);
        }
    };
    match serve::EventWriter::take_stdout() {
        Ok(events) => serve::serve(&events, &runtime, lease),
        Err(error) => eprintln!("failed to redirect standard output: {error}"),
    }
    ExitCode::from(SYSTEM)
}
