//! Readings of power meters, to the database and back.

use crate::fixture::{self, Place};
use crate::{Outcome, Record, RunRecorder, Status};
use protocol::{Idled, Power, PowerReadings, RailReadings, ReadErrors};

pub(super) fn readings() -> PowerReadings {
    let begun_ns = vec![77_000_000_000, 77_050_000_123, 77_100_000_001];
    let total = RailReadings {
        name: "VDD_IN".to_owned(),
        source: "/sys/class/hwmon/hwmon3/curr1_input".to_owned(),
        begun_ns: begun_ns.clone(),
        took_ns: vec![210_000, 0, 199_999],
        millivolts: vec![19_000, 19_008, 18_992],
        milliamperes: vec![240, -4, 388],
        errors: vec![ReadErrors {
            message: "Resource temporarily unavailable (os error 11)".to_owned(),
            count: 3,
            first_ns: 77_000_000_001,
            last_ns: 77_090_000_000,
        }],
        ..RailReadings::default()
    };
    let counter = RailReadings {
        name: "package-0".to_owned(),
        begun_ns,
        took_ns: vec![1, 2, 3],
        microjoules: vec![0, i64::MAX, 5],
        range_microjoules: Some(262_143_328_850),
        ..RailReadings::default()
    };
    PowerReadings {
        driver: "ina3221 by hwmon".to_owned(),
        total: "VDD_IN".to_owned(),
        rails: vec![total, counter, RailReadings::default()],
        cpu_ns: 4711,
    }
}

#[test]
fn readings_come_back_as_they_were() {
    let folder = Place::new();
    let store = folder.open();
    let start = fixture::run_start();
    let run = start.id.clone();
    let mut recorder = RunRecorder::create(&store, &folder.runs(), start).unwrap();
    let idle = |id| Idled { id, opened_monotonic_ns: 1, duration_ns: 8_000_000_000, readings: readings() };
    recorder.record_idle(idle(1)).unwrap();
    recorder.record_idle(idle(2)).unwrap();
    let powers =
        [Some(Power::Read(readings())), Some(Power::Unreadable { message: "gone".to_owned() }), None];
    let mut place = 0;
    for mut record in fixture::records("resnet18", 1) {
        if let Record::Trial(trial) = &mut record
            && let Outcome::Measured(measured) = &mut trial.outcome
        {
            measured.power.clone_from(&powers[place % powers.len()]);
            place += 1;
        }
        recorder.record(record).unwrap();
    }
    recorder.finish(Status::Complete, 1).unwrap();
    let run = store.run(run.as_str()).unwrap();
    assert_eq!(store.idle_power(&run).unwrap(), Some(idle(2)), "the later one counts");
    let found = store.trials(&run).unwrap();
    assert_eq!(found.len(), place);
    for (place, trial) in found.iter().enumerate() {
        let Outcome::Measured(measured) = &trial.outcome else { panic!("{trial:?}") };
        assert_eq!(measured.power, powers[place % powers.len()]);
    }
}

#[test]
fn a_board_without_a_meter_has_no_idle_power() {
    let folder = Place::new();
    let store = folder.open();
    let start = fixture::run_start();
    let run = start.id.clone();
    RunRecorder::create(&store, &folder.runs(), start).unwrap();
    assert_eq!(store.idle_power(&store.run(run.as_str()).unwrap()).unwrap(), None);
}
