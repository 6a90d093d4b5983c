//! `optimize`: finds the schedules that are best in throughput and energy.

use super::bench::open_database;
use crate::output::{after_closing, deliver};
use crate::selection::note_ignored;
use ::report::{OptimizeFormat, render_optimization};
use analysis::{Observed, Optimization};
use campaign::{Paths, RunEnd, open, resume, run as run_steps};
use clap::Args;
use config::{Loaded, Overrides, Power, Search};
use domain::{Limit, Objective};
use host::exit::{Ending as _, Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use std::path::PathBuf;
use std::time::Duration;
use store::{Access, RunFilter, RunId, Store};

/// Options of `optimize`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Board, a file in configs/boards/.
    #[arg(long, value_name = "NAME", default_value = "local")]
    board: String,
    /// Network: a name from the zoo, or of a file in configs/networks/. Default: the experiment's.
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Find the least energy per frame at this many frames per second or more.
    #[arg(long, value_name = "FPS", group = "requirement")]
    min_fps: Option<f64>,
    /// Find the most frames per second with at most this mean power of the board.
    #[arg(long, value_name = "W", group = "requirement")]
    max_watts: Option<f64>,
    /// Find the most frames per second with at most this energy per frame.
    #[arg(long, value_name = "MJ", group = "requirement")]
    max_mj_per_frame: Option<f64>,
    /// What to optimize without a requirement. Default: the experiment's objective; if that is pareto and the board has no
    /// power meter, throughput.
    #[arg(long, value_enum, conflicts_with = "requirement")]
    objective: Option<Goal>,
    /// Start no further step of the search after this time, such as 90s, 30min or 2h. Default: the experiment's.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    budget: Option<Duration>,
    /// Measure the schedules of the experiment at every operating point, instead of searching. With `--resume`, the sweep
    /// adds to an earlier search, and the result shows how close that search came to the best schedule.
    #[arg(long)]
    sweep: bool,
    /// Experiment with the settings of the trials, a file in configs/experiments/.
    #[arg(long, value_name = "NAME", default_value = "optimize")]
    experiment: String,
    /// Trials of each schedule of the Pareto front instead of the experiment's.
    #[arg(long, value_name = "N")]
    trials: Option<String>,
    /// Any other setting of the experiment, for example `--set measure.min_seconds=10`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Continue an interrupted search, with a new budget. Default RUN: the latest of this board and experiment.
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = "latest")]
    resume: Option<String>,
    /// Show an earlier search instead of measuring; `latest` is the latest search with the experiment of `--experiment`. A
    /// requirement or an objective chooses again among its schedules.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["board", "network", "budget", "sweep", "trials", "set", "resume"])]
    run: Option<String>,
    /// Format of the result.
    #[arg(long, value_enum, default_value_t = OptimizeFormat::Terminal)]
    format: OptimizeFormat,
    /// Write the result to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What is optimized without a requirement.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Goal {
    /// Most frames per second.
    Throughput,
    /// Least energy per frame.
    Energy,
    /// The Pareto front of both.
    Pareto,
}

/// # Errors
/// With the exit code of the failure.
pub(crate) fn run(paths: Paths, arguments: &Arguments) -> Outcome<Exit> {
    if let Some(run) = &arguments.run {
        return show(&paths, run, arguments);
    }
    let interrupt = Interrupt::listen().ending(Exit::Bug)?;
    // Fail before measuring if the database cannot be written.
    let store = open_database(&paths)?;
    let (loaded, resumed) = resolve(&store, &paths, arguments)?;
    if resumed.is_some() {
        let Arguments { min_fps, max_watts, max_mj_per_frame, .. } = arguments;
        note_ignored(&[
            ("--network", arguments.network.is_some()),
            ("--trials", arguments.trials.is_some()),
            ("--set", !arguments.set.is_empty()),
            ("--objective", arguments.objective.is_some()),
            ("--min-fps", min_fps.is_some()),
            ("--max-watts", max_watts.is_some()),
            ("--max-mj-per-frame", max_mj_per_frame.is_some()),
        ]);
    }
    let objective = loaded.experiment.objective;
    let mut board = open::open(loaded, paths, interrupt)?;
    let ended = match &resumed {
        Some(run) => resume(&mut board, &store, run),
        None => run_steps(&mut board, &store),
    };
    let (ended, closed) = board.close(ended)?;
    let shown =
        Optimization::build(&store, &ended.run, objective).map_err(Failure::from).and_then(|result| {
            if let Some(result) = &result {
                deliver(arguments.output.as_deref(), &render_optimization(result, arguments.format))?;
            }
            Ok(verdict(&ended, objective, result.as_ref()))
        });
    after_closing(closed, shown)
}

