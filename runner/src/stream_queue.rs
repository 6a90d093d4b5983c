//! The queue between the source of a stream and the first stage.

use crate::arrivals::Arrival;
use crate::waiting_line::{Offered, WaitingLine};
use protocol::StreamLoad;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A [`WaitingLine`] for threads.
#[derive(Debug)]
pub(crate) struct StreamQueue {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug)]
struct State {
    line: WaitingLine,
    closed: bool,
}

/// What became of an offered frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Frames that were waiting before.
    pub(crate) waiting: usize,
    /// The frame that was dropped.
    pub(crate) dropped: Option<Arrival>,
    /// Whether the source was blocked.
    pub(crate) blocked: bool,
}

impl StreamQueue {
    pub(crate) fn new(load: &StreamLoad) -> Self {
        let state = State { line: WaitingLine::new(load), closed: false };
        Self { state: Mutex::new(state), filled: Condvar::new(), emptied: Condvar::new() }
    }

    /// Offers a frame; waits if the policy is to block. A closed queue takes none.
    pub(crate) fn offer(&self, arrival: Arrival) -> Outcome {
        let mut state = self.lock();
        let waiting = state.line.waiting();
        let mut blocked = false;
        let dropped = loop {
            if state.closed {
                break None;
            }
            match state.line.offer(arrival) {
                Offered::Waits => break None,
                Offered::Replaces(oldest) => break Some(oldest),
                Offered::Dropped => break Some(arrival),
                Offered::Blocked => {
                    blocked = true;
                    state = self.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        drop(state);
        self.filled.notify_one();
        Outcome { waiting, dropped, blocked }
    }

    /// Frames that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().line.waiting()
    }

    /// Removes the next frame, and waits for one if there is none. `None`: the queue is closed.
    pub(crate) fn pop(&self) -> Option<Arrival> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(arrival) = self.take(&mut state) {
                return Some(arrival);
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Removes the next frame if there is one.
    pub(crate) fn try_pop(&self) -> Option<Arrival> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        self.take(&mut state)
    }

    fn take(&self, state: &mut State) -> Option<Arrival> {
        let arrival = state.line.take()?;
        self.emptied.notify_one();
        Some(arrival)
    }

    /// Wakes all waiting threads; frames in the queue are left there.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another thread cannot leave the state inconsistent: every change is a single step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{ArrivalTimes, QueuePolicy};
    use std::sync::Arc;

    fn queue(policy: QueuePolicy) -> Arc<StreamQueue> {
        let arrivals = ArrivalTimes::Constant;
        let load =
            StreamLoad { fps: 1.0, streams: 1, queue: 1, policy, arrivals, deadline_ns: None, seed: 0 };
        Arc::new(StreamQueue::new(&load))
    }

    fn arrival(frame: u64) -> Arrival {
        Arrival { frame, stream: 0, scheduled_ns: frame }
    }

    #[test]
    fn a_blocked_source_goes_on_when_a_frame_is_taken() {
        let queue = queue(QueuePolicy::Block);
        assert!(!queue.offer(arrival(0)).blocked);
        let source = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || {
                (1..50).filter(|frame| queue.offer(arrival(*frame)).dropped.is_some()).count()
            })
        };
        let taken: Vec<u64> = (0..50).map(|_| queue.pop().unwrap().frame).collect();
        assert_eq!(taken, (0..50).collect::<Vec<_>>());
        assert_eq!(source.join().unwrap(), 0, "nothing is dropped");
    }

    #[test]
    fn closing_wakes_the_source_and_the_first_stage() {
        let queue = queue(QueuePolicy::Block);
        queue.offer(arrival(0));
        let blocked = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || queue.offer(arrival(1)))
        };
        queue.close();
        assert_eq!(blocked.join().unwrap().dropped, None);
        assert_eq!((queue.pop(), queue.try_pop(), queue.waiting()), (None, None, 1));
    }

    #[test]
    fn a_full_queue_tells_what_it_dropped() {
        let queue = queue(QueuePolicy::DropOldest);
        assert_eq!(queue.offer(arrival(0)), Outcome { waiting: 0, dropped: None, blocked: false });
        assert_eq!(
            queue.offer(arrival(1)),
            Outcome { waiting: 1, dropped: Some(arrival(0)), blocked: false }
        );
        assert_eq!(queue.try_pop(), Some(arrival(1)));
    }
}
