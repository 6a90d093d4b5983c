//! Rows of streams.

use super::error::RowError;
use domain::packed::{pack, unpack};
use protocol::{Arrived, Dropped, Streamed};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

type Read<T> = Result<T, RowError>;

/// Adds the stream of a trial.
pub(super) fn insert(connection: &Connection, trial: i64, streamed: &Streamed) -> Read<()> {
    let Streamed { load, arrived, dropped, since_arrival_ns, completed_stream, .. } = streamed;
    let json = |error| rusqlite::Error::ToSqlConversionFailure(Box::new(error));
    connection
        .prepare_cached(
            "INSERT INTO streams (trial, load, scheduled_ns, late_ns, waiting, stream, dropped_ns, dropped_since_ns,
                 dropped_stream, since_arrival_ns, completed_stream, source_cpu_ns, source_apart, rest)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            trial,
            serde_json::to_string(load).map_err(json)?,
            pack(&arrived.scheduled_ns),
            pack(&arrived.late_ns),
            pack_small(&arrived.waiting),
            pack_small(&arrived.stream),
            pack(&dropped.dropped_ns),
            pack(&dropped.since_arrival_ns),
            pack_small(&dropped.stream),
            pack(since_arrival_ns),
            pack_small(completed_stream),
            streamed.source_cpu_ns,
            streamed.source_apart,
            streamed.rest.as_ref().map(serde_json::to_string).transpose().map_err(json)?,
        ])?;
    Ok(())
}

/// The stream of a trial; absent if its load was saturating.
pub(super) fn of_trial(connection: &Connection, trial: i64) -> Read<Option<Streamed>> {
    let sql =
        "SELECT load, scheduled_ns, late_ns, waiting, stream, dropped_ns, dropped_since_ns, dropped_stream,
                      since_arrival_ns, completed_stream, source_cpu_ns, source_apart, rest
               FROM streams WHERE trial = ?";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_row([trial], |row| Ok(read(row))).optional()?.transpose()
}

fn read(row: &Row<'_>) -> Read<Streamed> {
    let damaged = |column: &'static str| RowError::damaged(column);
    let series = |column: &'static str| -> Read<Vec<u64>> {
        let blob = row.get_ref(column)?.as_blob().map_err(|error| damaged(column)(&error))?;
        unpack(blob).map_err(|error| damaged(column)(&error))
    };
    let small = |column: &'static str| -> Read<Vec<u32>> {
        let narrow = |value| u32::try_from(value).map_err(|error| damaged(column)(&error));
        series(column)?.into_iter().map(narrow).collect()
    };
    Ok(Streamed {
        load: super::catalog::json(row, "load")?,
        arrived: Arrived {
            scheduled_ns: series("scheduled_ns")?,
            late_ns: series("late_ns")?,
            waiting: small("waiting")?,
            stream: small("stream")?,
        },
        dropped: Dropped {
            dropped_ns: series("dropped_ns")?,
            since_arrival_ns: series("dropped_since_ns")?,
            stream: small("dropped_stream")?,
        },
        since_arrival_ns: series("since_arrival_ns")?,
        completed_stream: small("completed_stream")?,
        source_cpu_ns: row.get("source_cpu_ns")?,
        source_apart: row.get("source_apart")?,
        rest: super::catalog::optional(row, "rest")?,
    })
}

fn pack_small(values: &[u32]) -> Vec<u8> {
    pack(&values.iter().map(|value| u64::from(*value)).collect::<Vec<_>>())
}
