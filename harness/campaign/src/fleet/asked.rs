//! What `bench` is asked to do: on one board or on several, from the beginning or further.

use super::{Job, Several};
use crate::Paths;
use config::{self, Loaded};
use domain::FleetMode;
use host::date::unix_ns;
use host::exit::{Ending as _, Exit, Failure, Outcome};
use std::path::Path;
use store::{CampaignRecord, RunId, Store, StoredCampaign, StoredRun};

/// What a command line asks `bench` for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Boards or groups.
    pub boards: Vec<String>,
    /// How several boards share the trials; `None`: as the group's file says.
    pub mode: Option<FleetMode>,
    /// Name of the experiment.
    pub experiment: String,
    /// Changes to the experiment's file.
    pub overrides: config::Overrides,
    /// The run to continue: its name, or `latest`.
    pub resume: Option<String>,
}

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
pub fn asked(store: &Store, paths: &Paths, options: &Request) -> Outcome<Asked> {
    let asked = match options.resume.as_deref() {
        None => fresh(&paths.settings, options)?,
        Some("latest") => latest(store, paths, options)?,
        Some(name) => named(store, &paths.settings, name)?,
    };
    Ok(asked)
}

fn fresh(root: &Path, options: &Request) -> Outcome<Asked> {
    let (mut all, mode) =
        config::load_several(root, &options.boards, options.mode, &options.experiment, &options.overrides)
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
        mode: mode.unwrap_or(FleetMode::Repeat),
        boards: all.iter().map(|loaded| loaded.board.name.clone()).collect(),
    };
    let jobs = all.into_iter().map(|loaded| Job { loaded, before: None }).collect();
    Ok(Asked::Several(Several { record, jobs }))
}

fn latest(store: &Store, paths: &Paths, options: &Request) -> Outcome<Asked> {
    let experiment = &options.experiment;
    let boards = config::boards_of(&paths.settings, &options.boards).ending(Exit::Usage)?;
    let nothing = || {
        Failure::new(
            Exit::Usage,
            format!(
                "failed to find an unfinished run of the experiment {experiment} on the board{} {}; `{program} \
                 report --list` shows all runs",
                if boards.len() > 1 { "s" } else { "" },
                boards.join(", "),
                program = host::program()
            ),
        )
    };
    if let [board] = boards.as_slice() {
        let found = store.unfinished_run(experiment, board, &paths.runs)?;
        return one(found.ok_or_else(nothing)?);
    }
    let found = store.unfinished_campaign(experiment, &boards, &paths.runs)?;
    further(&paths.settings, found.ok_or_else(nothing)?)
}

fn named(store: &Store, root: &Path, name: &str) -> Outcome<Asked> {
    if let Some(campaign) = store.campaign(name)? {
        return further(root, campaign);
    }
    let run = store.run(name)?;
    let Some(record) = &run.start.campaign else { return one(run) };
    // A board that shares rounds with others cannot go on alone.
    match store.campaign(record.id.as_str())? {
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
        let job: Option<Outcome<Job>> = place.map(|place| {
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
