//! One execution of a schedule: frames pass through the stages until the measured window has closed.

use crate::arrivals::Arrival;
use crate::clock::monotonic_ns;
use crate::engine::{Engine, MOST_FRAMES_IN_FLIGHT, Tensor, ThreadUsage};
use crate::failure::Failure;
use crate::frames::{FrameSet, FrameSlot};
use crate::in_order::InOrder;
use crate::queue::Queue;
use crate::recorder::{Completion, Recorder, Together};
use crate::schedule::{CheckedSchedule, CheckedStage};
use crate::stream_queue::StreamQueue;
use protocol::{ExecutionMode, Load};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;

/// Places for frames that wait for an earlier one in a stage with replicas, for each replica. The planner counts on half of them.
const WAITING_FOR_THEIR_TURN: usize = 16;

/// The state that the stage threads share while they execute a schedule.
#[derive(Debug)]
pub(crate) struct Pipeline {
    inputs: Vec<usize>,
    frames: Arc<FrameSet>,
    slowdown: Slowdown,
    /// Where frames of a stream wait for the first stage; absent if the load is saturating.
    stream: Option<StreamQueue>,
    admitted: AtomicU64,
    limit: u64,
    /// Slots without a frame. There are enough for all stages and queues, so no stage waits for one unless frames collect behind
    /// a slow replica.
    free_slots: Queue<Box<FrameSlot>>,
    /// Frames that may wait between two stages, apart from a burst of replicas.
    queue_depth: usize,
    /// In execution order.
    groups: Vec<Group>,
    window: WindowTimes,
    sink: Sink,
    stopped: AtomicBool,
    failure: Mutex<Option<Failure>>,
    /// Woken when the window opens or closes and when the execution stops.
    observer: Thread,
}

/// A stage with all its replicas.
#[derive(Debug)]
struct Group {
    /// Replicas that have not ended.
    running: AtomicUsize,
    /// Absent if there is one replica, or frames may overtake each other.
    order: Option<InOrder<(Box<FrameSlot>, usize)>>,
    /// To the next stage; absent after the last one.
    next: Option<Queue<Box<FrameSlot>>>,
}

/// Where completed frames go.
#[derive(Debug)]
pub(crate) enum Sink {
    /// Times are recorded.
    Record(Box<Mutex<Recorder>>),
    /// The values at these indices are collected, frame by frame. Each distinct frame runs once.
    Collect { outputs: Vec<usize>, collected: Mutex<Vec<Vec<Tensor>>> },
}

/// What a stage did during the window.
#[derive(Debug, Default)]
pub(crate) struct StageReport {
    pub(crate) frames: u64,
    /// Time in the engine.
    pub(crate) busy_ns: u64,
    /// Time waiting for a frame.
    pub(crate) waiting_input_ns: u64,
    /// Time waiting for space in the next queue.
    pub(crate) waiting_output_ns: u64,
    /// From the thread's first step after the window opened to its first step after it closed.
    pub(crate) usage: ThreadUsage,
}

/// When the window opened and closed, or [`NOT_YET`].
#[derive(Debug)]
struct WindowTimes {
    opened_ns: AtomicU64,
    closed_ns: AtomicU64,
}

const NOT_YET: u64 = u64::MAX;

impl WindowTimes {
    fn is_open(&self) -> bool {
        self.opened_ns.load(Ordering::Acquire) != NOT_YET
    }

    fn is_closed(&self) -> bool {
        self.closed_ns.load(Ordering::Acquire) != NOT_YET
    }

    /// The part of a time span that lies in the window, in ns: 0 before the window opens.
    fn overlap(&self, begin_ns: u64, end_ns: u64) -> u64 {
        let opened = self.opened_ns.load(Ordering::Acquire);
        let closed = self.closed_ns.load(Ordering::Acquire);
        end_ns.min(closed).saturating_sub(begin_ns.max(opened))
    }

    fn contains(&self, at_ns: u64) -> bool {
        at_ns > self.opened_ns.load(Ordering::Acquire) && at_ns <= self.closed_ns.load(Ordering::Acquire)
    }
}

