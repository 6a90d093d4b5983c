//! Places of a farm that cannot be used, coordinators that go while a bench waits, and clients that are ended.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod farm;

use farm::Farm;
use farm::bench::{Bench, alone, rows};
use farm::lab::{Lab, Place, PowerSwitch, clients, records, serve};
use farm::outcome::assert_valid;
use rustix::process::Signal;

fn signal(bench: &Bench, signal: Signal) {
    farm::kill(i32::try_from(bench.child.id()).unwrap(), signal);
}

/// A place whose resources are those of the exporter's group of this name.
fn place(name: &str, group: &str, more: &str) -> String {
    format!(
        "{name}:\n  comment: ''\n  tags: {{board: tester}}\n  created: 0.0\n  changed: 0.0\n  \
         matches: [{{exporter: exp, group: {group}, cls: '*', name: null, rename: null}}]\n  {more}\n"
    )
}

fn lab(farm: &Farm) -> Lab {
    let lab = Lab::new(&[Place { name: "p1".to_owned(), port: farm.port, power: None }]);
    lab.board(farm, "loopback", "place: p1, reconnect_seconds: 2", "");
    lab
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_place_that_cannot_be_used_is_named_with_the_reason() {
    if farm::skipped() {
        return;
    }
    let farm = Farm::new();
    let port = farm.port;
    let places = [
        place("none", "none", "aliases: []"),
        place("two", "two", "aliases: []"),
        place("'a \"b\" ü/c'", "good", "aliases: [short]"),
    ];
    let exported = format!(
        "none:\n  NetworkPowerPort: {{model: gude, host: pdu.invalid, index: 1}}\n\
         two:\n  NetworkService: {{address: 127.0.0.1, username: tester, port: {port}}}\n  \
           second: {{cls: NetworkService, address: 127.0.0.2, username: tester, port: {port}}}\n\
         good:\n  NetworkService: {{address: 127.0.0.1, username: tester, port: {port}}}\n"
    );
    let lab = Lab::of(&places.concat(), &exported);
    let cases = [
        ("none", "none: it has no NetworkService; is its exporter running?"),
        (
            "two",
            "two: it has several NetworkServices (exp/two/NetworkService/NetworkService, exp/two/NetworkService/second); \
             keep the match of one of them with `labgrid-client -p two del-match`",
        ),
    ];
    for (name, expected) in cases {
        lab.board(&farm, "loopback", &format!("place: {name}"), "");
        let (_, said) = farm.run(&["bench", "--board", "loopback", "--experiment", "tiny"], 3);
        assert!(said.contains(expected), "{said}");
        assert_eq!((lab.holder(name), lab.reservations()), (None, 0));
    }
    // A name that is hard to write, and an alias.
    for written in ["'a \"b\" ü/c'", "short"] {
        lab.board(&farm, "loopback", &format!("place: {written}"), "");
        let (text, said) = farm.run(&["boards", "loopback"], 0);
        assert!(text.contains("place a \"b\" ü/c of the labgrid coordinator"), "{text}{said}");
    }
    // All of them by their tags: the only one that can be used is found.
    lab.board(&farm, "loopback", "match: { board: tester }", "");
    let (text, said) = farm.run(&["boards", "loopback"], 0);
    assert!(text.contains("place a \"b\" ü/c of"), "{text}{said}");
    let (text, _) = farm.run(&["farm"], 0);
    assert_eq!(text.matches("no usable NetworkService").count(), 2, "{text}");
    let (_, said) = farm.run(&["bench", "--farm", "loopback", "--experiment", "tiny"], 2);
    assert!(said.contains("is not a valid board name; rename the place on the coordinator"), "{said}");
    assert_eq!((lab.reservations(), records(&farm).len()), (0, 0));
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_queued_run_waits_for_a_coordinator_that_restarts() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let mut lab = lab(&farm);
    lab.must("p1", "anna", &["acquire"]);
    let mut bench = Bench::start(&farm, &[]);
    bench.until("queue  number 1 for a place p1");
    lab.kill_exporter();
    lab.kill_coordinator();
    bench.until("lost the connection to the labgrid coordinator");
    // It has forgotten who held the place, and its exporter comes later.
    lab.start_coordinator();
    std::thread::sleep(std::time::Duration::from_secs(3));
    lab.start_exporter();
    let (code, said) = bench.end();
    assert_valid(code, &said);
    assert!(said.contains("queue  acquired the place p1 after"), "{said}");
    assert!(rows(&farm).iter().all(|row| row["trials_failed"] == 0), "{said}");
    lab.wait_until_free("p1");
    assert_eq!(records(&farm).len(), 0);

    // It does not come back: Ctrl-C ends the wait, and so does the deadline.
    for is_interrupted in [true, false] {
        lab.must("p1", "anna", &["acquire"]);
        if !is_interrupted {
            lab.board(&farm, "loopback", "place: p1, wait_minutes: 1", "");
        }
        let mut bench = Bench::start(&farm, &[]);
        bench.until("queue  number 1 for a place p1");
        lab.kill_exporter();
        lab.kill_coordinator();
        bench.until("lost the connection to the labgrid coordinator");
        if is_interrupted {
            signal(&bench, Signal::INT);
        }
        let (code, said) = bench.end();
        assert_eq!(code, Some(if is_interrupted { 4 } else { 3 }), "{said}");
        let expected =
            "it stopped answering while this command waited for a place p1, and did not answer again in time";
        assert_eq!(said.contains(expected), !is_interrupted, "{said}");
        lab.start_coordinator();
        lab.start_exporter();
        assert_eq!((lab.holder("p1"), lab.reservations()), (None, 0));
        farm.run(&["boards", "--reap"], 0);
        assert_eq!(records(&farm).len(), 0);
    }
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_client_that_is_ended_does_not_end_in_two_users_of_a_board() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    let lab = lab(&farm);
    // What runs is not reaped.
    let mut bench = Bench::start(&farm, &["--trials", "1000"]);
    bench.until("frames/s");
    assert_eq!(farm.run(&["boards", "--reap"], 0).0, "nothing to free\n");
    assert!(lab.holder("p1").unwrap().contains("/edgepipe-"));
    // Told to end, it gives back the place and says so.
    for client in clients(bench.child.id()) {
        farm::kill(client, Signal::TERM);
    }
    let (code, said) = bench.end();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("failed to continue: the place p1 was taken away"), "{said}");
    lab.wait_until_free("p1");

    // Killed, it gives back nothing: the place stays ours, and the next command frees it.
    let mut bench = Bench::start(&farm, &["--trials", "1000"]);
    bench.until("frames/s");
    for client in clients(bench.child.id()) {
        farm::kill(client, Signal::KILL);
    }
    bench.until("frames/s");
    signal(&bench, Signal::INT);
    let (code, said) = bench.end();
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("labgrid's client for the coordinator 127.0.0.1:"), "{said}");
    assert!(
        said.contains("`edgepipe boards --reap` frees") || said.contains("boards --reap` frees"),
        "{said}"
    );
    assert!(lab.holder("p1").unwrap().contains("/edgepipe-"));
    let (text, _) = farm.run(&["boards", "--reap"], 0);
    assert!(text.contains("p1 of"), "{text}");
    assert_eq!((lab.holder("p1"), records(&farm).len()), (None, 0));
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn a_power_switch_that_hangs_does_not_hold_up_the_end() {
    if farm::skipped() {
        return;
    }
    let _alone = alone();
    let farm = Farm::new();
    // It never answers.
    let switch = PowerSwitch::new(|_| {
        loop {
            std::thread::park();
        }
    });
    // Nobody listens at the board's port.
    let port = farm::free_port();
    let lab = Lab::new(&[Place { name: "p1".to_owned(), port, power: Some(switch.port) }]);
    lab.board(&farm, "loopback", "place: p1, reconnect_seconds: 1", "recover: { power_cycle: 1 }");
    let mut bench = Bench::start(&farm, &[]);
    bench.until("power-cycling the place p1");
    signal(&bench, Signal::INT);
    let (code, said) = bench.end();
    assert_eq!(code, Some(4), "{said}");
    // A client that waits for its driver would be killed, with a warning.
    assert!(!said.contains("frees what is still held"), "{said}");
    assert_eq!((lab.holder("p1"), lab.reservations(), records(&farm).len()), (None, 0, 0));
}

