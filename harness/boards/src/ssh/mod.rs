//! SSH: finding out how to reach a host, logging in, and running programs there.

mod account;
mod config_file;
mod connection;
mod error;
mod job;
mod keys;
mod known_hosts;
mod login;
mod openssh;
mod proxy;
mod pump;
mod script;
mod settings;
mod tokens;

pub use connection::{Connection, skip_noise};
pub use error::SshError;
pub use job::{Job, Output};
pub use pump::Opened;
pub use script::quoted;
pub use settings::{Address, Hop, route};
