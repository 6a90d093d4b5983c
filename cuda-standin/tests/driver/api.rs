//! The driver's functions as a program calls them, and small programs on top of them.

use cuda as _;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;

/// A handle.
pub(crate) type Handle = usize;

unsafe extern "C" {
    pub(crate) fn cuInit(flags: c_uint) -> c_int;
    pub(crate) fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int) -> c_int;
    pub(crate) fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int) -> c_int;
    pub(crate) fn cuDevicePrimaryCtxReset(device: c_int) -> c_int;
    pub(crate) fn cuDevicePrimaryCtxSetFlags(device: c_int, flags: c_uint) -> c_int;
    pub(crate) fn cuCtxSetCurrent(context: Handle) -> c_int;
    pub(crate) fn cuCtxSynchronize() -> c_int;
    pub(crate) fn cuModuleLoadDataEx(
        module: *mut Handle,
        image: *const c_void,
        count: c_uint,
        options: *const c_int,
        values: *mut *mut c_void,
    ) -> c_int;
    pub(crate) fn cuModuleUnload(module: Handle) -> c_int;
    pub(crate) fn cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char) -> c_int;
    pub(crate) fn cuFuncGetAttribute(value: *mut c_int, attribute: c_int, function: Handle) -> c_int;
    pub(crate) fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> c_int;
    pub(crate) fn cuMemFree_v2(address: u64) -> c_int;
    pub(crate) fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int;
    pub(crate) fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: Handle) -> c_int;
    pub(crate) fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: Handle) -> c_int;
    pub(crate) fn cuStreamCreate(stream: *mut Handle, flags: c_uint) -> c_int;
    pub(crate) fn cuStreamDestroy_v2(stream: Handle) -> c_int;
    pub(crate) fn cuStreamSynchronize(stream: Handle) -> c_int;
    pub(crate) fn cuStreamQuery(stream: Handle) -> c_int;
    pub(crate) fn cuStreamWaitEvent(stream: Handle, event: Handle, flags: c_uint) -> c_int;
    pub(crate) fn cuEventCreate(event: *mut Handle, flags: c_uint) -> c_int;
    pub(crate) fn cuEventRecord(event: Handle, stream: Handle) -> c_int;
    pub(crate) fn cuEventSynchronize(event: Handle) -> c_int;
    pub(crate) fn cuEventElapsedTime(milliseconds: *mut f32, begin: Handle, end: Handle) -> c_int;
    pub(crate) fn cuStreamBeginCapture_v2(stream: Handle, mode: c_uint) -> c_int;
    pub(crate) fn cuStreamEndCapture(stream: Handle, graph: *mut Handle) -> c_int;
    pub(crate) fn cuGraphInstantiate(
        executable: *mut Handle,
        graph: Handle,
        node: *mut Handle,
        log: *mut c_char,
        bytes: usize,
    ) -> c_int;
    pub(crate) fn cuGraphLaunch(executable: Handle, stream: Handle) -> c_int;
    pub(crate) fn cuLaunchKernel(
        function: Handle,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        dynamic_bytes: c_uint,
        stream: Handle,
        arguments: *const *const c_void,
        extra: *const *const c_void,
    ) -> c_int;
    pub(crate) fn edgepipe_cuda_standin_report(text: *mut c_char, room: usize) -> c_int;
    pub(crate) fn edgepipe_cuda_standin_counts(kernel: *const c_char, counts: *mut u64) -> c_int;
}

/// The result of a function that writes one.
pub(crate) fn result<T: Default>(call: impl FnOnce(*mut T) -> c_int) -> Result<T, c_int> {
    let mut value = T::default();
    match call(&raw mut value) {
        0 => Ok(value),
        code => Err(code),
    }
}

/// The context, current on this thread.
pub(crate) fn start() -> Result<(), c_int> {
    // SAFETY: as the driver's documentation asks for, here and below.
    unsafe {
        assert_eq!(cuInit(0), 0);
        let context = result(|place| cuDevicePrimaryCtxRetain(place, 0))?;
        match cuCtxSetCurrent(context) {
            0 => Ok(()),
            code => Err(code),
        }
    }
}

