//! What a CPU can do at most: multiply-adds a second, and bytes read a second from memory of a given size.

use crate::affinity::bind;
use crate::clock::monotonic_ns;
use crate::engine::Multiplier;
use crate::failure::Failure;
use crate::meters::{memory_available_bytes, memory_limit_words};
use protocol::{Peak, Peaked, Stream};

/// Turns of the multiply-add loop timed at once, about a millisecond.
const TURNS: u64 = 100_000;
/// Readings of each size that are not kept.
const WARM_UP: u32 = 2;

/// Times both on the first CPU of the processor. What it can do at most is the best of the samples.
pub(crate) fn peak(request: &Peak) -> Result<Peaked, Failure> {
    let largest = request.streams.iter().copied().max().unwrap_or(0);
    if let Some(available) = memory_available_bytes().filter(|available| largest > *available) {
        return Err(Failure::request(format!(
            "failed to time reading {largest} bytes: only {available} are free{}",
            memory_limit_words()
        )));
    }
    // A thread of its own, because its binding ends with it.
    std::thread::scope(|scope| {
        let timed = scope.spawn(|| timed(request));
        timed.join().unwrap_or_else(|_| Err(Failure::internal("failed to time the CPU: the thread panicked")))
    })
}

fn timed(request: &Peak) -> Result<Peaked, Failure> {
    let binding = &request.binding;
    let first = binding.cpus.first().ok_or_else(|| {
        Failure::request(format!("failed to time processor {}: it has no CPU", binding.processor))
    })?;
    bind(None, &[*first], binding)?;
    let multiplier = Multiplier::of_this_cpu().ok_or_else(|| {
        Failure::execution("failed to time multiply-adds: this CPU has no vector instructions known here")
    })?;
    multiplier.run(TURNS);
    let mut multiply_adds = 0;
    let mut multiply_adds_ns = Vec::new();
    for _ in 0..request.rounds {
        let begin = monotonic_ns();
        multiply_adds = multiplier.run(TURNS);
        multiply_adds_ns.push(monotonic_ns() - begin);
    }
    let streams = request.streams.iter().map(|bytes| stream(*bytes, request.rounds)).collect();
    Ok(Peaked { id: request.id, lanes: multiplier.lanes, multiply_adds, multiply_adds_ns, streams })
}

/// Reads all of a buffer again and again.
fn stream(bytes: u64, rounds: u32) -> Stream {
    let words = usize::try_from(bytes / 8).unwrap_or(0).max(8);
    let buffer: Vec<u64> = (0..words as u64).collect();
    let mut ns = Vec::new();
    for round in 0..rounds.saturating_add(WARM_UP) {
        let begin = monotonic_ns();
        std::hint::black_box(sum(std::hint::black_box(&buffer)));
        let end = monotonic_ns();
        if round >= WARM_UP {
            ns.push(end - begin);
        }
    }
    Stream { bytes: words as u64 * 8, ns }
}

/// In sums that do not wait for one another.
fn sum(words: &[u64]) -> u64 {
    const CHAINS: usize = 16;
    let mut sums = [0_u64; CHAINS];
    let (blocks, rest) = words.as_chunks::<CHAINS>();
    for block in blocks {
        for (sum, word) in sums.iter_mut().zip(block) {
            *sum = sum.wrapping_add(*word);
        }
    }
    let whole = sums.iter().chain(rest);
    whole.fold(0, |sum, word| sum.wrapping_add(*word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Binding;

    #[test]
    fn both_are_timed() {
        let binding =
            Binding { processor: "p".into(), cpus: vec![crate::affinity::allowed()[0]], threads: 1 };
        let request = Peak { id: 7, binding, rounds: 3, streams: vec![1 << 16, 100] };
        if Multiplier::of_this_cpu().is_none() {
            assert!(peak(&request).unwrap_err().message.contains("no vector instructions"));
            return;
        }
        let found = peak(&request).unwrap();
        assert_eq!((found.id, found.multiply_adds_ns.len(), found.streams.len()), (7, 3, 2));
        assert!(found.multiply_adds > 0 && found.multiply_adds_ns.iter().all(|ns| *ns > 0), "{found:?}");
        assert_eq!((found.streams[0].bytes, found.streams[0].ns.len()), (1 << 16, 3));
    }

    #[test]
    fn every_word_is_read() {
        let words: Vec<u64> = (0..1000).collect();
        assert_eq!(sum(&words), 999 * 500);
    }
}
