//! `runner hold` with fake programs of a Jetson: it sets the requested state, and restores what it found however the session
//! ends.

#![expect(clippy::unwrap_used, reason = "a test panics if its assumptions fail")]

mod hold;
mod jetson;

use hold::{Board, Keeper};
use jetson::Jetson;
use protocol::{CpuLimit, HoldReply, StateCommand, StateReply, StateRequest};
use rustix::process::Signal;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn the_requested_state_is_set_and_restored_at_the_end() {
    let board = Board::new();
    let before = board.jetson.state();
    let mut keeper = board.keep("anna");
    let applied = keeper.set(board.maxn());
    assert_eq!(applied.leftover, None);
    assert_eq!(
        applied.found.power_mode.as_ref().map(|mode| (mode.id, mode.name.as_str())),
        Some((3, "MAXP_CORE_ARM"))
    );
    assert_eq!(applied.set.power_mode.as_ref().map(|mode| mode.id), Some(0));
    assert!(
        applied.set.cpus.iter().all(|cpu| cpu.online && cpu.min_khz == Some(2_035_200)),
        "{:?}",
        applied.set
    );
    assert!(!applied.found.cpus[1].online);
    assert_eq!(applied.set.gpu.map(|gpu| (gpu.min_hz, gpu.max_hz)), Some((1_300_500_000, 1_300_500_000)));
    assert!(board.saved().exists());
    assert_eq!(keeper.ask(&StateCommand::Restore {}), StateReply::Restored { differences: Vec::new() });
    assert_eq!(board.jetson.state(), before);
    assert!(!board.saved().exists());
    keeper.end();
    // Also without a command.
    let mut keeper = board.keep("anna");
    keeper.set(board.maxn());
    assert_ne!(board.jetson.state(), before);
    keeper.end();
    board.wait_for(&before);
}

/// A request for the highest frequencies of the CPUs and the GPU.
fn limited(board: &Board, mode: u32, khz: [u64; 2], gpu_hz: u64) -> StateRequest {
    let limit = |(cpu, max_khz)| CpuLimit { cpus: vec![cpu], max_khz };
    StateRequest {
        nvpmodel: Some(mode),
        cpu_limits: (0..).zip(khz).map(limit).collect(),
        gpu_max_hz: Some(gpu_hz),
        ..board.request()
    }
}

fn limits(board: &Board) -> Vec<String> {
    let gpu = "sys/devices/17000000.gp10b/devfreq/17000000.gp10b";
    let cpus = (0..2)
        .flat_map(|cpu| ["min", "max"].map(|end| board.jetson.cpu(cpu, &format!("scaling_{end}_freq"))));
    cpus.chain(["min", "max"].map(|end| board.jetson.read(&format!("{gpu}/{end}_freq")))).collect()
}

