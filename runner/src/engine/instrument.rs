//! Times every kernel call of TVM's virtual machine.

use super::api::KernelCall;
use super::tensor::raw;
use crate::clock::monotonic_ns;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use tvm_ffi::{Any, AnyView, Function};

/// Prefix of the virtual machine's own functions, which are not kernels.
const BUILTIN: &str = "vm.builtin.";

/// A hook for the machine's `set_instrument`. In its first frame it records the names and the order of the kernels;
/// afterwards it recognizes them by address, which costs one comparison a call and one clock read at each end of a kernel.
pub(super) struct Instrument {
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    first_frame_done: Cell<bool>,
    names: RefCell<Vec<Rc<str>>>,
    /// Addresses of the kernels' function objects, in execution order.
    kernels: RefCell<Vec<usize>>,
    /// Index of the next kernel in this frame.
    next: Cell<usize>,
    begin_ns: Cell<u64>,
    durations: RefCell<Vec<u64>>,
}

impl Instrument {
    pub(super) fn new() -> Self {
        Self { state: Rc::default() }
    }

    /// The function for `set_instrument`. The machine passes the function to be called, its name, whether it is about to
    /// be called or has returned, the result, and then the arguments of the call.
    pub(super) fn hook(&self) -> Function {
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

    pub(super) fn begin_frame(&self) {
        self.state.next.set(0);
        self.state.durations.borrow_mut().clear();
    }

    /// The kernel calls of the frame; `None` if they differ from those of the first frame.
    pub(super) fn end_frame(&self) -> Option<Vec<KernelCall>> {
        self.state.first_frame_done.set(true);
        let (names, durations) = (self.state.names.borrow(), self.state.durations.borrow());
        let call = |(function, ns): (&Rc<str>, &u64)| KernelCall { function: Rc::clone(function), ns: *ns };
        (durations.len() == names.len()).then(|| names.iter().zip(durations.iter()).map(call).collect())
    }

    pub(super) fn is_first_frame(&self) -> bool {
        !self.state.first_frame_done.get()
    }
}

impl State {
    #[inline]
    fn before(&self, kernel: usize, name: &AnyView<'_>) {
        if !self.first_frame_done.get() {
            self.record_kernel(kernel, name);
        }
        if self.kernels.borrow().get(self.next.get()) == Some(&kernel) {
            self.begin_ns.set(monotonic_ns());
        }
    }

    #[inline]
    fn after(&self, kernel: usize) {
        if self.kernels.borrow().get(self.next.get()) == Some(&kernel) {
            self.durations.borrow_mut().push(monotonic_ns() - self.begin_ns.get());
            self.next.set(self.next.get() + 1);
        }
    }

    #[cold]
    fn record_kernel(&self, kernel: usize, name: &AnyView<'_>) {
        let name = tvm_ffi::String::try_from(*name);
        let name = name.as_ref().map_or("?", |name| name.as_str());
        if !name.starts_with(BUILTIN) {
            self.names.borrow_mut().push(name.into());
            self.kernels.borrow_mut().push(kernel);
        }
    }
}

/// Address of the function object that a view refers to.
#[inline]
fn address(view: &AnyView<'_>) -> usize {
    #[expect(unsafe_code, reason = "the value of a view is a union")]
    // SAFETY: all eight bytes of the union are initialized, whatever the view holds; they are only compared.
    unsafe {
        usize::try_from(raw(view).data_union.v_uint64).unwrap_or(0)
    }
}
