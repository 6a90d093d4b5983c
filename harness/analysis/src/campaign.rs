//! The report on several boards of one `bench`. Its JSON has the schema `results/campaign.schema.json`.

use super::measurements::{Measurements, measurements};
use super::rows::{Interval, Report};
use domain::FleetMode;
use domain::gate::{Evidence, Spread};
use domain::{Confidence, ScheduleKind, Validity};
use host::date::Date;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use store::{Store, StoreError, StoredRun};

/// Version of the JSON. It rises when a field changes its meaning or is removed; new fields do not change it.
const SCHEMA: u32 = 1;

/// One `bench` on several boards.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "Campaign of edgepipe")]
pub struct CampaignReport {
    /// Version of this format.
    pub schema: u32,
    /// Version of the analysis that made the figures from raw observations.
    pub analysis_version: u32,
    /// Probability with which an interval contains the true value.
    pub confidence: f64,
    /// The campaign.
    pub campaign: CampaignSection,
    /// The boards, in the order of the command line.
    pub boards: Vec<BoardSection>,
    /// Every schedule on every board against the first board that has it.
    pub against: Vec<Against>,
    /// The joint report of equal boards that shared the rounds; absent if every board measured everything.
    pub pooled: Option<Report>,
    /// The report of each board that has a run.
    pub reports: Vec<Report>,
}

/// The campaign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CampaignSection {
    /// Its name.
    pub id: String,
    /// `repeat`: every board measures everything; `spread`: equal boards share the rounds.
    pub mode: FleetMode,
    /// The experiment.
    pub experiment: String,
    /// When it began: UTC, ISO 8601.
    pub begun: String,
    /// Rounds planned.
    pub rounds_planned: u32,
    /// Rounds with at least one measured trial on any board.
    pub rounds_measured: usize,
}

/// A board.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct BoardSection {
    /// Its name.
    pub board: String,
    /// Its run; absent if the board was not available.
    pub run: Option<String>,
    /// How the run ended: `running` (or killed), `complete`, `interrupted` or `failed`. Absent if there is no run.
    pub status: Option<String>,
    /// Rounds with at least one trial on this board.
    pub rounds: usize,
    /// Trials measured.
    pub trials: usize,
    /// Measured trials that are void.
    pub trials_void: usize,
    /// Trials that failed and did not succeed when they were repeated.
    pub trials_failed: usize,
    /// Throughput over that of the first board, geometric mean over the schedules that both have. Absent if there are
    /// none.
    pub speed: Option<f64>,
    /// Why the board was set aside.
    pub set_aside: Option<String>,
}

/// A schedule on a board compared with the same schedule on the first board that has it. The same schedule is the one of
/// the same kind on the same processors; of several, the one with the same position.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Against {
    /// The board.
    pub board: String,
    /// The network.
    pub network: String,
    /// The schedule on this board; cuts may differ if each board plans for itself.
    pub schedule: String,
    /// Its number within the board's run.
    pub place: u32,
    /// The board compared with.
    pub first: String,
    /// Throughput over that of the first board, with the interval from the noise between trials. Absent if a side is void
    /// or has no trials.
    pub throughput: Option<Interval>,
}

/// A schedule by what it has in common on all boards: network, kind, processors, and its number among those.
type Key = (String, ScheduleKind, Vec<String>, usize);

/// Valid frame rates of a schedule on a board.
struct OnBoard {
    board: String,
    key: Key,
    schedule: String,
    place: u32,
    rates: Vec<f64>,
}

impl CampaignReport {
    /// The report of a campaign, from the database. `lost` has the reasons of boards that were set aside, if they are not
    /// in their runs.
    ///
    /// # Errors
    /// If there is no such campaign.
    pub fn build(store: &Store, id: &str, lost: &BTreeMap<String, String>) -> Result<Self, StoreError> {
        let Some(stored) = store.campaign(id)? else {
            return Err(store
                .run(id)
                .err()
                .unwrap_or_else(|| StoreError::Empty { path: store.path().to_owned() }));
        };
        let (record, runs) = (stored.record, stored.runs);
        let mut reports = Vec::new();
        let mut rates = Vec::new();
        let mut boards = Vec::new();
        let mut rounds = BTreeSet::new();
        for name in &record.boards {
            let Some(run) = runs.iter().find(|run| run.start.board == *name) else {
                boards.push(BoardSection::absent(name, lost.get(name)));
                continue;
            };
            let schedules = measurements(store, run)?;
            let report = Report::build(store, &run.start.id)?;
            boards.push(BoardSection::of(run, &schedules, &report, lost.get(name)));
            rounds.extend(schedules.iter().flat_map(|schedule| schedule.trials.keys().copied()));
            rates.extend(rates_of(name, &schedules, &report));
            reports.push(report);
        }
        let against = against(&rates);
        for board in &mut boards {
            board.speed = speed(&against, &board.board);
        }
        let pooled = match record.mode {
            FleetMode::Repeat => None,
            FleetMode::Spread => Report::of_several(store, &runs)?,
        };
        let begun = runs.iter().map(|run| run.start.begun_unix_ns).min().unwrap_or(0);
        Ok(Self {
            schema: SCHEMA,
            analysis_version: domain::ANALYSIS_VERSION,
            confidence: Confidence::P95.probability(),
            campaign: CampaignSection {
                id: record.id.to_string(),
                mode: record.mode,
                experiment: runs.first().map(|run| run.start.experiment.clone()).unwrap_or_default(),
                begun: Date::from_unix_ns(begun).to_string(),
                rounds_measured: rounds.len(),
                rounds_planned: runs.iter().map(|run| run.start.rounds).max().unwrap_or(0),
            },
            boards,
            against,
            pooled,
            reports,
        })
    }

