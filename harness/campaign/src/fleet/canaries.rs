//! `farm --canary`: a short run on each free place, whose figures are compared with those of earlier ones.

use super::job::{FleetJob, Job};
use super::request::on_place;
use crate::paths::Paths;
use boards::farm::{self, PlaceInfo};
use config::{Connect, Labgrid, Loaded, Overrides};
use domain::FleetMode;
use host::date::unix_ns;
use host::exit::{Ending as _, Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use std::collections::BTreeSet;
use store::{CampaignRecord, RunId};

/// The experiment that is run.
const EXPERIMENT: &str = "canary";

/// What `farm --canary` is to do.
#[derive(Debug, Default)]
pub struct Canaries {
    /// The runs; absent if no place is free.
    pub job: Option<FleetJob>,
    /// Places that are not measured, because they are not free.
    pub left_out: Vec<PlaceInfo>,
    /// The coordinators, as `HOST:PORT`.
    pub coordinators: BTreeSet<String>,
    /// Places that are measured, as `PLACE of HOST:PORT`.
    pub measured: BTreeSet<String>,
}

/// A run on each free place that the files of these boards ask for.
///
/// # Errors
/// All faults of the files; if a coordinator does not answer, or has no such place.
pub fn canaries(paths: &Paths, names: &[String], interrupt: &Interrupt) -> Outcome<Canaries> {
    let mut found = Canaries::default();
    let mut known = BTreeSet::new();
    let mut jobs = Vec::new();
    for name in names {
        let loaded =
            config::load(&paths.settings, name, EXPERIMENT, &Overrides::default()).ending(Exit::Usage)?;
        let wrong =
            |message: &str| Failure::new(Exit::Usage, format!("failed to use --canary {name}: {message}"));
        let Connect::Labgrid(wanted) = &loaded.board.connect else {
            return Err(wrong("its file has no connect: { labgrid: … }; measure it with `bench --board`"));
        };
        paths.prepare_farm()?;
        found.coordinators.insert(wanted.coordinator());
        for place in farm::matching(&paths.python, wanted, interrupt)? {
            let full = format!("{} of {}", place.name, wanted.coordinator());
            if !known.insert(full.clone()) {
                continue;
            }
            if !place.is_free() {
                found.left_out.push(place);
                continue;
            }
            let Some(board) = on(&loaded.board, wanted, &place) else {
                return Err(wrong(&format!(
                    "the place name {:?} is not a valid board name; rename the place on the coordinator",
                    place.name
                )));
            };
            found.measured.insert(full);
            jobs.push(Job { loaded: Loaded { board, experiment: loaded.experiment.clone() }, resume: None });
        }
    }
    if !jobs.is_empty() {
        let boards = jobs.iter().map(|job| job.board().to_owned()).collect();
        let record = CampaignRecord { id: RunId::new(unix_ns()), mode: FleetMode::Repeat, boards };
        found.job = Some(FleetJob { record, jobs });
    }
    Ok(found)
}

/// A place as a board. It is not waited for if somebody else was faster.
fn on(board: &config::Board, wanted: &Labgrid, place: &PlaceInfo) -> Option<config::Board> {
    let mut member = on_place(board, &place.name)?;
    if wanted.place().is_some() {
        member.name.clone_from(&board.name);
    }
    if let Connect::Labgrid(farm) = &mut member.connect {
        farm.never_wait();
    }
    Some(member)
}
