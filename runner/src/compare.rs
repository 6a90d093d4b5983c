//! Outputs of two schedules on the same frames.

use crate::crew::Crew;
use crate::engine::{Dtype, Tensor, TensorSpec, WeightsCache, WeightsFile};
use crate::failure::Failure;
use crate::flow::{Flow, Sink};
use crate::frames::{FrameSet, read};
use crate::wiring::Wiring;
use protocol::{Compare, Compared, Kind, OutputDifference, Verify};
use std::sync::{Arc, Mutex, PoisonError};

/// Runs both schedules over all distinct frames and compares. Pipelines run as pipelines, several frames under
/// way at once; each replica runs every frame.
pub(crate) fn compare(request: &Compare, cache: &mut WeightsCache) -> Result<Compared, Failure> {
    let reference = Arc::new(Wiring::new(&request.reference)?);
    let candidate = Arc::new(Wiring::new(&request.candidate)?);
    check_alike(&reference, &candidate)?;
    // One list, so that the cache keeps what both name.
    let mut weights = cache.map(reference.weights().chain(candidate.weights()))?;
    let of_candidate = weights.split_off(reference.stages.len());
    let frames = Arc::new(FrameSet::new(&request.frames, &reference.input_specs())?);
    let right = run(&reference, &weights, &frames)?;
    let judged = run(&candidate, &of_candidate, &frames)?;
    let mut outputs: Vec<_> =
        reference.outputs.iter().map(|index| Difference::new(&reference.values[*index])).collect();
    for (right, judged) in right.iter().cycle().zip(&judged) {
        for ((difference, right), judged) in outputs.iter_mut().zip(right).zip(judged) {
            difference.add(right, judged);
        }
    }
    let frames = u32::try_from(frames.distinct()).unwrap_or(u32::MAX);
    Ok(Compared { id: request.id, frames, outputs: outputs.into_iter().map(Difference::finish).collect() })
}

/// Runs a schedule on a frame from files, and compares what comes out with files: what is right was computed elsewhere.
/// Every replica runs the frame.
pub(crate) fn verify(request: &Verify, cache: &mut WeightsCache) -> Result<Compared, Failure> {
    let wiring = Arc::new(Wiring::new(&request.schedule)?);
    let inputs = wiring.input_specs();
    if (inputs.len(), wiring.outputs.len()) != (request.inputs.len(), request.outputs.len()) {
        return Err(Failure::request("failed to verify: each input and each output needs a file"));
    }
    let frames = Arc::new(FrameSet::read(&request.inputs, &inputs)?);
    let specs = wiring.outputs.iter().map(|index| &wiring.values[*index]);
    let right: Vec<Tensor> =
        specs.clone().zip(&request.outputs).map(|(spec, path)| read(spec, path)).collect::<Result<_, _>>()?;
    let mut outputs: Vec<_> = specs.map(Difference::new).collect();
    let weights = cache.map(wiring.weights())?;
    for judged in run(&wiring, &weights, &frames)? {
        for ((difference, right), judged) in outputs.iter_mut().zip(&right).zip(&judged) {
            difference.add(right, judged);
        }
    }
    Ok(Compared { id: request.id, frames: 1, outputs: outputs.into_iter().map(Difference::finish).collect() })
}

fn check_alike(reference: &Wiring, candidate: &Wiring) -> Result<(), Failure> {
    let sides = |wiring: &Wiring, list: &[usize]| -> Vec<TensorSpec> {
        list.iter().map(|index| wiring.values[*index].clone()).collect()
    };
    let same = sides(reference, &reference.inputs) == sides(candidate, &candidate.inputs)
        && sides(reference, &reference.outputs) == sides(candidate, &candidate.outputs);
    if same {
        return Ok(());
    }
    Err(Failure::request(
        "failed to compare: the schedules take or give different tensors; they are not of one network",
    ))
}

/// Outputs of every distinct frame in order; for replicas, all frames of one after all of another.
fn run(
    wiring: &Arc<Wiring>,
    weights: &[Option<Arc<WeightsFile>>],
    frames: &Arc<FrameSet>,
) -> Result<Vec<Vec<Tensor>>, Failure> {
    let crew = Crew::start(wiring, weights)?;
    let first = crew.check(frames, 0)?;
    if wiring.kind != Kind::Replicate {
        let sink = Sink::Collect { outputs: wiring.outputs.clone(), kept: Mutex::default() };
        let flow = Arc::new(Flow::new(wiring, Arc::clone(frames), 2, sink));
        crew.run(&flow, || ())?;
        let Sink::Collect { kept, .. } = flow.finish()? else {
            return Err(Failure::internal("failed to compare: the outputs were not kept"));
        };
        return Ok(kept.into_inner().unwrap_or_else(PoisonError::into_inner));
    }
    let mut of_replicas = vec![Vec::new(); first.len()];
    for frame in 0..frames.distinct() as u64 {
        for (packet, outputs) in crew.check(frames, frame)?.into_iter().zip(&mut of_replicas) {
            outputs.push(wiring.outputs.iter().filter_map(|index| packet.values[*index].clone()).collect());
        }
    }
    Ok(of_replicas.concat())
}

