//! Readings of power meters, to rows and back.

use super::catalog::StoredRun;
use super::database::Store;
use super::error::{RowError, StoreError};
use domain::packed::{PackedError, Packer, Unpacker, unzigzag, zigzag};
use protocol::{Idled, Power, PowerReadings, RailReadings, ReadErrors};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};

/// What is kept of a rail as text.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RailText {
    name: String,
    source: String,
    range_microjoules: Option<u64>,
    errors: Vec<ReadErrors>,
}

impl Store {
    /// Readings of the power meter before the first trial; `None` if the board has none.
    pub fn idle_power(&self, run: &StoredRun) -> Result<Option<Idled>, StoreError> {
        self.rows(run.start.id.as_str(), |connection| {
            let sql =
                "SELECT driver, total, cpu_ns, rails, samples, request, opened_monotonic_ns, duration_ns
                       FROM idle_power WHERE run = ?";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query([run.number])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            Ok(Some(Idled {
                readings: readings(row)?,
                id: row.get(5)?,
                opened_monotonic_ns: row.get(6)?,
                duration_ns: row.get(7)?,
            }))
        })
    }
}

/// Stores the readings before the first trial. A later reading of a resumed run replaces an earlier one.
pub(super) fn insert_idle(connection: &Connection, run: i64, idled: &Idled) -> Result<(), RowError> {
    let readings = &idled.readings;
    let mut insert = connection.prepare_cached(
        "INSERT OR REPLACE INTO idle_power (run, request, opened_monotonic_ns, duration_ns, driver, total, cpu_ns,
             rails, samples)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    insert.execute(params![
        run,
        idled.id,
        idled.opened_monotonic_ns,
        idled.duration_ns,
        readings.driver,
        readings.total,
        readings.cpu_ns,
        rails_text(readings)?,
        samples(readings),
    ])?;
    Ok(())
}

/// Stores the readings of the meter during a trial.
pub(super) fn insert_trial(connection: &Connection, trial: i64, power: &Power) -> Result<(), RowError> {
    let (fault, readings) = match power {
        Power::Read(readings) => (None, Some(readings)),
        Power::Unreadable { message } => (Some(message), None),
    };
    let mut insert = connection.prepare_cached(
        "INSERT INTO trial_power (trial, fault, driver, total, cpu_ns, rails, samples) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?;
    insert.execute(params![
        trial,
        fault,
        readings.map(|readings| &readings.driver),
        readings.map(|readings| &readings.total),
        readings.map(|readings| readings.cpu_ns),
        readings.map(rails_text).transpose()?,
        readings.map(samples),
    ])?;
    Ok(())
}

/// The readings of the meter during a trial; `None` if it was not read.
pub(super) fn of_trial(connection: &Connection, trial: i64) -> Result<Option<Power>, RowError> {
    let sql = "SELECT driver, total, cpu_ns, rails, samples, fault FROM trial_power WHERE trial = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let power = statement
        .query_row([trial], |row| {
            Ok(match row.get::<_, Option<String>>(5)? {
                Some(message) => Ok(Power::Unreadable { message }),
                None => readings(row).map(Power::Read),
            })
        })
        .optional()?;
    power.transpose()
}

fn rails_text(readings: &PowerReadings) -> Result<String, RowError> {
    let text = |rail: &RailReadings| RailText {
        name: rail.name.clone(),
        source: rail.source.clone(),
        range_microjoules: rail.range_microjoules,
        errors: rail.errors.clone(),
    };
    let rails: Vec<RailText> = readings.rails.iter().map(text).collect();
    serde_json::to_string(&rails)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)).into())
}

fn samples(readings: &PowerReadings) -> Vec<u8> {
    let mut packer = Packer::default();
    for rail in &readings.rails {
        packer.series(rail.begun_ns.iter().copied()).series(rail.took_ns.iter().copied());
        for series in [&rail.milliwatts, &rail.millivolts, &rail.milliamperes, &rail.microjoules] {
            packer.series(series.iter().map(|value| zigzag(*value)));
        }
    }
    packer.into_bytes()
}

/// From the first five columns of a row.
fn readings(row: &Row<'_>) -> Result<PowerReadings, RowError> {
    let text: String = row.get(3)?;
    let texts: Vec<RailText> =
        serde_json::from_str(&text).map_err(|error| RowError::damaged("rails of a power meter")(&error))?;
    let blob: Vec<u8> = row.get(4)?;
    let mut unpacker = Unpacker::new(&blob);
    let rails = texts.into_iter().map(|text| rail(text, &mut unpacker)).collect::<Result<_, _>>();
    let rails = rails
        .and_then(|rails| unpacker.finish().map(|()| rails))
        .map_err(|error| RowError::damaged("samples of a power meter")(&error))?;
    Ok(PowerReadings { driver: row.get(0)?, total: row.get(1)?, cpu_ns: row.get(2)?, rails })
}

fn rail(text: RailText, unpacker: &mut Unpacker<'_>) -> Result<RailReadings, PackedError> {
    let RailText { name, source, range_microjoules, errors } = text;
    let (begun_ns, took_ns) = (unpacker.series()?, unpacker.series()?);
    let mut signed = || Ok(unpacker.series()?.into_iter().map(unzigzag).collect());
    Ok(RailReadings {
        name,
        source,
        begun_ns,
        took_ns,
        milliwatts: signed()?,
        millivolts: signed()?,
        milliamperes: signed()?,
        microjoules: signed()?,
        range_microjoules,
        errors,
    })
}
