//! Times the peak rates of a CPU: multiply-adds, and reads of buffers of given sizes.

use crate::affinity::bind_to_first;
use crate::clock::monotonic_ns;
use crate::engine::Multiplier;
use crate::failure::Failure;
use crate::memory;
use protocol::{Peak, Peaked, Processor, Stream};

/// Iterations of the multiply-add loop in a sample, about a millisecond.
const ITERATIONS: u64 = 100_000;
/// Reads of each size that are discarded.
const WARM_UP: u32 = 2;

/// Times both on the first CPU of the processor. The best sample is the peak.
pub(crate) fn peak(request: &Peak) -> Result<Peaked, Failure> {
    let largest = request.streams.iter().copied().max().unwrap_or(0);
    memory::check_available(largest)
        .map_err(|why| Failure::request(format!("failed to time reads of {largest} bytes: {why}")))?;
    if let Processor::Cuda(cuda) = &request.processor {
        return Err(Failure::request(format!(
            "failed to time the peak rates of {}: edgepipe measures those of CPUs only",
            cuda.name
        )));
    }
    // On a thread of its own, because binding a thread is permanent.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| time(request));
        thread
            .join()
            .unwrap_or_else(|_| Err(Failure::internal("failed to time the CPU: the thread panicked")))
    })
}

fn time(request: &Peak) -> Result<Peaked, Failure> {
    bind_to_first(&request.processor)?;
    let multiplier = Multiplier::of_this_cpu().ok_or_else(|| {
        Failure::execution("failed to time multiply-adds: this CPU has no supported vector instructions")
    })?;
    multiplier.run(ITERATIONS);
    let mut multiply_adds = 0;
    let mut multiply_adds_ns = Vec::new();
    for _ in 0..request.rounds {
        let begin = monotonic_ns();
        multiply_adds = multiplier.run(ITERATIONS);
        multiply_adds_ns.push(monotonic_ns() - begin);
    }
    let streams = request.streams.iter().map(|bytes| time_reads(*bytes, request.rounds)).collect();
    Ok(Peaked { id: request.id, lanes: multiplier.lanes, multiply_adds, multiply_adds_ns, streams })
}

fn time_reads(bytes: u64, rounds: u32) -> Stream {
    let words = usize::try_from(bytes / 8).unwrap_or(0).max(8);
    let buffer: Vec<u64> = (0..words as u64).collect();
    let mut ns = Vec::new();
    for round in 0..rounds.saturating_add(WARM_UP) {
        // The prefetchers of a CPU follow several sequences of addresses: two were a fifth faster than one on an EPYC.
        let ways: [fn(&[u64]) -> u64; 3] = [sum::<1>, sum::<2>, sum::<4>];
        let fastest = ways.iter().map(|sum| {
            let begin = monotonic_ns();
            std::hint::black_box(sum(std::hint::black_box(&buffer)));
            monotonic_ns() - begin
        });
        let fastest = fastest.min().unwrap_or(0);
        if round >= WARM_UP {
            ns.push(fastest);
        }
    }
    Stream { bytes: words as u64 * 8, ns }
}

/// Adds up all words in independent sums, reading so many parts of the buffer side by side.
fn sum<const PARTS: usize>(words: &[u64]) -> u64 {
    /// Words of a cache line.
    const LINE: usize = 8;
    let (lines, rest) = words.as_chunks::<LINE>();
    let length = lines.len() / PARTS;
    let (parts, more) = lines.split_at(PARTS * length);
    let mut sums = [[0_u64; LINE]; PARTS];
    for at in 0..length {
        for (part, sums) in sums.iter_mut().enumerate() {
            for (sum, word) in sums.iter_mut().zip(&parts[part * length + at]) {
                *sum = sum.wrapping_add(*word);
            }
        }
    }
    let whole = sums.as_flattened().iter().chain(more.as_flattened()).chain(rest);
    whole.fold(0, |sum, word| sum.wrapping_add(*word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::CpuProcessor;

    #[test]
    fn multiply_adds_and_reads_are_timed() {
        let processor = Processor::Cpu(CpuProcessor {
            name: "p".into(),
            cpus: vec![crate::affinity::allowed_cpus()[0]],
            threads: 1,
        });
        let request = Peak { id: 7, processor, rounds: 3, streams: vec![1 << 16, 100] };
        let found = peak(&request).unwrap();
        assert_eq!((found.id, found.multiply_adds_ns.len(), found.streams.len()), (7, 3, 2));
        assert!(found.multiply_adds > 0 && found.multiply_adds_ns.iter().all(|ns| *ns > 0), "{found:?}");
        assert_eq!((found.streams[0].bytes, found.streams[0].ns.len()), (1 << 16, 3));
    }

    #[test]
    fn every_word_is_read() {
        let words: Vec<u64> = (0..1003).collect();
        for sum in [sum::<1>, sum::<2>, sum::<4>] {
            assert_eq!(sum(&words), 1002 * 1003 / 2);
        }
    }
}
