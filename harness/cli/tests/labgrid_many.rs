//! Several boards of a farm: `bench --farm`, and harnesses that are killed at any moment.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod farm;

use farm::Farm;
use farm::bench::{Bench, alone};
use farm::lab::{Lab, Place, clients, records};
use farm::outcome::assert_valid;
use rustix::process::Signal;
use std::fs;
use std::time::{Duration, Instant};

/// Tags of all places, and no limit for the canary: boards of these tests share the CPUs of one machine.
const ANY: &str = "match: { board: tester }, equal_within: 100000%";

/// Boards `p1` to `pN` of a lab, with the tag `board=tester`; the first one is that of the harness.
fn lab(farm: &Farm, others: &[Farm]) -> Lab {
    let ports = std::iter::once(farm).chain(others).map(|board| board.port);
    let places: Vec<Place> = (1..)
        .zip(ports)
        .map(|(number, port)| Place { name: format!("p{number}"), port, power: None })
        .collect();
    let lab = Lab::new(&places);
    lab.board(farm, "lab", ANY, "");
    lab
}

/// The JSON report of the latest campaign.
fn campaign(farm: &Farm, said: &str) -> serde_json::Value {
    let run = said.rsplit_once("--resume ").map(|(_, rest)| rest.split('`').next().unwrap());
    let mut arguments = vec!["report", "--format", "json"];
    arguments.extend(run.into_iter().flat_map(|run| ["--run", run]));
    serde_json::from_str(&farm.run(&arguments, 0).0).unwrap()
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn places_of_a_farm_share_the_rounds_as_they_become_free() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let others = [farm.another("o2"), farm.another("o3")];
    let lab = lab(&farm, &others);
    for place in ["p2", "p3"] {
        lab.must(place, "anna", &["acquire"]);
    }
    // One is free at once, one later, and one never.
    let mut bench = Bench::start_on(&farm, &["--farm", "lab"], &["--trials", "60"]);
    bench.until("frames/s");
    assert!(bench.said.last().unwrap().starts_with("lab.p1 "), "{:?}", bench.said);
    lab.must("p2", "anna", &["release"]);
    loop {
        bench.until("frames/s");
        if bench.said.last().unwrap().starts_with("lab.p2 ") {
            break;
        }
    }
    let (code, said) = bench.end();
    assert_valid(code, &said);
    assert!(said.contains("no longer needed"), "{said}");
    let report = campaign(&farm, &said);
    let boards = report["boards"].as_array().unwrap();
    let rounds: Vec<u64> = boards.iter().map(|board| board["rounds"].as_u64().unwrap()).collect();
    assert!(rounds[0] > 0 && rounds[1] > 0 && rounds[2] == 0, "{rounds:?}: {said}");
    assert_eq!(rounds.iter().sum::<u64>(), 60, "{said}");
    assert!(boards.iter().all(|board| board["trials_failed"] == 0), "{said}");
    assert_eq!((lab.holder("p1"), lab.holder("p2")), (None, None));
    assert_eq!((lab.holder("p3").as_deref(), lab.reservations()), (Some("elsewhere/anna"), 0));
    assert_eq!(records(&farm).len(), 0);

    let wrong = [
        (
            "lab",
            "match: { board: nobody }",
            "failed to find a place with board=nobody on the labgrid coordinator",
        ),
        ("lab", "place: p1", "failed to use --farm lab: its file names the place p1"),
        ("loopback", "", "failed to use --farm loopback: its file has no connect: { labgrid: … }"),
    ];
    for (name, connect, expected) in wrong {
        if !connect.is_empty() {
            lab.board(&farm, name, connect, "");
        }
        let (_, said) = farm.run(&["bench", "--farm", name, "--experiment", "tiny"], 2);
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_place_that_differs_from_the_others_is_set_aside() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let mut other = Farm::unstarted();
    std::fs::copy(farm.path("authorized_keys"), other.path("authorized_keys")).unwrap();
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let cpuinfo: String = cpuinfo
        .lines()
        .map(|line| {
            if line.starts_with("model name") {
                "model name\t: Another CPU\n".into()
            } else {
                line.to_owned() + "\n"
            }
        })
        .collect();
    std::fs::write(other.path("cpuinfo"), cpuinfo).unwrap();
    other.prelude = format!("mount --bind {} /proc/cpuinfo;", other.path("cpuinfo").display());
    other.start();
    farm.know_other("o2", &other);
    let lab = lab(&farm, std::slice::from_ref(&other));
    // As many rounds as there are left when the other one is reached too.
    let (code, said) = Bench::start_on(&farm, &["--farm", "lab"], &["--trials", "16"]).end();
    assert_eq!(code, Some(3), "{said}");
    let report = campaign(&farm, &said);
    let boards = report["boards"].as_array().unwrap();
    // Whichever was there first is the standard.
    let reasons: Vec<&str> = boards.iter().filter_map(|board| board["set_aside"].as_str()).collect();
    assert_eq!(reasons.len(), 1, "{said}");
    assert!(said.contains("it differs from lab.p") && said.contains(" in processor ("), "{said}");
    assert_eq!(boards.iter().map(|board| board["rounds"].as_u64().unwrap()).max(), Some(16), "{said}");
    // Of equal boards, none is as fast as another to the billionth.
    other.prelude.clear();
    other.power_off();
    other.start();
    lab.board(&farm, "lab", "match: { board: tester }, equal_within: 0.0000001%", "");
    let (code, unequal) = Bench::start_on(&farm, &["--farm", "lab"], &["--trials", "16"]).end();
    assert_eq!(code, Some(3), "{unequal}");
    assert!(unequal.contains("failed to share rounds with lab.p"), "{unequal}");
    assert!(unequal.contains(", and `equal_within` allows 0.0 %"), "{unequal}");
    // What the canary measured is not in the table.
    let slow = campaign(&farm, &unequal);
    let rounds: Vec<&serde_json::Value> =
        slow["boards"].as_array().unwrap().iter().map(|board| &board["rounds"]).collect();
    assert!(rounds.contains(&&16.into()) && rounds.contains(&&0.into()), "{unequal}");
    // A place without a run is found again by its name, and is still another board.
    other.prelude = format!("mount --bind {} /proc/cpuinfo;", other.path("cpuinfo").display());
    other.power_off();
    other.start();
    let (_, said) = farm.run(&["bench", "--resume", report["campaign"]["id"].as_str().unwrap()], 3);
    assert!(said.contains("it differs from lab.p"), "{said}");
    for place in ["p1", "p2"] {
        lab.wait_until_free(place);
    }
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_canary_on_each_free_place_is_compared_with_its_history() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let others = [farm.another("o2"), farm.another("o3")];
    let lab = lab(&farm, &others);
    lab.must("p3", "anna", &["acquire"]);
    let canary = ["farm", "--canary", "lab"];
    // Boards of this test share the CPUs of one machine, so trials may be void, and the exit code is then 4.
    let run = |codes: &[i32]| {
        let output = farm.harness(&canary).output().unwrap();
        let [text, said] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(
            output.status.code().is_some_and(|code| codes.contains(&code)),
            "{}\n{text}{said}",
            output.status
        );
        (text, said)
    };
    for _ in 0..2 {
        let (text, said) = run(&[0, 4]);
        assert!(said.contains("p3 is not measured: in use by elsewhere/anna"), "{said}");
        assert_eq!(text.matches(" canary, 20").count(), 2, "{text}");
        assert!(text.lines().any(|line| line.starts_with("p3 ") && line.ends_with("no run yet")), "{text}");
    }
    assert_eq!((lab.holder("p1"), lab.holder("p2")), (None, None));

    // Boards that cannot be reached, and places that are all in use.
    drop(others);
    let (text, said) = run(&[3]);
    assert!(said.contains("lab.p2  set aside"), "{said}");
    assert!(text.lines().any(|line| line.starts_with("p2 ") && line.ends_with("canary failed")), "{text}");
    for place in ["p1", "p2"] {
        lab.must(place, "anna", &["acquire"]);
    }
    let (_, said) = run(&[0]);
    assert!(said.contains("no place is free, so none was measured"), "{said}");
    for place in ["p1", "p2", "p3"] {
        assert_eq!(lab.holder(place).as_deref(), Some("elsewhere/anna"));
    }
    let (_, said) = farm.run(&["farm", "--canary", "loopback"], 2);
    assert!(said.contains("failed to use --canary loopback: its file has no connect"), "{said}");
    assert_eq!((lab.reservations(), records(&farm).len()), (0, 0));
}

/// A job of a pipeline on the board `lab`, in a checkout of its own.
fn job(farm: &Farm, name: &str) -> std::process::Child {
    let checkout = farm.path(name);
    fs::create_dir_all(checkout.join("results/baselines")).unwrap();
    let harness = farm.harness(&[]);
    let words = std::iter::once(harness.get_program()).chain(harness.get_args());
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap().replace('\'', "'\\''"));
    let words: Vec<String> = words.map(quoted).collect();
    farm::program(&checkout.join("edgepipe"), &format!("exec {} \"$@\"", words.join(" ")));
    let mut command = std::process::Command::new(farm.path("workspace/ci/bench.sh"));
    command.args(["lab", "tiny"]).current_dir(&checkout).env("EDGEPIPE", checkout.join("edgepipe"));
    for (name, value) in harness.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let log = fs::File::create(checkout.join("log")).unwrap();
    command.stdin(std::process::Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn jobs_of_a_pipeline_wait_for_a_place_in_the_queue() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let lab = lab(&farm, &[]);
    lab.must("p1", "anna", &["acquire"]);
    let jobs = ["job1", "job2"].map(|name| (name, job(&farm, name)));
    let log = |name: &str| fs::read_to_string(farm.path(name).join("log")).unwrap_or_default();
    lab.wait_for(|_| jobs.iter().all(|(name, _)| log(name).contains("queue  number ")));
    lab.must("p1", "anna", &["release"]);
    for (name, mut job) in jobs {
        let code = job.wait().unwrap().code();
        let log = log(name);
        assert!(matches!(code, Some(0 | 4)), "{code:?}: {log}");
        assert!(log.contains("queue  acquired the place p1 after"), "{log}");
        let written =
            |file: &str| fs::read_to_string(farm.path(name).join("target/bench").join(file)).unwrap();
        let comment = written("comment.md");
        assert!(
            comment.starts_with("### tiny on lab\n\nNo comparison: there is no usable baseline"),
            "{comment}"
        );
        assert!(written("run.xml").contains(&format!("place p1 of {}", lab.address())), "{log}");
    }
    lab.wait_until_free("p1");

    // Nobody gives back the place: the comment says why there is no figure.
    lab.must("p1", "anna", &["acquire"]);
    lab.board(&farm, "lab", "match: { board: tester }, wait_minutes: 0", "");
    assert_eq!(job(&farm, "job3").wait().unwrap().code(), Some(3));
    let comment = fs::read_to_string(farm.path("job3/target/bench/comment.md")).unwrap();
    assert!(comment.contains("ended with exit code 3"), "{comment}");
    assert!(comment.contains("within 0 min: number 1 in the queue (p1 by elsewhere/anna)"), "{comment}");
}

/// A number from the environment, which makes a test larger.
fn count(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What a process has used so far: CPU time and the most memory.
fn usage(pid: u32) -> Option<(Duration, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // State, parent, group, session, terminal, its group, flags, four counts of faults, then the two times.
    let time = |place: usize| fields.get(place)?.parse::<u64>().ok();
    let ticks = time(11)? + time(12)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = most.trim().strip_suffix(" kB")?.parse().ok()?;
    Some((Duration::from_millis(10 * ticks), kib))
}

/// `EDGEPIPE_BOARDS=16 EDGEPIPE_ROUNDS=6 EDGEPIPE_NETWORK=squeezenet1_1 … -- --ignored --nocapture many_places` says what
/// the harness used. Its share grows with the frames per second that it records, and `tiny` has tens of thousands.
#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn many_places_share_rounds_without_a_failed_trial() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let boards = count("EDGEPIPE_BOARDS", 3);
    let farm = Farm::new();
    let others: Vec<Farm> = (2..=boards).map(|number| farm.another(&format!("o{number}"))).collect();
    let lab = lab(&farm, &others);
    let rounds = count("EDGEPIPE_ROUNDS", 4) * boards;
    let begun = Instant::now();
    let network = std::env::var("EDGEPIPE_NETWORK");
    let rounds_text = rounds.to_string();
    let mut arguments = vec!["--trials", &rounds_text];
    arguments.extend(network.iter().flat_map(|network| ["--network", network]));
    let mut bench = Bench::start_on(&farm, &["--farm", "lab"], &arguments);
    let (mut trials, mut used, mut client) = (0, None, None);
    while bench.next() {
        trials += usize::from(bench.said.last().unwrap().ends_with("frames/s"));
        used = usage(bench.child.id()).or(used);
        client = clients(bench.child.id()).first().and_then(|pid| usage(pid.cast_unsigned())).or(client);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (code, said) = bench.end();
    assert_valid(code, &said);
    let report = campaign(&farm, &said);
    let boards = report["boards"].as_array().unwrap();
    assert!(boards.iter().all(|board| board["trials_failed"] == 0), "{said}");
    let measured: u64 = boards.iter().map(|board| board["rounds"].as_u64().unwrap()).sum();
    assert_eq!(measured, rounds as u64, "{said}");
    let ((time, kib), (client_time, client_kib)) = (used.unwrap(), client.unwrap());
    let share = |time: Duration| 100.0 * time.as_secs_f64() / seconds;
    eprintln!(
        "{} places: {trials} trials in {seconds:.0} s; harness {:.1} % of a CPU, {} MB; labgrid's client {:.1} %, {} MB",
        boards.len(),
        share(time),
        kib / 1024,
        share(client_time),
        client_kib / 1024
    );
    for place in 1..=boards.len() {
        lab.wait_until_free(&format!("p{place}"));
    }
    assert_eq!(records(&farm).len(), 0);
}

/// `EDGEPIPE_KILLS=100 … -- --ignored --nocapture random_moments` kills more.
#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn harnesses_that_are_killed_at_random_moments_leave_nothing_behind() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let others = [farm.another("o2"), farm.another("o3")];
    let lab = lab(&farm, &others);
    lab.must("p3", "anna", &["acquire"]);
    let (mut held, mut noted) = (0, 0);
    for number in 0..count("EDGEPIPE_KILLS", 4) {
        let bench = Bench::start_on(&farm, &["--farm", "lab"], &["--trials", "1000"]);
        // From before the first connection to the middle of the trials; every moment must do.
        std::thread::sleep(Duration::from_millis(137 * (number as u64 * 7 % 40)));
        // With its client at first, which would give everything back, and then without.
        let also = if number % 2 == 0 { clients(bench.child.id()) } else { Vec::new() };
        for pid in also.into_iter().chain([i32::try_from(bench.child.id()).unwrap()]) {
            farm::kill(pid, Signal::KILL);
        }
        bench.end();
        held += ["p1", "p2"].iter().filter(|place| lab.holder(place).is_some()).count();
        noted += usize::from(!records(&farm).is_empty());
        // The next command frees it.
        farm.run(&["boards", "--reap"], 0);
        for place in ["p1", "p2"] {
            lab.wait_for(|lab| lab.holder(place).is_none());
        }
        assert_eq!(lab.reservations(), 0);
        assert_eq!(records(&farm).len(), 0);
        assert_eq!(lab.holder("p3").as_deref(), Some("elsewhere/anna"));
    }
    eprintln!("places still held after the kills: {held}, kills that left a note: {noted}");
}
