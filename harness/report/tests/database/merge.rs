//! Databases of several hosts in one.

use analysis::Report;
use domain::FleetMode;
use rusqlite::Connection;
use store::fixture::{self, Place};
use store::{
    Access, CampaignRecord, ImportStatus, Outcome, Record, Resumed, RunFilter, RunRecorder, RunStart, Status,
    Store, StoreError,
};

const SECOND: u64 = 1_000_000_000;

fn start(second: u64, host: &str) -> RunStart {
    let mut start = fixture::run_start_at(fixture::BEGUN + second * SECOND);
    host.clone_into(&mut start.host);
    start
}

fn record(place: &Place, start: RunStart, records: &[Record], status: Status) {
    let store = place.open();
    let mut recorder = RunRecorder::create(&store, &place.runs(), start).unwrap();
    for record in records {
        recorder.record(record.clone()).unwrap();
    }
    recorder.finish(status, fixture::BEGUN + 1).unwrap();
}

fn import(into: &Place, from: &Place) -> Vec<ImportStatus> {
    let store = into.open();
    let other = store.read_other(&from.database()).unwrap();
    let merged = store.merge(&other).unwrap();
    drop(other);
    merged.into_iter().map(|one| one.status).collect()
}

/// All that the database says of its runs, by way of records.
fn everything(store: &Store) -> Vec<String> {
    let ids = store.runs(&RunFilter::default()).unwrap();
    let describe = |id| {
        let run = store.run(id).unwrap();
        let parts = [
            format!("{:?} {:?} {:?}", run.start, run.status, run.resumptions),
            format!("{:?}", store.networks(&run).unwrap()),
            format!("{:?}", store.profiles(&run).unwrap()),
            format!("{:?}", store.transfers(&run).unwrap()),
            format!("{:?}", store.schedules(&run).unwrap()),
            format!("{:?}", store.comparisons(&run).unwrap()),
            format!("{:?}", store.trials(&run).unwrap()),
        ];
        parts.concat()
    };
    ids.iter().map(|id| describe(id.as_str())).collect()
}

