//! How large a database becomes, and how long a report of it takes.

use analysis::Report;
use rustix::time::{ClockId, clock_gettime};
use std::time::Instant;
use store::fixture::{self, Place};
use store::{Outcome, Record, RunRecorder, Status};

/// Time that something took. Other load makes it take longer, but needs no CPU time of this process.
#[derive(Debug, Clone, Copy)]
struct Took {
    seconds: f64,
    cpu_seconds: f64,
}

impl Took {
    fn by(work: impl FnOnce()) -> Self {
        let cpu = || {
            let time = clock_gettime(ClockId::ProcessCPUTime);
            time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
        };
        let (begun, cpu_begun) = (Instant::now(), cpu());
        work();
        Self { seconds: begun.elapsed().as_secs_f64(), cpu_seconds: cpu() - cpu_begun }
    }
}

impl std::fmt::Display for Took {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:.2} s ({:.2} s of CPU time)", self.seconds, self.cpu_seconds)
    }
}

/// Trials of 100 frames each, of 100 schedules.
fn fill(place: &Place, rounds: u32) -> (u64, Took) {
    let store = place.open();
    // What is measured here is the database; the journal waits for the disk after each trial.
    let runs = place.runs();
    let mut start = fixture::run_start();
    start.rounds = rounds;
    let id = start.id.clone();
    let mut recorder = RunRecorder::create(&store, &runs, start).unwrap();
    let planned = fixture::planned("resnet18");
    recorder.record_network(fixture::network("resnet18")).unwrap();
    for schedule in 0..100 {
        recorder.record_schedule(planned[schedule as usize % 4].record(schedule)).unwrap();
        recorder.record_comparison(fixture::comparison(schedule, 0, 0.0)).unwrap();
    }
    let mut journal = std::fs::metadata(recorder.journal()).unwrap().len();
    drop(recorder);
    for round in 0..rounds {
        for schedule in 0..100 {
            let position = round * 100 + schedule;
            let measured = planned[schedule as usize % 4].measured(u64::from(position), 100);
            let outcome = Outcome::Measured(Box::new(measured));
            let record = Record::Trial(fixture::trial(schedule, round, position, outcome));
            store.bring_in(&id, &(journal..journal + 1), &record).unwrap();
            journal += 1;
        }
    }
    let finished = store::Finished { unix_ns: fixture::BEGUN, status: Status::Complete, reason: None };
    store.bring_in(&id, &(journal..journal + 1), &Record::Finished(finished)).unwrap();
    let mut built = None;
    let took = Took::by(|| {
        let report = Report::build(&store, &id).unwrap();
        let text = report::render(&report, report::Format::Terminal, false);
        built = Some((report, text));
    });
    let (report, text) = built.unwrap();
    assert_eq!(report.rows.iter().map(|row| row.trials).sum::<usize>(), 100 * rounds as usize);
    assert!(text.contains("complete"));
    store.connection().pragma_update_and_check(None, "wal_checkpoint", "truncate", |_| Ok(())).unwrap();
    (std::fs::metadata(place.database()).unwrap().len(), took)
}

#[test]
fn a_hundred_thousand_frames_take_less_than_six_megabytes() {
    let (bytes, _) = fill(&Place::new(), 10);
    assert!(bytes < 6_000_000, "{bytes} bytes");
}

/// `cargo test --release -p report a_million_frames -- --ignored --nocapture` prints the figures.
#[test]
#[ignore = "takes a minute in a debug build, where its time says nothing"]
fn a_million_frames_are_small_soon_reported_and_soon_imported() {
    let place = Place::new();
    let (bytes, reported) = fill(&place, 100);
    let megabytes = bytes as f64 / 1e6;
    let own = Place::new();
    let store = own.open();
    let import = || {
        let other = store.read_other(&place.database()).unwrap();
        store.merge(&other).unwrap();
    };
    let (imported, again) = (Took::by(import), Took::by(import));
    let trials: u32 =
        store.connection().query_row("SELECT count(*) FROM trials", [], |row| row.get(0)).unwrap();
    assert_eq!(trials, 10_000);
    println!("1,000,000 frames in 10,000 trials: {megabytes:.1} MB");
    println!("report in {reported}\nimport in {imported}\nthe same import again in {again}");
    assert!(bytes < 60_000_000, "{bytes} bytes");
}
