//! The command line: options of all commands, and the commands.

use crate::commands::{
    baseline, bench, boards, check, history, layers, plan, report, results, selftest, target,
};
use campaign::Paths;
use clap::{Parser, Subcommand};
use host::exit::{Exit, Outcome};
use std::path::PathBuf;

/// Measures pipelined CNN inference on heterogeneous boards.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    disable_help_subcommand = true,
    max_term_width = 110
)]
pub(crate) struct Cli {
    /// The workspace.
    #[arg(long, hide = true, default_value = "")]
    root: PathBuf,
    /// Folder for cache, journals and logs.
    #[arg(long, hide = true, default_value = "")]
    state: PathBuf,
    /// Interpreter of the private Python environment.
    #[arg(long, hide = true, default_value = "")]
    python: PathBuf,
    /// The runner for this machine.
    #[arg(long, hide = true, default_value = "")]
    runner: PathBuf,
    /// Keep or read results in this file instead of results/results.db.
    #[arg(long, global = true, value_name = "FILE")]
    database: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure pipelines against single processors and print the table.
    Bench(bench::Arguments),
    /// Profile and schedule only; no trials.
    Plan(plan::Arguments),
    /// Show which layers are furthest from what the first processor can do; no trials.
    Layers(layers::Arguments),
    /// Print the table of an earlier run.
    Report(report::Arguments),
    /// Show a metric of a network over runs and revisions, with marked steps.
    History(history::Arguments),
    /// List the runs in the database, or import runs of other hosts.
    #[command(subcommand)]
    Results(results::Arguments),
    /// Save the figures of runs, to compare later runs with.
    #[command(subcommand)]
    Baseline(baseline::Arguments),
    /// Compare a run with a baseline; fails if anything became worse.
    Check(check::Arguments),
    /// Measure how often the gate is wrong on this machine.
    #[command(subcommand)]
    Selftest(selftest::Arguments),
    /// Show the configured boards: whether they are free, and their processors.
    Boards(boards::Arguments),
    #[command(flatten)]
    Build(target::Arguments),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// With the exit code of the failure.
    pub(crate) fn run(self) -> Outcome<Exit> {
        let paths = Paths {
            // A database takes over what is in its journals, so each database has journals of its own.
            runs: match &self.database {
                None => self.state.join("runs"),
                Some(database) => database.with_extension("runs"),
            },
            database: self.database.unwrap_or_else(|| self.root.join("results/results.db")),
            root: self.root,
            state: self.state,
            python: self.python,
            runner: self.runner,
        };
        match &self.command {
            Command::Bench(arguments) => bench::run(paths, arguments),
            Command::Plan(arguments) => plan::run(paths, arguments),
            Command::Layers(arguments) => layers::run(paths, arguments),
            Command::Report(arguments) => report::run(&paths, arguments),
            Command::History(arguments) => history::run(&paths, arguments),
            Command::Results(arguments) => results::run(&paths.database, arguments),
            Command::Baseline(arguments) => baseline::run(&paths, arguments),
            Command::Check(arguments) => check::run(&paths, arguments),
            Command::Selftest(arguments) => selftest::run(paths, arguments),
            Command::Boards(arguments) => boards::run(&paths, arguments),
            Command::Build(arguments) => target::run(&paths, arguments),
        }
    }
}
