//! `optimize` on this machine: without a power meter, and with one whose readings follow from what the runner's threads do.
//! Other load on this machine changes figures, so only what it cannot change is asserted; that a known power model is found is a
//! test of `analysis`. Needs the private toolchain, so `cargo xtask test` runs it and plain `cargo test`
//! does not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "rig/clocks_and_energy.rs"]
mod clocks_and_energy;
#[path = "../../../runner/tests/jetson/mod.rs"]
mod jetson;
mod outcome;
mod words;

use clocks_and_energy::{Player, clock_share, clocks, lay_meter};
use jetson::Jetson;
use outcome::assert_valid;
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use store::{Access, Outcome, Store};
use words::says;

/// The board is used by one command at a time; so are these tests.
static BOARD: Mutex<()> = Mutex::new(());

/// Settings that make a search take seconds.
const SHORT: [&str; 8] = [
    "--set",
    "measure={ min_seconds: 0.8, min_frames: 10, max_seconds: 60 }",
    "--set",
    "warm_up={ min_frames: 3, min_seconds: 0.05, max_seconds: 0.5 }",
    "--set",
    "profile={ min_frames: 10, min_seconds: 0.05, max_seconds: 1 }",
    "--trials",
    "2",
];

struct Rig {
    _board: MutexGuard<'static, ()>,
    folder: tempfile::TempDir,
}

impl Rig {
    /// A workspace with the boards `plain` and `metered`.
    fn new() -> Self {
        let board = BOARD.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let (real, workspace) = (root(), folder.path().join("workspace"));
        fs::create_dir_all(workspace.join("configs/boards")).unwrap();
        for entry in fs::read_dir(&real).unwrap().chain(fs::read_dir(real.join("configs")).unwrap()).flatten()
        {
            let link = workspace.join(entry.path().strip_prefix(&real).unwrap());
            if !link.exists() && entry.file_name() != ".git" {
                std::os::unix::fs::symlink(entry.path(), link).unwrap();
            }
        }
        let processors = "processors:\n  fast: { cpus: [0] }\n  slow: { cpus: [1] }\n";
        let meter = format!(
            "power: {{ rapl: {{ total: package-0, root: {} }} }}\n",
            folder.path().join("sys").display()
        );
        let points = format!(
            "{meter}state: {{ root: {} }}\noperating_points: {{ frequencies_mhz: {{ fast: all, slow: [500, 2000] }} }}\n",
            folder.path().join("clocks/sys").display()
        );
        for (name, more) in [("plain", ""), ("metered", &meter), ("points", &points)] {
            let text = format!("board: {name}\nconnect: local\n{processors}{more}");
            fs::write(workspace.join(format!("configs/boards/{name}.yaml")), text).unwrap();
        }
        fs::copy("/proc/stat", folder.path().join("stat")).unwrap();
        Self { _board: board, folder }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        // Compiled networks are shared between the tests; they are found by content.
        let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join("edgepipe");
        fs::create_dir_all(&state).unwrap();
        let mut command = Command::new(variable("EDGEPIPE_HARNESS"));
        command.arg("--root").arg(self.folder.path().join("workspace")).arg("--state").arg(&state);
        command
            .arg("--python")
            .arg(variable("EDGEPIPE_PYTHON"))
            .arg("--runner")
            .arg(variable("EDGEPIPE_RUNNER"));
        command.arg("--database").arg(self.folder.path().join("results.db")).args(arguments);
        command.env("EDGEPIPE_LOCK", self.folder.path().join("board.lock")).stdin(Stdio::null());
        // Times of CPUs that nobody else uses, so that other load voids no trial.
        command.env("EDGEPIPE_PROC_STAT", self.folder.path().join("stat"));
        command
    }

    #[track_caller]
    fn run(&self, arguments: &[&str], codes: &[i32]) -> (String, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        assert!(codes.contains(&status.code().unwrap()), "{arguments:?}: {status}\n{stdout}\n{stderr}");
        (stdout, stderr)
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run this with `cargo xtask test`"))
}

fn optimize<'a>(board: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    optimize_within("40s", board, more)
}

/// The first schedules are measured within any budget; with this one, few others are.
fn optimize_briefly<'a>(board: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    optimize_within("5s", board, more)
}

fn optimize_within<'a>(budget: &'a str, board: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["optimize", "--board", board, "--network", "tiny", "--budget", budget], &SHORT[..], more].concat()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

