//! The verbs.

use crate::binary::Binary;
use crate::boards::inspection;
use crate::campaign::{Campaign, Ended, Paths, store_failure};
use crate::cli::{self, Cli, Format, Verb};
use crate::config::{self, Connect, Loaded};
use crate::exit::{Ending as _, Exit, Failure, Outcome};
use crate::fleet;
use crate::gating;
use crate::history::{Asked, History, HistoryError};
use crate::interrupt::Interrupt;
use crate::report::{CampaignReport, Report, Row, Verdict};
use crate::store::{Access, CampaignRecord, RunFilter, RunId, Store};
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Does what the command line asks.
///
/// # Errors
/// With the exit code the failure stands for.
pub fn run(cli: &Cli) -> Outcome<Exit> {
    let paths = Paths {
        root: cli.root.clone(),
        state: cli.state.clone(),
        python: cli.python.clone(),
        runner: cli.runner.clone(),
        database: cli.database.clone().unwrap_or_else(|| cli.root.join("results/results.db")),
        // A database takes over what is in its journals, so one of its own has journals of its own.
        runs: match &cli.database {
            None => cli.state.join("runs"),
            Some(database) => database.with_extension("runs"),
        },
    };
    match &cli.verb {
        Verb::Bench(options) => bench(paths, options),
        Verb::Plan(options) => plan(paths, options),
        Verb::Layers(options) => layers(paths, options),
        Verb::Report(options) => report(&paths, options),
        Verb::History(options) => history(&paths, options),
        Verb::Results(options) => {
            let (text, exit) = crate::results::run(&paths.database, options)?;
            print(&text).map(|()| exit)
        }
        Verb::Baseline(cli::Baseline::Save(options)) => gating::save(&paths, options),
        Verb::Check(options) => check(&paths, options),
        Verb::Selftest(options) => crate::selftest::run(paths, options),
        Verb::Target { board } => target(&paths, board),
        Verb::Inspect { board, only, files } => inspect(&paths, board, only.as_deref(), files),
        Verb::Boards(options) => inspection::boards(&paths, options),
    }
}

fn bench(paths: Paths, options: &cli::Bench) -> Outcome<Exit> {
    let interrupt = Interrupt::listen().ending(Exit::Bug)?;
    // A database that cannot be written is found before an hour of measuring, not after it.
    let store = Store::open(&paths.database, Access::ReadWrite).map_err(store_failure)?;
    take_over(&store, &paths)?;
    let (loaded, before) = match fleet::asked(&store, &paths, options)? {
        fleet::Asked::Several(several) => return several.bench(&paths, &interrupt, &store, options.format),
        fleet::Asked::One { loaded, before } => (*loaded, before),
    };
    let mut campaign = Campaign::open(loaded, paths, interrupt)?;
    let ended = match &before {
        Some(run) => campaign.resume(&store, run),
        None => campaign.run(&store),
    };
    let (ended, closed) = campaign.close(ended)?;
    let shown = build(&store, &ended.run, options.format).and_then(|report| {
        print(&report.render(options.format, is_wide()))?;
        Ok(verdict(&ended, &report))
    });
    after_closing(closed, shown)
}

fn check(paths: &Paths, options: &cli::Check) -> Outcome<Exit> {
    let needed = gating::needed(paths, options)?;
    let Some(selection) = options.selection() else {
        let store = Store::open(&paths.database, Access::ReadOnly).map_err(store_failure)?;
        let run = gating::stored(&store, options.run.as_deref())?;
        return gating::judge(&needed, &store, &run, options);
    };
    let interrupt = Interrupt::listen().ending(Exit::Bug)?;
    let store = Store::open(&paths.database, Access::ReadWrite).map_err(store_failure)?;
    take_over(&store, paths)?;
    let loaded = load(paths, &selection)?;
    let mut campaign = Campaign::open(loaded, paths.clone(), interrupt)?;
    let ended = campaign.run(&store);
    let (ended, closed) = campaign.close(ended)?;
    if ended.interrupted {
        eprintln!("interrupted: what was measured is kept in the run {}; nothing was judged", ended.run);
        return after_closing(closed, Ok(Exit::Trial));
    }
    after_closing(closed, gating::judge(&needed, &store, &ended.run, options))
}

