//! Boards: taking one for oneself, and the processors on it.

mod detect;
pub mod kit;
mod lock;

pub use detect::{DetectError, Found, detect};
pub use lock::{BoardLock, LockError};
