//! Times the hand-over of a tensor between two processors: the cost of reading what another processor wrote, and of the copies
//! if one of them is a GPU.

use crate::affinity::bind_to_first;
use crate::clock::monotonic_ns;
use crate::engine::Copies;
use crate::failure::Failure;
use crate::memory;
use protocol::{HandOver, Processor, Transfer, Transferred};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Hand-overs of each size that are discarded, because they fault in new pages.
const WARM_UP: u32 = 3;
/// 64-bit words in a cache line of 64 bytes.
const LINE_WORDS: usize = 8;
/// Limit on the samples in memory.
const MAX_ROUNDS: u32 = 1_000_000;

/// A CPU writes every word, and reads one word of every cache line. A GPU copies all of them.
pub(crate) fn transfer(request: &Transfer) -> Result<Transferred, Failure> {
    let largest = request.sizes.iter().copied().max().unwrap_or(0);
    if request.rounds == 0 || request.rounds > MAX_ROUNDS {
        return Err(Failure::request(format!(
            "failed to time hand-overs: rounds must be from 1 to {MAX_ROUNDS}"
        )));
    }
    memory::check_available(largest)
        .map_err(|why| Failure::request(format!("failed to time hand-overs of {largest} bytes: {why}")))?;
    let sizes =
        request.sizes.iter().map(|bytes| Exchange::new(*bytes).run(request)).collect::<Result<_, _>>()?;
    Ok(Transferred { id: request.id, sizes })
}

/// A buffer that two threads access in turn.
struct Exchange {
    bytes: u64,
    words: Vec<AtomicU64>,
    /// Even: the writer's turn; odd: the reader's turn; [`DONE`]: one of them has finished.
    turn: AtomicUsize,
    /// How long the writing GPU took to copy the buffer in this turn; 0 if the writer is a CPU.
    copied_ns: AtomicU64,
}

const DONE: usize = usize::MAX;

impl Exchange {
    fn new(bytes: u64) -> Self {
        let words = usize::try_from(bytes.div_ceil(8)).unwrap_or(0).max(1);
        Self {
            bytes,
            words: (0..words).map(|_| AtomicU64::new(1)).collect(),
            turn: AtomicUsize::new(0),
            copied_ns: AtomicU64::new(0),
        }
    }

    fn run(&self, request: &Transfer) -> Result<HandOver, Failure> {
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| self.write(request));
            let reader = scope.spawn(|| self.read(request));
            let panicked = || Failure::internal("failed to time hand-overs: a thread panicked");
            let (written, read) = (writer.join(), reader.join());
            written.map_err(|_| panicked())??;
            read.map_err(|_| panicked())?
        })
    }

    fn write(&self, request: &Transfer) -> Result<(), Failure> {
        let _guard = DoneOnDrop(self);
        let copies = self.prepare(&request.from)?;
        for round in 0..request.rounds.saturating_add(WARM_UP) {
            if !self.wait_for(0) {
                return Ok(());
            }
            if let Some(copies) = &copies {
                let begin = monotonic_ns();
                copies.to_host(&self.words)?;
                self.copied_ns.store(monotonic_ns() - begin, Ordering::Relaxed);
            } else {
                self.words.iter().for_each(|word| word.store(u64::from(round), Ordering::Relaxed));
            }
            self.turn.fetch_add(1, Ordering::AcqRel);
        }
        // Wait for the reader's last round.
        self.wait_for(0);
        Ok(())
    }

    fn read(&self, request: &Transfer) -> Result<HandOver, Failure> {
        let _guard = DoneOnDrop(self);
        let copies = self.prepare(&request.to)?;
        let rounds = usize::try_from(request.rounds).unwrap_or(0);
        let (mut first_ns, mut again_ns) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
        for round in 0..request.rounds.saturating_add(WARM_UP) {
            if !self.wait_for(1) {
                break;
            }
            let written_ns = self.copied_ns.load(Ordering::Relaxed);
            let (first, again) = match &copies {
                Some(copies) => {
                    let begin = monotonic_ns();
                    copies.to_device(&self.words)?;
                    (monotonic_ns() - begin, None)
                }
                None => (self.time_read(), Some(self.time_read())),
            };
            if round >= WARM_UP {
                first_ns.push(written_ns + first);
                again_ns.extend(again);
            }
            self.turn.fetch_add(1, Ordering::AcqRel);
        }
        Ok(HandOver { bytes: self.bytes, first_ns, again_ns })
    }

    /// Binds the calling thread to the first CPU of a processor; with a buffer there if it is a GPU.
    fn prepare(&self, processor: &Processor) -> Result<Option<Copies>, Failure> {
        match processor {
            Processor::Cpu(_) => bind_to_first(processor).map(|()| None),
            Processor::Cuda(cuda) => Copies::new(cuda, &self.words).map(Some),
        }
    }

    fn time_read(&self) -> u64 {
        let begin = monotonic_ns();
        let lines = self.words.iter().step_by(LINE_WORDS);
        let sum = lines.fold(0_u64, |sum, word| sum.wrapping_add(word.load(Ordering::Relaxed)));
        std::hint::black_box(sum);
        monotonic_ns() - begin
    }

    /// Waits for a turn of this parity without sleeping, as a stage waits for a frame. `false`: the other thread is done.
    fn wait_for(&self, parity: usize) -> bool {
        loop {
            match self.turn.load(Ordering::Acquire) {
                DONE => return false,
                turn if turn % 2 == parity => return true,
                _ => std::thread::yield_now(),
            }
        }
    }
}

/// Tells the other thread when one of them returns, so that it does not wait forever.
struct DoneOnDrop<'a>(&'a Exchange);

impl Drop for DoneOnDrop<'_> {
    fn drop(&mut self) {
        self.0.turn.store(DONE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affinity::allowed_cpus;
    use protocol::CpuProcessor;

    fn request(from: u32, to: u32, sizes: &[u64]) -> Transfer {
        let processor = |cpu: u32| {
            Processor::Cpu(CpuProcessor { name: format!("cpu{cpu}"), cpus: vec![cpu], threads: 1 })
        };
        Transfer { id: 4, from: processor(from), to: processor(to), sizes: sizes.into(), rounds: 20 }
    }

    #[test]
    fn all_rounds_are_returned_and_larger_buffers_take_longer() {
        let cpus = allowed_cpus();
        let (from, to) = (cpus[0], *cpus.last().unwrap());
        let median = |samples: &[u64]| {
            let mut samples = samples.to_vec();
            assert_eq!(samples.len(), 20);
            samples.sort_unstable();
            samples[10]
        };
        // Other load may delay any hand-over, but not always the smaller ones more.
        let mut seen = Vec::new();
        let is_longer = (0..12).any(|_| {
            let found = transfer(&request(from, to, &[64, 4 << 20])).unwrap();
            assert_eq!(found.sizes.len(), 2);
            let of =
                |place: usize| (median(&found.sizes[place].first_ns), median(&found.sizes[place].again_ns));
            let (small, large) = (of(0), of(1));
            seen.push((small, large));
            large.0 > small.0 && large.1 > small.1
        });
        assert!(is_longer, "{seen:?}");
    }

    #[test]
    fn a_processor_that_does_not_exist_stops_both_threads() {
        for (from, to) in [(999, allowed_cpus()[0]), (allowed_cpus()[0], 999)] {
            let failure = transfer(&request(from, to, &[64])).unwrap_err();
            assert_eq!(failure.fault, protocol::Fault::Affinity);
            assert!(failure.message.contains("cpu999"), "{failure}");
        }
    }
}
