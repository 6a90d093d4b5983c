//! Two processes at one database. The second process is this test program itself, running one ignored test.

use crate::fixture::{self, Place};
use crate::{Access, RunRecorder, RunStart, Status, Store, StoreError};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const DATABASE: &str = "EDGEPIPE_TEST_DATABASE";
const RUNS: &str = "EDGEPIPE_TEST_RUNS";
const ROUNDS: u32 = 10;

fn second_process(test: &str, place: &Place) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("tests::processes::{test}"), "--ignored", "--nocapture"])
        .env(DATABASE, place.database())
        .env(RUNS, place.runs())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Where the second process is to work; `None` where the test was not started as one.
fn asked() -> Option<(PathBuf, PathBuf)> {
    let [database, runs] = [DATABASE, RUNS].map(|name| std::env::var_os(name).map(PathBuf::from));
    database.zip(runs)
}

/// Waits until it says this.
fn wait_for(child: &mut Child, word: &str) {
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(
        lines.map_while(Result::ok).any(|line| line.ends_with(word)),
        "the second process never said {word}"
    );
}

fn write_run(store: &Store, runs: &std::path::Path, start: RunStart) {
    let mut recorder = RunRecorder::create(store, runs, start).unwrap();
    for record in fixture::records("resnet18", ROUNDS) {
        recorder.record(record).unwrap();
        assert!(recorder.trouble().is_none(), "{:?}", recorder.trouble());
    }
    recorder.finish(Status::Complete, fixture::BEGUN + 1).unwrap();
}

fn of_second_process(second: u64) -> RunStart {
    fixture::run_start_at(fixture::BEGUN + second * 1_000_000_000)
}

#[test]
fn two_harnesses_write_at_the_same_time() {
    let place = Place::new();
    // Neither finds a database: both may make it.
    let mut other = second_process("second_writer", &place);
    let store = place.open();
    write_run(&store, &place.runs(), fixture::run_start());
    assert!(other.wait().unwrap().success());
    let trials = |start: RunStart| {
        let run = store.run(start.id.as_str()).unwrap();
        assert_eq!(run.status, Status::Complete);
        store.trials(&run).unwrap().len()
    };
    let expected = 4 * ROUNDS as usize;
    assert_eq!((trials(fixture::run_start()), trials(of_second_process(60))), (expected, expected));
}

#[test]
#[ignore = "the second process of two_harnesses_write_at_the_same_time"]
fn second_writer() {
    let Some((database, runs)) = asked() else { return };
    let store = Store::open(&database, Access::ReadWrite).unwrap();
    write_run(&store, &runs, of_second_process(60));
}

#[test]
fn a_process_that_keeps_the_database_locked_is_named() {
    let place = Place::new();
    let store = place.open();
    let mut other = second_process("locker", &place);
    wait_for(&mut other, "locked");
    store.connection.busy_timeout(Duration::from_millis(30)).unwrap();
    // A run begins all the same, and its records wait.
    let mut recorder = RunRecorder::create(&store, &place.runs(), fixture::run_start()).unwrap();
    let Some(error @ StoreError::Locked { holder, .. }) = recorder.trouble() else {
        panic!("no lock: {:?}", recorder.trouble())
    };
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    if locks.contains(&format!(" {} ", other.id())) {
        assert!(holder.contains(&format!("(process {})", other.id())), "{error}");
    }
    // Readers are not kept waiting.
    let reader = Store::open_with(&place.database(), Access::ReadOnly, Duration::ZERO).unwrap();
    assert_eq!(reader.runs(&crate::RunFilter::default()).unwrap(), []);

    other.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    assert!(other.wait().unwrap().success());
    for record in fixture::records("resnet18", 1) {
        recorder.record(record).unwrap();
    }
    assert!(recorder.trouble().is_none());
    recorder.finish(Status::Complete, fixture::BEGUN + 1).unwrap();
    let run = store.run(fixture::run_start().id.as_str()).unwrap();
    assert_eq!(store.trials(&run).unwrap().len(), 4);
}

#[test]
#[ignore = "the second process of a_process_that_keeps_the_database_locked_is_named"]
fn locker() {
    let Some((database, _)) = asked() else { return };
    let connection = rusqlite::Connection::open(database).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    println!("locked");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    connection.execute_batch("ROLLBACK").unwrap();
}

#[test]
fn a_killed_process_leaves_what_it_wrote() {
    let place = Place::new();
    drop(place.open());
    let mut other = second_process("victim", &place);
    wait_for(&mut other, "written");
    other.kill().unwrap();
    other.wait().unwrap();
    let store = place.open();
    let run = store.run(fixture::run_start().id.as_str()).unwrap();
    assert_eq!((run.status, store.trials(&run).unwrap().len()), (Status::Running, 8));
    // Its lock on the journal died with it.
    let resumed = crate::Resumed { unix_ns: fixture::BEGUN + 9, command: vec![], state: None };
    RunRecorder::resume(&store, &place.runs(), &run.start.id, resumed).unwrap();
}

#[test]
#[ignore = "the second process of a_killed_process_leaves_what_it_wrote"]
fn victim() {
    let Some((database, runs)) = asked() else { return };
    let store = Store::open(&database, Access::ReadWrite).unwrap();
    let mut recorder = RunRecorder::create(&store, &runs, fixture::run_start()).unwrap();
    for record in fixture::records("resnet18", 2) {
        recorder.record(record).unwrap();
    }
    println!("written");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}
