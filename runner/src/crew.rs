//! The threads of a schedule: one a stage, each with its library loaded, waiting for work.

use crate::clock::monotonic_ns;
use crate::engine::{Code, TensorSpec, WeightsFile};
use crate::failure::Failure;
use crate::flow::{Flow, StageReport};
use crate::frames::FrameSet;
use crate::hindrance::Hindrance;
use crate::packet::Packet;
use crate::placement::{settle, settle_with_own_threads};
use crate::wiring::{Program, Wiring};
use protocol::{Isolate, Isolated, Kind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// Stack of a stage thread. Kernels keep their tiles on it.
const STACK_BYTES: usize = 8 << 20;

/// The threads of a schedule. They end when it is dropped.
pub(crate) struct Crew {
    wiring: Arc<Wiring>,
    hands: Vec<Hand>,
}

/// A thread and the way to it.
struct Hand {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    threads: Vec<u32>,
}

type Job = Box<dyn FnOnce(&mut Station) + Send>;

/// What a stage's thread has at hand.
pub(crate) struct Station {
    place: usize,
    wiring: Arc<Wiring>,
    code: Code,
}

impl Crew {
    /// Starts the threads one after another, binds them, and loads their libraries. `weights` are the files of
    /// the stages, in stage order.
    pub(crate) fn start(wiring: &Arc<Wiring>, weights: &[Option<Arc<WeightsFile>>]) -> Result<Self, Failure> {
        let mut crew = Self { wiring: Arc::clone(wiring), hands: Vec::new() };
        for (place, weights) in weights.iter().enumerate() {
            crew.hands.push(Hand::start(place, wiring, weights.clone())?);
        }
        Ok(crew)
    }

    /// Ids of the threads of each stage.
    pub(crate) fn threads(&self) -> Vec<Vec<u32>> {
        self.hands.iter().map(|hand| hand.threads.clone()).collect()
    }

    /// Runs a frame through each stage by itself, one after another, and checks what each gives.
    pub(crate) fn check(&self, frames: &FrameSet, frame: u64) -> Result<Vec<Packet>, Failure> {
        self.one_by_one(frames, frame, Station::check)
            .map(|done| done.into_iter().map(|(packet, ())| packet).collect())
    }

    /// Times each stage by itself on frame 0, the others idle.
    pub(crate) fn isolate(
        &self,
        frames: &FrameSet,
        rule: &Isolate,
        hindrance: &Hindrance,
    ) -> Result<Vec<Isolated>, Failure> {
        let (rule, hindrance) = (rule.clone(), hindrance.clone());
        self.one_by_one(frames, 0, move |station, packet| station.isolate(packet, &rule, &hindrance))
            .map(|done| done.into_iter().map(|(_, samples_ns)| Isolated { samples_ns }).collect())
    }

    /// Gives a frame to stage after stage (to each replica afresh). A packet comes back for each replica, or one.
    fn one_by_one<R: Send + 'static>(
        &self,
        frames: &FrameSet,
        frame: u64,
        job: impl Fn(&mut Station, &mut Packet) -> Result<R, Failure> + Clone + Send + 'static,
    ) -> Result<Vec<(Packet, R)>, Failure> {
        let fresh = || {
            let mut packet = Packet::new(self.wiring.values.len(), self.hands.len());
            packet.admit(frame, &self.wiring.inputs, frames.frame(frame));
            packet
        };
        let mut packet = fresh();
        let mut done = Vec::new();
        for hand in &self.hands {
            if self.wiring.kind == Kind::Replicate {
                packet = fresh();
            }
            let job = job.clone();
            let answer = hand.ask(move |station| {
                let result = job(station, &mut packet);
                (packet, result)
            });
            let (returned, result) = receive(&answer)?;
            let mut copy = Packet::new(0, 0);
            copy.frame = returned.frame;
            copy.values.clone_from(&returned.values);
            packet = returned;
            done.push((copy, result?));
        }
        Ok(done)
    }

    /// Lets a flow run to its end. `observe` runs meanwhile on the calling thread.
    pub(crate) fn run<R>(
        &self,
        flow: &Arc<Flow>,
        observe: impl FnOnce() -> R,
    ) -> Result<(Vec<StageReport>, R), Failure> {
        let start = |hand: &Hand| {
            let flow = Arc::clone(flow);
            hand.ask(move |station| station.flow(&flow))
        };
        let answers: Vec<_> = self.hands.iter().map(start).collect();
        let observed = observe();
        let reports = answers.iter().map(receive).collect::<Result<Vec<_>, _>>();
        reports.map(|reports| (reports, observed))
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.hands.iter_mut().for_each(|hand| hand.jobs = None);
        for hand in &mut self.hands {
            if let Some(thread) = hand.thread.take() {
                // A panic was reported where its answer was awaited.
                drop(thread.join());
            }
        }
    }
}

