//! From rows back to records.

use super::catalog::{StoredRun, json};
use super::database::Store;
use super::error::{RowError, StoreError};
use super::machine;
use super::packed::{PackedError, Unpacker, unpack, unzigzag};
use super::record::{
    ComparisonRecord, NetworkRecord, Outcome, ProfileRecord, ScheduleRecord, TransferRecord, TrialRecord,
};
use domain::{FramesPerSecond, Prediction, Schedule, Stage};
use protocol::{
    Compared, HandOver, HostLoad, Isolated, MachineState, Measured, Occupancy, Profiled, Span, Transferred,
    UnitSamples, WarmUp, Window,
};
use rusqlite::{Connection, Row, ToSql, params};
use std::collections::HashMap;

type Read<T> = Result<T, RowError>;

impl Store {
    /// Networks of a run, in the order of the experiment.
    pub fn networks(&self, run: &StoredRun) -> Result<Vec<NetworkRecord>, StoreError> {
        let sql = "SELECT networks.source, networks.sha256, networks.structure, run_networks.fallback_units
                   FROM run_networks
                   JOIN networks ON networks.id = run_networks.network
                   WHERE run_networks.run = ? ORDER BY run_networks.place";
        self.records(run, sql, params![run.number], |row| {
            Ok(NetworkRecord {
                source: json(row, "source")?,
                sha256: row.get("sha256")?,
                fallback_units: json(row, "fallback_units")?,
                network: json(row, "structure")?,
            })
        })
    }

    /// Raw profiles of a run, by network in the order of the experiment, then by processor.
    pub fn profiles(&self, run: &StoredRun) -> Result<Vec<ProfileRecord>, StoreError> {
        let sql = "SELECT profiles.*, networks.name FROM profiles
                   JOIN networks ON networks.id = profiles.network
                   JOIN run_networks ON run_networks.run = profiles.run
                        AND run_networks.network = profiles.network
                   WHERE profiles.run = ? ORDER BY run_networks.place, profiles.processor";
        self.records(run, sql, params![run.number], |row| {
            let (calls, (frame_ns, instrumented_frame_ns)) =
                (unpacked(row, "calls", calls)?, unpacked(row, "frames", two_series)?);
            let (id, resident_bytes) = (row.get("request")?, row.get("resident_bytes")?);
            let profiled = Profiled { id, calls, frame_ns, instrumented_frame_ns, resident_bytes };
            Ok(ProfileRecord { network: row.get("name")?, processor: row.get("processor")?, profiled })
        })
    }

    /// Raw timings of hand-overs of a run.
    pub fn transfers(&self, run: &StoredRun) -> Result<Vec<TransferRecord>, StoreError> {
        let sql = "SELECT * FROM transfers WHERE run = ? ORDER BY from_processor, to_processor";
        self.records(run, sql, params![run.number], |row| {
            let transferred =
                Transferred { id: row.get("request")?, sizes: unpacked(row, "sizes", hand_overs)? };
            Ok(TransferRecord {
                from: row.get("from_processor")?,
                to: row.get("to_processor")?,
                transferred,
            })
        })
    }

    /// Schedules of a run by their numbers.
    pub fn schedules(&self, run: &StoredRun) -> Result<Vec<ScheduleRecord>, StoreError> {
        let sql = "SELECT schedules.*, networks.name,
                          json_array_length(networks.structure, '$.units') AS units
                   FROM schedules JOIN networks ON networks.id = schedules.network
                   WHERE schedules.run = ? ORDER BY schedules.place";
        self.records(run, sql, params![run.number], |row| {
            let damaged = RowError::damaged("a schedule");
            let (stages, stage_ns) = stages(&self.connection, row.get("id")?)?;
            let kind: String = row.get("kind")?;
            let raw = serde_json::json!({ "kind": kind, "units": row.get::<_, u64>("units")?, "stages": stages });
            // Proves anew that it is a schedule.
            let schedule: Schedule = serde_json::from_value(raw).map_err(|error| damaged(&error))?;
            let fps: Option<f64> = row.get("predicted_fps")?;
            let stage_ns: Option<Vec<f64>> = stage_ns.into_iter().collect();
            let prediction = fps
                .zip(stage_ns)
                .map(|(fps, stage_ns)| Prediction { stage_ns, throughput: FramesPerSecond(fps) });
            let (place, network) = (row.get("place")?, row.get("name")?);
            Ok(ScheduleRecord { place, network, schedule, prediction, warnings: json(row, "warnings")? })
        })
    }

