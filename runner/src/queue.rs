//! A bounded queue between two stages.
//!
//! The receiver of an empty queue looks again for a short time before it sleeps: two stages of equal speed hand
//! over within that time, and a wake-up costs more than the look. Between looks it offers its CPU to others.

use crate::clock::monotonic_ns;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How long to look before sleeping, in ns. Waking a sleeper takes 5 to 50 µs.
const PATIENCE_NS: u64 = 20_000;
/// Looks without a system call, about 1 µs of them.
const QUICK_LOOKS: u32 = 64;

/// First in, first out; room for a fixed number of items, all allocated at the start.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    capacity: usize,
    /// Number of items, or [`CLOSED`]; written under the lock, read without it.
    glance: AtomicUsize,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    closed: bool,
    receivers_asleep: usize,
    senders_asleep: usize,
}

/// In place of a number of items: nobody need wait any more.
const CLOSED: usize = usize::MAX;

impl<T> Queue<T> {
    /// An empty queue with room for `capacity` items, at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        let state = State {
            items: VecDeque::with_capacity(capacity),
            closed: false,
            receivers_asleep: 0,
            senders_asleep: 0,
        };
        Self {
            state: Mutex::new(state),
            capacity,
            glance: AtomicUsize::new(0),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        }
    }

    /// Puts an item in, waiting for room. Gives it back where the queue is closed.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        self.look(|length| length == CLOSED || length < self.capacity);
        let mut state = self.lock();
        while state.items.len() == self.capacity && !state.closed {
            state.senders_asleep += 1;
            state = self.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.senders_asleep -= 1;
        }
        if state.closed {
            return Err(item);
        }
        state.items.push_back(item);
        self.glance.store(state.items.len(), Ordering::Release);
        let wake = state.receivers_asleep > 0;
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Takes the oldest item, waiting for one. `None` where the queue is closed and empty.
    pub(crate) fn pop(&self) -> Option<T> {
        self.look(|length| length > 0);
        let mut state = self.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
                if !state.closed {
                    self.glance.store(state.items.len(), Ordering::Release);
                }
                let wake = state.senders_asleep > 0;
                drop(state);
                if wake {
                    self.emptied.notify_one();
                }
                return Some(item);
            }
            if state.closed {
                return None;
            }
            state.receivers_asleep += 1;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.receivers_asleep -= 1;
        }
    }

    /// Nothing comes in any more; what is inside can still be taken. Wakes everybody.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.glance.store(CLOSED, Ordering::Release);
        drop(state);
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    /// Looks at the number of items until it is `enough` or patience ends.
    fn look(&self, enough: impl Fn(usize) -> bool) {
        for _ in 0..QUICK_LOOKS {
            if enough(self.glance.load(Ordering::Acquire)) {
                return;
            }
            std::hint::spin_loop();
        }
        let until = monotonic_ns() + PATIENCE_NS;
        while !enough(self.glance.load(Ordering::Acquire)) && monotonic_ns() < until {
            std::thread::yield_now();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A panic elsewhere leaves the items as they were: every change is a single step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn order_is_kept_through_a_queue_that_is_often_full_and_often_empty() {
        let queue = Arc::new(Queue::new(3));
        let sender = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || {
                for item in 0..10_000_u32 {
                    queue.push(item).unwrap();
                    if item % 997 == 0 {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                }
                queue.close();
            })
        };
        let mut taken = Vec::new();
        while let Some(item) = queue.pop() {
            taken.push(item);
            if item % 1009 == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        sender.join().unwrap();
        assert_eq!(taken, (0..10_000).collect::<Vec<_>>());
    }

    #[test]
    fn never_holds_more_than_its_capacity() {
        let queue = Arc::new(Queue::new(2));
        let sender = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || (0..5).take_while(|item| queue.push(*item).is_ok()).count())
        };
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(queue.lock().items.len(), 2);
        queue.close();
        // Two are inside; the third was given back by the close.
        assert_eq!(sender.join().unwrap(), 2);
    }

    #[test]
    fn closing_wakes_a_sleeping_receiver_and_lets_the_rest_be_taken() {
        let queue = Arc::new(Queue::<u32>::new(4));
        let receiver = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || queue.pop())
        };
        std::thread::sleep(Duration::from_millis(20));
        queue.close();
        assert_eq!(receiver.join().unwrap(), None);

        let queue = Queue::new(4);
        queue.push(1).unwrap();
        queue.close();
        assert_eq!(queue.push(2), Err(2));
        assert_eq!((queue.pop(), queue.pop()), (Some(1), None));
    }
}
