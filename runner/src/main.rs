//! The board's side of the benchmark: loads stage libraries, runs them as the harness asks, and reports what it
//! saw. Speaks the protocol on standard input and output; its log goes to standard error.
//!
//! With `--lease` it ends as well when nothing comes for so long; `hold` keeps the board's lock and state, `holder` tells
//! who has the lock, `break` ends the holder, `pending` tells what state is to be restored, `restore` does it.
//!
//! Exit codes: 0 standard input has ended, 2 wrong arguments, 3 somebody else holds the lock, 69 TVM's runtime library cannot be loaded,
//! 71 the system refused something every process may do.

mod affinity;
mod capture;
mod cgroups;
mod clock;
mod compare;
mod cpulist;
mod crew;
mod elf;
mod engine;
mod failure;
mod flow;
mod frames;
mod hindrance;
mod holding;
mod idle;
mod keeping;
mod lease;
mod lock;
mod meters;
mod outlet;
mod packet;
mod patient;
mod peak;
mod placement;
mod power;
mod profile;
mod queue;
mod recorder;
mod serve;
mod state;
mod steady;
mod transfer;
mod trial;
mod watch;
mod wiring;

use outlet::Outlet;
use protocol::{Event, Hello};
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

/// Wrong arguments.
const USAGE: u8 = 2;
/// Somebody else holds the lock.
const BUSY: u8 = 3;
/// `EX_UNAVAILABLE`: a library the runner needs is missing.
const UNAVAILABLE: u8 = 69;
/// `EX_OSERR`: the system refused.
const SYSTEM: u8 = 71;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(|word| word.to_str().unwrap_or("?")).collect();
    match words.as_slice() {
        [] => run(None),
        ["--lease", seconds] => match lease(seconds) {
            Some(patience) => run(Some(patience)),
            None => usage(&words),
        },
        ["hold", holder] => holding::hold(holder, None),
        ["hold", holder, "--lease", seconds] => match lease(seconds) {
            Some(patience) => holding::hold(holder, Some(patience)),
            None => usage(&words),
        },
        ["holder"] => holding::tell_holder(),
        ["break"] => holding::break_open(),
        ["pending"] => holding::tell_pending(),
        ["restore"] => holding::restore(),
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
        "failed to read the arguments \"{}\"; usage: runner [--lease SECONDS] | runner hold HOLDER [--lease SECONDS] | \
         runner holder | runner break | runner pending | runner restore | runner --version",
        words.join(" ")
    );
    ExitCode::from(USAGE)
}

#[expect(clippy::print_stdout, reason = "asked for by --version, where no protocol is spoken")]
fn print_version() {
    println!("runner {VERSION} (protocol {})", protocol::VERSION);
}

fn run(patience: Option<Duration>) -> ExitCode {
    let runtime = match engine::Runtime::load() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(UNAVAILABLE);
        }
    };
    let mut outlet = match Outlet::take() {
        Ok(outlet) => outlet,
        Err(error) => {
            eprintln!("failed to take over standard output: {error}");
            return ExitCode::from(SYSTEM);
        }
    };
    outlet.send(&Event::Hello(Hello {
        protocol: protocol::VERSION,
        runner: VERSION.to_owned(),
        pid: std::process::id(),
    }));
    serve::serve(&mut outlet, &runtime, patience);
    ExitCode::from(SYSTEM)
}
