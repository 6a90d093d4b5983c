//! Journals of runs that were killed, moved, damaged or are still being written.

use crate::fixture::{self, Place};
use crate::{
    Access, Continued, JournalError, JournalImport, Record, Resumed, RunRecorder, Status, Store, StoreError,
    journal_path,
};
use std::io::Write as _;

fn resumed() -> Resumed {
    Resumed { unix_ns: fixture::BEGUN + 50, command: vec!["bench".to_owned()], state: None }
}

/// A run that was killed after these records.
fn killed(place: &Place, records: &[Record]) {
    let store = place.open();
    let mut recorder = RunRecorder::create(&store, &place.runs(), fixture::run_start()).unwrap();
    for record in records {
        recorder.record(record.clone()).unwrap();
    }
}

fn trials(store: &Store) -> usize {
    let run = store.run(fixture::run_start().id.as_str()).unwrap();
    store.trials(&run).unwrap().len()
}

#[test]
fn a_killed_run_goes_on_wherever_its_last_line_was_cut() {
    let records = fixture::records("resnet18", 1);
    let (last, before) = records.split_last().unwrap();
    let half = serde_json::to_vec(last).unwrap();
    for cut in [1, half.len() / 2, half.len()] {
        let place = Place::new();
        killed(&place, before);
        let id = fixture::run_start().id;
        let journal = journal_path(&place.runs(), &id);
        let whole = std::fs::read(&journal).unwrap();
        // Even complete text is no record before its line has ended: the next may belong to it.
        let mut file = std::fs::OpenOptions::new().append(true).open(&journal).unwrap();
        file.write_all(&half[..cut]).unwrap();
        drop(file);

        let store = place.open();
        // A catch-up leaves the half line where it is, for the resumption to tell of.
        assert_eq!(store.catch_up(&place.runs()).unwrap(), JournalImport::default());
        let (mut recorder, continued) = RunRecorder::resume(&store, &place.runs(), &id, resumed()).unwrap();
        assert_eq!(continued, Continued { imported: 0, cut_off_bytes: cut as u64 });
        assert!(std::fs::read(&journal).unwrap().starts_with(&whole));
        assert_eq!(trials(&store), 3);
        recorder.record(last.clone()).unwrap();
        recorder.finish(Status::Complete, fixture::BEGUN + 60).unwrap();
        assert_eq!(trials(&store), 4);
        assert_eq!(store.run(id.as_str()).unwrap().status, Status::Complete);
    }
}

#[test]
fn a_lost_database_is_made_anew_from_journals() {
    let place = Place::new();
    let records = fixture::records("resnet18", 2);
    killed(&place, &records);
    let before = {
        let store = place.open();
        let run = store.run(fixture::run_start().id.as_str()).unwrap();
        (store.schedules(&run).unwrap(), store.trials(&run).unwrap(), store.profiles(&run).unwrap(), run)
    };
    std::fs::remove_dir_all(place.database().parent().unwrap()).unwrap();
    let store = place.open();
    let caught_up = store.catch_up(&place.runs()).unwrap().runs;
    assert_eq!(caught_up.len(), 1);
    assert_eq!(caught_up[0].imported, records.len() + 1);
    let run = store.run(fixture::run_start().id.as_str()).unwrap();
    let after =
        (store.schedules(&run).unwrap(), store.trials(&run).unwrap(), store.profiles(&run).unwrap(), run);
    assert_eq!(before, after);
}

#[test]
fn resuming_brings_in_what_is_missing() {
    let place = Place::new();
    let records = fixture::records("resnet18", 1);
    killed(&place, &records);
    std::fs::remove_dir_all(place.database().parent().unwrap()).unwrap();
    let store = place.open();
    let (recorder, continued) =
        RunRecorder::resume(&store, &place.runs(), &fixture::run_start().id, resumed()).unwrap();
    assert_eq!(continued, Continued { imported: records.len() + 1, cut_off_bytes: 0 });
    recorder.finish(Status::Complete, fixture::BEGUN + 60).unwrap();
    assert_eq!(trials(&store), 4);
}

#[test]
fn a_run_has_one_writer() {
    let place = Place::new();
    let store = place.open();
    let recorder = RunRecorder::create(&store, &place.runs(), fixture::run_start()).unwrap();
    let id = recorder.run().clone();
    let error = RunRecorder::resume(&store, &place.runs(), &id, resumed()).unwrap_err();
    assert!(matches!(error, StoreError::Journal(JournalError::InUse { .. })), "{error}");
    assert!(error.to_string().contains("the run is still in progress"), "{error}");
    let error = RunRecorder::create(&store, &place.runs(), fixture::run_start()).unwrap_err();
    assert!(matches!(error, StoreError::Journal(JournalError::Create { .. })), "{error}");
    // The others leave it to its writer.
    std::fs::remove_dir_all(place.database().parent().unwrap()).unwrap();
    assert_eq!(place.open().catch_up(&place.runs()).unwrap(), JournalImport::default());
    drop(recorder);
    assert_eq!(place.open().catch_up(&place.runs()).unwrap().runs.len(), 1);
}

#[test]
fn what_is_no_journal_is_passed_over() {
    let place = Place::new();
    killed(&place, &fixture::records("resnet18", 1));
    for (name, text) in [("a", ""), ("b", "{\"run\":"), ("c", "nonsense\n"), ("d", "{\"finished\":null}\n")] {
        let folder = place.runs().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("journal.jsonl"), text).unwrap();
    }
    std::fs::create_dir(place.runs().join("empty")).unwrap();
    std::fs::remove_dir_all(place.database().parent().unwrap()).unwrap();
    let store = place.open();
    let found = store.catch_up(&place.runs()).unwrap();
    assert_eq!((found.runs.len(), found.damaged.len()), (1, 2));
    assert_eq!(trials(&store), 4);
    drop(store);
    // Without any journal there is nothing to do.
    let store = Store::open(&place.database(), Access::ReadWrite).unwrap();
    assert_eq!(store.catch_up(&place.runs().join("nowhere")).unwrap(), JournalImport::default());
}

#[test]
fn a_journal_without_a_place_ends_the_run_before_it_begins() {
    let place = Place::new();
    let store = place.open();
    let file = place.database().with_file_name("file");
    std::fs::write(&file, "").unwrap();
    let error = RunRecorder::create(&store, &file, fixture::run_start()).unwrap_err();
    assert!(matches!(error, StoreError::Journal(JournalError::Create { .. })), "{error}");
    assert!(error.to_string().contains("nothing was measured; fix"), "{error}");
}

#[test]
fn a_journal_that_cannot_grow_fails_the_record() {
    let place = Place::new();
    let store = place.open();
    let mut recorder = RunRecorder::create(&store, &place.runs(), fixture::run_start()).unwrap();
    recorder.break_journal();
    let error = recorder.record(fixture::records("resnet18", 0)[0].clone()).unwrap_err();
    assert!(matches!(error, StoreError::Journal(JournalError::Write { .. })), "{error}");
    assert!(error.to_string().contains("continue with --resume"), "{error}");
}
