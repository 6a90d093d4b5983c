//! ONNX Runtime: a session runs the whole network. Its library is loaded when a request names it, so that a runner that
//! never uses it does not need it.

use super::api::{Engine, FrameProfile};
use super::loader::loader_message;
use super::onnx_provider;
use super::tensor::Tensor;
use crate::affinity::{bind, current_thread, with_new_threads};
use crate::failure::Failure;
use crate::schedule::{CheckedStage, TensorSpec};
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, PrimitiveTensorElementType, TensorRef};
use protocol::{CpuProcessor, Dtype, OnnxModel};
use std::borrow::Cow;
use std::fmt::{Debug, Display};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The library that was loaded. A process can load only one.
static LOADED: Mutex<Option<PathBuf>> = Mutex::new(None);

pub(crate) struct OnnxRuntimeEngine {
    model: PathBuf,
    session: Session,
    threads: Vec<u32>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

/// An input or output of the model.
struct Port {
    spec: TensorSpec,
    /// Index among the schedule's values.
    index: usize,
}

impl OnnxRuntimeEngine {
    /// Loads a model. The names of the stage's values are those of the model's inputs and outputs.
    ///
    /// The session has the threads of the stage's processor, the calling one included; the others inherit its CPUs and may
    /// move among them. All else has ONNX Runtime's defaults: all graph optimizations, sequential execution, threads that
    /// spin while they wait, and the CPU provider unless the request names a GPU.
    pub(crate) fn load(
        request: &OnnxModel,
        processor: &CpuProcessor,
        stage: &CheckedStage,
        specs: &[TensorSpec],
    ) -> Result<Self, Failure> {
        bind(None, &processor.cpus, &processor.name)?;
        let (workers, engine) = with_new_threads(|| {
            load_runtime(Path::new(&request.runtime))?;
            Self::start_session(request, processor, stage, specs)
        })?;
        Ok(Self { threads: std::iter::once(current_thread()).chain(workers).collect(), ..engine })
    }

    fn start_session(
        request: &OnnxModel,
        processor: &CpuProcessor,
        stage: &CheckedStage,
        specs: &[TensorSpec],
    ) -> Result<Self, Failure> {
        let model = PathBuf::from(&request.model);
        let fail = |reason: &dyn Display| {
            let name = model.display();
            Failure::library(format!("failed to load model {name} into ONNX Runtime: {reason}"))
        };
        if !model.is_file() {
            return Err(fail(&"the file does not exist; compile and deploy it again"));
        }
        let threads = usize::try_from(processor.threads).unwrap_or(1);
        let mut builder = Session::builder()
            .and_then(|builder| Ok(builder.with_optimization_level(GraphOptimizationLevel::All)?))
            .and_then(|builder| Ok(builder.with_intra_threads(threads)?))
            .map_err(|error| fail(&error))?;
        if let Some(gpu) = request.gpu {
            builder = onnx_provider::place_on(builder, gpu, Path::new(&request.runtime))
                .map_err(|reason| fail(&reason))?;
        }
        let session = builder.commit_from_file(&model).map_err(|error| fail(&error))?;
        let ports = |indices: &[usize], names: Vec<&str>| {
            let port = |index: &usize| {
                let spec = specs[*index].clone();
                if names.contains(&spec.name.as_str()) {
                    return Ok(Port { spec, index: *index });
                }
                Err(fail(&format!("it has no {}, only {}", spec.name, names.join(", "))))
            };
            indices.iter().map(port).collect::<Result<Vec<_>, _>>()
        };
        let inputs = ports(&stage.inputs, session.inputs().iter().map(ort::value::Outlet::name).collect())?;
        let outputs =
            ports(&stage.outputs, session.outputs().iter().map(ort::value::Outlet::name).collect())?;
        Ok(Self { threads: Vec::new(), inputs, outputs, model, session })
    }
}

impl Engine for OnnxRuntimeEngine {
    fn threads(&self) -> &[u32] {
        &self.threads
    }

    fn run(&mut self, values: &mut [Option<Tensor>]) -> Result<(), String> {
        let path = &self.model;
        let fail =
            |reason: &dyn Display| format!("failed to run {} in ONNX Runtime: {reason}", path.display());
        let mut views: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::with_capacity(self.inputs.len());
        for Port { spec, index } in &self.inputs {
            let tensor = values[*index].as_ref().ok_or_else(|| fail(&format!("{} is missing", spec.name)))?;
            let view = view(spec, tensor.bytes()).map_err(|error| fail(&error))?;
            views.push((Cow::Borrowed(spec.name.as_str()), view));
        }
        let results = self.session.run(views).map_err(|error| fail(&error))?;
        let copy = |Port { spec, index }: &Port| {
            let value =
                results.get(&spec.name).ok_or_else(|| fail(&format!("it did not return {}", spec.name)))?;
            Ok((*index, copy_output(spec, value).map_err(|error| fail(&error))?))
        };
        let outputs = self.outputs.iter().map(copy).collect::<Result<Vec<_>, String>>()?;
        drop(results);
        for (index, tensor) in outputs {
            values[index] = Some(tensor);
        }
        Ok(())
    }

