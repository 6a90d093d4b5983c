//! From records to rows.

use super::error::RowError;
use super::machine;
use super::power;
use super::record::{
    CampaignRecord, ComparisonRecord, Finished, NetworkRecord, Outcome, ProfileRecord, Record, RunStart,
    ScheduleRecord, Status, TransferRecord, TrialRecord,
};
use super::streams;
use domain::packed::{Packer, pack, zigzag};
use protocol::{Fault, MachineState, Measured};
use rusqlite::{Connection, OptionalExtension as _, ToSql, params};
use serde::Serialize;

type Inserted<T = ()> = Result<T, RowError>;

/// Adds a record to the rows of its run. The first record of a run has a function of its own, [`insert_run`].
pub(super) fn insert(connection: &Connection, run: i64, record: &Record) -> Inserted {
    match record {
        // It is there: `run` is its number.
        Record::Run(_) => Ok(()),
        Record::Resumed(resumed) => {
            execute(
                connection,
                "INSERT OR IGNORE INTO resumptions (run, unix_ns, command, state) VALUES (?, ?, ?, ?)",
                params![
                    run,
                    resumed.unix_ns,
                    json(&resumed.command)?,
                    resumed.state.as_ref().map(json).transpose()?
                ],
            )?;
            end_run(connection, run, Status::Running, None, None)
        }
        Record::PowerCycle(cycle) => {
            execute(
                connection,
                "INSERT OR IGNORE INTO power_cycles (run, unix_ns, place, reason) VALUES (?, ?, ?, ?)",
                params![run, cycle.unix_ns, cycle.place, cycle.reason],
            )?;
            Ok(())
        }
        Record::Network(network) => insert_network(connection, run, network),
        Record::Profile(profile) => insert_profile(connection, run, profile),
        Record::Idle(idled) => power::insert_idle(connection, run, idled),
        Record::Transfer(transfer) => insert_transfer(connection, run, transfer),
        Record::OperatingPoint(point) => {
            execute(
                connection,
                // A run that is resumed sets the point anew; an idle reading is taken once.
                "INSERT INTO operating_points (run, number, point, state, idle) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (run, number) DO UPDATE SET
                     point = excluded.point, state = excluded.state, idle = coalesce(excluded.idle, idle)",
                params![
                    run,
                    point.number,
                    json(&point.point)?,
                    point.state.as_ref().map(json).transpose()?,
                    point.idle.as_ref().map(json).transpose()?,
                ],
            )?;
            Ok(())
        }
        Record::Schedule(schedule) => insert_schedule(connection, run, schedule),
        Record::Comparison(comparison) => insert_comparison(connection, run, comparison),
        Record::Trial(trial) => insert_trial(connection, run, trial),
        Record::Finished(Finished { unix_ns, status, reason }) => {
            end_run(connection, run, *status, Some(*unix_ns), reason.as_deref())
        }
    }
}

/// Adds a run of which nothing has been brought in yet.
pub(super) fn insert_run(connection: &Connection, run: &RunStart) -> Inserted {
    let model = &run.machine.model;
    let find_board = "SELECT id FROM boards WHERE name = ? AND model IS ?";
    let board = find_or_insert(
        connection,
        (find_board, params![run.board, model]),
        ("INSERT INTO boards (name, model) VALUES (?, ?)", params![run.board, model]),
    )?;
    let (machine, readings) = insert_machine(connection, &run.machine)?;
    let campaign = run.campaign.as_ref().map(|campaign| insert_campaign(connection, campaign)).transpose()?;
    let versions = &run.versions;
    execute(
        connection,
        "INSERT INTO runs (id, begun_unix_ns, status, experiment, board, processors, machine, readings, host,
             command, configuration, seed, rounds, harness_version, runner_version, protocol_version, tvm_version,
             llvm_version, python_version, git_revision, git_dirty, provenance, campaign, state,
             journal_bytes)
         VALUES (?, ?, 'running', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
        params![
            run.id.as_str(),
            run.begun_unix_ns,
            run.experiment,
            board,
            json(&run.processors)?,
            machine,
            readings,
            run.host,
            json(&run.command)?,
            run.configuration,
            run.seed.cast_signed(),
            run.rounds,
            versions.harness,
            versions.runner,
            versions.protocol,
            versions.tvm,
            versions.llvm,
            versions.python,
            run.revision.as_ref().map(|revision| &revision.commit),
            run.revision.as_ref().map(|revision| revision.dirty),
            json(&run.provenance)?,
            campaign,
            run.state.as_ref().map(json).transpose()?,
        ],
    )?;
    Ok(())
}

