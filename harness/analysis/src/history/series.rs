//! From runs to series.

use super::conditions::{circumstances, conditions, differences};
use super::rows::{Condition, Figure, History, LeftOut, Point, SCHEMA, Segment, Series, Step};
use crate::{ScheduleFigures, schedule_figures};
use domain::{Confidence, Interval, Metric, ScheduleKind, Validity};
use host::date::Date;
use std::collections::{BTreeMap, BTreeSet};
use store::{NetworkRecord, RunFilter, Store, StoreError, StoredRun};

/// Which history to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryQuery {
    /// The network.
    pub network: String,
    /// This board only.
    pub board: Option<String>,
    /// Schedules of this kind, on these processors (`cpu0 > cpu1`), or with exactly these stages.
    pub schedule: Option<String>,
    /// The metric to follow.
    pub metric: Metric,
}

/// Why there is no history.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No run matches.
    #[error("failed to find a measured run of {wanted}; {known}")]
    Nothing {
        /// The query.
        wanted: String,
        /// What is in the database.
        known: String,
    },
}

/// A run on its way into a series.
struct Observation {
    run: StoredRun,
    network: NetworkRecord,
    figures: ScheduleFigures,
    interval: Interval,
}

/// Runs with the same kind, board and name are one series.
type Key = (ScheduleKind, String, String);

#[derive(Default)]
struct Gathered {
    observations: Vec<Observation>,
    left_out: Vec<LeftOut>,
}

impl History {
    /// The history of a network, from the database alone.
    ///
    /// # Errors
    /// If no run matches; the message lists what was measured.
    pub fn build(store: &Store, query: &HistoryQuery) -> Result<Self, HistoryError> {
        let filter = RunFilter {
            board: query.board.clone(),
            network: Some(query.network.clone()),
            measured: true,
            ..RunFilter::default()
        };
        let mut gathered: BTreeMap<Key, Gathered> = BTreeMap::new();
        let mut schedules = BTreeSet::new();
        // The earliest first.
        for id in store.runs(&filter)?.iter().rev() {
            let run = store.run(id.as_str())?;
            let networks = store.networks(&run)?;
            let Some(network) = networks.iter().find(|record| record.network.name() == query.network) else {
                continue;
            };
            let mut of_run: BTreeMap<Key, ScheduleFigures> = BTreeMap::new();
            for figures in
                schedule_figures(store, &run)?.into_iter().filter(|found| found.network == query.network)
            {
                schedules.insert(processors(&figures));
                let Some(name) = wanted(query, &figures) else { continue };
                let key = (figures.kind, run.start.board.clone(), name);
                let is_better = of_run.get(&key).is_none_or(|other| is_faster(&figures, other));
                if is_better {
                    of_run.insert(key, figures);
                }
            }
            for (key, figures) in of_run {
                gathered.entry(key).or_default().add(&run, network, figures, query.metric);
            }
        }
        if gathered.is_empty() {
            return Err(nothing(store, query, &schedules)?);
        }
        Ok(Self {
            schema: SCHEMA,
            analysis_version: domain::ANALYSIS_VERSION,
            confidence: Confidence::P95.probability(),
            false_alarms: domain::history::FALSE_ALARMS,
            network: query.network.clone(),
            metric: query.metric,
            series: gathered.into_iter().map(|(key, gathered)| series(key, gathered, query.metric)).collect(),
        })
    }
}

/// The label without cuts and operating point.
fn processors(figures: &ScheduleFigures) -> String {
    if figures.kind == ScheduleKind::Peer {
        return figures.label.clone();
    }
    let schedule = figures.label.split(" @ ").next().unwrap_or_default();
    let stages = schedule.split(" > ").map(|stage| stage.split('[').next().unwrap_or_default());
    stages.collect::<Vec<_>>().join(" > ")
}

/// Name of the series of this schedule, if the query matches. All pipelines are one series unless the query names one:
/// the planner may order equal processors differently in each run.
fn wanted(query: &HistoryQuery, figures: &ScheduleFigures) -> Option<String> {
    let (kind, processors) = (figures.kind.to_string(), processors(figures));
    let by_kind = match figures.kind {
        ScheduleKind::Single | ScheduleKind::Merged | ScheduleKind::Peer => processors.clone(),
        ScheduleKind::Pipeline | ScheduleKind::Replicate => kind.clone(),
    };
    match &query.schedule {
        None => Some(by_kind),
        Some(wanted) if *wanted == kind => Some(by_kind),
        Some(wanted) if *wanted == processors => Some(processors),
        Some(wanted) if *wanted == figures.label => Some(figures.label.clone()),
        Some(_) => None,
    }
}

