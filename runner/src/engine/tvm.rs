//! TVM on the CPU: stage libraries and the virtual machines that run them.

use super::api::{Engine, FrameProfile};
use super::elf;
use super::instrument::Instrument;
use super::tensor::Tensor;
use super::tvm_runtime::{create_thread_pool, text};
use super::weights::WeightsFile;
use crate::affinity::{bind, current_thread, with_new_threads};
use crate::clock::monotonic_ns;
use crate::failure::Failure;
use crate::schedule::CheckedStage;
use protocol::{CpuProcessor, StageLibrary};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tvm_ffi::{Any, AnyView, Array, Function, Module, TypeIndex};

/// A stage library with a virtual machine that is ready to run it.
pub(crate) struct TvmEngine {
    path: PathBuf,
    entry: String,
    module: Module,
    threads: Vec<u32>,
    weights: Vec<Tensor>,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
    plain: Machine,
    /// A second machine of the same library, created by the first profiled frame.
    instrumented: Option<(Machine, Instrument)>,
}

/// The entry function of a virtual machine. It keeps the machine alive, and the machine its library.
struct Machine {
    entry: Function,
    /// Inputs, then weights; reused so that a frame allocates nothing here. Its views are valid during a call only.
    arguments: Vec<AnyView<'static>>,
}

impl TvmEngine {
    pub(crate) fn load(
        library: &StageLibrary,
        processor: &CpuProcessor,
        stage: &CheckedStage,
        weights: &Arc<WeightsFile>,
    ) -> Result<Self, Failure> {
        let threads = place_threads(processor)?;
        let weights = weights.tensors(&library.weights)?;
        let path = PathBuf::from(&library.path);
        let module = load_library(&path)?;
        let plain = Machine::new(&module, &path, &library.entry, None)?;
        Ok(Self {
            path,
            entry: library.entry.clone(),
            module,
            threads,
            weights,
            inputs: stage.inputs.clone(),
            outputs: stage.outputs.clone(),
            plain,
            instrumented: None,
        })
    }

    fn failed_run(path: &Path, reason: &str) -> String {
        format!("failed to run stage library {}: {reason}", path.display())
    }
}

impl Engine for TvmEngine {
    fn threads(&self) -> &[u32] {
        &self.threads
    }

    fn run(&mut self, values: &mut [Option<Tensor>]) -> Result<(), String> {
        self.plain
            .run(values, &self.inputs, &self.weights, &self.outputs)
            .map_err(|reason| Self::failed_run(&self.path, &reason))
    }

    fn profile(&mut self, values: &mut [Option<Tensor>]) -> Result<FrameProfile, Failure> {
        let (machine, instrument) = match &mut self.instrumented {
            Some(instrumented) => instrumented,
            none => {
                let instrument = Instrument::new();
                let machine = Machine::new(&self.module, &self.path, &self.entry, Some(&instrument))?;
                none.insert((machine, instrument))
            }
        };
        let is_first = instrument.is_first_frame();
        instrument.begin_frame();
        let begin_ns = monotonic_ns();
        let result = machine.run(values, &self.inputs, &self.weights, &self.outputs);
        let frame_ns = monotonic_ns() - begin_ns;
        result.map_err(|reason| {
            let message = Self::failed_run(&self.path, &reason);
            if is_first { Failure::library(message) } else { Failure::execution(message) }
        })?;
        let calls = instrument.end_frame().ok_or_else(|| {
            Failure::execution(format!(
                "failed to profile {}: its kernel calls differ from frame to frame",
                self.path.display()
            ))
        })?;
        Ok(FrameProfile { frame_ns, calls })
    }
}

/// Binds the calling thread and the workers of its pool to the CPUs. With as many threads as CPUs, each thread gets a CPU of
/// its own; with fewer, all threads may use all CPUs. Returns the ids of all threads, the caller's first.
fn place_threads(processor: &CpuProcessor) -> Result<Vec<u32>, Failure> {
    bind(None, &processor.cpus, &processor.name)?;
    let threads = usize::try_from(processor.threads).unwrap_or(1);
    let mut all = vec![current_thread()];
    if threads == 1 {
        return Ok(all);
    }
    let (workers, ()) =
        with_new_threads(|| create_thread_pool(&processor.cpus[..threads]).map_err(Failure::internal))?;
    all.extend(workers);
    if all.len() != threads {
        return Err(Failure::internal(format!(
            "failed to create TVM's thread pool: {} threads were started, expected {threads}",
            all.len()
        )));
    }
    if threads == processor.cpus.len() {
        for (thread, cpu) in all.iter().zip(&processor.cpus) {
            bind(Some(*thread), &[*cpu], &processor.name)?;
        }
    }
    Ok(all)
}

