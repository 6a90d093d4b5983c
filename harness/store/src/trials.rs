//! From rows back to records: trials. There may be ten thousand of them, so columns are taken by their places.

use super::catalog::StoredRun;
use super::database::Store;
use super::error::{RowError, StoreError};
use super::machine;
use super::power;
use super::record::{Outcome, TrialRecord};
use super::streams;
use domain::packed::{PackedError, Unpacker, unpack, unzigzag};
use protocol::{HostLoad, Isolated, MachineState, Measured, Occupancy, Span, WarmUp, Window};
use rusqlite::types::{FromSql, ValueRef};
use rusqlite::{Connection, Row, Transaction};
use serde::de::DeserializeOwned;
use std::collections::HashMap;

type Read<T> = Result<T, RowError>;

/// How much of each trial is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    /// Everything.
    Whole,
    /// What [`Store::each_brief_trial`] says.
    Brief,
}

impl Store {
    /// Trials of a run with all samples, by their place in the interleaved order.
    pub fn trials(&self, run: &StoredRun) -> Result<Vec<TrialRecord>, StoreError> {
        let mut trials = Vec::new();
        self.each_trial(run, |trial| trials.push(trial))?;
        Ok(trials)
    }

    /// The trial of a schedule in a round with all samples, as it went the last time.
    pub fn last_trial(
        &self,
        run: &StoredRun,
        schedule: u32,
        round: u32,
    ) -> Result<Option<TrialRecord>, StoreError> {
        self.rows(run.start.id.as_str(), |connection| {
            let sql = "SELECT max(trials.id) FROM schedules JOIN trials ON trials.schedule = schedules.id
                       WHERE schedules.run = ? AND schedules.place = ? AND trials.round = ?";
            let mut statement = connection.prepare_cached(sql)?;
            let id: Option<i64> = statement.query_row((run.number, schedule, round), |row| row.get(0))?;
            let mut machines = Machines { connection, detail: Detail::Whole, known: HashMap::new() };
            id.map(|id| trial(connection, id, &mut machines)).transpose()
        })
    }

    /// Passes on the trials of a run one by one, in their interleaved order; a repeated trial appears once for each attempt.
    pub fn each_trial(&self, run: &StoredRun, take: impl FnMut(TrialRecord)) -> Result<(), StoreError> {
        self.read_trials(run, Detail::Whole, take)
    }

    /// As [`Store::each_trial`], but without timelines, the numbers and the warm-up times of frames, and the feature flags in
    /// the machine's states. This is what figures are made of; thousands of trials are read in half the time.
    pub fn each_brief_trial(&self, run: &StoredRun, take: impl FnMut(TrialRecord)) -> Result<(), StoreError> {
        self.read_trials(run, Detail::Brief, take)
    }

    fn read_trials(
        &self,
        run: &StoredRun,
        detail: Detail,
        mut take: impl FnMut(TrialRecord),
    ) -> Result<(), StoreError> {
        self.rows(run.start.id.as_str(), |connection| {
            // Sorted without their samples.
            let sql = "SELECT trials.id FROM schedules JOIN trials ON trials.schedule = schedules.id
                       WHERE schedules.run = ? ORDER BY trials.position, trials.id";
            let mut statement = connection.prepare_cached(sql)?;
            let ids =
                statement.query_map([run.number], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
            // Otherwise each statement would lock and unlock the file.
            let reading =
                connection.is_autocommit().then(|| connection.unchecked_transaction()).transpose()?;
            let mut machines = Machines { connection, detail, known: HashMap::new() };
            for id in ids {
                take(trial(connection, id, &mut machines)?);
            }
            reading.map_or(Ok(()), Transaction::finish)?;
            Ok(())
        })
    }
}

/// Columns of a row, one after another.
struct Cells<'r> {
    row: &'r Row<'r>,
    next: usize,
}

impl<'r> Cells<'r> {
    fn new(row: &'r Row<'r>) -> Self {
        Self { row, next: 0 }
    }

