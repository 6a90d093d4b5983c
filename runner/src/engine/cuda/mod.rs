//! Stages on NVIDIA GPUs, through the driver API.
//!
//! A frame is copied to the device, its kernels run, and its outputs are copied back to ordinary memory, as other stages need
//! them. The kernels of a stage run frame by frame. Each of the two frames that a stage may have in flight has a [`Lane`],
//! so that one is copied while the kernels of the other run. Weights are in memory that stages share. The thread sleeps
//! while the device works.
#![expect(unsafe_code, reason = "calls of the CUDA driver")]

mod api;
mod copies;
mod device;
mod driver;
mod graph;
mod lane;
mod module;
mod plan;
mod stream;
mod wait;
mod weights;

pub(crate) use copies::Copies;
pub(crate) use device::{recover_devices, system};

use super::api::{Engine, FrameProfile, KernelCall, MOST_FRAMES_IN_FLIGHT};
use super::tensor::Tensor;
use super::weights::WeightsFile;
use crate::affinity::{bind, current_thread};
use crate::clock::monotonic_ns;
use crate::failure::Failure;
use crate::schedule::{CheckedStage, TensorSpec};
use api::CallError;
use device::Device;
use driver::is_fatal;
use lane::Lane;
use module::{Module, PreparedLaunch};
use plan::CheckedPlan;
use protocol::{CudaProcessor, CudaProgram, CudaStage};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use stream::Event;
use wait::Wait;
use weights::DeviceWeights;

/// `CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES`.
const LAUNCH_OUT_OF_RESOURCES: i32 = 701;

/// Frames that a stage has in flight at most: one whose kernels run, and one that is copied meanwhile.
const LANES: usize = MOST_FRAMES_IN_FLIGHT;

/// A launch plan, ready to run. Fields are dropped in order: what uses memory before the memory.
pub(crate) struct CudaEngine {
    path: String,
    processor: String,
    threads: Vec<u32>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// One more than there are launches; created by the first profiled frame.
    events: Vec<Event>,
    /// Whether all kernels have run once.
    has_run: bool,
    /// Frames started and finished so far. Frame `n` is in lane `n % LANES`.
    started: usize,
    finished: usize,
    used: CudaStage,
    /// What it waits for.
    wait: Arc<Wait>,
    lanes: [Lane; LANES],
    _module: Module,
    _weights: DeviceWeights,
    device: Arc<Device>,
}

/// An input or output of the stage.
struct Port {
    spec: TensorSpec,
    /// Index among the schedule's values.
    index: usize,
    /// Place in the arena.
    offset: u64,
}

impl CudaEngine {
    /// Loads a plan on the calling thread. `place` is that of the stage in its schedule, `specs` are the schedule's values.
    pub(crate) fn load(
        program: &CudaProgram,
        processor: &CudaProcessor,
        place: usize,
        stage: &CheckedStage,
        specs: &[TensorSpec],
        file: &WeightsFile,
    ) -> Result<Self, Failure> {
        bind(None, &processor.host_cpus, &processor.name)?;
        let path = program.path.as_str();
        let specs_of = |indices: &[usize]| indices.iter().map(|index| &specs[*index]).collect::<Vec<_>>();
        let plan = CheckedPlan::read(Path::new(path), &specs_of(&stage.inputs), &specs_of(&stage.outputs))?;
        if plan.plan.arch != processor.arch {
            return Err(Failure::library(format!(
                "failed to load launch plan {path}: it is for {}, and processor {} is {}; compile and deploy it again",
                plan.plan.arch, processor.name, processor.arch
            )));
        }
        let device = Device::open(processor.device, &format!("processor {}", processor.name))?;
        let module = Module::load(&device, &plan, path)?;
        let weights = DeviceWeights::upload(&device, file, &plan.plan.weights, path)?;
        let lane = || Lane::new(&device, &module, &plan, &weights, path);
        let lanes: [Lane; LANES] = [lane()?, lane()?];
        if let Some(error) = lanes.iter().find_map(|lane| lane.graph_refused) {
            eprintln!(
                "the kernels of {path} are launched one by one, because they cannot be captured as a graph: {}",
                device.describe(error)
            );
        }
        let ports = |indices: &[usize], values: &[u32]| {
            let port = |(index, value): (&usize, &u32)| Port {
                spec: specs[*index].clone(),
                index: *index,
                offset: plan.value(*value).offset,
            };
            indices.iter().zip(values).map(port).collect::<Vec<_>>()
        };
        Ok(Self {
            inputs: ports(&stage.inputs, &plan.plan.inputs),
            outputs: ports(&stage.outputs, &plan.plan.outputs),
            wait: Wait::new(
                format!("launch plan {path} on {}", processor.name),
                plan.plan.launches.iter().map(|launch| launch.kernel.clone()).collect(),
            ),
            path: path.to_owned(),
            processor: processor.name.clone(),
            threads: vec![current_thread()],
            events: Vec::new(),
            has_run: false,
            started: 0,
            finished: 0,
            used: CudaStage {
                stage: u32::try_from(place).unwrap_or(u32::MAX),
                module_load_ns: module.load_ns,
                arena_bytes: lanes.iter().map(|lane| lane.arena.bytes).sum(),
                weights_bytes: weights.fresh_bytes,
                graph: lanes.iter().all(|lane| lane.graph.is_some()),
            },
            lanes,
            _module: module,
            _weights: weights,
            device,
        })
    }

