//! Rounds dealt out to equal boards, each to one board as a whole: trials of a round are compared with each other.
//!
//! A board takes the next round whenever it is through with one, so a slower board takes fewer. What a board that is
//! lost had begun goes to another one from its beginning. Boards without work stay until the last round is through,
//! because it may come back to them.

use host::interrupt::Interrupt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::{ProfileRecord, TransferRecord};

/// How often a board that waits looks for Ctrl-C.
const LOOK: Duration = Duration::from_millis(200);

/// What all boards plan from: the same profiles make the same schedules.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Of all networks on all processors.
    pub profiles: Vec<ProfileRecord>,
    /// Hand-overs.
    pub transfers: Vec<TransferRecord>,
}

/// Whether more rounds are wanted after so many, all of which were measured.
pub type MoreWanted = Box<dyn Fn(u32) -> bool + Send + Sync>;

/// Deals rounds out to boards, which are known by their number.
pub struct Dealer {
    interrupt: Interrupt,
    more_wanted: Option<MoreWanted>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Rounds that nobody works at, with the board that has a part of it from before.
    waiting: BTreeMap<u32, Option<usize>>,
    /// By board.
    dealt: BTreeMap<usize, u32>,
    /// Boards that work or may do so.
    boards: BTreeSet<usize>,
    /// All rounds there are.
    rounds: u32,
    over: bool,
    observed: Profiles,
}

#[derive(Debug)]
enum Profiles {
    Wanted,
    BeingMade { by: usize },
    Known(Arc<Observed>),
}

/// Who profiles.
#[derive(Debug)]
pub enum Lead {
    /// Nobody: here they are.
    Known(Arc<Observed>),
    /// Whoever asked, who gives them to [`Dealer::observed`].
    Measure,
    /// Nobody any more: the user interrupted.
    Interrupted,
}

