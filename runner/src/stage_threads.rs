//! The threads of a schedule: one for each stage, which loads the stage's engine and then runs jobs on it.

use crate::clock::monotonic_ns;
use crate::engine::{self, Engine, FrameProfile, Tensor, WeightsFile};
use crate::failure::Failure;
use crate::frames::{FrameSet, FrameSlot};
use crate::pipeline::{Pipeline, Slowdown, StageReport};
use crate::schedule::{CheckedSchedule, CheckedStage};
use protocol::{CudaStage, Isolate, Isolated};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// Kernels keep their tiles on the stack.
const STACK_BYTES: usize = 8 << 20;

/// The threads of all stages. They end when this is dropped.
pub(crate) struct StageThreads {
    schedule: Arc<CheckedSchedule>,
    stages: Vec<StageThread>,
}

struct StageThread {
    jobs: Option<Sender<Job>>,
    handle: Option<JoinHandle<()>>,
    /// Ids of this thread and the engine's own ones.
    ids: Vec<u32>,
    cuda: Option<CudaStage>,
}

type Job = Box<dyn FnOnce(&mut StageWorker) + Send>;

/// What a stage thread works with.
struct StageWorker {
    place: usize,
    schedule: Arc<CheckedSchedule>,
    engine: Box<dyn Engine>,
}

impl StageThreads {
    /// Starts the threads one after another, and loads their engines. `weights` are the files of the stages, in stage order.
    pub(crate) fn start(
        schedule: &Arc<CheckedSchedule>,
        weights: &[Option<Arc<WeightsFile>>],
    ) -> Result<Self, Failure> {
        let weights = weights.to_vec();
        Self::start_with(schedule, move |schedule, place| {
            engine::load(schedule, place, weights[place].as_ref())
        })
    }

    /// Starts the threads; `load` runs on each of them with the place of its stage.
    fn start_with(
        schedule: &Arc<CheckedSchedule>,
        load: impl Fn(&CheckedSchedule, usize) -> Result<Box<dyn Engine>, Failure> + Send + Clone + 'static,
    ) -> Result<Self, Failure> {
        let mut threads = Self { schedule: Arc::clone(schedule), stages: Vec::new() };
        for place in 0..schedule.stages.len() {
            threads.stages.push(StageThread::start(place, schedule, load.clone())?);
        }
        Ok(threads)
    }

    /// Ids of the threads of each stage.
    pub(crate) fn ids(&self) -> Vec<Vec<u32>> {
        self.stages.iter().map(|stage| stage.ids.clone()).collect()
    }

    /// Use of GPUs by the stages that run on them.
    pub(crate) fn cuda(&self) -> Vec<CudaStage> {
        self.stages.iter().filter_map(|stage| stage.cuda.clone()).collect()
    }

    /// Runs a frame through one stage after another and checks what each of them returns. Returns the values after the last
    /// stage: if stages have replicas, once for each replica of the stage with the most, so that every replica has its part.
    pub(crate) fn run_frame(
        &self,
        frames: &FrameSet,
        frame: u64,
    ) -> Result<Vec<Vec<Option<Tensor>>>, Failure> {
        let replicas: Vec<Vec<usize>> = (0..self.schedule.groups())
            .map(|group| {
                let of_group = |place: &usize| self.schedule.stages[*place].group == group;
                (0..self.stages.len()).filter(of_group).collect()
            })
            .collect();
        let most = replicas.iter().map(Vec::len).max().unwrap_or(0);
        let run = |turn: usize| {
            let places: Vec<usize> = replicas.iter().map(|places| places[turn % places.len()]).collect();
            let mut values = self.one_by_one(frames, frame, &places, |worker, slot| {
                worker.run_and_check(slot)?;
                Ok(slot.values.clone())
            })?;
            Ok(values.pop().unwrap_or_default())
        };
        (0..most).map(run).collect()
    }

