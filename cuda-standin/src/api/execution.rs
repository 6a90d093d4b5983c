//! Launches.

use super::module::function;
use super::{enqueue, in_context};
use crate::fault::{Code, Fault};
use crate::launch::check_shape;
use crate::memory::Snapshot;
use crate::stream::{KernelLaunch, Task};
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

/// Arguments come one by one; a packed buffer (`extra`) and dynamic shared memory are refused.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernel(
    handle: usize,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    dynamic_bytes: c_uint,
    stream: usize,
    arguments: *const *const c_void,
    extra: *const *const c_void,
) -> c_int {
    in_context("cuLaunchKernel", |device| {
        let program = function(device, handle)?.program;
        let name = &program.name;
        if !extra.is_null() || dynamic_bytes > 0 {
            let message =
                format!("kernel {name}: packed arguments and dynamic shared memory are not supported");
            return Err(Fault::new(Code::NOT_SUPPORTED, message));
        }
        if arguments.is_null() && !program.parameters.is_empty() {
            let message = format!("kernel {name} has {} parameters, found none", program.parameters.len());
            return Err(Fault::new(Code::INVALID_VALUE, message));
        }
        let end = program.parameters.last().map_or(0, |(offset, bytes)| offset + bytes);
        let mut parameters = vec![0u8; end];
        for (number, (offset, bytes)) in program.parameters.iter().copied().enumerate() {
            // SAFETY: the caller passes a pointer to each argument.
            unsafe {
                let argument = arguments.add(number).read().cast::<u8>();
                if argument.is_null() {
                    let message = format!("kernel {name}: the argument {number} is null");
                    return Err(Fault::new(Code::INVALID_VALUE, message));
                }
                parameters[offset..offset + bytes]
                    .copy_from_slice(std::slice::from_raw_parts(argument, bytes));
            }
        }
        let grid = [grid_x, grid_y, grid_z];
        let block = [block_x, block_y, block_z];
        let launch = KernelLaunch { program: Arc::clone(&program), grid, block, parameters };
        check_shape(&launch.work(&Snapshot::default()))?;
        enqueue(device, stream, [Task::Kernel(Arc::new(launch))])
    })
}
