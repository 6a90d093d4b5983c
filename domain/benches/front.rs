//! Time of the whole front of throughput and energy, over units and processors with links that differ. Fast processors need
//! more energy per unit, as those of boards do. Run with `cargo bench -p domain --bench front`.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use domain::{
    Boundary, Bytes, Costs, FrontCosts, Link, Milliwatts, Network, NetworkError, PowerModel, ProcessorName,
    SplitMix64, Tensor, Transfer, Unit, front,
};
use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

fn network(units: usize, numbers: &mut SplitMix64) -> Result<Network, NetworkError> {
    let unit = |index| Unit { name: format!("u{index}"), operators: vec![], macs: 0, parameters: 0 };
    let boundaries = (0..=units)
        .map(|cut| {
            let bytes = 1000 + numbers.below(1_000_000) as u64;
            let tensor = Tensor {
                value: format!("t{cut}"),
                shape: vec![bytes],
                dtype: "int8".to_owned(),
                bytes: Bytes(bytes),
            };
            Boundary { tensors: vec![tensor] }
        })
        .collect();
    Network::new("bench", (0..units).map(unit).collect(), boundaries)
}

/// Processor `k` is `k + 1` times as fast as the first one and draws `(k + 1)^1.6` times its power: 0.5 W to 8.8 W for six,
/// on a board of 2 W.
fn problem(units: usize, processors: usize) -> Result<(Network, Costs, PowerModel), Box<dyn Error>> {
    let mut numbers = SplitMix64::new(42);
    let network = network(units, &mut numbers)?;
    let speed = |processor: usize| (processor + 1) as f64;
    let unit_ns = (0..processors)
        .map(|processor| {
            (0..units).map(|_| (50_000 + numbers.below(500_000)) as f64 / speed(processor)).collect()
        })
        .collect();
    let names = (0..processors).map(|index| ProcessorName::new(format!("p{index}"))).collect();
    let mut link = || Link { fixed_ns: 2000.0 + numbers.below(5000) as f64, ns_per_byte: 0.1 };
    let links = (0..processors).map(|_| (0..processors).map(|_| link()).collect()).collect();
    let dynamic: Vec<Milliwatts> =
        (0..processors).map(|processor| Milliwatts(500.0 * speed(processor).powf(1.6))).collect();
    let power = PowerModel::known(Milliwatts(2000.0), &dynamic)?;
    Ok((network, Costs::new(names, unit_ns, Transfer::Pairs(links))?, power))
}

/// The problem of `parts` processors, with a merged processor of every two neighbours that is as fast as both together.
fn with_merged(units: usize, parts: usize) -> Result<(Network, Costs, PowerModel), Box<dyn Error>> {
    let (network, costs, power) = problem(units, parts)?;
    let mut names = costs.processors().to_vec();
    let mut unit_ns: Vec<Vec<f64>> = (0..parts).map(|at| costs.unit_ns(at).to_vec()).collect();
    let mut dynamic: Vec<Milliwatts> = (0..parts).map(|at| Milliwatts(power.dynamic_mw(at))).collect();
    for at in 1..parts {
        names.push(ProcessorName::merged(&names[at - 1..=at]));
        let both = |(one, other): (&f64, &f64)| 1.0 / (1.0 / one + 1.0 / other);
        unit_ns.push(unit_ns[at - 1].iter().zip(&unit_ns[at]).map(both).collect());
        dynamic.push(Milliwatts(dynamic[at - 1].0 + dynamic[at].0));
    }
    let link = Link { fixed_ns: 4000.0, ns_per_byte: 0.1 };
    let links = vec![vec![link; names.len()]; names.len()];
    let power = PowerModel::known(Milliwatts(power.idle_mw()), &dynamic)?;
    Ok((network, Costs::new(names, unit_ns, Transfer::Pairs(links))?, power))
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("front");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    for units in [20, 100, 300] {
        for processors in [2, 4, 6] {
            let Ok((network, costs, power)) = problem(units, processors) else { continue };
            let id = BenchmarkId::new(format!("{processors} processors"), format!("{units} units"));
            let costs = FrontCosts { alone: &costs, contended: &costs };
            group.bench_function(id, |bencher| {
                bencher.iter(|| front(black_box(&network), black_box(costs), black_box(&power)));
            });
        }
    }
    for parts in [2, 4, 6] {
        let Ok((network, costs, power)) = with_merged(300, parts) else { continue };
        let id = BenchmarkId::new(format!("{parts} processors and {} merged", parts - 1), "300 units");
        let costs = FrontCosts { alone: &costs, contended: &costs };
        group.bench_function(id, |bencher| {
            bencher.iter(|| front(black_box(&network), black_box(costs), black_box(&power)));
        });
    }
    group.finish();
}

criterion_group!(fronts, benches);
criterion_main!(fronts);
