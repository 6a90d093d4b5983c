//! Comparisons of a self-test on disk: a table is made from them, and further calls add to them.

use campaign::Pair;
use host::exit::{Ending as _, Exit, Failure, Outcome};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Version of the file.
const SCHEMA: u32 = 1;
/// Largest file.
const LARGEST: u64 = 256 << 20;

/// Settings of a call. Only comparisons with equal settings belong in one table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// By how many percent the candidate was made slower; 0: not at all.
    pub(super) slow_down: f64,
    /// Whether all trials of one side run first, with their own runner.
    pub(super) apart: bool,
    /// Name of the host and its processor.
    pub(super) machine: String,
    /// Board and experiment as resolved, in YAML.
    pub(super) configuration: String,
}

/// One call of the self-test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sitting {
    /// When it began: UTC, ISO 8601.
    pub(super) begun: String,
    /// Revision of the checkout, if there is one; a star marks uncommitted changes.
    pub(super) revision: Option<String>,
    /// Comparisons it made.
    pub(super) comparisons: usize,
}

/// The file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    schema: u32,
    #[serde(skip)]
    path: PathBuf,
    pub(super) asked: Asked,
    /// What was compared, as a table names it; empty before the first comparison.
    pub(super) what: String,
    pub(super) sittings: Vec<Sitting>,
    pub(super) pairs: Vec<Pair>,
}

impl Kept {
    /// Begins a call: appends to the file if `append` is set, else replaces it.
    ///
    /// # Errors
    /// If the file has comparisons with other settings, or cannot be read.
    pub(super) fn begin(path: &Path, asked: Asked, append: bool, sitting: Sitting) -> Outcome<Self> {
        let mut kept = if append && path.exists() {
            Self::read(path, &asked)?
        } else {
            let (what, path) = (String::new(), path.to_owned());
            Self { schema: SCHEMA, path, asked, what, sittings: vec![], pairs: vec![] }
        };
        kept.sittings.push(sitting);
        Ok(kept)
    }

    fn read(path: &Path, asked: &Asked) -> Outcome<Self> {
        let failed = |why: String| {
            let shown = path.display();
            Failure::new(
                Exit::Usage,
                format!("failed to append to {shown}: {why}; without --append, a new file replaces it"),
            )
        };
        let text = host::files::read_text(path, LARGEST).map_err(|error| failed(error.to_string()))?;
        let mut kept: Self = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
        if kept.schema != SCHEMA {
            return Err(failed(format!("it has version {}, expected {SCHEMA}", kept.schema)));
        }
        let theirs = &kept.asked;
        let unlike = [
            ("on another machine", theirs.machine != asked.machine),
            ("with another board or other settings", theirs.configuration != asked.configuration),
            ("with another slow-down", theirs.slow_down.to_bits() != asked.slow_down.to_bits()),
            (if theirs.apart { "with --apart" } else { "without --apart" }, theirs.apart != asked.apart),
        ];
        if let Some((aspect, _)) = unlike.iter().find(|(_, unlike)| *unlike) {
            return Err(failed(format!("its comparisons were made {aspect}")));
        }
        path.clone_into(&mut kept.path);
        Ok(kept)
    }

    /// Adds a comparison of this call. It is on disk before it is printed.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn add(&mut self, what: &str, pair: Pair) -> Outcome<()> {
        what.clone_into(&mut self.what);
        self.pairs.push(pair);
        if let Some(sitting) = self.sittings.last_mut() {
            sitting.comparisons += 1;
        }
        let text = serde_json::to_string(self).ending(Exit::Bug)?;
        host::files::replace(&self.path, text).map_err(|error| {
            Failure::new(Exit::Usage, format!("failed to write {}: {error}", self.path.display()))
        })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(slow_down: f64) -> Asked {
        let (machine, configuration) = ("bench, a processor".to_owned(), "trials: 8\n".to_owned());
        Asked { slow_down, apart: false, machine, configuration }
    }

    fn sitting() -> Sitting {
        Sitting { begun: "2026-11-26T10:00:00Z".to_owned(), revision: None, comparisons: 0 }
    }

    fn pair(fps: f64) -> Pair {
        Pair { baseline: vec![(0, fps)], candidate: vec![(0, 0.95 * fps)], void: 0, seconds: 1.0 }
    }

    #[test]
    fn sittings_add_up_and_a_new_one_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ab.json");
        // Nothing to append to is no error: the first of several calls looks like the others.
        let mut first = Kept::begin(&path, asked(5.0), true, sitting()).unwrap();
        first.add("net on cpu0", pair(100.0)).unwrap();
        first.add("net on cpu0", pair(101.0)).unwrap();
        let mut second = Kept::begin(&path, asked(5.0), true, sitting()).unwrap();
        second.add("net on cpu0", pair(102.0)).unwrap();
        let counts: Vec<usize> = second.sittings.iter().map(|sitting| sitting.comparisons).collect();
        assert_eq!((second.pairs.len(), counts), (3, vec![2, 1]));
        let anew = Kept::begin(&path, asked(5.0), false, sitting()).unwrap();
        assert!(anew.pairs.is_empty());
    }

    #[test]
    fn only_the_same_is_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ab.json");
        let mut kept = Kept::begin(&path, asked(5.0), false, sitting()).unwrap();
        kept.add("net on cpu0", pair(100.0)).unwrap();
        let check = |asked: Asked, wanted: &str| {
            let error = Kept::begin(&path, asked, true, sitting()).unwrap_err().error.to_string();
            assert!(error.starts_with("failed to append to ") && error.contains(wanted), "{error}");
        };
        check(asked(2.0), "another slow-down");
        check(Asked { apart: true, ..asked(5.0) }, "without --apart");
        check(Asked { configuration: "trials: 9\n".to_owned(), ..asked(5.0) }, "other settings");
        check(Asked { machine: "other".to_owned(), ..asked(5.0) }, "another machine");
        std::fs::write(&path, "[]").unwrap();
        check(asked(5.0), "without --append, a new file replaces it");
    }
}
