//! Which units of each network lose the most time, compared with the processor's roofline.

use crate::compile::CompiledNetwork;
use crate::open::OpenedBoard;
use crate::processors::Processor;
use crate::profile::{measure_units, unit_costs};
use crate::runner_client::LOADING;
use crate::verify::verify;
use domain::{BelowRoof, Roof};
use host::exit::{Exit, Failure, Outcome};
use host::progress::Progress;
use protocol::{Event, MachineState, Peaked, Request};
use std::fmt::Write as _;

/// Samples of multiply-adds and of readings.
const ROUNDS: u32 = 30;
/// Bytes of a parameter.
const PARAMETER_BYTES: u64 = 4;
/// Smallest buffer from which the reading of weights is timed: larger than an L1 cache.
const LEAST_STREAM: u64 = 1 << 20;

/// A network with each unit's distance from the roofline.
struct Layers {
    network: String,
    frame_ns: f64,
    whole: BelowRoof,
    /// Name, operators and distance; the units that lose the most come first.
    units: Vec<(String, String, BelowRoof)>,
}

/// A Markdown table of the `top` units of each network that lose the most time, on the first processor.
///
/// # Errors
/// If a network cannot be compiled or profiled, or the processor's peak cannot be measured.
pub fn layers(board: &mut OpenedBoard, top: usize) -> Outcome<String> {
    let Some(processor) = board.processors().first().cloned() else {
        return Err(Failure::new(Exit::Bug, "a board without processors was opened"));
    };
    let alone = std::slice::from_ref(&processor);
    let networks = board.builder.compile_networks(&board.loaded.experiment, alone)?;
    verify(board, &networks, alone)?;
    let progress = Progress::begin("layers", networks.len());
    let mut found = Vec::new();
    let mut peaks = Vec::new();
    for network in &networks {
        progress.doing(&format!("{} on {}", network.name, processor.name));
        let weights = network.network.parameters() * PARAMETER_BYTES;
        let roof = measure_roof(board, &processor, weights.max(LEAST_STREAM))?;
        let profiled = measure_units(&mut board.runner, &board.loaded.experiment, network, &processor)?;
        let costs = unit_costs(&network.network, &processor, &profiled)?;
        found.push(below(network, roof, costs.unit_costs().as_ns()));
        peaks.push(roof.multiply_adds);
        progress.step(&format!("{}: {:.2} ms per frame", network.name, costs.frame_ns() / 1e6));
    }
    progress.end(&format!("{} networks on {}", networks.len(), processor.name));
    let peak = peaks.into_iter().fold(0.0, f64::max);
    Ok(table(board.machine(), &processor, peak, &found, top))
}

/// The processor's peak rates: the best sample, times the threads.
fn measure_roof(board: &mut OpenedBoard, processor: &Processor, stream: u64) -> Outcome<Roof> {
    let task = format!("measure the peak of {}", processor.name);
    let answer = board.runner.request(&task, LOADING, |id| {
        let processor = processor.message();
        Request::Peak(protocol::Peak { id, processor, rounds: ROUNDS, streams: vec![stream] })
    });
    match answer? {
        Event::Peaked(peaked) => roof(&peaked, processor.threads)
            .ok_or_else(|| Failure::new(Exit::Bug, format!("failed to {task}: the runner sent no samples"))),
        other => Err(board.runner.unexpected(&task, &other).into()),
    }
}

fn table(machine: &MachineState, processor: &Processor, peak: f64, found: &[Layers], top: usize) -> String {
    let model = machine.cpu_model.as_deref().unwrap_or("unknown processor");
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "On {model}, kernel {}: {} = CPU {:?}, {} thread(s), {}. Measured peak: {:.1} G multiply-adds/s.\n\n\
             The least time of a unit is that of its multiply-adds at the peak, or of reading its weights once at the rate \
             measured for a buffer of all weights of the network, whichever is longer. Lost time is the time beyond \
             that. Units that lose the most come first.\n",
        machine.kernel,
        processor.name,
        processor.cpus,
        processor.threads,
        processor.target.isa,
        peak / 1e9,
    );
    out += "| network | frame ms | share of peak | unit | operators | ms | G multiply-adds/s | of the least time | \
                lost ms | of the frame |\n|---|--:|--:|---|---|--:|--:|--:|--:|--:|\n";
    for layers in found {
        for (place, (name, operators, unit)) in layers.units.iter().take(top).enumerate() {
            let head = if place == 0 {
                let share = percent(layers.whole.share());
                format!("{} | {:.2} | {share}", layers.network, layers.frame_ns / 1e6)
            } else {
                " | | ".to_owned()
            };
            let _ = writeln!(
                out,
                "| {head} | {name} | {operators} | {:.3} | {:.1} | {} | {:.3} | {} |",
                unit.ns / 1e6,
                unit.multiply_adds / 1e9,
                percent(unit.share()),
                unit.lost_ns() / 1e6,
                percent(Some(unit.lost_ns() / layers.frame_ns)),
            );
        }
    }
    out
}

fn roof(peaked: &Peaked, threads: u32) -> Option<Roof> {
    let least = |samples: &[u64]| samples.iter().copied().min().filter(|ns| *ns > 0);
    let stream = peaked.streams.first()?;
    let rate = |work: u64, ns: u64| 1e9 * work as f64 / ns as f64;
    Some(Roof {
        multiply_adds: f64::from(threads) * rate(peaked.multiply_adds, least(&peaked.multiply_adds_ns)?),
        bytes: rate(stream.bytes, least(&stream.ns)?),
    })
}

fn below(network: &CompiledNetwork, roof: Roof, unit_ns: &[f64]) -> Layers {
    let mut units: Vec<(String, String, BelowRoof)> = network
        .manifest
        .units
        .iter()
        .zip(unit_ns)
        .map(|(unit, ns)| {
            let place = roof.place(unit.macs, unit.parameters * PARAMETER_BYTES, *ns);
            (unit.name.clone(), unit.operators.join(" "), place)
        })
        .collect();
    units.sort_by(|(_, _, one), (_, _, other)| other.lost_ns().total_cmp(&one.lost_ns()));
    let sum = |figure: fn(&BelowRoof) -> f64| units.iter().map(|(_, _, unit)| figure(unit)).sum::<f64>();
    let frame_ns = sum(|unit| unit.ns);
    let rate = if frame_ns > 0.0 { 1e9 * network.manifest.macs as f64 / frame_ns } else { 0.0 };
    let whole = BelowRoof { ns: frame_ns, least_ns: sum(|unit| unit.least_ns), multiply_adds: rate };
    Layers { network: network.name.clone(), frame_ns, whole, units }
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", 100.0 * share))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Stream;

    #[test]
    fn the_best_sample_counts_for_every_thread() {
        let peaked = Peaked {
            id: 1,
            lanes: 4,
            multiply_adds: 1000,
            multiply_adds_ns: vec![12, 10, 11],
            streams: vec![Stream { bytes: 640, ns: vec![20, 16] }],
        };
        let found = roof(&peaked, 2).unwrap();
        assert_eq!((found.multiply_adds, found.bytes), (2e11, 4e10));
        assert!(roof(&Peaked { streams: vec![], ..peaked }, 1).is_none());
    }
}
