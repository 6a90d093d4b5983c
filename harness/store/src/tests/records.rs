//! What goes in comes out.

use crate::fixture::{self, Place};
use crate::{
    Access, Cooling, OperatingPointRecord, Outcome, PowerCycleRecord, ProfileRecord, Record, Resumed,
    RunFilter, RunRecorder, RunStart, ScheduleRecord, StateRecord, Status, Store, StoreError, StoredRun,
    TransferRecord, TrialRecord,
};
use domain::{FramesPerSecond, OperatingPoint, PowerMode, Prediction};
use protocol::{
    AppliedState, CudaStage, Distribution, Fault, Idled, LowestFrequency, Measured, SavedState,
    SettingChange, Settings, StateRequest, StreamLoad, StreamTotals, WatchedSettings,
};

fn run_of(place: &Place, records: &[Record]) -> (Store, StoredRun) {
    let store = place.open();
    let mut recorder = RunRecorder::create(&store, &place.runs(), fixture::run_start()).unwrap();
    for record in records {
        recorder.record(record.clone()).unwrap();
        assert!(recorder.trouble().is_none(), "{:?}", recorder.trouble());
    }
    recorder.finish(Status::Complete, fixture::BEGUN + 90_000_000_000).unwrap();
    let run = store.run(fixture::run_start().id.as_str()).unwrap();
    (store, run)
}

#[test]
fn every_record_comes_back_as_it_was() {
    let place = Place::new();
    let mut records = fixture::records("resnet18", 2);
    let mut contended = fixture::profile("resnet18", "gpu", 9);
    contended.contended = true;
    contended.profiled.cuda =
        Some(CudaStage { stage: 0, module_load_ns: 1, arena_bytes: 2, weights_bytes: 3, graph: false });
    records.insert(3, Record::Profile(contended));
    let mut odd =
        fixture::trial(0, 2, 8, Outcome::Failed { fault: Some(Fault::Weights), message: "gone".into() });
    records.push(Record::Trial(odd.clone()));
    // Repeated after a failure; nothing observed is at its extremes.
    let mut measured = fixture::planned("resnet18")[3].measured(5, 3);
    (measured.host.steal_ns, measured.host.busy_ns) = (None, None);
    (measured.isolated, measured.timeline) = (vec![], vec![]);
    (measured.before, measured.after) =
        (fixture::machine_without_frequencies(), fixture::machine_without_frequencies());
    measured.cuda = vec![CudaStage {
        stage: 1,
        module_load_ns: 3_000_000_000,
        arena_bytes: 4 << 20,
        weights_bytes: u64::from(u32::MAX),
        graph: true,
    }];
    measured.window.completed_ns = vec![5, 5, u64::MAX];
    measured.window.latency_ns = vec![u64::MAX, 0, 1];
    odd.outcome = Outcome::Measured(Box::new(measured));
    records.push(Record::Trial(odd));
    records.extend(streams().into_iter().zip(9..).map(|(measured, position)| {
        Record::Trial(fixture::trial(2, position, position, Outcome::Measured(Box::new(measured))))
    }));
    let (store, run) = run_of(&place, &records);

    assert_eq!(run.start, fixture::run_start());
    assert_eq!((run.status, run.ended_unix_ns), (Status::Complete, Some(fixture::BEGUN + 90_000_000_000)));
    let mut read: Vec<Record> = Vec::new();
    read.extend(store.networks(&run).unwrap().into_iter().map(|record| Record::Network(Box::new(record))));
    read.extend(store.profiles(&run).unwrap().into_iter().map(Record::Profile));
    read.extend(store.transfers(&run).unwrap().into_iter().map(Record::Transfer));
    read.extend(store.schedules(&run).unwrap().into_iter().map(Record::Schedule));
    read.extend(store.comparisons(&run).unwrap().into_iter().map(Record::Comparison));
    read.extend(store.trials(&run).unwrap().into_iter().map(Record::Trial));
    assert_eq!(read.len(), records.len());
    for (read, written) in read.iter().zip(&records) {
        assert_eq!(read, written);
    }
}

