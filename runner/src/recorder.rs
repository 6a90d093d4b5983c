//! Records completed frames, and decides when the measured window opens and closes.

use crate::arrivals::Arrival;
use crate::clock::unix_ns;
use crate::failure::Failure;
use crate::frames::FrameSlot;
use crate::stream_recorder::StreamRecorder;
use protocol::{ExecutionMode, Span, Streamed, WarmUp, WarmUpRule, Window, WindowRule};

/// Limit on the frames of a window, which take 32 bytes each.
const MAX_FRAMES: u32 = 4_000_000;
const MAX_TIMELINE_FRAMES: u32 = 100_000;

/// Limit on the size of a compared group, in frames.
const MAX_GROUP: usize = 32;
/// Largest difference between two medians that agree, in thousandths of the smaller one.
const TOLERANCE_PER_MILLE: u64 = 20;

/// The effect of a completed frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completion {
    Ordinary,
    OpensWindow,
    ClosesWindow,
}

/// How a completion goes together with others, if a stage has replicas.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Together {
    /// Most frames that left such a stage together, at least 1: frame times repeat after so many.
    pub(crate) rhythm: usize,
    /// Whether another frame completes at the same time. Then the window neither opens nor closes with this one.
    pub(crate) more: bool,
}

/// Completions of the warm-up and of the window. All memory of the window is allocated and touched in advance.
#[derive(Debug)]
pub(crate) struct Recorder {
    warm_up_rule: WarmUpRule,
    measure: WindowRule,
    stride: usize,
    record_stage: bool,
    begun_ns: u64,
    warm_up: WarmUp,
    opened_ns: Option<u64>,
    closed_ns: Option<u64>,
    window: Window,
    /// Present if the load is a stream.
    stream: Option<StreamRecorder>,
    /// Spans of frames of the window, frame by frame, all stages of each.
    timeline: Vec<Span>,
    timeline_frames: usize,
}

impl Recorder {
    pub(crate) fn new(trial: &protocol::Trial, stages: usize) -> Result<Self, Failure> {
        let (measure, timeline) = (&trial.measure, trial.timeline_frames);
        if measure.max_frames == 0 || measure.max_frames > MAX_FRAMES || timeline > MAX_TIMELINE_FRAMES {
            return Err(Failure::request(format!(
                "failed to prepare the window: max_frames must be from 1 to {MAX_FRAMES}, and timeline_frames at most \
                 {MAX_TIMELINE_FRAMES}"
            )));
        }
        let replicate = trial.schedule.kind == ExecutionMode::Replicate;
        let frames = usize::try_from(measure.max_frames).unwrap_or(0);
        let timeline_frames = usize::try_from(timeline).unwrap_or(0).min(frames);
        let spans = timeline_frames * if replicate { 1 } else { stages };
        let group = group_size(trial.warm_up.min_frames);
        let stream = trial.load.stream().map(|load| StreamRecorder::new(load, frames, group)).transpose()?;
        let no_span = Span { frame: 0, stage: 0, begin_ns: 0, end_ns: 0 };
        let mut recorder = Self {
            warm_up_rule: trial.warm_up.clone(),
            measure: measure.clone(),
            stride: if replicate { stages } else { 1 },
            record_stage: replicate,
            begun_ns: 0,
            warm_up: WarmUp { completed_ns: Vec::with_capacity(4096), steady: false },
            opened_ns: None,
            closed_ns: None,
            stream,
            window: Window {
                opened_unix_ns: 0,
                opened_monotonic_ns: 0,
                completed_ns: vec![u64::MAX; frames],
                latency_ns: vec![u64::MAX; frames],
                completed_by: vec![u32::MAX; if replicate { frames } else { 0 }],
            },
            timeline: vec![no_span; spans],
            timeline_frames,
        };
        // Filled above so that the pages exist; cleared now.
        recorder.window.completed_ns.clear();
        recorder.window.latency_ns.clear();
        recorder.window.completed_by.clear();
        recorder.timeline.clear();
        Ok(recorder)
    }

    /// Records the admission of the first frame, if none has arrived before.
    pub(crate) fn begin(&mut self, now_ns: u64) {
        if self.begun_ns == 0 {
            self.begun_ns = now_ns;
        }
    }

