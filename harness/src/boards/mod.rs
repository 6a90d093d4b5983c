//! Boards: reaching one, taking it for oneself, and the processors on it.

mod board;
mod deploy;
mod detect;
pub mod inspection;
pub mod kit;
mod lock;
pub mod process;
mod remote;
pub mod ssh;

pub use board::Board;
pub use detect::{DetectError, Found, detect};
pub use lock::{BoardLock, LockError, holder};
pub use remote::{Remote, RemoteError, SILENCE};