/// A camera, and four of them whose stamps have reached their limit.
fn streams() -> Vec<Measured> {
    let planned = fixture::planned("resnet18").swap_remove(2);
    let one = planned.streamed(7, 30, fixture::camera());
    let load = StreamLoad { streams: 4, deadline_ns: None, ..fixture::camera() };
    let mut four = planned.streamed(8, 30, load);
    let distribution = |up_to_ns| Distribution { up_to_ns: vec![up_to_ns, u64::MAX], counts: vec![30, 1] };
    if let Some(streamed) = &mut four.stream {
        streamed.source_apart = false;
        streamed.rest = Some(StreamTotals {
            arrived: 20_736_000,
            dropped: 3,
            completed: 20_735_990,
            closed_ns: 86_400_000_000_000,
            since_arrival: distribution(41_000_000),
            between: distribution(4_000_000),
            late: distribution(20_000),
            waiting: vec![20_735_000, 990, 0],
        });
    }
    vec![one, four]
}

#[test]
fn operating_points_come_back_and_a_resumed_run_replaces_their_state_only() {
    let place = Place::new();
    let store = place.open();
    let mut recorder = RunRecorder::create(&store, &place.runs(), fixture::run_start()).unwrap();
    let point = |number: u32, khz: u64| OperatingPointRecord {
        number,
        point: OperatingPoint {
            power_mode: Some(PowerMode { id: 0, name: "MAXN".to_owned() }),
            governor: (number > 0).then(|| "powersave".to_owned()),
            max_khz: [("cpu0".to_owned(), khz)].into(),
            memory_khz: (number > 0).then_some(408_000),
        },
        state: None,
        idle: None,
    };
    let readings = super::power::readings();
    let idled = Idled { id: 7, opened_monotonic_ns: 1, duration_ns: 8_000_000_000, readings };
    let second = OperatingPointRecord { idle: Some(idled), ..point(1, 345_600) };
    let settings = Settings::from(&fixture::machine());
    let asked = StateRequest {
        sysfs: "/sys".into(),
        nvpmodel: Some(0),
        jetson_clocks: None,
        governor: None,
        cpu_limits: vec![],
        gpu_max_hz: None,
        memory_hz: None,
    };
    let brought = AppliedState { leftover: None, found: settings.clone(), set: settings };
    let again = OperatingPointRecord { state: StateRecord::new(asked, brought), ..point(1, 345_600) };
    for record in [point(0, 2_035_200), second.clone(), again.clone()] {
        recorder.record_operating_point(record).unwrap();
    }
    let network =
        fixture::records("resnet18", 0).into_iter().find(|record| matches!(record, Record::Network(_)));
    recorder.record(network.unwrap()).unwrap();
    let queues = domain::QueuePlan {
        before: 5,
        before_chosen: true,
        between: 1,
        between_chosen: true,
        expected: Some(domain::queue_model::Loss { dropped: 0.0, late: 0.1 + 0.2 }),
        reason: domain::QueueReason::LongestOnTime,
    };
    let schedule =
        ScheduleRecord { point: 1, queues: Some(queues), ..fixture::planned("resnet18")[0].record(0) };
    let profile = ProfileRecord { point: 1, ..fixture::profile("resnet18", "cpu0", 1000) };
    let transfer = TransferRecord { point: 1, ..fixture::transfer() };
    recorder.record_schedule(schedule.clone()).unwrap();
    for profile in [fixture::profile("resnet18", "cpu0", 2000), profile.clone()] {
        recorder.record_profile(profile).unwrap();
    }
    for transfer in [fixture::transfer(), transfer.clone()] {
        recorder.record_transfer(transfer).unwrap();
    }
    recorder.finish(Status::Complete, fixture::BEGUN + 1).unwrap();
    let run = store.run(fixture::run_start().id.as_str()).unwrap();
    let kept = OperatingPointRecord { idle: second.idle, ..again };
    assert_eq!(store.operating_points(&run).unwrap(), [point(0, 2_035_200), kept]);
    assert_eq!(store.schedules(&run).unwrap(), [schedule]);
    assert_eq!(store.profiles(&run).unwrap()[1], profile);
    assert_eq!(store.transfers(&run).unwrap(), [fixture::transfer(), transfer]);
}

