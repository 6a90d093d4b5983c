//! Boards of a farm: a real labgrid coordinator and exporter on loopback, with sshds of ours as boards.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod farm;
mod words;

use farm::Farm;
use farm::bench::{Bench, alone, rows};
use farm::lab::{Lab, Place, PowerSwitch, clients, records};
use farm::outcome::assert_valid;
use rustix::process::Signal;
use std::process::Child;
use std::sync::{Arc, Mutex};
use words::says;

/// A lab with the board of `farm` as `p1`, known to its harness as `loopback`.
fn lab(farm: &Farm) -> Lab {
    let lab = Lab::new(&[Place { name: "p1".to_owned(), port: farm.port, power: None }]);
    lab.board(farm, "loopback", "place: p1, reconnect_seconds: 2", "");
    lab
}

fn signal(child: &Child, signal: Signal) {
    farm::kill(i32::try_from(child.id()).unwrap(), signal);
}

/// Everything is given back: the place, its reservation, the notes on disk and the board.
#[track_caller]
fn check_free(farm: &Farm, lab: &Lab) {
    lab.wait_until_free("p1");
    assert_eq!(records(farm), [""; 0].map(std::path::PathBuf::from));
    farm.wait_for_none(&["runner"]);
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_place_is_reserved_used_and_given_back() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let lab = lab(&farm);
    // By its tags, and without anyone in the way there is no queue.
    lab.board(&farm, "loopback", "match: { board: tester }", "");
    let bench = Bench::start(&farm, &["--trials", "20"]);
    lab.wait_for(|lab| lab.holder("p1").is_some());
    let holder = lab.holder("p1").unwrap();
    assert!(holder.contains("/edgepipe-"), "{holder}");
    let (code, said) = bench.end();
    assert_valid(code, &said);
    assert!(!said.contains("    queue  "), "{said}");
    assert!(rows(&farm).iter().all(|row| row["trials_failed"] == 0), "{said}");
    let (json, _) = farm.run(&["report", "--format", "json"], 0);
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["run"]["place"], format!("p1 of {}", lab.address()));
    assert_eq!(report["run"]["power_cycles"], serde_json::json!([]));
    check_free(&farm, &lab);

    let (text, _) = farm.run(&["boards", "loopback"], 0);
    assert!(text.contains(&format!("place p1 of the labgrid coordinator {}", lab.address())), "{text}");
    check_free(&farm, &lab);
    // What others use is not touched.
    lab.must("p1", "anna", &["acquire"]);
    let (text, _) = farm.run(&["boards", "loopback"], 3);
    assert!(text.contains("in use (p1 by elsewhere/anna)"), "{text}");
    assert_eq!(lab.holder("p1").as_deref(), Some("elsewhere/anna"));
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn mistakes_are_named_with_the_remedy() {
    if farm::skipped() {
        return;
    }
    let farm = Farm::new();
    let mut lab = lab(&farm);
    let bench = ["bench", "--board", "loopback", "--experiment", "tiny"];
    let cases: [(&str, &str, i32, &str); 9] = [
        ("place: p2", "", 2, "failed to find a place p2 on the labgrid coordinator"),
        ("place: p2", "", 2, "it has the place p1; did you mean \"p1\"?"),
        ("match: { board: nobody }", "", 2, "failed to find a place with board=nobody"),
        ("place: p1, match: { board: tester }", "", 2, "\"match\" cannot be combined with \"place\""),
        ("wait_minutes: 1", "", 2, "missing key \"place\" or \"match\""),
        ("match: {}", "", 2, "missing key \"place\" or \"match\""),
        ("match: { Board: x }", "", 2, "failed to find a place with Board=x"),
        ("place: p1", "recover: { power_cycles: 1 }", 2, "unknown key \"power_cycles\""),
        ("plaze: p1", "", 2, "unknown key \"plaze\""),
    ];
    for (connect, whole, code, expected) in cases {
        lab.board(&farm, "loopback", connect, whole);
        let (_, said) = farm.run(&bench, code);
        assert!(said.contains(expected), "{connect}: {said}");
        assert!(!said.contains("Traceback"), "{said}");
    }
    farm.board("loopback", "host: 127.0.0.1, user: tester");
    let file = farm.path("workspace/configs/boards/loopback.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text + "recover: { power_cycle: 1 }\n").unwrap();
    let (_, said) = farm.run(&bench, 2);
    assert!(said.contains("\"recover\" needs connect: { labgrid: … }"), "{said}");

    // Another server at that port, nobody at all, and a coordinator without an exporter.
    let coordinator = lab.port;
    lab.port = farm.port;
    lab.board(&farm, "loopback", "place: p1", "");
    let (_, said) = farm.run(&bench, 3);
    assert!(
        said.contains("failed to reach the labgrid coordinator") && said.contains("labgrid 25"),
        "{said}"
    );
    lab.port = coordinator;
    lab.board(&farm, "loopback", "place: p1", "");
    lab.kill_exporter();
    lab.wait_for(|lab| !lab.client("", "anna", &["resources"]).1.contains("exp/"));
    let (_, said) = farm.run(&bench, 3);
    assert!(said.contains("p1: it has no NetworkService; is its exporter running?"), "{said}");
    assert_eq!((lab.holder("p1"), lab.reservations()), (None, 0));
    lab.kill_coordinator();
    let (_, said) = farm.run(&bench, 3);
    assert!(said.contains("failed to reach the labgrid coordinator 127.0.0.1:"), "{said}");
    assert!(said.contains("onnection refused"), "{said}");
    assert_eq!(records(&farm).len(), 0);
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_place_that_is_held_is_waited_for_in_the_queue() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let lab = lab(&farm);
    // Of a client that has ended long ago: acquired places do not expire.
    lab.must("p1", "anna", &["acquire"]);
    lab.board(&farm, "loopback", "place: p1, wait_minutes: 0", "");
    let (_, said) = farm.run(&["bench", "--board", "loopback", "--experiment", "tiny"], 3);
    assert!(said.contains("within 0 min: number 1 in the queue (p1 by elsewhere/anna)"), "{said}");
    assert!(said.contains("release-from"), "{said}");
    assert_eq!((lab.holder("p1").as_deref(), lab.reservations()), (Some("elsewhere/anna"), 0));
    assert_eq!(records(&farm).len(), 0);

    // Ctrl-C leaves the queue.
    lab.board(&farm, "loopback", "place: p1, reconnect_seconds: 2", "");
    let mut bench = Bench::start(&farm, &[]);
    bench.until("queue  number 1 for a place p1 of 127.0.0.1:");
    signal(&bench.child, Signal::INT);
    let (code, said) = bench.end();
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert_eq!((lab.holder("p1").as_deref(), lab.reservations()), (Some("elsewhere/anna"), 0));

    // Two in the queue: the second one's position is told, and changes.
    let mut first = Bench::start(&farm, &[]);
    first.until("queue  number 1 for");
    let mut second = Bench::start(&farm, &[]);
    second.until("queue  number 2 for a place p1");
    signal(&first.child, Signal::INT);
    let (code, said) = first.end();
    assert_eq!(code, Some(4), "{said}");
    second.until("queue  number 1 for a place p1");
    lab.must("p1", "anna", &["release"]);
    second.until("queue  acquired the place p1 after");
    let (code, said) = second.end();
    assert_valid(code, &said);
    check_free(&farm, &lab);
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn what_a_killed_harness_holds_is_freed_and_nothing_else() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let other = farm.another("other");
    let places = [("p1", farm.port), ("p2", other.port)];
    let lab = Lab::new(&places.map(|(name, port)| Place { name: name.to_owned(), port, power: None }));
    lab.board(&farm, "loopback", "place: p1, reconnect_seconds: 2", "");
    lab.must("p2", "anna", &["acquire"]);
    // Killed alone: labgrid's client ends with its input and gives everything back.
    let mut bench = Bench::start(&farm, &["--trials", "1000"]);
    bench.until("frames/s");
    signal(&bench.child, Signal::KILL);
    assert_eq!(bench.end().0, None);
    lab.wait_until_free("p1");

    // Killed with its client: nobody gives back anything.
    for reaps in [true, false] {
        let mut bench = Bench::start(&farm, &["--trials", "1000"]);
        bench.until("frames/s");
        // The client first, or it would do its duty.
        for client in clients(bench.child.id()) {
            farm::kill(client, Signal::KILL);
        }
        signal(&bench.child, Signal::KILL);
        bench.end();
        assert!(lab.holder("p1").unwrap().contains("/edgepipe-"));
        assert!(!records(&farm).is_empty());
        if reaps {
            let (text, _) = farm.run(&["boards", "--reap"], 0);
            assert!(text.contains(&format!("p1 of {}: freed; process ", lab.address())), "{text}");
            assert_eq!(farm.run(&["boards", "--reap"], 0).0, "nothing to free\n");
        } else {
            let (text, said) = farm.run(&["boards", "loopback"], 0);
            assert!(said.contains("freed the place p1, which process "), "{said}");
            assert!(text.contains("  free"), "{text}");
        }
        assert_eq!(lab.holder("p1"), None);
        assert_eq!(records(&farm).len(), 0);
        assert_eq!(lab.holder("p2").as_deref(), Some("elsewhere/anna"));
    }
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_coordinator_that_is_gone_does_not_end_a_run() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let mut lab = lab(&farm);
    // Killed and started again: it has forgotten who holds what.
    let mut bench = Bench::start(&farm, &["--trials", "1000"]);
    bench.until("frames/s");
    lab.kill_coordinator();
    bench.until("lost the connection to the labgrid coordinator");
    lab.kill_exporter();
    lab.start_coordinator();
    lab.start_exporter();
    bench.until("was restarted; acquired the place p1 again");
    assert!(lab.holder("p1").unwrap().contains("/edgepipe-"));
    bench.until("frames/s");
    signal(&bench.child, Signal::INT);
    let (code, said) = bench.end();
    assert_eq!(code, Some(4), "{said}");
    assert!(rows(&farm).iter().all(|row| row["trials_failed"] == 0), "{said}");
    check_free(&farm, &lab);

    // Killed for good: the run goes on, and what it could not give back is noted.
    let mut bench = Bench::start(&farm, &["--trials", "4"]);
    bench.until("frames/s");
    lab.kill_coordinator();
    let (code, said) = bench.end();
    assert_valid(code, &said);
    assert!(said.contains("did not answer when this command released its places"), "{said}");
    assert_eq!(records(&farm).len(), 1);
    let (_, said) = farm.run(&["boards", "--reap"], 3);
    assert!(said.contains("failed to reach the labgrid coordinator"), "{said}");
    assert_eq!(records(&farm).len(), 1);
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_place_that_is_taken_away_ends_the_run_and_is_left_alone() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let mut lab = lab(&farm);
    // An exporter is needed to get a place, and not to use it.
    let mut bench = Bench::start(&farm, &["--trials", "1000"]);
    bench.until("frames/s");
    lab.kill_exporter();
    bench.until("frames/s");
    lab.must("p1", "admin", &["release", "--kick"]);
    lab.start_exporter();
    lab.must("p1", "admin", &["acquire"]);
    let (code, said) = bench.end();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("failed to continue: the place p1 was taken away"), "{said}");
    farm.wait_for_none(&["runner"]);
    assert_eq!(lab.holder("p1").as_deref(), Some("elsewhere/admin"));
    assert_eq!(records(&farm).len(), 0);
    // It can be resumed later, on the same place.
    lab.must("p1", "admin", &["release"]);
    let mut bench = Bench::start(&farm, &["--resume"]);
    bench.until("frames/s");
    signal(&bench.child, Signal::INT);
    assert_eq!(bench.end().0, Some(4));
    check_free(&farm, &lab);
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn two_benches_with_the_same_match_get_a_place_each() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let other = farm.another("other");
    let places = [("p1", farm.port), ("p2", other.port)];
    let lab = Lab::new(&places.map(|(name, port)| Place { name: name.to_owned(), port, power: None }));
    lab.board(&farm, "loopback", "match: { board: tester }", "");
    // They go on until they are told to end.
    let long = ["--trials", "1000"];
    let [mut first, mut second] = [Bench::start(&farm, &long), Bench::start(&farm, &long)];
    for bench in [&mut first, &mut second] {
        bench.until("frames/s");
    }
    let holders = ["p1", "p2"].map(|place| lab.holder(place).unwrap());
    assert_ne!(holders[0], holders[1]);
    let mut third = Bench::start(&farm, &[]);
    third.until("queue  number 1 for a place with board=tester");
    for bench in [first, second] {
        signal(&bench.child, Signal::INT);
        let (code, said) = bench.end();
        assert_eq!(code, Some(4), "{said}");
    }
    let (code, said) = third.end();
    assert_valid(code, &said);
    for place in ["p1", "p2"] {
        lab.wait_until_free(place);
    }
    assert_eq!(records(&farm).len(), 0);
}

