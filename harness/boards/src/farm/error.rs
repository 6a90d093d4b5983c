//! Why a place of a labgrid coordinator cannot be used.

use config::Labgrid;
use host::exit::{Coded, Exit};
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Why a place cannot be used, or no longer.
#[derive(Debug, Error)]
pub enum FarmError {
    /// The program that talks to the coordinator does not run.
    #[error("failed to run labgrid's client for the coordinator {coordinator}: {reason}")]
    Client {
        /// The coordinator.
        coordinator: String,
        /// Why.
        reason: String,
    },
    /// The places that this process holds cannot be recorded.
    #[error("failed to record the places of this process in {}: {reason}", path.display())]
    Record {
        /// File or folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The coordinator does not answer.
    #[error(
        "failed to reach the labgrid coordinator {coordinator}: {reason}; check `coordinator` in the board's file, and \
         whether `labgrid-coordinator` runs there"
    )]
    Unreachable {
        /// The coordinator.
        coordinator: String,
        /// Why.
        reason: String,
    },
    /// There is no such place.
    #[error(
        "failed to find a {wanted} on the labgrid coordinator {coordinator}: it has {}{hint}",
        listed(places)
    )]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// The coordinator.
        coordinator: String,
        /// Places that exist.
        places: Vec<String>,
        /// A similar name or the remedy.
        hint: String,
    },
    /// All places are held.
    #[error("failed to get a {wanted} from {coordinator}: it is in use ({})", holders.join(", "))]
    Busy {
        /// What was asked for.
        wanted: String,
        /// The coordinator.
        coordinator: String,
        /// Who holds what.
        holders: Vec<String>,
    },
    /// The queue took too long.
    #[error(
        "failed to get a {wanted} from {coordinator} within {} min: number {position} in the queue ({}). To wait longer, \
         raise `wait_minutes` in the board's file; if the holder of a place is gone, free it with \
         `labgrid-client -p PLACE release-from HOST/USER`",
        after.as_secs() / 60,
        holders.join(", ")
    )]
    Deadline {
        /// What was asked for.
        wanted: String,
        /// The coordinator.
        coordinator: String,
        /// Time spent.
        after: Duration,
        /// Place in the queue.
        position: usize,
        /// Who holds what.
        holders: Vec<String>,
    },
    /// The coordinator, or each place, refuses.
    #[error("failed to get a {wanted} from {coordinator}: {reason}")]
    Refused {
        /// What was asked for.
        wanted: String,
        /// The coordinator.
        coordinator: String,
        /// Why.
        reason: String,
    },
    /// Somebody took the place away.
    #[error("failed to continue: the place {place} was {how} on the labgrid coordinator {coordinator}")]
    Taken {
        /// The place.
        place: String,
        /// The coordinator.
        coordinator: String,
        /// What happened to it.
        how: String,
    },
    /// The power driver failed.
    #[error("failed to power-cycle the place {place}: {reason}; before that: {before}")]
    Power {
        /// The place.
        place: String,
        /// Why.
        reason: String,
        /// Why it was to be power-cycled.
        before: String,
    },
    /// The client broke a rule of its protocol.
    #[error("unexpected answer from labgrid's client: {answer}; report this bug")]
    Bug {
        /// What it answered.
        answer: String,
    },
    /// The user pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl FarmError {
    /// There is no place that a board's file asks for; the coordinator has `places`.
    pub(super) fn unknown(wanted: &Labgrid, places: Vec<String>) -> Self {
        let coordinator = wanted.coordinator();
        let hint = match wanted.place() {
            Some(name) => config::did_you_mean(name, places.iter().map(String::as_str)),
            None => format!("; `{} farm {coordinator}` shows their tags", host::program()),
        };
        Self::Unknown { wanted: wanted.describe(), coordinator, places, hint }
    }
}

fn listed(places: &[String]) -> String {
    match places {
        [] => "no place".to_owned(),
        [one] => format!("the place {one}"),
        several => format!("the places {}", several.join(", ")),
    }
}

impl Coded for FarmError {
    fn exit(&self) -> Exit {
        match self {
            Self::Unknown { .. } | Self::Record { .. } => Exit::Usage,
            Self::Bug { .. } => Exit::Bug,
            Self::Interrupted => Exit::Trial,
            _ => Exit::Board,
        }
    }
}
