//! The power model and the result of `optimize`, from a run whose true power is known.

use crate::scenario::Scenario;
use crate::{Interval, Observed, Optimization};
use domain::{Limit, Objective, OperatingPoint, ProcessorKind};
use protocol::{AppliedState, CpuLimit, LowestFrequency, Measured, Settings, StateRequest, WatchedSettings};
use store::fixture::Planned;
use store::{OperatingPointRecord, Outcome, ProcessorRecord, Record, StateRecord};

const IDLE_MW: f64 = 2000.0;
/// Of `cpu0` and of `cpu1`.
const DYNAMIC_MW: [f64; 2] = [6000.0, 1500.0];

/// Power of a trial by the time its stages worked. `cpu0` and `cpu1` alone are the schedules 0 and 1; the others use both.
fn power_mw(place: u32, measured: &Measured) -> f64 {
    let window = *measured.window.completed_ns.last().unwrap();
    let dynamic = if place == 1 { &DYNAMIC_MW[1..] } else { &DYNAMIC_MW[..] };
    let of_stages = measured.stages.iter().zip(dynamic);
    IDLE_MW + of_stages.map(|(stage, mw)| mw * stage.busy_ns as f64 / window as f64).sum::<f64>()
}

/// One network on two processors, alone, as a pipeline and as a replicate, five trials each.
fn metered() -> Scenario {
    let records = store::fixture::records("resnet18", 5);
    Scenario { records, ..Scenario::small() }.metered(IDLE_MW, power_mw)
}

fn close(left: f64, right: f64, share: f64) -> bool {
    (left / right - 1.0).abs() <= share
}

#[test]
fn a_known_power_model_is_found() {
    let (_, store, _place) = metered().stored();
    let observed = Observed::read(&store, &store::fixture::run_start().id).unwrap();
    let model = Optimization::of(&observed, Objective::Pareto).unwrap().power_model.unwrap();
    assert!(close(model.idle_mw, IDLE_MW, 1e-3), "{model:?}");
    assert!(close(model.dynamic_mw["cpu0"], DYNAMIC_MW[0], 1e-3), "{model:?}");
    assert!(close(model.dynamic_mw["cpu1"], DYNAMIC_MW[1], 1e-3), "{model:?}");
    // Four schedules with five trials each, and the idle board.
    assert_eq!(model.windows, 21);
    assert!(model.residual_mw < 5.0 && model.left_out_error.unwrap() < 1e-3, "{model:?}");
}

#[test]
fn the_front_and_the_best_schedule_follow_from_the_trials() {
    let (_, store, _place) = metered().stored();
    let observed = Observed::read(&store, &store::fixture::run_start().id).unwrap();
    let result = |objective| Optimization::of(&observed, objective).unwrap();
    let all = result(Objective::Pareto);
    // cpu1 is as fast as cpu0 and needs half the energy; both together are twice as fast.
    let labels: Vec<&str> = all.front.iter().map(|row| row.schedule.as_str()).collect();
    assert_eq!(labels, ["cpu0 | cpu1", "cpu1"]);
    let point = |interval: Option<Interval>| interval.unwrap().point;
    for (row, milliwatts) in all.front.iter().zip([2000.0 + 0.97 * 7500.0, 2000.0 + 0.97 * 1500.0]) {
        let expected = milliwatts / row.throughput_fps.point;
        assert!(close(point(row.energy_mj_per_frame), expected, 2e-3), "{row:?}, not {expected}");
    }
    let best = |objective| result(objective).best.map(|row| row.schedule);
    assert_eq!(best(Objective::Energy).as_deref(), Some("cpu1"));
    assert_eq!(result(Objective::Energy).not_judged_reason, None);
    assert_eq!(best(Objective::EnergyAtLeast { min_fps: 60.0 }).as_deref(), Some("cpu0 | cpu1"));
    assert_eq!(best(Objective::ThroughputWithin(Limit::Watts(5.0))).as_deref(), Some("cpu1"));
    let missed = result(Objective::ThroughputWithin(Limit::Watts(3.0)));
    assert_eq!((missed.best, missed.closest.unwrap().point.schedule.as_str()), (None, "cpu1"));
}

