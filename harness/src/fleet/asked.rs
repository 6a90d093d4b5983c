//! What `bench` is asked to do: on one board or on several, from the beginning or further.

use super::{Job, Mode, Several};
use crate::campaign::{Paths, store_failure};
use crate::cli::{self, Format};
use crate::config::{self, Loaded};
use crate::exit::{Ending as _, Exit, Failure, Outcome};
use crate::store::{CampaignRecord, RunId, Store, StoredCampaign, StoredRun, unix_ns};
use std::path::Path;

/// What `bench` is to do.
#[derive(Debug)]
pub enum Asked {
    /// A run on one board.
    One {
        /// Its configuration.
        loaded: Box<Loaded>,
        /// The run to go on with.
        before: Option<RunId>,
    },
    /// A run on each of several.
    Several(Several),
}

/// Reads the configuration, or finds what is to go on.
///
/// # Errors
/// With all that is wrong with files or arguments; where there is nothing to go on with.
pub fn asked(store: &Store, paths: &Paths, options: &cli::Bench) -> Outcome<Asked> {
    let asked = match options.resume.as_deref() {
        None => fresh(&paths.root, options)?,
        Some("latest") => latest(store, paths, options)?,
        Some(name) => named(store, &paths.root, name)?,
    };
    if let Asked::Several(several) = &asked {
        check_format(several.record.mode, options.format).map_err(|why| Failure::new(Exit::Usage, why))?;
    }
    Ok(asked)
}

/// Whether a format can show what several boards did.
///
/// # Errors
/// Why it cannot.
pub fn check_format(mode: Mode, format: Format) -> Result<(), String> {
    let is_of_one_run = matches!(format, Format::Html | Format::Latex | Format::LatexTable | Format::Paper);
    if mode == Mode::Repeat && is_of_one_run {
        return Err("failed to choose a format: html, latex, latex-table and paper show one run, and these boards \
                    make one each; take terminal, markdown, csv or json, and `cargo xtask report --run RUN` for each"
            .to_owned());
    }
    Ok(())
}

fn fresh(root: &Path, options: &cli::Bench) -> Outcome<Asked> {
    let what = &options.what;
    let (mut all, mode) =
        config::load_several(root, &options.boards, options.mode, &what.experiment, &what.overrides())
            .ending(Exit::Usage)?;
    if all.len() < 2
        && let Some(loaded) = all.pop()
    {
        if options.mode.is_some() {
            let message =
                "failed to read the command line: --mode is for several boards, and one is asked for";
            return Err(Failure::new(Exit::Usage, message));
        }
        return Ok(Asked::One { loaded: Box::new(loaded), before: None });
    }
    let record = CampaignRecord {
        id: RunId::new(unix_ns()),
        mode: mode.unwrap_or(Mode::Repeat),
        boards: all.iter().map(|loaded| loaded.board.name.clone()).collect(),
    };
    let jobs = all.into_iter().map(|loaded| Job { loaded, before: None }).collect();
    Ok(Asked::Several(Several { record, jobs }))
}

fn latest(store: &Store, paths: &Paths, options: &cli::Bench) -> Outcome<Asked> {
    let experiment = &options.what.experiment;
    let boards = config::boards_of(&paths.root, &options.boards).ending(Exit::Usage)?;
    let nothing = || {
        Failure::new(
            Exit::Usage,
            format!(
                "failed to find an unfinished run of the experiment {experiment} on the board{} {}; `cargo xtask \
                 report --list` shows all runs",
                if boards.len() > 1 { "s" } else { "" },
                boards.join(", ")
            ),
        )
    };
    if let [board] = boards.as_slice() {
        let found = store.unfinished_run(experiment, board, &paths.runs).map_err(store_failure)?;
        return one(found.ok_or_else(nothing)?);
    }
    let found = store.unfinished_campaign(experiment, &boards, &paths.runs).map_err(store_failure)?;
    further(&paths.root, found.ok_or_else(nothing)?)
}

fn named(store: &Store, root: &Path, name: &str) -> Outcome<Asked> {
    if let Some(campaign) = store.campaign(name).map_err(store_failure)? {
        return further(root, campaign);
    }
    let run = store.run(name).map_err(store_failure)?;
    let Some(record) = &run.start.campaign else { return one(run) };
    // A board that shares rounds with others cannot go on alone.
    match store.campaign(record.id.as_str()).map_err(store_failure)? {
        Some(campaign) => further(root, campaign),
        None => one(run),
    }
}

fn one(run: StoredRun) -> Outcome<Asked> {
    let loaded = Loaded::from_yaml(&run.start.configuration).ending(Exit::Usage)?;
    Ok(Asked::One { loaded: Box::new(loaded), before: Some(run.start.id) })
}

/// All boards of a campaign; one that had no run yet gets its first, with the experiment of the others.
fn further(root: &Path, campaign: StoredCampaign) -> Outcome<Asked> {
    let StoredCampaign { record, mut runs } = campaign;
    let mut jobs: Vec<Option<Job>> = Vec::new();
    let mut experiment = None;
    for board in &record.boards {
        let place = runs.iter().position(|run| run.start.board == *board);
        let job = place.map(|place| {
            let run = runs.remove(place);
            let loaded = Loaded::from_yaml(&run.start.configuration).ending(Exit::Usage)?;
            experiment = Some(loaded.experiment.clone());
            Ok(Job { loaded, before: Some(run) })
        });
        jobs.push(job.transpose()?);
    }
    let Some(experiment) = experiment else {
        return Err(Failure::new(Exit::Usage, format!("failed to find a run of the campaign {}", record.id)));
    };
    let complete = record.boards.iter().zip(jobs).map(|(board, job)| {
        if let Some(job) = job {
            return Ok(job);
        }
        let board = config::load_board(root, board).ending(Exit::Usage)?;
        Ok(Job { loaded: Loaded { board, experiment: experiment.clone() }, before: None })
    });
    let jobs = complete.collect::<Outcome<Vec<Job>>>()?;
    Ok(Asked::Several(Several { record, jobs }))
}