    /// Times each stage by itself on frame 0: one after another while the others are idle, or all at once.
    pub(crate) fn isolate(
        &self,
        frames: &FrameSet,
        rule: &Isolate,
        slowdown: &Slowdown,
    ) -> Result<Vec<Isolated>, Failure> {
        let all: Vec<usize> = (0..self.stages.len()).collect();
        let (repeated, slow) = (rule.clone(), slowdown.clone());
        let isolate = move |worker: &mut StageWorker, slot: &mut FrameSlot| {
            worker.isolate(slot, &repeated, &slow).map(|samples_ns| Isolated { samples_ns })
        };
        if !rule.at_once {
            return self.one_by_one(frames, 0, &all, isolate);
        }
        // Each stage first gets what the ones before it return.
        let received = self.one_by_one(frames, 0, &all, |worker, slot| {
            let received = slot.clone();
            worker.run_and_check(slot)?;
            Ok(received)
        })?;
        let answers: Vec<_> = self
            .stages
            .iter()
            .zip(received)
            .map(|(stage, mut slot)| {
                let isolate = isolate.clone();
                stage.submit(move |worker| isolate(worker, &mut slot))
            })
            .collect();
        // All have ended before the first failure is returned.
        let ended: Vec<_> = answers.iter().map(receive).collect();
        ended.into_iter().map(|result| result?).collect()
    }

    /// Lets a job profile the first stage, on its thread.
    pub(crate) fn profile<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Profiler<'_>) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R, Failure> {
        let answer = self.stages[0].submit(|worker| {
            let schedule = Arc::clone(&worker.schedule);
            let slot = FrameSlot::new(schedule.values.len(), 1);
            job(&mut Profiler { worker, slot })
        });
        receive(&answer)?
    }

    /// Runs a job for one of these stages after another on the same frame. All replicas of a stage get what the stage before
    /// returned.
    fn one_by_one<R: Send + 'static>(
        &self,
        frames: &FrameSet,
        frame: u64,
        places: &[usize],
        job: impl Fn(&mut StageWorker, &mut FrameSlot) -> Result<R, Failure> + Clone + Send + 'static,
    ) -> Result<Vec<R>, Failure> {
        let mut slot = FrameSlot::new(self.schedule.values.len(), self.stages.len());
        slot.set_inputs(frame, &self.schedule.inputs, frames.frame(frame));
        let (mut group, mut received) = (0, slot.clone());
        let mut results = Vec::new();
        for place in places {
            if self.schedule.stages[*place].group == group {
                slot = received.clone();
            } else {
                (group, received) = (self.schedule.stages[*place].group, slot.clone());
            }
            let job = job.clone();
            let answer = self.stages[*place].submit(move |worker| {
                let result = job(worker, &mut slot);
                (slot, result)
            });
            let result;
            (slot, result) = receive(&answer)?;
            results.push(result?);
        }
        Ok(results)
    }

    /// Executes a pipeline to its end. `observe` runs meanwhile on the calling thread.
    pub(crate) fn execute<R>(
        &self,
        pipeline: &Arc<Pipeline>,
        observe: impl FnOnce() -> R,
    ) -> Result<(Vec<StageReport>, R), Failure> {
        let start = |stage: &StageThread| {
            let pipeline = Arc::clone(pipeline);
            stage.submit(move |worker| {
                let stage = &worker.schedule.stages[worker.place];
                pipeline.run_stage(worker.place, stage, &mut *worker.engine)
            })
        };
        let answers: Vec<_> = self.stages.iter().map(start).collect();
        let observed = observe();
        let reports = answers.iter().map(receive).collect::<Result<Vec<_>, _>>();
        reports.map(|reports| (reports, observed))
    }
}

impl Drop for StageThreads {
    fn drop(&mut self) {
        self.stages.iter_mut().for_each(|stage| stage.jobs = None);
        for stage in &mut self.stages {
            if let Some(handle) = stage.handle.take() {
                // Whoever waited for the job that panicked has reported it.
                drop(handle.join());
            }
        }
    }
}