    fn next<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        self.next += 1;
        self.row.get(self.next - 1)
    }

    /// Leaves a series out.
    fn skip<T>(&mut self) -> Vec<T> {
        self.next += 1;
        Vec::new()
    }

    fn value(&mut self) -> rusqlite::Result<ValueRef<'r>> {
        self.next += 1;
        self.row.get_ref(self.next - 1)
    }

    fn series(&mut self, what: &'static str) -> Read<Vec<u64>> {
        let blob = self.value()?.as_blob().map_err(|error| RowError::damaged(what)(&error))?;
        unpack(blob).map_err(|error| RowError::damaged(what)(&error))
    }

    fn unpacked<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Unpacker<'_>) -> Result<T, PackedError>,
    ) -> Read<T> {
        let blob = self.value()?.as_blob().map_err(|error| RowError::damaged(what)(&error))?;
        let mut unpacker = Unpacker::new(blob);
        read(&mut unpacker)
            .and_then(|value| unpacker.finish().map(|()| value))
            .map_err(|error| RowError::damaged(what)(&error))
    }

    fn json<T: DeserializeOwned>(&mut self, what: &'static str) -> Read<T> {
        self.optional(what)?.ok_or_else(|| RowError::damaged(what)(&"it is missing"))
    }

    fn optional<T: DeserializeOwned>(&mut self, what: &'static str) -> Read<Option<T>> {
        let text = self.value()?.as_str_or_null().map_err(|error| RowError::damaged(what)(&error))?;
        let read = text.map(|text| serde_json::from_str(text)).transpose();
        read.map_err(|error| RowError::damaged(what)(&error))
    }
}

/// Fixed parts of machines' states, each read once.
struct Machines<'c> {
    connection: &'c Connection,
    detail: Detail,
    known: HashMap<i64, MachineState>,
}

impl Machines<'_> {
    fn state(&mut self, cells: &mut Cells<'_>) -> Read<MachineState> {
        let id = cells.next()?;
        let readings = cells.json("a machine's readings")?;
        let fixed = if let Some(state) = self.known.get(&id) {
            state.clone()
        } else {
            let mut statement = self.connection.prepare_cached("SELECT state FROM machines WHERE id = ?")?;
            let mut state: MachineState =
                statement.query_row([id], |row| Ok(Cells::new(row).json("a machine's state")))??;
            if self.detail == Detail::Brief {
                state.cpu_flags.clear();
            }
            self.known.entry(id).or_insert(state).clone()
        };
        machine::join(fixed, readings)
            .ok_or_else(|| RowError::damaged("a machine's readings")(&"they are from another machine"))
    }
}

fn trial(connection: &Connection, id: i64, machines: &mut Machines<'_>) -> Read<TrialRecord> {
    // One statement for nearly everything: each takes as long as reading a hundred frames.
    let sql = "SELECT schedules.place, trials.round, trials.position, trials.begun_unix_ns, trials.cooling,
                      trials.prediction, trials.message, trials.fault, measurements.trial IS NOT NULL,
                      request, opened_unix_ns, opened_monotonic_ns, completed_ns, latency_ns, completed_by,
                      isolated_ns, warm_up_ns, warm_up_steady, timeline, wall_ns, steal_ns, busy_ns, runner_ns,
                      overhead_ns, EXISTS (SELECT 1 FROM trial_power WHERE trial_power.trial = trials.id),
                      machine_before, readings_before, machine_after, readings_after, weights_bytes,
                      resident_bytes, anonymous_bytes, watched, cuda,
                      EXISTS (SELECT 1 FROM streams WHERE streams.trial = trials.id)
               FROM trials JOIN schedules ON schedules.id = trials.schedule
                   LEFT JOIN measurements ON measurements.trial = trials.id
               WHERE trials.id = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([id])?;
    let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    let mut cells = Cells::new(row);
    Ok(TrialRecord {
        schedule: cells.next()?,
        round: cells.next()?,
        position: cells.next()?,
        begun_unix_ns: cells.next()?,
        cooling: cells.optional("what a trial waited for")?,
        prediction: cells.optional("a trial's prediction")?,
        outcome: match (cells.next()?, fault(cells.next()?)?) {
            (Some(message), fault) => Outcome::Failed { fault, message },
            (None, _) => Outcome::Measured(Box::new(measurement(connection, id, &mut cells, machines)?)),
        },
    })
}

fn fault(name: Option<String>) -> Read<Option<protocol::Fault>> {
    let Some(name) = name else { return Ok(None) };
    serde_json::from_value(name.into())
        .map(Some)
        .map_err(|error| RowError::damaged("a trial's fault")(&error))
}

