//! Stamps before and after every kernel call of a virtual machine.

use super::library::raw;
use crate::clock::monotonic_ns;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use tvm_ffi::{Any, AnyView, Function};

/// Calls of the machine's own functions carry this prefix; they are no kernels.
const BUILTIN: &str = "vm.builtin.";

/// A hook for the machine's `set_instrument`. During its first frame it learns names and order of the kernels;
/// afterwards it knows them by address, so that it costs a comparison, and at a kernel a clock read.
pub(crate) struct Instrument {
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    learnt: Cell<bool>,
    names: RefCell<Vec<String>>,
    /// Addresses of the kernels' function objects, in execution order.
    kernels: RefCell<Vec<usize>>,
    /// Place of the next kernel in this frame.
    next: Cell<usize>,
    begun: Cell<u64>,
    durations: RefCell<Vec<u64>>,
}

impl Instrument {
    /// A hook that has yet to learn.
    pub(crate) fn new() -> Self {
        Self { state: Rc::default() }
    }

    /// The function for `set_instrument`. The machine passes the function to be called, its name, whether this is
    /// before the call, the result, and then the call's own arguments.
    pub(crate) fn hook(&self) -> Function {
        let state = Rc::clone(&self.state);
        Function::from_packed(move |arguments: &[AnyView<'_>]| {
            let [function, name, before, ..] = arguments else { return Ok(Any::new()) };
            let kernel = address(function);
            if before.try_as::<bool>() == Some(false) {
                state.after(kernel);
            } else {
                state.before(kernel, name);
            }
            Ok(Any::new())
        })
    }

    /// Names of the kernels in execution order, known after the first frame.
    pub(crate) fn names(&self) -> Vec<String> {
        self.state.names.borrow().clone()
    }

    /// A frame begins.
    pub(crate) fn begin_frame(&self) {
        self.state.next.set(0);
        self.state.durations.borrow_mut().clear();
    }

    /// A frame has ended: the duration of every kernel call in ns. `None` where the calls were not those of the
    /// first frame.
    pub(crate) fn end_frame(&self) -> Option<Vec<u64>> {
        self.state.learnt.set(true);
        let durations = self.state.durations.borrow();
        (durations.len() == self.state.kernels.borrow().len()).then(|| durations.clone())
    }
}

impl State {
    #[inline]
    fn before(&self, kernel: usize, name: &AnyView<'_>) {
        if !self.learnt.get() {
            self.learn(kernel, name);
        }
        if self.kernels.borrow().get(self.next.get()) == Some(&kernel) {
            self.begun.set(monotonic_ns());
        }
    }

    #[inline]
    fn after(&self, kernel: usize) {
        if self.kernels.borrow().get(self.next.get()) == Some(&kernel) {
            self.durations.borrow_mut().push(monotonic_ns() - self.begun.get());
            self.next.set(self.next.get() + 1);
        }
    }

    #[cold]
    fn learn(&self, kernel: usize, name: &AnyView<'_>) {
        let name =
            tvm_ffi::String::try_from(*name).map_or_else(|_| "?".to_owned(), |name| name.as_str().to_owned());
        if !name.starts_with(BUILTIN) {
            self.names.borrow_mut().push(name);
            self.kernels.borrow_mut().push(kernel);
        }
    }
}

/// Address of the function object a view shows.
#[inline]
fn address(view: &AnyView<'_>) -> usize {
    #[expect(unsafe_code, reason = "the parts of a view are a union")]
    // SAFETY: whatever the view holds, its eight bytes are initialised; they are only compared.
    unsafe {
        usize::try_from(raw(view).data_union.v_uint64).unwrap_or(0)
    }
}
