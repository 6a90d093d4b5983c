//! The labgrid client: a Python program that holds places for this process. Boards of one coordinator share it.
//!
//! It releases everything when its input ends, so a harness that is killed leaves nothing behind. If both are killed, the
//! [record](super::record) lets the next process free the places.

use super::error::FarmError;
use super::messages::{Event, FailureKind, Happened, Numbered, PlaceInfo, Request};
use super::record::{self, Owner, Record};
use config::Labgrid;
use host::interrupt::Interrupt;
use host::progress;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Makes the first argument a module, and runs the second one.
const LOADER: &str = "\
import sys, types
module = sys.modules['labgrid_session'] = types.ModuleType('labgrid_session')
exec(compile(sys.argv.pop(1), 'labgrid_session.py', 'exec'), module.__dict__)
exec(compile(sys.argv.pop(1), 'labgrid_client.py', 'exec'))";
const SESSION: &str = include_str!("labgrid_session.py");
const PROGRAM: &str = include_str!("labgrid_client.py");
/// Longest time for an answer; the client gives up on the coordinator earlier.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// The client's exit code if it could not release everything.
const UNRELEASED: i32 = 1;
/// How often a waiting request checks for Ctrl-C.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Lines of the client's log kept for messages.
const LOG_LINES: usize = 5;

/// The clients of this process, by coordinator.
static CLIENTS: Mutex<BTreeMap<String, Weak<Client>>> = Mutex::new(BTreeMap::new());

/// A running client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) coordinator: String,
    record: Mutex<Option<Record>>,
    child: Mutex<Child>,
    requests: Mutex<Requests>,
    routes: Arc<Mutex<Routes>>,
    log: Mutex<Option<JoinHandle<VecDeque<String>>>>,
}

#[derive(Debug)]
struct Requests {
    input: Option<ChildStdin>,
    next: u64,
}

/// Where the events of each request go.
#[derive(Debug, Default)]
struct Routes {
    senders: HashMap<u64, Sender<Event>>,
    has_ended: bool,
}

/// A dead process, and the places that it held.
type Reaped = (Owner, Vec<String>);

/// A request that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) id: u64,
    pub(super) events: Receiver<Event>,
}

impl Client {
    /// The client for a coordinator. Frees what dead processes of this host hold there.
    ///
    /// # Errors
    /// If it does not start.
    pub(super) fn of(python: &Path, coordinator: &str) -> Result<Arc<Self>, FarmError> {
        let mut clients = lock(&CLIENTS);
        if let Some(known) = clients.get(coordinator).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let client = Arc::new(Self::start(python, coordinator)?);
        clients.insert(coordinator.to_owned(), Arc::downgrade(&client));
        drop(clients);
        // A coordinator that does not answer is reported by what comes next.
        for (owner, places) in client.reap()?.0 {
            for place in places {
                let text = format!(
                    "freed the place {place}, which process {} of this host still held after it was killed",
                    owner.process
                );
                progress::say("farm", &text);
            }
        }
        Ok(client)
    }

