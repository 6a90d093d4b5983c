//! A place that is held for one board.

use super::client::{CHECK_INTERVAL, Client, PATIENCE, Sent};
use super::error::FarmError;
use super::messages::{Event, FailureKind, Request, Service};
use config::Labgrid;
use host::interrupt::Interrupt;
use host::progress;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

/// Longest time to give a place back.
const RELEASE: Duration = Duration::from_secs(40);

/// How to get a place that is in use.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience<'a> {
    /// Wait in the coordinator's queue, as long as the board's file allows and this is not set.
    Queue(&'a Interrupt),
    /// Fail.
    None,
}

/// A place that is held. Dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Lease {
    client: Arc<Client>,
    acquired: Sent,
    /// What happened to it, if it is not ours any more.
    lost: Option<String>,
    /// Its name.
    pub(crate) place: String,
    /// Where its sshd listens.
    pub(crate) service: Service,
}

impl Lease {
    /// Waits for a place and acquires it.
    ///
    /// # Errors
    /// If the coordinator does not answer, there is no such place, it cannot be had in time, or the user interrupts.
    pub(crate) fn acquire(
        python: &Path,
        wanted: &Labgrid,
        patience: Patience<'_>,
    ) -> Result<Self, FarmError> {
        let never = Interrupt::default();
        let (interrupt, only_if_free) = match patience {
            Patience::Queue(interrupt) => (interrupt, false),
            Patience::None => (&never, true),
        };
        let client = Client::of(python, &wanted.coordinator())?;
        let filter = wanted.tags();
        let acquired = client.send(Request::Acquire { filter: &filter, only_if_free })?;
        let mut queue = Queue { client: &client, wanted, begun: Instant::now(), last: None, is_lost: false };
        let outcome = queue.wait(&acquired, interrupt);
        match outcome {
            Ok(found) => {
                if queue.last.is_some() {
                    let seconds = queue.begun.elapsed().as_secs();
                    progress::say(
                        "queue",
                        &format!("acquired the place {} after {}", found.place, time(seconds)),
                    );
                }
                Ok(Self { place: found.place, service: found.service, lost: None, client, acquired })
            }
            Err(error) => {
                give_back(&client, acquired.id);
                Err(error)
            }
        }
    }

    /// The coordinator, as `host:port`.
    pub(crate) fn coordinator(&self) -> &str {
        &self.client.coordinator
    }

