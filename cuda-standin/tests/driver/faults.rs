//! Faults planted in kernels and launches: each is found, with its place.

use crate::PTX;
use crate::api::{download, function, launch, load, reports, start, upload, with};

const CHECKED: [(&str, &str); 1] = [("CUDA_STANDIN_CHECK", "1")];

const ILLEGAL_ADDRESS: i32 = 700;
const MISALIGNED_ADDRESS: i32 = 716;
const LAUNCH_FAILED: i32 = 719;
const INVALID_VALUE: i32 = 1;

/// `PTX` with a text replaced, the Nth one from 0.
fn replaced(from: &str, to: &str, number: usize) -> String {
    let (place, _) = PTX.match_indices(from).nth(number).expect("the text is there");
    [&PTX[..place], to, &PTX[place + from.len()..]].concat()
}

/// Runs the product of two matrices and expects a fault; the report contains `place`.
fn expect(ptx: &str, code: i32, place: &str) {
    start().expect("a context");
    let module = load(ptx).expect("a module");
    let kernel = function(module, "matmul").expect("a kernel");
    let arguments = [(); 3].map(|()| upload(&[1f32; 64 * 64]));
    assert_eq!(launch(kernel, [4, 4, 1], [16, 16, 1], &arguments, 0), 0, "launches are asynchronous");
    let result = download::<f32>(arguments[2], 1);
    let text = reports();
    assert_eq!(result, Err(code), "{text}");
    assert!(text.contains(place), "{text}");
    // The context is lost until it is reset.
    assert_eq!(launch(kernel, [4, 4, 1], [16, 16, 1], &arguments, 0), code);
    // SAFETY: as the driver's documentation asks for.
    assert_eq!(unsafe { crate::api::cuDevicePrimaryCtxReset(0) }, 0);
    start().expect("a fresh context");
    assert_eq!(download::<f32>(upload(&[5f32]), 1), Ok(vec![5f32]));
}

/// Line of the Nth occurrence of a text in `PTX`, from 1.
fn line(text: &str, number: usize) -> usize {
    let (place, _) = PTX.match_indices(text).nth(number).expect("the text is there");
    PTX[..place].lines().count()
}

#[test]
fn a_missing_barrier_before_reading_is_a_race() {
    with("faults::a_missing_barrier_before_reading_is_a_race", &CHECKED, || {
        let place = format!("kernel matmul, PTX line {}: thread", line("ld.shared.f32", 0));
        let ptx = replaced("bar.sync \t0;", "", 0);
        expect(&ptx, LAUNCH_FAILED, &place);
        assert!(reports().contains("which thread (") && reports().contains("since the last barrier: a race"));
    });
}

#[test]
fn a_missing_barrier_before_writing_is_a_race() {
    with("faults::a_missing_barrier_before_writing_is_a_race", &CHECKED, || {
        let place = format!("kernel matmul, PTX line {}: thread", line("st.shared.f32", 0));
        expect(&replaced("bar.sync \t0;", "", 1), LAUNCH_FAILED, &place);
    });
}

#[test]
fn two_writers_of_a_global_word_are_a_race() {
    with("faults::two_writers_of_a_global_word_are_a_race", &CHECKED, || {
        let ptx = replaced("add.s64 \t%rd15, %rd15, %rd3;", "mov.u64 \t%rd15, %rd3;", 0);
        expect(&ptx, LAUNCH_FAILED, "writes global memory");
    });
}

#[test]
fn a_block_that_reads_what_another_writes_is_a_race() {
    with("faults::a_block_that_reads_what_another_writes_is_a_race", &CHECKED, || {
        // The result goes to the matrix that all blocks read.
        let ptx = replaced("[matmul_param_2]", "[matmul_param_0]", 0);
        expect(&ptx, LAUNCH_FAILED, "of block (1, 0, 0) reads global memory");
    });
}

