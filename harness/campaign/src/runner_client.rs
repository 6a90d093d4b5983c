//! Sends requests to the runner on a board, and restarts the runner if it has ended.

use boards::{Board, PowerCycle, Session, SessionError};
use host::interrupt::Interrupt;
use host::progress;
use protocol::{AppliedState, Clocks, Event, MachineState, Request, SavedState, StateRequest};
use std::time::Duration;

/// Timeout of requests that measure nothing.
const PROMPT: Duration = Duration::from_secs(30);

/// Longest time to load libraries, weights and frames, in addition to what a request measures.
pub(crate) const LOADING: Duration = Duration::from_secs(60);

/// The same for a schedule: TensorRT builds its engines while it loads, and cuDNN compares algorithms in the first frame.
pub(crate) fn loading_time(schedule: &domain::Schedule) -> Duration {
    let on_gpu = schedule.as_peer().is_some_and(|peer| peer.gpu.is_some());
    if on_gpu { LOADING * 15 } else { LOADING }
}

/// How often a request is sent if the connection is lost each time.
const ATTEMPTS: u32 = 3;

/// A client of the runner on one board. Starts the runner at the first request.
#[derive(Debug)]
pub struct RunnerClient {
    board: Board,
    interrupt: Interrupt,
    session: Option<Session>,
    next_id: u64,
}

impl RunnerClient {
    /// A client that has not started the runner yet.
    pub fn new(board: Board, interrupt: Interrupt) -> Self {
        Self { board, interrupt, session: None, next_id: 1 }
    }

    /// Sends the request that `make` builds for a fresh number, and waits for its answer. `task` completes
    /// "failed to …". Repeats the request if the connection is lost.
    ///
    /// # Errors
    /// As [`Session::request`]. If the runner has ended, the next call starts a new one.
    pub fn request(
        &mut self,
        task: &str,
        timeout: Duration,
        make: impl Fn(u64) -> Request,
    ) -> Result<Event, SessionError> {
        for _ in 1..ATTEMPTS {
            match self.request_once(task, timeout, &make) {
                Err(error) if error.is_lost_link() => {
                    progress::say("warning", &format!("{error}; retrying"));
                }
                answer => return answer,
            }
        }
        self.request_once(task, timeout, &make)
    }

    /// As [`RunnerClient::request`], without repetition.
    ///
    /// # Errors
    /// As [`RunnerClient::request`].
    pub fn request_once(
        &mut self,
        task: &str,
        timeout: Duration,
        make: impl Fn(u64) -> Request,
    ) -> Result<Event, SessionError> {
        if self.interrupt.is_set() {
            return Err(SessionError::Interrupted);
        }
        if let Some(reason) = self.session.as_mut().and_then(Session::lost) {
            progress::say("warning", &format!("{reason}; starting it again"));
            self.session = None;
            self.board.disconnect();
        }
        let mut request = make(self.next_id);
        self.next_id += 1;
        self.board.deploy(&mut request)?;
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::new(self.board.start()?)?,
        };
        let answer = session.request(&request, task, timeout, &self.interrupt);
        if answer.as_ref().is_err_and(SessionError::is_lost_link) {
            self.board.disconnect();
        }
        // Somebody else may have used the board meanwhile.
        self.board.check_held()?;
        if !answer.as_ref().is_err_and(SessionError::ends_session) {
            self.session = Some(session);
        }
        answer
    }

    /// Reads the board's state.
    ///
    /// # Errors
    /// As [`RunnerClient::request`].
    pub fn state(&mut self) -> Result<MachineState, SessionError> {
        self.read_state(false)
    }

    /// Reads the board's state, including what takes up to a second.
    ///
    /// # Errors
    /// As [`RunnerClient::request`].
    pub fn whole_state(&mut self) -> Result<MachineState, SessionError> {
        self.read_state(true)
    }

    fn read_state(&mut self, thorough: bool) -> Result<MachineState, SessionError> {
        let task = "read the board's state";
        let sysfs = self.board.sysfs().to_owned();
        match self.request(task, PROMPT, |id| Request::State { id, sysfs: sysfs.clone(), thorough })? {
            Event::State { state, .. } => Ok(*state),
            other => Err(self.unexpected(task, &other)),
        }
    }

    /// Path of the board's sysfs.
    pub fn sysfs(&self) -> &str {
        self.board.sysfs()
    }

    /// The power cycles of the board since the last call.
    pub fn take_power_cycles(&mut self) -> Vec<PowerCycle> {
        self.board.take_power_cycles()
    }

    /// Brings the board to the state that its file asks for.
    ///
    /// # Errors
    /// If the board cannot reach that state.
    pub fn bring(&mut self) -> Result<AppliedState, SessionError> {
        self.board.bring(&self.interrupt)
    }

    /// Brings the board to another state, in which it stays.
    ///
    /// # Errors
    /// If the board cannot reach that state.
    pub fn bring_to(&mut self, asked: StateRequest) -> Result<AppliedState, SessionError> {
        self.board.bring_to(asked, &self.interrupt)
    }

    /// The frequencies, governors and power modes that the board offers in its present power mode; `memory`: those of the
    /// memory clock too.
    ///
    /// # Errors
    /// As [`RunnerClient::request`].
    pub fn clocks(&mut self, memory: bool) -> Result<Clocks, SessionError> {
        let task = "read the board's clocks";
        let sysfs = self.board.sysfs().to_owned();
        match self.request(task, PROMPT, |id| Request::Clocks { id, sysfs: sysfs.clone(), memory })? {
            Event::Clocks(clocks) => Ok(clocks),
            other => Err(self.unexpected(task, &other)),
        }
    }

    /// Ends the runner and restores the board's original state.
    ///
    /// # Errors
    /// If the state cannot be restored.
    pub fn close(&mut self) -> Result<(), SessionError> {
        self.end();
        let differences = self.board.restore()?;
        if !differences.is_empty() {
            let text = format!("the board's state was restored, except: {}", differences.join("; "));
            progress::say("warning", &text);
        }
        Ok(())
    }

    /// What is to be restored on the board, if anything.
    ///
    /// # Errors
    /// If the board does not answer.
    pub fn pending(&mut self) -> Result<Option<SavedState>, SessionError> {
        self.board.pending()
    }

    /// The error for an answer of the wrong kind. Ends the runner.
    pub fn unexpected(&mut self, task: &str, event: &Event) -> SessionError {
        self.session = None;
        let printed: String = format!("{event:?}").chars().take(120).collect();
        SessionError::Garbage { during: task.to_owned(), printed, log: String::new() }
    }

    /// Version of the runner, once it has been started.
    pub fn runner_version(&self) -> Option<&str> {
        self.session.as_ref().map(|session| session.hello.runner.as_str())
    }

    /// Ends the runner.
    pub fn end(&mut self) {
        self.session = None;
    }
}

impl Drop for RunnerClient {
    fn drop(&mut self) {
        // After `close` there is nothing left to restore.
        if let Err(error) = self.close() {
            progress::say("warning", &error.to_string());
        }
    }
}
