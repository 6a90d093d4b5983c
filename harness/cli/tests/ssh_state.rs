//! A board's state over SSH: brought to what the board's file asks for, watched, and restored whatever ends the run. The
//! board is OpenSSH's own server with stand-ins for a Jetson's programs and sysfs.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod farm;
#[path = "../../../runner/tests/jetson/mod.rs"]
mod jetson;

use farm::bench::{Bench, alone, repeated};
use farm::outcome::assert_valid;
use farm::{Farm, kill, wait_for_end};
use jetson::Jetson;
use rustix::process::Signal;
use std::fs;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

/// What the committed file of a Jetson asks for.
const MAXN: &str = "nvpmodel: 0, jetson_clocks: true";

/// A board that is a Jetson as far as its state goes.
struct Board {
    farm: Farm,
    jetson: Jetson,
    before: String,
    _alone: MutexGuard<'static, ()>,
}

impl Board {
    fn new(state: &str) -> Self {
        let alone = alone();
        let farm = Farm::new();
        let jetson = Jetson::new(&farm.path("board/jetson"));
        let path = format!("export PATH={}:$PATH\n", jetson.bin().display());
        fs::write(farm.path("board/home/.bashrc"), path).unwrap();
        let before = jetson.state();
        let board = Self { farm, jetson, before, _alone: alone };
        board.asks(state);
        board
    }

    /// Has the board's file ask for another state.
    fn asks(&self, state: &str) {
        let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let text = format!(
            "board: loopback\nconnect: {{ ssh: {{ host: 127.0.0.1, user: tester, port: {} }} }}\n\
             target: {{ triple: {triple} }}\n\
             processors: {{ denver: {{ cpus: [1] }}, a57: {{ cpus: [0] }} }}\n\
             state: {{ {state}, root: {} }}\n",
            self.farm.port,
            self.jetson.sysfs().display()
        );
        fs::write(self.farm.path("workspace/configs/boards/loopback.yaml"), text).unwrap();
    }

    /// Whether something is to be restored on the board.
    fn is_pending(&self) -> bool {
        self.farm.path("board/home/.local/state/edgepipe/board-state.json").exists()
    }