    /// Checks that the place is still ours, according to the coordinator's last message.
    ///
    /// # Errors
    /// If somebody took it away.
    pub(crate) fn check(&mut self) -> Result<(), FarmError> {
        loop {
            if let Some(how) = &self.lost {
                let (place, coordinator) = (self.place.clone(), self.coordinator().to_owned());
                return Err(FarmError::Taken { place, coordinator, how: how.clone() });
            }
            match self.acquired.events.try_recv() {
                Ok(Event::Lost { by, is_deleted }) => {
                    self.lost = Some(match by {
                        _ if is_deleted => "deleted".to_owned(),
                        Some(by) => format!("taken away, and is now held by {by},"),
                        None => "taken away".to_owned(),
                    });
                }
                Ok(Event::CoordinatorLost {}) => {
                    let text = format!(
                        "lost the connection to the labgrid coordinator {}; the run continues, because it reaches the board \
                         directly",
                        self.coordinator()
                    );
                    progress::say("warning", &text);
                }
                Ok(Event::CoordinatorBack { acquired_again }) => {
                    let what = if acquired_again {
                        format!("was restarted; acquired the place {} again", self.place)
                    } else {
                        format!("is back, and the place {} is still held", self.place)
                    };
                    progress::say("farm", &format!("the labgrid coordinator {} {what}", self.coordinator()));
                }
                Ok(other) => tracing::warn!("unexpected event of the place {}: {other:?}", self.place),
                // Without a client, nobody watches the place any more, but the coordinator keeps it for us.
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Cuts and restores the power of the board, because of `before`. The driver is that of labgrid's `environment` file, or
    /// follows from the place's power port.
    ///
    /// # Errors
    /// If there is no power driver, or it fails.
    pub(crate) fn power_cycle(
        &self,
        environment: Option<&str>,
        before: &str,
        interrupt: &Interrupt,
    ) -> Result<(), FarmError> {
        let failed = |reason: String| FarmError::Power {
            place: self.place.clone(),
            reason,
            before: before.to_owned(),
        };
        match self.client.ask(Request::PowerCycle { place: self.acquired.id, environment }, interrupt) {
            Ok(Event::Cycled {}) => Ok(()),
            Ok(Event::Failed { reason, .. }) => Err(failed(reason)),
            Ok(other) => Err(self.client.unexpected("its power", other)),
            Err(FarmError::Interrupted) => Err(FarmError::Interrupted),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        give_back(&self.client, self.acquired.id);
    }
}

/// Gives a place back, or leaves the queue.
fn give_back(client: &Client, place: u64) {
    let released = client.send(Request::Release { place }).and_then(|sent| {
        let answer = client.answer(&sent, RELEASE, &Interrupt::default());
        client.forget(sent.id);
        answer
    });
    client.forget(place);
    // Whatever could not be released now is tried again when the client ends, which reports a failure.
    if !matches!(released, Ok(Event::Released {})) {
        tracing::warn!("failed to release a place of {}: {released:?}", client.coordinator);
    }
}

/// The wait for a place.
struct Queue<'a> {
    client: &'a Client,
    wanted: &'a Labgrid,
    begun: Instant,
    /// The last reported position and holders.
    last: Option<(usize, Vec<String>)>,
    /// Whether the coordinator has gone since then.
    is_lost: bool,
}

impl Queue<'_> {
    fn wait(&mut self, sent: &Sent, interrupt: &Interrupt) -> Result<super::messages::Acquired, FarmError> {
        let (wanted, coordinator) = (self.wanted.describe(), self.client.coordinator.clone());
        loop {
            let elapsed = self.begun.elapsed();
            match sent.events.recv_timeout(CHECK_INTERVAL) {
                Ok(Event::Acquired(acquired)) => return Ok(acquired),
                Ok(Event::Waiting { position, holders }) => {
                    let text = format!(
                        "number {position} for a {wanted} of {coordinator}, after {} (held: {})",
                        time(elapsed.as_secs()),
                        holders.join(", ")
                    );
                    progress::say("queue", &text);
                    self.is_lost = false;
                    self.last = Some((position, holders));
                }
                Ok(Event::CoordinatorLost {}) => {
                    let text = format!(
                        "lost the connection to the labgrid coordinator {coordinator}; trying to reconnect until \
                         `wait_minutes` have passed"
                    );
                    progress::say("warning", &text);
                    self.is_lost = true;
                }
                Ok(Event::None { places }) => return Err(FarmError::unknown(self.wanted, places)),
                Ok(Event::Busy { holders }) => return Err(FarmError::Busy { wanted, coordinator, holders }),
                Ok(Event::Failed { kind: FailureKind::Broken | FailureKind::Gone, reason }) => {
                    return Err(FarmError::Refused { wanted, coordinator, reason });
                }
                Ok(other) => return Err(self.client.unexpected(&wanted, other)),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self
                        .client
                        .ask(Request::Places {}, interrupt)
                        .err()
                        .unwrap_or_else(|| FarmError::Bug { answer: "it lost a request".to_owned() }));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if interrupt.is_set() {
                return Err(FarmError::Interrupted);
            }
            if self.is_lost && elapsed >= self.wanted.wait() {
                let reason = format!(
                    "it stopped answering while this command waited for a {wanted}, and did not answer again in time"
                );
                return Err(FarmError::Unreachable { coordinator, reason });
            }
            match &self.last {
                Some((position, holders)) if elapsed >= self.wanted.wait() => {
                    let (position, holders) = (*position, holders.clone());
                    return Err(FarmError::Deadline {
                        wanted,
                        coordinator,
                        after: elapsed,
                        position,
                        holders,
                    });
                }
                // The coordinator has not even put us into the queue.
                None if !self.is_lost && elapsed >= PATIENCE => {
                    return Err(self.client.failed(&format!("no answer within {} s", PATIENCE.as_secs())));
                }
                _ => {}
            }
        }
    }
}

/// A time in words.
fn time(seconds: u64) -> String {
    if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds / 60) }
}