fn end_run(
    connection: &Connection,
    run: i64,
    status: Status,
    unix_ns: Option<u64>,
    reason: Option<&str>,
) -> Inserted {
    let update = "UPDATE runs SET status = ?, ended_unix_ns = ?, ended_because = ? WHERE number = ?";
    execute(connection, update, params![status.as_str(), unix_ns, reason, run])?;
    Ok(())
}

fn insert_campaign(connection: &Connection, campaign: &CampaignRecord) -> Inserted<i64> {
    let (id, mode, boards) = (campaign.id.as_str(), campaign.mode.as_str(), json(&campaign.boards)?);
    let find = "SELECT number FROM campaigns WHERE id = ? AND mode = ? AND boards = ?";
    let insert = "INSERT INTO campaigns (id, mode, boards) VALUES (?, ?, ?)";
    find_or_insert(connection, (find, params![id, mode, boards]), (insert, params![id, mode, boards]))
}

fn insert_machine(connection: &Connection, state: &MachineState) -> Inserted<(i64, String)> {
    let (fixed, readings) = machine::split(state);
    let fixed = json(&fixed)?;
    let id = find_or_insert(
        connection,
        ("SELECT id FROM machines WHERE state = ?", params![fixed]),
        ("INSERT INTO machines (state) VALUES (?)", params![fixed]),
    )?;
    Ok((id, json(&readings)?))
}

fn insert_network(connection: &Connection, run: i64, record: &NetworkRecord) -> Inserted {
    let network = &record.network;
    let (source, structure) = (json(&record.source)?, json(network)?);
    let find = "SELECT id FROM networks WHERE name = ? AND sha256 = ? AND source = ? AND structure = ?";
    let insert =
        "INSERT INTO networks (name, sha256, source, structure, parameters, macs) VALUES (?, ?, ?, ?, ?, ?)";
    let (name, sha256) = (network.name(), &record.sha256);
    let id = find_or_insert(
        connection,
        (find, params![name, sha256, source, structure]),
        (insert, params![name, sha256, source, structure, network.parameters(), network.macs()]),
    )?;
    execute(
        connection,
        "INSERT INTO run_networks (run, place, network, fallback_units)
         SELECT ?1, (SELECT count(*) FROM run_networks WHERE run = ?1), ?2, ?3",
        params![run, id, json(&record.fallback_units)?],
    )?;
    Ok(())
}

fn insert_profile(connection: &Connection, run: i64, record: &ProfileRecord) -> Inserted {
    let profiled = &record.profiled;
    let mut calls = Packer::default();
    calls.count(profiled.calls.len());
    for call in &profiled.calls {
        calls.number(call.unit.into()).series(call.samples_ns.iter().copied());
    }
    let mut frames = Packer::default();
    frames.series(profiled.frame_ns.iter().copied());
    frames.series(profiled.instrumented_frame_ns.iter().copied());
    execute(
        connection,
        // A run that is resumed may profile anew; the journal keeps both, plans follow the latest.
        "INSERT OR REPLACE INTO profiles (run, network, processor, contended, point, request, calls, frames,
             resident_bytes, cuda)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            run,
            network_of(connection, run, &record.network)?,
            record.processor,
            record.contended,
            record.point,
            profiled.id,
            calls.into_bytes(),
            frames.into_bytes(),
            profiled.resident_bytes,
            profiled.cuda.as_ref().map(json).transpose()?,
        ],
    )?;
    Ok(())
}