fn load_library(path: &Path) -> Result<Module, Failure> {
    let fail = |reason: &str| {
        let name = path.display();
        Failure::library(format!(
            "failed to load stage library {name}: {reason}; compile and deploy it again"
        ))
    };
    let name = path.to_str().ok_or_else(|| fail("its path is not valid UTF-8"))?;
    if !path.is_file() {
        return Err(fail("the file does not exist"));
    }
    elf::check_complete(path).map_err(|reason| fail(&reason))?;
    Module::load_from_file(name).map_err(|error| fail(&text(&error)))
}

impl Machine {
    fn new(
        module: &Module,
        path: &Path,
        entry: &str,
        instrument: Option<&Instrument>,
    ) -> Result<Self, Failure> {
        let fail = |step: &str, error: &tvm_ffi::Error| {
            let path = path.display();
            Failure::library(format!("failed to prepare stage library {path}: {step}: {}", text(error)))
        };
        let load = module
            .get_function("vm_load_executable")
            .map_err(|error| fail("it contains no program for TVM's virtual machine", &error))?;
        let machine = load.call_packed(&[]).and_then(Module::try_from);
        let machine = machine.map_err(|error| fail("vm_load_executable", &error))?;
        // Device type 1 is the CPU, device 0, allocator 2 keeps freed memory for the next frame.
        machine
            .get_function("vm_initialization")
            .and_then(|initialize| initialize.call_tuple((1_i32, 0_i32, 2_i32)))
            .map_err(|error| fail("vm_initialization", &error))?;
        if let Some(instrument) = instrument {
            machine
                .get_function("set_instrument")
                .and_then(|set| set.call_tuple((instrument.hook(),)))
                .map_err(|error| fail("set_instrument", &error))?;
        }
        let entry = machine
            .get_function(entry)
            .map_err(|error| fail(&format!("it has no function \"{entry}\""), &error))?;
        Ok(Self { entry, arguments: Vec::new() })
    }

    fn run(
        &mut self,
        values: &mut [Option<Tensor>],
        inputs: &[usize],
        weights: &[Tensor],
        outputs: &[usize],
    ) -> Result<(), String> {
        self.arguments.clear();
        for index in inputs {
            let input = values[*index].as_ref().ok_or_else(|| format!("value {index} is missing"))?;
            self.arguments.push(unbound(AnyView::from(&input.0)));
        }
        self.arguments.extend(weights.iter().map(|weight| unbound(AnyView::from(&weight.0))));
        let result = self.entry.call_packed(&self.arguments);
        self.arguments.clear();
        store_outputs(result.map_err(|error| text(&error))?, values, outputs)
    }
}

/// Moves the tensors of a result into `values`, without copying their elements.
fn store_outputs(result: Any, values: &mut [Option<Tensor>], outputs: &[usize]) -> Result<(), String> {
    let check_count = |found: usize| match outputs.len() {
        expected if found == expected => Ok(()),
        expected => Err(format!("it returned {found} tensors, expected {expected}")),
    };
    if result.type_index() == TypeIndex::kTVMFFITensor as i32 {
        check_count(1)?;
        values[outputs[0]] = Some(Tensor(tvm_ffi::Tensor::try_from(result).map_err(|error| text(&error))?));
        return Ok(());
    }
    let tensors = Array::<tvm_ffi::Tensor>::try_from(result)
        .map_err(|error| format!("it returned neither a tensor nor an array of tensors: {}", text(&error)))?;
    check_count(tensors.len())?;
    for (place, index) in outputs.iter().enumerate() {
        values[*index] = Some(Tensor(tensors.get(place).map_err(|error| text(&error))?));
    }
    Ok(())
}

/// Removes the lifetime of a view, for the argument array, which is cleared before its views expire.
fn unbound(view: AnyView<'_>) -> AnyView<'static> {
    #[expect(unsafe_code, reason = "a reused array cannot name the lifetime of each call")]
    // SAFETY: only the lifetime changes. `run` fills the array, calls, and clears it, while `values` and `weights`, which
    // own the viewed tensors, are borrowed throughout.
    unsafe {
        std::mem::transmute::<AnyView<'_>, AnyView<'static>>(view)
    }
}