/// A farm whose board hangs at a power switch, and the switch.
fn switched(change: impl Fn(&mut Farm) + Send + 'static) -> (Arc<Mutex<Farm>>, PowerSwitch) {
    let board = Arc::new(Mutex::new(Farm::unstarted()));
    // The switch's thread ends with the test program, and the board is to end with its test.
    let outlet = Arc::downgrade(&board);
    let switch = PowerSwitch::new(move |is_on| {
        let Some(board) = outlet.upgrade() else { return };
        let mut board = board.lock().unwrap();
        if is_on {
            change(&mut board);
            board.start();
        } else {
            board.power_off();
        }
    });
    (board, switch)
}

/// A harness, and a board at a switch that it knows as `loopback`.
fn powered(change: impl Fn(&mut Farm) + Send + 'static) -> (Farm, Arc<Mutex<Farm>>, PowerSwitch, Lab) {
    let farm = Farm::new();
    let (board, switch) = switched(change);
    let port = {
        let mut board = board.lock().unwrap();
        std::fs::copy(farm.path("authorized_keys"), board.path("authorized_keys")).unwrap();
        board.start();
        farm.know_other("loopback", &board);
        board.port
    };
    let lab = Lab::new(&[Place { name: "p1".to_owned(), port, power: Some(switch.port) }]);
    let recover = "recover: { power_cycle: 1 }";
    lab.board(&farm, "loopback", "place: p1, reconnect_seconds: 1", recover);
    (farm, board, switch, lab)
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_board_that_does_not_answer_is_power_cycled_once() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let (farm, board, switch, lab) = powered(|_| ());
    let mut bench = Bench::start(&farm, &["--trials", "8"]);
    bench.until("frames/s");
    board.lock().unwrap().power_off();
    bench.until("power-cycling the place p1");
    let (code, said) = bench.end();
    // The trial in which it died has failed, if there was one, and no other.
    assert!(matches!(code, Some(0 | 4)), "{code:?}: {said}");
    assert_eq!(switch.cycles(), 1);
    let failed: u64 = rows(&farm).iter().map(|row| row["trials_failed"].as_u64().unwrap()).sum();
    assert!(failed <= 1, "{said}");
    let (json, _) = farm.run(&["report", "--format", "json"], 0);
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["run"]["status"], "complete");
    assert_eq!(report["run"]["power_cycles"][0]["place"], "p1", "{json}");
    let (text, _) = farm.run(&["report"], 0);
    assert!(says(&text, "the place p1 was power-cycled at 20"), "{text}");
    lab.wait_until_free("p1");

    // Off from the beginning: it is switched on. Then it goes off again, and once was enough.
    board.lock().unwrap().power_off();
    let mut bench = Bench::start(&farm, &["--trials", "1000"]);
    bench.until("power-cycling the place p1");
    bench.until("frames/s");
    board.lock().unwrap().power_off();
    let (code, said) = bench.end();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("failed to reconnect to the board loopback within 1 s"), "{said}");
    assert_eq!(switch.cycles(), 2);
    lab.wait_until_free("p1");
    assert_eq!(records(&farm).len(), 0);
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_power_switch_that_fails_ends_the_run_with_both_reasons() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let (farm, board, switch, lab) = powered(|_| ());
    let mut bench = Bench::start(&farm, &["--trials", "1000"]);
    bench.until("frames/s");
    switch.break_it();
    board.lock().unwrap().power_off();
    let (code, said) = bench.end();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("failed to power-cycle the place p1: HTTPError: 500"), "{said}");
    assert!(said.contains("before that: failed to connect to 127.0.0.1:"), "{said}");
    lab.wait_until_free("p1");
    assert_eq!(records(&farm).len(), 0);
}

