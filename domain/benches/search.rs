//! Time to predict all operating points of a large grid and to choose what to measure next, as `optimize` does after each step.
//! Run with `cargo bench -p domain --bench search`.
//!
//! 4096 points with three processors took 0.27 s of CPU time for 20 units, and 0.45 s for 60 (user time of the program over its
//! iterations, on a busy 2-core virtual machine of a Xeon).

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use domain::objective::Figures;
use domain::operating_point::MOST_POINTS;
use domain::search::{Knowledge, MeasuredSchedule, PredictedPoint, calibrate, next};
use domain::{
    Boundary, Bytes, Costs, Milliwatts, ModeOffer, Network, Objective, OperatingPoint, Options, PowerModel,
    ProcessorName, Schedule, SplitMix64, Tensor, Transfer, Unit, periods_ns, plan, predict,
};
use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

/// Clocks of a Jetson TX2: two CPU clusters and the GPU. 16 frequencies each give the largest grid.
const PROCESSORS: usize = 3;
const STEPS: u32 = 16;
const HIGHEST_KHZ: u64 = 2_000_000;

fn network(units: usize, random: &mut SplitMix64) -> Result<Network, Box<dyn Error>> {
    let unit = |index| Unit { name: format!("u{index}"), operators: vec![], macs: 0, parameters: 0 };
    let boundaries = (0..=units).map(|cut| {
        let bytes = 10_000 + random.below(500_000) as u64;
        let (value, shape, dtype) = (format!("t{cut}"), vec![bytes], "int8".to_owned());
        Boundary { tensors: vec![Tensor { value, shape, dtype, bytes: Bytes(bytes) }] }
    });
    Ok(Network::new("bench", (0..units).map(unit).collect(), boundaries.collect())?)
}

fn names() -> Vec<ProcessorName> {
    (0..PROCESSORS).map(|index| ProcessorName::new(format!("p{index}"))).collect()
}

/// A processor's time falls with its clock but for a part that waits for memory; its power rises with clock and voltage.
fn points(units: usize, random: &mut SplitMix64) -> Result<Vec<PredictedPoint>, Box<dyn Error>> {
    let khz = |step: u32| HIGHEST_KHZ / u64::from(STEPS) * u64::from(step + 1);
    let offer = ModeOffer {
        varied: names().iter().map(|name| (name.to_string(), (0..STEPS).map(khz).collect())).collect(),
        ..ModeOffer::default()
    };
    let speeds: Vec<f64> = (0..PROCESSORS).map(|processor| (processor + 1) as f64).collect();
    let unit_ns: Vec<Vec<f64>> = speeds
        .iter()
        .map(|speed| (0..units).map(|_| (50_000 + random.below(500_000)) as f64 / speed).collect())
        .collect();
    let predicted = |point: &OperatingPoint| {
        let ratio = |name: &ProcessorName| point.max_khz[name.as_str()] as f64 / HIGHEST_KHZ as f64;
        let ratios: Vec<f64> = names().iter().map(ratio).collect();
        let times = unit_ns.iter().zip(&ratios);
        let times = times.map(|(row, ratio)| row.iter().map(|ns| ns * (0.8 / ratio + 0.2)).collect());
        let costs = Costs::new(names(), times.collect(), Transfer::uniform(5_000.0, 0.1))?;
        let dynamic: Vec<Milliwatts> = (ratios.iter().zip(&speeds))
            .map(|(ratio, speed)| Milliwatts(500.0 * speed.powf(1.6) * ratio * (0.75 + 0.25 * ratio).powi(2)))
            .collect();
        let power = Some(PowerModel::known(Milliwatts(2000.0), &dynamic)?);
        Ok(PredictedPoint { point: point.clone(), alone: costs.clone(), contended: costs, power })
    };
    offer.points().iter().map(predicted).collect()
}

/// The single processors, the fastest pipeline and a replicate at a few points.
fn measured(network: &Network, points: &[PredictedPoint]) -> Result<Vec<MeasuredSchedule>, Box<dyn Error>> {
    let mut measured = Vec::new();
    for at in [0, points.len() / 4, points.len() / 2, points.len() - 1] {
        let costs = &points[at].contended;
        let mut schedules: Vec<Schedule> =
            names().into_iter().map(|name| Schedule::single(network, name)).collect();
        schedules.push(plan(network, costs, &Options::default())?.schedule);
        schedules.push(Schedule::replicate(network, names())?);
        for schedule in schedules {
            let prediction = predict(network, costs, &schedule)?;
            let fps = prediction.throughput.0;
            let figures = Some(Figures { fps, mj_per_frame: Some(4e6 / fps) });
            let stage_ns = periods_ns(&schedule, &prediction.stage_ns);
            measured.push(MeasuredSchedule { at, schedule, figures, stage_ns });
        }
    }
    Ok(measured)
}

fn step(
    network: &Network,
    points: &[PredictedPoint],
    measured: &[MeasuredSchedule],
    objective: Objective,
) -> Result<usize, Box<dyn Error>> {
    let calibration = calibrate(network, points, measured)?;
    let knowledge = Knowledge { network, points, calibration: &calibration, measured };
    Ok(next(knowledge, objective)?.len())
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("search");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(5));
    for units in [20, 60] {
        let mut random = SplitMix64::new(42);
        let Ok(network) = network(units, &mut random) else { continue };
        let Ok(points) = points(units, &mut random) else { continue };
        assert_eq!(points.len(), MOST_POINTS);
        let Ok(measured) = measured(&network, &points) else { continue };
        for objective in [Objective::Pareto, Objective::EnergyAtLeast { min_fps: 100.0 }] {
            let id = BenchmarkId::new(format!("{objective}"), format!("{units} units"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| step(black_box(&network), black_box(&points), &measured, objective));
            });
        }
    }
    group.finish();
}

criterion_group!(searches, benches);
criterion_main!(searches);
