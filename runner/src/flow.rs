//! Frames flowing through stages.

use crate::clock::monotonic_ns;
use crate::engine::{Code, Tensor, ThreadUsage};
use crate::failure::Failure;
use crate::frames::FrameSet;
use crate::hindrance::Hindrance;
use crate::packet::Packet;
use crate::queue::Queue;
use crate::recorder::{Recorder, Turn};
use crate::wiring::{StageWiring, Wiring};
use protocol::Kind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;

/// One flow of frames: what the threads of its stages share.
#[derive(Debug)]
pub(crate) struct Flow {
    kind: Kind,
    inputs: Vec<usize>,
    frames: Arc<FrameSet>,
    hindrance: Hindrance,
    admitted: AtomicU64,
    limit: u64,
    /// Packets that carry no frame. There are enough for all stages and queues, so none is ever waited for.
    spare: Queue<Box<Packet>>,
    /// Queue `i` leads from stage `i` to stage `i + 1`; none between replicas.
    between: Vec<Queue<Box<Packet>>>,
    bounds: Bounds,
    sink: Sink,
    stopped: AtomicBool,
    failure: Mutex<Option<Failure>>,
    observer: Thread,
}

/// Where completed frames go.
#[derive(Debug)]
pub(crate) enum Sink {
    /// Their times are kept.
    Record(Mutex<Recorder>),
    /// The tensors at these indices are kept, frame by frame; the flow ends after each distinct frame once.
    Collect {
        /// Indices of what is kept.
        outputs: Vec<usize>,
        /// What was kept so far.
        kept: Mutex<Vec<Vec<Tensor>>>,
    },
}

/// What a stage did during the window.
#[derive(Debug, Default)]
pub(crate) struct StageReport {
    /// Frames it finished.
    pub(crate) frames: u64,
    /// Time inside the library.
    pub(crate) busy_ns: u64,
    /// Time waiting for a frame.
    pub(crate) waiting_input_ns: u64,
    /// Time waiting for a place to put one.
    pub(crate) waiting_output_ns: u64,
    /// What its thread cost, from its first step after the opening to its first after the closing.
    pub(crate) usage: ThreadUsage,
}

/// When the window opened and closed.
#[derive(Debug)]
struct Bounds {
    opened: AtomicU64,
    closed: AtomicU64,
}

/// In place of a time: not yet.
const NOT_YET: u64 = u64::MAX;

impl Bounds {
    fn opened(&self) -> bool {
        self.opened.load(Ordering::Acquire) != NOT_YET
    }

    fn closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) != NOT_YET
    }

    /// The part of a time span that lies in the window, in ns. Spans that end before the window has opened have
    /// none, and before it has closed its end is open.
    fn overlap(&self, begin_ns: u64, end_ns: u64) -> u64 {
        let opened = self.opened.load(Ordering::Acquire);
        let closed = self.closed.load(Ordering::Acquire);
        end_ns.min(closed).saturating_sub(begin_ns.max(opened))
    }

    fn contains(&self, at_ns: u64) -> bool {
        at_ns > self.opened.load(Ordering::Acquire) && at_ns <= self.closed.load(Ordering::Acquire)
    }
}

impl Flow {
    /// A flow that has not begun. `queue_depth` packets may wait between two stages. The calling thread is woken
    /// when the window opens, closes, or the flow fails.
    pub(crate) fn new(wiring: &Wiring, frames: Arc<FrameSet>, queue_depth: u32, sink: Sink) -> Self {
        let stages = wiring.stages.len();
        let depth = usize::try_from(queue_depth).unwrap_or(1).clamp(1, 4096);
        let queues = if wiring.kind == Kind::Replicate { 0 } else { stages - 1 };
        let packets = stages + queues * depth;
        let spare = Queue::new(packets);
        for _ in 0..packets {
            let full = spare.push(Box::new(Packet::new(wiring.values.len(), stages)));
            debug_assert!(full.is_ok(), "a fresh queue is open");
        }
        let limit = match sink {
            Sink::Record(_) => u64::MAX,
            Sink::Collect { .. } => frames.distinct() as u64,
        };
        Self {
            kind: wiring.kind,
            inputs: wiring.inputs.clone(),
            frames,
            hindrance: Hindrance::default(),
            admitted: AtomicU64::new(0),
            limit,
            spare,
            between: (0..queues).map(|_| Queue::new(depth)).collect(),
            bounds: Bounds { opened: AtomicU64::new(NOT_YET), closed: AtomicU64::new(NOT_YET) },
            sink,
            stopped: AtomicBool::new(false),
            failure: Mutex::new(None),
            observer: std::thread::current(),
        }
    }

    /// The same flow with stages that are slower on purpose.
    pub(crate) fn hindered(self, hindrance: Hindrance) -> Self {
        Self { hindrance, ..self }
    }

    /// Runs a stage until the flow ends. To be called by one thread a stage.
    pub(crate) fn run_stage(&self, place: usize, stage: &StageWiring, code: &mut Code) -> StageReport {
        let _guard = StopOnPanic { flow: self, place };
        let mut report = StageReport::default();
        let mut usage = UsageOfWindow::default();
        while !self.stopped.load(Ordering::Acquire) {
            let Some(mut packet) = self.receive(place, &mut report) else { break };
            usage.step(&self.bounds);
            let begin = monotonic_ns();
            if packet.entered_ns == 0 {
                packet.entered_ns = begin;
                self.entered(&packet);
            }
            if let Err(message) = code.run(&mut packet.values, &stage.inputs, &stage.outputs) {
                self.fail(Failure::execution(format!("{message} (stage {place}, frame {})", packet.frame)));
                break;
            }
            let end = self.hindrance.after(place, begin, monotonic_ns());
            packet.spans[place] = (begin, end);
            report.busy_ns += self.bounds.overlap(begin, end);
            report.frames += u64::from(self.deliver(place, packet, stage, end, &mut report));
            usage.step(&self.bounds);
        }
        if let Some(next) = self.queue_after(place) {
            next.close();
        }
        usage.step(&self.bounds);
        report.usage = usage.total();
        report
    }

