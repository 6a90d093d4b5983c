//! `target` and `inspect`: what xtask asks before and after it builds for a board. Hidden from users.

use crate::output::print;
use campaign::Paths;
use clap::Subcommand;
use compiler::Binary;
use host::exit::{Ending as _, Exit, Outcome};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Arguments {
    /// Print the target in a board's file: triple and C library version; nothing if the board is this machine.
    #[command(hide = true)]
    Target {
        /// Board, or group of boards.
        #[arg(long)]
        board: String,
    },
    /// Check that files start on a board: processor, C library, C++ library.
    #[command(hide = true)]
    Inspect {
        /// Board, or group of boards.
        #[arg(long)]
        board: String,
        /// Check only for boards with this target, written as `target` prints it.
        #[arg(long, value_name = "TARGET")]
        only: Option<String>,
        /// Programs and libraries.
        files: Vec<PathBuf>,
    },
}

/// # Errors
/// If a board's file is wrong, or a file does not start on a board.
pub(crate) fn run(paths: &Paths, arguments: &Arguments) -> Outcome<Exit> {
    match arguments {
        Arguments::Target { board } => target(paths, board),
        Arguments::Inspect { board, only, files } => inspect(paths, board, only.as_deref(), files),
    }
}

/// Prints what xtask builds for a board, one target per line; for a group, those of all its boards.
fn target(paths: &Paths, name: &str) -> Outcome<Exit> {
    let mut lines: Vec<String> = Vec::new();
    for board in config::boards_of(&paths.settings, &[name.to_owned()]).ending(Exit::Usage)? {
        let board = config::load_board(&paths.settings, &board).ending(Exit::Usage)?;
        if let (false, Some(target)) = (board.connect.is_local(), &board.target) {
            let line = line_of(target);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    print(&lines.concat()).map(|()| Exit::Fine)
}

fn line_of(target: &config::Target) -> String {
    format!("{} {}\n", target.triple.text(), target.glibc.as_deref().unwrap_or_default())
}

/// Checks for xtask, before deployment, that what it built starts on the board; for a group, on all its boards of the
/// target.
fn inspect(paths: &Paths, name: &str, only: Option<&str>, files: &[PathBuf]) -> Outcome<Exit> {
    let mut boards = Vec::new();
    for board in config::boards_of(&paths.settings, &[name.to_owned()]).ending(Exit::Usage)? {
        boards.push(config::load_board(&paths.settings, &board).ending(Exit::Usage)?);
    }
    let targets: Vec<&config::Target> = boards.iter().filter_map(|board| board.target.as_ref()).collect();
    for file in files {
        let binary = Binary::read(file).ending(Exit::Bug)?;
        for target in
            targets.iter().filter(|target| only.is_none_or(|only| only.trim() == line_of(target).trim()))
        {
            binary.check(target).ending(Exit::Usage)?;
        }
        print(&format!("  {binary}\n"))?;
    }
    Ok(Exit::Fine)
}