    fn failed(&self, what: &str, error: CallError) -> String {
        let Self { path, processor, device, .. } = self;
        let advice = match error.code {
            LAUNCH_OUT_OF_RESOURCES => {
                "; the kernel needs more registers or shared memory than the GPU has: compile it for the GPU's architecture"
            }
            code if is_fatal(code) => {
                "; compile and deploy the plan again, and report it if that does not help"
            }
            _ => "",
        };
        format!("failed to run launch plan {path} on {processor}: {what}: {}{advice}", device.describe(error))
    }

    fn copy_inputs(&self, lane: usize, values: &[Option<Tensor>]) -> Result<(), String> {
        let Lane { stream, arena, .. } = &self.lanes[lane];
        for Port { spec, index, offset } in &self.inputs {
            let tensor = values[*index].as_ref().ok_or_else(|| {
                format!("failed to run launch plan {}: its input {} is missing", self.path, spec.name)
            })?;
            let bytes = tensor.bytes();
            if bytes.len() != spec.bytes {
                return Err(format!(
                    "failed to run launch plan {}: its input {} has {} bytes, expected {}",
                    self.path,
                    spec.name,
                    bytes.len(),
                    spec.bytes
                ));
            }
            stream
                .copy_to_device(arena, *offset, bytes)
                .map_err(|error| self.failed(&format!("copy of input {}", spec.name), error))?;
        }
        Ok(())
    }

    /// Waits for the kernels, then copies the outputs into new tensors.
    fn copy_outputs(&self, lane: usize, values: &mut [Option<Tensor>]) -> Result<(), String> {
        let Lane { stream, arena, .. } = &self.lanes[lane];
        // Which kernel has failed is unknown: the device reports it late, and to all calls from then on.
        self.wait.during(None, || stream.wait()).map_err(|error| self.failed("one of its kernels", error))?;
        for Port { spec, index, offset } in &self.outputs {
            let tensor = Tensor::received(spec, |bytes| {
                stream
                    .copy_to_host(bytes, arena, *offset)
                    .map_err(|error| self.failed(&format!("copy of output {}", spec.name), error))
            })?;
            values[*index] = Some(tensor);
        }
        Ok(())
    }

    /// Starts a frame whose kernels `start_kernels` starts in the lane that it is given.
    fn start_with(
        &mut self,
        values: &[Option<Tensor>],
        start_kernels: impl FnOnce(&mut Self, usize) -> Result<(), String>,
    ) -> Result<(), String> {
        let lane = self.started % LANES;
        debug_assert!(self.started - self.finished < LANES, "a lane is free");
        let done = self.copy_inputs(lane, values).and_then(|()| {
            self.wait_for_earlier_kernels(lane).map_err(|error| self.failed("order of its frames", error))?;
            start_kernels(self, lane)?;
            let Lane { kernels_done, stream, .. } = &self.lanes[lane];
            kernels_done.record(stream).map_err(|error| self.failed("order of its frames", error))
        });
        if done.is_err() {
            // The inputs must stay until the device has read them. The first error is the one to report.
            self.lanes[lane].stream.wait().ok();
        } else {
            self.started += 1;
        }
        done
    }

    /// Lets the kernels of a lane wait for those of the frame before, so that they do not compete.
    fn wait_for_earlier_kernels(&self, lane: usize) -> Result<(), CallError> {
        if self.started == self.finished {
            return Ok(());
        }
        let earlier = &self.lanes[(self.started + LANES - 1) % LANES];
        self.lanes[lane].stream.wait_for(&earlier.kernels_done)
    }

    /// Runs the kernels for the first time, one after another, so that an error names its kernel.
    fn run_first(&mut self, lane: usize) -> Result<(), String> {
        for place in 0..self.lanes[lane].launches.len() {
            let Lane { launches, stream, .. } = &mut self.lanes[lane];
            let launch = &mut launches[place];
            let done = launch.start(stream).and_then(|()| self.wait.during(Some(place), || stream.wait()));
            if let Err(error) = done {
                let kernel = format!("kernel {}", launch.kernel);
                return Err(self.failed(&kernel, error));
            }
        }
        self.has_run = true;
        Ok(())
    }