impl StageThread {
    fn start(
        place: usize,
        schedule: &Arc<CheckedSchedule>,
        load: impl FnOnce(&CheckedSchedule, usize) -> Result<Box<dyn Engine>, Failure> + Send + 'static,
    ) -> Result<Self, Failure> {
        let (jobs, inbox) = channel::<Job>();
        let (ready, readiness) = channel();
        let schedule = Arc::clone(schedule);
        let handle = std::thread::Builder::new()
            .name(format!("stage{place}"))
            .stack_size(STACK_BYTES)
            .spawn(move || match load(&schedule, place) {
                Ok(engine) => {
                    drop(ready.send(Ok((engine.threads().to_vec(), engine.cuda()))));
                    let mut worker = StageWorker { place, schedule, engine };
                    while let Ok(job) = inbox.recv() {
                        job(&mut worker);
                    }
                }
                Err(failure) => drop(ready.send(Err(failure))),
            })
            .map_err(|error| {
                Failure::internal(format!("failed to start the thread of stage {place}: {error}"))
            })?;
        let mut thread = Self { jobs: Some(jobs), handle: Some(handle), ids: Vec::new(), cuda: None };
        (thread.ids, thread.cuda) = receive(&readiness)??;
        Ok(thread)
    }

    /// Submits a job. Its result arrives when it is done.
    fn submit<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut StageWorker) -> R + Send + 'static,
    ) -> Receiver<R> {
        let (sender, receiver) = channel();
        let job: Job = Box::new(move |worker| drop(sender.send(job(worker))));
        if let Some(jobs) = &self.jobs {
            // A thread that has ended drops the job and its sender, which `receive` reports.
            drop(jobs.send(job));
        }
        receiver
    }
}

fn receive<R>(answer: &Receiver<R>) -> Result<R, Failure> {
    answer.recv().map_err(|_| Failure::internal("failed to run a stage: its thread panicked"))
}

impl StageWorker {
    fn stage(&self) -> &CheckedStage {
        &self.schedule.stages[self.place]
    }

    /// Runs a frame and compares type and shape of the outputs with the request. An error here means that the program does
    /// not fit the request.
    fn run_and_check(&mut self, slot: &mut FrameSlot) -> Result<(), Failure> {
        self.engine.run(&mut slot.values).map_err(Failure::library)?;
        self.check_outputs(slot)
    }

    fn check_outputs(&self, slot: &FrameSlot) -> Result<(), Failure> {
        for index in &self.stage().outputs {
            let Some(tensor) = &slot.values[*index] else { continue };
            tensor.check(&self.schedule.values[*index]).map_err(|difference| {
                let path = self.stage().program.path();
                Failure::library(format!("failed to match {path} with the request: output {difference}"))
            })?;
        }
        Ok(())
    }

    fn isolate(
        &mut self,
        slot: &mut FrameSlot,
        rule: &Isolate,
        slowdown: &Slowdown,
    ) -> Result<Vec<u64>, Failure> {
        let mut samples = Vec::with_capacity(4096);
        let first = monotonic_ns();
        loop {
            let begin = monotonic_ns();
            self.engine.run(&mut slot.values).map_err(|message| {
                Failure::execution(format!("{message} ({}, repeating one frame)", self.stage().name))
            })?;
            let end = slowdown.extend(self.place, begin, monotonic_ns());
            samples.push(end - begin);
            let elapsed = end - first;
            let enough = samples.len() as u64 >= u64::from(rule.min_frames) && elapsed >= rule.min_ns;
            if enough || elapsed >= rule.max_ns {
                return Ok(samples);
            }
        }
    }
}

/// Runs frames of a single-stage schedule with and without timed kernel calls.
pub(crate) struct Profiler<'a> {
    worker: &'a mut StageWorker,
    slot: FrameSlot,
}

