//! What happens to a bench when link, board or runner fail under it. ARCHITECTURE.md's invariants in practice: the run
//! ends or goes on as documented, nothing measured is lost, and the board is left free. docs/faults.md is the table.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "rig/clocks_and_energy.rs"]
#[allow(dead_code, reason = "no test of this program needs its meter")]
mod clocks_and_energy;
mod farm;

use clocks_and_energy::{clock_share, clocks};
use farm::bench::{Bench, alone, repeated, stored, trials};
use farm::cable::{Cable, Cut, Way};
use farm::outcome::assert_valid;
use farm::{Farm, User, variable};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The board is free, and nothing of ours runs there.
#[track_caller]
fn is_left_free(farm: &Farm) {
    farm.wait_for_none(&["runner"]);
    let (text, _) = farm.run(&["boards", "loopback"], 0);
    assert!(text.contains("free"), "{text}");
    let cache = farm.path("board/home/.cache/edgepipe");
    let names = fs::read_dir(cache).unwrap().flatten().map(|entry| entry.file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("incoming")).collect();
    assert!(left.is_empty(), "parts of uploads are left: {left:?}");
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_link_that_is_cut_in_any_phase_costs_the_trial_at_work_and_no_more() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    repeated(|| {
        let farm = Farm::new();
        let cable = farm.cable("");
        // While the runner is brought there for the first time: nothing has begun, so the command ends.
        cable.cut_after(Way::ToBoard, 1_000_000, Cut::Closed);
        let (said, _) = farm.run(&["boards", "loopback"], 3);
        assert!(said.contains("lost the connection to 127.0.0.1"), "{said}");
        is_left_free(&farm);
        // While stage libraries and weights are brought.
        cable.cut_after(Way::ToBoard, 40_000, Cut::Closed);
        // Every phase that is cut lasts much longer than this test takes to cut it, except on a machine in use.
        let settings = [
            "measure={min_seconds: 1.5, min_frames: 10, max_seconds: 4}",
            "warm_up.max_seconds=0.1",
            "profile.min_seconds=0.5",
        ];
        let arguments =
            ["--trials", "4"].into_iter().chain(settings.iter().flat_map(|setting| ["--set", setting]));
        let mut bench = Bench::start(&farm, &arguments.collect::<Vec<_>>());
        bench.until("retrying");
        assert!(!cable.is_armed());
        if let Err(late) = cut_in_each_phase(&mut bench, &cable) {
            bench.kill();
            return Err(late);
        }
        let (code, said) = bench.end();
        assert_eq!(code, Some(4), "trials failed, and the exit code says so: {said}");
        let (measured, failed) = trials(&said);
        assert_eq!((measured, failed), (13, 3), "{said}");
        assert_eq!(stored(&farm), (13, 3), "{said}");
        is_left_free(&farm);
        Ok(())
    });
}

