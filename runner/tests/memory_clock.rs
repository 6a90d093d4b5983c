//! `runner hold` on a fake Jetson whose kernel controls the memory clock: governors and that clock are set and restored.

#![expect(clippy::unwrap_used, reason = "a test panics if its assumptions fail")]

mod hold;
mod jetson;

use hold::Board;
use protocol::StateRequest;
use rustix::process::Signal;

#[test]
fn governors_and_the_memory_clock_are_set_one_point_after_the_other_and_restored() {
    let board = Board::new();
    board.jetson.add_memory_clock();
    let before = board.jetson.state();
    let point = |governor: &str, memory_hz: u64| StateRequest {
        nvpmodel: Some(0),
        governor: Some(governor.to_owned()),
        memory_hz: Some(memory_hz),
        ..board.request()
    };
    let governors = || [0, 1].map(|cpu| board.jetson.cpu(cpu, "scaling_governor"));
    let mut keeper = board.keep("anna");
    let applied = keeper.set(point("powersave", 408_000_000));
    assert_eq!((applied.found.memory_hz, applied.set.memory_hz), (None, Some(408_000_000)));
    assert_eq!(board.jetson.memory_clock(), ["408000000", "1"]);
    assert_eq!(governors(), ["powersave", "powersave"]);
    let calls = board.jetson.read("calls");
    keeper.set(point("performance", 1_866_000_000));
    assert_eq!(board.jetson.memory_clock(), ["1866000000", "1"]);
    assert_eq!(governors(), ["performance", "performance"]);
    assert!(!board.jetson.read("calls")[calls.len()..].contains("-m"), "the mode was set again");
    // Pinned clocks lock the memory clock too.
    keeper.set(StateRequest { jetson_clocks: Some(true), governor: None, ..point("", 800_000_000) });
    assert_eq!(board.jetson.memory_clock(), ["800000000", "1"]);
    assert_eq!(governors(), ["schedutil", "schedutil"]);
    keeper.set(board.maxn());
    assert_eq!(board.jetson.memory_clock(), ["1866000000", "1"]);
    keeper.set(board.request());
    assert_eq!(board.jetson.state(), before);
    // Killed at a point, another process restores.
    keeper.set(point("powersave", 40_800_000));
    keeper.signal(Signal::KILL);
    keeper.child.wait().unwrap();
    assert_ne!(board.jetson.state(), before);
    let restored = board.runner(&["restore"]).output().unwrap();
    assert!(restored.status.success(), "{restored:?}");
    board.wait_for(&before);
    // A clock that was found locked is locked again.
    board.jetson.write("sys/kernel/debug/bpmp/debug/clk/emc/mrq_rate_locked", "1");
    let before = board.jetson.state();
    let mut keeper = board.keep("bert");
    let applied = keeper.set(point("performance", 408_000_000));
    assert_eq!(applied.found.memory_hz, Some(1_600_000_000));
    keeper.end();
    board.wait_for(&before);
}

#[test]
fn a_memory_clock_without_control_is_an_error() {
    let board = Board::new();
    let before = board.jetson.state();
    let mut keeper = board.keep("anna");
    let message = keeper.fails(StateRequest { memory_hz: Some(408_000_000), ..board.maxn() });
    assert!(message.contains("the board's kernel offers no control of the memory clock"), "{message}");
    assert_eq!(board.jetson.state(), before, "nothing was changed");
    keeper.end();
}
