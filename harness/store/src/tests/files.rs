//! Databases that are not there, not ours, not whole, not free or not writable.

use crate::fixture::{self, Place};
use crate::{Access, JournalImport, RunRecorder, Status, Store, StoreError};
use rusqlite::Connection;
use std::path::Path;
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(30);

fn error_of(path: &Path, access: Access) -> StoreError {
    Store::open_with(path, access, SHORT).unwrap_err()
}

/// A database with a run in it, closed.
fn filled() -> Place {
    let place = Place::new();
    record(&place.open(), &place);
    place
}

fn record(store: &Store, place: &Place) {
    let mut recorder = RunRecorder::create(store, &place.runs(), fixture::run_start()).unwrap();
    for record in fixture::records("resnet18", 3) {
        recorder.record(record).unwrap();
    }
    recorder.finish(Status::Complete, fixture::BEGUN + 1).unwrap();
}

#[test]
fn a_new_one_is_made_with_its_folder() {
    let place = Place::new();
    let missing = error_of(&place.database(), Access::ReadOnly);
    assert!(matches!(missing, StoreError::Missing { .. }), "{missing}");
    assert!(missing.to_string().contains("`cargo xtask bench` creates it"), "{missing}");
    drop(place.open());
    drop(place.open());
    drop(Store::open(&place.database(), Access::ReadOnly).unwrap());
}

#[test]
fn a_newer_schema_is_left_alone() {
    let place = filled();
    Connection::open(place.database()).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = std::fs::read(place.database()).unwrap();
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let error = error_of(&place.database(), access);
        assert!(matches!(error, StoreError::NewerSchema { found: 99, .. }), "{error}");
        let text = error.to_string();
        assert!(text.starts_with("failed to open ") && text.contains("version is 99"), "{text}");
        assert!(text.contains("update edgepipe"), "{text}");
    }
    assert_eq!(std::fs::read(place.database()).unwrap(), before);
}

#[test]
fn an_empty_file_is_taken_only_to_write() {
    let place = Place::new();
    std::fs::create_dir_all(place.database().parent().unwrap()).unwrap();
    std::fs::write(place.database(), "").unwrap();
    let error = error_of(&place.database(), Access::ReadOnly);
    assert!(matches!(error, StoreError::Empty { .. }), "{error}");
    assert!(error.to_string().contains("the file is empty; choose another file"), "{error}");
    drop(place.open());
    drop(Store::open(&place.database(), Access::ReadOnly).unwrap());
}

#[test]
fn a_database_of_another_program_is_left_alone() {
    let place = Place::new();
    std::fs::create_dir_all(place.database().parent().unwrap()).unwrap();
    let check = |sql: &str| {
        let _ = std::fs::remove_file(place.database());
        Connection::open(place.database()).unwrap().execute_batch(sql).unwrap();
        for access in [Access::ReadWrite, Access::ReadOnly] {
            let error = error_of(&place.database(), access);
            assert!(matches!(error, StoreError::Foreign { .. }), "{sql}: {error}");
        }
    };
    check("CREATE TABLE runs (id TEXT);");
    check("PRAGMA user_version = 1;");
    check("PRAGMA application_id = 7;");
    check("PRAGMA application_id = 7; CREATE TABLE t (x);");
}

#[test]
fn a_file_that_is_no_database_is_corrupt() {
    let place = Place::new();
    std::fs::create_dir_all(place.database().parent().unwrap()).unwrap();
    std::fs::write(place.database(), "This is a text of more than sixteen bytes.\n".repeat(100)).unwrap();
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let error = error_of(&place.database(), access);
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("creates a new database from the journals"), "{error}");
    }
}