/// Three cuts cost a trial, and three do not. The error is what came too late.
fn cut_in_each_phase(bench: &mut Bench, cable: &Cable) -> Result<(), String> {
    for phase in ["profile tiny on cpu1: asked", "compare the outputs of tiny on cpu1: asked"] {
        bench.disturbed(&[phase], || cable.cut(Cut::Closed), "retrying")?;
    }
    // In the warm-up of a trial, in its window, and while the result is on its way. Only trials time their stages alone.
    let warm_up = [": Isolate", ": WarmUp"];
    bench.disturbed(&warm_up, || cable.cut(Cut::Closed), ": failed")?;
    // The runner does not tell when the window opens: at most 0.1 s later.
    let in_the_window = || {
        std::thread::sleep(Duration::from_millis(200));
        cable.cut(Cut::Closed);
    };
    bench.disturbed(&warm_up, in_the_window, ": failed")?;
    bench.disturbed(&warm_up, || cable.cut_after(Way::ToHarness, 5_000, Cut::Closed), ": failed")?;
    assert!(!cable.is_armed());
    // In the profile of the next round, which costs no trial.
    bench.disturbed(&["profile tiny on cpu1: asked"], || cable.cut(Cut::Closed), "retrying")
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_link_that_does_not_come_back_ends_the_run_which_goes_on_later() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let cable = farm.cable(", reconnect_seconds: 1");
    for (phase, more) in [("profile tiny on cpu0: asked", &[][..]), (": WarmUp", &["--resume"][..])] {
        let mut bench = Bench::start(&farm, &[&["--trials", "3"], more].concat());
        bench.until(phase);
        cable.set_out(true);
        let (code, said) = bench.end();
        assert_eq!(code, Some(3), "{phase}: {said}");
        assert!(said.contains("failed to reconnect to the board loopback within 1 s"), "{phase}: {said}");
        assert!(said.contains("--resume"), "{phase}: {said}");
        farm.wait_for_none(&["runner"]);
        cable.set_out(false);
    }
    let (code, said) = Bench::start(&farm, &["--resume"]).end();
    assert!(matches!(code, Some(0 | 4)), "{code:?}: {said}");
    assert_eq!(stored(&farm).0, 12, "{said}");
    is_left_free(&farm);
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_board_that_loses_power_in_a_trial_is_gone_on_with_once_it_is_back() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    repeated(|| {
        let mut farm = Farm::new();
        // A trial lasts much longer than this test takes to switch off the board, except on a machine in use.
        let long = ["--set", "measure={min_seconds: 1.5, min_frames: 10, max_seconds: 4}"];
        let mut bench = Bench::start(&farm, &long);
        bench.until("frames/s");
        let cache = farm.path("board/home/.cache/edgepipe");
        let checked = || {
            let names = fs::read_dir(&cache).unwrap().flatten();
            let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
            names.find(|name| name.starts_with("checked-")).expect("a list of what was checked")
        };
        let before = checked();
        let keys = farm.path("authorized_keys");
        let lose_power = || {
            farm.power_off();
            // What was being written when the power went.
            let damaged =
                walk(&cache).into_iter().find(|path| path.ends_with("lib/libtvm_runtime.so")).unwrap();
            let length = usize::try_from(fs::metadata(&damaged).unwrap().len()).unwrap();
            fs::write(&damaged, vec![0; length]).unwrap();
            // One that has just started lets nobody in for a while.
            fs::rename(&keys, farm.path("later")).unwrap();
            farm.start();
        };
        if let Err(late) = bench.disturbed(&[": Isolate", ": WarmUp"], lose_power, ": failed") {
            bench.kill();
            return Err(late);
        }
        let reconnects = "trying to reconnect for 60 s";
        if !bench.said.iter().any(|line| line.contains(reconnects)) {
            bench.until(reconnects);
        }
        std::thread::sleep(Duration::from_secs(1));
        fs::rename(farm.path("later"), keys).unwrap();
        let (code, said) = bench.end();
        assert_eq!(code, Some(4), "{said}");
        assert_eq!(trials(&said), (7, 1), "the trial at work is lost, and no other: {said}");
        assert_ne!(checked(), before, "what lies there is checked again after a start");
        assert_eq!(stored(&farm), (7, 1));
        is_left_free(&farm);
        Ok(())
    });
}

