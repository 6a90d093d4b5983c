//! Resolves what `bench` is to do: on one board or several, a new run or a resumed one.

use super::job::{FleetJob, Job};
use crate::paths::Paths;
use boards::farm::PlaceInfo;
use config::{self, Connect, Kind, Loaded};
use domain::FleetMode;
use host::date::unix_ns;
use host::exit::{Ending as _, Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use std::path::Path;
use store::{CampaignRecord, RunId, Store, StoredCampaign, StoredRun};

/// The options of `bench`.
#[derive(Debug, Clone)]
pub struct BenchRequest {
    /// Names of boards or groups.
    pub boards: Vec<String>,
    /// Name of a board whose file asks for any free place of a farm; instead of `boards`, all its places share the rounds.
    pub farm: Option<String>,
    /// How several boards share the trials; `None` for the group's own mode.
    pub mode: Option<FleetMode>,
    /// Name of the experiment.
    pub experiment: String,
    /// Changes to the experiment's file.
    pub overrides: config::Overrides,
    /// The run to resume: its name, or `latest`.
    pub resume: Option<String>,
}

/// What `bench` is to do.
#[derive(Debug)]
pub enum BenchJob {
    /// A run on one board.
    One {
        /// Its configuration.
        loaded: Box<Loaded>,
        /// The run to resume.
        resume: Option<RunId>,
    },
    /// A run on each of several.
    Several(FleetJob),
}

/// Reads the configuration, or finds the run to resume.
///
/// # Errors
/// All faults of files and arguments; if there is no run to resume.
pub fn resolve(store: &Store, paths: &Paths, options: &BenchRequest) -> Outcome<BenchJob> {
    let job = match options.resume.as_deref() {
        None if options.farm.is_some() => new_on_farm(paths, options)?,
        None => new(&paths.settings, options)?,
        Some("latest") => latest(store, paths, options)?,
        Some(name) => by_name(store, &paths.settings, name)?,
    };
    let experiment = match &job {
        BenchJob::One { loaded, .. } => Some(&loaded.experiment),
        BenchJob::Several(fleet) => fleet.jobs.first().map(|job| &job.loaded.experiment),
    };
    if let Some(experiment) = experiment.filter(|experiment| experiment.search.is_some()) {
        let resume = match &job {
            BenchJob::One { resume: Some(run), .. } => format!("--resume {run}"),
            _ => format!("--experiment {}", experiment.name),
        };
        let message = format!(
            "failed to bench the experiment {}: it is a search for the best schedules; use `{} optimize {resume}`",
            experiment.name,
            host::program()
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(job)
}

fn new(root: &Path, options: &BenchRequest) -> Outcome<BenchJob> {
    let (mut all, mode) =
        config::load_several(root, &options.boards, options.mode, &options.experiment, &options.overrides)
            .ending(Exit::Usage)?;
    if all.len() < 2
        && let Some(loaded) = all.pop()
    {
        if options.mode.is_some() {
            let message = "failed to use --mode: it needs several boards, and only one was given";
            return Err(Failure::new(Exit::Usage, message));
        }
        return Ok(BenchJob::One { loaded: Box::new(loaded), resume: None });
    }
    let record = CampaignRecord {
        id: RunId::new(unix_ns()),
        mode: mode.unwrap_or(FleetMode::Repeat),
        boards: all.iter().map(|loaded| loaded.board.name.clone()).collect(),
    };
    let jobs = all.into_iter().map(|loaded| Job { loaded, resume: None }).collect();
    Ok(BenchJob::Several(FleetJob { record, jobs }))
}

/// All places that the file of a board asks for, each as a board of its own.
fn new_on_farm(paths: &Paths, options: &BenchRequest) -> Outcome<BenchJob> {
    let name = options.farm.as_deref().unwrap_or_default();
    let loaded =
        config::load(&paths.settings, name, &options.experiment, &options.overrides).ending(Exit::Usage)?;
    let wrong =
        |message: String| Failure::new(Exit::Usage, format!("failed to use --farm {name}: {message}"));
    let Connect::Labgrid(farm) = &loaded.board.connect else {
        return Err(wrong("its file has no connect: { labgrid: … }; use `--board`".to_owned()));
    };
    if let Some(place) = farm.place() {
        let message = format!(
            "its file names the place {place}; replace `place` with `match` and the tags that equal boards share"
        );
        return Err(wrong(message));
    }
    paths.prepare_farm()?;
    let places = boards::farm::matching(&paths.python, farm, &Interrupt::default())?;
    let member = |place: &PlaceInfo| {
        let member = on_place(&loaded.board, &place.name);
        let member = member.ok_or_else(|| {
            wrong(format!(
                "the place name {:?} is not a valid board name; rename the place on the coordinator",
                place.name
            ))
        })?;
        Ok(Job { loaded: Loaded { board: member, experiment: loaded.experiment.clone() }, resume: None })
    };
    let jobs = places.iter().map(member).collect::<Outcome<Vec<Job>>>()?;
    let boards = jobs.iter().map(|job| job.board().to_owned()).collect();
    let record = CampaignRecord { id: RunId::new(unix_ns()), mode: FleetMode::Spread, boards };
    Ok(BenchJob::Several(FleetJob { record, jobs }))
}

/// A place of a farm as a board of its own, whose name is that of the file and of the place.
pub(super) fn on_place(board: &config::Board, place: &str) -> Option<config::Board> {
    let mut member = config::Board { name: format!("{}.{place}", board.name), ..board.clone() };
    let Connect::Labgrid(farm) = &mut member.connect else { return None };
    farm.settle(place);
    config::is_name(&member.name).then_some(member)
}

/// The board of a campaign that has no run yet, by its name: that of a file, or of a place of a farm.
fn without_run(root: &Path, name: &str) -> Outcome<config::Board> {
    let files = config::names(root, Kind::Board);
    let file = files.iter().filter(|_| !files.iter().any(|file| file == name));
    let on_farm = file.filter_map(|file| Some((file, name.strip_prefix(file.as_str())?.strip_prefix('.')?)));
    if let Some((file, place)) = on_farm.max_by_key(|(file, _)| file.len())
        && let Some(member) = on_place(&config::load_board(root, file).ending(Exit::Usage)?, place)
    {
        return Ok(member);
    }
    config::load_board(root, name).ending(Exit::Usage)
}

fn latest(store: &Store, paths: &Paths, options: &BenchRequest) -> Outcome<BenchJob> {
    let experiment = &options.experiment;
    let boards = config::boards_of(&paths.settings, &options.boards).ending(Exit::Usage)?;
    let nothing = || {
        Failure::new(
            Exit::Usage,
            format!(
                "failed to find an unfinished run of the experiment {experiment} on the board{} {}; `{program} \
                 report --list` lists all runs",
                if boards.len() > 1 { "s" } else { "" },
                boards.join(", "),
                program = host::program()
            ),
        )
    };
    if let [board] = boards.as_slice() {
        let found = store.unfinished_run(experiment, board, &paths.runs)?;
        return run_job(found.ok_or_else(nothing)?);
    }
    let found = store.unfinished_campaign(experiment, &boards, &paths.runs)?;
    campaign_job(&paths.settings, found.ok_or_else(nothing)?)
}

fn by_name(store: &Store, root: &Path, name: &str) -> Outcome<BenchJob> {
    if let Some(campaign) = store.campaign(name)? {
        return campaign_job(root, campaign);
    }
    let run = store.run(name)?;
    let Some(record) = &run.start.campaign else { return run_job(run) };
    // A board that shares rounds with others cannot be resumed alone.
    match store.campaign(record.id.as_str())? {
        Some(campaign) => campaign_job(root, campaign),
        None => run_job(run),
    }
}

fn run_job(run: StoredRun) -> Outcome<BenchJob> {
    let loaded = Loaded::from_yaml(&run.start.configuration).ending(Exit::Usage)?;
    Ok(BenchJob::One { loaded: Box::new(loaded), resume: Some(run.start.id) })
}

/// All boards of a campaign. A board without a run gets a new one, with the experiment of the others.
fn campaign_job(root: &Path, campaign: StoredCampaign) -> Outcome<BenchJob> {
    let StoredCampaign { record, mut runs } = campaign;
    let mut jobs: Vec<Option<Job>> = Vec::new();
    let mut experiment = None;
    for board in &record.boards {
        let place = runs.iter().position(|run| run.start.board == *board);
        let job: Option<Outcome<Job>> = place.map(|place| {
            let run = runs.remove(place);
            let loaded = Loaded::from_yaml(&run.start.configuration).ending(Exit::Usage)?;
            experiment = Some(loaded.experiment.clone());
            Ok(Job { loaded, resume: Some(run) })
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
        let board = without_run(root, board)?;
        Ok(Job { loaded: Loaded { board, experiment: experiment.clone() }, resume: None })
    });
    let jobs = complete.collect::<Outcome<Vec<Job>>>()?;
    Ok(BenchJob::Several(FleetJob { record, jobs }))
}
