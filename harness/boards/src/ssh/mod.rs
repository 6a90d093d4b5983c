//! SSH: finds the route to a host from OpenSSH's configuration, logs in, and runs programs.

mod account;
mod config_file;
mod connection;
mod error;
mod job;
mod keys;
mod known_hosts;
mod login;
mod openssh;
mod options;
mod pattern;
mod proxy;
mod pump;
mod route;
mod script;
mod socket;
mod status;
mod tokens;

pub use connection::{Connection, skip_noise};
pub use error::SshError;
pub use job::{Job, Output};
pub use options::Address;
pub use pump::Opened;
pub use route::{Hop, route};
pub use script::quoted;
