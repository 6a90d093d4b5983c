//! ONNX Runtime as an engine: a session runs the whole network. Its library is loaded when a request names it, so a
//! runner that is never asked for it needs none.

use super::tensor::{Dtype, Tensor, TensorSpec};
use crate::failure::Failure;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session, SessionInputValue};
use ort::value::PrimitiveTensorElementType;
use ort::value::{DynValue, TensorRef};
use std::borrow::Cow;
use std::fmt::{Debug, Display};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Which library was loaded. There can be one only for the life of a process.
static LOADED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// A session ready to run. Stays on its thread.
pub(crate) struct OnnxSession {
    model: PathBuf,
    session: Session,
    /// Name in the model and index among the schedule's values, in the order of the stage's inputs.
    inputs: Vec<(String, usize)>,
    /// The same of the outputs.
    outputs: Vec<(String, usize)>,
    specs: Vec<TensorSpec>,
}

impl OnnxSession {
    /// Loads a model with so many threads, the calling one among them; the others inherit its CPUs. `inputs` and
    /// `outputs` are indices into `specs`, whose names are those of the model.
    ///
    /// Everything else is as ONNX Runtime has it by default: all graph optimizations, sequential execution, its CPU
    /// provider, threads that spin while they wait.
    pub(crate) fn load(
        request: &protocol::OnnxModel,
        threads: u32,
        inputs: &[usize],
        outputs: &[usize],
        specs: &[TensorSpec],
    ) -> Result<Self, Failure> {
        load_runtime(Path::new(&request.runtime))?;
        let model = PathBuf::from(&request.model);
        let fail = |reason: &dyn Display| {
            let name = model.display();
            Failure::library(format!("failed to load the model {name} into ONNX Runtime: {reason}"))
        };
        if !model.is_file() {
            return Err(fail(&"there is no such file; compile and deploy it again"));
        }
        let session = start(&model, threads).map_err(|error| fail(&error))?;
        let named = |wanted: &[usize], found: Vec<&str>| {
            let mut named = Vec::new();
            for index in wanted {
                let name = &specs[*index].name;
                if !found.contains(&name.as_str()) {
                    return Err(fail(&format!("it has no {name}, only {}", found.join(", "))));
                }
                named.push((name.clone(), *index));
            }
            Ok(named)
        };
        let inputs = named(inputs, session.inputs().iter().map(ort::value::Outlet::name).collect())?;
        let outputs = named(outputs, session.outputs().iter().map(ort::value::Outlet::name).collect())?;
        Ok(Self { inputs, outputs, specs: specs.to_vec(), model, session })
    }

    /// Runs a frame: takes its inputs from `values` and puts its outputs there. The message of an error names the
    /// model.
    pub(crate) fn run(&mut self, values: &mut [Option<Tensor>]) -> Result<(), String> {
        let path = &self.model;
        let fail =
            |reason: &dyn Display| format!("failed to run {} in ONNX Runtime: {reason}", path.display());
        let mut views: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::with_capacity(self.inputs.len());
        for (name, index) in &self.inputs {
            let tensor = values[*index].as_ref().ok_or_else(|| fail(&format!("{name} is not there")))?;
            let view = view(&self.specs[*index], tensor.bytes()).map_err(|error| fail(&error))?;
            views.push((Cow::Borrowed(name.as_str()), view));
        }
        let made = self.session.run(views).map_err(|error| fail(&error))?;
        let mut taken = Vec::with_capacity(self.outputs.len());
        for (name, index) in &self.outputs {
            let value = made.get(name).ok_or_else(|| fail(&format!("it gave no {name}")))?;
            taken.push((*index, take(&self.specs[*index], value).map_err(|error| fail(&error))?));
        }
        drop(made);
        for (index, tensor) in taken {
            values[index] = Some(tensor);
        }
        Ok(())
    }
}

fn start(model: &Path, threads: u32) -> ort::Result<Session> {
    let threads = usize::try_from(threads).unwrap_or(1);
    Session::builder()?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?
        .commit_from_file(model)
}

/// Loads the library once.
fn load_runtime(path: &Path) -> Result<(), Failure> {
    let fail = |reason: &dyn Display| {
        Failure::library(format!("failed to load ONNX Runtime from {}: {reason}", path.display()))
    };
    let mut loaded = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match loaded.as_deref() {
        Some(known) if known == path => return Ok(()),
        Some(known) => {
            return Err(fail(&format!("{} was loaded before; start another runner", known.display())));
        }
        None => {}
    }
    if !path.is_file() {
        return Err(fail(&"there is no such file; `cargo xtask setup` installs it"));
    }
    probe(path).map_err(|error| fail(&error))?;
    // Whatever comes of it: `ort` may not be asked again. A first call that fails leaves its lock marked as done
    // without a library in it (seen in 2.0.0-rc.13), hence the probe.
    *loaded = Some(path.to_path_buf());
    ort::init_from(path).map_err(|error| fail(&error))?.with_telemetry(false).commit();
    Ok(())
}