fn measurement(
    connection: &Connection,
    trial: i64,
    cells: &mut Cells<'_>,
    machines: &mut Machines<'_>,
) -> Read<Measured> {
    if !cells.next::<bool>()? {
        return Err(RowError::damaged("a trial")(&"its measurement is missing"));
    }
    let detail = machines.detail;
    Ok(Measured {
        id: cells.next()?,
        window: Window {
            opened_unix_ns: cells.next()?,
            opened_monotonic_ns: cells.next()?,
            completed_ns: cells.series("completed_ns")?,
            latency_ns: cells.series("latency_ns")?,
            completed_by: match detail {
                Detail::Whole => small(cells.series("completed_by")?, "completed_by")?,
                Detail::Brief => cells.skip(),
            },
        },
        isolated: cells.unpacked("isolated_ns", isolated)?,
        warm_up: WarmUp {
            completed_ns: match detail {
                Detail::Whole => cells.series("warm_up_ns")?,
                Detail::Brief => cells.skip(),
            },
            steady: cells.next()?,
        },
        timeline: match detail {
            Detail::Whole => cells.unpacked("timeline", spans)?,
            Detail::Brief => cells.skip(),
        },
        host: HostLoad {
            wall_ns: cells.next()?,
            steal_ns: cells.next()?,
            busy_ns: cells.next()?,
            runner_ns: cells.next()?,
            overhead_ns: cells.next()?,
        },
        power: if cells.next()? { power::of_trial(connection, trial)? } else { None },
        before: machines.state(cells)?,
        after: machines.state(cells)?,
        weights_bytes: cells.next()?,
        resident_bytes: cells.next()?,
        anonymous_bytes: cells.next()?,
        watched: cells.optional("how a trial's board was watched")?,
        cuda: cells.optional("the stages on GPUs")?.unwrap_or_default(),
        stream: if cells.next()? { streams::of_trial(connection, trial)? } else { None },
        stages: occupancies(connection, trial)?,
    })
}

fn occupancies(connection: &Connection, trial: i64) -> Read<Vec<Occupancy>> {
    let sql =
        "SELECT frames, busy_ns, waiting_input_ns, waiting_output_ns, cpu_ns, minor_faults, major_faults,
                      voluntary_switches, involuntary_switches
               FROM occupancies WHERE trial = ? ORDER BY stage";
    let mut statement = connection.prepare_cached(sql)?;
    let read = statement.query_map([trial], |row| {
        let mut cells = Cells::new(row);
        Ok(Occupancy {
            frames: cells.next()?,
            busy_ns: cells.next()?,
            waiting_input_ns: cells.next()?,
            waiting_output_ns: cells.next()?,
            cpu_ns: cells.next()?,
            minor_faults: cells.next()?,
            major_faults: cells.next()?,
            voluntary_switches: cells.next()?,
            involuntary_switches: cells.next()?,
        })
    })?;
    Ok(read.collect::<Result<_, _>>()?)
}

fn isolated(unpacker: &mut Unpacker<'_>) -> Result<Vec<Isolated>, PackedError> {
    let count = unpacker.count()?;
    (0..count).map(|_| Ok(Isolated { samples_ns: unpacker.series()? })).collect()
}

fn spans(unpacker: &mut Unpacker<'_>) -> Result<Vec<Span>, PackedError> {
    let (frames, stages) = (unpacker.series()?, unpacker.series()?);
    let (begins, ends) = (unpacker.series()?, unpacker.series()?);
    if [stages.len(), begins.len(), ends.len()] != [frames.len(); 3] {
        return Err(unpacker.error("series of different lengths"));
    }
    let times = begins.into_iter().map(unzigzag).zip(ends.into_iter().map(unzigzag));
    let places = frames.into_iter().zip(stages);
    places
        .zip(times)
        .map(|((frame, stage), (begin_ns, end_ns))| {
            let stage = u32::try_from(stage).map_err(|_| unpacker.error("a stage above 2^32"))?;
            Ok(Span { frame, stage, begin_ns, end_ns })
        })
        .collect()
}

fn small(values: Vec<u64>, what: &'static str) -> Read<Vec<u32>> {
    let narrow = |value| u32::try_from(value).map_err(|error| RowError::damaged(what)(&error));
    values.into_iter().map(narrow).collect()
}
