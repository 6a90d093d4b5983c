//! Output that several commands share.

use anyhow::Context as _;
use host::exit::{Ending as _, Exit, Outcome};
use std::io::Write as _;
use std::path::Path;

/// Whether standard output is a terminal with room for wide tables.
pub(crate) fn is_wide() -> bool {
    rustix::termios::tcgetwinsize(std::io::stdout()).is_ok_and(|size| size.ws_col > 130)
}

/// Prints what was asked for. A closed pipe (`… | head`) is not an error.
pub(crate) fn print(text: &str) -> Outcome<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).ending(Exit::Usage),
        _ => Ok(()),
    }
}

/// Writes `text` to a file, atomically, or prints it.
pub(crate) fn deliver(output: Option<&Path>, text: &str) -> Outcome<()> {
    let Some(output) = output else { return print(text) };
    host::files::replace(output, text)
        .with_context(|| {
            format!("failed to write {}: choose a file in a writable directory", output.display())
        })
        .ending(Exit::Usage)?;
    eprintln!("wrote {} ({:.0} kB)", output.display(), text.len() as f64 / 1e3);
    Ok(())
}

/// How a command ends that held a board: a board whose state could not be restored decides the exit code.
pub(crate) fn after_closing(closed: Outcome<()>, outcome: Outcome<Exit>) -> Outcome<Exit> {
    match (closed, outcome) {
        (closed, Err(failure)) => Err(failure.after_closing(closed)),
        (Ok(()), outcome) => outcome,
        (Err(left_behind), Ok(_)) => Err(left_behind),
    }
}