fn insert_transfer(connection: &Connection, run: i64, record: &TransferRecord) -> Inserted {
    let mut sizes = Packer::default();
    sizes.count(record.transferred.sizes.len());
    for size in &record.transferred.sizes {
        sizes.number(size.bytes);
        sizes.series(size.first_ns.iter().copied()).series(size.again_ns.iter().copied());
    }
    execute(
        connection,
        "INSERT OR REPLACE INTO transfers (run, from_processor, to_processor, point, request, sizes)
         VALUES (?, ?, ?, ?, ?, ?)",
        params![run, record.from, record.to, record.point, record.transferred.id, sizes.into_bytes()],
    )?;
    Ok(())
}

fn insert_schedule(connection: &Connection, run: i64, record: &ScheduleRecord) -> Inserted {
    let schedule = &record.schedule;
    let prediction = record.prediction.as_ref();
    let kind = schedule.kind();
    execute(
        connection,
        "INSERT INTO schedules (run, place, network, kind, label, baseline, predicted_fps, peer, point, queues)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            run,
            record.place,
            network_of(connection, run, &record.network)?,
            kind.to_string(),
            schedule.label(),
            kind == domain::ScheduleKind::Single,
            prediction.map(|prediction| prediction.throughput.0),
            schedule.as_peer().map(json).transpose()?,
            record.point,
            record.queues.as_ref().map(json).transpose()?,
        ],
    )?;
    let id = connection.last_insert_rowid();
    for (place, stage) in schedule.stages().iter().enumerate() {
        execute(
            connection,
            "INSERT INTO stages (schedule, place, processor, first_unit, end_unit, predicted_ns)
             VALUES (?, ?, ?, ?, ?, ?)",
            params![
                id,
                place,
                stage.processor.as_str(),
                stage.first,
                stage.end,
                prediction.and_then(|prediction| prediction.stage_ns.get(place)),
            ],
        )?;
    }
    Ok(())
}

fn insert_comparison(connection: &Connection, run: i64, record: &ComparisonRecord) -> Inserted {
    execute(
        connection,
        "INSERT INTO comparisons (schedule, reference, request, tolerance, frames, outputs)
         VALUES (?, ?, ?, ?, ?, ?)",
        params![
            schedule_of(connection, run, record.schedule)?,
            schedule_of(connection, run, record.reference)?,
            record.compared.id,
            record.tolerance,
            record.compared.frames,
            json(&record.compared.outputs)?,
        ],
    )?;
    Ok(())
}

fn insert_trial(connection: &Connection, run: i64, record: &TrialRecord) -> Inserted {
    let (status, fault, message) = match &record.outcome {
        Outcome::Measured(_) => ("measured", None, None),
        Outcome::Failed { fault, message } => ("failed", fault.map(fault_text).transpose()?, Some(message)),
    };
    execute(
        connection,
        "INSERT INTO trials (schedule, round, position, begun_unix_ns, status, fault, message, cooling, prediction)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            schedule_of(connection, run, record.schedule)?,
            record.round,
            record.position,
            record.begun_unix_ns,
            status,
            fault,
            message,
            record.cooling.as_ref().map(json).transpose()?,
            record.prediction.as_ref().map(json).transpose()?,
        ],
    )?;
    match &record.outcome {
        Outcome::Measured(measured) => {
            insert_measurement(connection, connection.last_insert_rowid(), measured)
        }
        Outcome::Failed { .. } => Ok(()),
    }
}

