//! The board's side of the benchmark: loads stage libraries, runs them as the harness asks, and reports what it
//! saw. Speaks the protocol on standard input and output; its log goes to standard error.
//!
//! Exit codes: 0 standard input has ended, 2 wrong arguments, 69 TVM's runtime library cannot be loaded,
//! 71 the system refused something every process may do.

mod affinity;
mod capture;
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
mod idle;
mod meters;
mod outlet;
mod packet;
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
mod wiring;

use outlet::Outlet;
use protocol::{Event, Hello};
use std::process::ExitCode;

/// Wrong arguments.
const USAGE: u8 = 2;
/// `EX_UNAVAILABLE`: a library the runner needs is missing.
const UNAVAILABLE: u8 = 69;
/// `EX_OSERR`: the system refused.
const SYSTEM: u8 = 71;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        None => run(),
        Some(argument) if argument == "--version" => {
            print_version();
            ExitCode::SUCCESS
        }
        Some(argument) => {
            eprintln!(
                "failed to read the arguments: {} is unknown; usage: runner [--version]",
                argument.display()
            );
            ExitCode::from(USAGE)
        }
    }
}

#[expect(clippy::print_stdout, reason = "asked for by --version, where no protocol is spoken")]
fn print_version() {
    println!("runner {VERSION} (protocol {})", protocol::VERSION);
}

fn run() -> ExitCode {
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
    serve::serve(&mut outlet, &runtime);
    ExitCode::from(SYSTEM)
}