#[test]
fn the_state_of_a_board_comes_back_as_it_was() {
    let place = Place::new();
    let found = Settings::from(&fixture::machine());
    let asked = StateRequest {
        sysfs: "/sys".into(),
        nvpmodel: Some(0),
        jetson_clocks: Some(true),
        governor: None,
        cpu_limits: vec![protocol::CpuLimit { cpus: vec![0, 3], max_khz: 1_113_600 }],
        gpu_max_hz: Some(1_122_000_000),
        memory_hz: Some(408_000_000),
    };
    let pending = SavedState {
        version: 1,
        by: "anna".into(),
        boot: None,
        request: asked.clone(),
        found: found.clone(),
        governors: vec![],
        cpu_limits: vec![],
        gpu_limits: None,
        memory_clock: Some(protocol::SavedMemoryClock { rate_hz: 1_866_000_000, is_locked: false }),
    };
    let brought = AppliedState { leftover: Some(Box::new(pending)), found: found.clone(), set: found };
    let state = StateRecord::new(asked, brought);
    let mut start = RunStart { state: state.clone(), ..fixture::run_start() };
    start.processors.push(fixture::gpu());
    let store = place.open();
    let mut recorder = RunRecorder::create(&store, &place.runs(), start.clone()).unwrap();
    for record in fixture::records("resnet18", 0) {
        recorder.record(record).unwrap();
    }
    let mut measured = fixture::planned("resnet18")[0].measured(5, 3);
    let change = SettingChange { at_ns: 7, setting: "CPU 1".into(), from: Some("online".into()), to: None };
    let lowest = LowestFrequency { cpu: 1, khz: 1_200_000, at_ns: 9 };
    let throttled = protocol::Throttled {
        group: "/x".to_owned(),
        milli_cpus: Some(1300),
        periods: 2,
        throttled_ns: 70_000_000,
    };
    measured.watched = Some(WatchedSettings {
        looks: 3,
        cpu_ns: 77,
        lowest: vec![lowest],
        gpu_lowest: Some(protocol::LowestClock { hz: 1_300_500_000, at_ns: 8 }),
        changes: vec![change],
        throttled: vec![throttled],
    });
    let mut trial = fixture::trial(0, 0, 0, Outcome::Measured(Box::new(measured)));
    trial.cooling = Some(Cooling {
        waited_ns: 5_000_000_000,
        zone: "BCPU-therm".into(),
        from_milli_celsius: 51_000,
        to_milli_celsius: -1,
    });
    let prediction = |fps| Prediction { stage_ns: vec![20.5e6], throughput: FramesPerSecond(fps) };
    trial.prediction = Some(prediction(1e3 / 20.5));
    recorder.record(Record::Trial(trial.clone())).unwrap();
    // A prediction that is no number is dropped.
    let mut endless = fixture::trial(0, 1, 1, Outcome::Failed { fault: None, message: "too slow".into() });
    recorder
        .record(Record::Trial(TrialRecord { prediction: Some(prediction(f64::INFINITY)), ..endless.clone() }))
        .unwrap();
    endless.prediction = None;
    let cycle = |unix_ns| PowerCycleRecord { unix_ns, place: "tx2-1".into(), reason: "it was silent".into() };
    for cycle in [cycle(fixture::BEGUN), cycle(fixture::BEGUN + 1)] {
        recorder.record(Record::PowerCycle(cycle)).unwrap();
    }
    recorder.finish(Status::Interrupted, fixture::BEGUN + 1).unwrap();
    let resumed = Resumed { unix_ns: fixture::BEGUN + 9, command: vec![], state };
    let (recorder, _) = RunRecorder::resume(&store, &place.runs(), &start.id, resumed.clone()).unwrap();
    recorder.finish(Status::Complete, fixture::BEGUN + 10).unwrap();
    let run = store.run(start.id.as_str()).unwrap();
    assert_eq!((&run.start, &run.resumptions), (&start, &vec![resumed]));
    assert_eq!(run.power_cycles, [cycle(fixture::BEGUN), cycle(fixture::BEGUN + 1)]);
    assert_eq!(store.trials(&run).unwrap(), [trial, endless]);
}

#[test]
fn trials_without_their_details_are_else_the_same() {
    let place = Place::new();
    let (store, run) = run_of(&place, &fixture::records("resnet18", 2));
    let mut expected = store.trials(&run).unwrap();
    for trial in &mut expected {
        let Outcome::Measured(measured) = &mut trial.outcome else { panic!("all are measured") };
        assert!(!measured.timeline.is_empty() && !measured.before.cpu_flags.is_empty());
        assert!(!measured.warm_up.completed_ns.is_empty());
        measured.timeline.clear();
        measured.window.completed_by.clear();
        measured.warm_up.completed_ns.clear();
        measured.before.cpu_flags.clear();
        measured.after.cpu_flags.clear();
    }
    let mut found = Vec::new();
    store.each_brief_trial(&run, |trial| found.push(trial)).unwrap();
    assert_eq!(found, expected);
}

#[test]
fn a_later_profile_takes_the_place_of_an_earlier() {
    let place = Place::new();
    let mut records = fixture::records("resnet18", 0);
    let later = fixture::profile("resnet18", "cpu0", 30_000_000);
    records.push(Record::Profile(later.clone()));
    let (store, run) = run_of(&place, &records);
    let profiles = store.profiles(&run).unwrap();
    assert_eq!(profiles.len(), 2);
    assert_eq!(profiles[0], later);
}

