//! Places of farms by the runs on them: what the latest run tells about a board, whether it is as fast as before, and
//! whether it is as fast as its equals.

use crate::rows::Report;
use crate::stored_settings::StoredSettings;
use domain::Samples;
use std::collections::BTreeMap;
use store::{Status, Store, StoreError};

/// Runs of a place that the latest one is compared with: the latest ones of the same experiment.
const RUNS: usize = 12;
/// Fewest earlier runs that the latest one is compared with.
const FEWEST: usize = 3;

/// A schedule of an experiment: what is compared between runs and between boards.
type Key = (String, String, String);

/// The runs on a place.
#[derive(Debug, Clone, PartialEq)]
pub struct PlaceRuns {
    /// The latest run.
    pub latest: LatestRun,
    /// Throughput of the latest measured run over the median of earlier ones, geometric mean over its schedules. Absent
    /// with fewer than three earlier runs of these schedules.
    pub over_history: Option<f64>,
    /// Valid throughputs of the latest run that has any.
    rates: BTreeMap<Key, f64>,
}

/// The latest run on a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatestRun {
    /// Its name.
    pub id: String,
    /// When it began, ns since 1970.
    pub begun_unix_ns: u64,
    /// The experiment.
    pub experiment: String,
    /// Model of the board.
    pub model: Option<String>,
    /// How it ended.
    pub status: Status,
    /// Trials that failed.
    pub failed: usize,
    /// How often the board was power-cycled.
    pub power_cycles: usize,
}

/// A place, the rates of its earlier runs, and the number of runs.
type Collected = (PlaceRuns, BTreeMap<Key, Vec<f64>>, usize);

impl PlaceRuns {
    /// All places with runs in the database, as `PLACE of HOST:PORT`.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn of_all(store: &Store) -> Result<BTreeMap<String, Self>, StoreError> {
        let mut places: BTreeMap<String, Collected> = BTreeMap::new();
        for id in store.runs_configured_with("labgrid")? {
            let run = store.run(id.as_str())?;
            let Some(place) = StoredSettings::of(&run.start.configuration).place else { continue };
            let is_compared = |(known, _, runs): &Collected| match known.experiment() {
                Some(experiment) => experiment == run.start.experiment && *runs < RUNS,
                None => true,
            };
            if places.get(&place).is_some_and(|found| !is_compared(found)) {
                continue;
            }
            let report = Report::build(store, &id)?;
            let rates = rates(&report);
            let Some((known, earlier, runs)) = places.get_mut(&place) else {
                let latest = LatestRun {
                    id: id.to_string(),
                    begun_unix_ns: run.start.begun_unix_ns,
                    experiment: run.start.experiment.clone(),
                    model: run.start.machine.model.clone(),
                    status: run.status,
                    failed: report.rows.iter().map(|row| row.trials_failed).sum(),
                    power_cycles: run.power_cycles.len(),
                };
                let of_place = Self { latest, over_history: None, rates };
                places.insert(place, (of_place, BTreeMap::new(), 0));
                continue;
            };
            if known.rates.is_empty() {
                known.rates = rates;
                continue;
            }
            *runs += 1;
            for (key, rate) in rates {
                earlier.entry(key).or_default().push(rate);
            }
        }
        let complete = |(mut place, earlier, _): Collected| {
            let ratios = place.rates.iter().filter_map(|(key, rate)| {
                let earlier = earlier.get(key).filter(|earlier| earlier.len() >= FEWEST)?;
                Some(rate / median(earlier)?)
            });
            place.over_history = geometric_mean(ratios);
            place
        };
        Ok(places.into_iter().map(|(name, found)| (name, complete(found))).collect())
    }

    /// The experiment of the latest run that measured anything.
    fn experiment(&self) -> Option<&str> {
        self.rates.keys().next().map(|(experiment, _, _)| experiment.as_str())
    }

    /// The throughput of each of these places over the median of all of them, geometric mean over the schedules that at
    /// least three have. Absent for a place that has none of those.
    pub fn over_equals(equals: &[&Self]) -> Vec<Option<f64>> {
        let mut all: BTreeMap<&Key, Vec<f64>> = BTreeMap::new();
        for (key, rate) in equals.iter().flat_map(|place| &place.rates) {
            all.entry(key).or_default().push(*rate);
        }
        let medians: BTreeMap<&Key, f64> = all
            .into_iter()
            .filter(|(_, rates)| rates.len() >= FEWEST)
            .filter_map(|(key, rates)| Some((key, median(&rates)?)))
            .collect();
        let over = |place: &&Self| {
            geometric_mean(place.rates.iter().filter_map(|(key, rate)| Some(rate / medians.get(key)?)))
        };
        equals.iter().map(over).collect()
    }
}

