//! Several boards at once: each an sshd of its own on loopback.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod farm;

use farm::Farm;
use farm::emulated::System;
use farm::outcome::assert_valid;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// These disturb each other; so they come one by one.
static BENCH: Mutex<()> = Mutex::new(());

/// Boards `b1` to `bN`, of which the first is the one whose harness drives all.
struct Shelf {
    first: Farm,
    others: Vec<Farm>,
}

impl Shelf {
    fn new(boards: usize) -> Self {
        let first = Farm::new();
        first.board("b1", "host: 127.0.0.1, user: tester, reconnect_seconds: 2");
        let others = (2..=boards).map(|number| first.another(&format!("b{number}"))).collect();
        Self { first, others }
    }

    /// Boards of another processor than this machine's, beside a first one that is not.
    fn emulated(boards: usize, system: &System) -> Self {
        let first = Farm::new();
        let another = |number| first.another_of(&format!("b{number}"), Some(system.clone()));
        let others = (1..=boards).map(another).collect();
        Self { first, others }
    }

    fn group(&self, mode: &str) {
        let boards: Vec<String> = (1..=self.others.len() + 1).map(|number| format!("b{number}")).collect();
        let text = format!("group: shelf\nboards: [{}]\nmode: {mode}\n", boards.join(", "));
        std::fs::write(self.first.path("workspace/configs/groups/shelf.yaml"), text).unwrap();
    }

    fn bench(&self, arguments: &[&str]) -> Bench {
        let mut all = vec!["bench", "--format", "json"];
        all.extend(arguments);
        let mut command = self.first.harness(&all);
        Bench { child: command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap() }
    }

    /// No board has a user or a runner left.
    #[track_caller]
    fn check_free(&self, boards: &[&str]) {
        for farm in self.others.iter().chain([&self.first]) {
            farm.wait_for_none(&["runner"]);
        }
        let mut arguments = vec!["boards"];
        arguments.extend(boards);
        let (text, _) = self.first.run(&arguments, 0);
        assert_eq!(text.matches("  free").count(), boards.len(), "{text}");
    }
}

struct Bench {
    child: Child,
}

/// How a bench ended: exit code, JSON report, and what it said meanwhile.
struct Ended {
    code: Option<i32>,
    report: Value,
    said: String,
}

impl Bench {
    /// Waits for its end, and does something once it has said a line like this.
    fn end(mut self, is_moment: impl Fn(&str) -> bool, act: impl FnOnce(&Child)) -> Ended {
        let deadline = Instant::now() + Duration::from_secs(3600);
        let stderr = self.child.stderr.take().unwrap();
        let mut stdout = self.child.stdout.take().unwrap();
        let report = std::thread::spawn(move || {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut stdout, &mut text).unwrap();
            text
        });
        let mut said = String::new();
        let mut act = Some(act);
        for line in std::io::BufReader::new(stderr).lines().map_while(Result::ok) {
            assert!(Instant::now() < deadline, "it does not end: {said}");
            if is_moment(&line)
                && let Some(act) = act.take()
            {
                act(&self.child);
            }
            said += &(line + "\n");
        }
        assert!(act.is_none(), "the moment did not come: {said}");
        let code = self.child.wait().unwrap().code();
        let report = report.join().unwrap();
        let report = serde_json::from_str(&report).unwrap_or_else(|_| panic!("{code:?}: {report}\n{said}"));
        Ended { code, report, said }
    }

    fn just_end(self) -> Ended {
        self.end(|_| true, |_| ())
    }
}

impl Ended {
    fn board(&self, name: &str) -> &Value {
        let boards = self.report["boards"].as_array().unwrap();
        boards.iter().find(|board| board["board"] == name).expect("the board is in the report")
    }

    /// Trials measured on all boards.
    fn trials(&self) -> u64 {
        self.report["boards"].as_array().unwrap().iter().map(|board| board["trials"].as_u64().unwrap()).sum()
    }