fn is_faster(figures: &ScheduleFigures, other: &ScheduleFigures) -> bool {
    let rank = |figures: &ScheduleFigures| {
        let fps = figures.interval(Metric::Throughput).map_or(0.0, |interval| interval.point);
        (figures.validity == Validity::Valid, fps)
    };
    rank(figures) > rank(other)
}

impl Gathered {
    fn add(&mut self, run: &StoredRun, network: &NetworkRecord, figures: ScheduleFigures, metric: Metric) {
        let reason = match (figures.validity, figures.interval(metric)) {
            (Validity::Void, _) => "void",
            (_, None) => "not measured",
            (Validity::Valid, Some(interval)) => {
                let (run, network) = (run.clone(), network.clone());
                self.observations.push(Observation { run, network, figures, interval });
                return;
            }
        };
        self.left_out.push(LeftOut { run: run.start.id.to_string(), reason: reason.to_owned() });
    }
}

fn series((kind, board, schedule): Key, gathered: Gathered, metric: Metric) -> Series {
    // Comparable runs form one segment even if other runs lie between them: two machines may take turns.
    let mut segments: Vec<(Vec<Condition>, Vec<Observation>)> = Vec::new();
    for observation in gathered.observations {
        let conditions = conditions(&observation.run, &observation.network);
        match segments.iter_mut().find(|(known, _)| *known == conditions) {
            Some((_, observations)) => observations.push(observation),
            None => segments.push((conditions, vec![observation])),
        }
    }
    let mut before: Option<Vec<Condition>> = None;
    let segments = segments
        .into_iter()
        .map(|(conditions, observations)| {
            let changed = before.replace(conditions.clone()).map(|before| differences(&before, &conditions));
            segment(conditions, changed.unwrap_or_default(), &observations, metric)
        })
        .collect();
    Series { board, schedule, kind, segments, left_out: gathered.left_out }
}

fn segment(
    conditions: Vec<Condition>,
    changed_conditions: Vec<String>,
    observations: &[Observation],
    metric: Metric,
) -> Segment {
    let intervals: Vec<Interval> = observations.iter().map(|one| one.interval).collect();
    let found = domain::history(&intervals);
    let mut before: Option<Vec<Condition>> = None;
    let points =
        observations.iter().enumerate().map(|(place, Observation { run, figures, interval, .. })| {
            let start = &run.start;
            let now = circumstances(run, figures);
            let changed =
                before.replace(now.clone()).map(|before| differences(&before, &now)).unwrap_or_default();
            let level = found.levels.iter().find(|level| level.end > place);
            let step = found.steps.iter().find(|step| step.first == place).and_then(|step| {
                let Interval { point, lo, hi, .. } = step.ratio;
                Some(Step {
                    ratio: point,
                    lo: lo?,
                    hi: hi?,
                    better: metric.direction().is_improvement(point),
                })
            });
            Point {
                run: start.id.to_string(),
                begun: Date::from_unix_ns(start.begun_unix_ns).to_string(),
                revision: start.revision.as_ref().map(|revision| revision.commit.clone()),
                dirty: start.revision.as_ref().map(|revision| revision.dirty),
                schedule: figures.label.clone(),
                figure: Figure {
                    point: interval.point,
                    lo: interval.lo,
                    hi: interval.hi,
                    trials: interval.count,
                },
                level: level.map_or(interval.point, |level| level.value),
                outlying: found.outlying.contains(&place),
                step,
                changed,
            }
        });
    Segment { conditions, changed_conditions, points: points.collect(), noise: found.noise }
}

fn nothing(
    store: &Store,
    query: &HistoryQuery,
    schedules: &BTreeSet<String>,
) -> Result<HistoryError, StoreError> {
    let HistoryQuery { network, board, schedule, .. } = query;
    let schedule = schedule.as_ref().map_or_else(String::new, |schedule| format!(" as {schedule:?}"));
    let board = board.as_ref().map_or_else(String::new, |board| format!(" on the board {board}"));
    let text = format!("{network}{schedule}{board}");
    let known = if schedules.is_empty() {
        let (networks, boards) = store.measured()?;
        if networks.is_empty() {
            format!("nothing was measured yet; run `{} bench`", host::program())
        } else {
            format!("measured: {} on {}", networks.join(", "), boards.join(", "))
        }
    } else {
        let names: Vec<&str> = schedules.iter().map(String::as_str).collect();
        format!("measured: {}; kinds: single, merged, pipeline, replicate, peer", names.join(", "))
    };
    Ok(HistoryError::Nothing { wanted: text, known })
}
