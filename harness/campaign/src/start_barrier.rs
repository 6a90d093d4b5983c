//! If the harness' own machine is one of several boards, all boards start measuring together, so that compiling for one
//! board does not disturb the measurements on this machine.

use host::interrupt::Interrupt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a waiting board checks for Ctrl-C.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Boards prepare one at a time, and start measuring together.
#[derive(Debug)]
pub(crate) struct StartBarrier {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    is_preparing: bool,
    /// Boards that have not finished preparing.
    missing: usize,
}

/// Held by the board that is preparing. Dropping it counts the board as prepared.
#[derive(Debug)]
pub(crate) struct PreparationGuard {
    barrier: Arc<StartBarrier>,
}

impl StartBarrier {
    /// A barrier for this number of boards.
    pub(crate) fn new(boards: usize) -> Self {
        Self { state: Mutex::new(State { is_preparing: false, missing: boards }), changed: Condvar::new() }
    }

    /// Waits until no other board is preparing.
    pub(crate) fn prepare(self: &Arc<Self>) -> PreparationGuard {
        let mut state = self.lock();
        while state.is_preparing {
            state = self.wait(state);
        }
        state.is_preparing = true;
        PreparationGuard { barrier: Arc::clone(self) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait_timeout(state, CHECK_INTERVAL).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl PreparationGuard {
    /// Ends the preparation and waits for all other boards, or for Ctrl-C.
    pub(crate) fn wait_for_all(self, interrupt: &Interrupt) {
        let barrier = Arc::clone(&self.barrier);
        drop(self);
        let mut state = barrier.lock();
        while state.missing > 0 && !interrupt.is_set() {
            state = barrier.wait(state);
        }
    }
}

impl Drop for PreparationGuard {
    fn drop(&mut self) {
        let mut state = self.barrier.lock();
        state.is_preparing = false;
        state.missing = state.missing.saturating_sub(1);
        drop(state);
        self.barrier.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn boards_prepare_one_at_a_time_and_start_together() {
        let barrier = Arc::new(StartBarrier::new(3));
        let (preparing, prepared) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let board = |is_lost: bool| {
            let guard = barrier.prepare();
            assert_eq!(preparing.fetch_add(1, Ordering::SeqCst), 0);
            std::thread::yield_now();
            preparing.fetch_sub(1, Ordering::SeqCst);
            prepared.fetch_add(1, Ordering::SeqCst);
            if !is_lost {
                guard.wait_for_all(&Interrupt::default());
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