impl Hand {
    fn start(place: usize, wiring: &Arc<Wiring>, weights: Option<Arc<WeightsFile>>) -> Result<Self, Failure> {
        let (jobs, inbox) = channel::<Job>();
        let (ready, readiness) = channel();
        let wiring = Arc::clone(wiring);
        let thread = std::thread::Builder::new()
            .name(format!("stage{place}"))
            .stack_size(STACK_BYTES)
            .spawn(move || match Station::prepare(place, wiring, weights.as_ref()) {
                Ok((mut station, threads)) => {
                    drop(ready.send(Ok(threads)));
                    while let Ok(job) = inbox.recv() {
                        job(&mut station);
                    }
                }
                Err(failure) => drop(ready.send(Err(failure))),
            })
            .map_err(|error| {
                Failure::internal(format!("failed to start the thread of stage {place}: {error}"))
            })?;
        let mut hand = Self { jobs: Some(jobs), thread: Some(thread), threads: Vec::new() };
        match receive(&readiness)? {
            Ok(threads) => {
                hand.threads = threads;
                Ok(hand)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Lets the thread do something with its station. The answer arrives when it is done.
    fn ask<R: Send + 'static>(&self, job: impl FnOnce(&mut Station) -> R + Send + 'static) -> Receiver<R> {
        let (sender, receiver) = channel();
        let job: Job = Box::new(move |station| drop(sender.send(job(station))));
        if let Some(jobs) = &self.jobs {
            // A thread that has ended drops the job, and with it the sender: `receive` tells.
            drop(jobs.send(job));
        }
        receiver
    }
}

fn receive<R>(answer: &Receiver<R>) -> Result<R, Failure> {
    answer.recv().map_err(|_| Failure::internal("failed to hear from a stage: its thread panicked"))
}

impl Station {
    fn prepare(
        place: usize,
        wiring: Arc<Wiring>,
        weights: Option<&Arc<WeightsFile>>,
    ) -> Result<(Self, Vec<u32>), Failure> {
        let stage = &wiring.stages[place];
        let load = || Code::load(stage, weights, &wiring.values);
        let (threads, code) = match &stage.program {
            Program::Library(_) => (settle(&stage.binding)?, load()?),
            Program::OnnxRuntime(_) => settle_with_own_threads(&stage.binding, load)?,
        };
        Ok((Self { place, wiring, code }, threads))
    }

    fn specs(&self) -> &[TensorSpec] {
        &self.wiring.values
    }

    /// Runs once and checks what comes out. A stage that cannot take what the request says does not fit.
    fn check(&mut self, packet: &mut Packet) -> Result<(), Failure> {
        let stage = &self.wiring.stages[self.place];
        self.code.run(&mut packet.values, &stage.inputs, &stage.outputs).map_err(Failure::library)?;
        self.code.check(&packet.values, &stage.outputs, self.specs())
    }

    fn isolate(
        &mut self,
        packet: &mut Packet,
        rule: &Isolate,
        hindrance: &Hindrance,
    ) -> Result<Vec<u64>, Failure> {
        let stage = &self.wiring.stages[self.place];
        let mut samples = Vec::with_capacity(4096);
        let first = monotonic_ns();
        loop {
            let begin = monotonic_ns();
            self.code
                .run(&mut packet.values, &stage.inputs, &stage.outputs)
                .map_err(|message| Failure::execution(format!("{message} (stage {}, alone)", self.place)))?;
            let end = hindrance.after(self.place, begin, monotonic_ns());
            samples.push(end - begin);
            let elapsed = end - first;
            let enough = samples.len() as u64 >= u64::from(rule.min_frames) && elapsed >= rule.min_ns;
            if enough || elapsed >= rule.max_ns {
                return Ok(samples);
            }
        }
    }

    fn flow(&mut self, flow: &Flow) -> StageReport {
        let wiring = Arc::clone(&self.wiring);
        flow.run_stage(self.place, &wiring.stages[self.place], &mut self.code)
    }
}