    fn start(python: &Path, coordinator: &str) -> Result<Self, FarmError> {
        let failed = |reason: &dyn std::fmt::Display| FarmError::Client {
            coordinator: coordinator.to_owned(),
            reason: reason.to_string(),
        };
        let record = Record::create(&record::folder()?, Owner::new(coordinator))?;
        let mut command = environment::python(python);
        command.args(["-I", "-X", "utf8", "-c", LOADER, SESSION, PROGRAM]);
        command.args([coordinator, &record.owner.host, &record.owner.user]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C is for the harness; the end of its input ends the client.
        let mut child = command
            .process_group(0)
            .spawn()
            .map_err(|error| failed(&format!("{} does not start: {error}", python.display())))?;
        let (Some(input), Some(output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed(&"it has no input or output"));
        };
        let routes = Arc::new(Mutex::new(Routes::default()));
        let known = Arc::clone(&routes);
        let events = std::thread::Builder::new().name("labgrid".to_owned()).spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let (id, event) = parsed(&line);
                if let Some(sender) = id.and_then(|id| lock(&known).senders.get(&id).cloned()) {
                    // Whoever asked may have given up.
                    let _ = sender.send(event);
                } else if id.is_none() {
                    tracing::error!("labgrid's client printed {line:?}: {event:?}");
                }
            }
            let mut routes = lock(&known);
            routes.has_ended = true;
            routes.senders.clear();
        });
        events.map_err(|error| failed(&error))?;
        let log = std::thread::Builder::new().name("labgrid".to_owned()).spawn(move || read_log(errors));
        Ok(Self {
            coordinator: coordinator.to_owned(),
            record: Mutex::new(Some(record)),
            child: Mutex::new(child),
            requests: Mutex::new(Requests { input: Some(input), next: 1 }),
            routes,
            log: Mutex::new(Some(log.map_err(|error| failed(&error))?)),
        })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// If the client has ended.
    pub(super) fn send(&self, request: Request<'_>) -> Result<Sent, FarmError> {
        let mut requests = lock(&self.requests);
        let id = requests.next;
        requests.next += 1;
        let (sender, events) = channel();
        {
            let mut routes = lock(&self.routes);
            if routes.has_ended {
                return Err(self.ended());
            }
            routes.senders.insert(id, sender);
        }
        let line = serde_json::to_string(&Numbered { id, request });
        let line = line.map_err(|error| FarmError::Bug { answer: error.to_string() })? + "\n";
        let written = requests.input.as_mut().map(|input| input.write_all(line.as_bytes()));
        match written {
            Some(Ok(())) => Ok(Sent { id, events }),
            _ => Err(self.ended()),
        }
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// If the client ends or does not answer, or the user interrupts.
    pub(super) fn ask(&self, request: Request<'_>, interrupt: &Interrupt) -> Result<Event, FarmError> {
        let sent = self.send(request)?;
        let answer = self.answer(&sent, PATIENCE, interrupt);
        self.forget(sent.id);
        answer
    }

    /// Waits for the answer to a request.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(super) fn answer(
        &self,
        sent: &Sent,
        patience: Duration,
        interrupt: &Interrupt,
    ) -> Result<Event, FarmError> {
        let deadline = Instant::now() + patience;
        loop {
            match sent.events.recv_timeout(CHECK_INTERVAL) {
                Ok(event) => return Ok(event),
                Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
                Err(RecvTimeoutError::Timeout) if interrupt.is_set() => return Err(FarmError::Interrupted),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                    return Err(self.failed(&format!("no answer within {} s", patience.as_secs())));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// No more events of a request are of interest.
    pub(super) fn forget(&self, id: u64) {
        lock(&self.routes).senders.remove(&id);
    }

    /// All places of the coordinator.
    ///
    /// # Errors
    /// If the coordinator does not answer.
    pub(super) fn places(&self, interrupt: &Interrupt) -> Result<Vec<PlaceInfo>, FarmError> {
        match self.ask(Request::Places {}, interrupt)? {
            Event::Places { places } => Ok(places),
            other => Err(self.unexpected("its places", other)),
        }
    }

    /// Frees what dead processes of this host hold at this coordinator. Returns what was freed, and the error that ended it
    /// early; then the records of the others are kept.
    ///
    /// # Errors
    /// If the records cannot be read.
    fn reap(&self) -> Result<(Vec<Reaped>, Option<FarmError>), FarmError> {
        let mut reaped = Vec::new();
        for record in Record::of_the_dead(&record::folder()?)? {
            if record.owner.coordinator != self.coordinator {
                continue;
            }
            let owners = vec![record.owner.name()];
            match self.ask(Request::Reap { owners }, &Interrupt::default()) {
                Ok(Event::Reaped { places }) => {
                    reaped.push((record.owner.clone(), places));
                    record.remove();
                }
                Ok(other) => return Ok((reaped, Some(self.unexpected("free places", other)))),
                Err(error) => return Ok((reaped, Some(error))),
            }
        }
        Ok((reaped, None))
    }

    /// An error about the client itself.
    pub(super) fn failed(&self, reason: &str) -> FarmError {
        FarmError::Client { coordinator: self.coordinator.clone(), reason: reason.to_owned() }
    }

    /// The error for an answer of the wrong kind, or for a failure that needs no other words.
    pub(super) fn unexpected(&self, wanted: &str, event: Event) -> FarmError {
        let coordinator = self.coordinator.clone();
        match event {
            Event::Failed { kind: FailureKind::Unreachable, reason } => {
                FarmError::Unreachable { coordinator, reason }
            }
            Event::Failed { kind: FailureKind::Foreign, reason } => {
                let reason = format!("something answers there, but {reason}");
                FarmError::Unreachable { coordinator, reason }
            }
            Event::Failed { kind: FailureKind::Bug, reason } => FarmError::Bug { answer: reason },
            Event::Failed { reason, .. } => {
                FarmError::Refused { wanted: wanted.to_owned(), coordinator, reason }
            }
            other => FarmError::Bug { answer: format!("{other:?}") },
        }
    }

    /// The error of a client that has ended, with the end of its log.
    fn ended(&self) -> FarmError {
        let log = lock(&self.log).take().map(|log| log.join().unwrap_or_default());
        let last = log.and_then(|log| log.back().cloned());
        self.failed(&format!("it has ended{}", last.map_or_else(String::new, |last| format!(": {last}"))))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        lock(&self.requests).input = None;
        let mut child = lock(&self.child);
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                _ => break None,
            }
        };
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let (record, code) = (lock(&self.record).take(), status.and_then(|status| status.code()));
        if let (Some(record), Some(0)) = (record, code) {
            record.remove();
            return;
        }
        let why = match code {
            Some(UNRELEASED) => format!(
                "the labgrid coordinator {} did not answer when this command released its places",
                self.coordinator
            ),
            _ => format!(
                "labgrid's client for the coordinator {} ended before it released all places",
                self.coordinator
            ),
        };
        let text = format!("{why}; `{} boards --reap` frees what is still held", host::program());
        progress::say("warning", &text);
    }
}

