//! Boards of a farm: places of a labgrid coordinator, which queues users and controls power.

mod client;
mod error;
mod lease;
mod messages;
mod record;

pub use client::{Freed, matching, places, reap};
pub use error::FarmError;
pub(crate) use lease::{Lease, Patience};
pub use messages::{PlaceInfo, Service};