fn rates(report: &Report) -> BTreeMap<Key, f64> {
    let rows = report.rows.iter().filter(|row| !row.is_void());
    rows.filter_map(|row| {
        let key = (report.run.experiment.clone(), row.network.clone(), row.schedule.clone());
        Some((key, row.throughput_fps.as_ref()?.point))
    })
    .collect()
}

fn median(rates: &[f64]) -> Option<f64> {
    Samples::new(rates).ok().map(|samples| samples.median()).filter(|median| *median > 0.0)
}

fn geometric_mean(ratios: impl Iterator<Item = f64>) -> Option<f64> {
    let logarithms: Vec<f64> = ratios.filter(|ratio| *ratio > 0.0).map(f64::ln).collect();
    (!logarithms.is_empty()).then(|| (logarithms.iter().sum::<f64>() / logarithms.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use store::fixture;

    fn place(rates: &[(&str, f64)]) -> PlaceRuns {
        let key = |schedule: &str| ("quick".to_owned(), "resnet18".to_owned(), schedule.to_owned());
        let latest = LatestRun {
            id: String::new(),
            begun_unix_ns: 0,
            experiment: "quick".to_owned(),
            model: None,
            status: Status::Complete,
            failed: 0,
            power_cycles: 0,
        };
        let rates = rates.iter().map(|(schedule, rate)| (key(schedule), *rate)).collect();
        PlaceRuns { latest, over_history: None, rates }
    }

    #[test]
    fn the_latest_run_is_compared_with_earlier_ones_of_the_same_experiment() {
        let place = fixture::Place::new();
        let store = place.open();
        let mut number = 0;
        let mut run = |experiment: &str, slower: f64| {
            number += 1;
            let mut run = Scenario::small();
            run.start = fixture::run_start_at(fixture::BEGUN + number * 60_000_000_000);
            experiment.clone_into(&mut run.start.experiment);
            run.start.configuration =
                "board: { connect: { labgrid: { coordinator: lab, place: p1 } } }".to_owned();
            for schedule in 0..4 {
                run.slow_down(schedule, slower);
            }
            run.store_in(&store, &place);
            PlaceRuns::of_all(&store).unwrap().remove("p1 of lab").unwrap()
        };
        for _ in 0..3 {
            assert_eq!(run("canary", 1.0).over_history, None);
        }
        // More than the examined ones, of another experiment.
        for _ in 0..14 {
            run("quick", 3.0);
        }
        let slow = run("canary", 1.25);
        assert_eq!(slow.latest.experiment, "canary");
        assert!((slow.over_history.unwrap() - 0.8).abs() < 0.01, "{slow:?}");
        let quick = run("quick", 3.0);
        assert!((quick.over_history.unwrap() - 1.0).abs() < 0.01, "{quick:?}");
    }

    #[test]
    fn a_slow_board_is_unlike_its_equals() {
        let boards = [
            place(&[("cpu0", 10.0), ("cpu1", 20.0)]),
            place(&[("cpu0", 10.0), ("cpu1", 20.0)]),
            place(&[("cpu0", 9.0), ("cpu1", 16.2)]),
            place(&[("other", 1.0)]),
        ];
        let over = PlaceRuns::over_equals(&boards.iter().collect::<Vec<_>>());
        assert_eq!((over[0], over[1], over[3]), (Some(1.0), Some(1.0), None));
        assert!((over[2].unwrap() - (0.9_f64 * 0.81).sqrt()).abs() < 1e-9, "{over:?}");
        // Of two boards, neither is the one that is wrong.
        assert_eq!(PlaceRuns::over_equals(&[&boards[0], &boards[2]]), [None, None]);
    }
}