/// How far an output lies from the reference.
struct Difference {
    dtype: Dtype,
    found: OutputDifference,
}

impl Difference {
    fn new(spec: &TensorSpec) -> Self {
        let found = OutputDifference {
            name: spec.name.clone(),
            elements: 0,
            non_finite: 0,
            max_abs: 0.0,
            max_reference: 0.0,
            identical: true,
        };
        Self { dtype: spec.dtype, found }
    }

    fn add(&mut self, right: &Tensor, judged: &Tensor) {
        self.add_bytes(right.bytes(), judged.bytes());
    }

    fn add_bytes(&mut self, right: &[u8], judged: &[u8]) {
        let (size, found) = (self.dtype.size(), &mut self.found);
        found.identical &= right == judged;
        for (right, judged) in right.chunks_exact(size).zip(judged.chunks_exact(size)) {
            let (right, judged) = (number(self.dtype, right), number(self.dtype, judged));
            found.elements += 1;
            if right.is_finite() && judged.is_finite() {
                found.max_abs = found.max_abs.max((right - judged).abs());
                found.max_reference = found.max_reference.max(right.abs());
            } else if right.to_bits() != judged.to_bits() && !(right.is_nan() && judged.is_nan()) {
                found.non_finite += 1;
            }
        }
    }

    fn finish(self) -> OutputDifference {
        self.found
    }
}

/// An element in the machine's byte order. Integers beyond 2^53 are rounded.
fn number(dtype: Dtype, bytes: &[u8]) -> f64 {
    match dtype {
        Dtype::Float32 => f64::from(f32::from_ne_bytes(word(bytes))),
        Dtype::Float64 => f64::from_ne_bytes(word(bytes)),
        Dtype::Signed(1) => f64::from(i8::from_ne_bytes(word(bytes))),
        Dtype::Signed(2) => f64::from(i16::from_ne_bytes(word(bytes))),
        Dtype::Signed(4) => f64::from(i32::from_ne_bytes(word(bytes))),
        Dtype::Signed(_) => i64::from_ne_bytes(word(bytes)) as f64,
        Dtype::Unsigned(1) | Dtype::Bool => f64::from(u8::from_ne_bytes(word(bytes))),
        Dtype::Unsigned(2) => f64::from(u16::from_ne_bytes(word(bytes))),
        Dtype::Unsigned(4) => f64::from(u32::from_ne_bytes(word(bytes))),
        Dtype::Unsigned(_) => u64::from_ne_bytes(word(bytes)) as f64,
    }
}

fn word<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut word = [0; N];
    word.copy_from_slice(bytes);
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(dtype: &str, right: &[u8], judged: &[u8]) -> OutputDifference {
        let tensor = protocol::Tensor { name: "y".into(), shape: vec![1], dtype: dtype.into() };
        let mut difference = Difference::new(&TensorSpec::new(&tensor).unwrap());
        difference.add_bytes(right, judged);
        difference.finish()
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_ne_bytes()).collect()
    }

    #[test]
    fn the_greatest_difference_is_found_and_what_is_not_finite_is_counted_apart() {
        let right = floats(&[1.0, -8.0, f32::NAN, 3.0]);
        let judged = floats(&[1.5, -8.0, 1.0, f32::INFINITY]);
        let found = difference("float32", &right, &judged);
        assert_eq!((found.elements, found.non_finite, found.identical), (4, 2, false));
        assert_eq!(
            (found.max_abs.to_bits(), found.max_reference.to_bits()),
            (0.5_f64.to_bits(), 8_f64.to_bits())
        );
    }

    #[test]
    fn identical_means_every_bit() {
        assert!(difference("float32", &floats(&[f32::NAN]), &floats(&[f32::NAN])).identical);
        assert!(!difference("float32", &floats(&[0.0]), &floats(&[-0.0])).identical);
    }

    #[test]
    fn integers_are_compared_by_value() {
        let words =
            |values: &[i64]| -> Vec<u8> { values.iter().flat_map(|value| value.to_ne_bytes()).collect() };
        let found = difference("int64", &words(&[-5, 9]), &words(&[-5, 2]));
        assert_eq!((found.elements, found.max_abs.to_bits()), (2, 7_f64.to_bits()));
        assert_eq!(difference("uint8", &[250], &[3]).max_abs.to_bits(), 247_f64.to_bits());
    }
}
