//! Input frames, and frames in flight.

use crate::arrivals::Arrival;
use crate::engine::Tensor;
use crate::failure::Failure;
use crate::memory;
use crate::schedule::TensorSpec;
use protocol::Dtype;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

/// Input frames in memory. Frame numbers beyond the last one start over at the first.
#[derive(Debug)]
pub(crate) struct FrameSet {
    frames: Vec<Vec<Tensor>>,
}

impl FrameSet {
    /// Generates or reads the frames of a request. Frame `f` has the seed `seed + f`; each input of a frame has a stream of its own.
    pub(crate) fn generate(rule: &protocol::Frames, inputs: &[&TensorSpec]) -> Result<Self, Failure> {
        let fail = |why: String| Failure::request(format!("failed to generate frames: {why}"));
        if rule.distinct == 0 {
            return Err(fail("distinct must be at least 1".to_owned()));
        }
        if !(1..=256).contains(&rule.integers_below) {
            return Err(fail("integers_below must be from 1 to 256".to_owned()));
        }
        let bytes: u64 = inputs.iter().map(|spec| spec.bytes as u64).sum();
        memory::check_available(bytes.saturating_mul(u64::from(rule.distinct)))
            .map_err(|why| fail(format!("{why}; reduce frames.distinct, which is {}", rule.distinct)))?;
        if let Some(file) = &rule.file {
            return Self::read_file(file, rule.distinct, inputs);
        }
        let frame = |number: u64| -> Result<Vec<Tensor>, Failure> {
            let tensor = |(stream, spec): (u64, &&TensorSpec)| {
                let mut random = generator(rule.seed.wrapping_add(number), stream);
                Tensor::filled(spec, |bytes| fill(bytes, spec.dtype, rule.integers_below, &mut random))
            };
            (0..).zip(inputs).map(tensor).collect()
        };
        Ok(Self { frames: (0..u64::from(rule.distinct)).map(frame).collect::<Result<_, _>>()? })
    }