impl Rig {
    /// The result of a search, and its messages.
    #[track_caller]
    fn search(&self, arguments: &[&str]) -> (Value, String) {
        let Output { status, stdout, stderr } =
            self.command(&[arguments, &["--format", "json"]].concat()).output().unwrap();
        let (text, log) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        assert_valid(status.code(), &format!("{text}\n{log}"));
        let result = json(&text);
        let baselines = result["baselines"].as_array().unwrap().len();
        assert!(
            baselines >= 2 && baselines.is_multiple_of(2),
            "each processor, at each operating point: {result}"
        );
        (result, log)
    }
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn without_a_meter_the_fastest_schedule_is_searched() {
    let rig = Rig::new();
    let (result, log) = rig.search(&optimize("plain", &[]));
    assert_eq!(
        (&result["schema"], &result["board"], &result["network"]),
        (&1.into(), &"plain".into(), &"tiny".into())
    );
    assert_eq!(result["objective"], "most frames/s");
    assert_eq!(result["front"].as_array().unwrap().len(), 1, "without energy, the fastest alone: {result}");
    assert_eq!(result["best"], result["front"][0]);
    let fps = |row: &Value| row["throughput_fps"]["point"].as_f64().unwrap();
    assert!(
        result["baselines"].as_array().unwrap().iter().all(|row| fps(row) <= fps(&result["best"])),
        "{result}"
    );
    assert!(result["best"]["energy_mj_per_frame"].is_null() && result["power_model"].is_null(), "{result}");
    assert!(!result["energy_absent_reason"].as_str().unwrap().is_empty());
    assert!(log.contains("search"), "{log}");
    for step in ["profile  tiny on fast+slow", "measure  tiny on fast+slow, round 1"] {
        assert!(log.contains(step), "the CPUs of both processors as one are searched too: {log}");
    }

    let run = result["run"].as_str().unwrap();
    let (_, log) = rig.run(&["bench", "--resume", run], &[2]);
    assert!(
        log.contains("it is a search for the best schedules; use") && log.contains("optimize --resume"),
        "{log}"
    );
    let (shown, _) = rig.run(&["optimize", "--run", run, "--format", "json"], &[0]);
    assert_eq!(json(&shown), result);
    let page = rig.folder.path().join("front.html");
    let to_file = ["optimize", "--run", "latest", "--format", "html", "--output", page.to_str().unwrap()];
    rig.run(&to_file, &[0]);
    assert!(fs::read_to_string(&page).unwrap().starts_with("<!DOCTYPE html>"));
    let (_, log) = rig.run(&["optimize", "--run", run, "--min-fps", "30"], &[2]);
    assert!(
        log.contains("failed to choose by least energy per frame") && log.contains("has no energy"),
        "{log}"
    );
    let (csv, _) = rig.run(&optimize("plain", &["--resume", run, "--format", "csv"]), &[0]);
    let columns = csv.lines().next().unwrap().split(',').count();
    assert!(csv.lines().all(|line| line.split(',').count() == columns) && csv.lines().count() >= 3, "{csv}");
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn with_a_meter_the_front_is_searched_and_requirements_are_met_or_missed() {
    let rig = Rig::new();
    let _player = Player::start(&rig.folder.path().join("sys"), &variable("EDGEPIPE_RUNNER"));
    let (result, log) = rig.search(&optimize("metered", &[]));
    let model = &result["power_model"];
    if model.is_null() {
        // Trials without energy may leave too few for the fit.
        assert!(!result["energy_absent_reason"].as_str().unwrap().is_empty(), "{result}");
    } else {
        let is_power = |value: &Value| value.as_f64().unwrap() >= 0.0;
        assert!(is_power(&model["idle_mw"]) && is_power(&model["residual_mw"]), "{result}");
        let dynamic = model["dynamic_mw"].as_object().unwrap();
        assert_eq!(dynamic.keys().collect::<Vec<_>>(), ["fast", "slow"], "{result}");
        assert!(dynamic.values().all(is_power), "{result}\n{log}");
        assert!(model["windows"].as_u64().unwrap() >= 3, "{result}");
    }
    let front = result["front"].as_array().unwrap();
    assert!(!front.is_empty() && result["best"].is_null(), "pareto has no best: {result}");
    let figures = |row: &Value| {
        let figure = |name: &str| row[name]["point"].as_f64().unwrap();
        (figure("throughput_fps"), figure("energy_mj_per_frame"))
    };
    for pair in front.windows(2) {
        let (faster, slower) = (figures(&pair[0]), figures(&pair[1]));
        assert!(faster.0 >= slower.0 && faster.1 >= slower.1, "{result}");
    }

    let arguments = optimize("metered", &["--max-mj-per-frame", "0.001"]);
    let (missed, log) = rig.run(&[&arguments[..], &["--format", "json"]].concat(), &[1]);
    let missed = json(&missed);
    assert!(
        missed["best"].is_null() && missed["closest"]["missed_by"].as_f64().unwrap() > 1.0,
        "{missed}\n{log}"
    );
    let text = missed["closest"]["text"].as_str().unwrap();
    assert!(says(text, "above the limit of 0.001 mJ/frame"), "{text}");
    let (met, log) = rig.search(&optimize("metered", &["--min-fps", "1"]));
    assert!(figures(&met["best"]).0 >= 1.0 && met["closest"].is_null(), "{met}\n{log}");
}

/// A meter that never moves gives no energy. Whatever was measured, it is no answer to an objective that needs energy.
#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn without_energy_no_schedule_is_chosen_by_energy() {
    let rig = Rig::new();
    lay_meter(&rig.folder.path().join("sys"));
    // It ends by itself after the first schedules, as long as the budget lasts.
    let (text, log) = rig.run(&optimize_within("1h", "metered", &["--min-fps", "1"]), &[4]);
    assert!(text.is_empty(), "{text}");
    for part in [
        "failed to optimize for least energy per frame with at least 1 frames/s: no energy is known on the board metered: ",
        "--objective throughput` shows the measured frames/s",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    let shown =
        |more: &[&str], codes: &[i32]| rig.run(&[&["optimize", "--run", "latest"], more].concat(), codes).0;
    for more in [&[][..], &["--min-fps", "1"], &["--objective", "pareto"], &["--max-watts", "100"]] {
        let text = shown(more, &[4]);
        assert!(says(&text, "no schedule can be chosen by") && !text.contains("best:"), "{more:?}: {text}");
        let result = json(&shown(&[more, &["--format", "json"]].concat(), &[4]));
        assert!(result["best"].is_null() && result["not_judged_reason"].is_string(), "{more:?}: {result}");
    }
    let text = shown(&["--objective", "throughput"], &[0]);
    assert!(text.contains("best: "), "{text}");
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn operating_points_are_searched_and_restored() {
    let rig = Rig::new();
    let clocks = clocks(rig.folder.path());
    let player = Player::start(&rig.folder.path().join("sys"), &variable("EDGEPIPE_RUNNER"));
    // Long profiles, so that a player that other load stops for a while sees each point.
    let profiles = "profile={ min_frames: 10, min_seconds: 1, max_seconds: 4 }";
    let more = ["--objective", "energy", "--set", profiles];
    let (result, log) = rig.search(&optimize_within("120s", "points", &more));
    for cpu in 0..2 {
        assert!((clock_share(&clocks, cpu) - 1.0).abs() < 1e-9, "the limit of CPU {cpu} was not restored");
    }
    assert!(log.contains("4 operating points, predicted from profiles at 3 of them"), "{log}");
    for limits in [[1.0, 1.0], [0.25, 0.25], [1.0, 0.25]] {
        assert!(player.seen().contains(&limits), "{limits:?} was never set: {:?}", player.seen());
    }
    // Other load on this machine decides which schedule and which point are the best; the commands must be of that point.
    let (best, commands) = (&result["best"], result["commands"].as_array().unwrap());
    let commands: Vec<&str> = commands.iter().map(|command| command.as_str().unwrap()).collect();
    if !best.is_null() {
        let label = best["operating_point"]["label"].as_str().unwrap();
        assert!(best["schedule"].as_str().unwrap().ends_with(&format!(" @ {label}")), "{result}");
        let mhz = best["operating_point"]["max_mhz"].as_object().unwrap();
        for (cpu, processor) in ["fast", "slow"].into_iter().enumerate() {
            let khz = 1000.0 * mhz[processor].as_f64().unwrap();
            let file = format!("cpu{cpu}/cpufreq/scaling_max_freq; do echo {khz} | sudo tee");
            let is_set = commands.iter().any(|command| command.contains(&file));
            assert!(is_set || best["operating_point"]["number"] == 0, "{result}");
        }
    }

    let board = rig.folder.path().join("workspace/configs/boards/points.yaml");
    let text = fs::read_to_string(&board).unwrap();
    let refused = |from: &str, to: &str, expected: &str| {
        fs::write(&board, text.replace(from, to)).unwrap();
        let (_, log) = rig.run(&["optimize", "--board", "points", "--network", "tiny"], &[2]);
        assert!(log.contains(expected), "{log}");
    };
    refused("[500, 2000]", "[700]", "slow: the board does not offer 700 MHz; the nearest are 500 and 2000");
    refused("points: {", "points: { power_modes: [3],", "the board lists no power modes in");
    fs::write(clocks.join("cpu1/cpufreq/affected_cpus"), "0 1\n").unwrap();
    fs::write(clocks.join("cpu0/cpufreq/affected_cpus"), "0 1\n").unwrap();
    refused("all", "all", "slow and fast share the clock of CPU 0");
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn a_sweep_after_a_search_measures_every_operating_point() {
    let rig = Rig::new();
    let clocks = clocks(rig.folder.path());
    let _player = Player::start(&rig.folder.path().join("sys"), &variable("EDGEPIPE_RUNNER"));
    let more = ["--set", "schedules=[{single: each}]", "--objective", "throughput", "--format", "json"];
    let (text, log) = rig.run(&optimize_briefly("points", &more), &[0, 4]);
    let searched = json(&text);
    let run = searched["run"].as_str().unwrap();
    assert_eq!(searched["status"], "complete", "{log}");

    // A search that has ended can be continued as a sweep.
    let sweep = ["optimize", "--board", "points", "--resume", run, "--sweep", "--format", "json"];
    let (text, log) = rig.run(&sweep, &[0, 4]);
    assert_eq!(json(&text)["run"], searched["run"], "{log}");
    let store = Store::open(&rig.folder.path().join("results.db"), Access::ReadOnly).unwrap();
    let run = store.run(run).unwrap();
    let schedules = store.schedules(&run).unwrap();
    let mut tried = std::collections::BTreeSet::new();
    store
        .each_trial(&run, |trial| {
            tried.insert(trial.schedule);
        })
        .unwrap();
    for point in 0..4 {
        let of_point = schedules.iter().filter(|record| record.point == point);
        let labels: Vec<String> = of_point
            .filter(|record| tried.contains(&record.place))
            .map(|record| record.schedule.to_string())
            .collect();
        assert!(
            labels.contains(&"fast".to_owned()) && labels.contains(&"slow".to_owned()),
            "{labels:?}: {log}"
        );
    }
    for cpu in 0..2 {
        assert!((clock_share(&clocks, cpu) - 1.0).abs() < 1e-9, "the limit of CPU {cpu} was not restored");
    }
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn a_power_mode_without_a_processor_is_a_point_without_it() {
    let rig = Rig::new();
    let jetson = Jetson::new(&rig.folder.path().join("jetson"));
    jetson.write(
        "etc/nvpmodel.conf",
        "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=MAXQ >\n< POWER_MODEL ID=7 NAME=NEXT_START >",
    );
    let before = jetson.state();
    let board = |modes: &str| {
        let text = format!(
            "board: jetson\nconnect: local\nprocessors: {{ fast: {{ cpus: [0] }}, slow: {{ cpus: [1] }} }}\n\
             state: {{ nvpmodel: 0, root: {} }}\noperating_points: {{ power_modes: {modes} }}\n",
            jetson.sysfs().display()
        );
        fs::write(rig.folder.path().join("workspace/configs/boards/jetson.yaml"), text).unwrap();
    };
    let path = format!("{}:{}", jetson.bin().display(), std::env::var("PATH").unwrap());
    let run = |more: &[&str]| {
        let output = rig.command(&optimize_briefly("jetson", more)).env("PATH", &path).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(jetson.state(), before, "{log}");
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), log)
    };
    board("[0, MAXQ]");
    let (code, text, log) = run(&["--format", "csv"]);
    assert_valid(code, &log);
    // Mode 1 has CPU 1 offline, and CPU 0 at 1200 MHz.
    assert!(log.contains("point  MAXQ fast 1200 MHz"), "{log}");
    for line in text.lines().filter(|line| line.contains("MAXQ")) {
        assert!(line.contains("fast @ MAXQ fast 1200 MHz"), "{text}");
    }
    for (modes, expected) in [
        ("[NEXT_START]", "the power mode 7 (NEXT_START) cannot be set and reverted ("),
        ("[MAXP]", "there is no power mode MAXP; the board has 0 (MAXN), 1 (MAXQ), 7 (NEXT_START)"),
    ] {
        board(modes);
        let (code, _, log) = run(&[]);
        assert!(code == Some(2) && log.contains(expected), "{code:?}: {log}");
    }
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn governors_and_memory_clocks_are_searched_and_restored() {
    let rig = Rig::new();
    let jetson = Jetson::new(&rig.folder.path().join("jetson"));
    let board = |points: &str| {
        let text = format!(
            "board: jetson\nconnect: local\nprocessors: {{ fast: {{ cpus: [0] }}, slow: {{ cpus: [1] }} }}\n\
             state: {{ nvpmodel: 0, root: {} }}\noperating_points: {{ {points} }}\n",
            jetson.sysfs().display()
        );
        fs::write(rig.folder.path().join("workspace/configs/boards/jetson.yaml"), text).unwrap();
    };
    let path = format!("{}:{}", jetson.bin().display(), std::env::var("PATH").unwrap());
    let run = |more: &[&str]| {
        let before = jetson.state();
        let output = rig.command(&optimize_briefly("jetson", more)).env("PATH", &path).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(jetson.state(), before, "{log}");
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), log)
    };
    let refused = |points: &str, expected: &str| {
        board(points);
        let (code, _, log) = run(&[]);
        assert!(code == Some(2) && log.contains(expected), "{code:?}: {log}");
    };
    refused("memory_mhz: all", "the board's kernel offers no control of the memory clock");
    jetson.add_memory_clock();
    refused(
        "memory_mhz: [700]",
        "memory clock: the board does not offer 700 MHz; the nearest are 408 and 800",
    );
    refused(
        "governors: [turbo]",
        "there is no governor turbo; the board has performance, powersave, schedutil",
    );
    board("governors: [powersave, schedutil], memory_mhz: [408, 1866]");
    let (code, text, log) = run(&["--format", "json"]);
    assert_valid(code, &log);
    // Each governor and each memory clock is profiled.
    for point in ["powersave", "schedutil"].iter().flat_map(|name| [1866, 408].map(|mhz| (name, mhz))) {
        let name = format!("point  MAXN {} fast 2035 slow 2035 memory {} MHz", point.0, point.1);
        assert!(log.contains(&name), "{name}: {log}");
    }
    let result = json(&text);
    let (commands, point) = (result["commands"].to_string(), &result["best"]["operating_point"]);
    let has = |command: String| commands.contains(&command);
    let is_set = || {
        has(format!("echo {} | sudo tee $file", point["governor"].as_str().unwrap()))
            && has(format!("echo {}000000 | sudo tee", point["memory_mhz"].as_f64().unwrap()))
    };
    assert!(point["number"] == 0 || is_set(), "{text}");
}

/// Starts a search and sends it a signal after a trial, once `is_time` says so. Returns its exit code and its messages.
fn stop_after_a_trial(
    mut search: Command,
    signal: rustix::process::Signal,
    is_time: impl Fn() -> bool,
) -> (Option<i32>, String) {
    let mut child = search.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let deadline = Instant::now() + Duration::from_secs(600);
    let mut log = String::new();
    loop {
        let begun = log.len();
        assert!(stderr.read_line(&mut log).unwrap() > 0, "it ended before it was stopped: {log}");
        assert!(Instant::now() < deadline, "it was not to be stopped within ten minutes: {log}");
        if log[begun..].contains("frames/s") && is_time() {
            break;
        }
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
    std::io::Read::read_to_string(&mut stderr, &mut log).unwrap();
    (child.wait().unwrap().code(), log)
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn an_interrupted_and_a_killed_search_continue() {
    let rig = Rig::new();
    let arguments = optimize_briefly("plain", &[]);
    for (signal, code) in [(rustix::process::Signal::INT, Some(4)), (rustix::process::Signal::KILL, None)] {
        let (ended, log) = stop_after_a_trial(rig.command(&arguments), signal, || true);
        assert_eq!(ended, code, "{log}");
        let (text, log) = rig.run(&optimize_briefly("plain", &["--resume", "--format", "json"]), &[0, 4]);
        assert!(!log.contains("per frame"), "profiles are known: {log}");
        assert_eq!(json(&text)["status"], "complete", "{log}");
    }
    let (_, log) = rig.run(&optimize("plain", &["--resume"]), &[2]);
    assert!(log.contains("failed to find an unfinished run"), "{log}");
}

/// Trials that a search said it had measured.
fn told(log: &str) -> usize {
    log.lines().filter(|line| line.contains(", round ") && line.contains("frames/s")).count()
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn an_interrupted_and_a_killed_search_over_operating_points_continue() {
    let rig = Rig::new();
    let clocks = clocks(rig.folder.path());
    let _player = Player::start(&rig.folder.path().join("sys"), &variable("EDGEPIPE_RUNNER"));
    let arguments = optimize_briefly("points", &["--objective", "throughput"]);
    let own = || (0..2).all(|cpu| clock_share(&clocks, cpu) > 0.99);
    for (signal, code) in [(rustix::process::Signal::INT, Some(4)), (rustix::process::Signal::KILL, None)] {
        let (ended, log) = stop_after_a_trial(rig.command(&arguments), signal, || !own());
        assert_eq!(ended, code, "{log}");
        // After SIGKILL, the program that holds the board restores it.
        let deadline = Instant::now() + Duration::from_secs(300);
        while !own() {
            assert!(code.is_none() && Instant::now() < deadline, "the clocks were not restored: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let measured = told(&log);
        let resume = ["--resume", "--format", "json", "--budget", "5s"];
        let arguments = [&["optimize", "--board", "points"][..], &resume].concat();
        let (text, log) = rig.run(&arguments, &[0, 4]);
        assert!(own(), "the clocks were not restored: {log}");
        let result = json(&text);
        assert_eq!(result["status"], "complete", "{log}");
        assert!(!log.contains("per frame"), "profiles are known: {log}");

        let store = Store::open(&rig.folder.path().join("results.db"), Access::ReadOnly).unwrap();
        let run = store.run(result["run"].as_str().unwrap()).unwrap();
        let mut trials: Vec<(u32, u32)> = Vec::new();
        store
            .each_trial(&run, |trial| {
                if matches!(trial.outcome, Outcome::Measured(_)) {
                    trials.push((trial.schedule, trial.round));
                }
            })
            .unwrap();
        let all = trials.len();
        // The killed one may have recorded a trial that it had not told yet.
        let sum = measured + told(&log);
        assert!(
            (sum..=sum + 1).contains(&all),
            "{all} trials are stored, and {measured} + {} were told",
            told(&log)
        );
        trials.sort_unstable();
        trials.dedup();
        assert_eq!(trials.len(), all, "no trial is measured twice");
    }
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn mistakes_are_named_before_anything_is_measured() {
    let rig = Rig::new();
    let check = |arguments: &[&str], expected: &str| {
        let (_, log) = rig.run(arguments, &[2]);
        assert!(log.contains(expected), "{arguments:?}: {log}");
    };
    check(&optimize("plain", &["--min-fps", "30"]), "the board plain has no power meter; set `power` in");
    check(&optimize("plain", &["--objective", "energy"]), "use `--objective throughput`");
    check(
        &optimize("metered", &["--max-watts=-3"]),
        "failed to read --max-watts -3: expected a number above 0",
    );
    check(&optimize("metered", &["--max-watts", "3", "--min-fps", "3"]), "cannot be used with");
    check(&["optimize", "--board", "plain", "--budget", "30"], "expected a time such as 90s, 30min or 2h");
    check(
        &["optimize", "--board", "plain", "--experiment", "quick"],
        "choose one of the experiment quick with `--network NAME`",
    );
    check(&["bench", "--experiment", "optimize"], "it is a search for the best schedules");
    check(
        &["verify-claims", "--experiment", "optimize", "--network", "tiny", "--network", "resnet18"],
        "failed to verify the claims on 2 networks at once: the experiment optimize is a search",
    );
    check(
        &["bench", "--experiment", "tiny", "--set", "objective=energy"],
        "`pipeline: auto` is planned for throughput before energy is measured",
    );
}