    /// Rounds whose every trial was measured, with the board that did it, from what was said.
    fn whole_rounds(&self, schedules: usize) -> BTreeMap<String, String> {
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        for line in self.said.lines().filter(|line| line.ends_with("frames/s")) {
            let board = line.split_whitespace().next().unwrap().to_owned();
            let round = line.split(", round ").nth(1).unwrap().split(':').next().unwrap().to_owned();
            *counts.entry((round, board)).or_default() += 1;
        }
        counts.retain(|_, count| *count == schedules);
        counts.into_keys().collect()
    }
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn equal_boards_share_the_rounds_and_a_dead_one_leaves_its_own_to_the_others() {
    if farm::skipped() {
        return;
    }
    let _alone = BENCH.lock().unwrap_or_else(PoisonError::into_inner);
    let mut shelf = Shelf::new(4);
    shelf.group("spread");
    let mut dying = shelf.others.remove(1);
    // So many that each board gets one, even if the others begin seconds earlier.
    let rounds = 24;
    let arguments = ["--board", "shelf", "--experiment", "tiny", "--trials", "24"];
    // In the middle of a round: after its first trial.
    let moment = |line: &str| line.starts_with("b3 ") && line.ends_with("frames/s");
    let ended = shelf.bench(&arguments).end(moment, |_| dying.power_off());
    assert_eq!(ended.code, Some(3), "{}", ended.said);
    let schedules = ended.report["pooled"]["rows"].as_array().unwrap().len();
    let whole = ended.whole_rounds(schedules);
    let numbers: Vec<String> = (1..=rounds).map(|round: u32| round.to_string()).collect();
    assert!(numbers.iter().all(|round| whole.contains_key(round)), "{whole:?}: {}", ended.said);
    for board in ["b1", "b2", "b4"] {
        assert_eq!(ended.board(board)["status"], "complete", "{}", ended.said);
        assert!(whole.values().any(|by| by == board), "{board} measured a round: {}", ended.said);
    }
    let reason = ended.board("b3")["set_aside"].as_str().unwrap();
    assert!(reason.starts_with("failed to reconnect to the board b3 within 2 s"), "{reason}");
    assert!(ended.said.contains("b3  set aside  "), "{}", ended.said);
    assert!(ended.said.contains("1 of 4 boards were set aside"), "{}", ended.said);
    // Nothing failed but what the dead board was at.
    assert!(ended.trials() >= u64::from(rounds) * schedules as u64, "{}", ended.report);
    for board in ["b1", "b2", "b4"] {
        assert_eq!(ended.board(board)["trials_failed"], 0, "{}", ended.said);
    }
    shelf.check_free(&["b1", "b2", "b4"]);

    // The same is told later, from the database alone.
    let (json, _) = shelf.first.run(&["report", "--format", "json"], 0);
    let again: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(again, ended.report);

    // It comes back and goes on; there is nothing left to measure.
    dying.start();
    let mut arguments = arguments.to_vec();
    arguments.push("--resume");
    let ended = shelf.bench(&arguments).just_end();
    assert_valid(ended.code, &ended.said);
    assert!(!ended.said.contains("frames/s"), "{}", ended.said);
    assert_eq!(
        (&ended.board("b3")["status"], &ended.board("b3")["set_aside"]),
        (&"complete".into(), &Value::Null)
    );
    drop(dying);
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn boards_are_compared_and_one_that_is_off_is_set_aside() {
    if farm::skipped() {
        return;
    }
    let _alone = BENCH.lock().unwrap_or_else(PoisonError::into_inner);
    let mut shelf = Shelf::new(3);
    shelf.others[1].power_off();
    let arguments = ["--board", "b1", "--board", "b2", "--board", "b3", "--experiment", "tiny"];
    let ended = shelf.bench(&arguments).just_end();
    assert_eq!(ended.code, Some(3), "{}", ended.said);
    assert_eq!(ended.report["pooled"], Value::Null);
    let reports = ended.report["reports"].as_array().unwrap();
    assert_eq!(reports.len(), 2);
    for report in reports {
        let rows = report["rows"].as_array().unwrap();
        assert!(rows.iter().all(|row| row["trials_failed"] == 0), "{report}");
    }
    for board in ["b1", "b2"] {
        let trials = ended.board(board)["trials"].as_u64().unwrap();
        assert_eq!(trials, 2 * reports[0]["rows"].as_array().unwrap().len() as u64, "{}", ended.report);
    }
    assert!(
        ended.board("b3")["set_aside"].as_str().unwrap().contains("failed to connect"),
        "{}",
        ended.report
    );
    shelf.check_free(&["b1", "b2"]);
    // A run of it is a run like any other.
    let run = ended.board("b2")["run"].as_str().unwrap();
    let (csv, _) = shelf.first.run(&["report", "--run", run, "--format", "csv"], 0);
    assert!(csv.lines().skip(1).all(|line| line.starts_with("b2,")), "{csv}");
    // What shows one run is refused before anything is measured.
    let (_, said) = shelf.first.run(&["bench", "--board", "b1", "--board", "b2", "--format", "html"], 2);
    assert!(said.contains("html, junit, latex, latex-table and paper show one run"), "{said}");
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn ctrl_c_ends_all_boards_and_the_rest_is_measured_later() {
    if farm::skipped() {
        return;
    }
    let _alone = BENCH.lock().unwrap_or_else(PoisonError::into_inner);
    let shelf = Shelf::new(2);
    shelf.group("spread");
    let arguments = ["--board", "shelf", "--experiment", "tiny", "--trials", "8"];
    let interrupt = |child: &Child| {
        farm::kill(i32::try_from(child.id()).unwrap(), rustix::process::Signal::INT);
    };
    let ended = shelf.bench(&arguments).end(|line| line.ends_with("frames/s"), interrupt);
    assert_eq!(ended.code, Some(4), "{}", ended.said);
    assert!(!ended.said.contains("set aside"), "{}", ended.said);
    let id = ended.report["campaign"]["id"].as_str().unwrap().to_owned();
    assert!(ended.said.contains(&format!("--resume {id}")), "{}", ended.said);
    shelf.check_free(&["b1", "b2"]);
    let first: u64 = ended.said.lines().filter(|line| line.ends_with("frames/s")).count() as u64;
    let ended = shelf.bench(&["--resume", &id]).just_end();
    assert_valid(ended.code, &ended.said);
    assert!(!ended.said.contains("per frame\n"), "nothing is profiled again: {}", ended.said);
    let rows = ended.report["pooled"]["rows"].as_array().unwrap().len() as u64;
    let second = ended.said.lines().filter(|line| line.ends_with("frames/s")).count() as u64;
    assert_eq!(first + second, 8 * rows, "each trial once: {}", ended.said);
    assert_eq!(ended.trials(), 8 * rows, "{}", ended.report);
    shelf.check_free(&["b1", "b2"]);
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn boards_that_are_unlike_share_nothing_and_two_names_of_one_board_are_told() {
    if farm::skipped() {
        return;
    }
    let _alone = BENCH.lock().unwrap_or_else(PoisonError::into_inner);
    let shelf = Shelf::new(2);
    let file = shelf.first.path("workspace/configs/boards/b2.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("processors: auto", "processors: { one: { cpus: [0] } }")).unwrap();
    let both = ["bench", "--board", "b1", "--board", "b2", "--experiment", "tiny"];
    let mut spread = both.to_vec();
    spread.extend(["--mode", "spread"]);
    let (_, said) = shelf.first.run(&spread, 2);
    assert!(said.contains("b1 and b2 differ in processors in use (cpu0 = CPUs [0]"), "{said}");
    assert!(said.contains("`--mode repeat` measures everything on each"), "{said}");
    shelf.check_free(&["b1", "b2"]);
    // A second file that leads to the first board.
    shelf.first.board("b2", "host: 127.0.0.1, user: tester");
    let (_, said) = shelf.first.run(&both, 3);
    assert!(said.contains("failed to lock the board b") && said.contains(" as b"), "{said}");
    let (_, said) = shelf.first.run(&["bench", "--board", "b1", "--mode", "spread"], 2);
    assert!(said.contains("--mode: it needs several boards"), "{said}");
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn this_machine_and_a_board_over_ssh_work_together() {
    if farm::skipped() {
        return;
    }
    let _alone = BENCH.lock().unwrap_or_else(PoisonError::into_inner);
    let shelf = Shelf::new(1);
    let ended = shelf.bench(&["--board", "local", "--board", "b1", "--experiment", "tiny"]).just_end();
    assert_valid(ended.code, &ended.said);
    for board in ["local", "b1"] {
        assert_eq!(ended.board(board)["status"], "complete", "{}", ended.said);
        assert_eq!(ended.board(board)["trials_failed"], 0, "{}", ended.said);
    }
    // Nothing is compiled or compared any more once the first trial has begun.
    let words: Vec<&str> = ended.said.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    let first = words.iter().position(|word| *word == "measure").expect("a trial");
    assert!(!words[first..].contains(&"compare"), "{}", ended.said);
    shelf.check_free(&["b1"]);
}

/// `EDGEPIPE_BOARDS=16` makes it more than four.
fn count() -> usize {
    std::env::var("EDGEPIPE_BOARDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

/// So many rounds, none of whose trials may fail; whether one is void is another matter on a machine that all share.
fn check_many(shelf: &Shelf, boards: usize, mode: &str, trials: usize) {
    let names: Vec<String> = (1..=boards).map(|number| format!("b{number}")).collect();
    let text = format!("group: shelf\nboards: [{}]\nmode: {mode}\n", names.join(", "));
    std::fs::write(shelf.first.path("workspace/configs/groups/shelf.yaml"), text).unwrap();
    let begun = Instant::now();
    let trials_each = trials.to_string();
    let arguments = ["--board", "shelf", "--experiment", "tiny", "--trials", &trials_each];
    let ended = shelf.bench(&arguments).just_end();
    assert_valid(ended.code, &ended.said);
    let failed: u64 = names.iter().map(|name| ended.board(name)["trials_failed"].as_u64().unwrap()).sum();
    eprintln!(
        "{boards} boards, {mode}: {} trials in {:.0} s, {failed} failed",
        ended.trials(),
        begun.elapsed().as_secs_f64()
    );
    assert_eq!(failed, 0, "{}", ended.said);
    let schedules = ended.report["reports"][0]["rows"].as_array().unwrap().len();
    let rounds = if mode == "spread" { trials } else { trials * boards };
    assert_eq!(ended.trials(), (rounds * schedules) as u64, "{}", ended.said);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    shelf.check_free(&names);
}

/// `EDGEPIPE_BOARDS=16 … -- --ignored --nocapture many_boards` says how many trials there were.
#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn many_boards_at_once_fail_no_trial() {
    if farm::skipped() {
        return;
    }
    let _alone = BENCH.lock().unwrap_or_else(PoisonError::into_inner);
    let boards = count();
    let shelf = Shelf::new(boards);
    check_many(&shelf, boards, "repeat", 2);
    check_many(&shelf, boards, "spread", 2 * boards);
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn many_boards_of_another_processor_at_once_fail_no_trial() {
    if farm::skipped() {
        return;
    }
    let _alone = BENCH.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(system) = System::find() else {
        eprintln!("left out: there are no emulated boards here (EDGEPIPE_EMULATED_BOARD, EDGEPIPE_KIT)");
        return;
    };
    let boards = count();
    let shelf = Shelf::emulated(boards, &system);
    // Slow ones: a round a board.
    check_many(&shelf, boards, "spread", boards);
}