fn insert_measurement(connection: &Connection, trial: i64, measured: &Measured) -> Inserted {
    let window = &measured.window;
    let by: Vec<u64> = window.completed_by.iter().map(|stage| u64::from(*stage)).collect();
    let mut isolated = Packer::default();
    isolated.count(measured.isolated.len());
    for stage in &measured.isolated {
        isolated.series(stage.samples_ns.iter().copied());
    }
    let spans = &measured.timeline;
    let mut timeline = Packer::default();
    timeline.series(spans.iter().map(|span| span.frame));
    timeline.series(spans.iter().map(|span| u64::from(span.stage)));
    timeline.series(spans.iter().map(|span| zigzag(span.begin_ns)));
    timeline.series(spans.iter().map(|span| zigzag(span.end_ns)));
    let before = insert_machine(connection, &measured.before)?;
    let after = insert_machine(connection, &measured.after)?;
    let host = &measured.host;
    execute(
        connection,
        "INSERT INTO measurements (trial, request, opened_unix_ns, opened_monotonic_ns, frames, completed_ns,
             latency_ns, completed_by, warm_up_ns, warm_up_steady, isolated_ns, timeline, wall_ns, steal_ns, busy_ns,
             runner_ns, overhead_ns, machine_before, readings_before, machine_after, readings_after, weights_bytes,
             resident_bytes, anonymous_bytes, watched, cuda)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            trial,
            measured.id,
            window.opened_unix_ns,
            window.opened_monotonic_ns,
            window.completed_ns.len(),
            pack(&window.completed_ns),
            pack(&window.latency_ns),
            pack(&by),
            pack(&measured.warm_up.completed_ns),
            measured.warm_up.steady,
            isolated.into_bytes(),
            timeline.into_bytes(),
            host.wall_ns,
            host.steal_ns,
            host.busy_ns,
            host.runner_ns,
            host.overhead_ns,
            before.0,
            before.1,
            after.0,
            after.1,
            measured.weights_bytes,
            measured.resident_bytes,
            measured.anonymous_bytes,
            measured.watched.as_ref().map(json).transpose()?,
            Some(&measured.cuda).filter(|stages| !stages.is_empty()).map(json).transpose()?,
        ],
    )?;
    if let Some(readings) = &measured.power {
        power::insert_trial(connection, trial, readings)?;
    }
    if let Some(streamed) = &measured.stream {
        streams::insert(connection, trial, streamed)?;
    }
    for (stage, occupancy) in measured.stages.iter().enumerate() {
        execute(
            connection,
            "INSERT INTO occupancies (trial, stage, frames, busy_ns, waiting_input_ns, waiting_output_ns, cpu_ns,
                 minor_faults, major_faults, voluntary_switches, involuntary_switches)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                trial,
                stage,
                occupancy.frames,
                occupancy.busy_ns,
                occupancy.waiting_input_ns,
                occupancy.waiting_output_ns,
                occupancy.cpu_ns,
                occupancy.minor_faults,
                occupancy.major_faults,
                occupancy.voluntary_switches,
                occupancy.involuntary_switches,
            ],
        )?;
    }
    Ok(())
}

/// Id of a network of the run.
fn network_of(connection: &Connection, run: i64, name: &str) -> Inserted<i64> {
    let find = "SELECT networks.id FROM run_networks JOIN networks ON networks.id = run_networks.network
                WHERE run_networks.run = ? AND networks.name = ?";
    find_id(connection, find, params![run, name])?
        .ok_or_else(|| RowError::Missing(format!("network {name:?}")))
}

/// Id of a schedule of the run.
fn schedule_of(connection: &Connection, run: i64, place: u32) -> Inserted<i64> {
    find_id(connection, "SELECT id FROM schedules WHERE run = ? AND place = ?", params![run, place])?
        .ok_or_else(|| RowError::Missing(format!("schedule {place}")))
}

type Statement<'a> = (&'a str, &'a [&'a dyn ToSql]);

fn find_or_insert(connection: &Connection, find: Statement<'_>, insert: Statement<'_>) -> Inserted<i64> {
    if let Some(id) = find_id(connection, find.0, find.1)? {
        return Ok(id);
    }
    execute(connection, insert.0, insert.1)?;
    Ok(connection.last_insert_rowid())
}

fn find_id(connection: &Connection, sql: &str, params: &[&dyn ToSql]) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached(sql)?.query_row(params, |row| row.get(0)).optional()
}

fn execute(connection: &Connection, sql: &str, params: &[&dyn ToSql]) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute(params)
}

fn json<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// The fault's name without quotes.
fn fault_text(fault: Fault) -> rusqlite::Result<String> {
    Ok(json(&fault)?.trim_matches('"').to_owned())
}