fn count(store: &Store, table: &str) -> u32 {
    let sql = format!("SELECT count(*) FROM {table}");
    store.connection().query_row(&sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn runs_of_two_hosts_come_together_and_only_once() {
    let (own, other) = (Place::new(), Place::new());
    record(&own, start(0, "here"), &fixture::records("resnet18", 2), Status::Complete);
    record(&own, start(1, "here"), &fixture::records("vgg16", 1), Status::Complete);
    let mut elsewhere = start(2, "there");
    elsewhere.machine.model = Some("Other Board".to_owned());
    record(&other, elsewhere, &fixture::records("resnet18", 2), Status::Complete);
    let mut failing = fixture::records("squeezenet1_1", 1);
    let outcome = Outcome::Failed { fault: None, message: "gone".to_owned() };
    failing.push(Record::Trial(fixture::trial(1, 1, 4, outcome)));
    record(&other, start(3, "there"), &failing, Status::Failed);

    let original = std::fs::read(other.database()).unwrap();
    assert_eq!(import(&own, &other), [ImportStatus::New, ImportStatus::New]);
    assert_eq!(std::fs::read(other.database()).unwrap(), original);
    let (merged, there) = (own.open(), other.open());
    let (all, theirs) = (everything(&merged), everything(&there));
    assert_eq!(all.len(), 4);
    assert_eq!(all[..2], theirs);
    // What runs share is there once: two boards, three networks.
    assert_eq!((count(&merged, "boards"), count(&merged, "networks")), (2, 3));
    let reports = |store: &Store| {
        let ids = store.runs(&RunFilter::default()).unwrap();
        ids[..2].iter().map(|id| Report::build(store, id).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(reports(&merged), reports(&there));

    assert_eq!(import(&own, &other), [ImportStatus::Present, ImportStatus::Present]);
    assert_eq!(everything(&merged), all);
    assert_eq!(count(&merged, "trials"), 8 + 4 + 8 + 5);
    let left: Vec<_> = std::fs::read_dir(own.database().parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("import"))
        .collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn a_run_that_went_on_there_is_completed() {
    let (own, other) = (Place::new(), Place::new());
    let records = fixture::records("resnet18", 2);
    let (first, rest) = records.split_at(records.len() - 3);
    record(&other, start(0, "there"), first, Status::Interrupted);
    assert_eq!(import(&own, &other), [ImportStatus::New]);
    let store = other.open();
    let resumed = Resumed {
        unix_ns: fixture::BEGUN + 5,
        command: vec!["bench".into(), "--resume".into()],
        state: None,
    };
    let (mut recorder, _) =
        RunRecorder::resume(&store, &other.runs(), &start(0, "").id, resumed.clone()).unwrap();
    for record in rest {
        recorder.record(record.clone()).unwrap();
    }
    recorder.finish(Status::Complete, fixture::BEGUN + 9).unwrap();

    // A dry run says so and changes nothing.
    let here = own.open();
    let seen = here.read_other(&other.database()).unwrap();
    let compared = here.compare_with(&seen).unwrap();
    assert_eq!(compared.iter().map(|one| one.status).collect::<Vec<_>>(), [ImportStatus::Extended]);
    assert_eq!(count(&here, "trials"), 5);
    drop(seen);

    assert_eq!(import(&own, &other), [ImportStatus::Extended]);
    assert_eq!(everything(&here), everything(&store));
    assert_eq!((count(&here, "runs"), count(&here, "trials"), count(&here, "stages")), (1, 8, 6));
    // The earlier state comes too late.
    assert_eq!(import(&other, &own), [ImportStatus::Present]);
    // The run is gone on with where its journal is.
    let error = RunRecorder::resume(&here, &own.runs(), &start(0, "").id, resumed).unwrap_err();
    assert!(matches!(error, StoreError::Elsewhere { .. }), "{error}");
    assert!(error.to_string().contains("resume it there"), "{error}");
}

#[test]
fn a_run_that_went_on_in_two_places_is_refused() {
    let (own, other) = (Place::new(), Place::new());
    let records = fixture::records("resnet18", 2);
    record(&own, start(0, "here"), &records[..records.len() - 3], Status::Interrupted);
    let changed: Vec<Record> = records
        .iter()
        .map(|record| match record {
            Record::Trial(trial) => {
                let mut trial = trial.clone();
                trial.begun_unix_ns += 7;
                Record::Trial(trial)
            }
            other => other.clone(),
        })
        .collect();
    record(&other, start(0, "here"), &changed, Status::Complete);
    let store = own.open();
    let before = everything(&store);
    let seen = store.read_other(&other.database()).unwrap();
    let error = store.merge(&seen).unwrap_err();
    assert!(matches!(error, StoreError::Diverged { .. }), "{error}");
    assert!(error.to_string().contains("nothing was imported"), "{error}");
    assert_eq!(everything(&store), before);
}

#[test]
fn what_cannot_be_imported_is_refused_and_changes_nothing() {
    let own = Place::new();
    record(&own, start(0, "here"), &fixture::records("resnet18", 1), Status::Complete);
    let store = own.open();
    let before = everything(&store);
    let check = |change: &dyn Fn(&std::path::Path), wanted: &str| {
        let other = Place::new();
        record(&other, start(1, "there"), &fixture::records("vgg16", 2), Status::Complete);
        change(&other.database());
        let error = store.read_other(&other.database()).and_then(|seen| store.merge(&seen)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(wanted), "{text}");
        assert!(!text.contains("creates a new database from the journals"), "{text}");
        // The original is named, not the copy.
        assert!(text.contains(&other.database().display().to_string()), "{text}");
        assert_eq!(everything(&store), before);
    };
    let sql = |sql: &'static str| {
        move |path: &std::path::Path| {
            let connection = Connection::open(path).unwrap();
            connection.pragma_update(None, "foreign_keys", false).unwrap();
            connection.execute_batch(sql).unwrap();
        }
    };
    check(&|path| std::fs::remove_file(path).unwrap(), "no such file");
    check(&|path| std::fs::write(path, "").unwrap(), "the file is empty");
    check(&|path| std::fs::write(path, "no database at all ".repeat(50)).unwrap(), "not a database");
    check(
        &|path| {
            let bytes = std::fs::read(path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        },
        "malformed",
    );
    check(&sql("PRAGMA user_version = 99"), "its schema version is 99");
    check(&sql("PRAGMA application_id = 7"), "the database of another program");
    check(&sql("UPDATE measurements SET completed_ns = x'ff'"), "completed_ns is damaged");
    check(&sql("UPDATE networks SET structure = '{}'"), "structure is damaged");
    check(&sql("DELETE FROM machines"), "have invalid references");
    let error = store.read_other(&own.database()).unwrap_err();
    assert!(matches!(error, StoreError::Itself { .. }), "{error}");
}

#[test]
fn a_database_that_cannot_be_written_stays_as_it_is() {
    let (own, other) = (Place::new(), Place::new());
    record(&own, start(0, "here"), &fixture::records("resnet18", 1), Status::Complete);
    record(&other, start(1, "there"), &fixture::records("vgg16", 3), Status::Complete);
    let store = own.open();
    let before = everything(&store);
    let pages: u32 = store.connection().pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    let limit = |pages: u32| {
        store.connection().pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    };
    limit(pages + 1);
    let seen = store.read_other(&other.database()).unwrap();
    let error = store.merge(&seen).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert_eq!(everything(&store), before);
    // Once there is room, the same connection does it.
    limit(1 << 20);
    assert_eq!(store.merge(&seen).unwrap()[0].status, ImportStatus::New);
    assert_eq!(everything(&store).len(), 2);
}

#[test]
fn a_database_in_use_is_imported_with_what_its_log_holds() {
    let (own, other) = (Place::new(), Place::new());
    let store = other.open();
    let mut recorder = RunRecorder::create(&store, &other.runs(), start(0, "there")).unwrap();
    for record in fixture::records("resnet18", 1) {
        recorder.record(record).unwrap();
    }
    assert!(other.database().with_file_name("results.db-wal").exists());
    assert_eq!(import(&own, &other), [ImportStatus::New]);
    let here = Store::open(&own.database(), Access::ReadOnly).unwrap();
    assert_eq!(everything(&here), everything(&store));
}

#[test]
fn a_campaign_stays_one_when_its_runs_come_from_two_databases() {
    let (here, there) = (Place::new(), Place::new());
    let part = |second: u64, board: &str| {
        let campaign = CampaignRecord {
            id: fixture::run_start().id,
            mode: FleetMode::Spread,
            boards: vec!["b".to_owned(), "a".to_owned()],
        };
        RunStart { board: board.to_owned(), campaign: Some(campaign), ..start(second, "one") }
    };
    record(&here, part(1, "a"), &fixture::records("resnet18", 1), Status::Complete);
    let mut failed = part(2, "b");
    failed.host = "two".to_owned();
    let store = there.open();
    let recorder = RunRecorder::create(&store, &there.runs(), failed).unwrap();
    let reason = Some("the board burnt down".to_owned());
    recorder.finish_because(Status::Failed, fixture::BEGUN + 1, reason.clone()).unwrap();
    drop(store);
    assert_eq!(import(&here, &there), [ImportStatus::New]);
    assert_eq!(import(&here, &there), [ImportStatus::Present]);
    let store = here.open();
    let campaign = store.campaign("0badcafe").unwrap().unwrap();
    let boards: Vec<&str> = campaign.runs.iter().map(|run| run.start.board.as_str()).collect();
    assert_eq!(boards, ["b", "a"], "in the order in which they were asked for");
    assert_eq!(campaign.runs[0].ended_because, reason);
    assert_eq!((campaign.record.mode, campaign.record.boards.len()), (FleetMode::Spread, 2));
    let count: u32 =
        store.connection().query_row("SELECT count(*) FROM campaigns", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1);
    // It goes on where its journals are, as a whole and not as single runs.
    let names = ["b".to_owned(), "a".to_owned()];
    assert_eq!(store.unfinished_campaign("quick", &names, &here.runs()).unwrap(), None);
    assert!(store.unfinished_run("quick", "b", &there.runs()).unwrap().is_none());
}
