//! Arguments that several commands share: what to measure, and where.

use campaign::Paths;
use clap::Args;
use config::{Loaded, Overrides};
use host::exit::Outcome;
use host::progress;

/// What to profile, and where, without trials.
#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// Board, a file in configs/boards/.
    #[arg(long, value_name = "NAME", default_value = "local")]
    pub board: String,
    #[command(flatten)]
    pub what: What,
}

impl Selection {
    /// Reads and checks the files that these arguments name.
    ///
    /// # Errors
    /// With every fault of every file.
    pub(crate) fn load(&self, paths: &Paths) -> Outcome<Loaded> {
        load(paths, &self.board, &self.what, &self.what.overrides())
    }
}

/// What to measure, and where.
#[derive(Debug, Args)]
pub(crate) struct Measured {
    /// Board, a file in configs/boards/.
    #[arg(long, value_name = "NAME", default_value = "local")]
    pub board: String,
    #[command(flatten)]
    pub trials: Trials,
}

impl Measured {
    /// Reads and checks the files that these arguments name.
    ///
    /// # Errors
    /// With every fault of every file.
    pub(crate) fn load(&self, paths: &Paths) -> Outcome<Loaded> {
        load(paths, &self.board, &self.trials.what, &self.trials.overrides())
    }
}

fn load(paths: &Paths, board: &str, what: &What, overrides: &Overrides) -> Outcome<Loaded> {
    Ok(config::load(&paths.settings, board, &what.experiment, overrides)?)
}

/// What to measure, and how often.
#[derive(Debug, Args)]
pub(crate) struct Trials {
    #[command(flatten)]
    pub what: What,
    /// Trials of each schedule instead of the experiment's.
    #[arg(long, value_name = "N")]
    pub trials: Option<String>,
}

impl Trials {
    /// The changes to the experiment's file.
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides { trials: self.trials.clone(), ..self.what.overrides() }
    }
}

/// Prints which of these options are ignored, because a resumed run keeps its own settings.
pub(crate) fn note_ignored(options: &[(&str, bool)]) {
    let given: Vec<&str> = options.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
    if !given.is_empty() {
        let verb = if given.len() == 1 { "is" } else { "are" };
        let note = format!(
            "{} {verb} ignored: a run that is resumed keeps the settings that it began with",
            given.join(", ")
        );
        progress::say("warning", &note);
    }
}

/// An experiment with changed settings.
#[derive(Debug, Args)]
pub(crate) struct What {
    /// Experiment, a file in configs/experiments/.
    #[arg(long, value_name = "NAME", default_value = "quick")]
    pub experiment: String,
    /// These networks instead of the experiment's; may be given several times.
    #[arg(long = "network", value_name = "NAME")]
    pub networks: Vec<String>,
    /// Any other setting of the experiment, for example `--set measure.min_seconds=10`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl What {
    /// The changes to the experiment's file.
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides { networks: self.networks.clone(), trials: None, set: self.set.clone() }
    }
}
