//! The rounds that boards share, without those that earlier runs of the campaign have measured.

use super::job::Job;
use crate::measure::{MAX_ROUNDS, is_narrow};
use crate::profile::ProfileRecords;
use crate::round_queue::RoundQueue;
use analysis::CampaignReport;
use domain::precision;
use host::exit::Outcome;
use host::interrupt::Interrupt;
use host::progress;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use store::{self, Access, CampaignRecord, Store, StoreError, StoredRun};

/// A queue of the rounds that are not measured yet.
pub(super) fn round_queue(
    record: &CampaignRecord,
    jobs: &[Job],
    interrupt: &Interrupt,
    store: &Store,
) -> Outcome<RoundQueue> {
    let (mut done, mut parts) = (BTreeSet::new(), BTreeMap::new());
    let mut profiles: Option<ProfileRecords> = None;
    let mut is_planned = false;
    for (board, run) in jobs.iter().enumerate().filter_map(|(board, job)| Some((board, job.resume.as_ref()?)))
    {
        let (whole, part) = rounds_of(store, run)?;
        done.extend(whole);
        parts.extend(part.into_iter().map(|round| (round, board)));
        let found = ProfileRecords::read(store, run)?;
        is_planned |= !store.schedules(run)?.is_empty();
        if profiles.as_ref().is_none_or(|known: &ProfileRecords| known.profiles.len() < found.profiles.len())
        {
            profiles = Some(found);
        }
    }
    // Schedules are recorded after all profiles.
    let profiles = profiles.filter(|_| is_planned);
    parts.retain(|round, _| !done.contains(round));
    let experiment = &jobs[0].loaded.experiment;
    let queue = RoundQueue::new(interrupt.clone(), jobs.len(), experiment.trials, &done, &parts);
    if let Some(profiles) = profiles {
        queue.share_profiles(profiles);
    }
    let Some(wanted) = experiment.precision else { return Ok(queue) };
    let (path, id, max_time) = (store.path().to_owned(), record.id.clone(), experiment.max_time);
    let start = Instant::now();
    Ok(queue.until(Box::new(move |rounds| {
        let pooled = || {
            let store = Store::open(&path, Access::ReadOnly)?;
            let report = CampaignReport::build(&store, id.as_str(), &BTreeMap::new())?;
            report.pooled.ok_or_else(|| StoreError::Empty { path: path.clone() })
        };
        if rounds >= precision::FEWEST_ROUNDS && is_narrow(pooled(), rounds, wanted) {
            progress::say("refine", &format!("±{:.1} % reached after {rounds} rounds", 100.0 * wanted));
            return false;
        }
        let is_over = start.elapsed() >= max_time || rounds >= MAX_ROUNDS;
        if is_over {
            let minutes = start.elapsed().as_secs_f64() / 60.0;
            let result =
                format!("±{:.1} % not reached in {minutes:.1} minutes and {rounds} rounds", 100.0 * wanted);
            progress::say("refine", &result);
        }
        !is_over
    })))
}

/// Rounds of which a run has every trial, and rounds of which it has some.
fn rounds_of(store: &Store, run: &StoredRun) -> Result<(BTreeSet<u32>, BTreeSet<u32>), StoreError> {
    let wrong: BTreeSet<u32> = store
        .comparisons(run)?
        .iter()
        .filter(|comparison| !comparison.within_tolerance())
        .map(|comparison| comparison.schedule)
        .collect();
    let wanted: BTreeSet<u32> = store
        .schedules(run)?
        .iter()
        .map(|schedule| schedule.place)
        .filter(|place| !wrong.contains(place))
        .collect();
    let mut measured: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    store.each_brief_trial(run, |trial| {
        if matches!(trial.outcome, store::Outcome::Measured(_)) {
            measured.entry(trial.round).or_default().insert(trial.schedule);
        }
    })?;
    let (whole, part): (Vec<_>, Vec<_>) =
        measured.into_iter().partition(|(_, places)| wanted.is_subset(places));
    let rounds = |of: Vec<(u32, BTreeSet<u32>)>| of.into_iter().map(|(round, _)| round).collect();
    Ok((rounds(whole), rounds(part)))
}
