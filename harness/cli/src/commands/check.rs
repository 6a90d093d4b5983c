//! `check`: compares a run with a baseline.

use super::bench::open_database;
use crate::output::{after_closing, print};
use crate::selection::{Measured, Trials, What};
use ::report::{CheckFormat, render_check};
use analysis::gate::{self, Baseline, CheckReport, GateVerdict, Identity};
use campaign::{Paths, open};
use clap::Args;
use config::Thresholds;
use host::exit::{Ending as _, Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use std::path::PathBuf;
use store::{Access, RunFilter, RunId, Status, Store, StoredRun};

/// Options of `check`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The baseline, a file in results/baselines/.
    #[arg(long, value_name = "NAME")]
    against: String,
    /// Run to check. Default without --experiment: `latest`.
    #[arg(long, value_name = "RUN", conflicts_with = "experiment")]
    run: Option<String>,
    /// Measure this experiment first, and check that run.
    #[arg(long, value_name = "NAME")]
    experiment: Option<String>,
    /// Board to measure --experiment on.
    #[arg(long, value_name = "NAME", default_value = "local", requires = "experiment")]
    board: String,
    /// These networks instead of the experiment's; may be given several times.
    #[arg(long = "network", value_name = "NAME", requires = "experiment")]
    networks: Vec<String>,
    /// Trials of each schedule instead of the experiment's.
    #[arg(long, value_name = "N", requires = "experiment")]
    trials: Option<String>,
    /// Any other setting of the experiment; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", requires = "experiment")]
    set: Vec<String>,
    /// Compare even if this aspect differs (such as kernel or tvm); may be given several times.
    #[arg(long, value_name = "ASPECT")]
    allow_different: Vec<String>,
    /// Thresholds file to use instead of ci/thresholds.yaml.
    #[arg(long, value_name = "FILE")]
    thresholds: Option<PathBuf>,
    /// Output format.
    #[arg(long, value_enum, default_value_t = CheckFormat::Terminal)]
    format: CheckFormat,
    /// Also write the result to a file, such as `--write junit=check.xml`; may be given several times.
    #[arg(long, value_name = "FORMAT=FILE", value_parser = written)]
    write: Vec<(CheckFormat, PathBuf)>,
}

impl Arguments {
    /// Whether it measures.
    pub(crate) fn measures(&self) -> bool {
        self.experiment.is_some()
    }

    /// What to measure first, if anything.
    fn selection(&self) -> Option<Measured> {
        let what = What {
            experiment: self.experiment.clone()?,
            networks: self.networks.clone(),
            set: self.set.clone(),
        };
        Some(Measured { board: self.board.clone(), trials: Trials { what, trials: self.trials.clone() } })
    }
}

/// # Errors
/// With the exit code of the failure.
pub(crate) fn run(paths: &Paths, options: &Arguments) -> Outcome<Exit> {
    let needed = needed(paths, options)?;
    let Some(selection) = options.selection() else {
        let store = Store::open(&paths.database, Access::ReadOnly)?;
        let run = stored(&store, options.run.as_deref())?;
        return judge(&needed, &store, &run, options);
    };
    let interrupt = Interrupt::listen().ending(Exit::Bug)?;
    let store = open_database(paths)?;
    let loaded = selection.load(paths)?;
    let mut board = open::open(loaded, paths.clone(), interrupt)?;
    let ended = campaign::run(&mut board, &store);
    let (ended, closed) = board.close(ended)?;
    if ended.interrupted {
        eprintln!(
            "interrupted, nothing was checked: the results so far are kept; `{program} bench --resume {run}` continues the run, then \
             check it with --run {run}",
            run = ended.run,
            program = host::program()
        );
        return after_closing(closed, Ok(Exit::Trial));
    }
    after_closing(closed, judge(&needed, &store, &ended.run, options))
}

pub(crate) fn warn_of_a_part(run: &StoredRun) {
    if run.status != Status::Complete {
        eprintln!(
            "warning: the run {} is {}, not complete; `{program} bench --resume {}` continues it",
            run.start.id,
            run.status,
            run.start.id,
            program = host::program()
        );
    }
}

/// What a check needs besides the run.
struct Needed {
    baseline: Baseline,
    thresholds: Thresholds,
}

