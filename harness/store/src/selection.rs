//! Reads the records of a plan from rows. Trials are in [`trials`](super::trials).

use super::catalog::{StoredRun, json, optional};
use super::database::Store;
use super::error::{RowError, StoreError};
use super::record::{
    ComparisonRecord, NetworkRecord, OperatingPointRecord, ProfileRecord, ScheduleRecord, TransferRecord,
};
use domain::packed::{PackedError, Unpacker};
use domain::{FramesPerSecond, Prediction, Schedule, Stage};
use protocol::{Compared, HandOver, Profiled, Transferred, UnitSamples};
use rusqlite::{Connection, Row, ToSql, params};

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
                   WHERE profiles.run = ? ORDER BY profiles.point, run_networks.place, profiles.contended, profiles.processor";
        self.records(run, sql, params![run.number], |row| {
            let (calls, (frame_ns, instrumented_frame_ns)) =
                (unpacked(row, "calls", calls)?, unpacked(row, "frames", two_series)?);
            let (id, resident_bytes) = (row.get("request")?, row.get("resident_bytes")?);
            let profiled = Profiled {
                id,
                calls,
                frame_ns,
                instrumented_frame_ns,
                resident_bytes,
                cuda: optional(row, "cuda")?,
                host: None,
            };
            let (network, processor) = (row.get("name")?, row.get("processor")?);
            let (contended, point) = (row.get("contended")?, row.get("point")?);
            Ok(ProfileRecord { network, processor, contended, point, profiled })
        })
    }

    /// Raw timings of hand-overs of a run.
    pub fn transfers(&self, run: &StoredRun) -> Result<Vec<TransferRecord>, StoreError> {
        let sql = "SELECT * FROM transfers WHERE run = ? ORDER BY point, from_processor, to_processor";
        self.records(run, sql, params![run.number], |row| {
            let transferred =
                Transferred { id: row.get("request")?, sizes: unpacked(row, "sizes", hand_overs)? };
            let (from, to) = (row.get("from_processor")?, row.get("to_processor")?);
            Ok(TransferRecord { from, to, point: row.get("point")?, transferred })
        })
    }

    /// Operating points of a run by their numbers; none if it has only that of the board's file.
    pub fn operating_points(&self, run: &StoredRun) -> Result<Vec<OperatingPointRecord>, StoreError> {
        let sql = "SELECT * FROM operating_points WHERE run = ? ORDER BY number";
        self.records(run, sql, params![run.number], |row| {
            Ok(OperatingPointRecord {
                number: row.get("number")?,
                point: json(row, "point")?,
                state: optional(row, "state")?,
                idle: optional(row, "idle")?,
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
            let peer: Option<String> = row.get("peer")?;
            let peer: Option<domain::Peer> =
                peer.map(|peer| serde_json::from_str(&peer)).transpose().map_err(|error| damaged(&error))?;
            let units: u64 = row.get("units")?;
            let raw = serde_json::json!({ "kind": kind, "units": units, "stages": stages, "peer": peer });
            // Proves anew that it is a schedule.
            let schedule: Schedule = serde_json::from_value(raw).map_err(|error| damaged(&error))?;
            let fps: Option<f64> = row.get("predicted_fps")?;
            let stage_ns: Option<Vec<f64>> = stage_ns.into_iter().collect();
            let prediction = fps
                .zip(stage_ns)
                .map(|(fps, stage_ns)| Prediction { stage_ns, throughput: FramesPerSecond(fps) });
            let (place, network) = (row.get("place")?, row.get("name")?);
            let (point, queues) = (row.get("point")?, optional(row, "queues")?);
            Ok(ScheduleRecord { place, network, schedule, point, prediction, queues })
        })
    }

    /// Comparisons of outputs of a run, in the order in which they were made.
    pub fn comparisons(&self, run: &StoredRun) -> Result<Vec<ComparisonRecord>, StoreError> {
        let sql =
            "SELECT comparisons.*, candidates.place AS candidate, judges.place AS judge FROM comparisons
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

/// Stages of a schedule, and what was predicted of each.
fn stages(connection: &Connection, schedule: i64) -> Read<(Vec<Stage>, Vec<Option<f64>>)> {
    let sql =
        "SELECT processor, first_unit, end_unit, predicted_ns FROM stages WHERE schedule = ? ORDER BY place";
    let mut statement = connection.prepare_cached(sql)?;
    let read = statement.query_map([schedule], |row| {
        let processor: String = row.get(0)?;
        let stage = Stage { processor: processor.into(), first: row.get(1)?, end: row.get(2)? };
        Ok((stage, row.get::<_, Option<f64>>(3)?))
    })?;
    Ok(read.collect::<Result<Vec<_>, _>>()?.into_iter().unzip())
}

fn blob<'r>(row: &'r Row<'_>, column: &'static str) -> Read<&'r [u8]> {
    row.get_ref(column)?.as_blob().map_err(|error| RowError::damaged(column)(&error))
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
