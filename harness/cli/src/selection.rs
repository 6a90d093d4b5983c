//! Arguments that several commands share: what to measure, and where.

use campaign::Paths;
use clap::Args;
use config::{Loaded, Overrides};
use host::exit::Outcome;

/// What to measure, and where.
#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// Board, a file in configs/boards/.
    #[arg(long, value_name = "NAME", default_value = "local")]
    pub board: String,
    /// What.
    #[command(flatten)]
    pub what: What,
}

impl Selection {
    /// Reads and checks the files that these arguments name.
    ///
    /// # Errors
    /// With every fault of every file.
    pub(crate) fn load(&self, paths: &Paths) -> Outcome<Loaded> {
        let what = &self.what;
        Ok(config::load(&paths.settings, &self.board, &what.experiment, &what.overrides())?)
    }
}

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct What {
    /// Experiment, a file in configs/experiments/.
    #[arg(long, value_name = "NAME", default_value = "quick")]
    pub experiment: String,
    /// These networks instead of the experiment's; may be given several times.
    #[arg(long = "network", value_name = "NAME")]
    pub networks: Vec<String>,
    /// Trials of each schedule instead of the experiment's.
    #[arg(long, value_name = "N")]
    pub trials: Option<String>,
    /// Any other setting of the experiment, for example `--set measure.min_seconds=10`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl What {
    /// The changes to the experiment's file.
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides { networks: self.networks.clone(), trials: self.trials.clone(), set: self.set.clone() }
    }
}