#[test]
fn clocks_are_limited_one_point_after_the_other_and_restored() {
    let board = Board::new();
    let before = board.jetson.state();
    let mut keeper = board.keep("anna");
    let applied = keeper.set(limited(&board, 0, [1_113_600, 806_400], 624_750_000));
    assert_eq!(
        applied.set.cpus.iter().map(|cpu| cpu.max_khz).collect::<Vec<_>>(),
        [Some(1_113_600), Some(806_400)]
    );
    assert_eq!(limits(&board), ["345600", "1113600", "345600", "806400", "114750000", "624750000"]);
    // The same mode with other limits does not set the mode again.
    let calls = board.jetson.read("calls");
    let applied = keeper.set(limited(&board, 0, [2_035_200, 345_600], 1_300_500_000));
    assert_eq!(limits(&board), ["345600", "2035200", "345600", "345600", "114750000", "1300500000"]);
    assert_eq!(applied.found.power_mode.map(|mode| mode.id), Some(3));
    assert!(!board.jetson.read("calls")[calls.len()..].contains("-m"), "{}", board.jetson.read("calls"));
    // Another mode, pinned clocks, and no limits: each starts from what was found, and is read back.
    let pinned =
        StateRequest { jetson_clocks: Some(true), ..limited(&board, 0, [1_113_600, 806_400], 624_750_000) };
    keeper.set(pinned.clone());
    assert_eq!(limits(&board), ["1113600", "1113600", "806400", "806400", "624750000", "624750000"]);
    keeper.set(StateRequest {
        cpu_limits: vec![CpuLimit { cpus: vec![0, 1], max_khz: 499_200 }],
        ..pinned.clone()
    });
    assert_eq!(limits(&board)[..4], ["499200", "499200", "499200", "499200"]);
    keeper.set(board.maxn());
    assert_eq!(limits(&board)[..4], ["2035200", "2035200", "2035200", "2035200"]);
    keeper.set(board.request());
    assert_eq!(board.jetson.state(), before);
    // Killed at a point, the next session restores.
    keeper.set(pinned);
    keeper.signal(Signal::KILL);
    keeper.child.wait().unwrap();
    assert_ne!(board.jetson.state(), before);
    let restored = board.runner(&["restore"]).output().unwrap();
    assert!(restored.status.success(), "{restored:?}");
    board.wait_for(&before);
    // A board whose kernel does not control the clocks.
    let mut keeper = board.keep("anna");
    for cpu in 0..2 {
        fs::remove_file(
            board.jetson.sysfs().join(format!("devices/system/cpu/cpu{cpu}/cpufreq/scaling_max_freq")),
        )
        .unwrap();
    }
    let message = keeper.fails(limited(&board, 3, [1_113_600, 806_400], 624_750_000));
    assert!(
        message.contains(
            "CPU 0 is to run at 1113600 kHz at most, but this board's kernel does not control its clock"
        ),
        "{message}"
    );
    keeper.end();
}

#[test]
fn settings_that_match_are_not_changed() {
    let board = Board::new();
    let mut keeper = board.keep("anna");
    let applied = keeper.set(StateRequest {
        nvpmodel: Some(3),
        governor: Some("schedutil".to_owned()),
        ..board.request()
    });
    assert_eq!(applied.found, applied.set);
    keeper.set(board.request());
    assert!(!board.saved().exists());
    keeper.end();
    assert!(!board.jetson.read("calls").contains("-m"), "{}", board.jetson.read("calls"));
}

#[test]
fn a_board_has_one_session_and_an_endless_line_ends_it() {
    let board = Board::new();
    let before = board.jetson.state();
    let mut keeper = board.keep("process 7 (bench) of anna");
    keeper.set(board.maxn());
    let second = board.runner(&["hold", "bert"]).output().unwrap();
    assert_eq!(second.status.code(), Some(3));
    assert_eq!(
        String::from_utf8_lossy(&second.stdout),
        "{\"busy\":{\"name\":\"process 7 (bench) of anna\"}}\n"
    );
    // More than the limit: the pipe is closed before everything is written.
    let stdin = keeper.stdin.as_mut().unwrap();
    let chunk = vec![b'x'; 1 << 20];
    let taken = (0..64).take_while(|_| stdin.write_all(&chunk).is_ok()).count();
    assert!(taken < 8, "{taken} MiB were accepted");
    assert!(keeper.child.wait().unwrap().success());
    board.wait_for(&before);
    let free = board.runner(&["holder"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&free.stdout), "{\"nobody\":{}}\n");
}

#[test]
fn signals_end_a_session_that_restores() {
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let board = Board::new();
        let before = board.jetson.state();
        let mut keeper = board.keep("anna");
        keeper.set(StateRequest { governor: Some("performance".to_owned()), ..board.maxn() });
        assert_eq!(board.jetson.cpu(1, "scaling_governor"), "performance");
        keeper.signal(signal);
        assert!(keeper.child.wait().unwrap().success());
        board.wait_for(&before);
    }
}

#[test]
fn the_next_session_first_restores_what_a_killed_one_left() {
    let board = Board::new();
    let before = board.jetson.state();
    let mut killed = board.keep("anna");
    killed.set(board.maxn());
    killed.signal(Signal::KILL);
    killed.child.wait().unwrap();
    assert_ne!(board.jetson.state(), before);
    assert!(board.saved().exists());
    let mut next = board.keep("bert");
    let applied = next.set(StateRequest { nvpmodel: Some(1), ..board.request() });
    let leftover = applied.leftover.unwrap();
    assert_eq!(leftover.by, "anna");
    // The changed state is never saved as the found one.
    assert_eq!(applied.found, leftover.found);
    assert_eq!(applied.found.power_mode.map(|mode| mode.id), Some(3));
    assert_eq!(applied.set.power_mode.map(|mode| mode.id), Some(1));
    next.end();
    board.wait_for(&before);
}