/// A search over operating points continues after a reset of the board, by itself or with `--resume`.
#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_search_continues_after_a_reset() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let mut farm = Farm::new();
    let cpus = clocks(&farm.path("board"));
    let own = || (0..2).all(|cpu| clock_share(&cpus, cpu) > 0.99);
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let arguments = [
        &["optimize", "--board", "loopback", "--network", "tiny", "--budget", "10s", "--trials", "2"][..],
        &[
            "--objective",
            "throughput",
            "--set",
            "measure={ min_seconds: 0.8, min_frames: 10, max_seconds: 4 }",
        ],
        &["--set", "warm_up={ min_frames: 3, min_seconds: 0.05, max_seconds: 0.5 }"],
        &["--set", "profile={ min_frames: 10, min_seconds: 0.05, max_seconds: 1 }"],
    ]
    .concat();
    let mut measured = 0;
    for (connect, returns) in [("", true), (", reconnect_seconds: 1", false)] {
        let text = format!(
            "board: loopback\nconnect: {{ ssh: {{ host: 127.0.0.1, user: tester, port: {}{connect} }} }}\n\
             target: {{ triple: {triple} }}\nprocessors: {{ fast: {{ cpus: [0] }}, slow: {{ cpus: [1] }} }}\n\
             state: {{ root: {} }}\noperating_points: {{ frequencies_mhz: {{ fast: all, slow: [500, 2000] }} }}\n",
            farm.port,
            farm.path("board/clocks/sys").display()
        );
        fs::write(farm.path("workspace/configs/boards/loopback.yaml"), text).unwrap();
        let mut search = Bench::of(&farm, &arguments);
        search.until("frames/s");
        while own() {
            search.until("frames/s");
        }
        farm.power_off();
        // A board that starts has its own clocks.
        let mut starts = || {
            clocks(&farm.path("board"));
            farm.start();
        };
        let mut said = Vec::new();
        let (code, rest) = if returns {
            search.until("trying to reconnect for 60 s");
            starts();
            search.end()
        } else {
            let (code, first) = search.end();
            assert_eq!(code, Some(3), "{first}");
            assert!(first.contains("failed to reconnect to the board loopback within 1 s"), "{first}");
            assert!(first.contains("optimize --resume"), "{first}");
            said.push(first);
            starts();
            Bench::of(&farm, &["optimize", "--board", "loopback", "--resume", "--budget", "10s"]).end()
        };
        assert!(matches!(code, Some(0 | 4)), "{code:?}: {rest}");
        assert!(returns || !rest.contains("per frame"), "profiles are known: {rest}");
        assert!(own(), "the clocks were not restored: {rest}");
        said.push(rest);
        let told: Vec<(usize, usize)> = said.iter().map(|said| trials(said)).collect();
        measured += told.iter().map(|told| told.0 as u64).sum::<u64>();
        assert!(told.iter().all(|told| told.1 <= 1), "the trial at work is lost, and no other: {said:?}");
        assert_eq!(stored(&farm).0, measured, "all that was measured is kept: {said:?}");
        let database = rusqlite::Connection::open(farm.path("results.db")).unwrap();
        let twice = "SELECT count(*) FROM (SELECT 1 FROM trials WHERE status = 'measured'
                     GROUP BY schedule, round HAVING count(*) > 1)";
        let twice: i64 = database.query_row(twice, [], |row| row.get(0)).unwrap();
        assert_eq!(twice, 0, "no trial is measured twice");
        let status = "SELECT status FROM runs ORDER BY number DESC LIMIT 1";
        let status: String = database.query_row(status, [], |row| row.get(0)).unwrap();
        assert_eq!(status, "complete");
        is_left_free(&farm);
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            found.extend(walk(&entry.path()));
        }
    }
    found
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_disk_that_fills_up_ends_the_run_which_goes_on_once_there_is_room() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let mut farm = Farm::unstarted();
    // Room for the runner and its libraries, and no more.
    let runner = PathBuf::from(variable("EDGEPIPE_RUNNER"));
    let libraries = fs::read_dir(runner.with_file_name("lib")).unwrap().flatten().map(|entry| entry.path());
    let pages = |path: PathBuf| fs::metadata(path).unwrap().len().div_ceil(4096);
    let kib = 4 * libraries.chain([runner]).map(pages).sum::<u64>() + 40;
    let home = farm.path("board/home");
    farm.prelude = format!("mount -t tmpfs -o size={kib}k tmpfs {} &&", home.display());
    farm.start();
    farm.know();
    let (code, said) = Bench::start(&farm, &[]).end();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("No space left on device; free disk space on the board"), "{said}");
    assert!(said.contains("--resume"), "{said}");
    farm.wait_for_none(&["runner"]);
    let sshd = farm.sshd.as_ref().unwrap().id().to_string();
    let grown = Command::new("nsenter")
        .args(["--mount", "--target", &sshd, "mount", "-o", "remount,size=100m"])
        .arg(&home)
        .output()
        .unwrap();
    assert!(grown.status.success(), "{}", String::from_utf8_lossy(&grown.stderr));
    let (code, said) = Bench::start(&farm, &["--resume"]).end();
    assert_valid(code, &said);
    assert_eq!(stored(&farm), (8, 0), "{said}");
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_board_whose_clock_is_wrong_by_decades_measures_all_the_same() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let mut farm = Farm::unstarted();
    let library = farm.tools.library("faketime/libfaketimeMT.so.1");
    let library = library.expect("libfaketime is missing: install it, or run `cargo xtask test`");
    farm.environment =
        format!("LD_PRELOAD={} FAKETIME=-40y DONT_FAKE_MONOTONIC=1 FAKE_UTIME=1", library.display());
    farm.start();
    farm.know();
    let home = farm.path("board/home");
    fs::write(home.join(".bashrc"), "date >$HOME/date\n").unwrap();
    let (code, said) = Bench::start(&farm, &[]).end();
    assert_valid(code, &said);
    let date = fs::read_to_string(home.join("date")).unwrap();
    assert!(date.contains("198"), "the board's clock is wrong: {date}");
    assert_eq!(stored(&farm), (8, 0), "{said}");
    is_left_free(&farm);
}

/// A memory limit in a control group, where this machine lets us have one.
struct Limit {
    folder: PathBuf,
}

