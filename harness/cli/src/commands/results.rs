//! `cargo xtask results`: what is in the database, and results of other hosts brought into it.

use crate::output::print;
use analysis::{Report, Row};
use clap::{Args, Subcommand};
use host::date::Date;
use host::exit::{Exit, Outcome};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use store::{Access, ImportStatus, Merged, RunFilter, Store, StoredRun};
use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::style::HorizontalLine;
use tabled::settings::{Alignment, Padding, Style};

/// What to do with results.
#[derive(Debug, Subcommand)]
pub(crate) enum Arguments {
    /// List the runs and their numbers of trials, the latest first.
    List(ListRuns),
    /// Import runs from databases of other hosts; runs that are already present are skipped.
    Import(Import),
}

/// Options of `results list`.
#[derive(Debug, Args)]
pub(crate) struct ListRuns {
    /// Only runs on this board.
    #[arg(long, value_name = "NAME")]
    board: Option<String>,
    /// Only runs of this experiment.
    #[arg(long, value_name = "NAME")]
    experiment: Option<String>,
    /// Only runs with this network.
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
}

/// Options of `results import`.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Databases to import from; they are not changed.
    #[arg(value_name = "OTHER.db", required = true)]
    others: Vec<PathBuf>,
    /// Show what would be imported, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command and prints what it did.
///
/// # Errors
/// If a database cannot be read or written.
pub(crate) fn run(database: &Path, arguments: &Arguments) -> Outcome<Exit> {
    let text = match arguments {
        Arguments::List(options) => list(database, options),
        Arguments::Import(options) => import(database, options),
    };
    print(&text?)?;
    Ok(Exit::Fine)
}

fn list(database: &Path, options: &ListRuns) -> Outcome<String> {
    let store = Store::open(database, Access::ReadOnly)?;
    let filter = RunFilter {
        board: options.board.clone(),
        experiment: options.experiment.clone(),
        network: options.network.clone(),
        ..RunFilter::default()
    };
    let mut builder = Builder::default();
    builder.push_record([
        "run",
        "begun",
        "status",
        "experiment",
        "board",
        "revision",
        "trials",
        "failed",
        "void",
        "void rows",
    ]);
    let runs = store.summaries(&filter)?;
    let count = runs.len();
    for summary in runs {
        let run = store.run(summary.id.as_str())?;
        let report = Report::build(&store, &summary.id)?;
        builder.push_record([
            summary.id.to_string(),
            Date::from_unix_ns(summary.begun_unix_ns).to_minutes(),
            summary.status.to_string(),
            summary.experiment,
            summary.board,
            revision(&run),
            summary.measured.to_string(),
            summary.failed.to_string(),
            report.rows.iter().map(|row| row.trials_void).sum::<usize>().to_string(),
            format!("{} of {}", report.rows.iter().filter(|row| is_void(row)).count(), report.rows.len()),
        ]);
    }
    if count == 0 {
        return Ok("no run found\n".to_owned());
    }
    let mut table = builder.build();
    table
        .with(Style::empty().horizontals([(1, HorizontalLine::new('─'))]))
        .with(Padding::new(0, 2, 0, 0))
        .modify(Columns::new(6..), Alignment::right())
        .modify(Columns::last(), Padding::zero());
    let lines = table.to_string();
    Ok(lines.lines().flat_map(|line| [line.trim_end(), "\n"]).collect())
}

fn is_void(row: &Row) -> bool {
    row.verdict == domain::Validity::Void
}

/// The short commit, with a star if files differed from it.
fn revision(run: &StoredRun) -> String {
    run.start.revision.as_ref().map_or_else(
        || "–".to_owned(),
        |revision| {
            let commit: String = revision.commit.chars().take(9).collect();
            commit + if revision.dirty { "*" } else { "" }
        },
    )
}

fn import(database: &Path, options: &Import) -> Outcome<String> {
    let store = Store::open(database, Access::ReadWrite)?;
    let mut text = String::new();
    for other in &options.others {
        let import = store.read_other(other)?;
        let merged = if options.dry_run { store.compare_with(&import) } else { store.merge(&import) };
        describe(&mut text, other, &merged?, options.dry_run);
    }
    Ok(text)
}

fn describe(text: &mut String, other: &Path, merged: &[Merged], dry_run: bool) {
    let mut counts = BTreeMap::new();
    for Merged { run, status } in merged {
        *counts.entry(*status as u8).or_insert(0) += 1;
        let done = match (status, dry_run) {
            (ImportStatus::New, false) => "added",
            (ImportStatus::New, true) => "would be added",
            (ImportStatus::Extended, false) => "completed",
            (ImportStatus::Extended, true) => "would be completed",
            (ImportStatus::Present, _) => continue,
        };
        let (start, status) = (&run.start, run.status);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}  {done}: {} on {}, host {}, {status}",
            start.id, start.experiment, start.board, start.host
        );
    }
    let count = |status: ImportStatus| counts.get(&(status as u8)).copied().unwrap_or(0);
    let (added, completed) = if dry_run { ("to add", "to complete") } else { ("added", "completed") };
    let _ = writeln!(
        text,
        "{}: {} runs {added}, {} {completed}, {} already present",
        other.display(),
        count(ImportStatus::New),
        count(ImportStatus::Extended),
        count(ImportStatus::Present)
    );
}