    fn start_kernels(&mut self, lane: usize) -> Result<(), String> {
        if !self.has_run {
            return self.run_first(lane);
        }
        let Lane { graph, launches, stream, .. } = &mut self.lanes[lane];
        let failed = if let Some(graph) = graph {
            graph.start(stream).err().map(|error| ("the graph of its kernels".to_owned(), error))
        } else {
            launches.iter_mut().find_map(|launch| {
                launch.start(stream).err().map(|error| (format!("kernel {}", launch.kernel), error))
            })
        };
        failed.map_or(Ok(()), |(what, error)| Err(self.failed(&what, error)))
    }

    /// Starts the kernels one by one, with an event before the first and after each.
    fn start_timed(&mut self, lane: usize) -> Result<(), CallError> {
        let Lane { launches, stream, .. } = &mut self.lanes[lane];
        while self.events.len() <= launches.len() {
            self.events.push(Event::new(&self.device)?);
        }
        self.events[0].record(stream)?;
        for (launch, event) in launches.iter_mut().zip(&self.events[1..]) {
            launch.start(stream)?;
            event.record(stream)?;
        }
        Ok(())
    }

    fn times(&self) -> Result<Vec<KernelCall>, CallError> {
        let call = |(launch, events): (&PreparedLaunch, &[Event])| {
            let ns = events[1].ns_since(&events[0])?;
            Ok(KernelCall { function: Rc::clone(&launch.kernel), ns })
        };
        self.lanes[0].launches.iter().zip(self.events.windows(2)).map(call).collect()
    }
}

impl Engine for CudaEngine {
    fn threads(&self) -> &[u32] {
        &self.threads
    }

    fn frames_in_flight(&self) -> usize {
        LANES
    }

    fn start(&mut self, values: &mut [Option<Tensor>]) -> Result<(), String> {
        self.start_with(values, Self::start_kernels)
    }

    fn finish(&mut self, values: &mut [Option<Tensor>]) -> Result<(), String> {
        let lane = self.finished % LANES;
        self.finished += 1;
        self.copy_outputs(lane, values)
    }

    fn run(&mut self, values: &mut [Option<Tensor>]) -> Result<(), String> {
        self.start(values)?;
        self.finish(values)
    }

    /// The time of a kernel is that between two events of the device, the gap to the kernel before included.
    fn profile(&mut self, values: &mut [Option<Tensor>]) -> Result<FrameProfile, Failure> {
        let failed = |message: String| Failure::execution(message);
        if !self.has_run {
            self.run(values).map_err(failed)?;
        }
        let begin_ns = monotonic_ns();
        let start = |engine: &mut Self, lane| {
            engine.start_timed(lane).map_err(|error| engine.failed("launch of a timed kernel", error))
        };
        self.start_with(values, start).and_then(|()| self.finish(values)).map_err(failed)?;
        let frame_ns = monotonic_ns() - begin_ns;
        let calls = self.times().map_err(|error| failed(self.failed("times of its kernels", error)))?;
        check_times(&calls, frame_ns).map_err(|reason| {
            failed(format!("failed to profile launch plan {} on {}: {reason}", self.path, self.processor))
        })?;
        Ok(FrameProfile { frame_ns, calls })
    }

    fn cuda(&self) -> Option<CudaStage> {
        Some(self.used.clone())
    }
}

/// Checks the device's clock against the board's: the kernels ran inside of the frame.
fn check_times(calls: &[KernelCall], frame_ns: u64) -> Result<(), String> {
    let kernels_ns: u64 = calls.iter().map(|call| call.ns).sum();
    // Events have a resolution of 500 ns.
    let tolerance_ns = frame_ns / 20 + 1000 * (calls.len() as u64 + 1);
    if kernels_ns <= frame_ns + tolerance_ns {
        return Ok(());
    }
    Err(format!(
        "the driver reports {kernels_ns} ns for its kernels, and the whole frame took {frame_ns} ns; the driver's times are \
         wrong"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_cannot_take_longer_than_their_frame() {
        let calls = |ns: &[u64]| -> Vec<KernelCall> {
            ns.iter().map(|ns| KernelCall { function: "k".into(), ns: *ns }).collect()
        };
        check_times(&calls(&[400_000, 500_000]), 1_000_000).unwrap();
        check_times(&calls(&[1000, 1000]), 1500).unwrap();
        let message = check_times(&calls(&[400_000, 800_000]), 1_000_000).unwrap_err();
        assert!(
            message.contains("1200000 ns for its kernels, and the whole frame took 1000000 ns"),
            "{message}"
        );
    }
}