#[test]
fn a_prediction_that_is_not_finite_is_none() {
    let place = Place::new();
    let mut records = fixture::records("resnet18", 0);
    for record in &mut records {
        if let Record::Schedule(ScheduleRecord { prediction: Some(prediction), place: 2, .. }) = record {
            prediction.throughput = domain::FramesPerSecond(f64::INFINITY);
        }
    }
    let (store, run) = run_of(&place, &records);
    let schedules = store.schedules(&run).unwrap();
    assert_eq!(schedules[2].prediction, None);
    assert!(schedules[1].prediction.is_some());
}

#[test]
fn a_record_must_name_what_the_run_has() {
    let place = Place::new();
    let store = place.open();
    let mut recorder = RunRecorder::create(&store, &place.runs(), fixture::run_start()).unwrap();
    let mut check = |record: Record, wanted: &str| {
        let error = recorder.record(record).unwrap_err();
        assert!(matches!(error, StoreError::Dangling { .. }));
        let run = fixture::run_start().id;
        let wanted = format!("failed to store a record of run {run}: the run has no {wanted}; this is a bug");
        assert_eq!(error.to_string(), wanted);
    };
    let records = fixture::records("resnet18", 1);
    let of = |wanted: fn(&Record) -> bool| records.iter().find(|record| wanted(record)).unwrap().clone();
    check(of(|record| matches!(record, Record::Profile(_))), "network \"resnet18\"");
    check(of(|record| matches!(record, Record::Schedule(_))), "network \"resnet18\"");
    check(of(|record| matches!(record, Record::Comparison(_))), "schedule 1");
    check(of(|record| matches!(record, Record::Trial(_))), "schedule 0");
    recorder.record(records[0].clone()).unwrap();
    let twice = recorder.record(records[0].clone()).unwrap_err().to_string();
    assert!(twice.contains("no place for a second network \"resnet18\""), "{twice}");
    // Nothing of it went into the journal, where it could never be brought in.
    drop(recorder);
    std::fs::remove_file(place.database()).unwrap();
    drop(store);
    let fresh = place.open();
    assert_eq!(fresh.catch_up(&place.runs()).unwrap().runs[0].imported, 2);
}

#[test]
fn runs_are_found() {
    let place = Place::new();
    let store = place.open();
    let day = 86_400_000_000_000;
    for (days, experiment, network, status) in [
        (0, "quick", "resnet18", Status::Complete),
        (1, "quick", "vgg16", Status::Interrupted),
        (2, "tiny", "resnet18", Status::Failed),
        (3, "tiny", "resnet18", Status::Complete),
    ] {
        let mut start = fixture::run_start_at(fixture::BEGUN + days * day);
        start.experiment = experiment.to_owned();
        let mut recorder = RunRecorder::create(&store, &place.runs(), start).unwrap();
        for record in fixture::records(network, u32::from(days < 3)) {
            recorder.record(record).unwrap();
        }
        recorder.finish(status, fixture::BEGUN + days * day + 1).unwrap();
    }
    let latest = |filter: RunFilter| store.latest_run(&filter).unwrap().map(|run| run.start.id.to_string());
    let any = RunFilter::default;
    let text = |text: &str| Some(text.to_owned());
    let id = |day: u32| Some(format!("202511{day}-133002-0badcafe"));
    assert_eq!(latest(any()), id(26));
    assert_eq!(latest(RunFilter { measured: true, ..any() }), id(25));
    assert_eq!(latest(RunFilter { network: text("vgg16"), ..any() }), id(24));
    assert_eq!(latest(RunFilter { experiment: text("quick"), unfinished: true, ..any() }), id(24));
    assert_eq!(latest(RunFilter { board: text("other"), ..any() }), None);
    assert_eq!(
        store.unfinished_run("tiny", "local", &place.runs()).unwrap().map(|run| run.status),
        Some(Status::Failed)
    );
    assert!(store.unfinished_run("zoo", "local", &place.runs()).unwrap().is_none());
    // One that was imported has no journal here.
    assert!(store.unfinished_run("tiny", "local", &place.database()).unwrap().is_none());

    assert_eq!(store.run("20251124").unwrap().status, Status::Interrupted);
    let check = |asked: &str, wanted: &str| {
        let error = store.run(asked).unwrap_err().to_string();
        assert!(error.ends_with(wanted), "{error}");
    };
    check(
        "cafe",
        "several runs match: 20251126-133002-0badcafe, 20251125-133002-0badcafe, \
                   20251124-133002-0badcafe, 20251123-133002-0badcafe",
    );
    check(
        "nonsense",
        "the latest runs: 20251126-133002-0badcafe, 20251125-133002-0badcafe, \
                       20251124-133002-0badcafe",
    );
    check(
        "%",
        "the latest runs: 20251126-133002-0badcafe, 20251125-133002-0badcafe, 20251124-133002-0badcafe",
    );

    let summaries = store.summaries(&any()).unwrap();
    let counts: Vec<_> = summaries.iter().map(|run| (run.measured, run.failed, run.status)).collect();
    assert_eq!(counts[0], (0, 0, Status::Complete));
    assert_eq!(counts[3], (4, 0, Status::Complete));
    // One board and one network row serve all runs, and the machine is written down once.
    let count = |table: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        store.connection.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("boards"), count("networks"), count("machines")), (1, 2, 1));
}

