//! Figures of the way to a board over SSH, printed and not judged:
//! `EDGEPIPE_FIGURES=1 cargo test -p cli --test ssh_figures -- --ignored --nocapture --test-threads 1`, in the
//! environment that `cargo xtask test` gives to tests.
//! Without `EDGEPIPE_FIGURES` it goes the same way with little data, so that it keeps working.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod farm;

use farm::bench::{Bench, trials};
use farm::outcome::assert_valid;
use farm::{Farm, variable};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn is_full() -> bool {
    std::env::var_os("EDGEPIPE_FIGURES").is_some()
}

/// A board, and the harness as it is measured with: that of `cargo xtask bench`.
fn farm() -> Farm {
    let mut farm = Farm::new();
    farm.program = variable("EDGEPIPE_HARNESS").into();
    farm
}

/// The runner with its libraries and one more file of so many random bytes.
fn bundle(folder: &Path, bytes: usize) -> PathBuf {
    let real = PathBuf::from(variable("EDGEPIPE_RUNNER"));
    fs::create_dir_all(folder.join("lib")).unwrap();
    fs::copy(&real, folder.join("runner")).unwrap();
    for library in fs::read_dir(real.with_file_name("lib")).unwrap().flatten() {
        fs::copy(library.path(), folder.join("lib").join(library.file_name())).unwrap();
    }
    let mut random = vec![0; bytes];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom").unwrap(), &mut random).unwrap();
    fs::write(folder.join("lib/filler.so"), random).unwrap();
    folder.join("runner")
}

/// Seconds that a line of the log gives after these words.
fn seconds(log: &str, words: &str) -> f64 {
    let after = log.split_once(words).unwrap_or_else(|| panic!("{words:?} is not in {log}")).1;
    after.split_whitespace().next().unwrap().parse().unwrap()
}

/// Login and deployment, in s.
fn deploy(farm: &Farm) -> (f64, f64) {
    let (_, log) = farm.finish(farm.harness(&["boards", "loopback"]).env("EDGEPIPE_LOG", "info"), 0);
    (seconds(&log, "logged in in "), seconds(&log, " bytes in "))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "prints figures; needs the runner and OpenSSH"]
fn uploads_and_redeployments_beside_scp() {
    if farm::skipped() {
        return;
    }
    let mut farm = farm();
    let (bytes, pairs) = if is_full() { (100_000_000, 9) } else { (3_000_000, 1) };
    let local = farm.path("bundle");
    farm.runner = bundle(&local, bytes);
    let config = farm.path("home/.ssh/config");
    let text = format!(
        "Host scp-board\n  HostName 127.0.0.1\n  Port {}\n  User tester\n  IdentityFile {}\n  UserKnownHostsFile {}\n",
        farm.port,
        farm.path("home/.ssh/id_ed25519").display(),
        farm.path("home/.ssh/known_hosts").display()
    );
    fs::write(&config, text).unwrap();
    let timed = |command: &mut Command| {
        let begun = Instant::now();
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        begun.elapsed().as_secs_f64()
    };
    let cache = farm.path("board/home/.cache");
    let copy = farm.path("board/home/copy");
    let size: u64 = ["runner", "lib/libtvm_ffi.so", "lib/libtvm_runtime.so", "lib/filler.so"]
        .iter()
        .map(|name| fs::metadata(local.join(name)).unwrap().len())
        .sum();
    let megabytes = size as f64 / 1e6;
    let (mut ours, mut theirs, mut again, mut logins) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..pairs {
        let _ = fs::remove_dir_all(&cache);
        let _ = fs::remove_dir_all(&copy);
        ours.push(deploy(&farm).1);
        let (login, redeploy) = deploy(&farm);
        logins.push(login);
        again.push(redeploy);
        let login = timed(Command::new("ssh").arg("-F").arg(&config).args(["scp-board", "true"]));
        let whole = timed(Command::new("scp").arg("-rqF").arg(&config).arg(&local).arg("scp-board:copy"));
        theirs.push(whole - login);
    }
    let rate = |seconds: &[f64]| megabytes / median(seconds.to_vec());
    let ratio = median(ours.iter().zip(&theirs).map(|(ours, theirs)| theirs / ours).collect());
    println!("{pairs} pairs of {megabytes:.1} MB over loopback, medians:");
    println!(
        "  deployment, hashed on both sides: {:.0} MB/s; scp: {:.0} MB/s; ratio {ratio:.2}",
        rate(&ours),
        rate(&theirs)
    );
    println!("  nothing changed: {:.3} s after a login of {:.3} s", median(again), median(logins));
}

/// CPU time of a process and its threads, in s.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

#[test]
#[ignore = "prints figures; needs the private toolchain and OpenSSH"]
fn what_harness_and_runner_take_beside_the_stages() {
    if farm::skipped() {
        return;
    }
    let farm = farm();
    let seconds = if is_full() { "measure.min_seconds=10" } else { "measure.min_seconds=0.3" };
    let arguments =
        ["--set", seconds, "--set", "measure.max_seconds=60", "--network", "mobilenet_v1_025_128"];
    let arguments = if is_full() { &arguments[..] } else { &arguments[..4] };
    let mut bench = Bench::start(&farm, &[&["--trials", "2"], arguments].concat());
    bench.until(": WarmUp");
    let (begun, before) = (Instant::now(), cpu_seconds(bench.child.id()));
    let (mut wall, mut cpu) = (Duration::ZERO, before);
    for _ in 0..8 {
        bench.until("frames/s");
        (wall, cpu) = (begun.elapsed(), cpu_seconds(bench.child.id()));
    }
    let (code, said) = bench.end();
    assert_valid(code, &said);
    assert_eq!(trials(&said).0, 8, "{said}");
    let harness = 100.0 * (cpu - before) / wall.as_secs_f64();
    let mut shares = Vec::new();
    for run in fs::read_dir(farm.path("results.runs")).unwrap().flatten() {
        let journal = fs::read_dir(run.path()).unwrap().flatten().next().unwrap();
        for line in fs::read_to_string(journal.path()).unwrap().lines() {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            shares.extend(overheads(&record));
        }
    }
    assert_eq!(shares.len(), 8);
    println!("8 trials over SSH in {:.0} s, in shares of one core:", wall.as_secs_f64());
    println!("  harness, over the whole phase: {harness:.2} %");
    println!(
        "  runner outside its stages, in the windows: median {:.2} %, most {:.2} %",
        median(shares.clone()),
        shares.iter().fold(0.0, |a: f64, b| a.max(*b))
    );
}

/// Shares of overhead anywhere in a record, in percent.
fn overheads(record: &serde_json::Value) -> Vec<f64> {
    let mut found = Vec::new();
    match record {
        serde_json::Value::Object(fields) => {
            if let (Some(overhead), Some(wall)) = (fields.get("overhead_ns"), fields.get("wall_ns")) {
                found.push(100.0 * overhead.as_f64().unwrap() / wall.as_f64().unwrap());
            }
            found.extend(fields.values().flat_map(overheads));
        }
        serde_json::Value::Array(items) => found.extend(items.iter().flat_map(overheads)),
        _ => {}
    }
    found
}
