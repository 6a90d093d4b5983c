//! `report`: prints the table of an earlier run.

use super::bench::{build, check_format};
use crate::output::{deliver, is_wide, print};
use ::report::{Format, render, render_campaign};
use analysis::{CampaignReport, Report, Row};
use campaign::Paths;
use clap::Args;
use domain::{ScheduleKind, Validity};
use host::exit::{Exit, Failure, Outcome};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use store::{Access, CampaignRecord, RunFilter, Store};

/// Options of `report`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Run, or campaign of several boards, to report. Default: `latest`.
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Write to this file instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// List the runs in the database instead.
    #[arg(long, conflicts_with_all = ["run", "output", "format"])]
    list: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Terminal)]
    format: Format,
    /// Write the timeline of a trial for Perfetto (<https://ui.perfetto.dev>) instead. Default: the
    /// fastest pipeline, and its trial with the throughput nearest to the median.
    #[arg(long, conflicts_with_all = ["format", "list"])]
    trace: bool,
    /// Network to trace.
    #[arg(long, value_name = "NAME", requires = "trace")]
    network: Option<String>,
    /// Schedule to trace: its number or its label.
    #[arg(long, value_name = "SCHEDULE", requires = "trace")]
    schedule: Option<String>,
    /// Trial to trace: its round, from 1.
    #[arg(long, value_name = "ROUND", requires = "trace")]
    trial: Option<u32>,
}

/// # Errors
/// With the exit code of the failure.
pub(crate) fn run(paths: &Paths, arguments: &Arguments) -> Outcome<Exit> {
    let database = &paths.database;
    let store = Store::open(database, Access::ReadOnly)?;
    if arguments.list {
        return list(&store);
    }
    let asked = arguments.run.as_deref().filter(|asked| *asked != "latest");
    let stored = if let Some(asked) = asked {
        if let Some(campaign) = store.campaign(asked)? {
            return of_campaign(&store, &campaign.record, arguments);
        }
        store.run(asked)?
    } else {
        let filter = RunFilter { measured: true, ..RunFilter::default() };
        store.latest_run(&filter)?.ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                format!(
                    "failed to find any run in {}; run `{program} bench` first",
                    database.display(),
                    program = host::program()
                ),
            )
        })?
    };
    if let (None, false, Some(campaign)) = (asked, arguments.trace, &stored.start.campaign) {
        return of_campaign(&store, campaign, arguments);
    }
    let report = build(&store, &stored.start.id, arguments.format)?;
    if arguments.trace {
        return deliver(arguments.output.as_deref(), &trace(&store, &report, arguments)?)
            .map(|()| Exit::Fine);
    }
    let wide = arguments.output.is_none() && is_wide();
    deliver(arguments.output.as_deref(), &render(&report, arguments.format, wide))?;
    Ok(Exit::Fine)
}

/// The report of a campaign.
fn of_campaign(store: &Store, campaign: &CampaignRecord, arguments: &Arguments) -> Outcome<Exit> {
    if arguments.trace {
        return Err(Failure::new(
            Exit::Usage,
            format!("failed to trace the campaign {}: specify the run of one of its boards", campaign.id),
        ));
    }
    check_format(campaign.mode, arguments.format)?;
    let report = CampaignReport::build(store, campaign.id.as_str(), &BTreeMap::new())?;
    let wide = arguments.output.is_none() && is_wide();
    deliver(arguments.output.as_deref(), &render_campaign(&report, arguments.format, wide))?;
    Ok(Exit::Fine)
}

/// The timeline asked for.
fn trace(store: &Store, report: &Report, arguments: &Arguments) -> Outcome<String> {
    let asked_for = |row: &&Row| {
        arguments.network.as_ref().is_none_or(|network| row.network == *network)
            && arguments
                .schedule
                .as_ref()
                .is_none_or(|schedule| row.schedule == *schedule || row.place.to_string() == *schedule)
    };
    let rank = |row: &Row| {
        let fps = row.throughput_fps.map_or(0.0, |fps| fps.point);
        (row.verdict == Validity::Valid, row.kind == ScheduleKind::Pipeline, fps)
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
    let asked = arguments.trial.map(|round| {
        let from_zero = round.checked_sub(1);
        from_zero.ok_or_else(|| absent("rounds are numbered from 1"))
    });
    let asked = asked.transpose()?;
    let round = asked.or(row.typical_round).ok_or_else(|| absent("it has no measured trial"))?;
    let run = store.run(&report.run.id)?;
    let trial = store.last_trial(&run, row.place, round)?;
    let trial = trial.ok_or_else(|| {
        absent(&format!(
            "it has no trial in round {}; {} rounds were planned",
            round + 1,
            report.run.trials_planned
        ))
    })?;
    ::report::trace(report, row, &trial).map_err(|why| absent(&why))
}

fn list(store: &Store) -> Outcome<Exit> {
    let mut text = String::new();
    for id in store.runs(&RunFilter::default())? {
        let run = store.run(id.as_str())?;
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