/// How a command ends that held a board: a board whose state could not be restored decides the exit code.
pub(crate) fn after_closing(closed: Outcome<()>, outcome: Outcome<Exit>) -> Outcome<Exit> {
    match (closed, outcome) {
        (closed, Err(failure)) => Err(failure.after_closing(closed)),
        (Ok(()), outcome) => outcome,
        (Err(left_behind), Ok(_)) => Err(left_behind),
    }
}

/// Brings in what the journals have and the database does not, and says what was found.
fn take_over(store: &Store, paths: &Paths) -> Outcome<()> {
    for message in store.catch_up(&paths.runs).map_err(store_failure)?.messages() {
        eprintln!("{message}");
    }
    Ok(())
}

fn verdict(ended: &Ended, report: &Report) -> Exit {
    if ended.interrupted {
        eprintln!(
            "interrupted: what was measured is kept; `cargo xtask bench --resume {}` goes on with it",
            ended.run
        );
        return Exit::Trial;
    }
    if ended.failed_trials > 0 || report.has_void_rows() { Exit::Trial } else { Exit::Fine }
}

fn plan(paths: Paths, options: &cli::Plan) -> Outcome<Exit> {
    let interrupt = Interrupt::listen().ending(Exit::Bug)?;
    let loaded = load(&paths, &options.selection)?;
    let mut campaign = Campaign::open(loaded, paths, interrupt)?;
    let networks = campaign.plan(None, &crate::campaign::Before::default());
    let (networks, closed) = campaign.close(networks)?;
    let mut text = String::new();
    for network in &networks {
        let units = network.unit_names();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} ({} units)", network.name(), units.len());
        for planned in &network.planned {
            let label = planned.schedule.label();
            let Some(prediction) = &planned.prediction else {
                let _ = writeln!(text, "  {label:<44} measured only");
                continue;
            };
            let fps = prediction.throughput.0;
            let _ = writeln!(text, "  {label:<44} {fps:>9.2} frames/s expected");
            if planned.schedule.kind() != domain::Kind::Pipeline {
                continue;
            }
            for (stage, ns) in planned.schedule.stages().iter().zip(&prediction.stage_ns) {
                let (first, last) = (units.get(stage.first), units.get(stage.end - 1));
                let _ = writeln!(
                    text,
                    "    {:<12} {:>8.2} ms  {} … {}",
                    stage.processor.as_str(),
                    ns / 1e6,
                    first.unwrap_or(&"?"),
                    last.unwrap_or(&"?")
                );
            }
        }
    }
    after_closing(closed, print(&text).map(|()| Exit::Fine))
}

fn layers(paths: Paths, options: &cli::Layers) -> Outcome<Exit> {
    let interrupt = Interrupt::listen().ending(Exit::Bug)?;
    let loaded = load(&paths, &options.selection)?;
    let mut campaign = Campaign::open(loaded, paths, interrupt)?;
    let layers = campaign.layers(options.top);
    let (text, closed) = campaign.close(layers)?;
    after_closing(closed, print(&text).map(|()| Exit::Fine))
}