/// Loads a module; the error is the code and the compiler's log.
pub(crate) fn load(ptx: &str) -> Result<Handle, (c_int, String)> {
    let text = CString::new(ptx).expect("no zero in the text");
    let mut log = vec![0u8; 1000];
    let mut values = [log.as_mut_ptr().cast::<c_void>(), log.len() as *mut c_void];
    // SAFETY: the options are the error log and its size.
    let loaded = result(|place| unsafe {
        cuModuleLoadDataEx(place, text.as_ptr().cast(), 2, [5, 6].as_ptr(), values.as_mut_ptr())
    });
    loaded.map_err(|code| {
        let length = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        (code, String::from_utf8_lossy(&log[..length]).into_owned())
    })
}

/// A kernel of a module.
pub(crate) fn function(module: Handle, name: &str) -> Result<Handle, c_int> {
    let name = CString::new(name).expect("no zero in a name");
    // SAFETY: see `start`.
    result(|place| unsafe { cuModuleGetFunction(place, module, name.as_ptr()) })
}

/// Device memory with these values.
pub(crate) fn upload<T>(values: &[T]) -> u64 {
    // SAFETY: the copy is over before the values go.
    unsafe {
        let bytes = size_of_val(values);
        let address = result(|place| cuMemAlloc_v2(place, bytes)).expect("enough memory");
        assert_eq!(cuMemcpyHtoDAsync_v2(address, values.as_ptr().cast(), bytes, 0), 0);
        assert_eq!(cuStreamSynchronize(0), 0);
        address
    }
}

/// Values in device memory; the error is that of the work before, too.
pub(crate) fn download<T: Clone + Default>(address: u64, count: usize) -> Result<Vec<T>, c_int> {
    let mut values = vec![T::default(); count];
    // SAFETY: the copy is over before the values are used.
    let codes = unsafe {
        let bytes = size_of_val(values.as_slice());
        [cuMemcpyDtoHAsync_v2(values.as_mut_ptr().cast(), address, bytes, 0), cuStreamSynchronize(0)]
    };
    codes.into_iter().find(|code| *code != 0).map_or(Ok(values), Err)
}

/// Launches a kernel with 64-bit arguments on a stream.
pub(crate) fn launch(
    function: Handle,
    grid: [u32; 3],
    block: [u32; 3],
    arguments: &[u64],
    stream: Handle,
) -> c_int {
    let pointers: Vec<*const c_void> =
        arguments.iter().map(|argument| std::ptr::from_ref(argument).cast()).collect();
    let ([gx, gy, gz], [bx, by, bz]) = (grid, block);
    // SAFETY: see `start`.
    unsafe { cuLaunchKernel(function, gx, gy, gz, bx, by, bz, 0, stream, pointers.as_ptr(), null_mut()) }
}

/// The reports so far.
pub(crate) fn reports() -> String {
    let mut text = vec![0u8; 1 << 16];
    // SAFETY: the text has this room.
    unsafe { edgepipe_cuda_standin_report(text.as_mut_ptr().cast(), text.len()) };
    let length = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    String::from_utf8_lossy(&text[..length]).into_owned()
}

/// Does the work of a test in a process of its own with these variables, because the stand-in reads them once: starts
/// this program again for the test of this name alone.
pub(crate) fn with(test: &str, variables: &[(&str, &str)], work: impl FnOnce()) {
    const CHILD: &str = "CUDA_STANDIN_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return work();
    }
    let program = std::env::current_exe().expect("the path of this program");
    let mut command = std::process::Command::new(program);
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(CHILD, "1").envs(variables.iter().copied());
    let output = command.output().expect("this program starts");
    let printed =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    let has_passed = output.status.success() && printed.contains("1 passed");
    assert!(has_passed, "{test} with {variables:?}:\n{printed}");
}