    fn profile(&mut self, _values: &mut [Option<Tensor>]) -> Result<FrameProfile, Failure> {
        Err(Failure::request(
            "failed to profile: ONNX Runtime does not report kernel times; profile a stage library",
        ))
    }
}

fn load_runtime(path: &Path) -> Result<(), Failure> {
    let fail = |reason: &dyn Display| {
        Failure::library(format!("failed to load ONNX Runtime from {}: {reason}", path.display()))
    };
    let mut loaded = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match loaded.as_deref() {
        Some(known) if known == path => return Ok(()),
        Some(known) => {
            return Err(fail(&format!(
                "this process has already loaded {}; start another runner",
                known.display()
            )));
        }
        None => {}
    }
    if !path.is_file() {
        return Err(fail(&"the file does not exist; the command `setup` installs it"));
    }
    probe(path).map_err(|error| fail(&loader_message(&error)))?;
    // Set before the call, because a second call must not happen: after a first call that fails, the lock inside `ort` is
    // marked as done without a library in it (seen in 2.0.0-rc.13). That is also why the file is probed first.
    *loaded = Some(path.to_path_buf());
    ort::init_from(path).map_err(|error| fail(&error))?.with_telemetry(false).commit();
    Ok(())
}

/// Checks that the file is ONNX Runtime.
fn probe(path: &Path) -> Result<(), libloading::Error> {
    #[expect(unsafe_code, reason = "loading a library runs its initializers")]
    // SAFETY: the harness deployed this file as ONNX Runtime; the symbol is looked up and not called.
    unsafe {
        let library = libloading::Library::new(path)?;
        library.get::<*const ()>(b"OrtGetApiBase")?;
        // Keep it loaded, so that its initializers do not run twice.
        std::mem::forget(library);
    }
    Ok(())
}

/// A tensor's elements as an input, without a copy.
fn view<'v>(spec: &'v TensorSpec, bytes: &'v [u8]) -> Result<SessionInputValue<'v>, String> {
    match spec.dtype {
        Dtype::Float32 => typed_view::<f32>(spec, bytes),
        Dtype::Float64 => typed_view::<f64>(spec, bytes),
        Dtype::Int8 => typed_view::<i8>(spec, bytes),
        Dtype::Int16 => typed_view::<i16>(spec, bytes),
        Dtype::Int32 => typed_view::<i32>(spec, bytes),
        Dtype::Int64 => typed_view::<i64>(spec, bytes),
        Dtype::Uint8 => typed_view::<u8>(spec, bytes),
        Dtype::Uint16 => typed_view::<u16>(spec, bytes),
        Dtype::Uint32 => typed_view::<u32>(spec, bytes),
        Dtype::Uint64 => typed_view::<u64>(spec, bytes),
        Dtype::Bool => Err(format!("input {} is bool, which this engine does not support", spec.name)),
    }
}

/// Types for which every bit pattern is a valid value.
trait Plain: PrimitiveTensorElementType + Debug + Copy + 'static {}
impl Plain for f32 {}
impl Plain for f64 {}
impl Plain for i8 {}
impl Plain for i16 {}
impl Plain for i32 {}
impl Plain for i64 {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}

fn typed_view<'v, T: Plain>(spec: &'v TensorSpec, bytes: &'v [u8]) -> Result<SessionInputValue<'v>, String> {
    #[expect(unsafe_code, reason = "bytes are reinterpreted as numbers")]
    // SAFETY: every bit pattern is a valid `T`; unaligned bytes are returned in the outer parts.
    let (before, elements, after) = unsafe { bytes.align_to::<T>() };
    if !before.is_empty() || !after.is_empty() {
        return Err(format!("the memory of {} is not aligned to its type", spec.name));
    }
    let view = TensorRef::from_array_view((spec.shape.as_slice(), elements));
    view.map(SessionInputValue::from).map_err(|error| error.to_string())
}

/// Copies an output, because the session reuses its memory for the next frame.
fn copy_output(spec: &TensorSpec, value: &DynValue) -> Result<Tensor, String> {
    match spec.dtype {
        Dtype::Float32 => typed_copy::<f32>(spec, value),
        Dtype::Float64 => typed_copy::<f64>(spec, value),
        Dtype::Int8 => typed_copy::<i8>(spec, value),
        Dtype::Int16 => typed_copy::<i16>(spec, value),
        Dtype::Int32 => typed_copy::<i32>(spec, value),
        Dtype::Int64 => typed_copy::<i64>(spec, value),
        Dtype::Uint8 => typed_copy::<u8>(spec, value),
        Dtype::Uint16 => typed_copy::<u16>(spec, value),
        Dtype::Uint32 => typed_copy::<u32>(spec, value),
        Dtype::Uint64 => typed_copy::<u64>(spec, value),
        Dtype::Bool => Err(format!("output {} is bool, which this engine does not support", spec.name)),
    }
}

fn typed_copy<T: Plain>(spec: &TensorSpec, value: &DynValue) -> Result<Tensor, String> {
    let (shape, elements) = value.try_extract_tensor::<T>().map_err(|error| error.to_string())?;
    if **shape != *spec.shape {
        return Err(format!("output {} has shape {:?}, expected {:?}", spec.name, &**shape, spec.shape));
    }
    #[expect(unsafe_code, reason = "numbers are copied as bytes")]
    // SAFETY: a slice of numbers has no padding, so all its bytes are initialized.
    let bytes = unsafe {
        std::slice::from_raw_parts(elements.as_ptr().cast::<u8>(), std::mem::size_of_val(elements))
    };
    Tensor::filled(spec, |filled| filled.copy_from_slice(bytes)).map_err(|failure| failure.message)
}