    /// Reads the first frames of those that a file has one after another.
    fn read_file(file: &protocol::FrameFile, distinct: u32, inputs: &[&TensorSpec]) -> Result<Self, Failure> {
        let fail = |why: String| Failure::request(format!("failed to read frames from {}: {why}", file.path));
        let content = std::fs::read(&file.path).map_err(|error| fail(error.to_string()))?;
        let bytes: usize = inputs.iter().map(|spec| spec.bytes).sum();
        let expected = bytes as u64 * u64::from(distinct);
        let found = (content.len() as u64).saturating_sub(file.offset);
        if found < expected {
            return Err(fail(format!("it has {found} bytes of frames, expected at least {expected}")));
        }
        let mut rest = content.get(usize::try_from(file.offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let mut frames = Vec::new();
        for _ in 0..distinct {
            let mut frame = Vec::new();
            for spec in inputs {
                let (own, others) = rest.split_at(spec.bytes);
                rest = others;
                frame.push(Tensor::filled(spec, |bytes| bytes.copy_from_slice(own))?);
            }
            frames.push(frame);
        }
        Ok(Self { frames })
    }

    /// Reads one frame from files, one for each input.
    pub(crate) fn read(paths: &[String], inputs: &[&TensorSpec]) -> Result<Self, Failure> {
        let frame = inputs.iter().zip(paths).map(|(spec, path)| read_tensor(spec, path));
        Ok(Self { frames: vec![frame.collect::<Result<_, _>>()?] })
    }

    /// Number of distinct frames.
    pub(crate) fn distinct(&self) -> usize {
        self.frames.len()
    }

    /// The inputs of a frame, in the schedule's order.
    #[inline]
    pub(crate) fn frame(&self, number: u64) -> &[Tensor] {
        let place = number % self.frames.len() as u64;
        &self.frames[usize::try_from(place).unwrap_or(0)]
    }
}

/// Reads a tensor from a file that contains its elements and nothing else.
pub(crate) fn read_tensor(spec: &TensorSpec, path: &str) -> Result<Tensor, Failure> {
    let fail =
        |why: String| Failure::request(format!("failed to read {path} for tensor {}: {why}", spec.name));
    let content = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    if content.len() != spec.bytes {
        return Err(fail(format!("it has {} bytes, expected {}", content.len(), spec.bytes)));
    }
    Tensor::filled(spec, |bytes| bytes.copy_from_slice(&content))
}

fn fill(bytes: &mut [u8], dtype: Dtype, integers_below: u32, random: &mut Xoshiro256PlusPlus) {
    for element in bytes.chunks_exact_mut(dtype.bytes()) {
        let bits = random.next_u64();
        match dtype {
            Dtype::Float32 => element.copy_from_slice(&unit_f32(bits).to_ne_bytes()),
            Dtype::Float64 => element.copy_from_slice(&unit_f64(bits).to_ne_bytes()),
            _ => {
                let range = if dtype == Dtype::Bool { 2 } else { u64::from(integers_below) };
                let small = (bits >> 32) % range;
                // The least significant byte; the others stay 0.
                let last = element.len() - 1;
                let place = if cfg!(target_endian = "little") { 0 } else { last };
                element[place] = u8::try_from(small).unwrap_or(0);
            }
        }
    }
}

/// Uniform in [−1, 1), a multiple of 2^−23.
fn unit_f32(bits: u64) -> f32 {
    (bits >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
}

/// Uniform in [−1, 1), a multiple of 2^−52.
fn unit_f64(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

fn generator(seed: u64, stream: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(mix(seed) ^ mix(!stream))
}

/// The output function of `SplitMix64`.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A frame in flight: its tensors and times. Slots are allocated once and reused for frame after frame.
#[derive(Debug, Clone)]
pub(crate) struct FrameSlot {
    /// Number of the frame, in the order of admission.
    pub(crate) frame: u64,
    /// Its number in the stage that it is in, if that has replicas.
    pub(crate) turn: u64,
    /// When the frame entered its first stage.
    pub(crate) entered_ns: u64,
    /// How it arrived; absent without a stream.
    pub(crate) arrival: Option<Arrival>,
    /// By the schedule's indices; present from production to last use.
    pub(crate) values: Vec<Option<Tensor>>,
    /// Start and end in each stage; (0, 0) for a stage that did not run it.
    pub(crate) spans: Vec<(u64, u64)>,
}

impl FrameSlot {
    pub(crate) fn new(values: usize, stages: usize) -> Self {
        Self {
            frame: 0,
            turn: 0,
            entered_ns: 0,
            arrival: None,
            values: vec![None; values],
            spans: vec![(0, 0); stages],
        }
    }

    pub(crate) fn set_inputs(&mut self, frame: u64, inputs: &[usize], tensors: &[Tensor]) {
        self.frame = frame;
        self.spans.fill((0, 0));
        for (index, tensor) in inputs.iter().zip(tensors) {
            self.values[*index] = Some(tensor.clone());
        }
    }

    pub(crate) fn release(&mut self, values: &[usize]) {
        for index in values {
            self.values[*index] = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dtype: Dtype, extent: i64) -> TensorSpec {
        TensorSpec::new(&protocol::Tensor { name: "x".into(), shape: vec![extent], dtype }).unwrap()
    }

    fn floats(tensor: &Tensor) -> Vec<f32> {
        tensor.bytes().chunks_exact(4).map(|bytes| f32::from_ne_bytes(bytes.try_into().unwrap())).collect()
    }

    #[test]
    fn floats_are_uniform() {
        let spec = spec(Dtype::Float32, 40_000);
        let set = FrameSet::generate(
            &protocol::Frames { seed: 1, distinct: 1, integers_below: 8, file: None },
            &[&spec],
        )
        .unwrap();
        let values = floats(&set.frame(0)[0]);
        assert!(values.iter().all(|value| (-1.0..1.0).contains(value)));
        let mean = values.iter().sum::<f32>() / 40_000.0;
        let variance = values.iter().map(|value| value * value).sum::<f32>() / 40_000.0;
        assert!(mean.abs() < 0.02 && (variance - 1.0 / 3.0).abs() < 0.01, "{mean} {variance}");
    }

    #[test]
    fn frames_are_determined_by_their_seed() {
        let spec = spec(Dtype::Float32, 8);
        let make = |seed| {
            FrameSet::generate(
                &protocol::Frames { seed, distinct: 3, integers_below: 8, file: None },
                &[&spec, &spec],
            )
            .unwrap()
        };
        let (set, again, other) = (make(7), make(7), make(8));
        assert_eq!(set.frame(0)[0].bytes(), again.frame(0)[0].bytes());
        assert_ne!(set.frame(0)[0].bytes(), set.frame(0)[1].bytes());
        assert_ne!(set.frame(0)[0].bytes(), set.frame(1)[0].bytes());
        assert_eq!(set.frame(1)[0].bytes(), other.frame(0)[0].bytes());
        assert_eq!(set.frame(4)[1].bytes(), set.frame(1)[1].bytes());
    }

    #[test]
    fn elements_have_known_values() {
        let spec = spec(Dtype::Float32, 4);
        let rule = protocol::Frames { seed: 7, distinct: 2, integers_below: 8, file: None };
        let set = FrameSet::generate(&rule, &[&spec, &spec]).unwrap();
        // Computed by an independent implementation of xoshiro256++ and `SplitMix64`.
        assert_eq!(floats(&set.frame(0)[0]), [-0.258_866_43, -0.317_562_46, 0.351_479_17, 0.735_339_05]);
        assert_eq!(floats(&set.frame(0)[1]), [-0.229_843_97, -0.540_957_33, 0.992_939, 0.655_787]);
        assert_eq!(floats(&set.frame(1)[0]), [0.297_869_44, 0.183_879_38, 0.500_942_23, 0.501_390_8]);
    }

    #[test]
    fn frames_of_a_file_are_fed_in_its_order() {
        let spec = spec(Dtype::Uint8, 3);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"head123456789abc").unwrap();
        let path = file.path().display().to_string();
        let rule = |distinct, offset| protocol::Frames {
            seed: 1,
            distinct,
            integers_below: 8,
            file: Some(protocol::FrameFile { path: path.clone(), offset }),
        };
        let set = FrameSet::generate(&rule(2, 4), &[&spec, &spec]).unwrap();
        let bytes = |frame: u64, input: usize| set.frame(frame)[input].bytes().to_vec();
        assert_eq!([bytes(0, 0), bytes(0, 1), bytes(1, 1), bytes(2, 0)], [b"123", b"456", b"abc", b"123"]);
        let first = FrameSet::generate(&rule(1, 4), &[&spec, &spec]).unwrap();
        assert_eq!((first.distinct(), first.frame(1)[1].bytes()), (1, &b"456"[..]));
        for (distinct, offset) in [(2, 5), (3, 4), (2, 400), (1, u64::MAX)] {
            let failure = FrameSet::generate(&rule(distinct, offset), &[&spec, &spec]).unwrap_err();
            assert!(failure.message.contains("bytes of frames, expected at least"), "{failure}");
        }
    }

    #[test]
    fn integers_are_small() {
        let spec = spec(Dtype::Int64, 1000);
        let set = FrameSet::generate(
            &protocol::Frames { seed: 1, distinct: 1, integers_below: 8, file: None },
            &[&spec],
        )
        .unwrap();
        let tensor = &set.frame(0)[0];
        let mut seen = [0; 8];
        for bytes in tensor.bytes().chunks_exact(8) {
            seen[usize::try_from(i64::from_ne_bytes(bytes.try_into().unwrap())).unwrap()] += 1;
        }
        assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
    }

    #[test]
    fn no_frames_and_too_many_frames_are_rejected() {
        let spec = spec(Dtype::Float32, 1 << 40);
        for distinct in [0, 3] {
            let failure = FrameSet::generate(
                &protocol::Frames { seed: 1, distinct, integers_below: 8, file: None },
                &[&spec],
            )
            .unwrap_err();
            assert_eq!(failure.fault, protocol::Fault::Request);
        }
    }
}
