//! A bounded queue between two stages.
//!
//! A thread that must wait polls for a short time before it sleeps: stages of equal speed hand over within that time, and a
//! wake-up costs more than polling. Between polls it yields its CPU.

use crate::clock::monotonic_ns;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How long to poll before sleeping. Waking a sleeping thread takes 5 to 50 µs.
const POLL_NS: u64 = 20_000;
/// Polls without a system call; they take about 1 µs.
const QUICK_POLLS: u32 = 64;

/// A FIFO queue of fixed capacity, allocated in advance.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    capacity: usize,
    /// Number of items, or [`CLOSED`]; written under the lock, polled without it.
    polled_length: AtomicUsize,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    closed: bool,
    sleeping_receivers: usize,
    sleeping_senders: usize,
}

/// A length that never makes a thread wait.
const CLOSED: usize = usize::MAX;

impl<T> Queue<T> {
    /// An empty queue. A capacity of 0 becomes 1.
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        let state = State {
            items: VecDeque::with_capacity(capacity),
            closed: false,
            sleeping_receivers: 0,
            sleeping_senders: 0,
        };
        Self {
            state: Mutex::new(state),
            capacity,
            polled_length: AtomicUsize::new(0),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        }
    }

    /// Adds an item, and waits for space if the queue is full. A closed queue returns the item as an error.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.below(self.capacity);
        if state.closed {
            return Err(item);
        }
        state.items.push_back(item);
        self.polled_length.store(state.items.len(), Ordering::Release);
        let wake = state.sleeping_receivers > 0;
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits until there are fewer items, or the queue is closed.
    pub(crate) fn wait_below(&self, length: usize) {
        drop(self.below(length));
    }

    fn below(&self, length: usize) -> MutexGuard<'_, State<T>> {
        self.poll(|now| now == CLOSED || now < length);
        let mut state = self.lock();
        while state.items.len() >= length && !state.closed {
            state.sleeping_senders += 1;
            state = self.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.sleeping_senders -= 1;
        }
        state
    }

    /// Removes the oldest item, and waits for one if the queue is empty. `None`: the queue is closed and empty.
    pub(crate) fn pop(&self) -> Option<T> {
        self.poll(|length| length > 0);
        let mut state = self.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
                return Some(self.taken(state, item));
            }
            if state.closed {
                return None;
            }
            state.sleeping_receivers += 1;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.sleeping_receivers -= 1;
        }
    }

    /// Removes the oldest item if there is one.
    pub(crate) fn try_pop(&self) -> Option<T> {
        let mut state = self.lock();
        let item = state.items.pop_front()?;
        Some(self.taken(state, item))
    }

    /// Number of items.
    pub(crate) fn length(&self) -> usize {
        self.lock().items.len()
    }

    /// Wakes a sender after an item was removed.
    fn taken(&self, state: MutexGuard<'_, State<T>>, item: T) -> T {
        if !state.closed {
            self.polled_length.store(state.items.len(), Ordering::Release);
        }
        let wake = state.sleeping_senders > 0;
        drop(state);
        if wake {
            self.emptied.notify_one();
        }
        item
    }

    /// Rejects further items and wakes all waiting threads. Items in the queue can still be removed.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.polled_length.store(CLOSED, Ordering::Release);
        drop(state);
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    /// Polls the number of items until it is `enough` or the time is over.
    fn poll(&self, enough: impl Fn(usize) -> bool) {
        for _ in 0..QUICK_POLLS {
            if enough(self.polled_length.load(Ordering::Acquire)) {
                return;
            }
            std::hint::spin_loop();
        }
        let until = monotonic_ns() + POLL_NS;
        while !enough(self.polled_length.load(Ordering::Acquire)) && monotonic_ns() < until {
            std::thread::yield_now();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A panic of another thread cannot leave the state inconsistent: every change is a single step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn items_keep_their_order() {
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
    fn the_capacity_is_a_limit() {
        let queue = Arc::new(Queue::new(2));
        let sender = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || (0..5).take_while(|item| queue.push(*item).is_ok()).count())
        };
        // The third one has to wait, until it sleeps.
        while queue.lock().sleeping_senders == 0 {
            assert!(!sender.is_finished(), "{} items", queue.length());
            std::thread::yield_now();
        }
        assert_eq!(queue.length(), 2);
        queue.close();
        // Two are in the queue; closing returned the third.
        assert_eq!(sender.join().unwrap(), 2);
    }

    #[test]
    fn closing_wakes_a_receiver_and_keeps_the_items() {
        let queue = Arc::new(Queue::<u32>::new(4));
        let receiver = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || queue.pop())
        };
        while queue.lock().sleeping_receivers == 0 {
            std::thread::yield_now();
        }
        queue.close();
        assert_eq!(receiver.join().unwrap(), None);

        let queue = Queue::new(4);
        assert_eq!(queue.try_pop(), None);
        queue.push(1).unwrap();
        queue.push(3).unwrap();
        queue.close();
        assert_eq!(queue.push(2), Err(2));
        assert_eq!(
            (queue.try_pop(), queue.pop(), queue.pop(), queue.try_pop()),
            (Some(1), Some(3), None, None)
        );
    }
}