/// What `reap` freed on one coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freed {
    /// The coordinator.
    pub coordinator: String,
    /// The place.
    pub place: String,
    /// Number of the process that held it.
    pub process: u32,
    /// When that process began, ns since 1970.
    pub since_unix_ns: u64,
}

/// Frees what dead processes of this host hold, on every coordinator. Also returns the errors of coordinators that did
/// not answer.
///
/// # Errors
/// If the records of this host cannot be read.
pub fn reap(python: &Path) -> Result<(Vec<Freed>, Vec<FarmError>), FarmError> {
    let dead = Record::of_the_dead(&record::folder()?)?;
    let mut coordinators: Vec<String> = dead.iter().map(|record| record.owner.coordinator.clone()).collect();
    coordinators.sort();
    coordinators.dedup();
    // Unlocked again for the client, which frees by the same records.
    drop(dead);
    let (mut freed, mut errors) = (Vec::new(), Vec::new());
    for coordinator in coordinators {
        match Client::start(python, &coordinator).and_then(|client| client.reap()) {
            Ok((reaped, error)) => {
                errors.extend(error);
                for (owner, places) in reaped {
                    freed.extend(places.into_iter().map(|place| Freed {
                        coordinator: coordinator.clone(),
                        place,
                        process: owner.process,
                        since_unix_ns: owner.since_unix_ns,
                    }));
                }
            }
            Err(error) => errors.push(error),
        }
    }
    Ok((freed, errors))
}

/// All places that a board's file asks for, free or not.
///
/// # Errors
/// If the coordinator does not answer, or there are none.
pub fn matching(python: &Path, wanted: &Labgrid, interrupt: &Interrupt) -> Result<Vec<PlaceInfo>, FarmError> {
    let all = places(python, &wanted.coordinator(), interrupt)?;
    let (found, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|place| place.fits(wanted));
    if found.is_empty() {
        return Err(FarmError::unknown(wanted, others.into_iter().map(|place| place.name).collect()));
    }
    Ok(found)
}

/// All places of a coordinator.
///
/// # Errors
/// If it does not answer.
pub fn places(python: &Path, coordinator: &str, interrupt: &Interrupt) -> Result<Vec<PlaceInfo>, FarmError> {
    Client::of(python, coordinator)?.places(interrupt)
}

/// A line of the client: the number of its request, if it has one, and the event.
fn parsed(line: &str) -> (Option<u64>, Event) {
    match serde_json::from_str::<Happened>(line) {
        Ok(Happened { id, event }) => (Some(id), event),
        Err(error) => {
            let id = serde_json::from_str::<serde_json::Value>(line)
                .ok()
                .and_then(|line| line.get("id")?.as_u64());
            (id, Event::Failed { kind: FailureKind::Bug, reason: format!("{error} in {line}") })
        }
    }
}

fn read_log(errors: ChildStderr) -> VecDeque<String> {
    let mut last = VecDeque::new();
    for line in BufReader::new(errors).lines().map_while(Result::ok) {
        tracing::debug!(target: "labgrid", "{line}");
        if last.len() == LOG_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    last
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked is reported as a bug; the others continue.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
