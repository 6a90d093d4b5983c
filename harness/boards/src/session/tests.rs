//! Runners that say anything at all.

use super::*;
use host::mutation::{cases, mutated};
use proptest::prelude::*;
use protocol::{Fault, Phase};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use store::Record;
use store::fixture;

/// Lines that a runner may print.
fn corpus() -> Vec<Vec<u8>> {
    let mut events = vec![
        Event::Heartbeat {},
        Event::Phase { id: 1, phase: Phase::Window },
        Event::State { id: 1, state: Box::new(fixture::machine()) },
        Event::Failed { id: Some(1), fault: Fault::Weights, message: "failed to map it".to_owned() },
        Event::Failed { id: None, fault: Fault::Request, message: "failed to read a request".to_owned() },
    ];
    for record in fixture::records("resnet18", 1) {
        match record {
            Record::Profile(record) => events.push(Event::Profiled(record.profiled)),
            Record::Transfer(record) => events.push(Event::Transferred(record.transferred)),
            Record::Comparison(record) => events.push(Event::Compared(record.compared)),
            Record::Trial(record) => {
                if let store::Outcome::Measured(measured) = record.outcome {
                    events.push(Event::Measured(measured));
                }
            }
            _ => {}
        }
    }
    assert!(events.len() > 9);
    events.iter().map(|event| serde_json::to_vec(event).unwrap()).collect()
}

/// Talks to a program that greets, and if it has something to say, reads a request, prints that and ends.
fn talk(hello: &[u8], said: &[u8]) -> Result<Event, SessionError> {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("hello"), hello).unwrap();
    fs::write(at("said"), said).unwrap();
    let path = folder.path().display();
    let rest = if said.is_empty() { String::new() } else { format!("read request\ncat {path}/said\n") };
    fs::write(at("runner"), format!("#!/bin/sh\ncat {path}/hello\n{rest}")).unwrap();
    fs::set_permissions(at("runner"), fs::Permissions::from_mode(0o755)).unwrap();
    // A program that another thread's child still holds open for writing cannot be started for a moment.
    let process = loop {
        match Process::local(&at("runner")) {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            other => break other.unwrap(),
        }
    };
    let mut session = Session::new(process)?;
    let request = Request::State { id: 1, sysfs: "/sys".to_owned(), thorough: false };
    session.request(&request, "read the state", Duration::from_secs(300), &Interrupt::default())
}

fn hello(protocol: u32) -> Vec<u8> {
    let hello = Event::Hello(Hello { protocol, runner: "0".to_owned(), pid: 1 });
    let mut line = serde_json::to_vec(&hello).unwrap();
    line.push(b'\n');
    line
}

#[test]
fn sound_lines_are_taken() {
    for line in corpus().iter().skip(2).filter(|line| !line.starts_with(b"{\"failed\"")) {
        let answer = talk(&hello(protocol::VERSION), &[line.as_slice(), b"\n"].concat());
        assert!(answer.is_ok(), "{}", answer.unwrap_err());
    }
    assert!(matches!(talk(&hello(protocol::VERSION + 1), b""), Err(SessionError::Version { .. })));
}

/// Each error is a few lines, and none of them a bug's.
fn check(answer: Result<Event, SessionError>) {
    if let Err(error) = answer {
        let told = error.to_string();
        assert!(!told.is_empty() && told.len() < 20_000 && !told.contains("a bug"), "{told}");
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn mutated_answers(said in mutated(corpus())) {
        check(talk(&hello(protocol::VERSION), &said));
    }

    #[test]
    fn mutated_greetings(said in mutated(vec![hello(protocol::VERSION)])) {
        check(talk(&said, b""));
    }
}