/// Shows the result of a search that is in the database.
///
/// # Errors
/// If there is no such search, or it has no energy and the objective needs it.
fn show(paths: &Paths, run: &str, arguments: &Arguments) -> Outcome<Exit> {
    let store = Store::open(&paths.database, Access::ReadOnly)?;
    let run = match run {
        "latest" => {
            let filter = RunFilter {
                measured: true,
                experiment: Some(arguments.experiment.clone()),
                ..RunFilter::default()
            };
            store.latest_run(&filter)?.ok_or_else(|| {
                usage(format!(
                    "failed to find a search with trials of the experiment {}; run `{} optimize` first, or name the run",
                    arguments.experiment,
                    host::program()
                ))
            })?
        }
        name => store.run(name)?,
    };
    let id = &run.start.id;
    let loaded = Loaded::from_yaml(&run.start.configuration).ending(Exit::Usage)?;
    if loaded.experiment.search.is_none() {
        return Err(usage(format!(
            "failed to show the search {id}: it is a run of `bench`; `{} report --run {id}` shows it",
            host::program()
        )));
    }
    let objective = objective(arguments)?.unwrap_or(loaded.experiment.objective);
    let observed = Observed::read(&store, id)?;
    if objective.needs_energy() && loaded.board.power == Power::None {
        return Err(usage(format!(
            "failed to choose by {objective}: the run {id} has no energy, because the board {} had no power meter",
            loaded.board.name
        )));
    }
    let Some(result) = Optimization::of(&observed, objective) else {
        return Err(usage(format!("failed to show the search {id}: it ended before its first trial")));
    };
    deliver(arguments.output.as_deref(), &render_optimization(&result, arguments.format))?;
    Ok(exit(objective, &result))
}

/// The configuration, and the run to resume.
fn resolve(store: &Store, paths: &Paths, arguments: &Arguments) -> Outcome<(Loaded, Option<RunId>)> {
    let run = match arguments.resume.as_deref() {
        None => None,
        Some("latest") => Some(
            store.unfinished_run(&arguments.experiment, &arguments.board, &paths.runs)?.ok_or_else(|| {
                usage(format!(
                    "failed to find an unfinished run of the experiment {} on the board {}; `{} report --list` lists all runs",
                    arguments.experiment,
                    arguments.board,
                    host::program()
                ))
            })?,
        ),
        Some(name) => Some(store.run(name)?),
    };
    let mut loaded = match &run {
        None => new(paths, arguments)?,
        Some(run) => {
            let loaded = Loaded::from_yaml(&run.start.configuration).ending(Exit::Usage)?;
            if loaded.experiment.search.is_none() {
                return Err(usage(format!(
                    "failed to resume the run {id}: it is a run of `bench`; continue it with `{} bench --resume {id}`",
                    host::program(),
                    id = run.start.id
                )));
            }
            loaded
        }
    };
    if let Some(search) = &mut loaded.experiment.search {
        search.budget = arguments.budget.unwrap_or(search.budget);
        search.sweep |= arguments.sweep;
    }
    Ok((loaded, run.map(|run| run.start.id)))
}

