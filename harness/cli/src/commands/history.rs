//! `history`: shows a metric of a network over runs and revisions.

use crate::output::print;
use ::report::{HistoryFormat, render_history};
use analysis::history::{History, HistoryError, HistoryQuery};
use campaign::Paths;
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use domain::Metric;
use host::exit::{Exit, Failure, Outcome};
use store::{Access, Store};

/// Options of `history`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Network to show.
    #[arg(long, value_name = "NAME")]
    network: String,
    /// Only runs on this board.
    #[arg(long, value_name = "NAME")]
    board: Option<String>,
    /// Only these schedules: a kind (single, merged, pipeline, replicate, peer), processors ("cpu0 > cpu1") or a whole
    /// label. If several pipelines of a run match, the fastest one is shown.
    #[arg(long, value_name = "SCHEDULE")]
    schedule: Option<String>,
    /// Metric to show: the median over the trials of each run.
    #[arg(long, value_name = "METRIC", default_value = "throughput", value_parser = metrics())]
    measure: Metric,
    /// Output format. The schema of json is results/history.schema.json.
    #[arg(long, value_enum, default_value_t = HistoryFormat::Terminal)]
    format: HistoryFormat,
}

fn metrics() -> impl TypedValueParser<Value = Metric> {
    let values = Metric::FOLLOWED.map(|metric| {
        let figure = match metric {
            Metric::Throughput => "Throughput",
            Metric::Sustained => "Highest sustained rate of a stream",
            Metric::LatencyP50 => "Median latency",
            Metric::LatencyP90 => "90th percentile of the latency",
            Metric::LatencyP99 => "99th percentile of the latency",
            Metric::Delivered => "Share of the frames of a stream that are not dropped",
            Metric::OnTime => "Share of the frames of a stream with a result before the deadline",
            Metric::Age => "Mean age of the newest result of a stream",
            Metric::EnergyPerFrame => "Energy per frame",
            Metric::Power => "Mean power",
        };
        PossibleValue::new(metric.short_name()).help(format!("{figure}, in {}", metric.unit()))
    });
    PossibleValuesParser::new(values).try_map(|name| Metric::from_short_name(&name).ok_or("unknown metric"))
}

/// # Errors
/// With the exit code of the failure.
pub(crate) fn run(paths: &Paths, arguments: &Arguments) -> Outcome<Exit> {
    let store = Store::open(&paths.database, Access::ReadOnly)?;
    let query = HistoryQuery {
        network: arguments.network.clone(),
        board: arguments.board.clone(),
        schedule: arguments.schedule.clone(),
        metric: arguments.measure,
    };
    let history = History::build(&store, &query).map_err(|error| match error {
        HistoryError::Store(error) => error.into(),
        nothing @ HistoryError::Nothing { .. } => Failure::new(Exit::Usage, nothing),
    })?;
    print(&render_history(&history, arguments.format)).map(|()| Exit::Fine)
}
