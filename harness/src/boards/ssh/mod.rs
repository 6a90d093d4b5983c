//! SSH: finding out how to reach a host, logging in, and running programs there.

mod connection;
mod error;
mod keys;
mod known_hosts;
mod login;
mod pump;
mod script;
mod settings;

pub use connection::{Connection, Output, skip_noise};
pub use error::SshError;
pub use pump::Opened;
pub use script::quoted;
pub use settings::{Address, Hop, route};