impl Pipeline {
    /// Prepares an execution. `queue_depth` frames may wait between two stages. The calling thread becomes the observer.
    pub(crate) fn new(
        schedule: &CheckedSchedule,
        frames: Arc<FrameSet>,
        queue_depth: u32,
        sink: Sink,
    ) -> Self {
        let stages = schedule.stages.len();
        let depth = usize::try_from(queue_depth).unwrap_or(1).clamp(1, 4096);
        let in_order = schedule.kind != ExecutionMode::Replicate;
        let replicas: Vec<usize> =
            (0..schedule.groups()).map(|group| schedule.replicas(group).count()).collect();
        let out_of_turn: usize = replicas.iter().filter(|count| in_order && **count > 1).sum();
        let slots = stages * MOST_FRAMES_IN_FLIGHT
            + (replicas.len() - 1) * depth
            + out_of_turn * WAITING_FOR_THEIR_TURN;
        let free_slots = Queue::new(slots);
        for _ in 0..slots {
            let pushed = free_slots.push(Box::new(FrameSlot::new(schedule.values.len(), stages)));
            debug_assert!(pushed.is_ok(), "a new queue is open");
        }
        let group = |(place, count): (usize, &usize)| {
            let order = (in_order && *count > 1).then(InOrder::new);
            // Replicas wait before they take a frame, and not before they pass one on.
            let capacity = if order.is_some() { slots } else { depth };
            let next = (place + 1 < replicas.len()).then(|| Queue::new(capacity));
            Group { running: AtomicUsize::new(*count), order, next }
        };
        let groups = replicas.iter().enumerate().map(group).collect();
        let limit = match sink {
            Sink::Record(_) => u64::MAX,
            Sink::Collect { .. } => frames.distinct() as u64,
        };
        Self {
            inputs: schedule.inputs.clone(),
            frames,
            slowdown: Slowdown::default(),
            stream: None,
            admitted: AtomicU64::new(0),
            limit,
            free_slots,
            queue_depth: depth,
            groups,
            window: WindowTimes { opened_ns: AtomicU64::new(NOT_YET), closed_ns: AtomicU64::new(NOT_YET) },
            sink,
            stopped: AtomicBool::new(false),
            failure: Mutex::new(None),
            observer: std::thread::current(),
        }
    }

    pub(crate) fn with_slowdown(self, slowdown: Slowdown) -> Self {
        Self { slowdown, ..self }
    }

    /// Frames of a stream come from its source; one at a time, there is one slot for all of them.
    pub(crate) fn with_load(self, load: &Load) -> Self {
        if *load == Load::OneAtATime {
            while self.free_slots.length() > 1 {
                drop(self.free_slots.try_pop());
            }
        }
        Self { stream: load.stream().map(StreamQueue::new), ..self }
    }

    /// Runs a stage until the execution stops. Each stage thread calls it once.
    pub(crate) fn run_stage(
        &self,
        place: usize,
        stage: &CheckedStage,
        engine: &mut dyn Engine,
    ) -> StageReport {
        let _guard = self.stop_on_panic(&stage.name);
        let mut report = StageReport::default();
        let mut usage = WindowUsage::default();
        let mut in_flight = VecDeque::with_capacity(engine.frames_in_flight());
        let mut last_end = 0;
        while !self.stopped.load(Ordering::Acquire) {
            let is_idle = in_flight.is_empty();
            if in_flight.len() < engine.frames_in_flight()
                && let Some(mut slot) = self.receive(stage.group, is_idle, &mut report)
            {
                usage.update(&self.window);
                let begin = monotonic_ns();
                if slot.entered_ns == 0 {
                    slot.entered_ns = begin;
                    self.record_admission(&slot);
                }
                if let Err(message) = engine.start(&mut slot.values) {
                    self.fail_frame(stage, slot.frame, &message);
                    break;
                }
                in_flight.push_back((slot, begin));
                if in_flight.len() < engine.frames_in_flight() {
                    continue;
                }
            }
            let Some((mut slot, begin)) = in_flight.pop_front() else { break };
            if let Err(message) = engine.finish(&mut slot.values) {
                self.fail_frame(stage, slot.frame, &message);
                break;
            }
            // A frame that was started before the last one ended has only the time since then.
            let begin = begin.max(last_end);
            let end = self.slowdown.extend(place, begin, monotonic_ns());
            last_end = end;
            slot.spans[place] = (begin, end);
            report.busy_ns += self.window.overlap(begin, end);
            report.frames += u64::from(self.deliver(place, slot, stage, end, &mut report));
            usage.update(&self.window);
        }
        for (mut slot, _) in in_flight {
            // The engine may still read it. The reason of the stop is known already.
            engine.finish(&mut slot.values).ok();
        }
        let group = &self.groups[stage.group];
        let is_last = group.running.fetch_sub(1, Ordering::AcqRel) == 1;
        if let Some(next) = group.next.as_ref().filter(|_| is_last) {
            next.close();
        }
        usage.update(&self.window);
        report.usage = usage.total();
        report
    }