impl Dealer {
    /// Deals `rounds` to boards of the numbers below `boards`. `parts` are rounds of which a board has a part already,
    /// `done` those that are measured.
    pub fn new(
        interrupt: Interrupt,
        boards: usize,
        rounds: u32,
        done: &BTreeSet<u32>,
        parts: &BTreeMap<u32, usize>,
    ) -> Self {
        let last = done.iter().chain(parts.keys()).max().map_or(0, |round| round + 1);
        let rounds = rounds.max(last);
        let waiting = (0..rounds).filter(|round| !done.contains(round));
        let state = State {
            waiting: waiting.map(|round| (round, parts.get(&round).copied())).collect(),
            dealt: BTreeMap::new(),
            boards: (0..boards).collect(),
            rounds,
            over: false,
            observed: Profiles::Wanted,
        };
        Self { interrupt, more_wanted: None, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Asks this whenever all rounds are through.
    #[must_use]
    pub fn until(mut self, more_wanted: MoreWanted) -> Self {
        self.more_wanted = Some(more_wanted);
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked is a bug that is told; the others go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0
    }

    /// The next round for a board. Waits while others may still hand one back; `None`: there is nothing more to do, or
    /// the user interrupted.
    pub fn next(&self, board: usize) -> Option<u32> {
        let mut state = self.lock();
        loop {
            if self.interrupt.is_set() || state.over {
                return None;
            }
            if let Some(round) = state.take(board) {
                return Some(round);
            }
            if state.waiting.is_empty() && state.dealt.is_empty() {
                if self.more_wanted.as_ref().is_some_and(|more_wanted| more_wanted(state.rounds)) {
                    state.add_rounds();
                    continue;
                }
                state.over = true;
                self.changed.notify_all();
                return None;
            }
            state = self.wait(state);
        }
    }

    /// A board is through with the round it was dealt.
    pub fn done(&self, board: usize) {
        self.lock().dealt.remove(&board);
        self.changed.notify_all();
    }

    /// A board does not go on. What it was dealt goes to others.
    pub fn lost(&self, board: usize) {
        let mut state = self.lock();
        state.boards.remove(&board);
        if let Some(round) = state.dealt.remove(&board) {
            state.waiting.insert(round, None);
        }
        if matches!(state.observed, Profiles::BeingMade { by } if by == board) {
            state.observed = Profiles::Wanted;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Whether there is another board to give work to.
    pub fn has_others(&self) -> bool {
        self.lock().boards.len() > 1
    }

    /// Who profiles: the first to ask, and after one that was lost the next. The others wait.
    pub fn lead(&self, board: usize) -> Lead {
        let mut state = self.lock();
        loop {
            if self.interrupt.is_set() {
                return Lead::Interrupted;
            }
            match &state.observed {
                Profiles::Known(observed) => return Lead::Known(Arc::clone(observed)),
                Profiles::Wanted => {
                    state.observed = Profiles::BeingMade { by: board };
                    return Lead::Measure;
                }
                Profiles::BeingMade { .. } => state = self.wait(state),
            }
        }
    }

    /// Takes the profiles that were measured.
    pub fn observed(&self, observed: Observed) {
        self.lock().observed = Profiles::Known(Arc::new(observed));
        self.changed.notify_all();
    }
}

impl std::fmt::Debug for Dealer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Dealer").field("state", &self.state).finish_non_exhaustive()
    }
}

impl State {
    fn take(&mut self, board: usize) -> Option<u32> {
        let own = self.waiting.iter().find(|(_, owner)| **owner == Some(board));
        let is_free = |owner: &Option<usize>| owner.is_none_or(|owner| !self.boards.contains(&owner));
        let (round, _) = own.or_else(|| self.waiting.iter().find(|(_, owner)| is_free(owner)))?;
        let round = *round;
        self.waiting.remove(&round);
        self.dealt.insert(board, round);
        Some(round)
    }

    /// As many as there are boards, so that none is idle.
    fn add_rounds(&mut self) {
        for _ in 0..self.boards.len().max(1) {
            self.waiting.insert(self.rounds, None);
            self.rounds += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dealer(boards: usize, rounds: u32) -> Dealer {
        Dealer::new(Interrupt::default(), boards, rounds, &BTreeSet::new(), &BTreeMap::new())
    }

    #[test]
    fn each_round_goes_to_one_board() {
        let dealer = dealer(4, 50);
        let mut all: Vec<u32> = std::thread::scope(|scope| {
            let work = |board: usize| {
                let dealer = &dealer;
                move || {
                    let mut rounds = Vec::new();
                    while let Some(round) = dealer.next(board) {
                        rounds.push(round);
                        std::thread::yield_now();
                        dealer.done(board);
                    }
                    rounds
                }
            };
            let threads: Vec<_> = (0..4).map(|board| scope.spawn(work(board))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn what_a_lost_board_had_goes_to_another_that_waited_for_it() {
        let dealer = dealer(2, 2);
        assert_eq!((dealer.next(0), dealer.next(1)), (Some(0), Some(1)));
        std::thread::scope(|scope| {
            dealer.done(1);
            // Nothing is left but what the other board works at.
            let waits = scope.spawn(|| dealer.next(1));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waits.is_finished());
            dealer.lost(0);
            assert_eq!(waits.join().unwrap(), Some(0));
        });
        assert!(!dealer.has_others());
        dealer.done(1);
        assert_eq!(dealer.next(1), None);
    }

    #[test]
    fn a_round_goes_on_where_it_was_begun() {
        let (done, parts) = (BTreeSet::from([0, 3]), BTreeMap::from([(2, 1), (4, 0)]));
        let dealer = Dealer::new(Interrupt::default(), 2, 4, &done, &parts);
        assert_eq!(dealer.next(1), Some(2));
        assert_eq!(dealer.next(1), Some(1));
        dealer.lost(0);
        dealer.done(1);
        // Its board is gone.
        assert_eq!(dealer.next(1), Some(4));
        dealer.done(1);
        assert_eq!(dealer.next(1), None);
    }

    #[test]
    fn rounds_are_added_until_enough() {
        let dealer = dealer(2, 1).until(Box::new(|rounds| rounds < 4));
        let mut rounds = Vec::new();
        while let Some(round) = dealer.next(0) {
            rounds.push(round);
            dealer.done(0);
        }
        assert_eq!(rounds, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn one_board_profiles_and_another_where_it_is_lost() {
        let dealer = dealer(2, 1);
        assert!(matches!(dealer.lead(0), Lead::Measure));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| dealer.lead(1));
            dealer.lost(0);
            assert!(matches!(second.join().unwrap(), Lead::Measure));
        });
        dealer.observed(Observed::default());
        assert!(matches!(dealer.lead(2), Lead::Known(_)));
    }
}
