//! Which board measures which round: the decisions of [`RoundQueue`](crate::round_queue::RoundQueue), without threads and
//! clocks. Boards are identified by their number.

use std::collections::{BTreeMap, BTreeSet};

/// Rounds of an experiment, and the boards that share them.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    /// Rounds that no board measures.
    free: BTreeSet<u32>,
    /// Rounds that no board measures, and of which a board has some trials from an earlier run.
    begun: BTreeMap<usize, BTreeSet<u32>>,
    /// The round that each board measures.
    taken: BTreeMap<usize, u32>,
    /// Boards that are not lost.
    boards: BTreeSet<usize>,
    /// Number of all rounds.
    count: u32,
}

impl Rounds {
    /// `count` rounds for boards 0 to `boards` - 1. `done` are rounds that are measured; `parts` are rounds of which a board
    /// has some trials.
    pub(crate) fn new(boards: usize, count: u32, done: &BTreeSet<u32>, parts: &BTreeMap<u32, usize>) -> Self {
        let last = done.iter().chain(parts.keys()).max().map_or(0, |round| round + 1);
        let mut rounds = Self { count: count.max(last), boards: (0..boards).collect(), ..Self::default() };
        for round in (0..rounds.count).filter(|round| !done.contains(round)) {
            match parts.get(&round) {
                Some(board) if rounds.boards.contains(board) => {
                    rounds.begun.entry(*board).or_default().insert(round);
                }
                _ => drop(rounds.free.insert(round)),
            }
        }
        rounds
    }

    /// The same rounds without any board yet. What a board has begun is open to all.
    pub(crate) fn without_boards(mut self) -> Self {
        self.boards.clear();
        self.free.extend(std::mem::take(&mut self.begun).into_values().flatten());
        self
    }

    /// Number of all rounds.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The next round for a board: one that it has begun, or the first that nobody has.
    pub(crate) fn take(&mut self, board: usize) -> Option<u32> {
        let own = self.begun.get_mut(&board).and_then(BTreeSet::pop_first);
        let round = own.or_else(|| self.free.pop_first())?;
        self.taken.insert(board, round);
        Some(round)
    }

    /// A board has finished its round.
    pub(crate) fn finish(&mut self, board: usize) {
        self.taken.remove(&board);
    }

    /// A board takes part from now on, or again.
    pub(crate) fn join(&mut self, board: usize) {
        self.boards.insert(board);
    }

    /// A board is lost: its rounds go to others.
    pub(crate) fn remove(&mut self, board: usize) {
        self.boards.remove(&board);
        self.free.extend(self.begun.remove(&board).into_iter().flatten());
        self.free.extend(self.taken.remove(&board));
    }

    /// Number of boards that are not lost.
    pub(crate) fn boards(&self) -> usize {
        self.boards.len()
    }

    /// Whether every round is finished.
    pub(crate) fn are_finished(&self) -> bool {
        self.free.is_empty() && self.taken.is_empty() && self.begun.values().all(BTreeSet::is_empty)
    }

