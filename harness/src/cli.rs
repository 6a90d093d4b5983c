//! The command line.

use crate::config::Overrides;
use crate::fleet::Mode;
use crate::history::Measure;
use clap::{Args, Parser, Subcommand, ValueEnum};
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
pub struct Cli {
    /// The workspace.
    #[arg(long, hide = true, default_value = "")]
    pub root: PathBuf,
    /// Folder for cache, journals and logs.
    #[arg(long, hide = true, default_value = "")]
    pub state: PathBuf,
    /// Interpreter of the private Python environment.
    #[arg(long, hide = true, default_value = "")]
    pub python: PathBuf,
    /// The runner for this machine.
    #[arg(long, hide = true, default_value = "")]
    pub runner: PathBuf,
    /// Keep or read results in this file instead of results/results.db.
    #[arg(long, global = true, value_name = "FILE")]
    pub database: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Measure pipelines against single processors and print the table.
    Bench(Bench),
    /// Profile and schedule only; no trials.
    Plan(Plan),
    /// Which layers are furthest from what the first processor can do; no trials.
    Layers(Layers),
    /// Print the table of an earlier run.
    Report(Report),
    /// A figure of a network over runs and revisions, with marked steps.
    History(History),
    /// The runs in the database, and runs of other hosts brought into it.
    #[command(subcommand)]
    Results(Results),
    /// Keep the figures of runs to hold later ones against.
    #[command(subcommand)]
    Baseline(Baseline),
    /// Hold a run against a baseline; fails where something became worse.
    Check(Check),
    /// Measure how often the gate is wrong on this machine.
    #[command(subcommand)]
    Selftest(Selftest),
    /// Print what a board's file says is to be built: triple and C library; nothing where that is this machine.
    #[command(hide = true)]
    Target {
        /// Board.
        #[arg(long)]
        board: String,
    },
    /// Check that files start on a board: processor, C library, C++ library.
    #[command(hide = true)]
    Inspect {
        /// Board.
        #[arg(long)]
        board: String,
        /// Of a group, only boards of this target, as `target` prints it.
        #[arg(long, value_name = "TARGET")]
        only: Option<String>,
        /// Programs and libraries.
        files: Vec<PathBuf>,
    },
    /// The configured boards: whether they are free, and the processors found on them.
    Boards(Boards),
}

/// What to measure, and where.
#[derive(Debug, Args)]
pub struct Selection {
    /// Board, a file in configs/boards/.
    #[arg(long, value_name = "NAME", default_value = "local")]
    pub board: String,
    /// What.
    #[command(flatten)]
    pub what: What,
}

/// What to measure.
#[derive(Debug, Args)]
pub struct What {
    /// Experiment, a file in configs/experiments/.
    #[arg(long, value_name = "NAME", default_value = "quick")]
    pub experiment: String,
    /// These networks instead of the experiment's; may be given several times.
    #[arg(long = "network", value_name = "NAME")]
    pub networks: Vec<String>,
    /// Trials of each schedule instead of the experiment's.
    #[arg(long, value_name = "N")]
    pub trials: Option<String>,
    /// Any other setting of the experiment, for example `--set measure.min_seconds=10`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl What {
    /// The changes to the experiment's file.
    pub fn overrides(&self) -> Overrides {
        Overrides { networks: self.networks.clone(), trials: self.trials.clone(), set: self.set.clone() }
    }
}

/// Options of `bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// Board, a file in configs/boards/, or group of boards, a file in configs/groups/. Given several times, all work at
    /// the same time.
    #[arg(long = "board", value_name = "NAME", default_value = "local")]
    pub boards: Vec<String>,
    /// What several boards do: each measures everything, or equal ones share the rounds; default: the group's, else
    /// repeat.
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// What.
    #[command(flatten)]
    pub what: What,
    /// Go on with a run that was cut off, or with what several boards began; without a RUN, the latest one of these
    /// boards and this experiment.
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = "latest")]
    pub resume: Option<String>,
    /// How the table is printed at the end.
    #[arg(long, value_enum, default_value_t = Format::Terminal)]
    pub format: Format,
}

