//! Boards: reaching one, locking it, bringing it to a state, and starting runners on it.

mod board;
mod deploy;
mod detect;
mod ending;
mod error;
pub mod farm;
mod files;
mod keeper;
mod lock;
mod process;
mod programs;
mod remote;
mod session;
pub mod ssh;

pub use board::Board;
pub use detect::{DetectError, Found, detect};
pub use ending::{End, Ending};
pub use error::RemoteError;
pub use process::Process;
pub use programs::Programs;
pub use remote::{PowerCycle, Remote};
pub use session::{Session, SessionError};