#[test]
#[ignore = "needs the private toolchain and OpenSSH's server; run by cargo xtask test"]
fn every_kind_of_power_driver_is_used_as_labgrids_client_does() {
    if farm::skipped() {
        return;
    }
    let farm = Farm::new();
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let requests = std::sync::Arc::clone(&asked);
    let switch = serve(move |request| {
        requests.lock().unwrap().push(request.to_owned());
        "200 OK"
    });
    let script = farm.path("switch.sh");
    let log = farm.path("switched");
    farm::program(&script, &format!("echo \"$@\" >> {}", log.display()));
    let environment = farm.path("environment.yaml");
    let written = |place: &str| {
        let text = format!(
            "targets:\n  board:\n    resources:\n      RemotePlace: {{ name: {place} }}\n    drivers:\n      \
             ExternalPowerDriver: {{ cmd_on: {script} on, cmd_off: {script} off, delay: 0.1 }}\n",
            script = script.display()
        );
        std::fs::write(&environment, text).unwrap();
    };
    // Nobody listens at the board's port, so its power is cycled, and then it is waited for.
    let port = farm::free_port();
    let powers = [
        (
            "rest",
            format!(
                "NetworkPowerPort: {{model: rest, host: 'http://127.0.0.1:{switch}/outlet/{{index}}', index: 3}}"
            ),
        ),
        ("daemon", format!("PDUDaemonPort: {{host: '127.0.0.1:{switch}', pdu: rack, index: 4}}")),
        ("external", String::new()),
        ("unknown", "NetworkPowerPort: {model: nothing, host: 127.0.0.1, index: 1}".to_owned()),
    ];
    let places: String = powers.iter().map(|(name, _)| place(name, name, "aliases: []")).collect();
    let exported = powers.each_ref().map(|(name, power)| {
        format!(
            "{name}:\n  NetworkService: {{address: 127.0.0.1, username: tester, port: {port}}}\n  {power}\n"
        )
    });
    let lab = Lab::of(&places, &exported.concat());
    let recover =
        format!("recover: {{ power_cycle: 1, boot_seconds: 1, environment: {} }}", environment.display());
    let plain = "recover: { power_cycle: 1, boot_seconds: 1 }";
    let gone = "failed to reconnect to the board loopback within 1 s";
    let none = "failed to power-cycle the place external: it has no power port that labgrid's client drives by itself";
    let wrong = "environment.yaml has no target with `RemotePlace: { name: external }`";
    let cases = [
        ("rest", plain, gone),
        ("daemon", plain, gone),
        ("unknown", plain, "failed to power-cycle the place unknown: ModuleNotFoundError"),
        ("external", plain, none),
        ("external", recover.as_str(), wrong),
        ("external", recover.as_str(), gone),
    ];
    for (number, (name, recover, expected)) in cases.into_iter().enumerate() {
        written(if number == 4 { "other" } else { name });
        lab.board(&farm, "loopback", &format!("place: {name}, reconnect_seconds: 0"), recover);
        let (_, said) = farm.run(&["bench", "--board", "loopback", "--experiment", "tiny"], 3);
        assert!(said.contains(expected), "{name}: {said}");
        assert_eq!((lab.holder(name), lab.reservations(), records(&farm).len()), (None, 0, 0));
    }
    let asked = asked.lock().unwrap().join("\n");
    assert_eq!(asked.matches("PUT /outlet/3 ").count(), 2, "{asked}");
    assert!(asked.contains("GET /power/control/reboot?hostname=rack&port=4&delay="), "{asked}");
    assert_eq!(std::fs::read_to_string(log).unwrap(), "off\non\n");
}
