//! What the stand-in exports besides the driver's functions, for tests.

use super::device;
use crate::execute::Counts;
use std::ffi::{CStr, c_char, c_int};

/// A version of the functions below. A program knows by this symbol that the GPU is emulated.
#[unsafe(no_mangle)]
extern "C" fn edgepipe_cuda_standin() -> c_int {
    1
}

/// Copies the last reports, a line each, and returns their number. What does not fit is cut off.
///
/// # Safety
/// `text` is null or has room for `room` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn edgepipe_cuda_standin_report(text: *mut c_char, room: usize) -> c_int {
    let reports = device().map(|device| device.reports()).unwrap_or_default();
    if !text.is_null() && room > 0 {
        let mut lines = reports.join("\n").into_bytes();
        lines.truncate(room - 1);
        lines.push(0);
        // SAFETY: the caller has room for it.
        unsafe { std::ptr::copy_nonoverlapping(lines.as_ptr().cast(), text, lines.len()) };
    }
    c_int::try_from(reports.len()).unwrap_or(c_int::MAX)
}

/// Copies what a kernel did in all launches so far: launches, blocks, instructions of threads, instructions of warps,
/// sectors of global memory, wavefronts of shared memory. The last two are counted in the checked mode only. Returns
/// 0, or 1 if no kernel of this name has run.
///
/// # Safety
/// `kernel` is a text that ends with a zero; `counts` has room for six numbers.
#[unsafe(no_mangle)]
unsafe extern "C" fn edgepipe_cuda_standin_counts(kernel: *const c_char, counts: *mut u64) -> c_int {
    if kernel.is_null() || counts.is_null() {
        return 1;
    }
    // SAFETY: as promised by the caller.
    let kernel = unsafe { CStr::from_ptr(kernel) }.to_string_lossy();
    let all = device().map(|device| device.counts()).unwrap_or_default();
    let Some(found) = all.get(kernel.as_ref()) else { return 1 };
    let Counts {
        launches,
        blocks,
        thread_instructions,
        warp_instructions,
        global_sectors,
        shared_wavefronts,
    } = *found;
    let numbers =
        [launches, blocks, thread_instructions, warp_instructions, global_sectors, shared_wavefronts];
    // SAFETY: as above.
    unsafe { std::ptr::copy_nonoverlapping(numbers.as_ptr(), counts, numbers.len()) };
    0
}
