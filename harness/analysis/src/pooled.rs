//! Trials of equal boards that shared the rounds, as one: a round is measured on one board as a whole, so gains, which
//! are taken within rounds, hold whatever board it was.

use super::measurements::Measurements;
use domain::{ReasonCode, Severity};
use std::collections::{BTreeMap, BTreeSet};
use store::StoredRun;

/// The runs of a campaign as one: of the first, with the name of the campaign and of all boards.
pub(super) fn run(runs: &[StoredRun]) -> Option<StoredRun> {
    let mut whole = runs.first()?.clone();
    if let Some(campaign) = whole.start.campaign.take() {
        whole.start.id = campaign.id;
    }
    let boards: Vec<&str> = runs.iter().map(|run| run.start.board.as_str()).collect();
    whole.start.board = boards.join(", ");
    whole.start.begun_unix_ns = runs.iter().map(|run| run.start.begun_unix_ns).min()?;
    whole.power_cycles = runs.iter().flat_map(|run| run.power_cycles.iter().cloned()).collect();
    whole.power_cycles.sort_by_key(|cycle| cycle.unix_ns);
    whole.ended_unix_ns = runs.iter().map(|run| run.ended_unix_ns).max()?;
    // Who ended in good order waited for the last round.
    if let Some(complete) = runs.iter().find(|run| run.status == store::Status::Complete) {
        whole.status = complete.status;
        whole.ended_because.clone_from(&complete.ended_because);
    }
    Some(whole)
}

/// What was measured on each board, by schedule, as one. A round that a lost board had begun was measured again on
/// another; what there is of it from the first counts as a round of its own.
pub(super) fn measurements(parts: Vec<Vec<Measurements>>) -> Vec<Measurements> {
    let rounds = numbered(&parts);
    let boards = parts.len();
    let mut pooled: Vec<Measurements> = Vec::new();
    for (part, schedules) in parts.into_iter().enumerate() {
        for mut schedule in schedules {
            let mut trials = BTreeMap::new();
            for (round, mut trial) in std::mem::take(&mut schedule.trials) {
                let number = rounds.get(&(part, round)).copied().unwrap_or(round);
                trial.round = number;
                trials.insert(number, trial);
            }
            let same = |known: &&mut Measurements| {
                known.record.place == schedule.record.place
                    && known.record.schedule == schedule.record.schedule
            };
            let Some(known) = pooled.iter_mut().find(same) else {
                schedule.trials = trials;
                pooled.push(schedule);
                continue;
            };
            known.trials.extend(trials);
            known.failed.extend(schedule.failed);
            for reason in schedule.reasons {
                if !known.reasons.contains(&reason) {
                    known.reasons.push(reason);
                }
            }
        }
    }
    for schedule in &mut pooled {
        let measured: BTreeSet<u32> = schedule.trials.keys().copied().collect();
        schedule.failed.retain(|round, _| !measured.contains(round));
        // One board's fault is not the schedule's, as long as it counts on others.
        if boards > 1 && schedule.valid().next().is_some() {
            schedule.reasons.retain(|reason| {
                reason.severity != Severity::Void || reason.code != ReasonCode::OutputsNotCompared
            });
        }
    }
    pooled
}

/// A number for each round of each board, its own unless another board has more of it.
fn numbered(parts: &[Vec<Measurements>]) -> BTreeMap<(usize, u32), u32> {
    let mut counts: BTreeMap<u32, BTreeMap<usize, usize>> = BTreeMap::new();
    for (part, schedules) in parts.iter().enumerate() {
        for round in schedules.iter().flat_map(|schedule| schedule.trials.keys()) {
            *counts.entry(*round).or_default().entry(part).or_default() += 1;
        }
    }
    let mut fresh = counts.keys().next_back().map_or(0, |last| last + 1);
    let mut numbers = BTreeMap::new();
    for (round, parts) in counts {
        let most = parts.values().copied().max();
        let owner = parts.iter().find(|(_, count)| Some(**count) == most).map(|(part, _)| *part);
        for part in parts.into_keys() {
            let number = if Some(part) == owner {
                round
            } else {
                fresh += 1;
                fresh - 1
            };
            numbers.insert((part, round), number);
        }
    }
    numbers
}
