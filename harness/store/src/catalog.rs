//! Finding runs and campaigns.

use super::database::Store;
use super::error::{RowError, StoreError};
use super::journal;
use super::machine;
use super::record::{CampaignRecord, PowerCycleRecord, Resumed, Revision, RunStart, Status, Versions};
use super::run_id::RunId;
use domain::FleetMode;
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params};
use serde::de::DeserializeOwned;
use std::path::Path;

/// A stored run.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRun {
    pub(super) number: i64,
    /// Its first record.
    pub start: RunStart,
    /// Its status. A killed run stays [`Status::Running`].
    pub status: Status,
    /// When it ended, ns since 1970.
    pub ended_unix_ns: Option<u64>,
    /// The error that ended it.
    pub ended_because: Option<String>,
    /// When it was resumed, in order.
    pub resumptions: Vec<Resumed>,
    /// When its board was power-cycled, in order.
    pub power_cycles: Vec<PowerCycleRecord>,
    /// How many bytes of its journal are in the database.
    pub journal_bytes: u64,
}

/// A campaign with its runs.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredCampaign {
    /// The campaign.
    pub record: CampaignRecord,
    /// Its runs, in the order of its boards.
    pub runs: Vec<StoredRun>,
}

/// Criteria for runs. Those that are `None` or false do not apply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Name of the board.
    pub board: Option<String>,
    /// Name of the experiment.
    pub experiment: Option<String>,
    /// Name of a network of the run.
    pub network: Option<String>,
    /// Only runs with a measured trial.
    pub measured: bool,
    /// Only incomplete runs.
    pub unfinished: bool,
    /// Only runs that are not part of a campaign.
    pub alone: bool,
}

/// A run in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// Its name.
    pub id: RunId,
    /// When it started, ns since 1970.
    pub begun_unix_ns: u64,
    /// Its status.
    pub status: Status,
    /// Name of the experiment.
    pub experiment: String,
    /// Name of the board.
    pub board: String,
    /// Trials measured.
    pub measured: u64,
    /// Trials that failed.
    pub failed: u64,
}

const MATCHES: &str = "
    (?1 IS NULL OR boards.name = ?1)
    AND (?2 IS NULL OR runs.experiment = ?2)
    AND (?3 IS NULL OR EXISTS (SELECT 1 FROM run_networks
         JOIN networks ON networks.id = run_networks.network
         WHERE run_networks.run = runs.number AND networks.name = ?3))
    AND (NOT ?4 OR EXISTS (SELECT 1 FROM schedules JOIN trials ON trials.schedule = schedules.id
         WHERE schedules.run = runs.number AND trials.status = 'measured'))
    AND (NOT ?5 OR runs.status <> 'complete')
    AND (NOT ?6 OR runs.campaign IS NULL)";

impl Store {
    /// Names of the matching runs, the latest first.
    pub fn runs(&self, filter: &RunFilter) -> Result<Vec<RunId>, StoreError> {
        self.run_ids(filter, -1)
    }

