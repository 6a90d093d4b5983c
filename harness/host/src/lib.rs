//! What every crate of the host side needs: exit codes, Ctrl-C, progress lines, dates, and safe file access (see [`files`]).

pub mod date;
pub mod exit;
pub mod files;
pub mod interrupt;
#[cfg(feature = "mutation")]
pub mod mutation;
pub mod program;
pub mod progress;

pub use program::{new_runner, program, runner_of_board};

/// The arguments of this process, for records. What is not UTF-8 is replaced.
pub fn arguments() -> Vec<String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
}