/// The same; `cpu1` alone ran at a second operating point, at which CPU 1 is kept at 1200 MHz.
#[test]
fn without_energy_an_objective_that_needs_it_is_not_judged() {
    let (_, store, _place) =
        Scenario { records: store::fixture::records("resnet18", 5), ..Scenario::small() }.stored();
    let observed = Observed::read(&store, &store::fixture::run_start().id).unwrap();
    for objective in [
        Objective::Pareto,
        Objective::Energy,
        Objective::EnergyAtLeast { min_fps: 1.0 },
        Objective::ThroughputWithin(Limit::Watts(100.0)),
    ] {
        let result = Optimization::of(&observed, objective).unwrap();
        let reason = result.not_judged_reason.unwrap();
        assert!(reason.starts_with("no valid trial has energy ("), "{reason}");
        assert!(result.best.is_none() && result.closest.is_none() && result.front.len() == 1, "{objective}");
    }
    let result = Optimization::of(&observed, Objective::Throughput).unwrap();
    assert_eq!((result.not_judged_reason, result.best.as_ref()), (None, result.front.first()));
}

pub(super) fn at_two_points() -> Scenario {
    let mut scenario = metered();
    scenario.schedule(1).point = 1;
    let mut machine = store::fixture::machine();
    for cpu in &mut machine.cpus {
        (cpu.governor, cpu.max_khz) = (Some("performance".to_owned()), Some(1_200_000));
    }
    for round in 0..5 {
        let measured = scenario.measured(1, round);
        (measured.before, measured.after) = (machine.clone(), machine.clone());
    }
    let asked = StateRequest {
        sysfs: "/sys".to_owned(),
        nvpmodel: None,
        jetson_clocks: None,
        governor: None,
        cpu_limits: vec![CpuLimit { cpus: vec![1], max_khz: 1_200_000 }],
        gpu_max_hz: None,
        memory_hz: None,
    };
    let set = Settings::from(&machine);
    let brought = AppliedState { leftover: None, found: set.clone(), set };
    for (number, khz, state) in [(0, 2_000_000, None), (1, 1_200_000, StateRecord::new(asked, brought))] {
        let max_khz = [("cpu0".to_owned(), 2_000_000), ("cpu1".to_owned(), khz)].into();
        let point = OperatingPoint { max_khz, ..OperatingPoint::default() };
        let record = OperatingPointRecord { number, point, state, idle: None };
        scenario.records.push(Record::OperatingPoint(Box::new(record)));
    }
    scenario
}

#[test]
fn a_schedule_at_another_operating_point_is_compared_with_those_at_the_default() {
    let (_, store, _place) = at_two_points().stored();
    let observed = Observed::read(&store, &store::fixture::run_start().id).unwrap();
    let result = Optimization::of(&observed, Objective::Energy).unwrap();
    let best = result.best.unwrap();
    assert_eq!(best.schedule, "cpu1 @ cpu0 2000 cpu1 1200 MHz");
    assert!((best.operating_point.max_mhz["cpu1"] - 1200.0).abs() < 1e-9 && best.operating_point.number == 1);
    let default = result.best_at_default_point.unwrap();
    assert_eq!(default.schedule, "cpu0 | cpu1 @ cpu0 2000 cpu1 2000 MHz");
    let ratio = |row: &crate::FrontRow| row.energy_mj_per_frame.unwrap().point;
    let gain = result.energy_gain_over_default_point.unwrap().point;
    assert!(close(gain, ratio(&default) / ratio(&best), 0.01), "{gain}");
    assert!(result.throughput_gain_over_default_point.unwrap().point < 1.0);
    let command = "for file in /sys/devices/system/cpu/cpu1/cpufreq/scaling_max_freq; do echo 1200000 | sudo tee $file; done";
    assert_eq!(result.commands, [command]);
}

