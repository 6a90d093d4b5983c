//! The virtual board as a whole: a bench over SSH on six emulated CPUs, and energy from the kernel's own driver held
//! against the load that was played into its sensors. `cargo xtask test` boots the board for it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use analysis::energy_within;
use domain::{Nanoseconds, SplitMix64};
use protocol::{Power, PowerReadings};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use store::{Access, Outcome, RunFilter, Store, TrialRecord};

/// One bench at a time has the board.
static BOARD: Mutex<()> = Mutex::new(());

struct Board {
    _alone: MutexGuard<'static, ()>,
    name: String,
    folder: tempfile::TempDir,
}

impl Board {
    /// The board that xtask has booted. With `EDGEPIPE_SKIP=virtual-board` xtask does not start these tests.
    fn new() -> Self {
        let alone = BOARD.lock().unwrap_or_else(PoisonError::into_inner);
        let name = variable("EDGEPIPE_VIRTUAL_BOARD");
        Self { _alone: alone, name, folder: tempfile::tempdir().unwrap() }
    }

    fn database(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A bench into a database of its own, and its report. Other load may void trials, which code 4 says.
    #[track_caller]
    fn bench(&self, database: &str, arguments: &[&str]) -> Value {
        let path = self.database(database);
        let path = path.to_str().unwrap();
        let mut all =
            vec!["bench", "--board", self.name.as_str(), "--experiment", "smoke", "--database", path];
        all.extend(arguments);
        let (_, stderr) = xtask(&all, &[0, 4]);
        eprintln!("{stderr}");
        let (report, _) = xtask(&["report", "--format", "json", "--database", path], &[0]);
        serde_json::from_str(&report).unwrap()
    }
}

/// Runs `cargo xtask` to its end: standard output and standard error.
#[track_caller]
fn xtask(arguments: &[&str], codes: &[i32]) -> (String, String) {
    let mut command = Command::new(variable("EDGEPIPE_XTASK"));
    let Output { status, stdout, stderr } = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned());
    let code = status.code();
    assert!(code.is_some_and(|code| codes.contains(&code)), "{arguments:?}: {code:?}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run this with `cargo xtask test`"))
}

/// A load curve and when it began on the board's clock.
struct Curve {
    /// ns and mW.
    segments: Vec<(u64, f64)>,
    begun_ns: u64,
}

impl Curve {
    fn play(board: &Board, path: &Path) -> Self {
        let (_, said) = xtask(&["board", "power", &board.name, path.to_str().unwrap()], &[0]);
        let begun = said.split("started at ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let segment = |line: &str| {
            let words: Vec<u64> =
                line.split('#').next()?.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            match words.as_slice() {
                [ms, mw] => Some((ms * 1_000_000, f64::from(u32::try_from(*mw).unwrap()))),
                _ => None,
            }
        };
        let segments = fs::read_to_string(path).unwrap().lines().filter_map(segment).collect();
        Self { segments, begun_ns: begun.unwrap_or_else(|| panic!("{said}")).parse().unwrap() }
    }

    /// Energy up to a time of the board's clock, in mJ.
    fn until(&self, at_ns: u64) -> f64 {
        let period: u64 = self.segments.iter().map(|(ns, _)| ns).sum();
        let since = at_ns.checked_sub(self.begun_ns).unwrap();
        let energy = |ns: u64, mw: f64| ns as f64 * 1e-9 * mw;
        let turn: f64 = self.segments.iter().map(|(ns, mw)| energy(*ns, *mw)).sum();
        let mut sum = (since / period) as f64 * turn;
        let mut left = since % period;
        for (ns, mw) in &self.segments {
            let part = left.min(*ns);
            sum += energy(part, *mw);
            left -= part;
        }
        sum
    }
}

