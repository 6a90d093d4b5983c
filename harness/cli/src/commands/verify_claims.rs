//! `verify-claims`: tests the statements of the paper on a board.

use super::bench::open_database;
use crate::output::{after_closing, print};
use crate::selection::Measured;
use ::report::{ClaimsFormat, render_claims};
use analysis::Claims;
use campaign::{Paths, open};
use clap::Args;
use domain::Load;
use host::exit::{Ending as _, Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use store::{Access, Store, StoredRun};

/// Options of `verify-claims`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Test the claims in this run instead of measuring; `latest` is the last one. May be given several times.
    #[arg(long = "run", value_name = "RUN", conflicts_with_all = ["board", "experiment", "networks", "trials", "set"])]
    runs: Vec<String>,
    /// What to measure, and where.
    #[command(flatten)]
    selection: Measured,
    /// Output format.
    #[arg(long, value_enum, default_value_t = ClaimsFormat::Terminal)]
    format: ClaimsFormat,
}

/// # Errors
/// With the exit code of the failure.
pub(crate) fn run(paths: Paths, arguments: &Arguments) -> Outcome<Exit> {
    if !arguments.runs.is_empty() {
        let store = Store::open(&paths.database, Access::ReadOnly)?;
        let mut runs: Vec<StoredRun> = Vec::new();
        for name in &arguments.runs {
            let run = super::check::named(&store, name)?;
            if runs.iter().all(|known| known.start.id != run.start.id) {
                super::check::warn_of_a_part(&run);
                runs.push(run);
            }
        }
        return judge(&store, &runs, arguments.format);
    }
    let interrupt = Interrupt::listen().ending(Exit::Bug)?;
    let store = open_database(&paths)?;
    let loaded = arguments.selection.load(&paths)?;
    let experiment = &loaded.experiment;
    if experiment.search.is_some() && experiment.networks.len() != 1 {
        let message = format!(
            "failed to verify the claims on {} networks at once: the experiment {} is a search, which takes one; choose it \
             with `--network NAME`",
            experiment.networks.len(),
            experiment.name
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    refuse_stream(&experiment.name, &experiment.load)?;
    let mut board = open::open(loaded, paths, interrupt)?;
    let ended = campaign::run(&mut board, &store);
    let (ended, closed) = board.close(ended)?;
    if ended.interrupted {
        eprintln!(
            "interrupted: the results so far are kept in the run {run}; `{program} verify-claims --run {run}` tests the claims \
             in them",
            run = ended.run,
            program = host::program()
        );
        return after_closing(closed, Ok(Exit::Trial));
    }
    let judged = store
        .run(ended.run.as_str())
        .map_err(Failure::from)
        .and_then(|run| judge(&store, &[run], arguments.format));
    after_closing(closed, judged)
}

/// The claims are about throughput, and under a stream no schedule computes more frames than arrive.
fn refuse_stream(name: &str, load: &Load) -> Outcome<()> {
    if load.is_saturating() {
        return Ok(());
    }
    let message = format!(
        "failed to verify the claims with {name}: its load is {load}, but the claims are about the highest throughput; measure with \
         `load: saturating`"
    );
    Err(Failure::new(Exit::Usage, message))
}

/// Prints the verdicts.
///
/// # Errors
/// If the database cannot be read, or the result cannot be printed.
fn judge(store: &Store, runs: &[StoredRun], format: ClaimsFormat) -> Outcome<Exit> {
    for run in runs {
        refuse_stream(run.start.id.as_str(), &analysis::load_of(run))?;
    }
    let claims = Claims::build(store, runs)?;
    print(&render_claims(&claims, format))?;
    Ok(if claims.any_fails() {
        Exit::Regression
    } else if claims.is_incomplete() {
        Exit::Trial
    } else {
        Exit::Fine
    })
}
