//! The files and directories that a command works with.

use boards::Programs;
use compiler::Kit;
use config::Connect;
use host::exit::{Ending as _, Exit, Failure, Outcome};
use std::path::PathBuf;

/// The files and directories that a command works with.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Directory with `compiler/` and `ci/`: the checkout, or the unpacked archive.
    pub root: PathBuf,
    /// Directory with `configs/`.
    pub settings: PathBuf,
    /// Directory with `results/`.
    pub work: PathBuf,
    /// Cache, journals, logs.
    pub state: PathBuf,
    /// Interpreter of the private Python environment.
    pub python: PathBuf,
    /// The runner for this machine.
    pub runner: PathBuf,
    /// The linker for this machine, if it has no `cc`.
    pub linker: Option<PathBuf>,
    /// The results database.
    pub database: PathBuf,
    /// Directory of the journals that belong to the database.
    pub runs: PathBuf,
}

impl Paths {
    /// Requests to the compiler and the runner are JSON, which is UTF-8; so all their paths must be.
    ///
    /// # Errors
    /// Names the first path that is not UTF-8.
    pub(crate) fn check(&self) -> Outcome<()> {
        let named = [&self.root, &self.settings, &self.state, &self.python, &self.runner];
        match named.into_iter().find(|path| path.to_str().is_none()) {
            None => Ok(()),
            Some(path) => Err(Failure::new(
                Exit::Usage,
                format!(
                    "failed to use {}: its path is not UTF-8; rename its directory, or move the checkout",
                    path.display()
                ),
            )),
        }
    }

    /// The programs that are needed for a board. Installs labgrid's client if the board is on a farm.
    ///
    /// # Errors
    /// If there is no runner for the board, or the client cannot be installed.
    pub fn programs_for(&self, board: &config::Board) -> Outcome<Programs> {
        if matches!(board.connect, Connect::Labgrid(_)) {
            self.prepare_farm()?;
        }
        Ok(Programs { runner: self.runner_for(board)?, python: self.python.clone() })
    }

    /// Installs labgrid's client in the private Python environment, unless it is there.
    ///
    /// # Errors
    /// If it cannot be installed.
    pub fn prepare_farm(&self) -> Outcome<()> {
        toolchain::add(&self.python, &self.root, &toolchain::FARM).ending(Exit::Usage)
    }

    /// The runner that was built for a board; this machine's own runner if there is none and the architecture is the
    /// same.
    ///
    /// # Errors
    /// If there is no runner for the board.
    fn runner_for(&self, board: &config::Board) -> Outcome<PathBuf> {
        let target = board.target.as_ref().filter(|_| !board.connect.is_local());
        let Some(target) = target else { return Ok(self.runner.clone()) };
        let (triple, runner) = (target.triple.text(), Kit::of(&self.state, target).runner());
        if runner.is_file() {
            return Ok(runner);
        }
        if target.triple.architecture() == std::env::consts::ARCH {
            return Ok(self.runner.clone());
        }
        Err(Failure::new(
            Exit::Board,
            format!(
                "failed to find a runner for the board {} ({triple}) at {}; {}",
                board.name,
                runner.display(),
                host::runner_of_board(&board.name)
            ),
        ))
    }
}