#[test]
fn a_point_at_which_a_cpu_is_slower_than_its_limit_is_void_with_the_reason() {
    let mut scenario = at_two_points();
    for round in 0..5 {
        scenario.measured(1, round).watched = Some(WatchedSettings {
            looks: 2,
            cpu_ns: 1,
            lowest: vec![LowestFrequency { cpu: 1, khz: 600_000, at_ns: 9 }],
            gpu_lowest: None,
            changes: vec![],
            throttled: vec![],
        });
    }
    let (_, store, _place) = scenario.stored();
    let observed = Observed::read(&store, &store::fixture::run_start().id).unwrap();
    let result = Optimization::of(&observed, Objective::Energy).unwrap();
    assert!(!result.best.unwrap().schedule.contains("1200 MHz") && result.schedules_void == 1);
    let reason = result.void_reason.unwrap();
    assert!(reason.contains("CPU 1 ran at 600 MHz, 50.0 % below the 1200 MHz it was pinned to"), "{reason}");
}

#[test]
fn a_merged_processor_draws_what_its_parts_draw_and_is_no_baseline() {
    let merged = Planned {
        network: "resnet18",
        kind: "single",
        processors: &["cpu0+cpu1"],
        frame_ns: 10_200_000,
        predicted_ns: 10_100_000,
    };
    let mut scenario = Scenario { records: store::fixture::records("resnet18", 5), ..Scenario::small() };
    let kind = ProcessorKind::Cpu { cpus: vec![0, 1], threads: 2, mcpu: None };
    scenario.start.processors.push(ProcessorRecord { name: "cpu0+cpu1".to_owned(), kind, gpu: None });
    // It takes the place of the replicate.
    *scenario.schedule(3) = merged.record(3);
    for trial in scenario.trials().filter(|trial| trial.schedule == 3) {
        trial.outcome = Outcome::Measured(Box::new(merged.measured(u64::from(trial.position) + 1, 40)));
    }
    let power = |place: u32, measured: &Measured| {
        let window = *measured.window.completed_ns.last().unwrap();
        let busy = measured.stages[0].busy_ns as f64 / window as f64;
        if place == 3 { IDLE_MW + (DYNAMIC_MW[0] + DYNAMIC_MW[1]) * busy } else { power_mw(place, measured) }
    };
    let (report, store, _place) = scenario.metered(IDLE_MW, power).stored();
    let row = &report.rows[3];
    assert_eq!((row.kind.as_str(), row.schedule.as_str()), ("merged", "cpu0+cpu1"));
    assert_eq!(row.best_single.as_deref(), Some("cpu0"));
    assert!(close(row.gain_over_best_single.unwrap(), 20.0 / 10.2, 0.01), "{row:?}");
    let observed = Observed::read(&store, &store::fixture::run_start().id).unwrap();
    let result = Optimization::of(&observed, Objective::Pareto).unwrap();
    let model = result.power_model.unwrap();
    let found: Vec<(&str, f64)> = model.dynamic_mw.iter().map(|(name, mw)| (name.as_str(), *mw)).collect();
    let expected = [("cpu0", DYNAMIC_MW[0]), ("cpu1", DYNAMIC_MW[1])];
    assert!(
        found.iter().zip(expected).all(|(own, wanted)| own.0 == wanted.0 && close(own.1, wanted.1, 1e-3)),
        "{found:?}"
    );
    assert_eq!((found.len(), model.windows), (2, 21));
    let labels: Vec<&str> = result.front.iter().map(|row| row.schedule.as_str()).collect();
    assert_eq!(labels, ["cpu0+cpu1", "cpu1"]);
    let baselines: Vec<&str> = result.baselines.iter().map(|row| row.schedule.as_str()).collect();
    assert_eq!(baselines.len(), 2, "{baselines:?}");
}
