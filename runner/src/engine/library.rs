//! Stage libraries and the virtual machines that run them.

use super::tensor::{Tensor, TensorSpec};
use super::{Instrument, text};
use crate::elf;
use crate::failure::Failure;
use std::path::{Path, PathBuf};
use tvm_ffi::{Any, AnyView, Array, Function, Module, TVMFFIAny, TypeIndex};

/// A loaded stage library. Stays on the thread that loaded it.
pub(crate) struct Library {
    path: PathBuf,
    module: Module,
}

impl Library {
    /// Loads a library that `tvm.compile` made.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let fail = |reason: &str| {
            let name = path.display();
            Failure::library(format!(
                "failed to load stage library {name}: {reason}; compile and deploy it again"
            ))
        };
        let name = path.to_str().ok_or_else(|| fail("its name is no UTF-8"))?;
        if !path.is_file() {
            return Err(fail("there is no such file"));
        }
        elf::check_whole(path).map_err(|reason| fail(&reason))?;
        let module = Module::load_from_file(name).map_err(|error| fail(&text(&error)))?;
        Ok(Self { path: path.to_path_buf(), module })
    }

    /// A fresh virtual machine for the entry function, with its weights as last arguments.
    pub(crate) fn machine(
        &self,
        entry: &str,
        weights: Vec<Tensor>,
        instrument: Option<&Instrument>,
    ) -> Result<StageCode, Failure> {
        let fail = |step: &str, error: &tvm_ffi::Error| {
            let path = self.path.display();
            Failure::library(format!("failed to prepare stage library {path}: {step}: {}", text(error)))
        };
        let load = self
            .module
            .get_function("vm_load_executable")
            .map_err(|error| fail("it holds no program for TVM's virtual machine", &error))?;
        let machine = load.call_packed(&[]).and_then(Module::try_from);
        let machine = machine.map_err(|error| fail("vm_load_executable", &error))?;
        // Device type 1 is the CPU, device 0, allocator 2 keeps freed memory for the next frame.
        machine
            .get_function("vm_initialization")
            .and_then(|initialise| initialise.call_tuple((1_i32, 0_i32, 2_i32)))
            .map_err(|error| fail("vm_initialization", &error))?;
        if let Some(instrument) = instrument {
            machine
                .get_function("set_instrument")
                .and_then(|set| set.call_tuple((instrument.hook(),)))
                .map_err(|error| fail("set_instrument", &error))?;
        }
        let function = machine
            .get_function(entry)
            .map_err(|error| fail(&format!("it has no function \"{entry}\""), &error))?;
        Ok(StageCode { path: self.path.clone(), function, weights, arguments: Vec::new() })
    }
}

/// A virtual machine ready to run a stage. Stays on its thread.
pub(crate) struct StageCode {
    path: PathBuf,
    /// Holds the machine, which holds the library.
    function: Function,
    weights: Vec<Tensor>,
    /// Room for inputs, then weights. Views in it are valid during a call only.
    arguments: Vec<AnyView<'static>>,
}

impl StageCode {
    /// Runs the stage: takes `inputs` from `values` and puts what it gives to `outputs` there. Allocates nothing
    /// beyond what the virtual machine allocates itself. The message of an error names the library.
    pub(crate) fn run(
        &mut self,
        values: &mut [Option<Tensor>],
        inputs: &[usize],
        outputs: &[usize],
    ) -> Result<(), String> {
        self.arguments.clear();
        for index in inputs {
            let input = values[*index].as_ref().ok_or_else(|| format!("value {index} is not there"))?;
            self.arguments.push(unbound(AnyView::from(&input.0)));
        }
        self.arguments.extend(self.weights.iter().map(|weight| unbound(AnyView::from(&weight.0))));
        let result = self.function.call_packed(&self.arguments);
        self.arguments.clear();
        match result {
            Ok(result) => take(result, values, outputs),
            Err(error) => Err(text(&error)),
        }
        .map_err(|reason| format!("failed to run stage library {}: {reason}", self.path.display()))
    }

    /// Compares what the stage gave with what the request says.
    pub(crate) fn check(
        &self,
        values: &[Option<Tensor>],
        outputs: &[usize],
        specs: &[TensorSpec],
    ) -> Result<(), Failure> {
        for index in outputs {
            let Some(tensor) = &values[*index] else { continue };
            tensor.check(&specs[*index]).map_err(|difference| {
                let path = self.path.display();
                Failure::library(format!(
                    "failed to fit stage library {path} to the request: output {difference}"
                ))
            })?;
        }
        Ok(())
    }
}

/// Takes the tensors out of a result by reference count.
fn take(result: Any, values: &mut [Option<Tensor>], outputs: &[usize]) -> Result<(), String> {
    let count = |found: usize| {
        let asked = outputs.len();
        if found == asked {
            Ok(())
        } else {
            Err(format!("it returned {found} tensors, the request says {asked}"))
        }
    };
    if result.type_index() == TypeIndex::kTVMFFITensor as i32 {
        count(1)?;
        values[outputs[0]] = Some(Tensor(tvm_ffi::Tensor::try_from(result).map_err(|error| text(&error))?));
        return Ok(());
    }
    let tensors = Array::<tvm_ffi::Tensor>::try_from(result)
        .map_err(|error| format!("it returned neither a tensor nor an array of tensors: {}", text(&error)))?;
    count(tensors.len())?;
    for (place, index) in outputs.iter().enumerate() {
        values[*index] = Some(Tensor(tensors.get(place).map_err(|error| text(&error))?));
    }
    Ok(())
}

/// A view without its lifetime, for the argument array, which is emptied before what it shows can go.
fn unbound(view: AnyView<'_>) -> AnyView<'static> {
    #[expect(unsafe_code, reason = "an array that is used again cannot name the lifetime of each call")]
    // SAFETY: only the lifetime changes. `run` fills the array, calls, and empties it, while `values` and
    // `weights`, which own what the views show, are borrowed throughout.
    unsafe {
        std::mem::transmute::<AnyView<'_>, AnyView<'static>>(view)
    }
}

/// What a view is made of.
pub(super) fn raw(view: &AnyView<'_>) -> TVMFFIAny {
    #[expect(unsafe_code, reason = "tvm-ffi keeps the parts of a view to itself")]
    // SAFETY: `AnyView` is `repr(C)` around a single `TVMFFIAny`; tvm-ffi itself passes slices of views as slices
    // of these.
    unsafe {
        *std::ptr::from_ref(view).cast::<TVMFFIAny>()
    }
}
