//! Starts what the command line asks for and turns its outcome into the documented exit code.

use clap::Parser as _;
use harness::cli::Cli;
use harness::exit::{Exit, Failure};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Fine };
            // Where even the message cannot be written, the exit code still tells.
            let _ = error.print();
            return code.into();
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("EDGEPIPE_LOG"))
        .with_writer(std::io::stderr)
        .without_time()
        .init();
    match harness::verbs::run(&cli) {
        Ok(exit) => exit.into(),
        Err(Failure { exit, error }) => {
            eprintln!("error: {error:#}");
            exit.into()
        }
    }
}
