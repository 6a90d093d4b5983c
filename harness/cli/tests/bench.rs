//! The whole: the real harness, compiler, runner and TVM on this machine. Needs the private toolchain, so `cargo xtask
//! test` runs it and plain `cargo test` does not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rig;
mod words;

use rig::Rig;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use words::says;

/// Waits until a bench has measured something, by what it prints.
fn wait_for_a_trial(stderr: impl std::io::Read) {
    use std::io::BufRead as _;
    let deadline = Instant::now() + Duration::from_secs(600);
    for line in std::io::BufReader::new(stderr).lines().map_while(Result::ok) {
        if line.contains("frames/s") {
            return;
        }
        assert!(Instant::now() < deadline, "no trial within ten minutes");
    }
    panic!("the bench ended before its first trial");
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn a_bench_measures_every_schedule_and_a_second_one_compiles_nothing() {
    let rig = Rig::new();
    let (table, _) = rig.bench();
    assert!(table.contains("tiny"), "{table}");
    let rows = rig.rows();
    let kinds: Vec<&str> = rows.iter().map(|row| row["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "single").count(), 2, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "replicate").count(), 1, "{kinds:?}");
    for row in &rows {
        assert_eq!(row["network"], "tiny");
        assert_eq!(row["board"], "local");
        let count = |key: &str| row[key].as_u64().unwrap();
        // Figures are of the valid trials, or of all trials if none is valid.
        let figures_of = if count("trials_void") == 2 { 2 } else { 2 - count("trials_void") };
        assert_eq!((count("trials"), count("trials_failed")), (figures_of, 0), "{row}");
        assert!(row["predicted_fps"].as_f64().unwrap() > 0.0);
        assert!(row["energy_mj_per_frame"].is_null());
        assert!(!row["energy_absent_reason"].as_str().unwrap().is_empty());
        if count("trials_void") > 0 {
            assert!(!row["reasons"].as_array().unwrap().is_empty(), "void trials have a reason: {row}");
        }
    }
    for row in rows.iter().filter(|row| row["verdict"] == "valid") {
        assert!(row["trials"].as_u64().unwrap() >= 1, "{row}");
        assert!(row["throughput_fps"]["point"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["latency_ms"]["p50"].as_f64().unwrap() <= row["latency_ms"]["p99"].as_f64().unwrap());
    }
    // Gains are ratios within rounds, so they need rounds without void trials.
    if rows.iter().all(|row| row["trials_void"] == 0) {
        for row in &rows {
            let over = row["gain_over"].as_object().unwrap();
            assert_eq!(over.len(), 2, "a gain over each of the two processors: {row}");
        }
        let singles = rows.iter().filter(|row| row["kind"] == "single");
        let gains: Vec<f64> = singles.map(|row| row["gain_over_best_single"].as_f64().unwrap()).collect();
        assert!(
            gains.iter().any(|gain| (gain - 1.0).abs() < 1e-9),
            "the best single processor gains nothing over itself: {gains:?}"
        );
    }

    // Every trial has a prediction from a profile of its round; all trials of a round have those of one profile.
    let store = store::Store::open(&rig.database(), store::Access::ReadOnly).unwrap();
    let run = store.run(store.runs(&store::RunFilter::default()).unwrap()[0].as_str()).unwrap();
    let trials = store.trials(&run).unwrap();
    assert_eq!(trials.len(), 2 * rows.len());
    for trial in &trials {
        let prediction = trial.prediction.as_ref().unwrap();
        assert!(prediction.is_finite() && prediction.throughput.0 > 0.0, "{prediction:?}");
    }
    let of_round = |schedule: u32, round: u32| {
        let trial = trials.iter().find(|trial| (trial.schedule, trial.round) == (schedule, round));
        trial.unwrap().prediction.as_ref().unwrap().throughput.0
    };
    assert!((of_round(0, 0) - of_round(0, 1)).abs() > 0.0, "each round has a profile of its own");

    let (_, log) = rig.bench();
    assert!(log.contains("measure") && !log.contains("compile"), "nothing is compiled twice: {log}");
    let (list, _) = rig.run(&["report", "--list"], 0);
    assert!(list.lines().filter(|line| line.contains("complete")).count() >= 2, "{list}");
}

/// Times of CPUs since boot, as /proc/stat has them, with more of them in one column: 0 for programs, 7 for the hypervisor.
fn with_more(stat: &str, column: usize, ticks: u128) -> String {
    let line = |line: &str| {
        let (name, times) = line.split_once(' ')?;
        name.strip_prefix("cpu")?.parse::<u32>().ok()?;
        let mut times: Vec<u128> = times.split_whitespace().filter_map(|time| time.parse().ok()).collect();
        times[column] += ticks;
        let times: Vec<String> = times.iter().map(u128::to_string).collect();
        Some(format!("{name} {}", times.join(" ")))
    };
    stat.lines().map(|text| line(text).unwrap_or_else(|| text.to_owned()) + "\n").collect()
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn cpus_that_others_use_void_every_row_and_the_reason_is_shown() {
    let rig = Rig::new();
    let stat = fs::read_to_string(rig.path("stat")).unwrap();
    for (column, code, text) in
        [(0, "other_load", "other processes used"), (7, "steal", "the hypervisor took")]
    {
        let ended = AtomicBool::new(false);
        let (table, log) = std::thread::scope(|scope| {
            scope.spawn(|| {
                let begun = Instant::now();
                while !ended.load(Ordering::Acquire) {
                    // Twice as much as there is, whatever the kernel says: 100 ticks are a second of each CPU.
                    let next = rig.path("next");
                    fs::write(&next, with_more(&stat, column, begun.elapsed().as_millis() / 5)).unwrap();
                    fs::rename(&next, rig.path("stat")).unwrap();
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            let window = "measure={ min_seconds: 1, min_frames: 10, max_seconds: 60 }";
            let output =
                rig.command(&["bench", "--experiment", "tiny", "--trials", "1", "--set", window]).output();
            ended.store(true, Ordering::Release);
            let Output { status, stdout, stderr } = output.unwrap();
            let (table, log) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
            assert_eq!(status.code(), Some(4), "{table}\n{log}");
            (table, log)
        });
        let rows = rig.rows();
        assert_eq!(rows.len(), 4, "{table}");
        for row in rows {
            let has_reason = row["reasons"].as_array().unwrap().iter().any(|reason| reason["code"] == code);
            assert!(row["verdict"] == "void" && has_reason, "{row}");
            assert!(row["gain_over_best_single"].is_null(), "nothing is computed from a void row: {row}");
        }
        assert!(says(&table, text) && table.contains("void"), "{table}");
        assert!(log.contains("profiles were disturbed in every attempt"), "{log}");
    }
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn claims_are_tested_in_a_measured_run_and_again_from_the_database() {
    let rig = Rig::new();
    let verified = |arguments: &[&str]| {
        let output =
            rig.command(&[&["verify-claims", "--format", "json"], arguments].concat()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let claims: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        (output.status.code().unwrap(), claims)
    };
    let (code, claims) = verified(&["--experiment", "tiny", "--trials", "3"]);
    // Other load may decide the claims, or void all trials of a schedule; the exit code tells which.
    let of =
        |name: &str| claims["claims"].as_array().unwrap().iter().find(|one| one["claim"] == name).unwrap();
    let network = &of("faster")["networks"][0];
    assert_eq!(network["network"], "tiny");
    let expected = if ["faster", "gain"].iter().any(|name| of(name)["verdict"] == "does_not_hold") {
        1
    } else if network["not_measured"] == true {
        4
    } else {
        // With each single processor, as far as other load leaves it a valid trial.
        let compared = network["comparisons"].as_array().unwrap().len();
        assert!((1..=2).contains(&compared), "{network}");
        0
    };
    assert_eq!((code, claims["trials_failed"].as_u64()), (expected, Some(0)), "{claims}");
    let energy = &of("energy")["networks"][0];
    assert_eq!(energy["verdict"], "inconclusive");
    if network["not_measured"] == false {
        assert_eq!(energy["reason"], "the board has no power meter configured");
    }

    assert_eq!(verified(&["--run", "latest"]), (code, claims.clone()));
    let run = claims["runs"][0]["id"].as_str().unwrap();
    assert_eq!(verified(&["--run", run, "--run", "latest"]), (code, claims.clone()), "each run once");
    let (_, log) = rig.run(&["verify-claims", "--run", "latest", "--board", "local"], 2);
    assert!(log.contains("cannot be used with"), "{log}");
    let (_, log) = rig.run(&["verify-claims", "--run", "20200101-000000-00000000"], 2);
    assert!(log.contains("20200101-000000-00000000"), "{log}");
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn an_interrupted_and_a_killed_bench_go_on_where_they_were() {
    let rig = Rig::new();
    let arguments = ["bench", "--experiment", "tiny", "--trials", "6"];
    for (signal, code) in [(rustix::process::Signal::INT, Some(4)), (rustix::process::Signal::KILL, None)] {
        let mut bench = rig.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = bench.stderr.take().unwrap();
        wait_for_a_trial(&mut stderr);
        let pid = rustix::process::Pid::from_child(&bench);
        rustix::process::kill_process(pid, signal).unwrap();
        // Its last words must find a reader.
        std::io::copy(&mut stderr, &mut std::io::sink()).unwrap();
        assert_eq!(bench.wait().unwrap().code(), code);

        let resumed = rig.command(&["bench", "--experiment", "tiny", "--resume"]).output().unwrap();
        let log = String::from_utf8(resumed.stderr).unwrap();
        let measured = log.lines().filter(|line| line.contains("frames/s")).count();
        assert!((1..24).contains(&measured), "some of the 24 trials were measured before: {log}");
        // Trials that other load disturbed are there all the same.
        let all = |row: &Value| row["trials"].as_u64().unwrap() + row["trials_void"].as_u64().unwrap();
        assert!(rig.rows().iter().all(|row| all(row) >= 6), "{:?}", rig.rows());
    }
    let (_, log) = rig.run(&["bench", "--experiment", "tiny", "--resume"], 2);
    assert!(log.contains("failed to find an unfinished run"), "{log}");
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn two_benches_do_not_measure_at_once() {
    let rig = Rig::new();
    // It goes on until it is interrupted.
    let arguments = ["bench", "--experiment", "tiny", "--trials", "1000"];
    let mut first = rig.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = first.stderr.take().unwrap();
    wait_for_a_trial(&mut stderr);
    let (_, log) = rig.run(&["bench", "--experiment", "tiny"], 3);
    assert!(log.contains("in use by process"), "{log}");
    rustix::process::kill_process(rustix::process::Pid::from_child(&first), rustix::process::Signal::INT)
        .unwrap();
    std::io::copy(&mut stderr, &mut std::io::sink()).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(4));
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn a_network_that_differs_from_its_reference_is_not_measured() {
    let mut rig = Rig::new();
    rig.state = rig.path("state");
    rig.run(&["plan", "--experiment", "tiny"], 0);
    let entries = fs::read_dir(rig.state.join("cache")).unwrap().flatten().map(|entry| entry.path());
    let files: Vec<PathBuf> = entries.map(|entry| entry.join("reference/output0.bin")).collect();
    let kept: Vec<(PathBuf, Vec<u8>)> =
        files.into_iter().filter_map(|file| fs::read(&file).ok().map(|bytes| (file, bytes))).collect();
    for (file, bytes) in &kept {
        // Half of every number: the sign and exponent of little-endian floats.
        let wrong: Vec<u8> =
            bytes.chunks(4).flat_map(|number| [number[0], number[1], number[3], number[2]]).collect();
        fs::write(file, wrong).unwrap();
    }
    let logs: Vec<String> =
        ["plan", "bench", "layers"].map(|verb| rig.run(&[verb, "--experiment", "tiny"], 4).1).into();
    for (file, bytes) in &kept {
        fs::write(file, bytes).unwrap();
    }
    for log in logs {
        assert!(log.contains("error: failed to verify tiny on cpu0"), "{log}");
        assert!(log.contains("ONNX Runtime") && log.contains("Nothing was measured"), "{log}");
    }
    rig.run(&["plan", "--experiment", "tiny"], 0);
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn bad_runners_end_in_a_clear_error() {
    let hello = r#"printf '{"hello":{"protocol":VERSION,"runner":"0","pid":1}}\n'"#;
    let hello = hello.replace("VERSION", &protocol::VERSION.to_string());
    let table = [
        ("exit 7".to_owned(), 4, "ended with exit code 7"),
        ("echo 'Segmentation fault'; sleep 60".to_owned(), 4, "printed \"Segmentation fault\""),
        (format!("{hello}; echo last words >&2; kill -9 $$"), 4, "was killed (signal 9"),
        (format!("{hello}; read line; echo '{{\"state\":'"), 4, "printed"),
        (
            r#"printf '{"hello":{"protocol":999,"runner":"9","pid":1}}\n'; sleep 60"#.to_owned(),
            3,
            "has protocol version 999",
        ),
    ];
    for (script, code, expected) in table {
        let rig = Rig::with_runner(&script);
        let (_, log) = rig.run(&["bench", "--experiment", "tiny"], code);
        assert!(log.contains(expected), "{script}: {log}");
        assert!(log.starts_with("error: failed to"), "{log}");
    }
    let mut rig = Rig::new();
    rig.runner = rig.path("missing");
    let (_, log) = rig.run(&["bench", "--experiment", "tiny"], 3);
    assert!(log.contains("failed to start the runner"), "{log}");
}

#[test]
#[ignore = "needs the private toolchain; run by cargo xtask test"]
fn bad_input_is_named_before_anything_is_measured() {
    let rig = Rig::new();
    let table: [(&[&str], i32, &str); 6] = [
        (&["bench", "--experiment", "quik"], 2, "quick"),
        (&["bench", "--experiment", "tiny", "--network", "resnet81"], 2, "resnet"),
        (&["bench", "--board", "locla"], 2, "local"),
        (&["bench", "--experiment", "tiny", "--trials", "0"], 2, "trials"),
        (&["bench", "--board", "tx2-lab"], 3, "tx2-lab"),
        (&["report", "--run", "20200101"], 2, "20200101"),
    ];
    for (arguments, code, expected) in table {
        if arguments[0] == "report" {
            // There is a run, but not the one that is asked for.
            rig.bench();
        }
        let (_, log) = rig.run(arguments, code);
        assert!(log.contains(expected), "{arguments:?}: {log}");
        assert!(log.contains("failed to"), "{arguments:?}: {log}");
    }
    let [named, latest] = [&["--run", "latest"][..], &[]]
        .map(|run| rig.run(&[&["report", "--format", "json"], run].concat(), 0).0);
    assert_eq!(named, latest);
}
