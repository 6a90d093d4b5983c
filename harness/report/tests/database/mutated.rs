//! No journal and no database makes a command panic, call itself a bug, or take long.

use analysis::Report;
use analysis::history::{History, HistoryError, HistoryQuery};
use clap::ValueEnum as _;
use host::exit::Exit;
use host::mutation::{cases, mutated, timed};
use proptest::prelude::*;
use report::Format;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use store::fixture::{self, Place};
use store::{
    Access, JournalImport, Outcome, Record, RunFilter, RunRecorder, Status, Store, StoreError, journal_path,
};

/// A journal of a run of everything, and an empty database.
static SEEDS: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let place = Place::in_memory();
    let store = place.open();
    let mut recorder = RunRecorder::create(&store, &place.runs(), fixture::run_start()).unwrap();
    for record in fixture::records("resnet18", 2).into_iter().chain(streams()) {
        recorder.record(record).unwrap();
    }
    recorder.finish(Status::Complete, fixture::BEGUN + 60).unwrap();
    drop(store);
    let empty = Place::in_memory();
    drop(empty.open());
    let journal = fs::read(journal_path(&place.runs(), &fixture::run_start().id)).unwrap();
    (journal, fs::read(empty.database()).unwrap())
});

/// Trials under a stream: one with all stamps, and one with more frames than stamps.
fn streams() -> Vec<Record> {
    let planned = fixture::planned("resnet18").swap_remove(0);
    let load = protocol::StreamLoad { streams: 2, ..fixture::camera() };
    let (all, mut some) = (planned.streamed(3, 30, load), planned.streamed(4, 30, fixture::camera()));
    let distribution =
        || protocol::Distribution { up_to_ns: vec![20_000_000, 40_000_000], counts: vec![90, 10] };
    some.stream.as_mut().unwrap().rest = Some(protocol::StreamTotals {
        arrived: 111,
        dropped: 11,
        completed: 100,
        closed_ns: 4_000_000_000,
        since_arrival: distribution(),
        between: distribution(),
        late: distribution(),
        waiting: vec![100, 11, 0],
    });
    [all, some]
        .into_iter()
        .zip(8..)
        .map(|(measured, place)| {
            Record::Trial(fixture::trial(0, place, place, Outcome::Measured(Box::new(measured))))
        })
        .collect()
}

/// Does with a database what commands do, and refuses an error that calls itself a bug.
fn use_it(store: &Store) {
    let told = |error: StoreError| {
        let failure = host::exit::Failure::from(error);
        assert_ne!(failure.exit, Exit::Bug, "{failure}");
        assert!(failure.to_string().len() < 20_000, "{failure}");
    };
    let ids = match store.runs(&RunFilter::default()) {
        Ok(ids) => ids,
        Err(error) => return told(error),
    };
    for id in ids {
        match Report::build(store, &id) {
            Ok(mut report) => {
                report.read_timelines(store).unwrap_or_else(told);
                for format in Format::value_variants() {
                    assert!(!report::render(&report, *format, true).is_empty());
                }
            }
            Err(error) => told(error),
        }
        if let Ok(run) = store.run(id.as_str()) {
            analysis::schedule_figures(store, &run).map_or_else(told, drop);
        }
    }
    let asked = HistoryQuery {
        network: "resnet18".to_owned(),
        board: None,
        schedule: None,
        metric: domain::Metric::Throughput,
    };
    match History::build(store, &asked) {
        Ok(_) | Err(HistoryError::Nothing { .. }) => {}
        Err(HistoryError::Store(error)) => told(error),
    }
}

fn import(journal: &[u8]) {
    let place = Place::in_memory();
    let path = journal_path(&place.runs(), &fixture::run_start().id);
    for folder in [path.parent().unwrap(), place.database().parent().unwrap()] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(&path, journal).unwrap();
    fs::write(place.database(), &SEEDS.1).unwrap();
    let store = place.open();
    timed(|| {
        let found = store.catch_up(&place.runs()).unwrap_or_else(|error| panic!("{error}"));
        assert!(found.unreadable.is_empty(), "{found:?}");
        assert!(
            found.messages().iter().all(|message| message.len() < 5000 && !message.contains("a bug")),
            "{found:?}"
        );
        use_it(&store);
        let again = store.catch_up(&place.runs()).unwrap();
        assert_eq!(again, JournalImport::default(), "told a second time");
    });
}

/// Opens a database for both, and what opens must be usable.
fn open(path: &Path) {
    for access in [Access::ReadOnly, Access::ReadWrite] {
        match Store::open_with(path, access, std::time::Duration::from_millis(30)) {
            Ok(store) => use_it(&store),
            Err(error) => {
                let failure = host::exit::Failure::from(error);
                assert_eq!(failure.exit, Exit::Usage, "{failure}");
            }
        }
    }
}

/// Small databases of all versions.
fn databases() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/databases");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// A small database of the latest version.
static LATEST: LazyLock<Vec<u8>> = LazyLock::new(|| databases().pop().unwrap());

/// Text and blobs of the tables, for changes that the format of the file does not hide.
const CELLS: &str = "SELECT m.name, p.name FROM sqlite_schema m JOIN pragma_table_info(m.name) p
                     WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND p.pk = 0";

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn mutated_journals(journal in mutated(vec![SEEDS.0.clone()])) {
        import(&journal);
    }

    #[test]
    fn mutated_databases(database in mutated(databases())) {
        let place = Place::in_memory();
        fs::create_dir_all(place.database().parent().unwrap()).unwrap();
        fs::write(place.database(), &database).unwrap();
        timed(|| open(&place.database()));
    }

    #[test]
    fn mutated_cells(which in any::<prop::sample::Index>(), value in mutated(cells()), is_text in any::<bool>()) {
        let place = Place::in_memory();
        fs::create_dir_all(place.database().parent().unwrap()).unwrap();
        fs::write(place.database(), &*LATEST).unwrap();
        let connection = rusqlite::Connection::open(place.database()).unwrap();
        let columns: Vec<(String, String)> = connection
            .prepare(CELLS)
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let (table, column) = which.get(&columns);
        let update = format!("UPDATE {table} SET {column} = ?");
        let text = String::from_utf8_lossy(&value).into_owned();
        // The schema refuses some of it, and that is that.
        let _ = match (is_text, text.trim().parse::<i64>()) {
            (_, Ok(number)) => connection.execute(&update, [number]),
            (true, _) => connection.execute(&update, [text]),
            (false, _) => connection.execute(&update, [value]),
        };
        drop(connection);
        timed(|| open(&place.database()));
    }
}

/// What stands in cells: JSON, series, numbers.
fn cells() -> Vec<Vec<u8>> {
    let texts = [
        "[]",
        "{}",
        "[0,1]",
        "{\"cpus\":[0,1]}",
        "1763904602000000000",
        "0",
        "-1",
        "9223372036854775807",
        "running",
        "resnet18",
    ];
    let mut cells: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    cells.push(domain::packed::pack(&[1, 2, 3, 1_000_000]));
    cells.push(vec![0xff; 40]);
    cells
}