#[test]
fn an_empty_database_has_no_runs() {
    let place = Place::new();
    let store = place.open();
    assert_eq!(store.latest_run(&RunFilter::default()).unwrap(), None);
    let error = store.run("2025").unwrap_err().to_string();
    assert!(error.ends_with("there are no runs; `cargo xtask bench` starts one"), "{error}");
}

#[test]
fn a_resumed_run_says_so() {
    let place = Place::new();
    let store = place.open();
    let mut records = fixture::records("resnet18", 2);
    let last = records.pop().unwrap();
    let mut recorder = RunRecorder::create(&store, &place.runs(), fixture::run_start()).unwrap();
    for record in records {
        recorder.record(record).unwrap();
    }
    recorder.finish(Status::Interrupted, fixture::BEGUN + 5).unwrap();
    let id = fixture::run_start().id;
    let resumed = Resumed {
        unix_ns: fixture::BEGUN + 9,
        command: vec!["bench".into(), "--resume".into()],
        state: None,
    };
    let (mut recorder, continued) = RunRecorder::resume(&store, &place.runs(), &id, resumed.clone()).unwrap();
    assert_eq!((continued.imported, continued.cut_off_bytes), (0, 0));
    let run = store.run(id.as_str()).unwrap();
    assert_eq!((run.status, run.ended_unix_ns), (Status::Running, None));
    assert_eq!(store.trials(&run).unwrap().len(), 7);
    recorder.record(last).unwrap();
    recorder.finish(Status::Complete, fixture::BEGUN + 11).unwrap();
    let run = store.run(id.as_str()).unwrap();
    assert_eq!((run.status, run.ended_unix_ns), (Status::Complete, Some(fixture::BEGUN + 11)));
    assert_eq!(run.resumptions, [resumed]);
    assert_eq!(store.trials(&run).unwrap().len(), 8);
}

#[test]
fn what_was_removed_from_a_run_leaves_nothing_behind() {
    let place = Place::new();
    let (store, _) = run_of(&place, &fixture::records("resnet18", 1));
    store.connection.execute("DELETE FROM runs", []).unwrap();
    for table in ["trials", "measurements", "occupancies", "schedules", "stages", "comparisons", "profiles"] {
        let sql = format!("SELECT count(*) FROM {table}");
        let count: i64 = store.connection.query_row(&sql, [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0, "{table}");
    }
}

#[test]
fn a_damaged_value_is_named() {
    let place = Place::new();
    let (store, run) = run_of(&place, &fixture::records("resnet18", 1));
    let check = |update: &str, wanted: &str| {
        store.connection.execute(update, []).unwrap();
        let mut found = store.networks(&run).map(drop);
        found = found.and(store.profiles(&run).map(drop)).and(store.schedules(&run).map(drop));
        let error = found.and(store.trials(&run).map(drop)).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(wanted), "{error}");
    };
    check("UPDATE measurements SET latency_ns = x'05'", "latency_ns is damaged: failed to unpack samples");
    check("UPDATE stages SET first_unit = 1 WHERE first_unit = 2", "a schedule is damaged");
    check("UPDATE profiles SET calls = x'0100'", "calls is damaged");
    check("UPDATE networks SET structure = '{'", "structure is damaged");
    drop(store);
    // A reader says so too, and the name of the file is in every error.
    let store = Store::open(&place.database(), Access::ReadOnly).unwrap();
    assert!(store.networks(&run).unwrap_err().to_string().contains("results.db"));
}
