//! The scheduled arrivals of a stream. They are computed from the start, so they do not drift.

use crate::failure::Failure;
use protocol::{ArrivalTimes, StreamLoad};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

/// Limits of a request.
const MAX_STREAMS: u32 = 64;
const MAX_QUEUE: u32 = 1024;
const FPS: std::ops::RangeInclusive<f64> = 0.001..=10_000.0;

/// A frame that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Number of the frame, in the order of scheduled arrivals of all streams.
    pub(crate) frame: u64,
    pub(crate) stream: u32,
    pub(crate) scheduled_ns: u64,
}

/// All arrivals in order, without end.
#[derive(Debug)]
pub(crate) struct Arrivals {
    start_ns: u64,
    frames: u64,
    times: Times,
}

#[derive(Debug)]
enum Times {
    /// Streams take turns at this distance, in ns.
    Constant { distance_ns: f64, streams: u32 },
    /// The next arrival of each stream after the start, in ns.
    Poisson { mean_ns: f64, next_ns: Vec<f64>, random: Xoshiro256PlusPlus },
}

impl Arrivals {
    /// The arrivals of a checked load from `start_ns` on.
    pub(crate) fn new(load: &StreamLoad, start_ns: u64) -> Self {
        let period_ns = 1e9 / load.fps;
        let times = match load.arrivals {
            ArrivalTimes::Constant => {
                Times::Constant { distance_ns: period_ns / f64::from(load.streams), streams: load.streams }
            }
            ArrivalTimes::Poisson => {
                let mut random = Xoshiro256PlusPlus::seed_from_u64(load.seed);
                let next_ns = (0..load.streams).map(|_| exponential(period_ns, &mut random)).collect();
                Times::Poisson { mean_ns: period_ns, next_ns, random }
            }
        };
        Self { start_ns, frames: 0, times }
    }
}

impl Iterator for Arrivals {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        let frame = self.frames;
        self.frames += 1;
        let (stream, after_ns) = match &mut self.times {
            Times::Constant { distance_ns, streams } => {
                let stream = frame % u64::from(*streams);
                (u32::try_from(stream).unwrap_or(0), frame as f64 * *distance_ns)
            }
            Times::Poisson { mean_ns, next_ns, random } => {
                let earliest = (0..next_ns.len()).min_by(|a, b| next_ns[*a].total_cmp(&next_ns[*b]))?;
                let after_ns = next_ns[earliest];
                next_ns[earliest] += exponential(*mean_ns, random);
                (u32::try_from(earliest).unwrap_or(0), after_ns)
            }
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and years at most"
        )]
        let scheduled_ns = self.start_ns + after_ns.round() as u64;
        Some(Arrival { frame, stream, scheduled_ns })
    }
}

/// An exponentially distributed number with this mean.
fn exponential(mean: f64, random: &mut Xoshiro256PlusPlus) -> f64 {
    // In (0, 1], so that the logarithm is finite.
    let uniform = 1.0 - (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    -mean * uniform.ln()
}

/// Refuses a load that is out of range.
pub(crate) fn check(load: &StreamLoad) -> Result<(), Failure> {
    let fail = |what: String| Err(Failure::request(format!("failed to prepare the stream: {what}")));
    if !FPS.contains(&load.fps) {
        return fail(format!("fps is {}, expected {} to {}", load.fps, FPS.start(), FPS.end()));
    }
    if !(1..=MAX_STREAMS).contains(&load.streams) {
        return fail(format!("streams is {}, expected 1 to {MAX_STREAMS}", load.streams));
    }
    if !(1..=MAX_QUEUE).contains(&load.queue) {
        return fail(format!("queue is {}, expected 1 to {MAX_QUEUE}", load.queue));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::QueuePolicy;

    fn load(fps: f64, streams: u32, arrivals: ArrivalTimes) -> StreamLoad {
        let policy = QueuePolicy::DropOldest;
        StreamLoad { fps, streams, queue: 2, policy, arrivals, deadline_ns: None, seed: 7 }
    }

    #[test]
    fn a_camera_does_not_drift_within_a_day() {
        let load = load(29.97, 1, ArrivalTimes::Constant);
        let day = 29.97 * 86_400.0;
        let mut arrivals = Arrivals { frames: 2_589_407, ..Arrivals::new(&load, 5) };
        let arrival = arrivals.next().unwrap();
        assert_eq!(arrival.frame, 2_589_407);
        let exact = 5.0 + 2_589_407.0 * 1e9 / 29.97;
        assert!((arrival.scheduled_ns as f64 - exact).abs() <= 0.5 && arrival.frame as f64 <= day);
    }

    #[test]
    fn streams_take_turns_at_equal_distances() {
        let found: Vec<(u32, u64)> = Arrivals::new(&load(100.0, 4, ArrivalTimes::Constant), 1000)
            .take(6)
            .map(|arrival| (arrival.stream, arrival.scheduled_ns))
            .collect();
        let ms = 1_000_000;
        let expected =
            [(0, 0), (1, 5 * ms / 2), (2, 5 * ms), (3, 15 * ms / 2), (0, 10 * ms), (1, 25 * ms / 2)];
        assert_eq!(found, expected.map(|(stream, after)| (stream, 1000 + after)));
    }

    #[test]
    fn random_arrivals_are_a_poisson_process() {
        for streams in [1, 4] {
            let load = load(200.0, streams, ArrivalTimes::Poisson);
            let all: Vec<Arrival> = Arrivals::new(&load, 0).take(40_000).collect();
            assert!(all.is_sorted_by_key(|arrival| arrival.scheduled_ns));
            let seconds = all.last().unwrap().scheduled_ns as f64 / 1e9;
            let rate = 40_000.0 / seconds;
            assert!((rate / (200.0 * f64::from(streams)) - 1.0).abs() < 0.02, "{rate}");
            // The number of arrivals in 100 ms has a variance equal to its mean.
            let mut counts =
                vec![0.0_f64; usize::try_from(all.last().unwrap().scheduled_ns / 100_000_000).unwrap() + 1];
            for arrival in &all {
                counts[usize::try_from(arrival.scheduled_ns / 100_000_000).unwrap()] += 1.0;
            }
            counts.pop();
            let mean = counts.iter().sum::<f64>() / counts.len() as f64;
            let variance =
                counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / counts.len() as f64;
            assert!((0.8..1.25).contains(&(variance / mean)), "{variance} {mean}");
            let of_first = all.iter().filter(|arrival| arrival.stream == 0).count() as f64;
            assert!((of_first * f64::from(streams) / 40_000.0 - 1.0).abs() < 0.05);
            let again: Vec<Arrival> = Arrivals::new(&load, 0).take(40_000).collect();
            assert_eq!(all, again);
        }
    }

    #[test]
    fn loads_out_of_range_are_refused() {
        let sound = load(30.0, 1, ArrivalTimes::Constant);
        check(&sound).unwrap();
        for (wrong, says) in [
            (StreamLoad { fps: 0.0, ..sound }, "fps is 0"),
            (StreamLoad { fps: 1e9, ..sound }, "fps is 1000000000"),
            (StreamLoad { streams: 0, ..sound }, "streams is 0"),
            (StreamLoad { queue: 0, ..sound }, "queue is 0, expected 1 to 1024"),
        ] {
            let failure = check(&wrong).unwrap_err();
            assert_eq!(failure.fault, protocol::Fault::Request);
            assert!(failure.message.contains(says), "{failure}");
        }
    }
}
