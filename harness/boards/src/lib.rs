//! Boards: reaching one, taking it for oneself, and the processors on it.

mod board;
mod deploy;
mod detect;
mod holder;
mod keeper;
pub mod process;
mod remote;
pub mod session;
pub mod ssh;

pub use board::Board;
pub use detect::{DetectError, Found, detect};
pub use holder::holder;
pub use remote::{Remote, RemoteError, SILENCE};
pub use session::{Session, SessionError};

/// Says what another session had left to be restored on a board, which has been done.
fn tell_leftover(board: &str, brought: &protocol::AppliedState) {
    if let Some(leftover) = &brought.leftover {
        let text = format!(
            "{board} was still in the state that a session had left it in ({}); it was restored first",
            leftover.by
        );
        host::progress::say("note", &text);
    }
}
