//! Databases of earlier versions, brought to the latest one.

use analysis::Report;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use store::fixture::{self, Place};
use store::schema::{MIGRATIONS, latest, migrate_by};
use store::{Access, Outcome, Record, RunFilter, RunRecorder, Status, Store, StoreError};

/// Columns of a table, and its rows as text.
type Content = (Vec<String>, Vec<Vec<String>>);

/// The committed database of a version, made by its own code.
fn committed(version: u32) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/databases");
    folder.join(format!("schema-{version}.db"))
}

/// A complete run and one that was cut off after a trial had failed.
fn write(place: &Place) {
    let store = place.open();
    let mut recorder = RunRecorder::create(&store, &place.runs(), fixture::run_start()).unwrap();
    for record in fixture::records("resnet18", 2) {
        recorder.record(record).unwrap();
    }
    recorder.finish(Status::Complete, fixture::BEGUN + 1).unwrap();
    let later = fixture::run_start_at(fixture::BEGUN + 86_400_000_000_000);
    let mut recorder = RunRecorder::create(&store, &place.runs(), later).unwrap();
    for record in fixture::records("squeezenet1_1", 1) {
        recorder.record(record).unwrap();
    }
    let outcome = Outcome::Failed { fault: None, message: "the runner was killed".to_owned() };
    recorder.record(Record::Trial(fixture::trial(0, 1, 4, outcome))).unwrap();
    recorder.finish(Status::Interrupted, fixture::BEGUN + 86_400_000_000_001).unwrap();
}

/// The statements of a schema without comments, which can change.
fn schema_of(connection: &Connection) -> Vec<String> {
    let sql = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name";
    let mut statement = connection.prepare(sql).unwrap();
    let without_comments = |sql: String| -> String {
        sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<Vec<_>>().join("\n")
    };
    let statements = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    statements.map(|sql| without_comments(sql.unwrap())).collect()
}

fn content(connection: &Connection) -> BTreeMap<String, Content> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let mut statement = connection.prepare(sql).unwrap();
    let names: Vec<String> =
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    let rows = |name: &String| {
        let mut statement = connection.prepare(&format!("SELECT * FROM {name}")).unwrap();
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let width = columns.len();
        let rows = statement
            .query_map([], |row| (0..width).map(|place| Ok(format!("{:?}", row.get_ref(place)?))).collect())
            .unwrap();
        (columns, rows.collect::<Result<Vec<Vec<String>>, _>>().unwrap())
    };
    names.iter().map(|name| (name.clone(), rows(name))).collect()
}

/// Columns whose content a migration changed or removed; [`check_figures`] reads it.
const CHANGED: [(&str, &str); 2] = [("runs", "processors"), ("schedules", "warnings")];

/// Rows of a table with these columns only, in an order of their own.
fn projected((columns, rows): &Content, wanted: &[String]) -> Vec<Vec<String>> {
    let places: Vec<usize> =
        wanted.iter().map(|name| columns.iter().position(|column| column == name).unwrap()).collect();
    let mut projected: Vec<Vec<String>> =
        rows.iter().map(|row| places.iter().map(|place| row[*place].clone()).collect()).collect();
    projected.sort();
    projected
}

fn copied(version: u32) -> Place {
    let place = Place::new();
    std::fs::create_dir_all(place.database().parent().unwrap()).unwrap();
    std::fs::copy(committed(version), place.database()).unwrap();
    place
}

/// `EDGEPIPE_WRITE_SCHEMAS=1 cargo test -p report a_database_of_every_version_is_kept` writes that of a version that
/// has none yet. Those of earlier versions are never written again: their code is gone.
#[test]
fn a_database_of_every_version_is_kept() {
    let newest = committed(latest());
    if std::env::var_os("EDGEPIPE_WRITE_SCHEMAS").is_some() && !newest.exists() {
        let place = Place::new();
        write(&place);
        let connection = Connection::open(place.database()).unwrap();
        connection.execute("VACUUM INTO ?1", [newest.to_string_lossy()]).unwrap();
    }
    for version in 1..=latest() {
        let file = committed(version);
        assert!(
            file.exists(),
            "{} is missing; run\nEDGEPIPE_WRITE_SCHEMAS=1 cargo test -p report a_database_of_every_version_is_kept",
            file.display()
        );
        assert!(std::fs::metadata(&file).unwrap().len() < 200_000, "{}", file.display());
        // A migration that has been released is not changed.
        let fresh = Connection::open_in_memory().unwrap();
        migrate_by(&MIGRATIONS[..version as usize], &fresh, Path::new(":memory:")).unwrap();
        let kept = Connection::open(copied(version).database()).unwrap();
        assert_eq!(schema_of(&fresh), schema_of(&kept), "migrations up to {version}");
    }
}

#[test]
fn every_earlier_version_arrives_with_all_it_has() {
    for version in 1..=latest() {
        let place = copied(version);
        let before = content(&Connection::open(place.database()).unwrap());
        let store = place.open();
        let after = content(store.connection());
        for (table, had) in &before {
            let has = after.get(table).unwrap_or_else(|| panic!("{table} of version {version} is gone"));
            let kept = |column: &&String| !CHANGED.contains(&(table.as_str(), column.as_str()));
            let common: Vec<String> = had.0.iter().filter(kept).cloned().collect();
            assert!(common.iter().all(|column| has.0.contains(column)), "{table} of version {version}");
            assert_eq!(projected(had, &common), projected(has, &common), "{table} of version {version}");
        }
        check_figures(&store, version);
        // Nothing is left to do, and a reader finds the same.
        drop(store);
        check_figures(&Store::open(&place.database(), Access::ReadOnly).unwrap(), version);
    }
}

