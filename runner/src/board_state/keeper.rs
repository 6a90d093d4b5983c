//! Keeps the state of a board for one session.

use super::saved::{self, StateFolder};
use super::{apply, settings};
use protocol::{AppliedState, SavedState, Settings, StateCommand, StateReply, StateRequest};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// Time for a session that ends to restore the state; the next session waits for it.
const RESTORING: Duration = Duration::from_secs(150);

#[derive(Debug)]
pub(crate) struct StateKeeper {
    session: String,
    folder: Result<StateFolder, String>,
    /// Held from the first request that changes something to the end of the session.
    lock: Option<File>,
    /// What is to be restored, after the first change.
    changed: Option<SavedState>,
    /// The settings after the last change.
    set: Option<Settings>,
}

impl StateKeeper {
    /// `session` is the name that other sessions see.
    pub(crate) fn new(session: String) -> Self {
        Self { session, folder: StateFolder::find(), lock: None, changed: None, set: None }
    }

    /// Executes a command, which is one line, and returns the reply.
    pub(crate) fn answer(&mut self, line: &[u8]) -> StateReply {
        match serde_json::from_slice(line) {
            Ok(StateCommand::Set(request)) => match self.set_state(&request) {
                Ok(applied) => StateReply::Set(Box::new(applied)),
                Err(message) => StateReply::Failed { message },
            },
            Ok(StateCommand::Restore {}) => match self.restore() {
                Ok(differences) => StateReply::Restored { differences },
                Err(message) => {
                    let remedy = "the next session will try again, or run `boards --restore BOARD` now";
                    StateReply::Failed {
                        message: format!("failed to restore the board's state: {message}; {remedy}"),
                    }
                }
            },
            Err(error) => StateReply::Failed {
                message: format!("failed to read a command for the board's state: {error}"),
            },
        }
    }

    /// Sets the requested state, after restoring what another session left behind. A second request sets again what has
    /// changed since; what is restored in the end is still what the first request found.
    fn set_state(&mut self, request: &StateRequest) -> Result<AppliedState, String> {
        let failed = |why: String| format!("failed to set the state that the board's file requests: {why}");
        let sysfs = Path::new(&request.sysfs);
        let folder = match self.folder.clone() {
            Ok(folder) => folder,
            Err(_) if request.is_nothing() => return Ok(unchanged(sysfs, None)),
            Err(why) => return Err(failed(why)),
        };
        // Another power mode, and clocks that are no longer set, start from what was found.
        if self.changed.as_ref().is_some_and(|changed| !request.differs_in_values_only(&changed.request)) {
            let differences = self.restore().map_err(failed)?;
            if !differences.is_empty() {
                return Err(failed(format!(
                    "the state before it could not be restored: {}",
                    differences.join("; ")
                )));
            }
            self.set = None;
            if request.is_nothing() {
                return Ok(unchanged(sysfs, None));
            }
        }
        if request.is_nothing() {
            // A session that changes nothing does not lock the state for its whole duration.
            let mut restored = None;
            if folder.file().exists() {
                let _lock = folder.lock(RESTORING).map_err(failed)?;
                restored = leftover(&folder)?;
            }
            return Ok(unchanged(sysfs, restored));
        }
        if self.lock.is_none() {
            folder.create().map_err(failed)?;
            self.lock = folder.lock(RESTORING).map_err(failed)?;
        }
        let leftover = match &self.changed {
            Some(_) => None,
            None => leftover(&folder)?,
        };
        let before = settings::read(request).map_err(failed)?;
        let found = self.changed.as_ref().map_or_else(|| before.clone(), |pending| pending.found.clone());
        let number = match &self.set {
            _ if self.changed.is_none() => apply::RequestNumber::First,
            Some(set) if set.changes_to(&before).is_empty() => apply::RequestNumber::LaterUnchanged,
            _ => apply::RequestNumber::LaterChanged,
        };
        let plan = apply::Plan::new(request, &before, &folder, number).map_err(failed)?;
        if plan.is_empty() {
            return Ok(AppliedState { leftover, set: before, found });
        }
        plan.check().map_err(failed)?;
        if self.changed.is_none() {
            plan.store_clocks(&folder).map_err(failed)?;
            let pending = SavedState {
                version: saved::VERSION,
                by: self.session.clone(),
                boot: apply::boot_id(),
                request: request.clone(),
                found: found.clone(),
                governors: Vec::new(),
                cpu_limits: Vec::new(),
                gpu_limits: None,
                memory_clock: None,
            };
            folder.write(&pending).map_err(failed)?;
            self.changed = Some(pending);
        }
        let applied = match &mut self.changed {
            Some(pending) => plan.apply(&folder, pending),
            None => Err("the previous state was not saved".to_owned()),
        };
        match applied {
            Ok(set) => {
                self.set = Some(set.clone());
                Ok(AppliedState { leftover, found, set })
            }
            Err(why) => {
                let restored = match self.restore() {
                    Ok(_) => "the changes were undone".to_owned(),
                    Err(error) => format!("failed to undo the changes: {error}"),
                };
                Err(failed(format!("{why}; {restored}")))
            }
        }
    }

    /// Restores what was found. Returns the settings that were not restored.
    pub(crate) fn restore(&mut self) -> Result<Vec<String>, String> {
        let (Some(pending), Ok(folder)) = (&self.changed, &self.folder) else { return Ok(Vec::new()) };
        let differences = apply::restore(pending, folder)?;
        folder.clear()?;
        self.changed = None;
        Ok(differences)
    }
}

/// The answer if nothing is requested.
fn unchanged(sysfs: &Path, leftover: Option<Box<SavedState>>) -> AppliedState {
    // The power mode may stay unknown, because it was not requested.
    let found = settings::read_with(sysfs, settings::power_mode().unwrap_or(None));
    AppliedState { leftover, set: found.clone(), found }
}

/// Restores what another session left behind.
fn leftover(folder: &StateFolder) -> Result<Option<Box<SavedState>>, String> {
    let failed = |why: String| format!("failed to restore the state that another session left behind: {why}");
    let Some(pending) = folder.read().map_err(failed)? else { return Ok(None) };
    match apply::restore(&pending, folder) {
        Ok(_) => folder.clear().map(|()| Some(Box::new(pending))).map_err(failed),
        Err(why) => Err(format!(
            "failed to restore the state that the session of {} left behind: {why}; if the state still cannot be restored, restore it by \
             hand as {} describes it, then remove this file",
            pending.by,
            folder.file().display()
        )),
    }
}

/// Restores what a session left behind, if no session keeps the board's state now. Returns what it was.
///
/// # Errors
/// If it cannot be restored. The message starts with "failed to".
pub(crate) fn restore_leftover(max_wait: Duration) -> Result<Option<SavedState>, String> {
    let failed = |why: String| format!("failed to restore the board's state: {why}");
    // Without a home folder, no session can have changed anything.
    let Ok(folder) = StateFolder::find() else { return Ok(None) };
    let _lock = folder.lock(max_wait).map_err(failed)?;
    Ok(leftover(&folder)?.map(|pending| *pending))
}

/// What is to be restored on this board.
///
/// # Errors
/// As [`StateFolder::read`].
pub(crate) fn pending() -> Result<Option<SavedState>, String> {
    StateFolder::find().map_or(Ok(None), |folder| folder.read())
}
