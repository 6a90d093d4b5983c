//! Which units of each network lose the most time, compared with the processor's roofline. The runner measures no roofline of a
//! GPU, so the units of a GPU are listed by their time.

use crate::compile::CompiledNetwork;
use crate::frame_times::measure_units;
use crate::open::OpenedBoard;
use crate::processors::Processor;
use crate::profile::unit_costs;
use crate::runner_client::LOADING;
use crate::verify::verify;
use compiler::{StageLayout, StageManifest};
use domain::{BelowRoof, ProcessorKind, Roof};
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
    /// Absent without a roofline.
    share_of_peak: Option<f64>,
    /// The units that lose the most come first; without a roofline, those that take the most time.
    units: Vec<Layer>,
}

/// A unit.
struct Layer {
    name: String,
    operators: String,
    /// The compiler's schedule rule.
    rule: String,
    /// Multiply-adds that its kernels do in a frame.
    multiply_adds: u64,
    ns: f64,
    /// Absent without a roofline.
    roofline: Option<BelowRoof>,
}

/// A Markdown table of the `top` units of each network that lose the most time, on a processor; by default on the first.
///
/// # Errors
/// If the board has no such processor, if a network cannot be compiled or profiled, or the processor's peak cannot be measured.
pub fn layers(board: &mut OpenedBoard, top: usize, processor: Option<&str>) -> Outcome<String> {
    let mut known = board.processors().iter();
    let chosen = known.find(|known| processor.is_none_or(|name| known.name.as_str() == name)).cloned();
    let Some(processor) = chosen else {
        let names: Vec<&str> = board.processors().iter().map(|processor| processor.name.as_str()).collect();
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "failed to find the processor {} on the board {}; it has {}",
                processor.unwrap_or_default(),
                board.loaded.board.name,
                names.join(", ")
            ),
        ));
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
        let roof = match &processor.kind {
            ProcessorKind::Cpu { .. } => Some(measure_roof(board, &processor, weights.max(LEAST_STREAM))?),
            ProcessorKind::Cuda { .. } => None,
        };
        let profiled = measure_units(&mut board.runner, &board.loaded.experiment, network, &processor)?;
        let costs = unit_costs(&network.network, &processor, &profiled)?;
        let stage = network
            .entry(&processor.target)
            .and_then(|entry| entry.stage(0, network.manifest.units.len(), StageLayout::PLAIN));
        let kernels = stage.map(|stage| kernels(network, &stage)).unwrap_or_default();
        found.push(below(network, kernels, roof, costs.unit_costs().as_ns()));
        peaks.extend(roof.map(|roof| roof.multiply_adds));
        progress.step(&format!("{}: {:.2} ms per frame", network.name, costs.frame_ns() / 1e6));
    }
    progress.end(&format!("{} networks on {}", networks.len(), processor.name));
    let peak = peaks.into_iter().reduce(f64::max);
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
        Event::Peaked(peaked) => roof(&peaked, processor.kind.threads())
            .ok_or_else(|| Failure::new(Exit::Bug, format!("failed to {task}: the runner sent no samples"))),
        other => Err(board.runner.unexpected(&task, &other).into()),
    }
}

fn table(
    machine: &MachineState,
    processor: &Processor,
    peak: Option<f64>,
    found: &[Layers],
    top: usize,
) -> String {
    let model = machine.cpu_model.as_deref().unwrap_or("unknown processor");
    let (kernel, name, description) = (&machine.kernel, &processor.name, processor.describe());
    let mut out = match peak {
        Some(peak) => format!(
            "On {model}, kernel {kernel}: {name} = {description}. Measured peak: {:.1} G multiply-adds/s.\n\n\
             The minimum time of a unit is that of its multiply-adds at the peak, or of reading its weights once at the rate \
             measured for a buffer of all weights of the network, whichever is longer. Lost time is the time beyond \
             it. Winograd's algorithm does fewer multiply-adds than direct sums; those that it does are counted. \
             Units that lose the most come first.\n\n",
            peak / 1e9
        ),
        None => format!(
            "On {model}, kernel {kernel}: {name} = {description}. The peak of a GPU is not measured; units that take the most \
             time come first, and the last column is their share of the frame.\n\n"
        ),
    };
    if processor.gpu.as_ref().is_some_and(|gpu| gpu.emulated) {
        out += "The GPU is emulated on CPUs: these are not times of a GPU.\n\n";
    }
    out += "| network | frame ms | share of peak | unit | operators | kernel | ms | G multiply-adds/s | minimum / measured | \
                lost ms | share of frame |\n|---|--:|--:|---|---|---|--:|--:|--:|--:|--:|\n";
    for layers in found {
        for (place, layer) in layers.units.iter().take(top).enumerate() {
            let head = if place == 0 {
                let share = percent(layers.share_of_peak);
                format!("{} | {:.2} | {share}", layers.network, layers.frame_ns / 1e6)
            } else {
                " | | ".to_owned()
            };
            let rate = if layer.ns > 0.0 { layer.multiply_adds as f64 / layer.ns } else { 0.0 };
            let lost = layer.roofline.as_ref().map(BelowRoof::lost_ns);
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "| {head} | {} | {} | {} | {:.3} | {rate:.1} | {} | {} | {} |",
                layer.name,
                layer.operators,
                layer.rule,
                layer.ns / 1e6,
                percent(layer.roofline.as_ref().and_then(BelowRoof::share)),
                lost.map_or_else(|| "–".to_owned(), |lost| format!("{:.3}", lost / 1e6)),
                percent(Some(lost.unwrap_or(layer.ns) / layers.frame_ns)),
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

/// The rule of each unit of a whole network, and the multiply-adds that its kernels do.
fn kernels(network: &CompiledNetwork, stage: &StageManifest) -> Vec<(String, u64)> {
    let units = network.manifest.units.iter().zip(&stage.rules).zip(&stage.multiply_adds);
    units.map(|((unit, rule), fewer)| (rule.clone(), fewer.unwrap_or(unit.macs))).collect()
}

/// `kernels` and `unit_ns` are by unit.
fn below(
    network: &CompiledNetwork,
    kernels: Vec<(String, u64)>,
    roof: Option<Roof>,
    unit_ns: &[f64],
) -> Layers {
    let mut units: Vec<Layer> = network
        .manifest
        .units
        .iter()
        .zip(kernels.into_iter().zip(unit_ns))
        .map(|(unit, ((rule, multiply_adds), ns))| Layer {
            name: unit.name.clone(),
            operators: unit.operators.join(" "),
            rule,
            multiply_adds,
            ns: *ns,
            roofline: roof.map(|roof| roof.place(multiply_adds, unit.parameters * PARAMETER_BYTES, *ns)),
        })
        .collect();
    let loss = |layer: &Layer| layer.roofline.as_ref().map_or(layer.ns, BelowRoof::lost_ns);
    units.sort_by(|one, other| loss(other).total_cmp(&loss(one)));
    let frame_ns = units.iter().map(|layer| layer.ns).sum::<f64>();
    let least_ns: Option<f64> = units.iter().map(|layer| Some(layer.roofline.as_ref()?.least_ns)).sum();
    let share_of_peak = least_ns.and_then(|least_ns| BelowRoof { ns: frame_ns, least_ns }.share());
    Layers { network: network.name.clone(), frame_ns, share_of_peak, units }
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