    /// Comparisons of outputs of a run, in the order in which they were made.
    pub fn comparisons(&self, run: &StoredRun) -> Result<Vec<ComparisonRecord>, StoreError> {
        let sql = "SELECT comparisons.*, candidates.place AS candidate, judges.place AS judge FROM comparisons
                   JOIN schedules AS candidates ON candidates.id = comparisons.schedule
                   JOIN schedules AS judges ON judges.id = comparisons.reference
                   WHERE candidates.run = ? ORDER BY comparisons.id";
        self.records(run, sql, params![run.number], |row| {
            let (id, frames, outputs) = (row.get("request")?, row.get("frames")?, json(row, "outputs")?);
            Ok(ComparisonRecord {
                schedule: row.get("candidate")?,
                reference: row.get("judge")?,
                tolerance: row.get("tolerance")?,
                compared: Compared { id, frames, outputs },
            })
        })
    }

    /// Trials of a run with all samples, by their place in the interleaved order.
    pub fn trials(&self, run: &StoredRun) -> Result<Vec<TrialRecord>, StoreError> {
        let mut trials = Vec::new();
        self.each_trial(run, |trial| trials.push(trial))?;
        Ok(trials)
    }

    /// Hands on the trials of a run one by one, by their place in the interleaved order; a trial that was repeated
    /// comes as often as it was tried.
    pub fn each_trial(&self, run: &StoredRun, mut take: impl FnMut(TrialRecord)) -> Result<(), StoreError> {
        self.rows(run.start.id.as_str(), |connection| {
            let mut machines = Machines { connection, known: HashMap::new() };
            let sql = "SELECT trials.*, schedules.place, measurements.* FROM schedules
                       JOIN trials ON trials.schedule = schedules.id
                       LEFT JOIN measurements ON measurements.trial = trials.id
                       WHERE schedules.run = ? ORDER BY trials.position, trials.id";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(params![run.number])?;
            while let Some(row) = rows.next()? {
                take(read_trial(row, &mut machines)?);
            }
            Ok(())
        })
    }

    fn records<T>(
        &self,
        run: &StoredRun,
        sql: &str,
        params: &[&dyn ToSql],
        read: impl Fn(&Row<'_>) -> Read<T>,
    ) -> Result<Vec<T>, StoreError> {
        self.rows(run.start.id.as_str(), |connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(params)?;
            let mut records = Vec::new();
            while let Some(row) = rows.next()? {
                records.push(read(row)?);
            }
            Ok(records)
        })
    }
}

/// Fixed parts of machines' states, each read once.
struct Machines<'c> {
    connection: &'c Connection,
    known: HashMap<i64, MachineState>,
}

impl Machines<'_> {
    fn state(&mut self, row: &Row<'_>, machine: &'static str, readings: &'static str) -> Read<MachineState> {
        let id = row.get(machine)?;
        let fixed = if let Some(state) = self.known.get(&id) {
            state.clone()
        } else {
            let mut statement = self.connection.prepare_cached("SELECT state FROM machines WHERE id = ?")?;
            let state: MachineState = statement.query_row([id], |row| Ok(json(row, "state")))??;
            self.known.entry(id).or_insert(state).clone()
        };
        machine::join(fixed, json(row, readings)?)
            .ok_or_else(|| RowError::damaged(readings)(&"it is of another machine"))
    }
}

fn read_trial(row: &Row<'_>, machines: &mut Machines<'_>) -> Read<TrialRecord> {
    let message: Option<String> = row.get("message")?;
    let outcome = match message {
        Some(message) => Outcome::Failed { fault: fault(row)?, message },
        None => Outcome::Measured(Box::new(read_measured(row, machines)?)),
    };
    Ok(TrialRecord {
        schedule: row.get("place")?,
        round: row.get("round")?,
        position: row.get("position")?,
        begun_unix_ns: row.get("begun_unix_ns")?,
        outcome,
    })
}

/// Stages of a schedule, and what was predicted of each.
fn stages(connection: &Connection, schedule: i64) -> Read<(Vec<Stage>, Vec<Option<f64>>)> {
    let sql = "SELECT processor, first_unit, end_unit, predicted_ns FROM stages WHERE schedule = ? ORDER BY place";
    let mut statement = connection.prepare_cached(sql)?;
    let read = statement.query_map([schedule], |row| {
        let processor: String = row.get(0)?;
        let stage = Stage { processor: processor.into(), first: row.get(1)?, end: row.get(2)? };
        Ok((stage, row.get::<_, Option<f64>>(3)?))
    })?;
    Ok(read.collect::<Result<Vec<_>, _>>()?.into_iter().unzip())
}

fn fault(row: &Row<'_>) -> Read<Option<protocol::Fault>> {
    let Some(name) = row.get::<_, Option<String>>("fault")? else { return Ok(None) };
    let fault = serde_json::from_value(name.into());
    fault.map(Some).map_err(|error| RowError::damaged("fault")(&error))
}

