//! A queue of rounds for equal boards. Trials of a round are compared with each other, so each round is measured by one
//! board.
//!
//! A board takes the next round when it has finished one, so a slower board takes fewer. If a board is lost, its round
//! is measured again from the beginning by another board; so idle boards wait until the last round is finished. Boards
//! of a farm are wanted by others: of these, one waits, and the others are given back.

use crate::profile::ProfileRecords;
use crate::rounds::Rounds;
use host::interrupt::Interrupt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a waiting board checks for Ctrl-C.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Whether more rounds are needed after this number of measured rounds.
pub(crate) type NeedsMore = Box<dyn Fn(u32) -> bool + Send + Sync>;

/// A queue of rounds. Boards are identified by their number.
pub(crate) struct RoundQueue {
    interrupt: Interrupt,
    /// Whether idle boards are given back, except for one.
    gives_back: bool,
    /// Set when all rounds are finished.
    over: Arc<AtomicBool>,
    needs_more: Option<NeedsMore>,
    state: Mutex<State>,
    changed: Condvar,
}

/// The queue as one board sees it.
#[derive(Debug, Clone)]
pub(crate) struct RoundSource {
    pub(crate) queue: Arc<RoundQueue>,
    /// The board's number.
    pub(crate) board: usize,
}

#[derive(Debug)]
struct State {
    rounds: Rounds,
    /// Boards that wait for a round.
    idle: usize,
    /// The first board that measured the canary, and its rate.
    canary: Option<(String, f64)>,
    profiles: SharedProfiles,
}

#[derive(Debug)]
enum SharedProfiles {
    Missing,
    BeingMeasured { by: usize },
    Known(Arc<ProfileRecords>),
}

/// Where a board gets its profiles from.
#[derive(Debug)]
pub(crate) enum ProfileSource {
    /// Another board has measured them.
    Shared(Arc<ProfileRecords>),
    /// This board measures them, and passes them to [`RoundQueue::share_profiles`].
    Measure,
    /// The user pressed Ctrl-C.
    Interrupted,
}

impl RoundQueue {
    /// A queue of `rounds` for boards 0 to `boards` - 1. `done` are rounds that are measured; `parts` are rounds of which
    /// a board has some trials.
    pub(crate) fn new(
        interrupt: Interrupt,
        boards: usize,
        rounds: u32,
        done: &BTreeSet<u32>,
        parts: &BTreeMap<u32, usize>,
    ) -> Self {
        let rounds = Rounds::new(boards, rounds, done, parts);
        let state = State { rounds, idle: 0, canary: None, profiles: SharedProfiles::Missing };
        Self {
            interrupt,
            gives_back: false,
            over: Arc::default(),
            needs_more: None,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Boards take part when they [join](Self::join), and idle ones are given back.
    #[must_use]
    pub(crate) fn of_farm(mut self) -> Self {
        self.gives_back = true;
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.rounds = std::mem::take(&mut state.rounds).without_boards();
        self
    }

    /// A board is there.
    pub(crate) fn join(&self, board: usize) {
        self.lock().rounds.join(board);
    }

    /// Whether boards take part when they join.
    pub(crate) fn is_of_farm(&self) -> bool {
        self.gives_back
    }

    /// The board that measured the canary first, and the rate of this board over that one's; `None` if this is the first.
    pub(crate) fn compare_canary(&self, board: &str, rate: f64) -> Option<(String, f64)> {
        let mut state = self.lock();
        if let Some((standard, known)) = &state.canary {
            return Some((standard.clone(), rate / known));
        }
        state.canary = Some((board.to_owned(), rate));
        None
    }

    /// Is set when all rounds are finished.
    pub(crate) fn over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.over)
    }

    /// Calls this whenever all rounds are finished.
    #[must_use]
    pub(crate) fn until(mut self, needs_more: NeedsMore) -> Self {
        self.needs_more = Some(needs_more);
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // If a thread panicked, that is reported as a bug; the others continue.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait_timeout(state, CHECK_INTERVAL).unwrap_or_else(PoisonError::into_inner).0
    }

    /// The next round for a board. Waits while a round of another board may still come back; `None` if all rounds are
    /// finished, enough boards wait, or the user interrupted.
    pub(crate) fn next(&self, board: usize) -> Option<u32> {
        let mut state = self.lock();
        let mut is_idle = false;
        let round = loop {
            if self.interrupt.is_set() || self.over.load(Ordering::Relaxed) {
                break None;
            }
            if let Some(round) = state.rounds.take(board) {
                break Some(round);
            }
            if state.rounds.are_finished() {
                if self.needs_more.as_ref().is_some_and(|needs_more| needs_more(state.rounds.count())) {
                    state.rounds.add();
                    continue;
                }
                self.over.store(true, Ordering::Relaxed);
                self.changed.notify_all();
                break None;
            }
            // If more rounds may be added, all boards are needed for them.
            if self.gives_back && self.needs_more.is_none() && !is_idle && state.idle > 0 {
                state.rounds.remove(board);
                break None;
            }
            if !std::mem::replace(&mut is_idle, true) {
                state.idle += 1;
            }
            state = self.wait(state);
        };
        state.idle -= usize::from(is_idle);
        round
    }