    /// Whether there is a row whose figures do not count.
    pub fn has_void_rows(&self) -> bool {
        match &self.pooled {
            Some(pooled) => pooled.has_void_rows(),
            None => self.reports.iter().any(Report::has_void_rows),
        }
    }
}

impl BoardSection {
    fn absent(board: &str, lost: Option<&String>) -> Self {
        let unknown = "it was not available when the campaign began".to_owned();
        Self {
            board: board.to_owned(),
            run: None,
            status: None,
            rounds: 0,
            trials: 0,
            trials_void: 0,
            trials_failed: 0,
            speed: None,
            set_aside: Some(lost.cloned().unwrap_or(unknown)),
        }
    }

    fn of(run: &StoredRun, schedules: &[Measurements], report: &Report, lost: Option<&String>) -> Self {
        let rounds: BTreeSet<u32> =
            schedules.iter().flat_map(|schedule| schedule.trials.keys().copied()).collect();
        let sum = |count: fn(&super::Row) -> usize| report.rows.iter().map(count).sum();
        Self {
            board: run.start.board.clone(),
            run: Some(run.start.id.to_string()),
            status: Some(run.status.to_string()),
            rounds: rounds.len(),
            trials: schedules.iter().map(|schedule| schedule.trials.len()).sum(),
            trials_void: sum(|row| row.trials_void),
            trials_failed: sum(|row| row.trials_failed),
            speed: None,
            set_aside: lost.or(run.ended_because.as_ref()).cloned(),
        }
    }
}

fn rates_of(board: &str, schedules: &[Measurements], report: &Report) -> Vec<OnBoard> {
    let mut found: Vec<OnBoard> = Vec::new();
    for schedule in schedules {
        let (record, planned) = (&schedule.record, &schedule.record.schedule);
        let processors: Vec<String> = match planned.as_peer() {
            Some(_) => vec![planned.label()],
            None => planned.processors().map(ToString::to_string).collect(),
        };
        let alike = |other: &&OnBoard| {
            let (network, kind, of, _) = &other.key;
            *network == record.network && *kind == planned.kind() && *of == processors
        };
        let number = found.iter().filter(alike).count();
        let row = report.rows.iter().find(|row| row.place == record.place);
        let counts = row.is_some_and(|row| row.verdict == Validity::Valid);
        let rates = schedule.valid().filter(|_| counts).map(|trial| trial.throughput.0).collect();
        found.push(OnBoard {
            board: board.to_owned(),
            key: (record.network.clone(), planned.kind(), processors, number),
            schedule: planned.label(),
            place: record.place,
            rates,
        });
    }
    found
}

fn against(all: &[OnBoard]) -> Vec<Against> {
    let one = |of: &OnBoard| {
        let first = all.iter().find(|other| other.key == of.key).unwrap_or(of);
        // The difference between boards is the result here, not noise between runs.
        let evidence = Evidence::Apart {
            candidate: vec![of.rates.clone()],
            baseline: vec![first.rates.clone()],
            spread: Spread { deviation: 0.0, freedom: 1e6 },
        };
        let ratio = if of.board == first.board { None } else { evidence.ratio(Confidence::P95).ok() };
        Against {
            board: of.board.clone(),
            network: of.key.0.clone(),
            schedule: of.schedule.clone(),
            place: of.place,
            first: first.board.clone(),
            throughput: ratio.map(Interval::from),
        }
    };
    all.iter().map(one).collect()
}

fn speed(against: &[Against], board: &str) -> Option<f64> {
    let of_board = against.iter().filter(|one| one.board == board);
    let ratios: Vec<f64> = of_board.filter_map(|one| one.throughput.map(|ratio| ratio.point.ln())).collect();
    (!ratios.is_empty()).then(|| (ratios.iter().sum::<f64>() / ratios.len() as f64).exp())
}