fn check_figures(store: &Store, version: u32) {
    let runs = store.summaries(&RunFilter::default()).unwrap();
    let found: Vec<(Status, u64, u64)> =
        runs.iter().map(|run| (run.status, run.measured, run.failed)).collect();
    assert_eq!(found, [(Status::Interrupted, 4, 1), (Status::Complete, 8, 0)], "version {version}");
    for summary in &runs {
        let run = store.run(summary.id.as_str()).unwrap();
        assert_eq!(run.start.processors, fixture::run_start().processors, "version {version}");
        assert_eq!(store.trials(&run).unwrap().len() as u64, summary.measured + summary.failed);
        assert_eq!((store.profiles(&run).unwrap().len(), store.transfers(&run).unwrap().len()), (2, 1));
        let report = Report::build(store, &summary.id).unwrap();
        assert_eq!(report.rows.len(), 4);
        // Frames of 20, 20.4, 10.6 and 10.2 ms with up to 2 % of noise.
        for (row, wanted) in report.rows.iter().zip([49.5, 48.5, 93.4, 97.1]) {
            let found = row.throughput_fps.as_ref().unwrap().point;
            assert!((found / wanted - 1.0).abs() < 0.01, "{}: {found}, version {version}", row.schedule);
        }
    }
}

#[test]
fn contended_profiles_are_marked_by_a_column_instead_of_a_name() {
    for version in 1..=5 {
        let place = copied(version);
        let connection = Connection::open(place.database()).unwrap();
        let sql = "INSERT INTO profiles SELECT run, network, processor || ' with all others busy', request, calls, frames, \
                   resident_bytes FROM profiles";
        assert_eq!(connection.execute(sql, []).unwrap(), 4);
        drop(connection);
        let store = place.open();
        for summary in store.summaries(&RunFilter::default()).unwrap() {
            let profiles = store.profiles(&store.run(summary.id.as_str()).unwrap()).unwrap();
            let found: Vec<(&str, bool)> =
                profiles.iter().map(|profile| (profile.processor.as_str(), profile.contended)).collect();
            let expected = [("cpu0", false), ("cpu1", false), ("cpu0", true), ("cpu1", true)];
            assert_eq!(found, expected, "version {version}");
        }
    }
}

#[test]
fn an_earlier_version_is_read_without_being_changed() {
    for version in 1..=latest() {
        let place = copied(version);
        let before = std::fs::read(place.database()).unwrap();
        check_figures(&Store::open(&place.database(), Access::ReadOnly).unwrap(), version);
        assert_eq!(std::fs::read(place.database()).unwrap(), before);
    }
}

#[test]
fn a_migration_that_fails_leaves_all_as_it_was() {
    let place = copied(latest());
    let check = |migration: &str, wanted: &str| {
        let connection = Connection::open(place.database()).unwrap();
        connection.pragma_update(None, "foreign_keys", true).unwrap();
        let state = || {
            let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
            (version, schema_of(&connection), content(&connection))
        };
        let before = state();
        let migrations = [MIGRATIONS, &[migration]].concat();
        let error = migrate_by(&migrations, &connection, &place.database()).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("failed to update the schema") && text.contains(wanted), "{text}");
        assert_eq!(state(), before, "{migration}");
        let enforced: bool = connection.pragma_query_value(None, "foreign_keys", |row| row.get(0)).unwrap();
        assert!(enforced);
    };
    check(
        "ALTER TABLE trials ADD COLUMN extra TEXT; DELETE FROM runs; SELECT nonsense FROM nowhere;",
        "nowhere",
    );
    check(
        "DROP TABLE boards; CREATE TABLE boards (id INTEGER PRIMARY KEY, name TEXT, model TEXT) STRICT;",
        "would have invalid references",
    );
}

#[test]
fn a_table_made_anew_keeps_what_refers_to_it() {
    let place = copied(1);
    let connection = Connection::open(place.database()).unwrap();
    let before = content(&connection);
    let original: String = connection
        .query_row("SELECT sql FROM sqlite_schema WHERE name = 'schedules'", [], |row| row.get(0))
        .unwrap();
    let wider = original
        .replace("TABLE schedules", "TABLE schedules_new")
        .replace("'replicate')", "'replicate', 'something new')");
    assert_ne!(wider, original);
    let migration = format!(
        "{wider}; INSERT INTO schedules_new SELECT * FROM schedules; DROP TABLE schedules;
         ALTER TABLE schedules_new RENAME TO schedules;"
    );
    migrate_by(&[MIGRATIONS[0], &migration], &connection, &place.database()).unwrap();
    assert_eq!(content(&connection), before);
    let changed =
        connection.execute("UPDATE schedules SET kind = 'something new', baseline = 0", []).unwrap();
    assert_eq!(changed, 8);
}

#[test]
fn an_error_names_the_version_it_did_not_know() {
    let place = copied(1);
    let connection = Connection::open(place.database()).unwrap();
    let error = migrate_by(&[], &connection, &place.database()).unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { found: 1, known: 0, .. }), "{error}");
}
