//! Whole kernels, in the fast and in the checked mode.

use crate::PTX;
use crate::api::{download, function, launch, load, start, upload, with};

const CHECKED: [(&str, &str); 1] = [("CUDA_STANDIN_CHECK", "1")];

/// Runs a kernel of `PTX` on values and returns the result: `count` words that were zero.
fn run(
    name: &str,
    grid: [u32; 3],
    block: [u32; 3],
    inputs: &[&[f32]],
    count: usize,
    last: &[u64],
) -> Vec<u32> {
    start().expect("a context");
    let module = load(PTX).expect("a module");
    let kernel = function(module, name).expect("a kernel");
    let result = upload(&vec![0u32; count]);
    let mut arguments: Vec<u64> = inputs.iter().map(|input| upload(input)).collect();
    arguments.push(result);
    arguments.extend(last);
    assert_eq!(launch(kernel, grid, block, &arguments, 0), 0);
    download(result, count).expect("no fault")
}

fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u16::try_from(state >> 16).unwrap_or(0)) / 65536.0 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

fn add() {
    // The last block has threads beyond the end.
    let (a, b) = (numbers(1000, 1), numbers(1000, 2));
    let result = run("add", [16, 1, 1], [64, 1, 1], &[&a, &b], 1000, &[1000]);
    let want: Vec<u32> = a.iter().zip(&b).map(|(a, b)| (a + b).to_bits()).collect();
    assert_eq!(result, want);
}

fn matmul() {
    let (a, b) = (numbers(64 * 64, 3), numbers(64 * 64, 4));
    let result = run("matmul", [4, 4, 1], [16, 16, 1], &[&a, &b], 64 * 64, &[]);
    for (place, found) in result.into_iter().enumerate() {
        let (row, column) = (place / 64, place % 64);
        let want = (0..64).fold(0f32, |sum, k| a[row * 64 + k].mul_add(b[k * 64 + column], sum));
        assert_eq!(found, want.to_bits(), "row {row}, column {column}");
    }
}

fn collatz() {
    let steps = |number: u32| {
        let next = |number: &u32| match number {
            1 => None,
            even if even.is_multiple_of(2) => Some(even / 2),
            odd => Some(3 * odd + 1),
        };
        std::iter::successors(Some(number), next).count() as u32 - 1
    };
    let result = run("collatz", [1, 1, 1], [150, 1, 1], &[], 150, &[]);
    let want: Vec<u32> = (1..=150).map(steps).collect();
    assert_eq!(result, want);
}

fn spaces() {
    let result = run("spaces", [1, 1, 1], [32, 1, 1], &[], 64, &[]);
    // Each lane has the sum of the four values of the lane four further on: of 5 to 8, or of 1 to 4. The last lanes
    // have their own.
    let sum = |lane: u32| if lane >= 28 || lane % 8 < 4 { 26 } else { 10 };
    let want: Vec<u32> = (0..32).map(sum).chain([0xaaaa_aaaa; 32]).collect();
    assert_eq!(result, want);
}

fn count() {
    let result = run("count", [20, 1, 1], [100, 1, 1], &[], 1, &[]);
    assert_eq!(result, [2000]);
}

fn choose() {
    let result = run("choose", [1, 1, 1], [200, 1, 1], &[], 200, &[]);
    let want: Vec<u32> = (0..200).map(|number| 10 * (number % 4 + 1)).collect();
    assert_eq!(result, want);
}

#[test]
fn branches_by_a_table() {
    with("kernels::branches_by_a_table", &[], choose);
}

#[test]
fn adds_vectors() {
    with("kernels::adds_vectors", &[], add);
}

#[test]
fn adds_vectors_checked() {
    with("kernels::adds_vectors_checked", &CHECKED, add);
}

#[test]
fn multiplies_matrices_in_tiles() {
    with("kernels::multiplies_matrices_in_tiles", &[], matmul);
}

#[test]
fn multiplies_matrices_in_tiles_checked() {
    with("kernels::multiplies_matrices_in_tiles_checked", &CHECKED, || {
        matmul();
        let mut counts = [0u64; 6];
        // SAFETY: there is room for six numbers.
        let code =
            unsafe { crate::api::edgepipe_cuda_standin_counts(c"matmul".as_ptr(), counts.as_mut_ptr()) };
        let [launches, blocks, threads, warps, sectors, wavefronts] = counts;
        assert_eq!((code, launches, blocks, warps), (0, 1, 16, threads / 32));
        // 32 instructions before the loop, 14 a tile and 8 a product, 6 after it.
        assert_eq!(threads, 16 * 256 * (32 + 4 * (14 + 16 * 8) + 6));
        // Each warp loads two rows of 64 bytes of both matrices for each tile, and stores two.
        assert_eq!(sectors, 16 * 8 * (4 * 2 * 4 + 4));
        // Per tile two stores and 32 loads without conflicts.
        assert_eq!(wavefronts, 16 * 8 * 4 * (2 + 32));
    });
}

#[test]
fn threads_part_and_meet() {
    with("kernels::threads_part_and_meet", &[], collatz);
}

#[test]
fn threads_part_and_meet_checked() {
    with("kernels::threads_part_and_meet_checked", &CHECKED, collatz);
}

#[test]
fn spaces_and_warps() {
    with("kernels::spaces_and_warps", &[], spaces);
}

#[test]
fn spaces_and_warps_checked() {
    with("kernels::spaces_and_warps_checked", &CHECKED, spaces);
}

#[test]
fn atomic_additions_are_not_lost() {
    with("kernels::atomic_additions_are_not_lost", &[], count);
}

#[test]
fn atomic_additions_are_no_race() {
    with("kernels::atomic_additions_are_no_race", &CHECKED, count);
}