impl Profiler<'_> {
    /// Runs a frame without timing its kernel calls; returns its duration in ns.
    pub(crate) fn plain(&mut self, frames: &FrameSet, frame: u64) -> Result<u64, Failure> {
        self.set_inputs(frames, frame);
        let begin = monotonic_ns();
        let result = self.worker.engine.run(&mut self.slot.values);
        let duration = monotonic_ns() - begin;
        result.map_err(Failure::execution)?;
        Ok(duration)
    }

    pub(crate) fn instrumented(&mut self, frames: &FrameSet, frame: u64) -> Result<FrameProfile, Failure> {
        self.set_inputs(frames, frame);
        self.worker.engine.profile(&mut self.slot.values)
    }

    pub(crate) fn check_outputs(&self) -> Result<(), Failure> {
        self.worker.check_outputs(&self.slot)
    }

    pub(crate) fn cuda(&self) -> Option<CudaStage> {
        self.worker.engine.cuda()
    }

    fn set_inputs(&mut self, frames: &FrameSet, frame: u64) {
        self.slot.set_inputs(frame, &self.worker.schedule.inputs, frames.frame(frame));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{FakeEngine, FakeFault};
    use crate::pipeline::Sink;
    use protocol::{
        CpuProcessor, ExecutionMode, Fault, Frames, OnnxModel, Processor, Program, Schedule, Stage,
    };
    use std::sync::atomic::AtomicUsize;
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    fn value(index: u32) -> protocol::Tensor {
        protocol::Tensor { name: format!("v{index}"), shape: vec![4], dtype: protocol::Dtype::Uint8 }
    }

    /// A stage from one value to the next.
    fn stage_of(place: u32) -> Stage {
        Stage {
            processor: Processor::Cpu(CpuProcessor { name: format!("p{place}"), cpus: vec![0], threads: 1 }),
            program: Program::OnnxRuntime(OnnxModel {
                runtime: String::new(),
                model: "model.onnx".to_owned(),
                gpu: None,
            }),
            inputs: vec![place],
            outputs: vec![place + 1],
            replica: false,
        }
    }

    /// Three stages in a row, or three replicas.
    fn schedule(kind: ExecutionMode) -> Arc<CheckedSchedule> {
        let stage = |place: u32| match kind {
            ExecutionMode::Replicate => Stage { inputs: vec![0], outputs: vec![3], ..stage_of(place) },
            _ => stage_of(place),
        };
        let schedule = Schedule {
            kind,
            values: (0..4).map(value).collect(),
            inputs: vec![0],
            outputs: vec![3],
            stages: (0..3).map(stage).collect(),
        };
        Arc::new(CheckedSchedule::new(&schedule).unwrap())
    }

    fn frames(schedule: &CheckedSchedule) -> Arc<FrameSet> {
        let rule = Frames { seed: 1, distinct: 20, integers_below: 100, file: None };
        Arc::new(FrameSet::generate(&rule, &schedule.input_specs()).unwrap())
    }

    /// Stage threads with fake engines; the engine of stage 1 has this fault.
    fn start(schedule: &Arc<CheckedSchedule>, fault: Option<(u32, FakeFault)>) -> StageThreads {
        start_overlapping(schedule, fault, [1, 1, 1])
    }

    /// The same, with so many frames in flight in each stage.
    fn start_overlapping(
        schedule: &Arc<CheckedSchedule>,
        fault: Option<(u32, FakeFault)>,
        frames_in_flight: [usize; 3],
    ) -> StageThreads {
        StageThreads::start_with(schedule, move |schedule, place| {
            let fault = fault.filter(|_| place == 1);
            let engine = FakeEngine::new(schedule, place, fault);
            Ok(Box::new(engine.overlapping(frames_in_flight[place])))
        })
        .unwrap()
    }

    fn collect(schedule: &Arc<CheckedSchedule>, threads: &StageThreads) -> Result<Vec<Vec<Tensor>>, Failure> {
        let sink = Sink::Collect { outputs: schedule.outputs.clone(), collected: Mutex::default() };
        let pipeline = Arc::new(Pipeline::new(schedule, frames(schedule), 2, sink));
        threads.execute(&pipeline, || ())?;
        let Sink::Collect { collected, .. } = pipeline.finish()? else { panic!("another sink") };
        Ok(collected.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    #[test]
    fn every_frame_passes_all_stages_in_order() {
        let schedule = schedule(ExecutionMode::Pipeline);
        let (frames, threads) = (frames(&schedule), start(&schedule, None));
        let outputs = collect(&schedule, &threads).unwrap();
        assert_eq!(outputs.len(), 20);
        for (frame, output) in (0..).zip(&outputs) {
            let expected: Vec<u8> = frames.frame(frame)[0].bytes().iter().map(|byte| byte + 3).collect();
            assert_eq!(output[0].bytes(), expected, "frame {frame}");
        }
        let values = threads.run_frame(&frames, 7).unwrap();
        assert_eq!(values.len(), 1);
        assert_eq!(values[0][3].as_ref().unwrap().bytes(), outputs[7][0].bytes());
    }

    #[test]
    fn stages_that_are_timed_at_once_do_not_wait_for_each_other() {
        let rule = Isolate { min_frames: 4, min_ns: 0, max_ns: u64::MAX, at_once: true };
        for kind in [ExecutionMode::Pipeline, ExecutionMode::Replicate] {
            let schedule = schedule(kind);
            let begun = Arc::new(AtomicUsize::new(0));
            let threads = StageThreads::start_with(&schedule, move |schedule, place| {
                Ok(Box::new(FakeEngine::new(schedule, place, None).meeting(Arc::clone(&begun), 3)))
            })
            .unwrap();
            let timed = threads.isolate(&frames(&schedule), &rule, &Slowdown::default()).unwrap();
            assert_eq!(timed.iter().map(|stage| stage.samples_ns.len()).collect::<Vec<_>>(), [4, 4, 4]);
        }
        let schedule = schedule(ExecutionMode::Pipeline);
        let threads = start(&schedule, Some((2, FakeFault::Error)));
        let failure = threads.isolate(&frames(&schedule), &rule, &Slowdown::default()).unwrap_err();
        assert!(failure.message.contains("failed to fake run 2"), "{}", failure.message);
        // The threads of the other stages are ready for more.
        assert_eq!(threads.run_frame(&frames(&schedule), 0).unwrap().len(), 1);
    }

    #[test]
    fn stages_with_two_frames_in_flight_keep_the_order_and_finish_what_they_start() {
        for (kind, overlap) in [
            (ExecutionMode::Pipeline, [2, 1, 1]),
            (ExecutionMode::Pipeline, [1, 2, 1]),
            (ExecutionMode::Pipeline, [2, 2, 2]),
            (ExecutionMode::Replicate, [1, 2, 2]),
        ] {
            let schedule = schedule(kind);
            let added = if kind == ExecutionMode::Replicate { 1 } else { 3 };
            let (frames, threads) = (frames(&schedule), start_overlapping(&schedule, None, overlap));
            let outputs: Vec<Vec<u8>> = collect(&schedule, &threads)
                .unwrap()
                .iter()
                .map(|output| output[0].bytes().to_vec())
                .collect();
            let expected = (0..20).map(|frame| {
                frames.frame(frame)[0].bytes().iter().map(|byte| byte + added).collect::<Vec<u8>>()
            });
            let expected: Vec<_> = expected.collect();
            if kind == ExecutionMode::Pipeline {
                assert_eq!(outputs, expected, "{overlap:?}");
            } else {
                assert!(outputs.len() == 20 && expected.iter().all(|output| outputs.contains(output)));
            }
        }
        let schedule = schedule(ExecutionMode::Pipeline);
        let threads = start_overlapping(&schedule, Some((5, FakeFault::Error)), [2, 2, 2]);
        let failure = collect(&schedule, &threads).unwrap_err();
        assert_eq!(failure.message, "failed to fake run 5 (stage 1, frame 5)");
        threads.run_frame(&frames(&schedule), 0).expect("no frame is in flight");
    }

    #[test]
    fn every_replica_runs_a_whole_frame() {
        let schedule = schedule(ExecutionMode::Replicate);
        let (frames, threads) = (frames(&schedule), start(&schedule, None));
        let values = threads.run_frame(&frames, 0).unwrap();
        assert_eq!(values.len(), 3);
        let expected: Vec<u8> = frames.frame(0)[0].bytes().iter().map(|byte| byte + 1).collect();
        assert!(values.iter().all(|values| values[3].as_ref().unwrap().bytes() == expected));
    }

    /// Three stages in a row; the one in the middle, or the last one, has two replicas, at places 1 and 2 or 2 and 3.
    fn shared(replicated: u32) -> Arc<CheckedSchedule> {
        let mut stages = Vec::new();
        for number in 0..3 {
            for replica in 0..=u32::from(number == replicated) {
                let name = format!("p{number}{}", if replica == 0 { "" } else { "b" });
                let processor = Processor::Cpu(CpuProcessor { name, cpus: vec![0], threads: 1 });
                stages.push(Stage { processor, replica: replica > 0, ..stage_of(number) });
            }
        }
        let values = (0..4).map(value).collect();
        let kind = ExecutionMode::Pipeline;
        let schedule = Schedule { kind, values, inputs: vec![0], outputs: vec![3], stages };
        Arc::new(CheckedSchedule::new(&schedule).unwrap())
    }

    #[test]
    fn replicas_of_a_stage_keep_the_order_of_the_frames() {
        for (replicated, slow) in [(0, 1), (1, 1), (1, 2), (2, 2), (2, 3)] {
            for frames_in_flight in [1, 2] {
                let schedule = shared(replicated);
                let threads = StageThreads::start_with(&schedule, move |schedule, place| {
                    let takes = Duration::from_millis(if place == slow { 20 } else { 1 });
                    let engine = FakeEngine::new(schedule, place, None).taking(takes);
                    Ok(Box::new(engine.overlapping(frames_in_flight)))
                })
                .unwrap();
                let frames = frames(&schedule);
                let outputs = collect(&schedule, &threads).unwrap();
                assert_eq!(outputs.len(), 20);
                for (frame, output) in (0..).zip(&outputs) {
                    let expected: Vec<u8> =
                        frames.frame(frame)[0].bytes().iter().map(|byte| byte + 3).collect();
                    assert_eq!(output[0].bytes(), expected, "frame {frame}, stage {replicated}, slow {slow}");
                }
                // Each replica runs the frame once.
                let values = threads.run_frame(&frames, 7).unwrap();
                assert_eq!(values.len(), 2);
                assert!(
                    values
                        .iter()
                        .all(|values| { values[3].as_ref().unwrap().bytes() == outputs[7][0].bytes() })
                );
            }
        }
    }

    #[test]
    fn a_replica_that_fails_stops_all_stages_and_is_named() {
        let schedule = shared(1);
        let threads = StageThreads::start_with(&schedule, |schedule, place| {
            // The other replica is slower, so this one gets most frames.
            let takes = Duration::from_millis(if place == 1 { 5 } else { 0 });
            let fault = Some((3, FakeFault::Error)).filter(|_| place == 2);
            Ok(Box::new(FakeEngine::new(schedule, place, fault).taking(takes)))
        })
        .unwrap();
        let failure = loop {
            // On a busy machine, the slower one may still get all frames.
            match collect(&schedule, &threads) {
                Ok(_) => {}
                Err(failure) => break failure,
            }
        };
        assert_eq!(failure.fault, Fault::Execution);
        let named = failure.message.starts_with("failed to fake run 3 (stage 1 on p1b, frame ");
        assert!(named, "{}", failure.message);
        threads.run_frame(&frames(&schedule), 0).expect("no frame is in flight");
    }

    #[test]
    fn a_stage_that_fails_stops_all_stages() {
        let schedule = schedule(ExecutionMode::Pipeline);
        let threads = start(&schedule, Some((5, FakeFault::Error)));
        let failure = collect(&schedule, &threads).unwrap_err();
        assert_eq!(failure.fault, Fault::Execution);
        assert_eq!(failure.message, "failed to fake run 5 (stage 1, frame 5)");
    }

    #[test]
    fn a_stage_that_panics_stops_all_stages() {
        let schedule = schedule(ExecutionMode::Pipeline);
        let threads = start(&schedule, Some((5, FakeFault::Panic)));
        let failure = collect(&schedule, &threads).unwrap_err();
        assert_eq!(failure.fault, Fault::Internal);
        assert_eq!(failure.message, "failed to run a stage: its thread panicked");
    }

    #[test]
    fn a_failure_to_load_is_returned() {
        let schedule = schedule(ExecutionMode::Pipeline);
        let result = StageThreads::start_with(&schedule, |schedule, place| match place {
            0 => Ok(Box::new(FakeEngine::new(schedule, place, None)) as Box<dyn Engine>),
            _ => Err(Failure::library("failed to load")),
        });
        assert_eq!(result.err().unwrap().message, "failed to load");
    }
}
