//! The command line: options of all commands, and the commands.

use crate::commands::{
    baseline, bench, boards, check, farm, history, layers, optimize, plan, report, results, selftest, shell,
    target, verify_claims,
};
use crate::installation::Installation;
use crate::output;
use campaign::Paths;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;
use host::exit::{Exit, Outcome};
use std::path::PathBuf;
use toolchain::Check;

/// Measures pipelined CNN inference on heterogeneous boards.
#[derive(Debug, Parser)]
#[command(
    name = "edgepipe",
    version,
    disable_help_subcommand = true,
    after_help = "EDGEPIPE_LOG=LEVEL or EDGEPIPE_LOG=TARGET=LEVEL writes a log to standard error. Levels: error, warn, info, debug. \
                  Targets: the crates (boards, campaign, compiler, store, …), and runner for the runner's own log.\n\n\
                  The paper is D. Velasco-Montero et al., IEEE Access 11, 2023, doi:10.1109/ACCESS.2023.3264828.",
    max_term_width = 110
)]
pub(crate) struct Cli {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    command: Command,
}

/// Where files are.
#[derive(Debug, Args)]
struct Places {
    /// The checkout. `cargo xtask` passes this and the other paths; an installed program finds its files itself.
    #[arg(long, hide = true)]
    root: Option<PathBuf>,
    /// Folder for cache, journals and logs.
    #[arg(long, hide = true)]
    state: Option<PathBuf>,
    /// Interpreter of the private Python environment.
    #[arg(long, hide = true)]
    python: Option<PathBuf>,
    /// The runner for this machine.
    #[arg(long, hide = true)]
    runner: Option<PathBuf>,
    /// Database file to use instead of results/results.db.
    #[arg(long, global = true, value_name = "FILE")]
    database: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure pipelines against single processors and print the table.
    Bench(bench::Arguments),
    /// Find the schedules that are best in throughput and energy, and the best one for a requirement.
    Optimize(optimize::Arguments),
    /// Profile the networks and show where the planner cuts them; no trials.
    Plan(plan::Arguments),
    /// Show the layers that are furthest from a processor's peak; no trials.
    Layers(layers::Arguments),
    /// Print the table of an earlier run.
    Report(report::Arguments),
    /// Show a metric of a network over runs and revisions, and mark steps.
    History(history::Arguments),
    /// List the runs in the database, or import runs from other hosts.
    #[command(subcommand)]
    Results(results::Arguments),
    /// Save the figures of runs as a baseline for later checks.
    #[command(subcommand)]
    Baseline(baseline::Arguments),
    /// Compare a run with a baseline; fails if anything became worse.
    Check(check::Arguments),
    /// Test whether the paper's claims hold on a board; fails if one does not.
    VerifyClaims(verify_claims::Arguments),
    /// Measure how often the regression gate is wrong on this machine.
    #[command(subcommand)]
    Selftest(selftest::Arguments),
    /// Show the configured boards: whether they are free, and their processors.
    Boards(boards::Arguments),
    /// Show the places of labgrid coordinators: who holds them, their last runs and their health.
    Farm(farm::Arguments),
    /// Create the private Python environment, or check and repair it.
    Setup,
    /// Print the completion script of a shell.
    Completions {
        /// Shell.
        shell: Shell,
    },
    /// Write the man pages.
    #[command(hide = true)]
    Manual {
        /// Folder to write them to.
        folder: PathBuf,
    },
    #[command(flatten)]
    Build(target::Arguments),
}

impl Places {
    /// All paths, for a command that does not compile.
    fn paths(self) -> Outcome<Paths> {
        let Some(root) = self.root else { return Installation::find()?.paths(self.database) };
        let state = self.state.unwrap_or_default();
        Ok(Paths {
            // A database takes over what is in its journals, so each database has journals of its own.
            runs: match &self.database {
                None => state.join("runs"),
                Some(database) => database.with_extension("runs"),
            },
            database: self.database.unwrap_or_else(|| root.join("results/results.db")),
            settings: root.clone(),
            work: root.clone(),
            root,
            state,
            python: self.python.unwrap_or_default(),
            runner: self.runner.unwrap_or_default(),
            linker: None,
        })
    }

    /// All paths, once the Python environment is ready. `cargo xtask` has prepared it.
    fn for_compiling(self, check: Check) -> Outcome<Paths> {
        if self.root.is_some() {
            return self.paths();
        }
        let installation = Installation::find()?;
        let mut paths = installation.paths(self.database)?;
        installation.prepare(&mut paths, check)?;
        Ok(paths)
    }
}

impl Cli {
    /// Reads the command line.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        // `cargo xtask` passes the paths first.
        if std::env::args_os().nth(1).is_none_or(|first| first != "--root") {
            host::program::set_installed();
        }
        let command = Self::command().name(host::program()).bin_name(host::program());
        Self::from_arg_matches(&command.try_get_matches()?)
    }

    /// Runs the command.
    ///
    /// # Errors
    /// With the exit code of the failure.
    pub(crate) fn run(self) -> Outcome<Exit> {
        let places = self.places;
        match &self.command {
            Command::Bench(arguments) => bench::run(places.for_compiling(Check::Files)?, arguments),
            Command::Optimize(arguments) => optimize::run(places.for_compiling(Check::Files)?, arguments),
            Command::Plan(arguments) => plan::run(places.for_compiling(Check::Files)?, arguments),
            Command::Layers(arguments) => layers::run(places.for_compiling(Check::Files)?, arguments),
            Command::Report(arguments) => report::run(&places.paths()?, arguments),
            Command::History(arguments) => history::run(&places.paths()?, arguments),
            Command::Results(arguments) => results::run(&places.paths()?.database, arguments),
            Command::Baseline(arguments) => baseline::run(&places.paths()?, arguments),
            Command::Check(arguments) if arguments.measures() => {
                check::run(&places.for_compiling(Check::Files)?, arguments)
            }
            Command::Check(arguments) => check::run(&places.paths()?, arguments),
            Command::VerifyClaims(arguments) => {
                verify_claims::run(places.for_compiling(Check::Files)?, arguments)
            }
            Command::Selftest(arguments) => selftest::run(places.for_compiling(Check::Files)?, arguments),
            Command::Boards(arguments) => boards::run(&places.paths()?, arguments),
            Command::Farm(arguments) if arguments.measures() => {
                farm::run(&places.for_compiling(Check::Files)?, arguments)
            }
            Command::Farm(arguments) => farm::run(&places.paths()?, arguments),
            Command::Setup => {
                let paths = places.for_compiling(Check::Imports)?;
                output::print(&format!("toolchain ready: {}\n", paths.python.display())).map(|()| Exit::Fine)
            }
            Command::Completions { shell } => shell::completions(Self::command(), *shell),
            Command::Manual { folder } => shell::manual(Self::command(), folder),
            Command::Build(arguments) => target::run(&places.paths()?, arguments),
        }
    }
}
