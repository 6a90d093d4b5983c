//! `bench`: measures pipelines against single processors and prints the table.

use crate::output::{after_closing, is_wide, print};
use crate::selection::{Trials, note_ignored};
use ::report::{Format, render, render_campaign};
use analysis::Report;
use campaign::fleet::{self, BenchJob, BenchRequest};
use campaign::{Paths, RunEnd, open, resume, run as run_steps};
use clap::Args;
use config::Overrides;
use domain::FleetMode;
use host::exit::{Ending as _, Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use store::{Access, RunId, Store};

/// Options of `bench`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Board (a file in configs/boards/) or group of boards (a file in configs/groups/). May be given several times; all
    /// boards measure at the same time.
    #[arg(long = "board", value_name = "NAME", default_value = "local")]
    boards: Vec<String>,
    /// Board whose file asks a labgrid coordinator for any free place with some tags (`match`). All places with these tags
    /// share the rounds: each takes part as soon as it is free, and is released when no round is left for it.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["boards", "mode", "resume"])]
    farm: Option<String>,
    /// How several boards share the trials. Default: the mode of the group, otherwise repeat.
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    #[command(flatten)]
    trials: Trials,
    /// Continue an interrupted run, or an interrupted campaign of several boards. Default RUN: the latest of these boards
    /// and this experiment.
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = "latest")]
    resume: Option<String>,
    /// Format of the final table.
    #[arg(long, value_enum, default_value_t = Format::Terminal)]
    format: Format,
}

/// How several boards share the trials.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Mode {
    /// Every board measures everything, which compares the boards.
    Repeat,
    /// Equal boards share the rounds, which takes less time.
    Spread,
}

impl From<Mode> for FleetMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Repeat => Self::Repeat,
            Mode::Spread => Self::Spread,
        }
    }
}

/// # Errors
/// With the exit code of the failure.
pub(crate) fn run(paths: Paths, arguments: &Arguments) -> Outcome<Exit> {
    let interrupt = Interrupt::listen().ending(Exit::Bug)?;
    // Fail before measuring if the database cannot be written.
    let store = open_database(&paths)?;
    let request = BenchRequest {
        boards: arguments.boards.clone(),
        farm: arguments.farm.clone(),
        mode: arguments.mode.map(FleetMode::from),
        experiment: arguments.trials.what.experiment.clone(),
        overrides: arguments.trials.overrides(),
        resume: arguments.resume.clone(),
    };
    let job = fleet::resolve(&store, &paths, &request)?;
    if arguments.resume.is_some() {
        let Overrides { networks, trials, set } = &request.overrides;
        note_ignored(&[
            ("--network", !networks.is_empty()),
            ("--trials", trials.is_some()),
            ("--set", !set.is_empty()),
            ("--mode", arguments.mode.is_some()),
        ]);
    }
    let (loaded, resumed) = match job {
        BenchJob::Several(job) => {
            check_format(job.record().mode, arguments.format)?;
            let ended = fleet::bench(job, &paths, &interrupt, &store)?;
            print(&render_campaign(&ended.report, arguments.format, is_wide()))?;
            if let Some(advice) = ended.advice {
                eprintln!("{advice}");
            }
            return Ok(ended.exit);
        }
        BenchJob::One { loaded, resume } => (*loaded, resume),
    };
    let mut board = open::open(loaded, paths, interrupt)?;
    let ended = match &resumed {
        Some(run) => resume(&mut board, &store, run),
        None => run_steps(&mut board, &store),
    };
    let (ended, closed) = board.close(ended)?;
    let shown = build(&store, &ended.run, arguments.format).and_then(|report| {
        print(&render(&report, arguments.format, is_wide()))?;
        Ok(verdict(&ended, &report))
    });
    after_closing(closed, shown)
}

/// Opens the database, and imports records that are in its journals only.
pub(crate) fn open_database(paths: &Paths) -> Outcome<Store> {
    let store = Store::open(&paths.database, Access::ReadWrite)?;
    for message in store.catch_up(&paths.runs)?.messages() {
        eprintln!("{message}");
    }
    Ok(store)
}

/// The report of a run, with the details that the format needs.
pub(crate) fn build(store: &Store, run: &RunId, format: Format) -> Outcome<Report> {
    let mut report = Report::build(store, run)?;
    if format == Format::Html {
        report.read_timelines(store)?;
    }
    Ok(report)
}

/// Refuses formats that cannot show several runs.
pub(crate) fn check_format(mode: FleetMode, format: Format) -> Outcome<()> {
    let is_of_one_run =
        matches!(format, Format::Html | Format::Junit | Format::Latex | Format::LatexTable | Format::Paper);
    if mode == FleetMode::Repeat && is_of_one_run {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "failed to use this format: html, junit, latex, latex-table and paper show one run, and this campaign has one run \
                 per board; use terminal, markdown, csv or json, or `{} report --run RUN` for each run",
                host::program()
            ),
        ));
    }
    Ok(())
}

fn verdict(ended: &RunEnd, report: &Report) -> Exit {
    if ended.interrupted {
        eprintln!(
            "interrupted: the results so far are kept; `{} bench --resume {}` continues",
            host::program(),
            ended.run
        );
        return Exit::Trial;
    }
    if ended.failed_trials > 0 || report.has_void_rows() { Exit::Trial } else { Exit::Fine }
}
