//! The power model and the result of `optimize`, from a run whose true power is known.

use crate::scenario::Scenario;
use crate::{Interval, Observed, Optimization};
use domain::{Limit, Objective};
use protocol::Measured;

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
    assert_eq!(best(Objective::EnergyAtLeast { min_fps: 60.0 }).as_deref(), Some("cpu0 | cpu1"));
    assert_eq!(best(Objective::ThroughputWithin(Limit::Watts(5.0))).as_deref(), Some("cpu1"));
    let missed = result(Objective::ThroughputWithin(Limit::Watts(3.0)));
    assert_eq!((missed.best, missed.closest.unwrap().point.schedule.as_str()), (None, "cpu1"));
}
