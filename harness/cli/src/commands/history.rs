//! `history`: shows a metric of a network over runs and revisions.

use crate::output::print;
use ::report::{HistoryFormat, render_history};
use analysis::history::{Asked, History, HistoryError, Measure};
use campaign::Paths;
use clap::Args;
use host::exit::{Exit, Failure, Outcome};
use store::{Access, Store};

/// Options of `history`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Network to follow.
    #[arg(long, value_name = "NAME")]
    network: String,
    /// Only runs on this board.
    #[arg(long, value_name = "NAME")]
    board: Option<String>,
    /// Only these schedules: a kind (single, pipeline, replicate), processors ("cpu0 > cpu1"), or all of a label. Of
    /// several pipelines in a run, the fastest one is taken.
    #[arg(long, value_name = "SCHEDULE")]
    schedule: Option<String>,
    /// What is followed.
    #[arg(long, value_enum, default_value_t = Measure::Throughput)]
    measure: Measure,
    /// How it is printed; the schema of json is results/history.schema.json.
    #[arg(long, value_enum, default_value_t = HistoryFormat::Terminal)]
    format: HistoryFormat,
}

/// # Errors
/// With the exit code of the failure.
pub(crate) fn run(paths: &Paths, arguments: &Arguments) -> Outcome<Exit> {
    let store = Store::open(&paths.database, Access::ReadOnly)?;
    let asked = Asked {
        network: arguments.network.clone(),
        board: arguments.board.clone(),
        schedule: arguments.schedule.clone(),
        measure: arguments.measure,
    };
    let history = History::build(&store, &asked).map_err(|error| match error {
        HistoryError::Store(error) => error.into(),
        nothing @ HistoryError::Nothing { .. } => Failure::new(Exit::Usage, nothing),
    })?;
    print(&render_history(&history, arguments.format)).map(|()| Exit::Fine)
}
