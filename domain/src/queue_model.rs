//! A model of how a schedule processes the frames of a stream, without threads and clocks, for
//! [`queue_plan`](crate::queue_plan).

use crate::load::{ArrivalTimes, QueuePolicy, StreamLoad};
use crate::random::SplitMix64;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Simulated arrivals.
pub const FRAMES: usize = 20_000;
/// The first of them, which are not counted.
pub(crate) const WARM_UP: usize = 1_000;
/// Seeds of arrivals and of times.
const SEEDS: (u64, u64) = (1, 2);

/// The stages of a schedule as the model has them.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// In stage order, at least one.
    pub stages: Vec<StageModel>,
    /// Whether each stage computes whole frames, as the replicas of a network do.
    pub side_by_side: bool,
}

/// A stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StageModel {
    /// Predicted time of a frame in ns, above 0.
    pub ns: f64,
    /// Times of profiled frames over their median; empty if all frames take the same time.
    pub spread: Vec<f64>,
    /// Whether it takes the next frame before it has finished one, as a GPU does.
    pub overlaps: bool,
}

impl StageModel {
    pub(crate) fn mean_ns(&self) -> f64 {
        let mean = self.spread.iter().sum::<f64>() / self.spread.len().max(1) as f64;
        self.ns * if self.spread.is_empty() { 1.0 } else { mean }
    }
}

impl Line {
    /// Frames per second that it computes at most, on average.
    pub(crate) fn rate(&self) -> f64 {
        let rates = self.stages.iter().map(|stage| 1e9 / stage.mean_ns());
        if self.side_by_side { rates.sum() } else { rates.fold(f64::INFINITY, f64::min) }
    }
}

/// Frames that are lost, as shares of those that arrive.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// Dropped.
    pub dropped: f64,
    /// Completed after the deadline; 0 without one.
    pub late: f64,
}

impl Loss {
    /// All of them.
    pub(crate) fn total(self) -> f64 {
        self.dropped + self.late
    }
}

/// The arrivals and the times of all frames, which are the same for all lengths.
pub(crate) struct Simulation<'a> {
    pub(crate) line: &'a Line,
    pub(crate) stream: &'a StreamLoad,
    /// Time in ns and stream of each.
    arrivals: Vec<(f64, usize)>,
    /// By frame and stage, in ns.
    times: Vec<f64>,
}

impl<'a> Simulation<'a> {
    pub(crate) fn new(line: &'a Line, stream: &'a StreamLoad) -> Self {
        let mut random = SplitMix64::new(SEEDS.1);
        let mut time = |stage: &StageModel| {
            let ratio = stage.spread.get(random.below(stage.spread.len()));
            stage.ns * ratio.copied().unwrap_or(1.0)
        };
        let times = (0..FRAMES).flat_map(|_| line.stages.iter().map(&mut time).collect::<Vec<_>>()).collect();
        Self { line, stream, arrivals: arrivals(stream), times }
    }

    /// Times of a frame by stage.
    fn times_of(&self, frame: usize) -> &[f64] {
        let stages = self.line.stages.len();
        &self.times[frame * stages..][..stages]
    }

    /// The longest latency in ns if the queue of each stream is always full and every stage takes its predicted time.
    pub(crate) fn latency_if_full(&self, before: u32, between: u32) -> f64 {
        let mut stages = Stages::new(self.line, between);
        let times: Vec<f64> = self.line.stages.iter().map(|stage| stage.ns).collect();
        let places = (before as usize).saturating_mul(self.stream.streams as usize);
        // Long enough for all queues to fill.
        let later = self.line.stages.len() * (between as usize + 2);
        let frames = 2 * places + 4 * later + 16;
        let mut taken: VecDeque<f64> = VecDeque::with_capacity(places);
        let mut longest = 0.0_f64;
        for _ in 0..frames {
            // It arrives when a frame leaves the place that it takes.
            let arrived = if taken.len() == places { taken.pop_front().unwrap_or(0.0) } else { 0.0 };
            let (take, completed) = stages.pass(arrived, &times);
            taken.push_back(take);
            longest = longest.max(completed - arrived);
        }
        longest
    }