fn new(paths: &Paths, arguments: &Arguments) -> Outcome<Loaded> {
    let overrides = Overrides {
        networks: arguments.network.iter().cloned().collect(),
        trials: arguments.trials.clone(),
        set: arguments.set.clone(),
    };
    let mut loaded = config::load(&paths.settings, &arguments.board, &arguments.experiment, &overrides)?;
    let has_meter = loaded.board.power != Power::None;
    let experiment = &mut loaded.experiment;
    if let Some(objective) = objective(arguments)? {
        experiment.objective = objective;
    } else if !has_meter && experiment.objective == Objective::Pareto {
        // The front has one point without energy.
        experiment.objective = Objective::Throughput;
    }
    if !has_meter && experiment.objective.needs_energy() {
        return Err(usage(format!(
            "failed to optimize for {}: the board {} has no power meter; set `power` in configs/boards/{}.yaml, or use \
             `--objective throughput`",
            experiment.objective, loaded.board.name, loaded.board.name
        )));
    }
    let [_] = experiment.networks.as_slice() else {
        return Err(usage(format!(
            "failed to optimize {} networks at once; choose one of the experiment {} with `--network NAME`",
            experiment.networks.len(),
            experiment.name
        )));
    };
    if !experiment.load.is_saturating() {
        return Err(usage(format!(
            "failed to optimize with {}: `optimize` measures with `load: saturating`; remove `load` from the experiment {}, \
             and use `bench` to measure the best schedule under a stream",
            experiment.load, experiment.name
        )));
    }
    experiment.search.get_or_insert(Search { budget: experiment.max_time, sweep: false });
    Ok(loaded)
}

/// The objective of the command line, if it has one.
fn objective(arguments: &Arguments) -> Outcome<Option<Objective>> {
    let Arguments { min_fps, max_watts, max_mj_per_frame, objective, .. } = arguments;
    let numbers =
        [("--min-fps", min_fps), ("--max-watts", max_watts), ("--max-mj-per-frame", max_mj_per_frame)];
    for (name, value) in numbers {
        if let Some(value) = value.filter(|value| !value.is_finite() || *value <= 0.0) {
            return Err(usage(format!("failed to read {name} {value}: expected a number above 0")));
        }
    }
    let required = min_fps
        .map(|min_fps| Objective::EnergyAtLeast { min_fps })
        .or(max_watts.map(|most| Objective::ThroughputWithin(Limit::Watts(most))))
        .or(max_mj_per_frame.map(|most| Objective::ThroughputWithin(Limit::MillijoulesPerFrame(most))));
    Ok(required.or(objective.map(|goal| match goal {
        Goal::Throughput => Objective::Throughput,
        Goal::Energy => Objective::Energy,
        Goal::Pareto => Objective::Pareto,
    })))
}

fn usage(message: String) -> Failure {
    Failure::new(Exit::Usage, message)
}

/// A time with its unit: `90s`, `30min`, `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit.trim() {
        "s" => 1.0,
        "min" | "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("expected a time such as 90s, 30min or 2h".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "expected a time such as 90s, 30min or 2h".to_owned())?;
    // A week, as for `budget_minutes`.
    let time = number * seconds;
    if !(0.6..=604_800.0).contains(&time) {
        return Err("expected a time from 1s to 168h".to_owned());
    }
    Ok(Duration::from_secs_f64(time))
}

fn verdict(ended: &RunEnd, objective: Objective, result: Option<&Optimization>) -> Exit {
    if ended.interrupted {
        eprintln!(
            "interrupted: the results so far are kept; `{} optimize --resume {}` continues",
            host::program(),
            ended.run
        );
        return Exit::Trial;
    }
    match result.map(|result| exit(objective, result)) {
        Some(Exit::Fine) if ended.failed_trials > 0 => Exit::Trial,
        Some(exit) => exit,
        None => Exit::Trial,
    }
}

fn exit(objective: Objective, result: &Optimization) -> Exit {
    if result.closest.is_some() {
        Exit::Regression
    } else if result.front.is_empty()
        || result.not_judged_reason.is_some()
        || (objective != Objective::Pareto && result.best.is_none())
    {
        Exit::Trial
    } else {
        Exit::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        let check =
            |text: &str, seconds: f64| assert_eq!(duration(text), Ok(Duration::from_secs_f64(seconds)));
        check("90s", 90.0);
        check("30min", 1800.0);
        check("1.5h", 5400.0);
        for text in ["", "30", "min", "1.2.3s", "5 parsecs", "0s", "1000h", "-5min"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
