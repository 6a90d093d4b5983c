//! Keeping a board's state: bringing it to what is asked, and restoring what was found, whatever ends the session.

mod act;
mod pending;
pub(crate) mod programs;
pub(crate) mod settings;

pub(crate) use pending::Folder;

use protocol::{Asked, Brought, Keep, Kept, Pending, Settings};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A session that ends restores within this time, and the next one waits for it.
const OTHERS: Duration = Duration::from_secs(150);

/// Keeps the state of this board for one session.
#[derive(Debug)]
pub(crate) struct Keeper {
    by: String,
    /// Why there is none, otherwise.
    folder: Result<Folder, String>,
    /// Held from the first request to the end.
    lock: Option<File>,
    /// What was found, once something has been changed.
    changed: Option<Pending>,
    /// What was set then.
    set: Option<Settings>,
}

impl Keeper {
    /// Nothing is looked at yet. `by` names the session, for others.
    pub(crate) fn new(by: String) -> Self {
        Self { by, folder: Folder::find(), lock: None, changed: None, set: None }
    }

    /// Answers a line.
    pub(crate) fn answer(&mut self, line: &[u8]) -> Kept {
        match serde_json::from_slice(line) {
            Ok(Keep::Bring(asked)) => match self.bring(&asked) {
                Ok(brought) => Kept::Brought(Box::new(brought)),
                Err(message) => Kept::Failed { message },
            },
            Ok(Keep::Restore {}) => match self.restore() {
                Ok(differences) => Kept::Restored { differences },
                Err(message) => {
                    let remedy =
                        "the next session tries it again, and `cargo xtask boards --restore BOARD` does now";
                    Kept::Failed {
                        message: format!("failed to restore the board's state: {message}; {remedy}"),
                    }
                }
            },
            Err(error) => {
                Kept::Failed { message: format!("failed to read what to do with the board's state: {error}") }
            }
        }
    }

    /// Brings the board to what is asked, after restoring what another session left behind. A second time it brings
    /// back what has changed since; what was found the first time stays what is restored.
    fn bring(&mut self, asked: &Asked) -> Result<Brought, String> {
        let failed = |why: String| format!("failed to bring the board to the state its file asks for: {why}");
        let sysfs = Path::new(&asked.sysfs);
        let folder = match self.folder.clone() {
            Ok(folder) => folder,
            Err(_) if asked.is_nothing() => return Ok(as_it_is(sysfs, None)),
            Err(why) => return Err(failed(why)),
        };
        if asked.is_nothing() {
            // Nothing is kept from others for the length of a session that changes nothing.
            let mut restored = None;
            if folder.file().exists() {
                let _lock = folder.lock(OTHERS).map_err(failed)?;
                restored = leftover(&folder)?;
            }
            return Ok(as_it_is(sysfs, restored));
        }
        if self.lock.is_none() {
            folder.create().map_err(failed)?;
            self.lock = folder.lock(OTHERS).map_err(failed)?;
        }
        let leftover = match &self.changed {
            Some(_) => None,
            None => leftover(&folder)?,
        };
        let before = settings::read(asked).map_err(failed)?;
        let found = self.changed.as_ref().map_or_else(|| before.clone(), |pending| pending.found.clone());
        let turn = match &self.set {
            _ if self.changed.is_none() => act::Turn::First,
            Some(set) if set.changes_to(&before).is_empty() => act::Turn::Unchanged,
            _ => act::Turn::Changed,
        };
        let plan = act::Plan::new(asked, &before, &folder, turn).map_err(failed)?;
        if plan.is_nothing() {
            return Ok(Brought { leftover, set: before, found });
        }
        plan.check().map_err(failed)?;
        if self.changed.is_none() {
            plan.store_clocks(&folder).map_err(failed)?;
            let pending = Pending {
                version: pending::VERSION,
                by: self.by.clone(),
                boot: act::boot(),
                asked: asked.clone(),
                found: found.clone(),
                governors: Vec::new(),
            };
            folder.write(&pending).map_err(failed)?;
            self.changed = Some(pending);
        }
        let applied = match &mut self.changed {
            Some(pending) => plan.apply(&folder, pending),
            None => Err("nothing was written of how the board was".to_owned()),
        };
        match applied {
            Ok(set) => {
                self.set = Some(set.clone());
                Ok(Brought { leftover, found, set })
            }
            Err(why) => {
                let restored = match self.restore() {
                    Ok(_) => "what was changed is restored".to_owned(),
                    Err(error) => format!("what was changed could not be restored: {error}"),
                };
                Err(failed(format!("{why}; {restored}")))
            }
        }
    }

    /// Restores what was found. Says what is not as it was all the same.
    pub(crate) fn restore(&mut self) -> Result<Vec<String>, String> {
        let (Some(pending), Ok(folder)) = (&self.changed, &self.folder) else { return Ok(Vec::new()) };
        let differences = act::restore(pending, folder)?;
        folder.clear()?;
        self.changed = None;
        Ok(differences)
    }
}

/// A board of which nothing is asked.
fn as_it_is(sysfs: &Path, leftover: Option<Box<Pending>>) -> Brought {
    // A power mode that nobody asks for may stay unknown.
    let found = settings::read_with(sysfs, settings::power_mode().unwrap_or(None));
    Brought { leftover, set: found.clone(), found }
}

/// Restores what another session left behind.
fn leftover(folder: &Folder) -> Result<Option<Box<Pending>>, String> {
    let failed =
        |why: String| format!("failed to restore what another session left behind on the board: {why}");
    let Some(pending) = folder.read().map_err(failed)? else { return Ok(None) };
    match act::restore(&pending, folder) {
        Ok(_) => folder.clear().map(|()| Some(Box::new(pending))).map_err(failed),
        Err(why) => Err(format!(
            "failed to restore what the session of {} left behind on the board: {why}; restore it by hand and remove {}, \
             which says how it was",
            pending.by,
            folder.file().display()
        )),
    }
}

/// Restores what a session left behind, where no session keeps the board now. Says whose it was.
///
/// # Errors
/// Where it cannot be restored. The message finishes "failed to …".
pub(crate) fn restore_leftover(patience: Duration) -> Result<Option<Pending>, String> {
    let failed = |why: String| format!("failed to restore the board's state: {why}");
    // Without a home folder nothing was changed.
    let Ok(folder) = Folder::find() else { return Ok(None) };
    let _lock = folder.lock(patience).map_err(failed)?;
    Ok(leftover(&folder)?.map(|pending| *pending))
}

/// What is to be restored on this board, if anything.
///
/// # Errors
/// As [`Folder::read`].
pub(crate) fn pending() -> Result<Option<Pending>, String> {
    Folder::find().map_or(Ok(None), |folder| folder.read())
}

/// The place of a CPU's governor.
fn governor(sysfs: &Path, cpu: u32) -> PathBuf {
    settings::cpufreq(sysfs, cpu).join("scaling_governor")
}
