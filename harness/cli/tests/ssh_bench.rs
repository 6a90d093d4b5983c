//! Whole benches on a board over SSH, and what ends or cuts them.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod farm;

use farm::bench::{Bench, alone, rows, stored};
use farm::outcome::assert_valid;
use farm::{Farm, kill, wait_for_end};
use rustix::process::Signal;

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_whole_bench_runs_over_ssh_and_leaves_the_board_free() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let (code, said) = Bench::start(&farm, &[]).end();
    assert_valid(code, &said);
    for round in ["round 1: ", "round 2: "] {
        let measured = said.lines().filter(|line| line.contains(round) && line.ends_with("frames/s")).count();
        assert!(measured >= 3 && measured == rows(&farm).len(), "{round}: {said}");
    }
    let (text, _) = farm.run(&["boards", "loopback"], 0);
    assert!(text.contains("free"), "{text}");
    farm.wait_for_none(&["runner"]);
    let kinds: Vec<String> = std::fs::read_dir(farm.path("board/home/.cache/edgepipe"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    for kind in ["library", "runner", "weights"] {
        assert!(kinds.iter().any(|found| found == kind), "{kinds:?}");
    }
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_board_that_does_not_come_back_ends_the_run_which_goes_on_later() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let mut farm = Farm::new();
    farm.board("loopback", "host: 127.0.0.1, user: tester, reconnect_seconds: 2");
    let mut bench = Bench::start(&farm, &["--trials", "8"]);
    bench.until("frames/s");
    let mut sshd = farm.sshd.take().unwrap();
    let connections = farm::children(i32::try_from(sshd.id()).unwrap());
    sshd.kill().unwrap();
    sshd.wait().unwrap();
    for pid in connections {
        kill(pid, Signal::KILL);
    }
    let (code, said) = bench.end();
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("failed to reconnect to the board loopback within 2 s") && said.contains("--resume"),
        "{said}"
    );
    farm.wait_for_none(&["runner"]);
    farm.start();
    let (code, said) = Bench::start(&farm, &["--resume"]).end();
    assert_valid(code, &said);
    assert!(
        said.lines().filter(|line| line.contains("frames/s")).count() < 32,
        "some were measured before: {said}"
    );
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_board_has_one_user_whose_lock_can_be_broken_on_purpose() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let mut first = Bench::start(&farm, &["--trials", "200"]);
    first.until("frames/s");
    let (_, said) = farm.run(&["bench", "--board", "loopback", "--experiment", "tiny"], 3);
    assert!(said.contains("in use by process") && said.contains("(bench) of anna on"), "{said}");
    assert!(said.contains("--break-lock loopback"), "{said}");
    let (text, _) = farm.run(&["boards", "loopback"], 0);
    assert!(text.contains("in use by process"), "{text}");
    let (text, _) = farm.run(&["boards", "--break-lock", "loopback"], 0);
    assert!(text.contains("broke the lock of process"), "{text}");
    let (code, said) = first.end();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("broke the lock of the board loopback"), "{said}");
    let (text, _) = farm.run(&["boards", "--break-lock", "loopback"], 0);
    assert!(text.contains("the board was free"), "{text}");
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_harness_that_is_killed_leaves_a_free_board() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let mut bench = Bench::start(&farm, &["--trials", "6"]);
    bench.until("frames/s");
    assert!(!farm.programs(&["runner", "--lease"]).is_empty());
    bench.child.kill().unwrap();
    bench.end();
    farm.wait_for_none(&["runner", "--lease"]);
    let (text, _) = farm.run(&["boards", "loopback"], 0);
    assert!(text.contains("free"), "{text}");
    let (code, said) = Bench::start(&farm, &["--resume"]).end();
    assert_valid(code, &said);
    let (measured, _) = farm::bench::trials(&said);
    assert!(
        (1..24).contains(&measured) && stored(&farm).0 == 24,
        "what was measured is not measured again: {said}"
    );
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn runners_that_die_or_stop_and_links_that_fall_silent_are_noticed() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let runner = || {
        let all = farm.programs(&["runner", "--lease"]);
        let holders = farm.programs(&["runner", "hold "]);
        all.into_iter().find(|pid| !holders.contains(pid)).expect("a runner")
    };
    // A runner that is killed.
    let mut bench = Bench::start(&farm, &["--trials", "200"]);
    bench.until("frames/s");
    kill(runner(), Signal::KILL);
    bench.until("was killed (signal 9");
    bench.until("frames/s");
    // A runner that is stopped: it is given up and ended by force.
    let stopped = runner();
    kill(stopped, Signal::STOP);
    bench.until("the runner sent nothing for");
    bench.until("frames/s");
    wait_for_end(stopped);
    // A link that carries nothing any more, and does not say so: the board ends its load by itself, and the harness
    // makes a new link.
    let silent = farm.connections();
    for pid in &silent {
        kill(*pid, Signal::STOP);
    }
    wait_for_end(runner());
    bench.until("the runner sent nothing for");
    bench.until("frames/s");
    for pid in silent {
        kill(pid, Signal::KILL);
    }
    kill(i32::try_from(bench.child.id()).unwrap(), Signal::INT);
    let (code, said) = bench.end();
    assert_eq!(code, Some(4), "{said}");
}