/// Options of `plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// What and where.
    #[command(flatten)]
    pub selection: Selection,
}

/// Options of `layers`.
#[derive(Debug, Args)]
pub struct Layers {
    /// What and where.
    #[command(flatten)]
    pub selection: Selection,
    /// So many layers of each network.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub top: usize,
}

/// Options of `report`.
#[derive(Debug, Args)]
pub struct Report {
    /// Run to report, or campaign of several boards; without it, the latest.
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Write to this file instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// List the runs in the database instead.
    #[arg(long)]
    pub list: bool,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t = Format::Terminal)]
    pub format: Format,
    /// Write the timeline of a trial for Perfetto (<https://ui.perfetto.dev>) instead: by default of the fastest
    /// pipeline, the trial nearest to its median.
    #[arg(long, conflicts_with_all = ["format", "list"])]
    pub trace: bool,
    /// Network to trace.
    #[arg(long, value_name = "NAME", requires = "trace")]
    pub network: Option<String>,
    /// Schedule to trace: its number or its label.
    #[arg(long, value_name = "SCHEDULE", requires = "trace")]
    pub schedule: Option<String>,
    /// Trial to trace: its round, from 0.
    #[arg(long, value_name = "ROUND", requires = "trace")]
    pub trial: Option<u32>,
}

/// Options of `history`.
#[derive(Debug, Args)]
pub struct History {
    /// Network to follow.
    #[arg(long, value_name = "NAME")]
    pub network: String,
    /// Only runs on this board.
    #[arg(long, value_name = "NAME")]
    pub board: Option<String>,
    /// Only these schedules: a kind (single, pipeline, replicate), processors ("cpu0 > cpu1"), or all of a label. Of
    /// several pipelines in a run, the fastest one is taken.
    #[arg(long, value_name = "SCHEDULE")]
    pub schedule: Option<String>,
    /// What is followed.
    #[arg(long, value_enum, default_value_t = Measure::Throughput)]
    pub measure: Measure,
    /// How it is printed; the schema of json is results/history.schema.json.
    #[arg(long, value_enum, default_value_t = HistoryFormat::Terminal)]
    pub format: HistoryFormat,
}

/// What to do with results.
#[derive(Debug, Subcommand)]
pub enum Results {
    /// List the runs with what was measured in them, the latest first.
    List(ListRuns),
    /// Take over runs from databases of other hosts; runs that are here already are passed over.
    Import(Import),
}

/// Options of `results list`.
#[derive(Debug, Args)]
pub struct ListRuns {
    /// Only runs on this board.
    #[arg(long, value_name = "NAME")]
    pub board: Option<String>,
    /// Only runs of this experiment.
    #[arg(long, value_name = "NAME")]
    pub experiment: Option<String>,
    /// Only runs with this network.
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
}

