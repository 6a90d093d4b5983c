//! `baseline`: saves the figures of runs, to compare later runs with.

use super::check::{latest, named, warn_of_a_part};
use ::report::few_trials;
use analysis::gate::Baseline;
use campaign::Paths;
use clap::{Args, Subcommand};
use host::exit::{Exit, Outcome};
use store::{Access, Store};

/// Options of `baseline`.
#[derive(Debug, Subcommand)]
pub(crate) enum Arguments {
    /// Write results/baselines/NAME.json.
    Save(Save),
}

/// Options of `baseline save`.
#[derive(Debug, Args)]
pub(crate) struct Save {
    /// Name of the baseline.
    name: String,
    /// Run to save; may be given several times. Default: `latest`. From three or more runs, the spread between runs
    /// is estimated, and checks are as strict as this spread allows.
    #[arg(long, value_name = "RUN")]
    run: Vec<String>,
}

/// # Errors
/// With the exit code of the failure.
pub(crate) fn run(paths: &Paths, arguments: &Arguments) -> Outcome<Exit> {
    match arguments {
        Arguments::Save(options) => save(paths, options),
    }
}

/// Saves a baseline.
///
/// # Errors
/// If there is no such run, the runs are not comparable, or the file cannot be written.
fn save(paths: &Paths, options: &Save) -> Outcome<Exit> {
    let store = Store::open(&paths.database, Access::ReadOnly)?;
    let mut runs = Vec::new();
    for asked in &options.run {
        runs.push(named(&store, asked)?);
    }
    if runs.is_empty() {
        runs.push(latest(&store, None)?);
    }
    let baseline = Baseline::of(&store, &options.name, &runs)?;
    for run in &runs {
        warn_of_a_part(run);
    }
    if let Some(warning) = few_trials(&baseline) {
        eprintln!("warning: {warning}");
    }
    let path = baseline.write(&paths.work)?;
    let trials: usize = baseline.rows.iter().map(|row| row.trials.len()).sum();
    eprintln!(
        "saved {}: {} schedules, {trials} trials of {} run{}",
        path.strip_prefix(&paths.work).unwrap_or(&path).display(),
        baseline.rows.len(),
        runs.len(),
        if runs.len() == 1 { "" } else { "s" }
    );
    match baseline.spread() {
        Some(spread) => eprintln!("spread between these runs: {:.2} % (standard deviation)", 100.0 * spread),
        None => eprintln!(
            "estimating the spread takes at least three runs; checks use `between_runs` from ci/thresholds.yaml"
        ),
    }
    Ok(Exit::Fine)
}
