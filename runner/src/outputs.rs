//! Outputs of schedules: compared with each other, compared with files, or written to files.

use crate::engine::{Tensor, WeightsCache, WeightsFile};
use crate::failure::Failure;
use crate::frames::{FrameSet, read_tensor};
use crate::pipeline::{Pipeline, Sink};
use crate::schedule::{CheckedSchedule, TensorSpec};
use crate::stage_threads::StageThreads;
use protocol::{Capture, Captured, Compare, Compared, Dtype, ExecutionMode, OutputDifference, Verify};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Runs two schedules on all distinct frames and compares their outputs. Pipelines run with several frames in flight; each
/// replica runs every frame too.
pub(crate) fn compare(request: &Compare, cache: &mut WeightsCache) -> Result<Compared, Failure> {
    let reference = Arc::new(CheckedSchedule::new(&request.reference)?);
    let candidate = Arc::new(CheckedSchedule::new(&request.candidate)?);
    check_comparable(&reference, &candidate)?;
    // One call, so that the cache keeps the files of both.
    let mut weights = cache.map(reference.weights().chain(candidate.weights()))?;
    let candidate_weights = weights.split_off(reference.stages.len());
    let frames = Arc::new(FrameSet::generate(&request.frames, &reference.input_specs())?);
    let expected = run(&reference, &weights, &frames)?;
    let actual = run(&candidate, &candidate_weights, &frames)?;
    let mut outputs: Vec<_> =
        reference.outputs.iter().map(|index| Difference::new(&reference.values[*index])).collect();
    for (expected, actual) in expected.iter().cycle().zip(&actual) {
        for ((difference, expected), actual) in outputs.iter_mut().zip(expected).zip(actual) {
            difference.add(expected.bytes(), actual.bytes());
        }
    }
    let frames = u32::try_from(frames.distinct()).unwrap_or(u32::MAX);
    Ok(Compared { id: request.id, frames, outputs: outputs.into_iter().map(|output| output.found).collect() })
}

/// Runs a schedule on a frame from files and compares its outputs with files. Every replica runs the frame.
pub(crate) fn verify(request: &Verify, cache: &mut WeightsCache) -> Result<Compared, Failure> {
    let schedule = Arc::new(CheckedSchedule::new(&request.schedule)?);
    let inputs = schedule.input_specs();
    let (needed, given) =
        ((inputs.len(), schedule.outputs.len()), (request.inputs.len(), request.outputs.len()));
    if needed != given {
        return Err(Failure::request(format!(
            "failed to verify: the numbers of inputs and outputs are {} and {}, but the request has files for {} and {}",
            needed.0, needed.1, given.0, given.1
        )));
    }
    let frames = Arc::new(FrameSet::read(&request.inputs, &inputs)?);
    let specs = schedule.outputs.iter().map(|index| &schedule.values[*index]);
    let expected: Vec<Tensor> = specs
        .clone()
        .zip(&request.outputs)
        .map(|(spec, path)| read_tensor(spec, path))
        .collect::<Result<_, _>>()?;
    let mut outputs: Vec<_> = specs.map(Difference::new).collect();
    let weights = cache.map(schedule.weights())?;
    for actual in run(&schedule, &weights, &frames)? {
        for ((difference, expected), actual) in outputs.iter_mut().zip(&expected).zip(&actual) {
            difference.add(expected.bytes(), actual.bytes());
        }
    }
    Ok(Compared {
        id: request.id,
        frames: 1,
        outputs: outputs.into_iter().map(|output| output.found).collect(),
    })
}

/// Runs every distinct frame through one stage after another, and writes inputs and outputs to files. Of replicas, the last
/// one's outputs are written.
pub(crate) fn capture(request: &Capture, cache: &mut WeightsCache) -> Result<Captured, Failure> {
    let schedule = Arc::new(CheckedSchedule::new(&request.schedule)?);
    let weights = cache.map(schedule.weights())?;
    let frames = FrameSet::generate(&request.frames, &schedule.input_specs())?;
    let threads = StageThreads::start(&schedule, &weights)?;
    let write = |frame: u64, port: String, tensor: &Tensor| {
        let path = Path::new(&request.folder).join(format!("{frame}-{port}.bin"));
        std::fs::write(&path, tensor.bytes()).map_err(|error| {
            Failure::request(format!(
                "failed to write {}: {error}; name an existing folder with enough space",
                path.display()
            ))
        })
    };
    for frame in 0..frames.distinct() as u64 {
        let values = threads.run_frame(&frames, frame)?;
        for (place, tensor) in frames.frame(frame).iter().enumerate() {
            write(frame, format!("input{place}"), tensor)?;
        }
        let outputs = values.last().map(|values| output_tensors(&schedule, values)).unwrap_or_default();
        for (place, tensor) in outputs.iter().enumerate() {
            write(frame, format!("output{place}"), tensor)?;
        }
    }
    Ok(Captured { id: request.id, frames: request.frames.distinct })
}

/// The network's outputs among the values of a frame. The schedule was checked: a stage produces each of them.
fn output_tensors(schedule: &CheckedSchedule, values: &[Option<Tensor>]) -> Vec<Tensor> {
    schedule.outputs.iter().filter_map(|index| values[*index].clone()).collect()
}

