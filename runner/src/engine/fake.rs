//! An engine for tests of what runs engines: it computes on the calling thread and fails on demand.

use super::api::{Engine, FrameProfile};
use super::tensor::Tensor;
use crate::affinity::current_thread;
use crate::failure::Failure;
use crate::schedule::{CheckedSchedule, CheckedStage};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Adds 1 to every byte of its first input and writes the result to each of its outputs, when it finishes the frame.
pub(crate) struct FakeEngine {
    frames_in_flight: usize,
    in_flight: usize,
    stage: CheckedStage,
    schedule: CheckedSchedule,
    threads: Vec<u32>,
    /// Number of the run that fails, from 0, and how.
    fault: Option<(u32, FakeFault)>,
    runs: u32,
    /// Time of a frame.
    takes: Duration,
    /// Engines whose second frame has begun, and how many it waits for.
    meets: Option<(Arc<AtomicUsize>, usize)>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum FakeFault {
    Error,
    Panic,
}

impl FakeEngine {
    pub(crate) fn new(schedule: &CheckedSchedule, place: usize, fault: Option<(u32, FakeFault)>) -> Self {
        let stage = schedule.stages[place].clone();
        Self {
            frames_in_flight: 1,
            in_flight: 0,
            stage,
            schedule: schedule.clone(),
            threads: vec![current_thread()],
            fault,
            runs: 0,
            takes: Duration::ZERO,
            meets: None,
        }
    }

    /// The same engine; its second frame ends after that of each of `count` engines with this counter has begun.
    pub(crate) fn meeting(self, begun: Arc<AtomicUsize>, count: usize) -> Self {
        Self { meets: Some((begun, count)), ..self }
    }

    /// The same engine with frames that take so long.
    pub(crate) fn taking(self, takes: Duration) -> Self {
        Self { takes, ..self }
    }

    /// The same engine with so many frames in flight.
    pub(crate) fn overlapping(self, frames_in_flight: usize) -> Self {
        Self { frames_in_flight, ..self }
    }
}

impl Engine for FakeEngine {
    fn threads(&self) -> &[u32] {
        &self.threads
    }

    fn frames_in_flight(&self) -> usize {
        self.frames_in_flight
    }

    fn start(&mut self, _values: &mut [Option<Tensor>]) -> Result<(), String> {
        self.in_flight += 1;
        assert!(self.in_flight <= self.frames_in_flight, "{} frames in flight", self.in_flight);
        Ok(())
    }

    fn run(&mut self, values: &mut [Option<Tensor>]) -> Result<(), String> {
        assert_eq!(self.in_flight, 0, "frames were started and not finished");
        self.start(values)?;
        self.finish(values)
    }

    fn finish(&mut self, values: &mut [Option<Tensor>]) -> Result<(), String> {
        self.in_flight -= 1;
        let run = self.runs;
        self.runs += 1;
        std::thread::sleep(self.takes);
        if let (1, Some((begun, count))) = (run, &self.meets) {
            begun.fetch_add(1, Relaxed);
            let deadline = Instant::now() + Duration::from_secs(60);
            while begun.load(Relaxed) < *count {
                if Instant::now() > deadline {
                    return Err("failed to fake: the other engines did not begin".to_owned());
                }
                std::thread::yield_now();
            }
        }
        match self.fault {
            Some((fails, FakeFault::Error)) if fails == run => {
                return Err(format!("failed to fake run {run}"));
            }
            Some((fails, FakeFault::Panic)) if fails == run => panic!("a test asked for this panic"),
            _ => {}
        }
        let input = values[self.stage.inputs[0]].clone().ok_or("failed to fake: the input is missing")?;
        for output in &self.stage.outputs {
            let fill = |bytes: &mut [u8]| {
                for (to, from) in bytes.iter_mut().zip(input.bytes()) {
                    *to = from.wrapping_add(1);
                }
            };
            let tensor =
                Tensor::filled(&self.schedule.values[*output], fill).map_err(|failure| failure.message)?;
            values[*output] = Some(tensor);
        }
        Ok(())
    }

    fn profile(&mut self, _values: &mut [Option<Tensor>]) -> Result<FrameProfile, Failure> {
        Err(Failure::request("failed to profile: the fake engine does not report kernel times"))
    }
}
