//! Energy from readings of a meter that is known.

use super::*;
use crate::Format;
use protocol::{Idled, Power, PowerReadings, RailReadings, ReadErrors};
use store::fixture;
use store::{Outcome, Record, Status};

/// Time from one conversion of the meter to the next.
const REFRESH_NS: u64 = 100_000_000;

/// What an INA3221 shows of a rail that draws `milliwatts` at 19 V: conversions that differ by a step of 4 mA around
/// it, read 5 times each.
fn rail(name: &str, from_ns: u64, to_ns: u64, milliwatts: i64) -> RailReadings {
    let begun_ns: Vec<u64> = (from_ns..to_ns).step_by(20_000_000).collect();
    let current = |at: &u64| {
        let step = [-1, 0, 1, 0][usize::try_from(at / REFRESH_NS % 4).unwrap()];
        (milliwatts / 19 / 4 + step) * 4
    };
    RailReadings {
        name: name.to_owned(),
        source: "/sys/class/hwmon/hwmon3/curr1_input".to_owned(),
        took_ns: vec![150_000; begun_ns.len()],
        millivolts: vec![19_000; begun_ns.len()],
        milliamperes: begun_ns.iter().map(current).collect(),
        begun_ns,
        ..RailReadings::default()
    }
}

fn readings(from_ns: u64, to_ns: u64, milliwatts: i64) -> PowerReadings {
    PowerReadings {
        driver: "ina3221 by hwmon".to_owned(),
        total: "VDD_IN".to_owned(),
        rails: vec![
            rail("VDD_IN", from_ns, to_ns, milliwatts),
            rail("VDD_SYS_CPU", from_ns, to_ns, milliwatts / 2),
        ],
        cpu_ns: 1_000_000,
    }
}

/// A run on a board with a meter. Singles draw 4 W and 8 W, the pipeline 6.08 W. Windows last about two seconds.
fn metered() -> Scenario {
    let mut start = fixture::run_start();
    start.rounds = 3;
    let records = fixture::records("resnet18", 3);
    let mut run = Scenario { start, records, status: Status::Complete };
    let idle = Idled {
        id: 1,
        opened_monotonic_ns: 1_000_000_000,
        duration_ns: 8_000_000_000,
        readings: readings(1_000_000_000, 9_100_000_000, 1520),
    };
    run.records.push(Record::Idle(idle));
    for place in 0..4 {
        for round in 0..3 {
            let planned = fixture::planned("resnet18").swap_remove(place as usize);
            let frames = usize::try_from(2_000_000_000 / planned.frame_ns).unwrap();
            let mut measured = planned.measured(u64::from(round) + 1, frames);
            let opened = measured.window.opened_monotonic_ns;
            let closed = opened + measured.window.completed_ns.last().unwrap();
            let milliwatts = [4028, 8056, 6080, 9956][place as usize];
            measured.power =
                Some(Power::Read(readings(opened - 3_000_000_000, closed + 40_000_000, milliwatts)));
            run.trial(place, round).outcome = Outcome::Measured(Box::new(measured));
        }
    }
    run
}

#[test]
fn energy_is_that_of_the_rail_over_the_frames() {
    let report = metered().report();
    for (row, milliwatts) in report.rows.iter().zip([4028.0, 8056.0, 6080.0, 9956.0]) {
        let energy = row.energy_mj_per_frame.unwrap();
        let expected = milliwatts / row.throughput_fps.unwrap().point;
        assert!((energy.point / expected - 1.0).abs() < 0.01, "{}: {energy:?}, not {expected}", row.schedule);
        assert!(energy.lo.unwrap() < expected && expected < energy.hi.unwrap(), "{energy:?}, not {expected}");
        assert_eq!((row.energy_trials, &row.energy_absent_reason), (3, &None));
        let part = row.energy_breakdown_mj_per_frame["VDD_SYS_CPU"];
        assert!((part / energy.point - 0.5).abs() < 0.02, "{part}");
    }
    // Frames a joule go as frames a second over power, against the best by energy and not by speed.
    let pipeline = &report.rows[2];
    let single = &report.rows[0];
    let ratio = single.energy_mj_per_frame.unwrap().point / pipeline.energy_mj_per_frame.unwrap().point;
    assert_eq!(pipeline.best_single_by_energy.as_deref(), Some("cpu0"));
    assert!((pipeline.energy_gain_over_best_single.unwrap() / ratio - 1.0).abs() < 0.02, "{ratio}");
    let power = report.power.as_ref().unwrap();
    assert!((power.idle_mw.unwrap().point - 1520.0).abs() < 40.0, "{power:?}");
    assert!((power.refresh_ms.unwrap() - 100.0).abs() < 5.0, "{power:?}");
    assert_eq!(
        power.rails.iter().map(|rail| rail.name.as_str()).collect::<Vec<_>>(),
        ["VDD_IN", "VDD_SYS_CPU"]
    );
}