fn read_measured(row: &Row<'_>, machines: &mut Machines<'_>) -> Read<Measured> {
    let completed_by = series(row, "completed_by")?;
    let window = Window {
        opened_unix_ns: row.get("opened_unix_ns")?,
        opened_monotonic_ns: row.get("opened_monotonic_ns")?,
        completed_ns: series(row, "completed_ns")?,
        latency_ns: series(row, "latency_ns")?,
        completed_by: completed_by
            .into_iter()
            .map(|stage| u32::try_from(stage).map_err(|error| RowError::damaged("completed_by")(&error)))
            .collect::<Read<_>>()?,
    };
    Ok(Measured {
        id: row.get("request")?,
        isolated: unpacked(row, "isolated_ns", isolated)?,
        warm_up: WarmUp { completed_ns: series(row, "warm_up_ns")?, steady: row.get("warm_up_steady")? },
        window,
        stages: occupancies(machines.connection, row.get("trial")?)?,
        timeline: unpacked(row, "timeline", spans)?,
        host: HostLoad {
            wall_ns: row.get("wall_ns")?,
            steal_ns: row.get("steal_ns")?,
            busy_ns: row.get("busy_ns")?,
            runner_ns: row.get("runner_ns")?,
            overhead_ns: row.get("overhead_ns")?,
        },
        before: machines.state(row, "machine_before", "readings_before")?,
        after: machines.state(row, "machine_after", "readings_after")?,
        weights_bytes: row.get("weights_bytes")?,
        resident_bytes: row.get("resident_bytes")?,
        anonymous_bytes: row.get("anonymous_bytes")?,
    })
}

fn occupancies(connection: &Connection, trial: i64) -> Read<Vec<Occupancy>> {
    let sql = "SELECT * FROM occupancies WHERE trial = ? ORDER BY stage";
    let mut statement = connection.prepare_cached(sql)?;
    let read = statement.query_map([trial], |row| {
        Ok(Occupancy {
            frames: row.get("frames")?,
            busy_ns: row.get("busy_ns")?,
            waiting_input_ns: row.get("waiting_input_ns")?,
            waiting_output_ns: row.get("waiting_output_ns")?,
            cpu_ns: row.get("cpu_ns")?,
            minor_faults: row.get("minor_faults")?,
            major_faults: row.get("major_faults")?,
            voluntary_switches: row.get("voluntary_switches")?,
            involuntary_switches: row.get("involuntary_switches")?,
        })
    })?;
    Ok(read.collect::<Result<_, _>>()?)
}

fn blob<'r>(row: &'r Row<'_>, column: &'static str) -> Read<&'r [u8]> {
    row.get_ref(column)?.as_blob().map_err(|error| RowError::damaged(column)(&error))
}

fn series(row: &Row<'_>, column: &'static str) -> Read<Vec<u64>> {
    unpack(blob(row, column)?).map_err(|error| RowError::damaged(column)(&error))
}

fn unpacked<T>(
    row: &Row<'_>,
    column: &'static str,
    read: impl FnOnce(&mut Unpacker<'_>) -> Result<T, PackedError>,
) -> Read<T> {
    let mut unpacker = Unpacker::new(blob(row, column)?);
    read(&mut unpacker)
        .and_then(|value| unpacker.finish().map(|()| value))
        .map_err(|error| RowError::damaged(column)(&error))
}

fn calls(unpacker: &mut Unpacker<'_>) -> Result<Vec<UnitSamples>, PackedError> {
    let count = unpacker.count()?;
    (0..count)
        .map(|_| Ok(UnitSamples { unit: unpacker.small_number()?, samples_ns: unpacker.series()? }))
        .collect()
}

fn two_series(unpacker: &mut Unpacker<'_>) -> Result<(Vec<u64>, Vec<u64>), PackedError> {
    Ok((unpacker.series()?, unpacker.series()?))
}

fn hand_overs(unpacker: &mut Unpacker<'_>) -> Result<Vec<HandOver>, PackedError> {
    let count = unpacker.count()?;
    (0..count)
        .map(|_| {
            let bytes = unpacker.number()?;
            Ok(HandOver { bytes, first_ns: unpacker.series()?, again_ns: unpacker.series()? })
        })
        .collect()
}

fn isolated(unpacker: &mut Unpacker<'_>) -> Result<Vec<Isolated>, PackedError> {
    let count = unpacker.count()?;
    (0..count).map(|_| Ok(Isolated { samples_ns: unpacker.series()? })).collect()
}

fn spans(unpacker: &mut Unpacker<'_>) -> Result<Vec<Span>, PackedError> {
    let (frames, stages) = two_series(unpacker)?;
    let (begins, ends) = two_series(unpacker)?;
    if [stages.len(), begins.len(), ends.len()] != [frames.len(); 3] {
        return Err(unpacker.error("series of unlike lengths"));
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