/// Checks all inputs before anything is measured.
///
/// # Errors
/// If the baseline or the thresholds cannot be read, a file could not be written, or an option makes no sense.
fn needed(paths: &Paths, options: &Arguments) -> Outcome<Needed> {
    let baseline = Baseline::read(&paths.work, &options.against)?;
    let thresholds = paths.root.join("ci/thresholds.yaml");
    let thresholds =
        Thresholds::read(options.thresholds.as_ref().unwrap_or(&thresholds)).ending(Exit::Usage)?;
    if let Some(unknown) =
        options.allow_different.iter().find(|name| !Identity::known().contains(&name.as_str()))
    {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "failed to read --allow-different {unknown}: expected one of {}",
                Identity::known().join(", ")
            ),
        ));
    }
    for (_, path) in &options.write {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if path.is_dir() || folder.is_some_and(|folder| !folder.is_dir()) {
            return Err(Failure::new(
                Exit::Usage,
                format!(
                    "failed to write {}: it is a directory, or its parent directory does not exist",
                    path.display()
                ),
            ));
        }
    }
    Ok(Needed { baseline, thresholds })
}

/// Judges a run that is in the database.
///
/// # Errors
/// If it is not comparable with the baseline, or the result cannot be written.
fn judge(needed: &Needed, store: &Store, run: &RunId, options: &Arguments) -> Outcome<Exit> {
    let Needed { baseline, thresholds } = needed;
    let run = store.run(run.as_str())?;
    if baseline.runs.iter().any(|own| own.id == run.start.id.as_str()) {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "failed to check the run {} against {}: the baseline was made from this run; measure \
                 another one with --experiment NAME",
                run.start.id, baseline.name
            ),
        ));
    }
    warn_of_a_part(&run);
    let differences = baseline.identity.differences(&Identity::of(&run));
    let refused: Vec<String> = differences
        .iter()
        .filter(|difference| !options.allow_different.contains(&difference.aspect))
        .map(|difference| format!("\n  {difference}"))
        .collect();
    if !refused.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "failed to check the run {} against {}: they are not comparable; save another baseline, or give \
                 --allow-different ASPECT for each difference:{}",
                run.start.id,
                baseline.name,
                refused.concat()
            ),
        ));
    }
    let figures = analysis::schedule_figures(store, &run)?;
    let report = gate::check(baseline, run.start.id.as_str(), &figures, differences, thresholds);
    for (format, path) in &options.write {
        std::fs::write(path, render_check(&report, *format)).map_err(|error| {
            Failure::new(Exit::Usage, format!("failed to write {}: {error}", path.display()))
        })?;
    }
    print(&render_check(&report, options.format))?;
    Ok(exit(&report))
}

fn exit(report: &CheckReport) -> Exit {
    match report.verdict {
        GateVerdict::Pass => Exit::Fine,
        GateVerdict::Fail => Exit::Regression,
        GateVerdict::Incomplete => Exit::Trial,
    }
}

/// The run to check, if no run is measured first.
///
/// # Errors
/// If there is none.
fn stored(store: &Store, asked: Option<&str>) -> Outcome<RunId> {
    Ok(named(store, asked.unwrap_or("latest"))?.start.id)
}

/// The run of this name; `latest` is the last one with trials.
///
/// # Errors
/// If there is none.
pub(crate) fn named(store: &Store, name: &str) -> Outcome<StoredRun> {
    match name {
        "latest" => latest(store, None),
        name => Ok(store.run(name)?),
    }
}

pub(crate) fn latest(store: &Store, experiment: Option<&str>) -> Outcome<StoredRun> {
    let filter =
        RunFilter { measured: true, experiment: experiment.map(str::to_owned), ..RunFilter::default() };
    store.latest_run(&filter)?.ok_or_else(|| {
        let text = format!("failed to find any run with trials; run `{} bench` first", host::program());
        Failure::new(Exit::Usage, text)
    })
}

/// `FORMAT=FILE` of `--write`.
fn written(text: &str) -> Result<(CheckFormat, PathBuf), String> {
    use clap::ValueEnum as _;
    let (format, path) = text.split_once('=').ok_or("expected FORMAT=FILE, such as junit=check.xml")?;
    let format = CheckFormat::from_str(format, false)?;
    if path.is_empty() {
        return Err("expected a file after \"=\"".to_owned());
    }
    Ok((format, path.into()))
}
