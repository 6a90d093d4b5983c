//! Runs the blocks of a launch on the CPUs.

use crate::execute::{Counts, Runner, Work};
use crate::fault::{Code, Fault};
use crate::shadow::Checks;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Most threads of a block, on all devices.
pub const BLOCK_LIMIT: u64 = 1024;

/// Work for which another thread of the host is started.
const WORTH_A_THREAD: Duration = Duration::from_micros(200);

/// Refuses a shape that the device or the kernel does not allow.
pub fn check_shape(work: &Work<'_>) -> Result<(), Fault> {
    let name = &work.program.name;
    let invalid = |message: String| Err(Fault::new(Code::INVALID_VALUE, format!("kernel {name}: {message}")));
    let threads: u64 = work.block.iter().map(|extent| u64::from(*extent)).product();
    let [x, y, z] = work.block;
    if threads == 0 || threads > BLOCK_LIMIT || z > 64 {
        return invalid(format!(
            "a block of {x} x {y} x {z} threads; a block has 1 to {BLOCK_LIMIT}, at most 64 in z"
        ));
    }
    if work.program.max_threads.is_some_and(|most| threads > most) {
        let most = work.program.max_threads.unwrap_or(0);
        return invalid(format!("a block of {threads} threads, more than its .maxntid of {most}"));
    }
    if work.program.required_block.is_some_and(|required| required != work.block.map(u64::from)) {
        return invalid(format!("a block of {x} x {y} x {z} threads, which is not its .reqntid"));
    }
    let [x, y, z] = work.grid;
    if x == 0 || y == 0 || z == 0 || x > i32::MAX as u32 || y > 65535 || z > 65535 {
        return invalid(format!(
            "a grid of {x} x {y} x {z} blocks; the limits are 2147483647 x 65535 x 65535"
        ));
    }
    let blocks = work.grid.iter().map(|extent| u64::from(*extent)).product::<u64>();
    if blocks >= u64::from(u32::MAX) - 2 {
        return invalid(format!("{blocks} blocks, more than the stand-in can count"));
    }
    Ok(())
}

/// Runs all blocks. With checks they run one after the other.
pub fn run(work: Work<'_>, checks: Option<Checks<'_>>) -> Result<Counts, Fault> {
    check_shape(&work)?;
    let blocks: u32 = work.grid.iter().product();
    if let Some(checks) = checks {
        let mut runner = Runner::new(work, Some(checks))?;
        for block in 0..blocks {
            runner.run(block)?;
        }
        return Ok(runner.counts);
    }
    // The first block tells whether the others are worth a thread of the host, which takes tens of microseconds to start.
    let begun = Instant::now();
    let mut first = Runner::new(work, None)?;
    first.run(0)?;
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let by_time = (begun.elapsed() * (blocks - 1)).as_micros() / WORTH_A_THREAD.as_micros();
    let threads = cpus.min(blocks as usize - 1).min(1 + usize::try_from(by_time).unwrap_or(usize::MAX - 1));
    if threads <= 1 {
        for block in 1..blocks {
            first.run(block)?;
        }
        return Ok(first.counts);
    }
    let next = AtomicU32::new(1);
    let has_failed = AtomicBool::new(false);
    let run_some = || {
        let mut runner = Runner::new(work, None)?;
        while !has_failed.load(Relaxed) {
            let block = next.fetch_add(1, Relaxed);
            if block >= blocks {
                break;
            }
            runner.run(block).inspect_err(|_| has_failed.store(true, Relaxed))?;
        }
        Ok(runner.counts)
    };
    let mut counts = first.counts;
    let mut result = Ok(());
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run_some)).collect();
        let own = run_some();
        let panicked = || Err(Fault::new(Code::UNKNOWN, "a thread of the interpreter panicked"));
        let all = others.into_iter().map(|other| other.join().unwrap_or_else(|_| panicked())).chain([own]);
        for part in all {
            match part {
                Ok(part) => counts.add(&part),
                Err(fault) if result.is_ok() => result = Err(fault),
                Err(_) => {}
            }
        }
    });
    result.map(|()| counts)
}