    /// Records that a frame of a stream arrived and found so many others waiting.
    pub(crate) fn arrive(&mut self, arrival: &Arrival, late_ns: u64, waiting: usize) {
        self.begin(arrival.scheduled_ns);
        let Some(stream) = &mut self.stream else { return };
        match self.opened_ns {
            None => stream.warm_up_arrival(waiting),
            Some(opened) => {
                let is_in_window = arrival.scheduled_ns > opened
                    && self.closed_ns.is_none_or(|closed| arrival.scheduled_ns <= closed);
                if is_in_window {
                    stream.arrived(arrival, late_ns, waiting, opened);
                }
            }
        }
    }

    /// Records that a frame was dropped before it reached the first stage.
    pub(crate) fn drop_frame(&mut self, arrival: &Arrival, now_ns: u64) {
        if let (Some(stream), Some(opened), None) = (&mut self.stream, self.opened_ns, self.closed_ns) {
            stream.dropped(arrival, now_ns, opened);
        }
    }

    /// Records the CPU time of a stream's source, and whether it ran on CPUs of its own.
    pub(crate) fn source(&mut self, cpu_ns: u64, apart: bool) {
        if let Some(stream) = &mut self.stream {
            stream.source(cpu_ns, apart);
        }
    }

    /// Records that `stage` completed a frame at `now_ns`.
    pub(crate) fn complete(
        &mut self,
        slot: &FrameSlot,
        stage: usize,
        now_ns: u64,
        Together { rhythm, more }: Together,
    ) -> Completion {
        self.stride = self.stride.max(rhythm);
        match self.opened_ns {
            _ if self.closed_ns.is_some() => Completion::Ordinary,
            None => self.complete_warm_up(slot, now_ns, more),
            Some(opened) => self.complete_window(slot, stage, opened, now_ns, more),
        }
    }

    fn complete_warm_up(&mut self, slot: &FrameSlot, now_ns: u64, more: bool) -> Completion {
        let elapsed = now_ns.saturating_sub(self.begun_ns);
        let warm_up = &mut self.warm_up;
        warm_up.completed_ns.push(elapsed);
        if let Some((stream, arrival)) = self.stream.as_mut().zip(slot.arrival) {
            stream.warm_up_completion(now_ns.saturating_sub(arrival.scheduled_ns));
        }
        let rule = &self.warm_up_rule;
        let enough =
            warm_up.completed_ns.len() as u64 >= u64::from(rule.min_frames) && elapsed >= rule.min_ns;
        let late = elapsed >= rule.max_ns;
        if more || (!enough && !late) {
            return Completion::Ordinary;
        }
        warm_up.steady = match &self.stream {
            None => is_steady(&warm_up.completed_ns, self.stride, rule.min_frames),
            Some(stream) => stream.is_steady(),
        };
        if !warm_up.steady && !late {
            return Completion::Ordinary;
        }
        self.opened_ns = Some(now_ns);
        self.window.opened_monotonic_ns = now_ns;
        self.window.opened_unix_ns = unix_ns();
        Completion::OpensWindow
    }

    fn complete_window(
        &mut self,
        slot: &FrameSlot,
        stage: usize,
        opened: u64,
        now_ns: u64,
        more: bool,
    ) -> Completion {
        let window = &mut self.window;
        let elapsed = now_ns.saturating_sub(opened);
        let place = window.completed_ns.len();
        let has_space = match self.stream.as_mut().zip(slot.arrival) {
            None => true,
            Some((stream, arrival)) => {
                stream.completed(&arrival, now_ns.saturating_sub(arrival.scheduled_ns), elapsed)
            }
        };
        if has_space {
            window.completed_ns.push(elapsed);
            window.latency_ns.push(now_ns.saturating_sub(slot.entered_ns));
            if self.record_stage {
                window.completed_by.push(u32::try_from(stage).unwrap_or(u32::MAX));
            }
        }
        if place < self.timeline_frames {
            let since = |stamp: u64| stamp.cast_signed().wrapping_sub(opened.cast_signed());
            let spans = (0..).zip(&slot.spans).filter(|(_, (begin, _))| *begin > 0);
            self.timeline.extend(spans.map(|(stage, (begin, end))| Span {
                frame: slot.frame,
                stage,
                begin_ns: since(*begin),
                end_ns: since(*end),
            }));
        }
        let rule = &self.measure;
        let frames = self.stream.as_ref().map_or(place as u64 + 1, StreamRecorder::completions);
        let done = frames >= u64::from(rule.min_frames) && elapsed >= rule.min_ns;
        let is_full = self.stream.is_none() && frames >= u64::from(rule.max_frames);
        if is_full || (!more && (done || elapsed >= rule.max_ns)) {
            self.closed_ns = Some(now_ns);
            return Completion::ClosesWindow;
        }
        Completion::Ordinary
    }