    /// What is lost with these queues.
    pub(crate) fn loss(&self, before: u32, between: u32) -> Loss {
        let deadline_ns = self.stream.deadline_ms.map_or(f64::INFINITY, |ms| 1e6 * ms);
        let mut stages = Stages::new(self.line, between);
        let mut waiting = Waiting::new(self.stream, before);
        let (mut dropped, mut late) = (0_usize, 0_usize);
        let counts = |frame: usize| usize::from(frame >= WARM_UP);
        let mut run_until = |waiting: &mut Waiting, now_ns: f64, late: &mut usize| {
            while let Some(frame) = waiting.front() {
                let arrived = self.arrivals[frame].0;
                if stages.next_take(arrived) > now_ns {
                    break;
                }
                waiting.take();
                let (_, completed) = stages.pass(arrived, self.times_of(frame));
                *late += if completed - arrived > deadline_ns { counts(frame) } else { 0 };
            }
        };
        for (frame, (at_ns, stream)) in self.arrivals.iter().enumerate() {
            run_until(&mut waiting, *at_ns, &mut late);
            dropped += waiting.offer(frame, *stream).map_or(0, counts);
        }
        // What becomes of the frames that still wait is not known.
        let all = (FRAMES - WARM_UP - waiting.counted()).max(1) as f64;
        Loss { dropped: dropped as f64 / all, late: late as f64 / all }
    }
}

/// The first arrivals of a stream: time in ns, and number of the stream.
fn arrivals(load: &StreamLoad) -> Vec<(f64, usize)> {
    let streams = (load.streams as usize).max(1);
    let mut random = SplitMix64::new(SEEDS.0);
    let mut now = 0.0;
    (0..FRAMES)
        .map(|frame| match load.arrivals {
            ArrivalTimes::Constant => (frame as f64 * load.interval_ns(), frame % streams),
            ArrivalTimes::Poisson => {
                // All streams together are a Poisson process too. `unit` is below 1, so the logarithm is finite.
                now -= load.interval_ns() * (1.0 - random.unit()).ln();
                (now, random.below(streams))
            }
        })
        .collect()
}

/// Frames that wait for the first stage.
struct Waiting {
    queues: Vec<VecDeque<usize>>,
    places: usize,
    policy: QueuePolicy,
    turn: usize,
}

impl Waiting {
    fn new(stream: &StreamLoad, places: u32) -> Self {
        let streams = (stream.streams as usize).max(1);
        Self {
            queues: vec![VecDeque::new(); streams],
            places: places as usize,
            policy: stream.policy,
            turn: 0,
        }
    }

    /// The stream whose frame is next.
    fn place(&self) -> Option<usize> {
        let streams = self.queues.len();
        (0..streams).map(|after| (self.turn + after) % streams).find(|place| !self.queues[*place].is_empty())
    }

    /// The frame that the first stage takes next.
    fn front(&self) -> Option<usize> {
        self.queues[self.place()?].front().copied()
    }

    /// Frames that wait, without those of the warm-up.
    fn counted(&self) -> usize {
        self.queues.iter().flatten().filter(|frame| **frame >= WARM_UP).count()
    }

    fn take(&mut self) {
        if let Some(place) = self.place() {
            self.queues[place].pop_front();
            self.turn = (place + 1) % self.queues.len();
        }
    }

    /// The frame that is dropped.
    fn offer(&mut self, frame: usize, stream: usize) -> Option<usize> {
        let queue = &mut self.queues[stream];
        // A frame that the source waits with waits as well as one in the queue.
        if queue.len() < self.places || self.policy == QueuePolicy::Block {
            queue.push_back(frame);
            return None;
        }
        if self.policy == QueuePolicy::DropNewest {
            return Some(frame);
        }
        let oldest = queue.pop_front();
        queue.push_back(frame);
        oldest
    }
}

/// What the stages are doing.
struct Stages<'a> {
    line: &'a Line,
    /// Frames that can wait before each stage but the first.
    places: usize,
    states: Vec<StageState>,
}

/// The latest frames of a stage; all times in ns.
#[derive(Clone, Default)]
struct StageState {
    /// When it took the latest ones, as many as can wait before it.
    taken: VecDeque<f64>,
    last_taken: f64,
    /// When it had computed the last one.
    ended: f64,
    /// When the last one and the one before left it.
    left: [f64; 2],
}

impl StageState {
    /// When it takes a frame that is there from `ready` on.
    fn take(&self, ready: f64, overlaps: bool) -> f64 {
        // It looks once for another frame, after it has taken one and has a place for the next.
        let looks = self.last_taken.max(self.left[1]);
        if overlaps && ready <= looks { looks } else { ready.max(self.left[0]) }
    }
}

