//! Frames that have arrived and wait for the first stage. Neither threads nor clocks, so that tests can simulate it.

use crate::arrivals::Arrival;
use protocol::{QueuePolicy, StreamLoad};
use std::collections::VecDeque;

/// A queue for each stream.
#[derive(Debug)]
pub(crate) struct WaitingLine {
    queues: Vec<VecDeque<Arrival>>,
    capacity: usize,
    policy: QueuePolicy,
    /// The stream whose turn is next.
    turn: usize,
    waiting: usize,
}

/// What became of an offered frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It waits.
    Waits,
    /// It waits, and this older frame of its stream was dropped for it.
    Replaces(Arrival),
    /// It was dropped.
    Dropped,
    /// It must be offered again when its queue has space.
    Blocked,
}

impl WaitingLine {
    pub(crate) fn new(load: &StreamLoad) -> Self {
        let capacity = usize::try_from(load.queue).unwrap_or(1).max(1);
        let streams = usize::try_from(load.streams).unwrap_or(1).max(1);
        Self {
            queues: (0..streams).map(|_| VecDeque::with_capacity(capacity)).collect(),
            capacity,
            policy: load.policy,
            turn: 0,
            waiting: 0,
        }
    }

    /// Number of frames of all streams that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) fn offer(&mut self, arrival: Arrival) -> Offered {
        let place = usize::try_from(arrival.stream).unwrap_or(0) % self.queues.len();
        let queue = &mut self.queues[place];
        if queue.len() < self.capacity {
            queue.push_back(arrival);
            self.waiting += 1;
            return Offered::Waits;
        }
        match self.policy {
            QueuePolicy::Block => Offered::Blocked,
            QueuePolicy::DropNewest => Offered::Dropped,
            QueuePolicy::DropOldest => {
                let oldest = queue.pop_front();
                queue.push_back(arrival);
                oldest.map_or(Offered::Waits, Offered::Replaces)
            }
        }
    }

    /// The next frame for the first stage: the oldest of the stream whose turn it is. Streams without a frame are skipped.
    pub(crate) fn take(&mut self) -> Option<Arrival> {
        for _ in 0..self.queues.len() {
            let place = self.turn;
            self.turn = (place + 1) % self.queues.len();
            if let Some(arrival) = self.queues[place].pop_front() {
                self.waiting -= 1;
                return Some(arrival);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ArrivalTimes;

    fn line(policy: QueuePolicy, streams: u32) -> WaitingLine {
        let arrivals = ArrivalTimes::Constant;
        WaitingLine::new(&StreamLoad {
            fps: 1.0,
            streams,
            queue: 2,
            policy,
            arrivals,
            deadline_ns: None,
            seed: 0,
        })
    }

    fn arrival(frame: u64, stream: u32) -> Arrival {
        Arrival { frame, stream, scheduled_ns: frame }
    }

    #[test]
    fn each_policy_has_its_own_answer_to_a_full_queue() {
        for (policy, answer, left) in [
            (QueuePolicy::DropOldest, Offered::Replaces(arrival(0, 0)), [1, 2]),
            (QueuePolicy::DropNewest, Offered::Dropped, [0, 1]),
            (QueuePolicy::Block, Offered::Blocked, [0, 1]),
        ] {
            let mut line = line(policy, 1);
            assert_eq!([0, 1].map(|frame| line.offer(arrival(frame, 0))), [Offered::Waits; 2]);
            assert_eq!((line.offer(arrival(2, 0)), line.waiting()), (answer, 2), "{policy:?}");
            assert_eq!([line.take(), line.take()].map(|taken| taken.unwrap().frame), left);
            assert_eq!((line.take(), line.waiting()), (None, 0));
        }
    }

    #[test]
    fn a_fast_stream_takes_no_turns_of_others_and_drops_only_its_own_frames() {
        let mut line = line(QueuePolicy::DropOldest, 3);
        for frame in 0..20 {
            line.offer(arrival(frame, 1));
        }
        assert_eq!(line.offer(arrival(20, 0)), Offered::Waits);
        assert_eq!(line.offer(arrival(21, 2)), Offered::Waits);
        let order: Vec<(u32, u64)> =
            std::iter::from_fn(|| line.take()).map(|arrival| (arrival.stream, arrival.frame)).collect();
        assert_eq!(order, [(0, 20), (1, 18), (2, 21), (1, 19)]);
    }
}
