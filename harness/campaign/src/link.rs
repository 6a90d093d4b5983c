//! The campaign's line to the board: a runner that is started again when it is gone.

use boards::Board;
use boards::session::{Session, SessionError};
use host::interrupt::Interrupt;
use host::progress;
use protocol::{AppliedState, Event, MachineState, Request, SavedState};
use std::time::Duration;

/// Time given to answers that need no measuring.
const PROMPT: Duration = Duration::from_secs(30);

/// Links that may be lost over one request before it is given up.
const LOST_LINKS: u32 = 3;

/// A runner, or the means to start one.
#[derive(Debug)]
pub struct Link {
    board: Board,
    interrupt: Interrupt,
    session: Option<Session>,
    next_id: u64,
}

impl Link {
    /// Nothing is started yet.
    pub fn new(board: Board, interrupt: Interrupt) -> Self {
        Self { board, interrupt, session: None, next_id: 1 }
    }

    /// Sends the request that `make` builds for a fresh number, and waits for its answer. `during` completes
    /// "failed to …". Where the link is lost, it is sent once more over a new one.
    ///
    /// # Errors
    /// As [`Session::request`]; the next call starts a new runner where this one is gone.
    pub fn request(
        &mut self,
        during: &str,
        patience: Duration,
        make: impl Fn(u64) -> Request,
    ) -> Result<Event, SessionError> {
        for _ in 1..LOST_LINKS {
            match self.request_once(during, patience, &make) {
                Err(error) if error.is_lost_link() => {
                    progress::say("warning", &format!("{error}; it is done again"));
                }
                answer => return answer,
            }
        }
        self.request_once(during, patience, &make)
    }

    /// As [`Link::request`], but what a lost link cuts off is not done again.
    ///
    /// # Errors
    /// As [`Link::request`].
    pub fn request_once(
        &mut self,
        during: &str,
        patience: Duration,
        make: impl Fn(u64) -> Request,
    ) -> Result<Event, SessionError> {
        if self.interrupt.is_set() {
            return Err(SessionError::Interrupted);
        }
        let mut request = make(self.next_id);
        self.next_id += 1;
        self.board.place(&mut request)?;
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::new(self.board.start()?)?,
        };
        let answer = session.request(&request, during, patience, &self.interrupt);
        if !answer.as_ref().is_err_and(SessionError::ends_session) {
            self.session = Some(session);
        }
        answer
    }

    /// The board's state.
    ///
    /// # Errors
    /// As [`Link::request`].
    pub fn state(&mut self) -> Result<MachineState, SessionError> {
        self.read_state(false)
    }

    /// The same with what takes a moment.
    ///
    /// # Errors
    /// As [`Link::request`].
    pub fn whole_state(&mut self) -> Result<MachineState, SessionError> {
        self.read_state(true)
    }

    fn read_state(&mut self, thorough: bool) -> Result<MachineState, SessionError> {
        let during = "read the board's state";
        let sysfs = self.board.sysfs().to_owned();
        match self.request(during, PROMPT, |id| Request::State { id, sysfs: sysfs.clone(), thorough })? {
            Event::State { state, .. } => Ok(*state),
            other => Err(self.unexpected(during, &other)),
        }
    }

    /// Where the board's sysfs is.
    pub fn sysfs(&self) -> &str {
        self.board.sysfs()
    }

    /// Brings the board to the state its file asks for, or back to it.
    ///
    /// # Errors
    /// Where it does not become that.
    pub fn bring(&mut self) -> Result<AppliedState, SessionError> {
        self.board.bring(&self.interrupt)
    }

    /// Ends the runner and restores the state that was found on the board.
    ///
    /// # Errors
    /// Where it cannot be restored.
    pub fn close(&mut self) -> Result<(), SessionError> {
        self.end();
        let differences = self.board.restore()?;
        if !differences.is_empty() {
            let text = format!("the board's state is restored but for: {}", differences.join("; "));
            progress::say("warning", &text);
        }
        Ok(())
    }

    /// What is to be restored on the board, if anything.
    ///
    /// # Errors
    /// Where the board does not tell.
    pub fn pending(&mut self) -> Result<Option<SavedState>, SessionError> {
        self.board.pending()
    }

    /// An answer of the wrong kind: the runner is not what it says, and is ended.
    pub fn unexpected(&mut self, during: &str, event: &Event) -> SessionError {
        self.session = None;
        let printed: String = format!("{event:?}").chars().take(120).collect();
        SessionError::Garbage { during: during.to_owned(), printed, log: String::new() }
    }

    /// Version of the runner's package, once it has been started.
    pub fn runner_version(&self) -> Option<&str> {
        self.session.as_ref().map(|session| session.hello.runner.as_str())
    }

    /// Ends the runner.
    pub fn end(&mut self) {
        self.session = None;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Where it was closed, there is nothing left to restore. Otherwise an error ended the campaign, which is told
        // as well.
        if let Err(error) = self.close() {
            progress::say("warning", &error.to_string());
        }
    }
}