#[test]
fn a_barrier_that_some_threads_miss_is_found() {
    with("faults::a_barrier_that_some_threads_miss_is_found", &CHECKED, || {
        let ptx = replaced("bar.sync \t0;", "setp.lt.u32 \t%p1, %r1, 3;\n@%p1 bar.sync \t0;", 0);
        expect(&ptx, LAUNCH_FAILED, "thread (3, 0, 0) of block (0, 0, 0) has not come to a barrier");
    });
}

#[test]
fn a_load_beyond_an_allocation_is_found() {
    with("faults::a_load_beyond_an_allocation_is_found", &CHECKED, || {
        let place = format!("PTX line {}: thread (12, 0, 0)", line("ld.global.f32", 1));
        let ptx = replaced("ld.global.f32 \t%f3, [%rd5]", "ld.global.f32 \t%f3, [%rd5+16336]", 0);
        expect(&ptx, ILLEGAL_ADDRESS, &place);
        assert!(reports().contains("the allocation below has 16384 bytes, the access begins at byte 16384"));
    });
}

#[test]
fn an_offset_of_a_megabyte_is_found() {
    with("faults::an_offset_of_a_megabyte_is_found", &[], || {
        let ptx = replaced("st.global.f32 \t[%rd15]", "st.global.f32 \t[%rd15+1048576]", 0);
        expect(&ptx, ILLEGAL_ADDRESS, "writes 4 bytes at 0x");
    });
}

#[test]
fn a_store_beyond_shared_memory_is_found() {
    with("faults::a_store_beyond_shared_memory_is_found", &[], || {
        let ptx = replaced("st.shared.f32 \t[%rd10]", "st.shared.f32 \t[%rd10+1024]", 0);
        expect(&ptx, ILLEGAL_ADDRESS, "writes 4 bytes of shared memory at 0x800, beyond its 2048 bytes");
    });
}

#[test]
fn a_misaligned_vector_is_found() {
    with("faults::a_misaligned_vector_is_found", &CHECKED, || {
        let ptx =
            replaced("ld.shared.f32 \t%f4, [%rd13]", "ld.shared.v4.f32 \t{%f4, %f2, %f3, %f2}, [%rd13]", 0);
        // The first step is aligned, the second one is not.
        expect(&ptx, MISALIGNED_ADDRESS, "reads 16 bytes at 0x4, which is not aligned to them");
    });
}

#[test]
fn a_trap_is_found() {
    with("faults::a_trap_is_found", &[], || {
        expect(&replaced("bar.sync \t0;", "trap;", 0), LAUNCH_FAILED, "ran into a trap");
    });
}

#[test]
fn a_pointer_of_the_host_is_found() {
    with("faults::a_pointer_of_the_host_is_found", &[], || {
        start().expect("a context");
        let kernel = function(load(PTX).expect("a module"), "collatz").expect("a kernel");
        let (values, other) = ([0u32; 64], upload(&[1u32]));
        assert_eq!(launch(kernel, [1, 1, 1], [64, 1, 1], &[values.as_ptr() as u64], 0), 0);
        assert_eq!(download::<u32>(other, 1), Err(ILLEGAL_ADDRESS));
    });
}

#[test]
fn a_block_of_the_wrong_shape_is_refused() {
    with("faults::a_block_of_the_wrong_shape_is_refused", &[], || {
        start().expect("a context");
        let kernel = function(load(PTX).expect("a module"), "matmul").expect("a kernel");
        let arguments = [(); 3].map(|()| upload(&[1f32; 64 * 64]));
        for (grid, block) in [
            ([4, 4, 1], [16, 17, 1]),
            ([4, 4, 1], [16, 0, 1]),
            ([4, 4, 1], [1, 1, 65]),
            ([4, 65536, 1], [16, 16, 1]),
            ([0, 4, 1], [16, 16, 1]),
        ] {
            assert_eq!(launch(kernel, grid, block, &arguments, 0), INVALID_VALUE, "{grid:?} {block:?}");
        }
        assert!(reports().contains("kernel matmul: a block of 272 threads, more than its .maxntid of 256"));
        assert_eq!(launch(kernel, [4, 4, 1], [16, 16, 1], &arguments, 0), 0);
        assert_eq!(download::<f32>(arguments[2], 1), Ok(vec![64.0]));
    });
}