    /// Summaries of the matching runs, the latest first.
    pub fn summaries(&self, filter: &RunFilter) -> Result<Vec<RunSummary>, StoreError> {
        let ids = self.runs(filter)?;
        self.rows("", |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT runs.begun_unix_ns, runs.status, runs.experiment, boards.name,
                        count(*) FILTER (WHERE trials.status = 'measured'),
                        count(*) FILTER (WHERE trials.status = 'failed')
                 FROM runs JOIN boards ON boards.id = runs.board
                 LEFT JOIN schedules ON schedules.run = runs.number
                 LEFT JOIN trials ON trials.schedule = schedules.id
                 WHERE runs.id = ? GROUP BY runs.number",
            )?;
            let mut summaries = Vec::new();
            for id in ids {
                summaries.push(statement.query_row([id.as_str()], |row| {
                    let status: String = row.get(1)?;
                    Ok(RunSummary {
                        begun_unix_ns: row.get(0)?,
                        // The schema allows no other text.
                        status: Status::from_text(&status).unwrap_or(Status::Failed),
                        experiment: row.get(2)?,
                        board: row.get(3)?,
                        measured: row.get(4)?,
                        failed: row.get(5)?,
                        id: id.clone(),
                    })
                })?);
            }
            Ok(summaries)
        })
    }

    /// Names of networks and boards with measured trials, sorted.
    pub fn measured(&self) -> Result<(Vec<String>, Vec<String>), StoreError> {
        let names = |connection: &Connection, column: &str| -> Result<Vec<String>, RowError> {
            let mut statement = connection.prepare(&format!(
                "SELECT DISTINCT {column} FROM runs JOIN boards ON boards.id = runs.board
                 JOIN schedules ON schedules.run = runs.number
                 JOIN networks ON networks.id = schedules.network
                 WHERE EXISTS (SELECT 1 FROM trials
                     WHERE trials.schedule = schedules.id AND trials.status = 'measured')
                 ORDER BY {column}"
            ))?;
            let names = statement.query_map([], |row| row.get(0))?;
            Ok(names.collect::<Result<_, _>>()?)
        };
        self.rows("", |connection| {
            Ok((names(connection, "networks.name")?, names(connection, "boards.name")?))
        })
    }

    /// Names of the runs whose configuration contains a text, the latest first.
    pub fn runs_configured_with(&self, text: &str) -> Result<Vec<RunId>, StoreError> {
        self.rows("", |connection| {
            let sql = "SELECT id FROM runs WHERE instr(configuration, ?) > 0
                       ORDER BY begun_unix_ns DESC, number DESC";
            let mut statement = connection.prepare_cached(sql)?;
            let names = statement.query_map(params![text], |row| row.get::<_, String>(0))?;
            names
                .map(|name| RunId::try_from(name?).map_err(|error| RowError::damaged("a run's name")(&error)))
                .collect()
        })
    }

    /// The latest matching run.
    pub fn latest_run(&self, filter: &RunFilter) -> Result<Option<StoredRun>, StoreError> {
        self.run_ids(filter, 1)?.first().map(|id| self.run(id.as_str())).transpose()
    }

    /// The latest incomplete run of an experiment on a board whose journal is below `runs`. An imported run can be resumed
    /// only where it was started.
    pub fn unfinished_run(
        &self,
        experiment: &str,
        board: &str,
        runs: &Path,
    ) -> Result<Option<StoredRun>, StoreError> {
        let filter = RunFilter {
            board: Some(board.to_owned()),
            experiment: Some(experiment.to_owned()),
            unfinished: true,
            alone: true,
            ..RunFilter::default()
        };
        let ids = self.run_ids(&filter, -1)?;
        let here = ids.iter().find(|id| journal::path_of(runs, id).exists());
        here.map(|id| self.run(id.as_str())).transpose()
    }

    /// The campaign with this name, or the only one whose name starts or ends with it.
    pub fn campaign(&self, asked: &str) -> Result<Option<StoredCampaign>, StoreError> {
        let found = self.rows(asked, |connection| {
            let sql = "SELECT number FROM campaigns WHERE substr(id, 1, length(?1)) = ?1
                       OR substr(id, -length(?1)) = ?1 ORDER BY id <> ?1 LIMIT 2";
            let mut statement = connection.prepare_cached(sql)?;
            let numbers = statement.query_map(params![asked], |row| row.get::<_, i64>(0))?;
            Ok(numbers.collect::<Result<Vec<_>, _>>()?)
        })?;
        match found.as_slice() {
            [only] if !asked.is_empty() => self.campaign_of(*only),
            _ => Ok(None),
        }
    }

    /// The latest campaign of an experiment on exactly these boards that lacks a complete run and whose journals are below
    /// `runs`.
    pub fn unfinished_campaign(
        &self,
        experiment: &str,
        boards: &[String],
        runs: &Path,
    ) -> Result<Option<StoredCampaign>, StoreError> {
        let numbers = self.rows("", |connection| {
            let sql = "SELECT campaigns.number FROM campaigns JOIN runs ON runs.campaign = campaigns.number
                       WHERE runs.experiment = ? GROUP BY campaigns.number ORDER BY campaigns.id DESC";
            let mut statement = connection.prepare_cached(sql)?;
            let numbers = statement.query_map(params![experiment], |row| row.get::<_, i64>(0))?;
            Ok(numbers.collect::<Result<Vec<_>, _>>()?)
        })?;
        for number in numbers {
            let Some(campaign) = self.campaign_of(number)? else { continue };
            let is_here = |run: &StoredRun| journal::path_of(runs, &run.start.id).exists();
            let complete = campaign.runs.iter().filter(|run| run.status == Status::Complete).count();
            if campaign.record.boards == boards
                && complete < boards.len()
                && campaign.runs.iter().all(is_here)
            {
                return Ok(Some(campaign));
            }
        }
        Ok(None)
    }

    fn campaign_of(&self, number: i64) -> Result<Option<StoredCampaign>, StoreError> {
        self.rows("", |connection| {
            let sql = "SELECT id FROM runs WHERE campaign = ? ORDER BY number";
            let mut statement = connection.prepare_cached(sql)?;
            let ids = statement.query_map([number], |row| row.get::<_, String>(0))?;
            let mut runs = Vec::new();
            for id in ids {
                runs.extend(find(connection, &id?)?);
            }
            let Some(record) = runs.iter().find_map(|run| run.start.campaign.clone()) else {
                return Ok(None);
            };
            let place = |run: &StoredRun| record.boards.iter().position(|board| *board == run.start.board);
            runs.sort_by_key(place);
            Ok(Some(StoredCampaign { record, runs }))
        })
    }

    /// The run with this name, or the only one whose name starts or ends with it.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRun`] lists the latest runs, or those that match.
    pub fn run(&self, asked: &str) -> Result<StoredRun, StoreError> {
        let mut found = self.rows(asked, |connection| {
            let sql = "SELECT id FROM runs WHERE id = ?1 OR substr(id, 1, length(?1)) = ?1
                       OR substr(id, -length(?1)) = ?1 ORDER BY id <> ?1, begun_unix_ns DESC";
            let mut statement = connection.prepare_cached(sql)?;
            let ids = statement.query_map(params![asked], |row| row.get::<_, String>(0))?;
            Ok(ids.collect::<Result<Vec<_>, _>>()?)
        })?;
        if found.first().is_some_and(|id| id == asked) {
            found.truncate(1);
        }
        let known = match found.as_slice() {
            [only] if !asked.is_empty() => {
                let run = self.rows(asked, |connection| find(connection, only))?;
                return run.ok_or_else(|| self.no_such_run(asked, "it has just been removed".to_owned()));
            }
            [] | [_] => self.run_ids(&RunFilter::default(), 3)?.iter().map(ToString::to_string).collect(),
            several => several.to_vec(),
        };
        let known = match (known.is_empty(), found.len() > 1) {
            (true, _) => format!("there are no runs; `{} bench` starts one", host::program()),
            (false, true) => format!("several runs match: {}", known.join(", ")),
            (false, false) => format!("the latest runs: {}", known.join(", ")),
        };
        Err(self.no_such_run(asked, known))
    }

    fn no_such_run(&self, asked: &str, known: String) -> StoreError {
        StoreError::NoSuchRun { path: self.path.clone(), asked: asked.to_owned(), known }
    }

    fn run_ids(&self, filter: &RunFilter, limit: i64) -> Result<Vec<RunId>, StoreError> {
        self.rows("", |connection| {
            let sql = format!(
                "SELECT runs.id FROM runs JOIN boards ON boards.id = runs.board WHERE {MATCHES}
                 ORDER BY runs.begun_unix_ns DESC, runs.number DESC LIMIT ?7"
            );
            let RunFilter { board, experiment, network, measured, unfinished, alone } = filter;
            let params: [&dyn ToSql; 7] = [board, experiment, network, measured, unfinished, alone, &limit];
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map(params, |row| row.get::<_, String>(0))?;
            rows.map(|name| RunId::try_from(name?).map_err(|error| RowError::damaged("a run's name")(&error)))
                .collect()
        })
    }

    /// Reads rows and converts errors.
    pub(super) fn rows<T>(
        &self,
        run: &str,
        read: impl FnOnce(&Connection) -> Result<T, RowError>,
    ) -> Result<T, StoreError> {
        read(&self.connection).map_err(|error| StoreError::of_rows(&self.path, "read results", run, error))
    }
}