#[test]
#[ignore = "needs the virtual board; run by cargo xtask test"]
fn virtual_board_gives_a_table_with_joules() {
    let board = Board::new();
    xtask(&["board", "power", &board.name, "idle"], &[0]);
    // Where other load holds the emulator back, the sensors refresh slowly, and a short window tells no energy.
    let long = ["--trials", "1", "--set", "measure={min_seconds: 12, min_frames: 4, max_seconds: 30}"];
    let mut report = Value::Null;
    for attempt in 0..TRIES {
        report = board.bench(&format!("smoke{attempt}.db"), &long);
        check_smoke(&report);
        if has_energy(&report) {
            break;
        }
    }
    assert!(has_energy(&report), "no energy in {TRIES} tries: {report:#}");
    let (shown, _) = xtask(&["boards", &board.name], &[0]);
    for part in
        ["denver", "gpu: GPU 0 (sm_62 GPU emulated on CPUs", "power mode", "VDD_IN", "BCPU-therm", "free"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let (mode, _) = xtask(&["board", "ssh", &board.name, "nvpmodel", "-q"], &[0]);
    assert!(mode.contains("MAXP_CORE_ARM"), "the board's own mode is back: {mode}");
}

fn has_energy(report: &Value) -> bool {
    report["rows"].as_array().unwrap().iter().any(|row| row["energy_mj_per_frame"].is_object())
}

/// What other load cannot change in a report of the experiment smoke.
fn check_smoke(report: &Value) {
    let rows = report["rows"].as_array().unwrap();
    let kinds: Vec<&str> = rows.iter().filter_map(|row| row["kind"].as_str()).collect();
    assert_eq!(
        (kinds.len(), kinds.iter().filter(|kind| **kind == "single").count()),
        (4, 3),
        "three processors and a pipeline: {report:#}"
    );
    for row in rows {
        let uses = row["processors"].as_array().unwrap().iter().any(|name| name == "gpu");
        assert_eq!(row["emulated"].as_array().unwrap().len(), usize::from(uses), "{row:#}");
        let codes = row["reasons"].as_array().unwrap().iter().filter_map(|reason| reason["code"].as_str());
        assert!(
            codes.clone().all(|code| code != "outputs_differ" && code != "outputs_not_compared"),
            "{row:#}"
        );
        let frames = row["throughput_fps"]["point"].as_f64();
        assert!(frames.is_some_and(|frames| frames > 0.0), "{row:#}");
    }
}

/// A machine whose other work holds the emulator back for a second gives a trial with a gap in its readings, of which
/// no energy is made. That is as it should be; so such a trial is measured again.
///
/// The meter gives a new value every half second, at times that no trial knows: at the two ends of a window of 30 s a
/// part of the curve of up to 8 W is taken for another. Such a window is within 1 % in most trials, not in each; what
/// every trial must keep is the uncertainty that it states.
const TRIES: u32 = 12;

#[test]
#[ignore = "needs the virtual board; run by cargo xtask test"]
fn virtual_board_draws_what_was_played_into_its_sensors() {
    let board = Board::new();
    let known = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/curves/known.curve");
    let curve = Curve::play(&board, &known);
    let mut offs = Vec::new();
    for attempt in 0..TRIES {
        let Some(drawn) = drawn(&board, &format!("known{attempt}.db")) else { continue };
        let Drawn { readings, opened_ns, window_ns, frames, millijoules, off_by } = &drawn;
        let (opened_ns, window_ns, driver) = (*opened_ns, *window_ns, &readings.driver);
        let played = curve.until(opened_ns + window_ns) - curve.until(opened_ns);
        let off = millijoules / played - 1.0;
        eprintln!(
            "{driver}: window of {:.2} s, {frames} frames: measured {millijoules:.0} ± {off_by:.0} mJ, \
             played {played:.0} mJ: {:+.2} %",
            window_ns as f64 / 1e9,
            off * 100.0
        );
        assert!(window_ns >= 30_000_000_000, "{window_ns}");
        assert!((millijoules - played).abs() <= *off_by, "{millijoules} ± {off_by} mJ, played {played} mJ");
        let (holding, told) = windows_within(&drawn, &curve);
        // Of windows over a gap in the readings, no energy is made.
        if told < WINDOWS / 2 {
            continue;
        }
        assert!(20 * holding >= 19 * told, "{holding} of {told} hold what was played");
        offs.push(off);
        if off.abs() < 0.01 {
            break;
        }
    }
    assert!(!offs.is_empty(), "no energy in {TRIES} tries: is this machine overloaded?");
    assert!(offs.last().is_some_and(|off| off.abs() < 0.01), "none of {offs:?} is within 1 %");
    xtask(&["board", "power", &board.name, "idle"], &[0]);
}

/// Windows of random length, from 2 s to as long as the trial's, anywhere within it.
const WINDOWS: usize = 100;

/// How many of [`WINDOWS`] hold what was played, with their uncertainty, and how many told any energy.
fn windows_within(drawn: &Drawn, curve: &Curve) -> (usize, usize) {
    let mut random = SplitMix64::new(1);
    let (mut offs, mut stated, mut holding) = (Vec::new(), Vec::new(), 0);
    let longest = drawn.window_ns as f64;
    for _ in 0..WINDOWS {
        let length = 2e9 + random.unit() * (longest - 2e9);
        let begin = random.unit() * (longest - length);
        let (from, length) = (drawn.opened_ns + whole(begin), whole(length));
        let energy = energy_within(&drawn.readings, from, Nanoseconds(length));
        let Some(told) = energy.drawn() else { continue };
        let played = curve.until(from + length) - curve.until(from);
        holding += usize::from((told.energy.0 - played).abs() <= told.uncertainty.0);
        offs.push((told.energy.0 / played - 1.0).abs());
        stated.push(told.uncertainty.0 / played);
    }
    let told = offs.len();
    for shares in [&mut offs, &mut stated] {
        shares.sort_by(f64::total_cmp);
    }
    let percent = |shares: &[f64], place: usize| 100.0 * shares.get(place).copied().unwrap_or(f64::NAN);
    eprintln!(
        "{WINDOWS} windows of 2 to {:.0} s: {told} told energy, {holding} hold what was played; off by {:.2} % (median), \
         {:.2} % (most), stated ± {:.2} % (median)",
        longest / 1e9,
        percent(&offs, told / 2),
        percent(&offs, told.saturating_sub(1)),
        percent(&stated, told / 2)
    );
    (holding, told)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and minutes at most")]
fn whole(ns: f64) -> u64 {
    ns as u64
}

/// A board of its own, whose CPUs are as slow as their clocks and whose power follows a known model of their load. It is
/// halted at the end.
const CLOCKS: &str = "virtual-tx2-clocks";

struct Halted;

impl Drop for Halted {
    fn drop(&mut self) {
        xtask(&["board", "down", CLOCKS], &[0]);
    }
}

/// Share by which the best schedule of a search may need more energy than the best one of a sweep. Most schedules have one
/// trial, so the noise of a trial is part of it.
const CLOSE: f64 = 0.1;

#[test]
#[ignore = "needs the virtual board; run by cargo xtask test"]
fn virtual_board_search_comes_close_to_a_sweep() {
    let _alone = BOARD.lock().unwrap_or_else(PoisonError::into_inner);
    let _halted = Halted;
    xtask(&["board", "up", CLOCKS], &[0]);
    xtask(&["board", "power", CLOCKS, "load"], &[0]);
    // Other load may slow down any trial, of the search or of the sweep.
    let mut seen = Vec::new();
    while let Err(what) = search_and_sweep() {
        seen.push(what);
        assert!(seen.len() < 4, "not close in each of four tries:\n{}", seen.join("\n"));
    }
}

/// The error is what the search found, and what it should have found.
fn search_and_sweep() -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("loop.db");
    // Other load may void trials, which code 4 says.
    let optimize = |arguments: &[&str]| {
        let all =
            ["optimize", "--board", CLOCKS, "--format", "json", "--database", database.to_str().unwrap()];
        let (text, log) = xtask(&[&all, arguments].concat(), &[0, 4]);
        eprintln!("{log}");
        // Without any energy, there is no result.
        if text.is_empty() {
            return Err(log);
        }
        Ok(serde_json::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    };
    let searched = optimize(&[
        "--network",
        "mobilenet_v1_025_128",
        "--budget",
        "5min",
        "--trials",
        "1",
        "--set",
        "schedules=[{single: each}, {pipeline: auto}]",
        "--set",
        "measure={min_seconds: 5, min_frames: 8, max_seconds: 12}",
    ])?;
    let run = searched["run"].as_str().unwrap();
    let swept = optimize(&["--resume", run, "--sweep", "--budget", "5min"])?;

    let (searched, swept) = (rows(&searched), rows(&swept));
    let known: Vec<&str> = searched.iter().map(|row| row.schedule.as_str()).collect();
    let fastest = swept.iter().map(|row| row.fps).fold(0.0, f64::max);
    if known.len() >= swept.len() {
        return Err(format!("the sweep added nothing with energy to {known:?}"));
    }
    for share in [0.3, 0.6, 0.9] {
        let least = |among: &dyn Fn(&&Row) -> bool| {
            let fast = swept.iter().filter(|row| row.fps >= share * fastest).filter(among);
            fast.min_by(|a, b| a.mj.total_cmp(&b.mj))
        };
        let best = least(&|_| true).expect("the fastest one");
        let found = least(&|row| known.contains(&row.schedule.as_str()));
        let Some(found) = found else {
            return Err(format!("the search measured nothing at {:.1} frames/s", share * fastest));
        };
        let more = found.mj / best.mj - 1.0;
        eprintln!(
            "at {:.1} frames/s or more: the search found {} with {:.0} mJ/frame, the sweep {} with {:.0}: {:+.1} %",
            share * fastest,
            found.schedule,
            found.mj,
            best.schedule,
            best.mj,
            100.0 * more
        );
        if more > CLOSE {
            return Err(format!("{found:?} against {best:?}"));
        }
    }
    Ok(())
}

/// A schedule that `optimize` has measured.
#[derive(Debug)]
struct Row {
    schedule: String,
    fps: f64,
    /// mJ per frame.
    mj: f64,
}

/// The measured schedules with energy of a result of `optimize`.
fn rows(result: &Value) -> Vec<Row> {
    let lists = ["front", "baselines", "others"].into_iter().filter_map(|name| result[name].as_array());
    let row = |row: &Value| {
        Some(Row {
            schedule: row["schedule"].as_str()?.to_owned(),
            fps: row["throughput_fps"]["point"].as_f64()?,
            mj: row["energy_mj_per_frame"]["point"].as_f64()?,
        })
    };
    let mut rows: Vec<Row> = lists.flatten().filter_map(row).collect();
    rows.sort_by(|a, b| a.schedule.cmp(&b.schedule));
    rows.dedup_by(|a, b| a.schedule == b.schedule);
    rows
}

#[test]
#[ignore = "needs the virtual board; run by cargo xtask test"]
fn virtual_board_has_its_sensors_by_either_driver() {
    let board = Board::new();
    for (interface, driver) in [("iio", "ina3221x by iio"), ("hwmon", "ina3221 by hwmon")] {
        xtask(&["board", "ssh", &board.name, "--root", "power-driver", interface], &[0]);
        let (shown, _) = xtask(&["boards", &board.name], &[0]);
        let power = shown.lines().find(|line| line.contains(driver));
        let power = power.unwrap_or_else(|| panic!("{driver}: {shown}"));
        for rail in ["VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_4V0_WIFI", "VDD_IN", "VDD_SYS_CPU", "VDD_SYS_DDR"] {
            assert!(power.contains(rail), "{rail}: {power}");
        }
    }
}

/// Energy of the only trial of a run.
struct Drawn {
    readings: PowerReadings,
    opened_ns: u64,
    window_ns: u64,
    frames: usize,
    millijoules: f64,
    /// As the report has it.
    off_by: f64,
}

/// Measures one trial with a window of 30 s, or of as many seconds as `EDGEPIPE_WINDOW` says. `None`: its energy could
/// not be told.
fn drawn(board: &Board, database: &str) -> Option<Drawn> {
    let seconds = std::env::var("EDGEPIPE_WINDOW").map_or(30, |text| text.parse::<u32>().unwrap());
    let measure = format!("measure={{min_seconds: {seconds}, min_frames: 2, max_seconds: {}}}", seconds + 5);
    let report =
        board.bench(database, &["--trials", "1", "--set", "schedules=[{single: a57}]", "--set", &measure]);
    let store = Store::open(&board.database(database), Access::ReadOnly).unwrap();
    let run = store.latest_run(&RunFilter::default()).unwrap().unwrap();
    let trials = store.trials(&run).unwrap();
    let [TrialRecord { outcome: Outcome::Measured(measured), .. }] = trials.as_slice() else {
        panic!("one measured trial is expected: {trials:?}");
    };
    let Some(Power::Read(readings)) = &measured.power else { panic!("{:?}", measured.power) };
    let window = &measured.window;
    let row = &report["rows"][0];
    let shown = &row["energy_mj_per_frame"];
    let Some(point) = shown["point"].as_f64() else {
        eprintln!("no energy: {}", row["energy_absent_reason"]);
        return None;
    };
    let frames = window.completed_ns.len();
    let off_by = shown["hi"].as_f64().map_or(f64::NAN, |hi| (hi - point) * frames as f64);
    Some(Drawn {
        readings: readings.clone(),
        opened_ns: window.opened_monotonic_ns,
        window_ns: *window.completed_ns.last().unwrap(),
        frames,
        millijoules: point * frames as f64,
        off_by,
    })
}