fn report(paths: &Paths, options: &cli::Report) -> Outcome<Exit> {
    let database = &paths.database;
    let store = Store::open(database, Access::ReadOnly).map_err(store_failure)?;
    if options.list {
        return list(&store);
    }
    let stored = if let Some(asked) = &options.run {
        if let Some(campaign) = store.campaign(asked).map_err(store_failure)? {
            return of_campaign(&store, &campaign.record, options);
        }
        store.run(asked).map_err(store_failure)?
    } else {
        let filter = RunFilter { measured: true, ..RunFilter::default() };
        store.latest_run(&filter).map_err(store_failure)?.ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                format!("failed to find any run in {}; `cargo xtask bench` makes one", database.display()),
            )
        })?
    };
    if let (None, false, Some(campaign)) = (&options.run, options.trace, &stored.start.campaign) {
        return of_campaign(&store, campaign, options);
    }
    let report = build(&store, &stored.start.id, options.format)?;
    if options.trace {
        return deliver(options.output.as_deref(), &trace(&store, &report, options)?).map(|()| Exit::Fine);
    }
    let wide = options.output.is_none() && is_wide();
    deliver(options.output.as_deref(), &report.render(options.format, wide))?;
    Ok(Exit::Fine)
}

/// What several boards did.
fn of_campaign(store: &Store, campaign: &CampaignRecord, options: &cli::Report) -> Outcome<Exit> {
    if options.trace {
        return Err(Failure::new(
            Exit::Usage,
            format!("failed to trace the campaign {}: name the run of one of its boards", campaign.id),
        ));
    }
    fleet::check_format(campaign.mode, options.format).map_err(|why| Failure::new(Exit::Usage, why))?;
    let report =
        CampaignReport::build(store, campaign.id.as_str(), &BTreeMap::new()).map_err(store_failure)?;
    let wide = options.output.is_none() && is_wide();
    deliver(options.output.as_deref(), &report.render(options.format, wide))?;
    Ok(Exit::Fine)
}

/// The timeline asked for.
fn trace(store: &Store, report: &Report, options: &cli::Report) -> Outcome<String> {
    let asked_for = |row: &&Row| {
        options.network.as_ref().is_none_or(|network| row.network == *network)
            && options
                .schedule
                .as_ref()
                .is_none_or(|schedule| row.schedule == *schedule || row.place.to_string() == *schedule)
    };
    let rank = |row: &Row| {
        let fps = row.throughput_fps.map_or(0.0, |fps| fps.point);
        (row.verdict == Verdict::Valid, row.kind == "pipeline", fps)
    };
    let rows = report.rows.iter().filter(asked_for);
    let row = rows.max_by(|a, b| rank(a).partial_cmp(&rank(b)).unwrap_or(std::cmp::Ordering::Equal));
    let row = row.ok_or_else(|| {
        let known: Vec<String> = report
            .rows
            .iter()
            .map(|row| format!("  {} {} {}", row.place, row.network, row.schedule))
            .collect();
        let message =
            format!("failed to find the schedule to trace; run {} has\n{}", report.run.id, known.join("\n"));
        Failure::new(Exit::Usage, message)
    })?;
    let name = format!("{} {}", row.network, row.schedule);
    let absent = |why: &str| Failure::new(Exit::Usage, format!("failed to trace {name}: {why}"));
    let round = options.trial.or(row.typical_round).ok_or_else(|| absent("nothing was measured of it"))?;
    let run = store.run(&report.run.id).map_err(store_failure)?;
    let trial = store.last_trial(&run, row.place, round).map_err(store_failure)?;
    let trial = trial.ok_or_else(|| {
        absent(&format!(
            "it has no trial in round {round}; {} rounds were planned, from 0",
            report.run.trials_planned
        ))
    })?;
    report.trace(row, &trial).map_err(|why| absent(&why))
}

/// The report of a run with what the format shows of it.
fn build(store: &Store, run: &RunId, format: Format) -> Outcome<Report> {
    let mut report = Report::build(store, run).map_err(store_failure)?;
    if format == Format::Html {
        report.read_timelines(store).map_err(store_failure)?;
    }
    Ok(report)
}

/// Writes a file whole or not at all, or prints.
fn deliver(output: Option<&Path>, text: &str) -> Outcome<()> {
    let Some(output) = output else { return print(text) };
    let mut fresh = output.as_os_str().to_owned();
    fresh.push(".new");
    std::fs::write(&fresh, text)
        .and_then(|()| std::fs::rename(&fresh, output))
        .with_context(|| {
            format!("failed to write {}: name a file in a folder that can be written", output.display())
        })
        .ending(Exit::Usage)?;
    eprintln!("wrote {} ({:.0} kB)", output.display(), text.len() as f64 / 1e3);
    Ok(())
}