fn check_comparable(reference: &CheckedSchedule, candidate: &CheckedSchedule) -> Result<(), Failure> {
    let specs = |schedule: &CheckedSchedule, list: &[usize]| -> Vec<TensorSpec> {
        list.iter().map(|index| schedule.values[*index].clone()).collect()
    };
    let same = specs(reference, &reference.inputs) == specs(candidate, &candidate.inputs)
        && specs(reference, &reference.outputs) == specs(candidate, &candidate.outputs);
    if same {
        return Ok(());
    }
    Err(Failure::request(
        "failed to compare: the inputs or outputs of the two schedules differ, so they run different networks",
    ))
}

/// Outputs of every distinct frame, in order: of a pipeline with several frames in flight, and of each replica.
fn run(
    schedule: &Arc<CheckedSchedule>,
    weights: &[Option<Arc<WeightsFile>>],
    frames: &Arc<FrameSet>,
) -> Result<Vec<Vec<Tensor>>, Failure> {
    let threads = StageThreads::start(schedule, weights)?;
    let first = threads.run_frame(frames, 0)?;
    let mut outputs = Vec::new();
    if schedule.kind != ExecutionMode::Replicate {
        let sink = Sink::Collect { outputs: schedule.outputs.clone(), collected: Mutex::default() };
        let pipeline = Arc::new(Pipeline::new(schedule, Arc::clone(frames), 2, sink));
        threads.execute(&pipeline, || ())?;
        let Sink::Collect { collected, .. } = pipeline.finish()? else {
            return Err(Failure::internal("failed to compare: the outputs were not collected"));
        };
        outputs = collected.into_inner().unwrap_or_else(PoisonError::into_inner);
        if first.len() == 1 {
            return Ok(outputs);
        }
    }
    let mut replicas = vec![Vec::new(); first.len()];
    for frame in 0..frames.distinct() as u64 {
        for (outputs, values) in replicas.iter_mut().zip(threads.run_frame(frames, frame)?) {
            outputs.push(output_tensors(schedule, &values));
        }
    }
    outputs.extend(replicas.concat());
    Ok(outputs)
}

/// The difference between an output and its reference, over all frames and elements so far.
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

    fn add(&mut self, expected: &[u8], actual: &[u8]) {
        let (size, found) = (self.dtype.bytes(), &mut self.found);
        found.identical &= expected == actual;
        for (expected, actual) in expected.chunks_exact(size).zip(actual.chunks_exact(size)) {
            let (expected, actual) = (number(self.dtype, expected), number(self.dtype, actual));
            found.elements += 1;
            if expected.is_finite() && actual.is_finite() {
                found.max_abs = found.max_abs.max((expected - actual).abs());
                found.max_reference = found.max_reference.max(expected.abs());
            } else if expected.to_bits() != actual.to_bits() && !(expected.is_nan() && actual.is_nan()) {
                found.non_finite += 1;
            }
        }
    }
}

/// An element in native byte order. Integers beyond 2^53 are rounded.
fn number(dtype: Dtype, bytes: &[u8]) -> f64 {
    match dtype {
        Dtype::Float32 => f64::from(f32::from_ne_bytes(word(bytes))),
        Dtype::Float64 => f64::from_ne_bytes(word(bytes)),
        Dtype::Int8 => f64::from(i8::from_ne_bytes(word(bytes))),
        Dtype::Int16 => f64::from(i16::from_ne_bytes(word(bytes))),
        Dtype::Int32 => f64::from(i32::from_ne_bytes(word(bytes))),
        Dtype::Int64 => i64::from_ne_bytes(word(bytes)) as f64,
        Dtype::Uint8 | Dtype::Bool => f64::from(u8::from_ne_bytes(word(bytes))),
        Dtype::Uint16 => f64::from(u16::from_ne_bytes(word(bytes))),
        Dtype::Uint32 => f64::from(u32::from_ne_bytes(word(bytes))),
        Dtype::Uint64 => u64::from_ne_bytes(word(bytes)) as f64,
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

    fn difference(dtype: Dtype, expected: &[u8], actual: &[u8]) -> OutputDifference {
        let tensor = protocol::Tensor { name: "y".into(), shape: vec![1], dtype };
        let mut difference = Difference::new(&TensorSpec::new(&tensor).unwrap());
        difference.add(expected, actual);
        difference.found
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_ne_bytes()).collect()
    }

    #[test]
    fn the_largest_finite_difference_is_found() {
        let expected = floats(&[1.0, -8.0, f32::NAN, 3.0]);
        let actual = floats(&[1.5, -8.0, 1.0, f32::INFINITY]);
        let found = difference(Dtype::Float32, &expected, &actual);
        assert_eq!((found.elements, found.non_finite, found.identical), (4, 2, false));
        assert_eq!(
            (found.max_abs.to_bits(), found.max_reference.to_bits()),
            (0.5_f64.to_bits(), 8_f64.to_bits())
        );
    }

    #[test]
    fn identical_means_that_every_bit_is_equal() {
        assert!(difference(Dtype::Float32, &floats(&[f32::NAN]), &floats(&[f32::NAN])).identical);
        assert!(!difference(Dtype::Float32, &floats(&[0.0]), &floats(&[-0.0])).identical);
    }

    #[test]
    fn integers_are_compared_by_value() {
        let words =
            |values: &[i64]| -> Vec<u8> { values.iter().flat_map(|value| value.to_ne_bytes()).collect() };
        let found = difference(Dtype::Int64, &words(&[-5, 9]), &words(&[-5, 2]));
        assert_eq!((found.elements, found.max_abs.to_bits()), (2, 7_f64.to_bits()));
        assert_eq!(difference(Dtype::Uint8, &[250], &[3]).max_abs.to_bits(), 247_f64.to_bits());
    }
}
