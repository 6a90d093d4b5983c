//! How a runner starts and ends: a harness that is gone does not leave a busy board behind.

mod support;

use protocol::{Event, ExecutionMode, Phase, Request};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Runner, endless, program, stages, trial, two_cpus};

/// Much less than its trial, and enough for a machine in use.
const SOON: Duration = Duration::from_secs(300);

/// A trial that would go on for an hour.
fn without_end() -> Request {
    let (first, second) = two_cpus();
    let schedule =
        stages().schedule(ExecutionMode::Pipeline, &[("busy", &[first]), ("busy_again", &[second])]);
    Request::Trial(endless(trial(schedule)))
}

fn wait_for(runner: &mut Runner, wanted: Phase) {
    loop {
        match runner.event() {
            Event::Phase { phase, .. } if phase == wanted => return,
            Event::Phase { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_end_of_input_ends_the_runner_in_the_middle_of_a_trial() {
    for pause in [0, 1, 30, 700] {
        let mut runner = Runner::start();
        runner.send(&without_end());
        wait_for(&mut runner, Phase::WarmUp);
        std::thread::sleep(Duration::from_millis(pause));
        let begun = Instant::now();
        drop(runner.stdin.take());
        let status = runner.ended(SOON);
        println!("ended {} ms after the end of input", begun.elapsed().as_millis());
        assert!(status.success(), "{status}");
        assert!(runner.is_silent());
    }
}

#[test]
fn the_end_of_input_ends_a_runner_that_is_idle_or_loads() {
    let mut runner = Runner::start();
    drop(runner.stdin.take());
    assert!(runner.ended(SOON).success());

    let mut runner = Runner::start();
    runner.send(&without_end());
    drop(runner.stdin.take());
    assert!(runner.ended(SOON).success());
}

#[test]
fn silence_for_longer_than_the_lease_ends_the_runner() {
    let mut runner = Runner::start_with(|command| {
        command.args(["--lease", "1"]);
    });
    let status = runner.ended(SOON);
    assert_eq!(status.code(), Some(i32::from(protocol::LEASE_EXPIRED)));
}

#[test]
fn killing_the_harness_ends_the_runner() {
    // The shell acts as the harness: it has the only writing end of the runner's input.
    let script = r#"exec 3> >(exec "$0"); printf '%s\n' "$1" >&3; exec sleep 1000"#;
    let line = serde_json::to_string(&without_end()).unwrap();
    let mut harness = Command::new("bash")
        .args(["-c", script])
        .arg(program())
        .arg(line)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut events = std::io::BufRead::lines(std::io::BufReader::new(harness.stdout.take().unwrap()));
    let mut pid = None;
    for line in events.by_ref() {
        match serde_json::from_str(&line.unwrap()).unwrap() {
            Event::Hello(hello) => pid = Some(hello.pid),
            Event::Phase { phase: Phase::WarmUp, .. } => break,
            _ => {}
        }
    }
    let pid = pid.unwrap();
    let is_there =
        || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(is_there());
    harness.kill().unwrap();
    assert_eq!(harness.wait().unwrap().signal(), Some(9));
    let begun = Instant::now();
    while is_there() {
        assert!(begun.elapsed() < SOON, "the runner is still there");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn the_first_line_has_version_and_process_id() {
    let runner = Runner::start();
    assert_eq!(runner.hello.protocol, protocol::VERSION);
    assert_eq!(runner.hello.runner, env!("CARGO_PKG_VERSION"));
    assert_eq!(runner.hello.pid, runner.child.id());
}

#[test]
fn output_of_libraries_goes_to_the_log() {
    let runner = Runner::start();
    let descriptor = |number| std::fs::read_link(format!("/proc/{}/fd/{number}", runner.child.id())).unwrap();
    // Standard output was a pipe when the runner started; now it is the log.
    assert_eq!(descriptor(1), descriptor(2));
    let own = std::fs::read_link("/proc/self/fd/2").unwrap();
    assert_eq!(descriptor(2), own);
}

#[test]
fn arguments() {
    let version = Command::new(program()).arg("--version").output().unwrap();
    assert!(version.status.success());
    let text = String::from_utf8(version.stdout).unwrap();
    assert_eq!(text, format!("runner {} (protocol {})\n", env!("CARGO_PKG_VERSION"), protocol::VERSION));

    let unknown = Command::new(program()).arg("--colour").output().unwrap();
    assert_eq!((unknown.status.code(), unknown.stdout.len()), (Some(2), 0));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("--colour"));
}

#[test]
fn a_missing_runtime_is_named() {
    let folder = tempfile::tempdir_in(program().parent().unwrap()).unwrap();
    let copy = folder.path().join("runner");
    // A file that was just written cannot be executed while a child of another test still has it open.
    std::fs::hard_link(program(), &copy).unwrap();
    // The program itself is linked to libtvm_ffi.so; only the runtime is missing.
    let libraries = program().with_file_name("lib");
    let run = |what: &str| {
        let output = Command::new(&copy).env("LD_LIBRARY_PATH", &libraries).output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(69), 0), "{what}: {log}");
        assert!(
            log.contains("failed to load TVM's runtime") && log.contains("lib/libtvm_runtime.so"),
            "{log}"
        );
    };
    run("no library");
    std::fs::create_dir(folder.path().join("lib")).unwrap();
    std::fs::write(folder.path().join("lib/libtvm_runtime.so"), "garbage").unwrap();
    run("no proper library");
}

#[test]
fn no_variable_makes_the_linker_load_another_library() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["libtvm_ffi.so", "libtvm_runtime.so"] {
        std::fs::write(folder.path().join(name), "garbage").unwrap();
    }
    let output =
        Command::new(program()).arg("--version").env("LD_LIBRARY_PATH", folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