/// The run with exactly this name.
pub(super) fn find(connection: &Connection, id: &str) -> Result<Option<StoredRun>, RowError> {
    let sql = "SELECT runs.*, boards.name AS board_name, machines.state AS machine_state,
                      campaigns.id AS campaign_id, campaigns.mode AS campaign_mode,
                      campaigns.boards AS campaign_boards
               FROM runs JOIN boards ON boards.id = runs.board JOIN machines ON machines.id = runs.machine
               LEFT JOIN campaigns ON campaigns.number = runs.campaign
               WHERE runs.id = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let Some(run) = statement.query_row(params![id], |row| Ok(read_run(row))).optional()? else {
        return Ok(None);
    };
    let mut run = run?;
    let mut statement = connection
        .prepare_cached("SELECT unix_ns, command, state FROM resumptions WHERE run = ? ORDER BY unix_ns")?;
    let mut rows = statement.query(params![run.number])?;
    while let Some(row) = rows.next()? {
        let state = optional(row, "state")?;
        run.resumptions.push(Resumed { unix_ns: row.get(0)?, command: json(row, "command")?, state });
    }
    let mut statement = connection
        .prepare_cached("SELECT unix_ns, place, reason FROM power_cycles WHERE run = ? ORDER BY unix_ns")?;
    let cycles = statement.query_map(params![run.number], |row| {
        Ok(PowerCycleRecord { unix_ns: row.get(0)?, place: row.get(1)?, reason: row.get(2)? })
    })?;
    run.power_cycles = cycles.collect::<Result<_, _>>()?;
    Ok(Some(run))
}