    /// The next frame for a stage.
    fn receive(&self, place: usize, report: &mut StageReport) -> Option<Box<Packet>> {
        let begin = monotonic_ns();
        if place > 0 && self.kind != Kind::Replicate {
            let packet = self.between[place - 1].pop();
            report.waiting_input_ns += self.bounds.overlap(begin, monotonic_ns());
            return packet;
        }
        let frame = self.admitted.fetch_add(1, Ordering::Relaxed);
        if frame >= self.limit {
            return None;
        }
        let mut packet = self.spare.pop()?;
        packet.admit(frame, &self.inputs, self.frames.frame(frame));
        packet.entered_ns = 0;
        Some(packet)
    }

    /// Hands a packet on; whether its frame counts for this stage's window.
    fn deliver(
        &self,
        place: usize,
        mut packet: Box<Packet>,
        stage: &StageWiring,
        end: u64,
        report: &mut StageReport,
    ) -> bool {
        if let Some(next) = self.queue_after(place) {
            packet.release(&stage.dead);
            let begin = monotonic_ns();
            // Refused only where the flow is at its end.
            drop(next.push(packet));
            report.waiting_output_ns += self.bounds.overlap(begin, monotonic_ns());
            return self.bounds.contains(end);
        }
        let counts = self.complete(&packet, place);
        packet.values.iter_mut().for_each(|value| *value = None);
        drop(self.spare.push(packet));
        counts
    }

    /// A frame has passed all stages. Whether it counts for the window.
    fn complete(&self, packet: &Packet, place: usize) -> bool {
        match &self.sink {
            Sink::Collect { outputs, kept } => {
                let tensors = outputs.iter().filter_map(|index| packet.values[*index].clone());
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(tensors.collect());
                false
            }
            Sink::Record(recorder) => {
                let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
                let was_open = self.bounds.opened() && !self.bounds.closed();
                // Taken under the lock, so that completions of replicas ascend.
                let now = monotonic_ns();
                match recorder.complete(packet, place, now) {
                    Turn::Goes => {}
                    Turn::Opens => {
                        self.bounds.opened.store(now, Ordering::Release);
                        self.observer.unpark();
                    }
                    Turn::Closes => {
                        self.bounds.closed.store(now, Ordering::Release);
                        self.stop();
                    }
                }
                was_open
            }
        }
    }

    fn entered(&self, packet: &Packet) {
        if let (0, Sink::Record(recorder)) = (packet.frame, &self.sink) {
            recorder.lock().unwrap_or_else(PoisonError::into_inner).begin(packet.entered_ns);
        }
    }

    fn queue_after(&self, place: usize) -> Option<&Queue<Box<Packet>>> {
        self.between.get(place)
    }

    /// Ends the flow; frames under way are dropped between stages.
    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.spare.close();
        self.between.iter().for_each(Queue::close);
        self.observer.unpark();
    }

    fn fail(&self, failure: Failure) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        self.stop();
    }

    /// Waits for the window to open. Whether it did; else the flow has ended.
    pub(crate) fn wait_opened(&self) -> bool {
        self.wait(|| self.bounds.opened())
    }

    /// Waits for the window to close. Whether it did; else the flow has ended.
    pub(crate) fn wait_closed(&self) -> bool {
        self.wait(|| self.bounds.closed())
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

    /// After all stages have ended: what was kept, or why the flow failed.
    pub(crate) fn finish(self: Arc<Self>) -> Result<Sink, Failure> {
        let flow =
            Arc::into_inner(self).ok_or_else(|| Failure::internal("failed to end the flow: it is in use"))?;
        match flow.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(failure) => Err(failure),
            None => Ok(flow.sink),
        }
    }
}

/// The cost of a thread between its first steps after the opening and after the closing.
#[derive(Debug, Default)]
struct UsageOfWindow {
    first: Option<ThreadUsage>,
    last: Option<ThreadUsage>,
}

impl UsageOfWindow {
    fn step(&mut self, bounds: &Bounds) {
        if self.first.is_none() && bounds.opened() {
            self.first = Some(ThreadUsage::now());
        }
        if self.last.is_none() && bounds.closed() {
            self.last = Some(ThreadUsage::now());
        }
    }

    fn total(&self) -> ThreadUsage {
        self.first.zip(self.last).map(|(first, last)| last.since(first)).unwrap_or_default()
    }
}

/// Ends the flow where its stage panics, so that the others do not wait for it for ever.
struct StopOnPanic<'a> {
    flow: &'a Flow,
    place: usize,
}

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.flow.fail(Failure::internal(format!("failed to run stage {}: it panicked", self.place)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_counts_where_it_lies_in_the_window() {
        let bounds = Bounds { opened: AtomicU64::new(NOT_YET), closed: AtomicU64::new(NOT_YET) };
        assert_eq!((bounds.overlap(0, 50), bounds.contains(50)), (0, false));
        bounds.opened.store(100, Ordering::Release);
        assert_eq!((bounds.overlap(0, 50), bounds.overlap(90, 130), bounds.overlap(110, 130)), (0, 30, 20));
        assert!(!bounds.contains(100) && bounds.contains(101));
        bounds.closed.store(200, Ordering::Release);
        assert_eq!(
            (bounds.overlap(190, 230), bounds.overlap(210, 230), bounds.overlap(0, 300)),
            (10, 0, 100)
        );
        assert!(bounds.contains(200) && !bounds.contains(201));
    }
}
