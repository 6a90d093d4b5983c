//! Which units of each network lose most time against what the processor can do.

use super::Campaign;
use super::prepare::{self, LOADING, Prepared};
use crate::processors::Processor;
use domain::{BelowRoof, Roof};
use host::exit::{Exit, Failure, Outcome};
use host::progress::Progress;
use protocol::{Event, Peaked, Request};
use std::fmt::Write as _;

/// Samples of multiply-adds and of readings.
const ROUNDS: u32 = 30;
/// Bytes of a parameter.
const PARAMETER_BYTES: u64 = 4;
/// Weights are read from a buffer of at least this size, which lies in no innermost cache.
const LEAST_STREAM: u64 = 1 << 20;

/// A network with each unit's place below the roof.
struct Layers {
    network: String,
    frame_ns: f64,
    whole: BelowRoof,
    /// Name, operators, and place; those that lose most first.
    units: Vec<(String, String, BelowRoof)>,
}

impl Campaign {
    /// A Markdown table of the `top` units of each network that lose most time, on the first processor.
    ///
    /// # Errors
    /// Where a network cannot be compiled or profiled, or the processor's peak cannot be measured.
    pub fn layers(&mut self, top: usize) -> Outcome<String> {
        let processors = self.processors.clone();
        let Some(processor) = processors.first() else {
            return Err(Failure::new(Exit::Bug, "a board without processors was opened"));
        };
        let prepared =
            self.workshop.whole_networks(&self.loaded.experiment, std::slice::from_ref(processor))?;
        let progress = Progress::begin("layers", prepared.len());
        let mut found = Vec::new();
        let mut peaks = Vec::new();
        for network in &prepared {
            self.verify(network, std::slice::from_ref(processor), &progress)?;
            progress.doing(&format!("{} on {}", network.name, processor.name));
            let weights = network.network.parameters() * PARAMETER_BYTES;
            let roof = self.roof(processor, weights.max(LEAST_STREAM))?;
            let raw = prepare::profile(&mut self.link, &self.loaded.experiment, network, processor)?;
            let costs = prepare::unit_costs(&network.network, processor, &raw)?;
            found.push(below(network, roof, costs.unit_costs().as_ns()));
            peaks.push(roof.multiply_adds);
            progress.step(&format!("{}: {:.2} ms a frame", network.name, costs.frame_ns() / 1e6));
        }
        progress.end(&format!("{} networks on {}", prepared.len(), processor.name));
        let peak = peaks.into_iter().fold(0.0, f64::max);
        Ok(self.written(processor, peak, &found, top))
    }

    /// What the processor can do at most: the best samples, times its threads.
    fn roof(&mut self, processor: &Processor, stream: u64) -> Outcome<Roof> {
        let during = format!("measure the peak of {}", processor.name);
        let answer = self.link.request(&during, LOADING, |id| {
            let processor = processor.on_the_wire();
            Request::Peak(protocol::Peak { id, processor, rounds: ROUNDS, streams: vec![stream] })
        });
        match answer? {
            Event::Peaked(peaked) => roof(&peaked, processor.threads).ok_or_else(|| {
                Failure::new(Exit::Bug, format!("failed to {during}: the runner sent no samples"))
            }),
            other => Err(self.link.unexpected(&during, &other).into()),
        }
    }

    fn written(&self, processor: &Processor, peak: f64, found: &[Layers], top: usize) -> String {
        let model = self.machine.cpu_model.as_deref().unwrap_or("unknown processor");
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "On {model}, kernel {}: {} = CPU {:?}, {} thread(s), {}. Peak measured beside: {:.1} G multiply-adds/s.\n\n\
             Least time of a unit: its multiply-adds at that peak, or reading its weights once from memory at the rate \
             measured for a buffer of all weights of the network, whichever is longer. Lost: time beyond the least. \
             Units that lose most stand first.\n",
            self.machine.kernel,
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

fn below(prepared: &Prepared, roof: Roof, unit_ns: &[f64]) -> Layers {
    let mut units: Vec<(String, String, BelowRoof)> = prepared
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
    let rate = if frame_ns > 0.0 { 1e9 * prepared.manifest.macs as f64 / frame_ns } else { 0.0 };
    let whole = BelowRoof { ns: frame_ns, least_ns: sum(|unit| unit.least_ns), multiply_adds: rate };
    Layers { network: prepared.name.clone(), frame_ns, whole, units }
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
