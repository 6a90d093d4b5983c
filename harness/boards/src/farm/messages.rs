//! Requests to labgrid's client and its events, as JSON lines.

use config::Labgrid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A request. Its answer has the same number.
#[derive(Debug, Serialize)]
pub(super) struct Numbered<'a> {
    pub(super) id: u64,
    #[serde(flatten)]
    pub(super) request: Request<'a>,
}

/// What the client is asked to do. A place is named by the number of the request that acquired it.
#[derive(Debug, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(super) enum Request<'a> {
    Places {},
    Reap {
        owners: Vec<String>,
    },
    Acquire {
        filter: &'a BTreeMap<String, String>,
        /// Fail instead of waiting.
        only_if_free: bool,
    },
    PowerCycle {
        place: u64,
        environment: Option<&'a str>,
    },
    Release {
        place: u64,
    },
}

/// An event about a request, or about the place that it acquired.
#[derive(Debug, Deserialize)]
pub(super) struct Happened {
    pub(super) id: u64,
    #[serde(flatten)]
    pub(super) event: Event,
}

/// An event.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
    Places {
        places: Vec<PlaceInfo>,
    },
    Reaped {
        places: Vec<String>,
    },
    /// No place has these tags; these places exist.
    None {
        places: Vec<String>,
    },
    /// All places are held, and the request does not wait.
    Busy {
        holders: Vec<String>,
    },
    /// The request waits, as number `position` in the queue.
    Waiting {
        position: usize,
        holders: Vec<String>,
    },
    Acquired(Acquired),
    Cycled {},
    Released {},
    Failed {
        kind: FailureKind,
        reason: String,
    },
    /// The place is not ours any more.
    Lost {
        by: Option<String>,
        is_deleted: bool,
    },
    CoordinatorLost {},
    CoordinatorBack {
        acquired_again: bool,
    },
}

/// A place that was acquired.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Acquired {
    pub(super) place: String,
    #[serde(flatten)]
    pub(super) service: Service,
}

/// The NetworkService of a place: where its sshd listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Service {
    /// Host name or address.
    pub address: String,
    /// User on the board.
    pub username: String,
    /// Port.
    pub port: u16,
}

/// A place as the coordinator knows it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct PlaceInfo {
    /// Its name.
    pub name: String,
    /// Other names that labgrid's client takes for it.
    pub aliases: Vec<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its comment.
    pub comment: String,
    /// Who holds it, as `host/user`.
    pub holder: Option<String>,
    /// Whom it is reserved for, as `host/user`.
    pub reserved_by: Option<String>,
    /// When it was changed last, such as acquired or released: seconds since 1970.
    pub changed_unix_s: f64,
    /// Where its sshd listens; absent if no exporter provides it.
    pub service: Option<Service>,
}

impl PlaceInfo {
    /// Whether a board's file asks for it: by its name, an alias, or its tags.
    pub fn fits(&self, wanted: &Labgrid) -> bool {
        wanted.tags().iter().all(|(key, value)| match key.as_str() {
            "name" => self.name == *value || self.aliases.contains(value),
            _ => self.tags.get(key) == Some(value),
        })
    }

    /// Whether it can be had now.
    pub fn is_free(&self) -> bool {
        self.holder.is_none() && self.reserved_by.is_none() && self.service.is_some()
    }
}

/// Kinds of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FailureKind {
    /// The coordinator does not answer.
    Unreachable,
    /// Something else answers.
    Foreign,
    /// The coordinator refused.
    Refused,
    /// No place with these tags can be used.
    Broken,
    /// The places disappeared while the request waited.
    Gone,
    /// The power driver failed.
    Power,
    /// The request was cancelled.
    Cancelled,
    /// A bug of the client.
    Bug,
}