#[test]
fn a_single_trial_has_the_meters_own_uncertainty() {
    let mut run = metered();
    run.records.retain(|record| !matches!(record, Record::Trial(trial) if trial.round > 0));
    let row = &run.report().rows[0];
    let energy = row.energy_mj_per_frame.unwrap();
    assert_eq!(row.energy_trials, 1);
    assert!(energy.lo.unwrap() < energy.point && energy.point < energy.hi.unwrap(), "{energy:?}");
}

#[test]
fn energy_that_is_not_known_is_absent_with_its_reason() {
    let reason = |change: fn(&mut protocol::Measured)| {
        let mut run = metered();
        (0..3).for_each(|round| change(run.measured(0, round)));
        let report = run.report();
        assert_eq!(report.rows[0].energy_mj_per_frame, None);
        assert!(report.rows[1].energy_mj_per_frame.is_some(), "the others have theirs");
        assert_ne!(report.rows[1].best_single_by_energy.as_deref(), Some("cpu0"));
        report.rows[0].energy_absent_reason.clone().unwrap()
    };
    let message = reason(|measured| measured.power = None);
    assert_eq!(message, "the power meter was not read");
    let message = reason(|measured| {
        measured.power =
            Some(Power::Unreadable { message: "failed to find an INA3221 below /sys".to_owned() });
    });
    assert_eq!(message, "failed to find an INA3221 below /sys");
    let message = reason(|measured| {
        let Some(Power::Read(readings)) = &mut measured.power else { panic!("it was read") };
        let rail = &mut readings.rails[0];
        rail.begun_ns.truncate(180);
        rail.took_ns.truncate(180);
        rail.millivolts.truncate(180);
        rail.milliamperes.truncate(180);
        let message = "No such device (os error 19)".to_owned();
        rail.errors = vec![ReadErrors { message, count: 70, first_ns: 0, last_ns: 0 }];
    });
    assert!(message.starts_with("VDD_IN gave no reading for 1."), "{message}");
    assert!(message.ends_with("70 readings failed: No such device (os error 19)"), "{message}");
    let message = reason(|measured| measured.window.completed_ns.truncate(20));
    assert!(message.contains("too short for VDD_IN, which refreshes every"), "{message}");
    let message = reason(|measured| {
        let Some(Power::Read(readings)) = &mut measured.power else { panic!("it was read") };
        readings.rails[0].took_ns.reverse();
        readings.rails[0].begun_ns.reverse();
    });
    assert_eq!(message, "the readings of VDD_IN are damaged: reading 1 is older than the one before it");
}

#[test]
fn tables_with_energy() {
    let report = metered().report();
    insta::assert_snapshot!(crate::render(&report, Format::Terminal, false));
}

#[test]
fn trials_without_energy_are_told_beside_those_that_have_it() {
    let mut run = metered();
    let Outcome::Measured(measured) = &mut run.trial(0, 1).outcome else { panic!("it was measured") };
    measured.power = Some(Power::Unreadable { message: "the meter is gone; plug it in".to_owned() });
    let report = run.report();
    let told = |row: &Row| {
        row.reasons.iter().find(|reason| reason.code == domain::ReasonCode::TrialsWithoutEnergy).cloned()
    };
    assert_eq!(report.rows[0].energy_trials, 2);
    let reason = told(&report.rows[0]).unwrap();
    assert_eq!(
        reason.text,
        "1 of 3 trials have no energy (mJ/frame is computed from the others): the meter is gone"
    );
    assert_eq!(reason.remedy, "plug it in");
    assert!(report.rows[1..].iter().all(|row| told(row).is_none()));
}