fn read_run(row: &Row<'_>) -> Result<StoredRun, RowError> {
    let damaged = RowError::damaged("a run");
    let commit: Option<String> = row.get("git_revision")?;
    let dirty: Option<bool> = row.get("git_dirty")?;
    let status: String = row.get("status")?;
    let start = RunStart {
        id: RunId::try_from(row.get::<_, String>("id")?).map_err(|error| damaged(&error))?,
        begun_unix_ns: row.get("begun_unix_ns")?,
        experiment: row.get("experiment")?,
        board: row.get("board_name")?,
        processors: json(row, "processors")?,
        machine: machine::join(json(row, "machine_state")?, json(row, "readings")?)
            .ok_or_else(|| damaged(&"its readings are from another machine"))?,
        host: row.get("host")?,
        command: json(row, "command")?,
        configuration: row.get("configuration")?,
        seed: row.get::<_, i64>("seed")?.cast_unsigned(),
        rounds: row.get("rounds")?,
        versions: Versions {
            harness: row.get("harness_version")?,
            runner: row.get("runner_version")?,
            protocol: row.get("protocol_version")?,
            tvm: row.get("tvm_version")?,
            llvm: row.get("llvm_version")?,
            python: row.get("python_version")?,
        },
        revision: commit.zip(dirty).map(|(commit, dirty)| Revision { commit, dirty }),
        provenance: json(row, "provenance")?,
        campaign: read_campaign(row)?,
        state: optional(row, "state")?,
    };
    Ok(StoredRun {
        number: row.get("number")?,
        start,
        status: Status::from_text(&status).ok_or_else(|| damaged(&status))?,
        ended_unix_ns: row.get("ended_unix_ns")?,
        ended_because: row.get("ended_because")?,
        resumptions: Vec::new(),
        power_cycles: Vec::new(),
        journal_bytes: row.get("journal_bytes")?,
    })
}

fn read_campaign(row: &Row<'_>) -> Result<Option<CampaignRecord>, RowError> {
    let damaged = RowError::damaged("a campaign");
    let Some(id) = row.get::<_, Option<String>>("campaign_id")? else { return Ok(None) };
    let mode: String = row.get("campaign_mode")?;
    Ok(Some(CampaignRecord {
        id: RunId::try_from(id).map_err(|error| damaged(&error))?,
        mode: FleetMode::from_text(&mode).ok_or_else(|| damaged(&mode))?,
        boards: json(row, "campaign_boards")?,
    }))
}

/// A column of JSON that may be empty.
pub(super) fn optional<T: DeserializeOwned>(
    row: &Row<'_>,
    column: &'static str,
) -> Result<Option<T>, RowError> {
    let text = row.get_ref(column)?.as_str_or_null().map_err(|error| RowError::damaged(column)(&error))?;
    text.map(serde_json::from_str).transpose().map_err(|error| RowError::damaged(column)(&error))
}

/// A column of JSON.
pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: &'static str) -> Result<T, RowError> {
    let text = row.get_ref(column)?.as_str().map_err(|error| RowError::damaged(column)(&error))?;
    serde_json::from_str(text).map_err(|error| RowError::damaged(column)(&error))
}