#[test]
fn a_session_without_a_request_restores_what_another_left() {
    let board = Board::new();
    let before = board.jetson.state();
    let mut killed = board.keep("anna");
    killed.set(board.maxn());
    killed.signal(Signal::KILL);
    killed.child.wait().unwrap();
    let told = board.runner(&["pending"]).output().unwrap();
    assert!(String::from_utf8_lossy(&told.stdout).contains("\"by\":\"anna\""), "{told:?}");
    let mut next = board.keep("bert");
    assert_eq!(next.set(board.request()).leftover.map(|leftover| leftover.by), Some("anna".to_owned()));
    board.wait_for(&before);
    next.end();
    assert!(board.runner(&["pending"]).output().unwrap().stdout.is_empty());
}

#[test]
fn the_command_restore_does_not_wait_for_a_session() {
    let board = Board::new();
    let before = board.jetson.state();
    let mut keeper = board.keep("anna");
    keeper.set(board.maxn());
    let busy = board.runner(&["restore"]).stderr(Stdio::piped()).output().unwrap();
    assert!(!busy.status.success());
    assert!(String::from_utf8_lossy(&busy.stderr).contains("another session holds the state"), "{busy:?}");
    keeper.signal(Signal::KILL);
    keeper.child.wait().unwrap();
    let done = board.runner(&["restore"]).output().unwrap();
    assert!(done.status.success() && String::from_utf8_lossy(&done.stdout).contains("anna"), "{done:?}");
    board.wait_for(&before);
}

#[test]
fn settings_that_changed_meanwhile_are_set_again() {
    let board = Board::new();
    let before = board.jetson.state();
    let mut keeper = board.keep("anna");
    let first = keeper.set(board.maxn());
    for (name, khz) in [("scaling_min_freq", "345600"), ("scaling_max_freq", "1200000")] {
        board.jetson.write(&format!("sys/devices/system/cpu/cpu0/cpufreq/{name}"), khz);
        let later = keeper.set(board.maxn());
        assert_eq!((&later.found, &later.set), (&first.found, &first.set));
    }
    let calls = board.jetson.read("calls").lines().filter(|call| *call == "jetson_clocks ").count();
    keeper.set(board.maxn());
    let again = board.jetson.read("calls").lines().filter(|call| *call == "jetson_clocks ").count();
    assert_eq!(calls, again, "no setting has changed, so no program runs");
    keeper.end();
    board.wait_for(&before);
}

