//! Starts what the command line asks for and turns its outcome into the documented exit code.

mod arguments;
mod commands;
mod installation;
mod output;
mod selection;

use arguments::Cli;
use host::exit::Exit;
use std::process::ExitCode;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Logs to standard error, filtered by targets and levels such as `campaign=info`; by default errors only.
fn log(filter: Option<&str>) {
    let (targets, wrong) = match filter.unwrap_or("error").parse::<Targets>() {
        Ok(targets) => (targets, None),
        Err(error) => (Targets::new(), Some(error)),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).without_time();
    tracing_subscriber::registry().with(lines.with_filter(targets)).init();
    if let Some(error) = wrong {
        eprintln!(
            "warning: failed to parse EDGEPIPE_LOG: {error}; expected a level such as info, or targets with levels such as campaign=info"
        );
    }
}

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Fine };
            // Where even the message cannot be written, the exit code still tells.
            let _ = error.print();
            return code.into();
        }
    };
    log(std::env::var("EDGEPIPE_LOG").ok().as_deref());
    match cli.run() {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit.into()
        }
    }
}