    fn fail_frame(&self, stage: &CheckedStage, frame: u64, message: &str) {
        self.fail(Failure::execution(format!("{message} ({}, frame {frame})", stage.name)));
    }

    /// The next frame for a stage; `None` at the end, or if there is none yet and the stage does not wait.
    fn receive(&self, group: usize, waits: bool, report: &mut StageReport) -> Option<Box<FrameSlot>> {
        let Group { order, next, .. } = &self.groups[group];
        let Some(order) = order else { return self.take(group, waits, report) };
        let begin = monotonic_ns();
        let entered = order.enter(waits, || {
            // Until now, another replica waited.
            report.waiting_input_ns += self.window.overlap(begin, monotonic_ns());
            if let Some(next) = next {
                let most = self.queue_depth + order.burst();
                if !waits && next.length() >= most {
                    return None;
                }
                let begin = monotonic_ns();
                next.wait_below(most);
                report.waiting_output_ns += self.window.overlap(begin, monotonic_ns());
            }
            self.take(group, waits, report)
        });
        let (turn, mut slot) = entered?;
        slot.turn = turn;
        Some(slot)
    }

    /// The next frame from the queue before a stage, or from the source before the first one.
    fn take(&self, group: usize, waits: bool, report: &mut StageReport) -> Option<Box<FrameSlot>> {
        let begin = monotonic_ns();
        if let Some(queue) = group.checked_sub(1).and_then(|before| self.groups[before].next.as_ref()) {
            if !waits {
                return queue.try_pop();
            }
            let slot = queue.pop();
            report.waiting_input_ns += self.window.overlap(begin, monotonic_ns());
            return slot;
        }
        if let Some(stream) = &self.stream {
            let arrival = if waits { stream.pop() } else { stream.try_pop() };
            report.waiting_input_ns += self.window.overlap(begin, monotonic_ns());
            let arrival = arrival?;
            let mut slot = self.free_slots.pop()?;
            slot.arrival = Some(arrival);
            self.fill(&mut slot, arrival.frame);
            return Some(slot);
        }
        let mut slot = self.free_slots.try_pop();
        // Only one frame at a time has to wait for a slot. If it is in flight in this stage, the stage finishes it first.
        if slot.is_none() && waits {
            slot = self.free_slots.pop();
            report.waiting_input_ns += self.window.overlap(begin, monotonic_ns());
        }
        let mut slot = slot?;
        let frame = self.admitted.fetch_add(1, Ordering::Relaxed);
        if frame >= self.limit {
            drop(self.free_slots.push(slot));
            return None;
        }
        self.fill(&mut slot, frame);
        Some(slot)
    }

    fn fill(&self, slot: &mut FrameSlot, frame: u64) {
        slot.set_inputs(frame, &self.inputs, self.frames.frame(frame));
        slot.entered_ns = 0;
    }

    /// Passes a frame on, in its turn. Returns whether the stage finished it in the window.
    fn deliver(
        &self,
        place: usize,
        mut slot: Box<FrameSlot>,
        stage: &CheckedStage,
        end: u64,
        report: &mut StageReport,
    ) -> bool {
        slot.release(&stage.last_uses);
        let Group { order, next, .. } = &self.groups[stage.group];
        let is_complete = next.is_none();
        let begin = monotonic_ns();
        let mut in_window = false;
        match order {
            None => in_window = self.pass(stage.group, slot, place, false),
            Some(order) => order.leave(slot.turn, (slot, place), |(slot, place), more| {
                self.pass(stage.group, slot, place, more);
            }),
        }
        if is_complete && order.is_none() {
            return in_window;
        }
        report.waiting_output_ns += self.window.overlap(begin, monotonic_ns());
        self.window.contains(end)
    }