fn history(paths: &Paths, options: &cli::History) -> Outcome<Exit> {
    let store = Store::open(&paths.database, Access::ReadOnly).map_err(store_failure)?;
    let asked = Asked {
        network: options.network.clone(),
        board: options.board.clone(),
        schedule: options.schedule.clone(),
        measure: options.measure,
    };
    let history = History::build(&store, &asked).map_err(|error| match error {
        HistoryError::Store(error) => store_failure(error),
        nothing @ HistoryError::Nothing { .. } => Failure::new(Exit::Usage, nothing),
    })?;
    print(&history.render(options.format)).map(|()| Exit::Fine)
}

fn list(store: &Store) -> Outcome<Exit> {
    let mut text = String::new();
    for id in store.runs(&RunFilter::default()).map_err(store_failure)? {
        let run = store.run(id.as_str()).map_err(store_failure)?;
        let start = &run.start;
        // Writing to a String cannot fail.
        let _ = write!(text, "{id}  {:<11}  {} on {}", run.status.to_string(), start.experiment, start.board);
        if let Some(campaign) = &start.campaign {
            let _ = write!(text, ", part of {}", campaign.id);
        }
        text += "\n";
    }
    print(&text)?;
    Ok(Exit::Fine)
}

/// What xtask asks before it builds for a board: a line for each thing to build, of a group for all its boards.
fn target(paths: &Paths, name: &str) -> Outcome<Exit> {
    let mut lines: Vec<String> = Vec::new();
    for board in config::boards_of(&paths.root, &[name.to_owned()]).ending(Exit::Usage)? {
        let board = config::load_board(&paths.root, &board).ending(Exit::Usage)?;
        if let (Connect::Ssh { .. }, Some(target)) = (&board.connect, &board.target) {
            let line = line_of(target);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    print(&lines.concat()).map(|()| Exit::Fine)
}

fn line_of(target: &config::Target) -> String {
    format!("{} {}\n", target.triple.text(), target.glibc.as_deref().unwrap_or_default())
}

/// What xtask asks before what it built goes anywhere: whether it starts there, of a group on all its boards of the
/// target.
fn inspect(paths: &Paths, name: &str, only: Option<&str>, files: &[PathBuf]) -> Outcome<Exit> {
    let mut boards = Vec::new();
    for board in config::boards_of(&paths.root, &[name.to_owned()]).ending(Exit::Usage)? {
        boards.push(config::load_board(&paths.root, &board).ending(Exit::Usage)?);
    }
    let targets: Vec<&config::Target> = boards.iter().filter_map(|board| board.target.as_ref()).collect();
    for file in files {
        let binary = Binary::read(file).ending(Exit::Bug)?;
        for target in
            targets.iter().filter(|target| only.is_none_or(|only| only.trim() == line_of(target).trim()))
        {
            binary.check(target).ending(Exit::Usage)?;
        }
        print(&format!("  {binary}\n"))?;
    }
    Ok(Exit::Fine)
}

fn load(paths: &Paths, selection: &cli::Selection) -> Outcome<Loaded> {
    let what = &selection.what;
    config::load(&paths.root, &selection.board, &what.experiment, &what.overrides()).ending(Exit::Usage)
}

/// Whether standard output is a terminal with room for wide tables.
pub(crate) fn is_wide() -> bool {
    rustix::termios::tcgetwinsize(std::io::stdout()).is_ok_and(|size| size.ws_col > 130)
}

/// Prints what was asked for. A closed pipe (`… | head`) is the reader's right.
pub(crate) fn print(text: &str) -> Outcome<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).ending(Exit::Usage),
        _ => Ok(()),
    }
}