/// Whether the file is ONNX Runtime at all.
fn probe(path: &Path) -> Result<(), libloading::Error> {
    #[expect(unsafe_code, reason = "a library's initialisers run when it is loaded")]
    // SAFETY: the file is what the harness deployed as ONNX Runtime; the symbol is looked for, not called.
    unsafe {
        let library = libloading::Library::new(path)?;
        library.get::<*const ()>(b"OrtGetApiBase")?;
        // Stays loaded: its initialisers are not run twice.
        std::mem::forget(library);
    }
    Ok(())
}

/// A tensor's elements as an input, without a copy.
fn view<'v>(spec: &'v TensorSpec, bytes: &'v [u8]) -> Result<SessionInputValue<'v>, String> {
    match spec.dtype {
        Dtype::Float32 => typed_view::<f32>(spec, bytes),
        Dtype::Float64 => typed_view::<f64>(spec, bytes),
        Dtype::Signed(1) => typed_view::<i8>(spec, bytes),
        Dtype::Signed(2) => typed_view::<i16>(spec, bytes),
        Dtype::Signed(4) => typed_view::<i32>(spec, bytes),
        Dtype::Signed(_) => typed_view::<i64>(spec, bytes),
        Dtype::Unsigned(1) => typed_view::<u8>(spec, bytes),
        Dtype::Unsigned(2) => typed_view::<u16>(spec, bytes),
        Dtype::Unsigned(4) => typed_view::<u32>(spec, bytes),
        Dtype::Unsigned(_) => typed_view::<u64>(spec, bytes),
        Dtype::Bool => Err(format!("{} is bool, which this engine does not take", spec.name)),
    }
}

/// Types of which every pattern of bits is a value.
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
    #[expect(unsafe_code, reason = "bytes become the numbers they are")]
    // SAFETY: every pattern of bits is a value of `T`; elements that are not aligned fall into the outer parts.
    let (before, elements, after) = unsafe { bytes.align_to::<T>() };
    if !before.is_empty() || !after.is_empty() {
        return Err(format!("{} does not lie where its type asks for", spec.name));
    }
    let view = TensorRef::from_array_view((spec.shape.as_slice(), elements));
    view.map(SessionInputValue::from).map_err(|error| error.to_string())
}

/// A copy of an output: the session's own memory is used again for the next frame.
fn take(spec: &TensorSpec, value: &DynValue) -> Result<Tensor, String> {
    match spec.dtype {
        Dtype::Float32 => typed_take::<f32>(spec, value),
        Dtype::Float64 => typed_take::<f64>(spec, value),
        Dtype::Signed(1) => typed_take::<i8>(spec, value),
        Dtype::Signed(2) => typed_take::<i16>(spec, value),
        Dtype::Signed(4) => typed_take::<i32>(spec, value),
        Dtype::Signed(_) => typed_take::<i64>(spec, value),
        Dtype::Unsigned(1) => typed_take::<u8>(spec, value),
        Dtype::Unsigned(2) => typed_take::<u16>(spec, value),
        Dtype::Unsigned(4) => typed_take::<u32>(spec, value),
        Dtype::Unsigned(_) => typed_take::<u64>(spec, value),
        Dtype::Bool => Err(format!("{} is bool, which this engine does not give", spec.name)),
    }
}

fn typed_take<T: Plain>(spec: &TensorSpec, value: &DynValue) -> Result<Tensor, String> {
    let (shape, elements) = value.try_extract_tensor::<T>().map_err(|error| error.to_string())?;
    if **shape != *spec.shape {
        return Err(format!("{} came as {:?}, the request says {:?}", spec.name, &**shape, spec.shape));
    }
    #[expect(unsafe_code, reason = "numbers are copied as the bytes they are")]
    // SAFETY: a slice of plain numbers has no padding, so all its bytes are initialised.
    let bytes = unsafe {
        std::slice::from_raw_parts(elements.as_ptr().cast::<u8>(), std::mem::size_of_val(elements))
    };
    Tensor::filled(spec, |filled| filled.copy_from_slice(bytes)).map_err(|failure| failure.message)
}