    /// Passes a frame to the next stage, or completes it: then returns whether it counts for the window. `more` says whether
    /// another frame follows at once.
    fn pass(&self, group: usize, mut slot: Box<FrameSlot>, place: usize, more: bool) -> bool {
        if let Some(next) = &self.groups[group].next {
            // A closed queue rejects it: the execution has stopped.
            drop(next.push(slot));
            return false;
        }
        let in_window = self.complete(&slot, place, more);
        slot.values.iter_mut().for_each(|value| *value = None);
        drop(self.free_slots.push(slot));
        in_window
    }

    /// Completes a frame that has passed all stages. Returns whether it counts for the window.
    fn complete(&self, slot: &FrameSlot, place: usize, more: bool) -> bool {
        match &self.sink {
            Sink::Collect { outputs, collected } => {
                let tensors = outputs.iter().filter_map(|index| slot.values[*index].clone());
                collected.lock().unwrap_or_else(PoisonError::into_inner).push(tensors.collect());
                false
            }
            Sink::Record(recorder) => {
                let bursts = self.groups.iter().filter_map(|group| Some(group.order.as_ref()?.burst()));
                let rhythm = bursts.max().unwrap_or(1);
                let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
                let was_open = self.window.is_open() && !self.window.is_closed();
                // Read under the lock, so that completions of replicas ascend.
                let now = monotonic_ns();
                match recorder.complete(slot, place, now, Together { rhythm, more }) {
                    Completion::Ordinary => {}
                    Completion::OpensWindow => {
                        self.window.opened_ns.store(now, Ordering::Release);
                        self.observer.unpark();
                    }
                    Completion::ClosesWindow => {
                        self.window.closed_ns.store(now, Ordering::Release);
                        self.stop();
                    }
                }
                was_open
            }
        }
    }

    fn record_admission(&self, slot: &FrameSlot) {
        if let (0, Sink::Record(recorder)) = (slot.frame, &self.sink) {
            recorder.lock().unwrap_or_else(PoisonError::into_inner).begin(slot.entered_ns);
        }
    }

    /// Offers a frame of the stream to the first stage. Returns whether a full queue blocked it.
    pub(crate) fn offer(&self, arrival: Arrival, late_ns: u64) -> bool {
        let Some(stream) = &self.stream else { return false };
        let waiting = stream.waiting();
        self.record(|recorder| recorder.arrive(&arrival, late_ns, waiting));
        let outcome = stream.offer(arrival);
        if let Some(dropped) = outcome.dropped {
            self.record(|recorder| recorder.drop_frame(&dropped, monotonic_ns()));
        }
        outcome.blocked
    }

    /// Records a frame that the source could not offer before the window closed.
    pub(crate) fn record_unoffered(&self, arrival: &Arrival, late_ns: u64) {
        let waiting = self.stream.as_ref().map_or(0, StreamQueue::waiting);
        self.record(|recorder| recorder.arrive(arrival, late_ns, waiting));
    }

    /// Records the CPU time of the source in the window, and whether it ran on CPUs of its own.
    pub(crate) fn record_source(&self, cpu_ns: u64, apart: bool) {
        self.record(|recorder| recorder.source(cpu_ns, apart));
    }