/// Options of `results import`.
#[derive(Debug, Args)]
pub struct Import {
    /// Databases to take over; they are only read.
    #[arg(value_name = "OTHER.db", required = true)]
    pub others: Vec<PathBuf>,
    /// Say what would be taken over, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Options of `baseline`.
#[derive(Debug, Subcommand)]
pub enum Baseline {
    /// Write results/baselines/NAME.json.
    Save(Save),
}

/// Options of `baseline save`.
#[derive(Debug, Args)]
pub struct Save {
    /// Its name.
    pub name: String,
    /// Run it is made from; without it, the latest. Given three times or more, the spread between runs is told from
    /// them, and checks are as strict as that allows.
    #[arg(long, value_name = "RUN")]
    pub run: Vec<String>,
}

/// Options of `selftest`.
#[derive(Debug, Subcommand)]
pub enum Selftest {
    /// A schedule against itself: how often the gate fails, and how often the interval holds 1.
    Aa(Comparisons),
    /// A schedule against itself made slower: how often that is found, and how long it takes.
    Ab {
        /// By how many percent the first stage is made slower.
        #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
        slow_down: f64,
        /// How.
        #[command(flatten)]
        common: Comparisons,
    },
}

/// How a self-test compares.
#[derive(Debug, Args)]
pub struct Comparisons {
    /// How many comparisons.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub comparisons: u32,
    /// One after the other with a runner each, as two runs that `check` compares; else interleaved, as schedules of a
    /// run are.
    #[arg(long)]
    pub apart: bool,
    /// Add to the comparisons of earlier calls with the same settings, into one table.
    #[arg(long)]
    pub append: bool,
    /// Board, a file in configs/boards/.
    #[arg(long, value_name = "NAME", default_value = "local")]
    pub board: String,
    /// Experiment, whose first schedule of its first network is compared.
    #[arg(long, value_name = "NAME", default_value = "selftest")]
    pub experiment: String,
    /// Any setting of the experiment, such as `--set precision=1%`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Write the table there.
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
}

/// Options of `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The baseline, a file in results/baselines/.
    #[arg(long, value_name = "NAME")]
    pub against: String,
    /// Run to judge; without it and without --experiment, the latest.
    #[arg(long, value_name = "RUN", conflicts_with = "experiment")]
    pub run: Option<String>,
    /// Measure this experiment first, and judge that.
    #[arg(long, value_name = "NAME")]
    pub experiment: Option<String>,
    /// Board, with --experiment.
    #[arg(long, value_name = "NAME", default_value = "local", requires = "experiment")]
    pub board: String,
    /// These networks instead of the experiment's; may be given several times.
    #[arg(long = "network", value_name = "NAME", requires = "experiment")]
    pub networks: Vec<String>,
    /// Trials of each schedule instead of the experiment's.
    #[arg(long, value_name = "N", requires = "experiment")]
    pub trials: Option<String>,
    /// Any other setting of the experiment; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", requires = "experiment")]
    pub set: Vec<String>,
    /// Compare although this aspect is unlike (such as kernel or tvm); may be given several times.
    #[arg(long, value_name = "ASPECT")]
    pub allow_different: Vec<String>,
    /// Thresholds in this file instead of ci/thresholds.yaml.
    #[arg(long, value_name = "FILE")]
    pub thresholds: Option<PathBuf>,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t = crate::gate::Format::Terminal)]
    pub format: crate::gate::Format,
    /// Besides, write it to a file, such as `--write junit=check.xml`; may be given several times.
    #[arg(long, value_name = "FORMAT=FILE", value_parser = crate::gating::written)]
    pub write: Vec<(crate::gate::Format, PathBuf)>,
}

impl Check {
    /// What to measure first, where anything is.
    pub fn selection(&self) -> Option<Selection> {
        Some(Selection {
            board: self.board.clone(),
            what: What {
                experiment: self.experiment.clone()?,
                networks: self.networks.clone(),
                trials: self.trials.clone(),
                set: self.set.clone(),
            },
        })
    }
}

/// Options of `boards`.
#[derive(Debug, Args)]
pub struct Boards {
    /// These boards or groups only; it is an error where one cannot be reached.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// End whatever holds this board, and tell who it was.
    #[arg(long, value_name = "NAME", conflicts_with = "names")]
    pub break_lock: Option<String>,
    /// Restore the state of this board where a session that was killed could not.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["names", "break_lock"])]
    pub restore: Option<String>,
}

/// Formats of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table a network, for reading.
    Terminal,
    /// For documents and pull requests.
    Markdown,
    /// One row a schedule, for spreadsheets.
    Csv,
    /// For programs; its schema is results/report.schema.json.
    Json,
    /// One page with drawings, for a browser; needs no network.
    Html,
    /// The paper's table (network, processors, pipeline, gain, energy) as Markdown, ready to paste.
    Paper,
    /// The paper's table as a LaTeX document that compiles as it is.
    Latex,
    /// The same table alone, for `\input`.
    LatexTable,
}

/// Formats of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HistoryFormat {
    /// A line a run, with its interval as a bar.
    Terminal,
    /// For documents and pull requests.
    Markdown,
    /// One row a run, for spreadsheets.
    Csv,
    /// For programs; its schema is results/history.schema.json.
    Json,
}
