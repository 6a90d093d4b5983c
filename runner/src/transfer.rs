//! What it costs a processor to read what another one wrote.

use crate::affinity::bind;
use crate::clock::monotonic_ns;
use crate::failure::Failure;
use crate::meters::{memory_available_bytes, memory_limit_words};
use protocol::{Binding, HandOver, Transfer, Transferred};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Hand-overs of each size that are not kept: they pay for fresh pages.
const WARM_UP: u32 = 3;
/// Words of a cache line of 64 bytes.
const LINE_WORDS: usize = 8;
/// Most rounds, so that what is kept fits memory.
const MOST_ROUNDS: u32 = 1_000_000;

/// Times the hand-overs. The writer writes every word, the reader reads a word of every cache line.
pub(crate) fn transfer(request: &Transfer) -> Result<Transferred, Failure> {
    let largest = request.sizes.iter().copied().max().unwrap_or(0);
    if request.rounds == 0 || request.rounds > MOST_ROUNDS {
        return Err(Failure::request(format!(
            "failed to time hand-overs: rounds must be 1 to {MOST_ROUNDS}"
        )));
    }
    if let Some(available) = memory_available_bytes().filter(|available| largest > *available) {
        return Err(Failure::request(format!(
            "failed to time hand-overs of {largest} bytes: only {available} are free{}",
            memory_limit_words()
        )));
    }
    let sizes =
        request.sizes.iter().map(|bytes| Exchange::new(*bytes).run(request)).collect::<Result<_, _>>()?;
    Ok(Transferred { id: request.id, sizes })
}

/// A buffer between two threads that take turns.
struct Exchange {
    bytes: u64,
    words: Vec<AtomicU64>,
    /// Even: the writer's turn; odd: the reader's; [`OVER`]: nobody's any more.
    turn: AtomicUsize,
}

const OVER: usize = usize::MAX;

impl Exchange {
    fn new(bytes: u64) -> Self {
        let words = usize::try_from(bytes.div_ceil(8)).unwrap_or(0).max(1);
        Self { bytes, words: (0..words).map(|_| AtomicU64::new(1)).collect(), turn: AtomicUsize::new(0) }
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
        let _guard = EndOfTurns(self);
        bind_to_first(&request.from)?;
        for round in 0..request.rounds.saturating_add(WARM_UP) {
            if !self.wait_for(0) {
                return Ok(());
            }
            for word in &self.words {
                word.store(u64::from(round), Ordering::Relaxed);
            }
            self.turn.fetch_add(1, Ordering::AcqRel);
        }
        // The reader may still be at the last round.
        self.wait_for(0);
        Ok(())
    }

    fn read(&self, request: &Transfer) -> Result<HandOver, Failure> {
        let _guard = EndOfTurns(self);
        bind_to_first(&request.to)?;
        let rounds = usize::try_from(request.rounds).unwrap_or(0);
        let (mut first_ns, mut again_ns) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
        for round in 0..request.rounds.saturating_add(WARM_UP) {
            if !self.wait_for(1) {
                break;
            }
            let (first, again) = (self.timed_reading(), self.timed_reading());
            if round >= WARM_UP {
                first_ns.push(first);
                again_ns.push(again);
            }
            self.turn.fetch_add(1, Ordering::AcqRel);
        }
        Ok(HandOver { bytes: self.bytes, first_ns, again_ns })
    }

    fn timed_reading(&self) -> u64 {
        let begin = monotonic_ns();
        let lines = self.words.iter().step_by(LINE_WORDS);
        let sum = lines.fold(0_u64, |sum, word| sum.wrapping_add(word.load(Ordering::Relaxed)));
        std::hint::black_box(sum);
        monotonic_ns() - begin
    }

    /// Waits for a turn of this parity, awake, as a stage that is handed a frame is. `false`: it is over.
    fn wait_for(&self, parity: usize) -> bool {
        loop {
            match self.turn.load(Ordering::Acquire) {
                OVER => return false,
                turn if turn % 2 == parity => return true,
                _ => std::thread::yield_now(),
            }
        }
    }
}

/// Ends the turns where one side leaves, so that the other does not wait for ever.
struct EndOfTurns<'a>(&'a Exchange);

impl Drop for EndOfTurns<'_> {
    fn drop(&mut self) {
        self.0.turn.store(OVER, Ordering::Release);
    }
}

fn bind_to_first(binding: &Binding) -> Result<(), Failure> {
    match binding.cpus.first() {
        Some(cpu) => bind(None, &[*cpu], binding),
        None => Err(Failure::request(format!(
            "failed to time hand-overs: processor {} has no CPUs",
            binding.processor
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affinity::allowed;

    fn request(from: u32, to: u32, sizes: &[u64]) -> Transfer {
        let binding = |cpu: u32| Binding { processor: format!("cpu{cpu}"), cpus: vec![cpu], threads: 1 };
        Transfer { id: 4, from: binding(from), to: binding(to), sizes: sizes.into(), rounds: 20 }
    }

    #[test]
    fn every_round_of_every_size_is_kept_and_more_takes_longer() {
        let cpus = allowed();
        let (from, to) = (cpus[0], *cpus.last().unwrap());
        let found = transfer(&request(from, to, &[64, 4 << 20])).unwrap();
        assert_eq!(found.sizes.len(), 2);
        let median = |samples: &[u64]| {
            let mut samples = samples.to_vec();
            assert_eq!(samples.len(), 20);
            samples.sort_unstable();
            samples[10]
        };
        let of = |place: usize| (median(&found.sizes[place].first_ns), median(&found.sizes[place].again_ns));
        let (small, large) = (of(0), of(1));
        assert!(large.0 > small.0 && large.1 > small.1, "{small:?} {large:?}");
    }

    #[test]
    fn a_processor_that_is_not_there_ends_both_sides() {
        for (from, to) in [(999, allowed()[0]), (allowed()[0], 999)] {
            let failure = transfer(&request(from, to, &[64])).unwrap_err();
            assert_eq!(failure.fault, protocol::Fault::Affinity);
            assert!(failure.message.contains("cpu999"), "{failure}");
        }
    }
}
