//! What is kept of every frame that leaves the schedule.

use crate::clock::unix_ns;
use crate::failure::Failure;
use crate::packet::Packet;
use crate::steady::is_steady;
use protocol::{Kind, Measure, Span, WarmUp, WarmUpRule, Window};

/// Most frames a window may keep; 32 bytes each.
const MOST_FRAMES: u32 = 4_000_000;
/// Most frames a timeline may keep.
const MOST_TIMELINE: u32 = 100_000;

/// What a completion did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing new.
    Goes,
    /// The window has opened with it.
    Opens,
    /// The window has closed with it.
    Closes,
}

/// Completions of the warm-up and of the window. All memory for the window is taken and touched beforehand.
#[derive(Debug)]
pub(crate) struct Recorder {
    warm_up_rule: WarmUpRule,
    measure: Measure,
    stride: usize,
    keep_stage: bool,
    begun_ns: u64,
    warm_up: WarmUp,
    opened_ns: Option<u64>,
    closed: bool,
    window: Window,
    /// Spans of window frames, all stages of a frame after another.
    timeline: Vec<Span>,
    timeline_frames: usize,
}

impl Recorder {
    /// For one flow of frames through `stages` stages.
    pub(crate) fn new(trial: &protocol::Trial, stages: usize) -> Result<Self, Failure> {
        let (measure, timeline) = (&trial.measure, trial.timeline_frames);
        if measure.max_frames == 0 || measure.max_frames > MOST_FRAMES || timeline > MOST_TIMELINE {
            return Err(Failure::request(format!(
                "failed to prepare the window: max_frames must be 1 to {MOST_FRAMES} and timeline_frames at most \
                 {MOST_TIMELINE}"
            )));
        }
        let replicate = trial.schedule.kind == Kind::Replicate;
        let frames = usize::try_from(measure.max_frames).unwrap_or(0);
        let timeline_frames = usize::try_from(timeline).unwrap_or(0).min(frames);
        let spans = timeline_frames * if replicate { 1 } else { stages };
        let no_span = Span { frame: 0, stage: 0, begin_ns: 0, end_ns: 0 };
        let mut recorder = Self {
            warm_up_rule: trial.warm_up.clone(),
            measure: measure.clone(),
            stride: if replicate { stages } else { 1 },
            keep_stage: replicate,
            begun_ns: 0,
            warm_up: WarmUp { completed_ns: Vec::with_capacity(4096), steady: false },
            opened_ns: None,
            closed: false,
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
        // Filled above so that the pages are there, emptied now.
        recorder.window.completed_ns.clear();
        recorder.window.latency_ns.clear();
        recorder.window.completed_by.clear();
        recorder.timeline.clear();
        Ok(recorder)
    }

    /// The first frame was let in.
    pub(crate) fn begin(&mut self, now_ns: u64) {
        self.begun_ns = now_ns;
    }

    /// A frame was completed by `stage` at `now_ns`.
    pub(crate) fn complete(&mut self, packet: &Packet, stage: usize, now_ns: u64) -> Turn {
        match self.opened_ns {
            _ if self.closed => Turn::Goes,
            None => self.complete_warm_up(now_ns),
            Some(opened) => self.complete_window(packet, stage, opened, now_ns),
        }
    }

    fn complete_warm_up(&mut self, now_ns: u64) -> Turn {
        let elapsed = now_ns.saturating_sub(self.begun_ns);
        let warm_up = &mut self.warm_up;
        warm_up.completed_ns.push(elapsed);
        let rule = &self.warm_up_rule;
        let enough =
            warm_up.completed_ns.len() as u64 >= u64::from(rule.min_frames) && elapsed >= rule.min_ns;
        let late = elapsed >= rule.max_ns;
        if !enough && !late {
            return Turn::Goes;
        }
        warm_up.steady = is_steady(&warm_up.completed_ns, self.stride, rule.min_frames);
        if !warm_up.steady && !late {
            return Turn::Goes;
        }
        self.opened_ns = Some(now_ns);
        self.window.opened_monotonic_ns = now_ns;
        self.window.opened_unix_ns = unix_ns();
        Turn::Opens
    }

    fn complete_window(&mut self, packet: &Packet, stage: usize, opened: u64, now_ns: u64) -> Turn {
        let window = &mut self.window;
        let elapsed = now_ns.saturating_sub(opened);
        let place = window.completed_ns.len();
        window.completed_ns.push(elapsed);
        window.latency_ns.push(now_ns.saturating_sub(packet.entered_ns));
        if self.keep_stage {
            window.completed_by.push(u32::try_from(stage).unwrap_or(u32::MAX));
        }
        if place < self.timeline_frames {
            let since = |stamp: u64| stamp.cast_signed().wrapping_sub(opened.cast_signed());
            let spans = (0..).zip(&packet.spans).filter(|(_, (begin, _))| *begin > 0);
            self.timeline.extend(spans.map(|(stage, (begin, end))| Span {
                frame: packet.frame,
                stage,
                begin_ns: since(*begin),
                end_ns: since(*end),
            }));
        }
        let (frames, rule) = (place as u64 + 1, &self.measure);
        let done = frames >= u64::from(rule.min_frames) && elapsed >= rule.min_ns;
        if done || elapsed >= rule.max_ns || frames >= u64::from(rule.max_frames) {
            self.closed = true;
            return Turn::Closes;
        }
        Turn::Goes
    }

    /// Everything kept.
    pub(crate) fn into_parts(self) -> (WarmUp, Window, Vec<Span>) {
        (self.warm_up, self.window, self.timeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{Binding, Frames, OnnxModel, Program, Schedule, Trial};

    fn trial(kind: Kind, warm_up: (u32, u64, u64), measure: (u32, u64, u64, u32)) -> Trial {
        let stage = protocol::Stage {
            binding: Binding { processor: "p".into(), cpus: vec![0], threads: 1 },
            program: Program::OnnxRuntime(OnnxModel { runtime: String::new(), model: String::new() }),
            inputs: vec![],
            outputs: vec![],
        };
        Trial {
            id: 1,
            schedule: Schedule { kind, values: vec![], inputs: vec![], outputs: vec![], stages: vec![stage] },
            frames: Frames { seed: 0, distinct: 1, integers_below: 8 },
            queue_depth: 1,
            isolate: None,
            warm_up: WarmUpRule { min_frames: warm_up.0, min_ns: warm_up.1, max_ns: warm_up.2 },
            measure: Measure {
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

    /// Completes a frame every 10 ns from 1010 on; the first was let in at 1000.
    fn play(trial: &Trial, stages: usize) -> (Vec<Turn>, WarmUp, Window, Vec<Span>) {
        let mut recorder = Recorder::new(trial, stages).unwrap();
        recorder.begin(1000);
        let mut turns = Vec::new();
        for frame in 0..1000 {
            let now = 1010 + 10 * frame;
            let mut packet = Packet::new(0, stages);
            packet.frame = frame;
            packet.entered_ns = now - 15;
            packet.spans.fill((now - 15, now));
            let stage = usize::try_from(frame).unwrap() % stages;
            let turn = recorder.complete(&packet, stage, now);
            if turn != Turn::Goes {
                turns.push(turn);
            }
        }
        let (warm_up, window, timeline) = recorder.into_parts();
        (turns, warm_up, window, timeline)
    }

    #[test]
    fn the_window_opens_with_the_frame_that_ends_the_warm_up_and_goes_on_without_a_gap() {
        let (turns, warm_up, window, timeline) =
            play(&trial(Kind::Pipeline, (20, 0, 100_000), (5, 0, 100_000, 50)), 2);
        assert_eq!(turns, [Turn::Opens, Turn::Closes]);
        assert!(warm_up.steady);
        assert_eq!(warm_up.completed_ns.len(), 21, "20 frames make two groups only with the one before them");
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
            let (_, warm, window, _) = play(&trial(Kind::Single, warm_up, measure), 1);
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
    fn replicas_are_told_apart() {
        let (_, _, window, timeline) = play(&trial(Kind::Replicate, (20, 0, 9999), (6, 0, 9999, 50)), 2);
        assert_eq!(window.completed_by.len(), 6);
        assert!(window.completed_by.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(!timeline.is_empty());
    }

    #[test]
    fn windows_beyond_memory_are_refused() {
        for frames in [0, u32::MAX] {
            let failure = Recorder::new(&trial(Kind::Single, (1, 0, 1), (1, 0, 1, frames)), 1).unwrap_err();
            assert_eq!(failure.fault, protocol::Fault::Request);
        }
    }
}