/// What happens to a board while it is off.
type Change = fn(&mut Farm);

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_board_that_comes_back_as_another_one_ends_the_run() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let cases: [(Change, &str); 2] = [
        (
            |board| {
                for name in ["host_ed25519", "host_ed25519.pub"] {
                    std::fs::remove_file(board.path(name)).unwrap();
                }
                farm::keygen(&board.path("host_ed25519"), "ed25519", "");
            },
            "failed to verify the host key of 127.0.0.1:",
        ),
        (
            |board| {
                std::fs::write(board.path("possible"), "0-99\n").unwrap();
                let file = board.path("possible");
                board.prelude = format!("mount --bind {} /sys/devices/system/cpu/possible;", file.display());
            },
            "another board answers at its address",
        ),
    ];
    for (change, expected) in cases {
        let (farm, board, switch, lab) = powered(change);
        let mut bench = Bench::start(&farm, &["--trials", "1000"]);
        bench.until("frames/s");
        board.lock().unwrap().power_off();
        let (code, said) = bench.end();
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains(expected), "{said}");
        assert_eq!(switch.cycles(), 1);
        lab.wait_until_free("p1");
    }
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn the_farm_is_shown_with_its_last_runs() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let lab = lab(&farm);
    let (text, _) = farm.run(&["farm"], 0);
    assert!(text.starts_with(&format!("{}: 1 place\n", lab.address())), "{text}");
    assert!(text.contains("board=tester    free   –         no run yet"), "{text}");
    let (code, said) = Bench::start(&farm, &[]).end();
    assert_valid(code, &said);
    lab.must("p1", "anna", &["acquire"]);
    let (text, _) = farm.run(&["farm", &lab.address()], 0);
    assert!(text.contains("in use by elsewhere/anna for less than a minute"), "{text}");
    assert!(text.contains(" tiny, 20") && !text.contains("no run yet"), "{text}");
    for (coordinator, code, expected) in [
        ("127.0.0.1:1", 3, "failed to reach the labgrid coordinator 127.0.0.1:1"),
        ("http://lab", 2, "expected a host or host:port"),
    ] {
        let (_, said) = farm.run(&["farm", coordinator], code);
        assert!(said.contains(expected), "{said}");
    }
    farm.board("loopback", "host: 127.0.0.1, user: tester");
    let (_, said) = farm.run(&["farm"], 2);
    assert!(said.contains("failed to find a farm"), "{said}");
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn one_of_two_boards_that_share_rounds_is_power_cycled_in_the_middle() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let (board, switch) = switched(|_| ());
    let port = {
        let mut board = board.lock().unwrap();
        std::fs::copy(farm.path("authorized_keys"), board.path("authorized_keys")).unwrap();
        board.start();
        farm.know_other("other", &board);
        board.port
    };
    let lab = Lab::new(&[
        Place { name: "p1".to_owned(), port, power: Some(switch.port) },
        Place { name: "p2".to_owned(), port: farm.port, power: None },
    ]);
    let connect = "match: { board: tester }, reconnect_seconds: 1, equal_within: 100000%";
    lab.board(&farm, "lab", connect, "recover: { power_cycle: 1 }");
    let mut bench = Bench::start_on(&farm, &["--farm", "lab"], &["--trials", "30"]);
    loop {
        bench.until("frames/s");
        let line = bench.said.last().unwrap();
        if line.starts_with("lab.p1") && line.contains(", round ") {
            break;
        }
    }
    board.lock().unwrap().power_off();
    bench.until("power-cycling the place p1");
    let (code, said) = bench.end();
    let transcript: Vec<&str> = said.lines().filter(|line| line.starts_with("lab.p")).collect();
    eprintln!("{}", transcript.join("\n"));
    // Its trial at work has failed, if there was one.
    assert!(matches!(code, Some(0 | 4)), "{code:?}: {said}");
    assert_eq!(switch.cycles(), 1);
    let (json, _) = farm.run(&["report", "--format", "json"], 0);
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    for board in report["boards"].as_array().unwrap() {
        assert_eq!(board["status"], "complete", "{said}");
        assert!(board["rounds"].as_u64() > Some(0), "{said}");
    }
    assert_eq!(report["pooled"]["run"]["power_cycles"][0]["place"], "p1", "{json}");
    let (text, _) = farm.run(&["report"], 0);
    assert!(says(&text, "the place p1 was power-cycled at 20"), "{text}");
    eprintln!("{text}");
    for place in ["p1", "p2"] {
        lab.wait_until_free(place);
    }
}