    /// Adds one round for each board, so that none is idle.
    pub(crate) fn add(&mut self) {
        for _ in 0..self.boards.len().max(1) {
            self.free.insert(self.count);
            self.count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    //! A farm with a simulated clock: boards become free, work, fail and come back, and the decisions are the real ones.

    use super::*;
    use domain::SplitMix64;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    /// Times in simulated milliseconds.
    type Millis = u64;

    /// Properties of the simulated boards.
    #[derive(Debug, Clone, Copy)]
    struct Farm {
        boards: usize,
        rounds: u32,
        /// Longest time that another user keeps a board at first.
        held: Millis,
        /// From getting a board to its first round: link, files, comparison of outputs.
        setup: Millis,
        /// Shortest round; the slowest board takes 10 % longer.
        round: Millis,
        /// In one of this many rounds, a board does not answer and is power-cycled; one of ten stays silent.
        failure: u64,
        /// Until a board answers again.
        repair: Millis,
    }

    /// What happened.
    #[derive(Debug, Default)]
    struct Outcome {
        /// How often each round was finished.
        finished: BTreeMap<u32, u32>,
        repaired: u32,
        lost: u32,
        /// Until no round was left to take: time that boards measured finished rounds, and time that they were held.
        busy: Millis,
        held: Millis,
        end: Millis,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Event {
        IsReady,
        Finishes,
        IsLost,
    }

    /// A board at work.
    #[derive(Debug, Clone, Copy, Default)]
    struct Work {
        round: u32,
        begun: Millis,
        /// Part of the round in which nothing is measured.
        repair: Millis,
    }

    fn simulate(farm: Farm) -> Outcome {
        let mut random = SplitMix64::new(17);
        let mut below = move |limit: u64| if limit == 0 { 0 } else { random.next_u64() % limit };
        let mut rounds =
            Rounds::new(farm.boards, farm.rounds, &BTreeSet::new(), &BTreeMap::new()).without_boards();
        let speed: Vec<Millis> = (0..farm.boards).map(|_| farm.round + below(farm.round / 10)).collect();
        let got: Vec<Millis> = (0..farm.boards).map(|_| below(farm.held)).collect();
        let mut events: BinaryHeap<Reverse<(Millis, Event, usize)>> =
            (0..farm.boards).map(|board| Reverse((got[board] + farm.setup, Event::IsReady, board))).collect();
        let mut outcome = Outcome::default();
        let mut given_back: BTreeMap<usize, Millis> = BTreeMap::new();
        let mut work: BTreeMap<usize, Work> = BTreeMap::new();
        let mut idle: BTreeSet<usize> = BTreeSet::new();
        let mut drained = None;
        while let Some(Reverse((now, event, board))) = events.pop() {
            match event {
                Event::IsReady => rounds.join(board),
                Event::Finishes => {
                    rounds.finish(board);
                    let Work { round, begun, repair } = work[&board];
                    *outcome.finished.entry(round).or_default() += 1;
                    if drained.is_none() {
                        outcome.busy += now - begun - repair;
                    }
                }
                Event::IsLost => {
                    rounds.remove(board);
                    outcome.lost += 1;
                    given_back.insert(board, now);
                }
            }
            outcome.end = now;
            if event != Event::IsLost {
                idle.insert(board);
            }
            // Every board that waits is asked, as a change of the queue wakes them all.
            for board in std::mem::take(&mut idle) {
                let Some(round) = rounds.take(board) else {
                    idle.insert(board);
                    continue;
                };
                let fails = farm.failure > 0 && below(farm.failure) == 0;
                let is_lost = fails && below(10) == 0;
                let repair = if fails { farm.repair } else { 0 };
                outcome.repaired += u32::from(fails && !is_lost);
                work.insert(board, Work { round, begun: now, repair });
                let event = if is_lost { Event::IsLost } else { Event::Finishes };
                events.push(Reverse((now + repair + speed[board], event, board)));
            }
            if drained.is_none() && rounds.free.is_empty() {
                drained = Some(now);
                let at_work = events.iter().filter(|Reverse((_, event, _))| *event == Event::Finishes);
                outcome.busy += at_work.map(|Reverse((_, _, board))| now - work[board].begun).sum::<Millis>();
                let until = |board: &usize| given_back.get(board).copied().unwrap_or(now);
                outcome.held = (0..farm.boards).map(|board| until(&board).saturating_sub(got[board])).sum();
            }
            if rounds.are_finished() {
                break;
            }
        }
        outcome
    }

    fn check(farm: Farm) -> Outcome {
        let begun = std::time::Instant::now();
        let outcome = simulate(farm);
        assert_eq!(outcome.finished.len(), farm.rounds as usize, "every round is measured: {farm:?}");
        assert!(outcome.finished.values().all(|times| *times == 1), "and each once: {farm:?}");
        let busy = outcome.busy as f64 / outcome.held as f64;
        eprintln!(
            "{} boards, {} rounds: {:.2} simulated hours in {:.3} s; {} power cycles, {} boards lost; boards measured {:.1} % of \
             the time that they were held while work was left",
            farm.boards,
            farm.rounds,
            outcome.end as f64 / 3.6e6,
            begun.elapsed().as_secs_f64(),
            outcome.repaired,
            outcome.lost,
            100.0 * busy
        );
        assert!(busy >= 0.95, "{busy}");
        outcome
    }

    const FARM: Farm = Farm {
        boards: 64,
        rounds: 4000,
        held: 1_800_000,
        setup: 30_000,
        round: 60_000,
        failure: 0,
        repair: 120_000,
    };

    /// `cargo test -p campaign simulated -- --nocapture` prints the figures.
    #[test]
    fn simulated_boards_are_busy_while_work_is_left() {
        let calm = check(FARM);
        assert_eq!((calm.repaired, calm.lost), (0, 0));
        let stormy = check(Farm { failure: 100, ..FARM });
        assert!(stormy.repaired > 20 && stormy.lost > 0, "{stormy:?}");
    }

    #[test]
    fn simulated_farms_of_a_thousand_boards_finish_too() {
        let many = check(Farm { boards: 1000, rounds: 60_000, failure: 200, ..FARM });
        assert!(many.lost > 0);
        // More boards than rounds: each round is measured, and no board has two.
        let few = simulate(Farm { boards: 1000, rounds: 100, held: 0, ..FARM });
        assert!(few.finished.len() == 100 && few.end < FARM.setup + 2 * FARM.round, "{}", few.end);
    }
}