impl<'a> Stages<'a> {
    fn new(line: &'a Line, between: u32) -> Self {
        Self {
            line,
            places: (between as usize).max(1),
            states: vec![StageState::default(); line.stages.len()],
        }
    }

    /// Of stages side by side, the one that takes the next frame.
    fn first_free(&self) -> usize {
        let free = |place: &usize| self.states[*place].left[0];
        let places = 0..self.states.len();
        places.min_by(|one, other| free(one).total_cmp(&free(other))).unwrap_or(0)
    }

    /// When a frame that has arrived leaves the queue before the first stage.
    fn next_take(&self, arrived: f64) -> f64 {
        let place = if self.line.side_by_side { self.first_free() } else { 0 };
        self.states[place].take(arrived, self.line.stages[place].overlaps)
    }

    /// Passes the next frame through. Returns when it left the queue before the first stage, and when it completed. `times` are by
    /// stage.
    fn pass(&mut self, arrived: f64, times: &[f64]) -> (f64, f64) {
        if self.line.side_by_side {
            let place = self.first_free();
            let overlaps = self.line.stages[place].overlaps;
            let state = &mut self.states[place];
            let taken = state.take(arrived, overlaps);
            state.compute(taken, times[place]);
            let completed = state.leave(state.ended);
            return (taken, completed);
        }
        let (mut ready, mut first) = (arrived, None);
        for (place, ns) in times.iter().enumerate() {
            let overlaps = self.line.stages[place].overlaps;
            let state = &mut self.states[place];
            let taken = state.take(ready, overlaps);
            first.get_or_insert(taken);
            state.compute(taken, *ns);
            if place > 0 {
                if state.taken.len() == self.places {
                    state.taken.pop_front();
                }
                state.taken.push_back(taken);
            }
            // It keeps the frame until the next queue has a place: until the frame leaves it that is as many ahead.
            let next = self.states.get(place + 1);
            let full = next.filter(|next| next.taken.len() == self.places);
            let has_place = full.and_then(|next| next.taken.front().copied()).unwrap_or(0.0);
            let state = &mut self.states[place];
            ready = state.leave(state.ended.max(has_place));
        }
        (first.unwrap_or(arrived), ready)
    }
}

impl StageState {
    fn compute(&mut self, taken: f64, ns: f64) {
        self.last_taken = taken;
        self.ended = self.ended.max(taken) + ns;
    }

    fn leave(&mut self, at: f64) -> f64 {
        let at = at.max(self.left[0]);
        self.left = [at, self.left[0]];
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::QueueLength;

    /// Share of frames that find a stage busy and `queue` frames waiting: Poisson arrivals, equal service times, by the Markov chain
    /// of the frames left behind by a departure (Gross & Harris, "Fundamentals of queueing theory").
    fn loss_of_poisson(rho: f64, queue: usize) -> f64 {
        let poisson = |k: usize| (1..=k).fold((-rho).exp(), |term, i| term * rho / i as f64);
        let mut left = vec![1.0];
        for state in 0..queue {
            let from_others: f64 = (1..=state).map(|other| left[other] * poisson(state + 1 - other)).sum();
            let next: f64 = (left[state] - left[0] * poisson(state) - from_others) / poisson(0);
            left.push(next);
        }
        let empty = left[0] / left.iter().sum::<f64>();
        1.0 - 1.0 / (empty + rho)
    }

    #[test]
    fn drops_of_random_arrivals_agree_with_theory() {
        let stage = StageModel { ns: 1e7, spread: Vec::new(), overlaps: false };
        let line = Line { stages: vec![stage], side_by_side: false };
        for policy in [QueuePolicy::DropOldest, QueuePolicy::DropNewest] {
            for (queue, fps) in [(1, 90.0), (3, 90.0), (8, 90.0), (2, 150.0)] {
                let arrivals = ArrivalTimes::Poisson;
                let length = QueueLength::Places(queue);
                let load = StreamLoad { fps, streams: 1, queue: length, policy, deadline_ms: None, arrivals };
                let found = Simulation::new(&line, &load).loss(queue, 1).dropped;
                let expected = loss_of_poisson(fps / 100.0, queue as usize);
                assert!((found - expected).abs() < 0.015, "{policy} {queue}: {found} {expected}");
            }
        }
    }
}