    /// A board has finished its round.
    pub(crate) fn finish(&self, board: usize) {
        self.lock().rounds.finish(board);
        self.changed.notify_all();
    }

    /// A board is lost. Its round goes to another one.
    pub(crate) fn remove(&self, board: usize) {
        let mut state = self.lock();
        state.rounds.remove(board);
        if matches!(state.profiles, SharedProfiles::BeingMeasured { by } if by == board) {
            state.profiles = SharedProfiles::Missing;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Whether another board remains.
    pub(crate) fn has_others(&self) -> bool {
        self.lock().rounds.boards() > 1
    }

    /// The first board that asks measures the profiles, and the others wait; if that board is lost, the next one measures.
    pub(crate) fn profile_source(&self, board: usize) -> ProfileSource {
        let mut state = self.lock();
        loop {
            if self.interrupt.is_set() {
                return ProfileSource::Interrupted;
            }
            match &state.profiles {
                SharedProfiles::Known(known) => return ProfileSource::Shared(Arc::clone(known)),
                SharedProfiles::Missing => {
                    state.profiles = SharedProfiles::BeingMeasured { by: board };
                    return ProfileSource::Measure;
                }
                SharedProfiles::BeingMeasured { .. } => state = self.wait(state),
            }
        }
    }

    /// Gives the profiles of one board to the others.
    pub(crate) fn share_profiles(&self, profiles: ProfileRecords) {
        self.lock().profiles = SharedProfiles::Known(Arc::new(profiles));
        self.changed.notify_all();
    }
}

impl std::fmt::Debug for RoundQueue {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("RoundQueue").field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(boards: usize, rounds: u32) -> RoundQueue {
        RoundQueue::new(Interrupt::default(), boards, rounds, &BTreeSet::new(), &BTreeMap::new())
    }

    #[test]
    fn each_round_goes_to_one_board() {
        let queue = queue(4, 50);
        let mut all: Vec<u32> = std::thread::scope(|scope| {
            let work = |board: usize| {
                let queue = &queue;
                move || {
                    let mut rounds = Vec::new();
                    while let Some(round) = queue.next(board) {
                        rounds.push(round);
                        std::thread::yield_now();
                        queue.finish(board);
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
    fn the_round_of_a_lost_board_goes_to_a_waiting_one() {
        let queue = queue(2, 2);
        assert_eq!((queue.next(0), queue.next(1)), (Some(0), Some(1)));
        std::thread::scope(|scope| {
            queue.finish(1);
            // Only the other board's round is left.
            let waits = scope.spawn(|| queue.next(1));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waits.is_finished());
            queue.remove(0);
            assert_eq!(waits.join().unwrap(), Some(0));
        });
        assert!(!queue.has_others());
        queue.finish(1);
        assert_eq!(queue.next(1), None);
    }

    #[test]
    fn a_round_continues_on_the_board_that_began_it() {
        let (done, parts) = (BTreeSet::from([0, 3]), BTreeMap::from([(2, 1), (4, 0)]));
        let queue = RoundQueue::new(Interrupt::default(), 2, 4, &done, &parts);
        assert_eq!(queue.next(1), Some(2));
        assert_eq!(queue.next(1), Some(1));
        queue.remove(0);
        queue.finish(1);
        // Its board is lost.
        assert_eq!(queue.next(1), Some(4));
        queue.finish(1);
        assert_eq!(queue.next(1), None);
    }

    #[test]
    fn boards_of_a_farm_join_and_of_idle_ones_one_waits() {
        let queue = queue(0, 2).of_farm();
        for board in 0..4 {
            queue.join(board);
        }
        assert_eq!((queue.next(0), queue.next(1)), (Some(0), Some(1)));
        std::thread::scope(|scope| {
            let spare = scope.spawn(|| queue.next(2));
            while queue.lock().idle == 0 {
                std::thread::yield_now();
            }
            assert_eq!(queue.next(3), None, "it is given back");
            queue.remove(1);
            assert_eq!(spare.join().unwrap(), Some(1));
        });
        queue.finish(0);
        assert!(!queue.over().load(Ordering::Relaxed));
        queue.finish(2);
        assert_eq!(queue.next(2), None);
        assert!(queue.over().load(Ordering::Relaxed));
    }

    #[test]
    fn rounds_are_added_until_enough() {
        let queue = queue(2, 1).until(Box::new(|rounds| rounds < 4));
        let mut rounds = Vec::new();
        while let Some(round) = queue.next(0) {
            rounds.push(round);
            queue.finish(0);
        }
        assert_eq!(rounds, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn one_board_profiles_and_another_one_if_it_is_lost() {
        let queue = queue(2, 1);
        assert!(matches!(queue.profile_source(0), ProfileSource::Measure));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| queue.profile_source(1));
            queue.remove(0);
            assert!(matches!(second.join().unwrap(), ProfileSource::Measure));
        });
        queue.share_profiles(ProfileRecords::default());
        assert!(matches!(queue.profile_source(2), ProfileSource::Shared(_)));
    }
}
