//! Where one of several boards is the very machine that the harness runs on: nobody measures there while the harness
//! compiles for another board.

use host::interrupt::Interrupt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a board that waits looks for Ctrl-C.
const LOOK: Duration = Duration::from_millis(200);

/// Boards prepare one after the other, and begin to measure together.
#[derive(Debug)]
pub struct StartLine {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    is_preparing: bool,
    /// Boards that are not through with it.
    missing: usize,
}

/// A board prepares, and no other does.
#[derive(Debug)]
pub struct Turn {
    line: Arc<StartLine>,
}

impl StartLine {
    /// For so many boards.
    pub fn new(boards: usize) -> Self {
        Self { state: Mutex::new(State { is_preparing: false, missing: boards }), changed: Condvar::new() }
    }

    /// Waits for a board's turn to prepare.
    pub fn turn(self: &Arc<Self>) -> Turn {
        let mut state = self.lock();
        while state.is_preparing {
            state = self.wait(state);
        }
        state.is_preparing = true;
        Turn { line: Arc::clone(self) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Turn {
    /// The board is ready; waits for all others, or the user's Ctrl-C. One that is dropped instead will not come.
    pub(super) fn wait_for_all(self, interrupt: &Interrupt) {
        let line = Arc::clone(&self.line);
        drop(self);
        let mut state = line.lock();
        while state.missing > 0 && !interrupt.is_set() {
            state = line.wait(state);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.line.lock();
        state.is_preparing = false;
        state.missing = state.missing.saturating_sub(1);
        drop(state);
        self.line.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn boards_prepare_alone_and_measure_after_all_are_through() {
        let line = Arc::new(StartLine::new(3));
        let (preparing, prepared) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let board = |is_lost: bool| {
            let turn = line.turn();
            assert_eq!(preparing.fetch_add(1, Ordering::SeqCst), 0);
            std::thread::yield_now();
            preparing.fetch_sub(1, Ordering::SeqCst);
            prepared.fetch_add(1, Ordering::SeqCst);
            if !is_lost {
                turn.wait_for_all(&Interrupt::default());
                assert_eq!(prepared.load(Ordering::SeqCst), 3);
            }
        };
        std::thread::scope(|scope| {
            for is_lost in [false, true, false] {
                let board = &board;
                scope.spawn(move || board(is_lost));
            }
        });
    }
}