#[test]
fn clocks_saved_before_a_reboot_are_not_restored() {
    let board = Board::new();
    let mut killed = board.keep("anna");
    killed.set(board.maxn());
    killed.signal(Signal::KILL);
    killed.child.wait().unwrap();
    let text = fs::read_to_string(board.saved()).unwrap();
    let mut pending: protocol::SavedState = serde_json::from_str(&text).unwrap();
    pending.boot = Some("another".to_owned());
    fs::write(board.saved(), serde_json::to_string(&pending).unwrap()).unwrap();
    // After a reboot, only the power mode is still changed.
    let fresh = Jetson::new(&board.folder.path().join("board"));
    fresh.write("mode", "0");
    fresh.write("sys/devices/system/cpu/online", "0-1");
    let done = board.runner(&["restore"]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!((fresh.read("mode"), board.saved().exists()), ("3".to_owned(), false));
    assert!(!fresh.read("calls").contains("--restore"), "{}", fresh.read("calls"));
}

#[test]
fn a_mode_that_needs_a_reboot_is_an_error() {
    let board = Board::new();
    let before = board.jetson.state();
    let mut keeper = board.keep("anna");
    let message = keeper.fails(StateRequest { nvpmodel: Some(7), ..board.request() });
    assert!(message.contains("power mode 7 is requested, but the mode is 3 (MAXP_CORE_ARM)"), "{message}");
    assert!(message.contains("if the mode needs a reboot, set it by hand"), "{message}");
    assert!(message.contains("the changes were undone"), "{message}");
    let message = keeper.fails(StateRequest { nvpmodel: Some(5), ..board.request() });
    assert!(message.contains("unknown power mode: 5"), "{message}");
    keeper.end();
    board.wait_for(&before);
}

#[test]
fn clocks_that_are_not_pinned_are_an_error() {
    let board = Board::new();
    let before = board.jetson.state();
    board.jetson.write("stuck", "");
    let mut keeper = board.keep("anna");
    let message = keeper.fails(board.maxn());
    assert!(
        message.contains("pinned clocks are requested, but CPU 0 may run at 345600 to 2035200 kHz"),
        "{message}"
    );
    keeper.end();
    board.wait_for(&before);
}

#[test]
fn a_failed_restoration_is_reported_and_repeated() {
    let board = Board::new();
    let before = board.jetson.state();
    let mut keeper = board.keep("anna");
    keeper.set(board.maxn());
    board.jetson.write("broken", "");
    let StateReply::Failed { message } = keeper.ask(&StateCommand::Restore {}) else {
        panic!("it cannot be restored")
    };
    assert!(message.contains("power mode") && message.contains("still pinned"), "{message}");
    assert!(board.saved().exists());
    keeper.end();
    let mut next = board.keep("bert");
    let message = next.fails(board.maxn());
    assert!(
        message.contains("session of anna left behind") && message.contains("board-state.json"),
        "{message}"
    );
    next.end();
    fs::remove_file(board.folder.path().join("board/broken")).unwrap();
    let mut last = board.keep("carl");
    last.set(board.request());
    board.wait_for(&before);
    last.end();
}

#[test]
fn a_board_without_the_programs_says_what_to_remove() {
    let board = Board::new();
    for name in ["nvpmodel", "jetson_clocks"] {
        fs::remove_file(board.jetson.bin().join(name)).unwrap();
    }
    let mut keeper = board.keep("anna");
    for (request, expected) in [
        (StateRequest { nvpmodel: Some(0), ..board.request() }, "the board has no program nvpmodel"),
        (
            StateRequest { jetson_clocks: Some(true), ..board.request() },
            "the board has no program jetson_clocks",
        ),
        (
            StateRequest { governor: Some("turbo".to_owned()), ..board.request() },
            "CPU 0 supports only performance, powersave, schedutil",
        ),
    ] {
        let message = keeper.fails(request);
        assert!(message.contains(expected), "{message}");
    }
    let applied = keeper.set(StateRequest { governor: Some("performance".to_owned()), ..board.request() });
    assert_eq!(applied.set.cpus[0].governor.as_deref(), Some("performance"));
    assert_eq!(applied.set.power_mode, None);
    keeper.end();
    assert_eq!(board.jetson.cpu(0, "scaling_governor"), "schedutil");
}

#[test]
fn an_unknown_power_mode_matters_only_if_requested() {
    let board = Board::new();
    for said in ["", "NVPM WARN: fan mode is not set!\n", "NV Fan Mode:quiet\n"] {
        board.jetson.program("nvpmodel", &format!("#!/bin/sh\nprintf '%s' '{said}'\n"));
        let mut keeper = board.keep("anna");
        let message = keeper.fails(StateRequest { nvpmodel: Some(0), ..board.request() });
        assert!(
            message.contains("does not show the power mode") && message.contains("remove `nvpmodel` from"),
            "{message}"
        );
        let applied =
            keeper.set(StateRequest { governor: Some("performance".to_owned()), ..board.request() });
        assert_eq!(
            (applied.set.power_mode, board.jetson.cpu(0, "scaling_governor").as_str()),
            (None, "performance")
        );
        keeper.set(StateRequest { governor: Some("performance".to_owned()), ..board.request() });
        keeper.end();
        assert_eq!(board.jetson.cpu(0, "scaling_governor"), "schedutil");
    }
}

/// Whether `EDGEPIPE_SKIP` names the tests that need root, which start a runner as another user.
fn is_root_skipped() -> bool {
    if std::env::var("EDGEPIPE_SKIP").is_ok_and(|list| list.split(',').any(|word| word.trim() == "root")) {
        eprintln!("SKIPPED by EDGEPIPE_SKIP=root");
        return true;
    }
    assert!(
        rustix::process::geteuid().is_root(),
        "this test starts a runner as another user, which takes root; EDGEPIPE_SKIP=root skips it"
    );
    false
}

/// A keeper that runs as a user other than root.
fn as_nobody(board: &Board) -> Keeper {
    std::os::unix::fs::chown(board.folder.path().join("home"), Some(65_534), Some(65_534)).unwrap();
    open_to_all(board.folder.path());
    // Other users may have no access to the runner's own folder.
    let program = board.folder.path().join("runner");
    // By a process of its own: a program that this one has open for writing cannot be started (ETXTBSY), and a process that
    // another test starts at that moment has it open as well.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_runner")).arg(&program).status().unwrap();
    assert!(copied.success());
    let libraries = Path::new(env!("CARGO_BIN_EXE_runner")).with_file_name("lib");
    fs::create_dir(board.folder.path().join("lib")).unwrap();
    for entry in fs::read_dir(libraries).unwrap().flatten() {
        fs::copy(entry.path(), board.folder.path().join("lib").join(entry.file_name())).unwrap();
    }
    let mut command = Command::new(program);
    let path = format!("{}:/usr/bin:/bin", board.jetson.bin().display());
    command.args(["hold", "anna"]).env_clear().env("PATH", path).env("USER", "nvidia");
    command.env("HOME", board.folder.path().join("home")).current_dir("/");
    command.env("EDGEPIPE_LOCK", board.folder.path().join("home/lock"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).uid(65_534).gid(65_534);
    Keeper::start(&mut command)
}

fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    // The fake programs record their calls.
    fs::set_permissions(folder.join("board/calls"), fs::Permissions::from_mode(0o666)).unwrap();
}

#[test]
fn the_message_has_the_missing_line_of_sudoers() {
    if is_root_skipped() {
        return;
    }
    let board = Board::new();
    let before = board.jetson.state();
    let bin = board.jetson.bin();
    // A sudo in the board's PATH hides that of the machine.
    let refusal = "#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n";
    board.jetson.program("sudo", refusal);
    let mut keeper = as_nobody(&board);
    let message = keeper.fails(StateRequest { governor: Some("performance".to_owned()), ..board.maxn() });
    assert!(message.contains("sudo: a password is required"), "{message}");
    // Both CPUs, because the mode brings the second one online.
    let line = format!(
        "nvidia ALL=(root) NOPASSWD: {0}/nvpmodel, {0}/jetson_clocks, /usr/bin/tee {1}/devices/system/cpu/cpu0/cpufreq/scaling_governor, /usr/bin/tee {1}/devices/system/cpu/cpu1/cpufreq/scaling_governor",
        bin.display(),
        board.jetson.sysfs().display()
    );
    assert!(message.contains(&line), "{message}\nlacks\n{line}");
    assert_eq!(board.jetson.state(), before);
    assert!(!board.saved().exists(), "nothing was changed");
    keeper.end();
}

#[test]
fn a_sudo_that_does_not_list_commands_is_enough() {
    if is_root_skipped() {
        return;
    }
    // The command is allowed, but this sudo discards what it should write, so reading back fails.
    for listing in ["echo 'sudo: a password is required' >&2; exit 1", "exit 0"] {
        let board = Board::new();
        board
            .jetson
            .program("sudo", &format!("#!/bin/sh\n[ \"$2\" != -l ] || {{ {listing}; }}\ncat >/dev/null\n"));
        let mut keeper = as_nobody(&board);
        let message =
            keeper.fails(StateRequest { governor: Some("performance".to_owned()), ..board.request() });
        assert!(message.contains("performance is requested, but it is schedutil"), "{message}");
        keeper.end();
    }
}

/// Messages of the commands about lock and state, with all that differs between machines replaced.
struct Messages(String);

impl Messages {
    fn add(&mut self, board: &Board, case: &str, message: &str) {
        let folder = board.folder.path().display().to_string();
        let message = message.trim().replace(&folder, "TEMPORARY");
        assert!(message.starts_with("failed to "), "{message}");
        let _ = writeln!(self.0, "{case}\n  {message}");
    }

    /// Sends a request that must fail.
    fn set(&mut self, board: &Board, case: &str, request: StateRequest) {
        let mut keeper = board.keep("anna");
        let message = keeper.fails(request);
        self.add(board, case, &message);
        keeper.end();
    }

    /// Runs a command that must fail.
    fn run(&mut self, board: &Board, case: &str, command: &mut Command) {
        let output = command.stderr(Stdio::piped()).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        let line = String::from_utf8_lossy(&output.stdout).into_owned();
        let message = match serde_json::from_str(&line) {
            Ok(HoldReply::Failed { message }) => message,
            _ => String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        self.add(board, case, &message);
    }
}

/// To be reviewed as prose.
#[test]
fn messages() {
    let mut messages = Messages(String::new());
    let board = Board::new();
    let request = |nvpmodel, jetson_clocks, governor: Option<&str>| StateRequest {
        nvpmodel,
        jetson_clocks,
        governor: governor.map(str::to_owned),
        ..board.request()
    };
    messages.run(&board, "arguments", &mut board.runner(&["--lease", "0"]));
    let missing = board.folder.path().join("missing/lock");
    messages.run(
        &board,
        "lock in a missing folder",
        board.runner(&["hold", "anna"]).env("EDGEPIPE_LOCK", missing),
    );
    let mut keeper = board.keep("anna");
    keeper.set(request(Some(0), None, None));
    messages.run(&board, "restore during a session", &mut board.runner(&["restore"]));
    keeper.end();
    messages.set(&board, "mode that needs a reboot", request(Some(7), None, None));
    messages.set(&board, "unknown mode", request(Some(5), None, None));
    messages.set(&board, "unknown governor", request(None, None, Some("turbo")));
    board.jetson.write("stuck", "");
    messages.set(&board, "clocks that are not pinned", request(None, Some(true), None));
    fs::remove_file(board.folder.path().join("board/stuck")).unwrap();
    for cpu in 0..2 {
        let file = |name: &str| format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/{name}");
        board.jetson.write(&file("scaling_min_freq"), "2000000");
    }
    messages.set(&board, "clocks that are pinned by hand", request(None, Some(false), None));

    let mut keeper = board.keep("anna");
    keeper.set(request(Some(0), None, None));
    keeper.signal(Signal::KILL);
    keeper.child.wait().unwrap();
    let saved = fs::read_to_string(board.saved()).unwrap();
    fs::write(board.saved(), "garbage").unwrap();
    messages.set(&board, "saved state that cannot be parsed", board.request());
    fs::write(board.saved(), saved.replace("\"version\": 1", "\"version\": 99")).unwrap();
    messages.set(&board, "saved state of another version", board.request());
    fs::write(board.saved(), saved).unwrap();
    board.jetson.program("nvpmodel", "#!/bin/sh\necho 'NVPM ERROR: no table' >&2\nexit 3\n");
    messages.set(&board, "saved state that cannot be restored", board.request());
    fs::remove_file(board.saved()).unwrap();
    messages.set(&board, "nvpmodel that fails", request(Some(0), None, None));
    for name in ["nvpmodel", "jetson_clocks"] {
        fs::remove_file(board.jetson.bin().join(name)).unwrap();
    }
    messages.set(&board, "no nvpmodel", request(Some(0), None, None));
    messages.set(&board, "no jetson_clocks", request(None, Some(true), None));
    let mut keeper = board.keep("anna");
    keeper.stdin.as_mut().unwrap().write_all(b"garbage\n").unwrap();
    match serde_json::from_str(&keeper.line()).unwrap() {
        StateReply::Failed { message } => messages.add(&board, "garbage as command", &message),
        other => panic!("{other:?}"),
    }
    keeper.end();
    let mut keeper = Keeper::start(board.runner(&["hold", "anna"]).env_remove("HOME"));
    let message = keeper.fails(request(None, None, Some("performance")));
    messages.add(&board, "no home folder", &message);
    keeper.end();
    insta::assert_snapshot!(messages.0);
}