    /// Waits until all is as it was.
    #[track_caller]
    fn wait_until_restored(&self) {
        let deadline = Instant::now() + Duration::from_secs(300);
        while self.is_pending() || self.jetson.state() != self.before {
            assert!(Instant::now() < deadline, "{}\nis not\n{}", self.jetson.state(), self.before);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The program that runs stages there, and the one that holds the board.
    fn runner(&self) -> i32 {
        let holder = self.holder();
        let all = self.farm.programs(&["runner", "--lease"]);
        all.into_iter().find(|pid| *pid != holder).expect("a runner")
    }

    fn holder(&self) -> i32 {
        *self.farm.programs(&["runner", "hold "]).first().expect("a holder")
    }
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_bench_brings_the_board_to_its_state_and_back() {
    if farm::skipped() {
        return;
    }
    // The second processor is offline in the mode that is found.
    let board = Board::new(MAXN);
    let mut bench = Bench::start(&board.farm, &["--trials", "8"]);
    bench.until("frames/s");
    assert!(board.is_pending());
    assert_eq!(
        (board.jetson.read("mode").as_str(), board.jetson.cpu(1, "scaling_min_freq").as_str()),
        ("0", "2035200")
    );
    let (code, said) = bench.end();
    assert_valid(code, &said);
    assert!(!board.is_pending());
    assert_eq!(board.jetson.state(), board.before);
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_harness_that_was_suspended_locks_the_board_and_sets_its_state_again() {
    if farm::skipped() {
        return;
    }
    let board = Board::new(MAXN);
    let mut bench = Bench::start(&board.farm, &["--trials", "200"]);
    let harness = i32::try_from(bench.child.id()).unwrap();
    // The runner ends first. The holder ends later, and restores the state.
    for outlasts_holder in [false, true] {
        bench.until("frames/s");
        let (runner, holder) = (board.runner(), board.holder());
        kill(harness, Signal::STOP);
        wait_for_end(runner);
        if outlasts_holder {
            wait_for_end(holder);
            board.wait_until_restored();
        }
        kill(harness, Signal::CONT);
        // Which is noticed first, how the runner ended or its silence, depends on the moment.
        bench.until_any(&["because nothing arrived from this machine", "the runner sent nothing for"]);
        bench.until("frames/s");
        assert_ne!(board.holder(), holder);
        assert_eq!(board.jetson.read("mode"), "0");
    }
    kill(harness, Signal::INT);
    let (code, said) = bench.end();
    assert!(!said.contains("broke the lock"), "{said}");
    assert!(farm::bench::trials(&said).1 <= 2, "no more than the trials at work are lost: {said}");
    assert_eq!(code, Some(4), "{said}");
    assert_eq!(board.jetson.state(), board.before);
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn the_state_is_restored_whatever_is_killed() {
    if farm::skipped() {
        return;
    }
    let board = Board::new(MAXN);
    // The harness: the board restores by itself.
    let mut bench = Bench::start(&board.farm, &["--trials", "200"]);
    bench.until("frames/s");
    bench.child.kill().unwrap();
    bench.end();
    board.wait_until_restored();
    // The runner: the run goes on, in the state asked for, and Ctrl-C restores.
    let mut bench = Bench::start(&board.farm, &["--trials", "200"]);
    bench.until("frames/s");
    kill(board.runner(), Signal::KILL);
    bench.until("was killed (signal 9");
    bench.until("frames/s");
    assert_eq!(board.jetson.read("mode"), "0");
    kill(i32::try_from(bench.child.id()).unwrap(), Signal::INT);
    let (code, said) = bench.end();
    assert_eq!(code, Some(4), "{said}");
    assert_eq!(board.jetson.state(), board.before);
    assert!(!board.is_pending());
    // All of them: the next session restores first, and says so.
    let mut bench = Bench::start(&board.farm, &["--trials", "200"]);
    bench.until("frames/s");
    kill(i32::try_from(bench.child.id()).unwrap(), Signal::STOP);
    for pid in [board.holder(), board.runner()] {
        kill(pid, Signal::KILL);
    }
    bench.child.kill().unwrap();
    bench.end();
    assert!(board.is_pending());
    assert_ne!(board.jetson.state(), board.before);
    let (code, said) = Bench::start(&board.farm, &["--trials", "1"]).end();
    assert_valid(code, &said);
    assert!(said.contains("loopback was still in the state of an earlier session (process "), "{said}");
    assert!(said.contains("(bench) of anna on"), "{said}");
    assert_eq!(board.jetson.state(), board.before);
    assert!(!board.is_pending());
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_link_that_comes_back_finds_the_state_set_again() {
    if farm::skipped() {
        return;
    }
    let board = Board::new(MAXN);
    let mut bench = Bench::start(&board.farm, &["--trials", "6"]);
    bench.until("frames/s");
    // Before the cut: after it, the board may restore at once.
    let calls = board.jetson.read("calls").lines().count();
    board.farm.cut();
    bench.until("failed");
    bench.until("frames/s");
    assert_eq!(board.jetson.read("mode"), "0");
    let later: Vec<String> = board.jetson.read("calls").lines().skip(calls).map(str::to_owned).collect();
    assert!(
        later.iter().any(|call| call == "nvpmodel -m 3") && later.iter().any(|call| call == "nvpmodel -m 0"),
        "{later:?}"
    );
    let (code, said) = bench.end();
    assert!(matches!(code, Some(0 | 4)), "{code:?}: {said}");
    assert_eq!(board.jetson.state(), board.before);
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_state_that_the_board_does_not_take_ends_the_run_before_it_begins() {
    if farm::skipped() {
        return;
    }
    let board = Board::new("nvpmodel: 7");
    let bench = ["bench", "--board", "loopback", "--experiment", "tiny"];
    let (_, said) = board.farm.run(&bench, 3);
    assert!(said.contains("power mode 7 is requested, but the mode is 3 (MAXP_CORE_ARM)"), "{said}");
    board.wait_until_restored();
    // In the mode that is found, a processor of the file is offline.
    board.asks("nvpmodel: 3");
    let (_, said) = board.farm.run(&bench, 3);
    assert!(
        said.contains("failed to use CPU 1 of the processor denver") && said.contains("choose a power mode"),
        "{said}"
    );
    board.wait_until_restored();
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn clocks_that_drop_within_a_trial_void_it_and_are_set_again() {
    if farm::skipped() {
        return;
    }
    let board = Board::new(MAXN);
    let long = ["--set", "measure.min_seconds=2", "--set", "measure.max_seconds=6", "--trials", "200"];
    // On a machine in use, this test may act on a warm-up only after its trial; of several, one lies within a trial.
    let mut report = serde_json::Value::Null;
    repeated(|| {
        let mut bench = Bench::start(&board.farm, &long);
        for _ in 0..3 {
            bench.until("frames/s");
            bench.until(": WarmUp");
            board.jetson.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq", "1200000");
            board.jetson.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1200000");
            bench.until("the board's state has changed since it was set");
            assert!(
                bench.said.last().unwrap().contains("of CPU 0 is 1200000 kHz, was 2035200 kHz"),
                "{:?}",
                bench.said.last()
            );
        }
        kill(i32::try_from(bench.child.id()).unwrap(), Signal::INT);
        let (_, said) = bench.end();
        let (json, _) = board.farm.run(&["report", "--format", "json"], 0);
        report = serde_json::from_str(&json).unwrap();
        let told = "highest frequency of CPU 0 was 1200000 kHz instead of 2035200 kHz";
        if !json.contains("\"state_changed\"") || !json.contains(told) {
            return Err(format!("{json}\n{said}"));
        }
        let void: u64 =
            report["rows"].as_array().unwrap().iter().map(|row| row["trials_void"].as_u64().unwrap()).sum();
        assert!(void > 0, "{json}");
        Ok(())
    });
    assert_eq!(report["measured_on"]["power_mode"], "0 (MAXN)");
    assert_eq!(report["measured_on"]["state"]["asked"], "power mode 0, clocks pinned");
    let (text, _) = board.farm.run(&["report"], 0);
    let heading: String = text.lines().take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    assert!(
        heading.contains("requested state: power mode 0, clocks pinned; set: power mode 0 (MAXN)"),
        "{heading}"
    );
    assert_eq!(board.jetson.state(), board.before);
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_trial_waits_for_a_hot_board() {
    if farm::skipped() {
        return;
    }
    let board = Board::new("max_temperature_c: 45.5");
    board.jetson.write("sys/devices/system/cpu/online", "0-1");
    board.jetson.zone(2, "GPU-therm", 61_200);
    let mut bench = Bench::start(&board.farm, &["--trials", "1"]);
    bench.until("GPU-therm is at 61.2 °C; waiting for all zones to be below 45.5 °C");
    board.jetson.zone(2, "GPU-therm", 45_400);
    bench.until("frames/s");
    let (code, said) = bench.end();
    assert_valid(code, &said);
    // A board that tells no temperature cannot be waited for.
    fs::remove_dir_all(board.jetson.sysfs().join("class/thermal")).unwrap();
    let (_, said) = board.farm.run(&["bench", "--board", "loopback", "--experiment", "tiny"], 3);
    assert!(said.contains("it has no thermal zones"), "{said}");
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn boards_shows_the_state_and_restores_what_is_left() {
    if farm::skipped() {
        return;
    }
    let board = Board::new(MAXN);
    let (text, _) = board.farm.run(&["boards", "loopback"], 0);
    for line in [
        "  power mode 3 (MAXP_CORE_ARM)\n",
        "  CPU 0 online, 1 offline\n",
        "  CPU 0 345.6 to 2000 MHz (schedutil)\n",
        "  GPU 114.8 to 1120 MHz, now 114.8 MHz\n",
        "  EMC 40.8 to 1866 MHz, now 1600 MHz\n",
        "  temperatures, in °C: BCPU-therm 41.0, PMIC-Die 100.0\n",
        "  state during a bench: power mode 0, clocks pinned\n",
        "  free\n",
    ] {
        assert!(text.contains(line), "{text}\nlacks {line:?}");
    }
    let (text, _) = board.farm.run(&["boards", "--restore", "loopback"], 0);
    assert_eq!(text, "loopback: nothing to restore\n");
    let mut bench = Bench::start(&board.farm, &["--trials", "200"]);
    bench.until("frames/s");
    let (_, said) = board.farm.run(&["boards", "--restore", "loopback"], 3);
    assert!(said.contains("another session holds the state of this board"), "{said}");
    kill(i32::try_from(bench.child.id()).unwrap(), Signal::STOP);
    for pid in [board.holder(), board.runner()] {
        kill(pid, Signal::KILL);
    }
    bench.child.kill().unwrap();
    bench.end();
    let (text, _) = board.farm.run(&["boards", "loopback"], 0);
    assert!(text.contains("and not yet restored to power mode 3 (MAXP_CORE_ARM), CPU 1 offline"), "{text}");
    let (text, _) = board.farm.run(&["boards", "--restore", "loopback"], 0);
    assert!(text.contains("loopback: restored to power mode 3"), "{text}");
    assert_eq!(board.jetson.state(), board.before);
    assert!(!board.is_pending());
    // Whoever breaks the lock of a session that lives has the board restored too.
    let mut bench = Bench::start(&board.farm, &["--trials", "200"]);
    bench.until("frames/s");
    let (text, _) = board.farm.run(&["boards", "--break-lock", "loopback"], 0);
    assert!(text.contains("broke the lock of process"), "{text}");
    assert_eq!(board.jetson.state(), board.before);
    let (code, said) = bench.end();
    assert_eq!(code, Some(3), "{said}");
}
