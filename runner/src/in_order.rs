//! The order of the frames in a stage with replicas.
//!
//! Each replica takes the next frame when it is free. Frames that are ready before an earlier one wait for it. So while the
//! slowest replica has a frame, several collect behind it, and leave together: a *burst*.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Where items enter a stage, and leave it in the same order.
#[derive(Debug)]
pub(crate) struct InOrder<T> {
    /// Number of the next item that enters.
    entrance: Mutex<u64>,
    exit: Mutex<Exit<T>>,
    /// Most items that left together.
    burst: AtomicUsize,
}

#[derive(Debug)]
struct Exit<T> {
    /// Number of the item that leaves next.
    next: u64,
    /// That item and those after it, as far as they are ready.
    ready: VecDeque<Option<T>>,
}

impl<T> InOrder<T> {
    pub(crate) fn new() -> Self {
        let exit = Exit { next: 0, ready: VecDeque::new() };
        Self { entrance: Mutex::new(0), exit: Mutex::new(exit), burst: AtomicUsize::new(0) }
    }

    /// Lets in the item that `take` returns, with its number. One replica at a time takes an item, so that numbers have the
    /// order of the items. A replica that does not wait gets nothing while another one takes an item.
    pub(crate) fn enter<I>(&self, waits: bool, take: impl FnOnce() -> Option<I>) -> Option<(u64, I)> {
        let mut next = if waits {
            lock(&self.entrance)
        } else {
            match self.entrance.try_lock() {
                Ok(next) => next,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return None,
            }
        };
        let item = take()?;
        let number = *next;
        *next += 1;
        Some((number, item))
    }

    /// An item is ready. Passes on all that can leave now, in their order; `pass` learns whether another one follows at once.
    pub(crate) fn leave(&self, number: u64, item: T, mut pass: impl FnMut(T, bool)) {
        let mut exit = lock(&self.exit);
        let place = usize::try_from(number - exit.next).unwrap_or(usize::MAX);
        if exit.ready.len() <= place {
            exit.ready.resize_with(place + 1, || None);
        }
        exit.ready[place] = Some(item);
        let mut burst = 0;
        while let Some(item) = exit.ready.front_mut().and_then(Option::take) {
            exit.ready.pop_front();
            exit.next += 1;
            burst += 1;
            pass(item, exit.ready.front().is_some_and(Option::is_some));
        }
        self.burst.fetch_max(burst, Ordering::Relaxed);
    }

    /// Most items that have left together.
    pub(crate) fn burst(&self) -> usize {
        self.burst.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of another thread stops the execution, and what is in here is dropped.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_leave_in_the_order_in_which_they_entered() {
        let order = InOrder::new();
        let numbers: Vec<u64> = (0..6).map(|item| order.enter(true, || Some(item)).unwrap().0).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
        assert_eq!(order.enter(true, || None::<u64>), None, "no number is lost");
        let mut left = Vec::new();
        for (number, together) in [(1, 0), (0, 2), (2, 1), (5, 0), (4, 0), (3, 3)] {
            let before = left.len();
            order.leave(number, number, |item, more| left.push((item, more)));
            assert_eq!(left.len() - before, together, "after {number}");
        }
        let items: Vec<u64> = left.iter().map(|(item, _)| *item).collect();
        assert_eq!(items, [0, 1, 2, 3, 4, 5]);
        let followed: Vec<bool> = left.iter().map(|(_, more)| *more).collect();
        assert_eq!(followed, [true, false, false, true, true, false]);
        assert_eq!((order.burst(), order.enter(true, || Some(6)).unwrap().0), (3, 6));
    }

    #[test]
    fn a_replica_that_does_not_wait_gets_nothing_while_another_one_takes_an_item() {
        let order = InOrder::<()>::new();
        let (number, ()) = order
            .enter(true, || {
                assert_eq!(order.enter(false, || Some(())), None);
                Some(())
            })
            .unwrap();
        assert_eq!((number, order.enter(false, || Some(()))), (0, Some((1, ()))));
    }
}