#[test]
fn damage_in_the_middle_is_found_where_it_is_read() {
    let place = filled();
    let mut bytes = std::fs::read(place.database()).unwrap();
    // The first page, with the schema, stays; the tables are overwritten.
    let page = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    bytes[page..].fill(0xa5);
    std::fs::write(place.database(), bytes).unwrap();
    let store = Store::open(&place.database(), Access::ReadOnly).unwrap();
    let error = store.run(fixture::run_start().id.as_str()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[test]
fn a_database_cut_in_half_is_corrupt() {
    let place = filled();
    let bytes = std::fs::read(place.database()).unwrap();
    std::fs::write(place.database(), &bytes[..bytes.len() / 2]).unwrap();
    let read = |access| {
        let store = Store::open_with(&place.database(), access, SHORT)?;
        let run = store.run(fixture::run_start().id.as_str())?;
        store.trials(&run)
    };
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let error = read(access).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn a_folder_that_cannot_be_is_named() {
    let place = Place::new();
    let file = place.database().parent().unwrap().parent().unwrap().join("file");
    std::fs::write(&file, "").unwrap();
    let error = error_of(&file.join("results/results.db"), Access::ReadWrite);
    assert!(matches!(&error, StoreError::Folder { path, .. } if *path == file.join("results")), "{error}");
    // A folder in which nobody may make a file, not even root.
    let error = error_of(Path::new("/proc/self/results.db"), Access::ReadWrite);
    assert!(matches!(error, StoreError::CannotOpen { .. } | StoreError::ReadOnly { .. }), "{error}");
    assert!(error.to_string().contains("/proc/self/results.db"), "{error}");
    // Something else in the file's place.
    let folder = place.database().parent().unwrap().parent().unwrap().to_path_buf();
    let fifo = folder.join("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for (path, what) in [(&folder, "it is a directory; choose a regular file"), (&fifo, "it is a FIFO")] {
        for access in [Access::ReadWrite, Access::ReadOnly] {
            let error = error_of(path, access).to_string();
            assert!(error.contains(what) && error.contains(&path.display().to_string()), "{error}");
        }
    }
}

#[test]
fn a_locked_database_names_who_locks_it() {
    let place = filled();
    let other = Connection::open(place.database()).unwrap();
    other.execute_batch("PRAGMA locking_mode = exclusive; BEGIN EXCLUSIVE; DELETE FROM runs;").unwrap();
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let error = error_of(&place.database(), access);
        assert!(matches!(error, StoreError::Locked { .. }), "{error}");
        assert!(error.to_string().contains("it is locked by another process"), "{error}");
    }
}

#[test]
fn a_full_database_leaves_the_results_in_the_journal() {
    let place = filled();
    let store = place.open();
    let mut start = fixture::run_start_at(fixture::BEGUN + 1_000_000_000);
    start.rounds = 7;
    let pages: u32 = store.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    let limit = |pages: u32| {
        store.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    };
    let mut recorder = RunRecorder::create(&store, &place.runs(), start.clone()).unwrap();
    let records = fixture::records("resnet18", 6);
    let (first, rest) = records.split_at(records.len() / 2);
    for record in first {
        recorder.record(record.clone()).unwrap();
    }
    assert!(recorder.trouble().is_none());
    limit(pages);
    for record in rest {
        recorder.record(record.clone()).unwrap();
    }
    assert!(matches!(recorder.trouble(), Some(StoreError::Full { .. })), "{:?}", recorder.trouble());
    let journal = recorder.journal().to_path_buf();
    let error = recorder.finish(Status::Complete, fixture::BEGUN + 2).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, StoreError::InJournal { .. }), "{text}");
    assert!(text.contains("the disk is full") && text.contains(&journal.display().to_string()), "{text}");
    assert!(text.contains(&format!("--resume {}", start.id)), "{text}");
    let before = store.run(start.id.as_str()).unwrap();
    assert_eq!(before.status, Status::Running);
    let had = store.trials(&before).unwrap().len();
    assert!(had < 24);

    limit(1 << 20);
    let caught_up = store.catch_up(&place.runs()).unwrap().runs;
    assert_eq!(caught_up.len(), 1);
    assert_eq!(caught_up[0].run, start.id);
    let after = store.run(start.id.as_str()).unwrap();
    assert_eq!((after.status, store.trials(&after).unwrap().len()), (Status::Complete, 24));
    assert_eq!(store.catch_up(&place.runs()).unwrap(), JournalImport::default());
}

