//! Time of the planner over units and unlike processors, with links that are alike and with links that are not.
//!
//! Throughput is given in steps of `2^P · P · Q · N · ⌊log2 N⌋`, the number the planner's documented cost grows with
//! (Q senders told apart: 1 where links are alike, P where not). From 3 processors on it should stay about the same
//! at each number of units, while the steps grow some tenfold (alike) or twentyfold (pairs); with 2 there is hardly a
//! set to choose from, and short stacks fit the cache better. Run with `cargo bench -p domain`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use domain::{
    Boundary, Bytes, Costs, Link, Network, NetworkError, Options, ProcessorName, SplitMix64, Tensor,
    Transfer, Unit, plan,
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

/// Unlike processors: each has a speed of its own, and units differ from one to the next.
fn problem(units: usize, processors: usize, pairs: bool) -> Result<(Network, Costs), Box<dyn Error>> {
    let mut numbers = SplitMix64::new(42);
    let network = network(units, &mut numbers)?;
    let unit_ns = (0..processors)
        .map(|processor| {
            let speed = (processor + 1) as f64;
            (0..units).map(|_| (50_000 + numbers.below(500_000)) as f64 / speed).collect()
        })
        .collect();
    let names = (0..processors).map(|index| ProcessorName::new(format!("p{index}"))).collect();
    let mut link = || Link { fixed_ns: 2000.0 + numbers.below(5000) as f64, ns_per_byte: 0.1 };
    let transfer = if pairs {
        Transfer::Pairs((0..processors).map(|_| (0..processors).map(|_| link()).collect()).collect())
    } else {
        Transfer::Uniform(link())
    };
    Ok((network, Costs::new(names, unit_ns, transfer)?))
}

fn benches(criterion: &mut Criterion) {
    for (name, pairs) in [("planner/alike", false), ("planner/pairs", true)] {
        let mut group = criterion.benchmark_group(name);
        group
            .sample_size(20)
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(1));
        for units in [20, 100, 300] {
            for processors in 2..=6 {
                let Ok((network, costs)) = problem(units, processors, pairs) else {
                    continue;
                };
                let id = BenchmarkId::new(format!("{processors} processors"), format!("{units} units"));
                let senders = if pairs { processors } else { 1 };
                let steps = (processors << processors) * senders * units * units.ilog2() as usize;
                group.throughput(Throughput::Elements(steps as u64));
                group.bench_function(id, |bencher| {
                    bencher.iter(|| plan(black_box(&network), black_box(&costs), &Options::default()));
                });
            }
        }
        group.finish();
    }
}

criterion_group!(planner, benches);
criterion_main!(planner);