impl Limit {
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("edgepipe-test-{}", std::process::id());
        let old = (Path::new("/sys/fs/cgroup/memory"), "memory.limit_in_bytes");
        for (root, file) in [old, (Path::new("/sys/fs/cgroup"), "memory.max")] {
            let folder = root.join(&name);
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            let limit = Self { folder };
            if fs::write(limit.folder.join(file), bytes.to_string()).is_ok() {
                // Swapping would only delay it.
                let _ = fs::write(limit.folder.join("memory.swap.max"), "0");
                return Some(limit);
            }
        }
        None
    }

    /// A shell command that puts its shell under the limit.
    fn enter(&self) -> String {
        format!("echo $$ >{}/cgroup.procs", self.folder.display())
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // Where a process is still in it, the machine's next start removes it.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Something of the status of a process, in KiB; `None` if it has ended.
fn kib(pid: i32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_runner_that_runs_out_of_memory_is_named_as_such() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    // What it needs for one frame, on this machine.
    let single = ["--set", "schedules=[{single: each}]", "--set"];
    let (mut data, mut resident) = (0, 0);
    repeated(|| {
        let mut bench = Bench::start(&farm, &[&single[..], &["frames.distinct=1"]].concat());
        bench.until("compare the outputs of tiny on cpu1: asked");
        let holders = farm.programs(&["runner", "hold "]);
        let runner = farm.programs(&["runner", "--lease"]).into_iter().find(|pid| !holders.contains(pid));
        let found = runner.and_then(|runner| Some((kib(runner, "VmData:")?, kib(runner, "VmHWM:")?)));
        // Trials take more, so their begin comes too late.
        let begun = bench.said_since().contains(": Isolate");
        let (_, said) = bench.end();
        match found {
            Some(found) if !begun => {
                (data, resident) = found;
                Ok(())
            }
            _ => Err(said),
        }
    });
    // The first is refused by the system, the second by the runner, which knows its group's limit. 4096 frames take 48 MiB.
    let more = 24 << 10;
    let limit = Limit::new((resident + more) << 10);
    let mut table = vec![(format!("ulimit -d {}", data + more), "out of memory")];
    match &limit {
        Some(limit) => {
            table.push((limit.enter(), "raise the limit or run outside of the cgroup"));
        }
        None => eprintln!("left out: no control group with a memory limit can be made here"),
    }
    for (command, expected) in table {
        fs::write(farm.path("board/home/.bashrc"), format!("{command}\n")).unwrap();
        let (code, said) = Bench::start(&farm, &[&single[..], &["frames.distinct=4096"]].concat()).end();
        assert_eq!(code, Some(4), "{said}");
        assert!(said.contains(expected) && said.contains("frames.distinct"), "{expected}: {said}");
        fs::write(farm.path("board/home/.bashrc"), "").unwrap();
        is_left_free(&farm);
    }
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn sshd_that_falls_silent_anywhere_on_the_way_is_not_waited_for() {
    if farm::skipped() {
        return;
    }
    let mut farm = Farm::unstarted();
    let home = farm.path("board/hangs");
    farm.users.push(User { name: "hangs".to_owned(), home: home.clone(), shell: "/bin/bash".into() });
    fs::create_dir_all(&home).unwrap();
    fs::write(home.join(".bashrc"), "sleep 60\n").unwrap();
    farm.start();
    farm.know();
    farm.board("hangs", "host: 127.0.0.1, user: hangs");
    let cable = farm.cable("");
    farm.run(&["boards", "loopback"], 0);
    let whole = cable.carried(Way::ToHarness);
    let config = farm.path("home/.ssh/config");
    fs::write(&config, "Host *\n  ConnectTimeout 2\n").unwrap();
    // Before a word, in the banner, in the exchange of keys, before the login is through.
    for (bytes, expected) in
        [(0, "gave no answer within 2 s"), (10, "within 2 s"), (200, "within 2 s"), (1400, "within 2 s")]
    {
        assert!(bytes < whole);
        repeated(|| {
            cable.cut_after(Way::ToHarness, bytes, Cut::Silent);
            let (said, _) = farm.run(&["boards", "loopback"], 3);
            assert!(said.contains(expected), "{bytes}: {said}");
            // On a machine in use, sshd itself may take as long.
            if cable.is_armed() { Err(format!("no {bytes} bytes: {said}")) } else { Ok(()) }
        });
    }
    // After the login: the user's shell hangs.
    fs::remove_file(config).unwrap();
    let begun = Instant::now();
    let (said, _) = farm.run(&["boards", "hangs"], 3);
    assert!(said.contains("its login shell did not start the script within 20 s"), "{said}");
    println!("given up after {:.0} s", begun.elapsed().as_secs_f64());
}
