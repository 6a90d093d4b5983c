//! `edgepipe completions SHELL`, and the man pages of the archive.

use clap_complete::Shell;
use host::exit::{Ending as _, Exit, Outcome};
use std::path::Path;

/// Prints the completion script of a shell.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn completions(mut command: clap::Command, shell: Shell) -> Outcome<Exit> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "edgepipe", &mut text);
    crate::output::print(&String::from_utf8_lossy(&text)).map(|()| Exit::Fine)
}

/// Writes a man page for each command to `folder`.
///
/// # Errors
/// If a page cannot be written.
pub(crate) fn manual(command: clap::Command, folder: &Path) -> Outcome<Exit> {
    std::fs::create_dir_all(folder).ending(Exit::Usage)?;
    clap_mangen::generate_to(command, folder).ending(Exit::Usage)?;
    Ok(Exit::Fine)
}