    pub(crate) fn into_parts(self) -> (WarmUp, Window, Vec<Span>, Option<Streamed>) {
        (self.warm_up, self.window, self.timeline, self.stream.map(StreamRecorder::into_streamed))
    }
}

/// Size of the two groups that are compared, in frames: half of `min_frames`, at least 4.
fn group_size(min_frames: u32) -> usize {
    usize::try_from(min_frames / 2).unwrap_or(MAX_GROUP).clamp(4, MAX_GROUP)
}

/// Whether the median frame times of the last two groups of completions agree within 2 %.
///
/// `completed_ns` ascends. A frame time is the time over `stride` completions: with N replicas, which take turns, the frame
/// time of one is seen over N completions; with frames that leave a stage N at a time, over these.
fn is_steady(completed_ns: &[u64], stride: usize, min_frames: u32) -> bool {
    let group = group_size(min_frames);
    let stride = stride.max(1);
    let needed = 2 * group + stride;
    let Some(first) = completed_ns.len().checked_sub(needed) else { return false };
    let last = &completed_ns[first..];
    let median = |from: usize| {
        let mut times = [0; MAX_GROUP];
        for (place, time) in times[..group].iter_mut().enumerate() {
            *time = last[from + place + stride] - last[from + place];
        }
        times[..group].sort_unstable();
        u64::midpoint(times[(group - 1) / 2], times[group / 2])
    };
    let (earlier, later) = (median(0), median(group));
    earlier.abs_diff(later) * 1000 <= earlier.min(later) * TOLERANCE_PER_MILLE
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{CpuProcessor, Frames, Load, OnnxModel, Processor, Program, Schedule, Trial};

    fn trial(kind: ExecutionMode, warm_up: (u32, u64, u64), measure: (u32, u64, u64, u32)) -> Trial {
        let stage = protocol::Stage {
            processor: Processor::Cpu(CpuProcessor { name: "p".into(), cpus: vec![0], threads: 1 }),
            program: Program::OnnxRuntime(OnnxModel {
                runtime: String::new(),
                model: String::new(),
                gpu: None,
            }),
            inputs: vec![],
            outputs: vec![],
            replica: false,
        };
        Trial {
            id: 1,
            schedule: Schedule { kind, values: vec![], inputs: vec![], outputs: vec![], stages: vec![stage] },
            frames: Frames { seed: 0, distinct: 1, integers_below: 8, file: None },
            load: Load::Saturating,
            queue_depth: 1,
            isolate: None,
            warm_up: WarmUpRule { min_frames: warm_up.0, min_ns: warm_up.1, max_ns: warm_up.2 },
            measure: WindowRule {
                min_frames: measure.0,
                min_ns: measure.1,
                max_ns: measure.2,
                max_frames: measure.3,
            },
            timeline_frames: 2,
            power: None,
            sysfs: "/sys".to_owned(),
            slow_down_per_mille: Vec::new(),
        }
    }

    /// Completes a frame every 10 ns from 1010 on; the first was admitted at 1000.
    fn play(trial: &Trial, stages: usize) -> (Vec<Completion>, WarmUp, Window, Vec<Span>) {
        let mut recorder = Recorder::new(trial, stages).unwrap();
        recorder.begin(1000);
        let mut effects = Vec::new();
        for frame in 0..1000 {
            let now = 1010 + 10 * frame;
            let mut slot = FrameSlot::new(0, stages);
            slot.frame = frame;
            slot.entered_ns = now - 15;
            slot.spans.fill((now - 15, now));
            let stage = usize::try_from(frame).unwrap() % stages;
            let effect = recorder.complete(&slot, stage, now, Together { rhythm: 1, more: false });
            if effect != Completion::Ordinary {
                effects.push(effect);
            }
        }
        let (warm_up, window, timeline, stream) = recorder.into_parts();
        assert_eq!(stream, None);
        (effects, warm_up, window, timeline)
    }

    #[test]
    fn the_window_starts_at_the_end_of_the_warm_up_without_a_gap() {
        let (effects, warm_up, window, timeline) =
            play(&trial(ExecutionMode::Pipeline, (20, 0, 100_000), (5, 0, 100_000, 50)), 2);
        assert_eq!(effects, [Completion::OpensWindow, Completion::ClosesWindow]);
        assert!(warm_up.steady);
        assert_eq!(warm_up.completed_ns.len(), 21, "two groups of 10 frame times take 21 completions");
        assert_eq!(window.opened_monotonic_ns, 1000 + warm_up.completed_ns[20]);
        assert_eq!(window.completed_ns, [10, 20, 30, 40, 50]);
        assert_eq!(window.latency_ns, [15; 5]);
        assert!(window.completed_by.is_empty());
        assert_eq!(timeline.len(), 4, "two frames in two stages");
        assert_eq!((timeline[0].frame, timeline[0].begin_ns, timeline[0].end_ns), (21, -5, 10));
    }

    #[test]
    fn each_limit_ends_its_phase() {
        let check = |warm_up, measure, frames: (usize, usize), steady| {
            let (_, warm, window, _) = play(&trial(ExecutionMode::Single, warm_up, measure), 1);
            assert_eq!(
                (warm.completed_ns.len(), window.completed_ns.len()),
                frames,
                "{warm_up:?} {measure:?}"
            );
            assert_eq!(warm.steady, steady);
        };
        check((1, 300, 9999), (1, 0, 9999, 50), (30, 1), true);
        check((500, 0, 50), (1, 200, 9999, 50), (5, 20), false);
        check((1, 0, 9999), (40, 0, 100, 50), (9, 10), true);
        check((1, 0, 9999), (40, 0, 9999, 7), (9, 7), true);
    }

    #[test]
    fn completions_of_replicas_name_their_stage() {
        let (_, _, window, timeline) =
            play(&trial(ExecutionMode::Replicate, (20, 0, 9999), (6, 0, 9999, 50)), 2);
        assert_eq!(window.completed_by.len(), 6);
        assert!(window.completed_by.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(!timeline.is_empty());
    }

    #[test]
    fn frames_that_complete_together_are_in_one_window() {
        let trial = trial(ExecutionMode::Pipeline, (10, 0, 9_000_000), (8, 0, 9_000_000, 50));
        let mut recorder = Recorder::new(&trial, 3).unwrap();
        recorder.begin(0);
        let mut effects = Vec::new();
        // Three frames every 300 ns, one after the other within 2 ns.
        for frame in 0..90 {
            let (burst, place) = (frame / 3, frame % 3);
            let slot = FrameSlot::new(0, 3);
            let together = Together { rhythm: 3, more: place < 2 };
            let effect = recorder.complete(&slot, 0, 300 * (burst + 1) + place, together);
            if effect != Completion::Ordinary {
                effects.push((effect, place));
            }
        }
        assert_eq!(effects, [(Completion::OpensWindow, 2), (Completion::ClosesWindow, 2)]);
        let (warm_up, window, _, _) = recorder.into_parts();
        assert!(warm_up.steady, "over three frames, the pace is constant");
        assert_eq!(window.completed_ns, [298, 299, 300, 598, 599, 600, 898, 899, 900]);
    }

    #[test]
    fn windows_that_are_too_large_are_rejected() {
        for frames in [0, u32::MAX] {
            let failure =
                Recorder::new(&trial(ExecutionMode::Single, (1, 0, 1), (1, 0, 1, frames)), 1).unwrap_err();
            assert_eq!(failure.fault, protocol::Fault::Request);
        }
    }

    fn completions(times: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut now = 0;
        times
            .into_iter()
            .map(|time| {
                now += time;
                now
            })
            .collect()
    }

    #[test]
    fn a_constant_pace_is_steady_after_two_groups() {
        let all = completions([1_000_000; 40]);
        let from = (0..=40).find(|count| is_steady(&all[..*count], 1, 10));
        assert_eq!(from, Some(11));
    }

    #[test]
    fn a_changing_pace_is_not_steady() {
        let slowing = completions((0..40).map(|place| 1_000_000 + 10_000 * place));
        assert!(!is_steady(&slowing, 1, 20));
        assert!(is_steady(&completions((0..40).map(|place| 1_000_000 + 500 * place)), 1, 20));
    }

    #[test]
    fn a_single_outlier_does_not_matter() {
        let mut times = [1_000_000; 30];
        times[20] = 9_000_000;
        assert!(is_steady(&completions(times), 1, 20));
    }

    #[test]
    fn replicas_are_judged_by_their_own_pace() {
        // Two replicas of 10 ms; the second is 1 ms behind the first and drifts.
        let mut all: Vec<u64> = (0..40).map(|frame| frame * 10_000_000).collect();
        all.extend((0..40).map(|frame| frame * 10_020_000 + 1_000_000));
        all.sort_unstable();
        assert!(!is_steady(&all, 1, 10));
        assert!(is_steady(&all, 2, 10));
    }
}
