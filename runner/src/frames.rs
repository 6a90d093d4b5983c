//! Seeded input frames.

use crate::engine::{Dtype, Tensor, TensorSpec};
use crate::failure::Failure;
use crate::meters;

/// Frames kept in memory, dealt out in turn and never copied.
#[derive(Debug)]
pub(crate) struct FrameSet {
    frames: Vec<Vec<Tensor>>,
}

impl FrameSet {
    /// Makes the frames a request asks for. Frame `f` has the seed `seed + f`; every input of a frame its own
    /// stream.
    pub(crate) fn new(rule: &protocol::Frames, inputs: &[&TensorSpec]) -> Result<Self, Failure> {
        if rule.distinct == 0 {
            return Err(Failure::request("failed to make frames: distinct must be at least 1"));
        }
        if !(1..=256).contains(&rule.integers_below) {
            return Err(Failure::request("failed to make frames: integers_below must be from 1 to 256"));
        }
        let bytes: u64 = inputs.iter().map(|spec| spec.bytes() as u64).sum();
        let needed = bytes.saturating_mul(u64::from(rule.distinct));
        if let Some(available) = meters::memory_available_bytes().filter(|available| needed > *available) {
            return Err(Failure::request(format!(
                "failed to make frames: {} of them take {needed} bytes, {available} are free; ask for fewer (frames.distinct){}",
                rule.distinct,
                meters::memory_limit_words()
            )));
        }
        let frame = |number: u64| -> Result<Vec<Tensor>, Failure> {
            let make = |(stream, spec): (u64, &&TensorSpec)| {
                let mut random = Random::new(rule.seed.wrapping_add(number), stream);
                Tensor::filled(spec, |bytes| fill(bytes, spec.dtype, rule.integers_below, &mut random))
            };
            (0..).zip(inputs).map(make).collect()
        };
        Ok(Self { frames: (0..u64::from(rule.distinct)).map(frame).collect::<Result<_, _>>()? })
    }

    /// One frame from files, one for each input, which hold its elements and nothing else.
    pub(crate) fn read(paths: &[String], inputs: &[&TensorSpec]) -> Result<Self, Failure> {
        let frame = inputs.iter().zip(paths).map(|(spec, path)| read(spec, path));
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

/// A tensor from a file with its elements.
pub(crate) fn read(spec: &TensorSpec, path: &str) -> Result<Tensor, Failure> {
    let content = std::fs::read(path)
        .map_err(|error| Failure::request(format!("failed to read {path} for {}: {error}", spec.name)))?;
    if content.len() != spec.bytes() {
        return Err(Failure::request(format!(
            "failed to read {path} for {}: it has {} bytes, {} are expected",
            spec.name,
            content.len(),
            spec.bytes()
        )));
    }
    Tensor::filled(spec, |bytes| bytes.copy_from_slice(&content))
}

fn fill(bytes: &mut [u8], dtype: Dtype, integers_below: u32, random: &mut Random) {
    for element in bytes.chunks_exact_mut(dtype.size()) {
        let bits = random.next();
        match dtype {
            Dtype::Float32 => element.copy_from_slice(&unit_f32(bits).to_ne_bytes()),
            Dtype::Float64 => element.copy_from_slice(&unit_f64(bits).to_ne_bytes()),
            // The lowest byte of a small integer in the machine's order; the others stay 0.
            Dtype::Signed(_) | Dtype::Unsigned(_) | Dtype::Bool => {
                let range = if dtype == Dtype::Bool { 2 } else { u64::from(integers_below) };
                let small = (bits >> 32) % range;
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

/// xoshiro256++ (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021), its state filled
/// by `SplitMix64` as its authors advise.
#[derive(Debug, Clone)]
struct Random {
    state: [u64; 4],
}

impl Random {
    fn new(seed: u64, stream: u64) -> Self {
        let mut split = mix(seed) ^ mix(!stream);
        let mut word = || {
            split = split.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(split)
        };
        Self { state: [word(), word(), word(), word()] }
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }
}

/// The output function of `SplitMix64`.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dtype: &str, extent: i64) -> TensorSpec {
        TensorSpec::new(&protocol::Tensor { name: "x".into(), shape: vec![extent], dtype: dtype.into() })
            .unwrap()
    }

    fn floats(tensor: &Tensor) -> Vec<f32> {
        tensor.bytes().chunks_exact(4).map(|bytes| f32::from_ne_bytes(bytes.try_into().unwrap())).collect()
    }

    #[test]
    fn floats_fill_their_interval_evenly() {
        let spec = spec("float32", 40_000);
        let set =
            FrameSet::new(&protocol::Frames { seed: 1, distinct: 1, integers_below: 8 }, &[&spec]).unwrap();
        let values = floats(&set.frame(0)[0]);
        assert!(values.iter().all(|value| (-1.0..1.0).contains(value)));
        let mean = values.iter().sum::<f32>() / 40_000.0;
        let variance = values.iter().map(|value| value * value).sum::<f32>() / 40_000.0;
        assert!(mean.abs() < 0.02 && (variance - 1.0 / 3.0).abs() < 0.01, "{mean} {variance}");
    }

    #[test]
    fn same_seed_same_frames_else_different_ones() {
        let spec = spec("float32", 8);
        let make = |seed| {
            FrameSet::new(&protocol::Frames { seed, distinct: 3, integers_below: 8 }, &[&spec, &spec])
                .unwrap()
        };
        let (set, again, other) = (make(7), make(7), make(8));
        assert_eq!(set.frame(0)[0].bytes(), again.frame(0)[0].bytes());
        assert_ne!(set.frame(0)[0].bytes(), set.frame(0)[1].bytes());
        assert_ne!(set.frame(0)[0].bytes(), set.frame(1)[0].bytes());
        // Frame f has the seed of the first plus f.
        assert_eq!(set.frame(1)[0].bytes(), other.frame(0)[0].bytes());
        assert_eq!(set.frame(4)[1].bytes(), set.frame(1)[1].bytes());
    }

    #[test]
    fn integers_are_small() {
        let spec = spec("int64", 1000);
        let set =
            FrameSet::new(&protocol::Frames { seed: 1, distinct: 1, integers_below: 8 }, &[&spec]).unwrap();
        let tensor = &set.frame(0)[0];
        let mut seen = [0; 8];
        for bytes in tensor.bytes().chunks_exact(8) {
            seen[usize::try_from(i64::from_ne_bytes(bytes.try_into().unwrap())).unwrap()] += 1;
        }
        assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
    }

    #[test]
    fn none_and_too_many_are_refused() {
        let spec = spec("float32", 1 << 40);
        for distinct in [0, 3] {
            let failure = FrameSet::new(&protocol::Frames { seed: 1, distinct, integers_below: 8 }, &[&spec])
                .unwrap_err();
            assert_eq!(failure.fault, protocol::Fault::Request);
        }
    }
}