#[test]
fn a_database_that_recovers_is_complete_at_once() {
    let place = Place::new();
    let store = place.open();
    let mut recorder = RunRecorder::create(&store, &place.runs(), fixture::run_start()).unwrap();
    let mut records = fixture::records("resnet18", 2);
    let last = records.pop().unwrap();
    for (place, record) in records.into_iter().enumerate() {
        if place == 2 {
            // What `SQLite` reports where the file has become read-only.
            store.connection.pragma_update(None, "query_only", true).unwrap();
        }
        recorder.record(record).unwrap();
        assert_eq!(recorder.trouble().is_some(), place >= 2);
    }
    assert!(matches!(recorder.trouble(), Some(StoreError::ReadOnly { .. })), "{:?}", recorder.trouble());
    store.connection.pragma_update(None, "query_only", false).unwrap();
    recorder.record(last).unwrap();
    assert!(recorder.trouble().is_none());
    recorder.finish(Status::Complete, fixture::BEGUN + 1).unwrap();
    let run = store.run(fixture::run_start().id.as_str()).unwrap();
    assert_eq!((store.trials(&run).unwrap().len(), run.status), (8, Status::Complete));
}

#[test]
fn a_copy_without_its_neighbours_can_be_read() {
    let place = filled();
    let copy = Place::new();
    std::fs::create_dir_all(copy.database().parent().unwrap()).unwrap();
    std::fs::copy(place.database(), copy.database()).unwrap();
    // As from read-only media: nobody may write beside it. `SQLite` cannot make its shared-memory file there.
    std::fs::create_dir(copy.database().with_file_name("results.db-shm")).unwrap();
    std::fs::create_dir(copy.database().with_file_name("results.db-wal")).unwrap();
    let store = copy.try_open(Access::ReadOnly).unwrap();
    let run = store.run(fixture::run_start().id.as_str()).unwrap();
    assert_eq!(store.trials(&run).unwrap().len(), 12);
}

#[test]
fn a_file_system_that_fails_is_told_in_one_sentence() {
    let path = Path::new("/net/results.db");
    // Locking, shared memory and plain reading, as NFS and SMB refuse them.
    for code in [
        rusqlite::ffi::SQLITE_IOERR_LOCK,
        rusqlite::ffi::SQLITE_IOERR_SHMMAP,
        rusqlite::ffi::SQLITE_IOERR_READ,
        rusqlite::ffi::SQLITE_PROTOCOL,
    ] {
        let source = rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(code),
            Some("disk I/O error".to_owned()),
        );
        let error = StoreError::new(path, "open results", source);
        assert!(matches!(error, StoreError::FileSystem { .. }), "{error}");
        let failure = host::exit::Failure::from(error);
        let text = failure.to_string();
        assert_eq!(text.matches("disk I/O error").count(), 1, "{text}");
        assert!(text.contains("/net/results.db") && text.contains("--database FILE"), "{text}");
        assert_eq!(failure.exit, host::exit::Exit::Usage);
    }
}

#[test]
fn what_a_crash_left_in_the_write_ahead_log_is_read_from_read_only_media_too() {
    let place = Place::new();
    let store = place.open();
    record(&store, &place);
    // A copy while the log has not been brought into the file yet, as a crash leaves it.
    let copy = Place::new();
    std::fs::create_dir_all(copy.database().parent().unwrap()).unwrap();
    std::fs::copy(place.database(), copy.database()).unwrap();
    let log = |place: &Place| place.database().with_file_name("results.db-wal");
    assert!(std::fs::copy(log(&place), log(&copy)).unwrap() > 0);
    // Nobody may write beside it.
    std::fs::create_dir(copy.database().with_file_name("results.db-shm")).unwrap();
    let read = copy.try_open(Access::ReadOnly).unwrap();
    let run = read.run(fixture::run_start().id.as_str()).unwrap();
    assert_eq!(read.trials(&run).unwrap().len(), 12);
    assert_eq!(read.path(), copy.database());
}