    fn record(&self, record: impl FnOnce(&mut Recorder)) {
        if let Sink::Record(recorder) = &self.sink {
            record(&mut recorder.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    pub(crate) fn is_window_open(&self) -> bool {
        self.window.is_open()
    }

    /// Whether the window has closed after this time.
    pub(crate) fn closed_after(&self, at_ns: u64) -> bool {
        self.window.is_closed() && at_ns <= self.window.closed_ns.load(Ordering::Acquire)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Stops the execution; frames in flight are dropped between stages.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        if let Some(stream) = &self.stream {
            stream.close();
        }
        self.free_slots.close();
        self.groups.iter().filter_map(|group| group.next.as_ref()).for_each(Queue::close);
        self.observer.unpark();
    }

    fn fail(&self, failure: Failure) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        self.stop();
    }

    /// Stops the execution if the calling thread panics before the guard is dropped, so that no other thread waits for it
    /// forever. `name` says what the thread runs.
    pub(crate) fn stop_on_panic<'a>(&'a self, name: &'a str) -> StopOnPanic<'a> {
        StopOnPanic { pipeline: self, name }
    }

    /// Waits for the window to open. `false`: the execution stopped before.
    pub(crate) fn wait_opened(&self) -> bool {
        self.wait(|| self.window.is_open())
    }

    /// Waits for the window to close. `false`: the execution stopped before.
    pub(crate) fn wait_closed(&self) -> bool {
        self.wait(|| self.window.is_closed())
    }

    fn wait(&self, reached: impl Fn() -> bool) -> bool {
        while !reached() {
            if self.stopped.load(Ordering::Acquire) {
                return reached();
            }
            std::thread::park();
        }
        true
    }

    /// Returns the sink, after all stages have returned.
    ///
    /// # Errors
    /// The first failure of a stage.
    pub(crate) fn finish(self: Arc<Self>) -> Result<Sink, Failure> {
        let pipeline = Arc::into_inner(self)
            .ok_or_else(|| Failure::internal("failed to finish the pipeline: a stage is still running"))?;
        match pipeline.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(failure) => Err(failure),
            None => Ok(pipeline.sink),
        }
    }
}

/// Usage of a thread between its first step after the window opened and its first step after it closed.
#[derive(Debug, Default)]
struct WindowUsage {
    first: Option<ThreadUsage>,
    last: Option<ThreadUsage>,
}

impl WindowUsage {
    fn update(&mut self, window: &WindowTimes) {
        if self.first.is_none() && window.is_open() {
            self.first = Some(ThreadUsage::now());
        }
        if self.last.is_none() && window.is_closed() {
            self.last = Some(ThreadUsage::now());
        }
    }

    fn total(&self) -> ThreadUsage {
        self.first.zip(self.last).map(|(first, last)| last.since(first)).unwrap_or_default()
    }
}

/// See [`Pipeline::stop_on_panic`].
pub(crate) struct StopOnPanic<'a> {
    pipeline: &'a Pipeline,
    name: &'a str,
}

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.pipeline.fail(Failure::internal(format!("failed to run {}: it panicked", self.name)));
        }
    }
}

/// Makes stages slower on purpose, to test that regressions are found: a share of its own time, in thousandths, that each
/// stage spins after a frame. Stages without an entry are not slowed down.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slowdown {
    per_mille: Vec<u32>,
}

impl Slowdown {
    pub(crate) fn new(per_mille: &[u32]) -> Self {
        Self { per_mille: per_mille.to_vec() }
    }

    /// Spins after a frame that a stage ran from `begin_ns` to `end_ns`, and returns when the frame ends.
    #[inline]
    pub(crate) fn extend(&self, place: usize, begin_ns: u64, end_ns: u64) -> u64 {
        let Some(per_mille) = self.per_mille.get(place).filter(|share| **share > 0) else { return end_ns };
        let until = end_ns + (end_ns - begin_ns).saturating_mul(u64::from(*per_mille)) / 1000;
        loop {
            let now = monotonic_ns();
            if now >= until {
                return now;
            }
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_in_the_window_counts() {
        let window = WindowTimes { opened_ns: AtomicU64::new(NOT_YET), closed_ns: AtomicU64::new(NOT_YET) };
        assert_eq!((window.overlap(0, 50), window.contains(50)), (0, false));
        window.opened_ns.store(100, Ordering::Release);
        assert_eq!((window.overlap(0, 50), window.overlap(90, 130), window.overlap(110, 130)), (0, 30, 20));
        assert!(!window.contains(100) && window.contains(101));
        window.closed_ns.store(200, Ordering::Release);
        assert_eq!(
            (window.overlap(190, 230), window.overlap(210, 230), window.overlap(0, 300)),
            (10, 0, 100)
        );
        assert!(window.contains(200) && !window.contains(201));
    }

    #[test]
    fn a_slowdown_extends_only_its_stage() {
        let slowdown = Slowdown::new(&[0, 500]);
        let now = monotonic_ns();
        let begin = now - 4_000_000;
        for place in [0, 2] {
            assert_eq!(slowdown.extend(place, begin, now), now);
        }
        let end = slowdown.extend(1, begin, now);
        assert!(end >= now + 2_000_000, "{}", end - now);
        assert_eq!(Slowdown::default().extend(0, begin, now), now);
    }
}
