//! The name of the program that the user started, for messages that name a command to run next.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static IS_INSTALLED: AtomicBool = AtomicBool::new(false);

/// Call once at the start of an `edgepipe` that runs without `cargo xtask`.
pub fn set_installed() {
    IS_INSTALLED.store(true, Relaxed);
}

/// `cargo xtask` in a checkout, `edgepipe` if installed.
pub fn program() -> &'static str {
    if IS_INSTALLED.load(Relaxed) { "edgepipe" } else { "cargo xtask" }
}

/// How to replace a runner that is missing, damaged or of another version.
pub fn new_runner() -> &'static str {
    if IS_INSTALLED.load(Relaxed) {
        "unpack edgepipe's archive again"
    } else {
        "build it with `cargo xtask build`"
    }
}

/// How to get the runner for the board `name`.
pub fn runner_of_board(name: &str) -> String {
    if IS_INSTALLED.load(Relaxed) {
        format!(
            "unpack an archive that contains it; `cargo xtask dist --board {name}` in a checkout creates one"
        )
    } else {
        format!("build it with `cargo xtask build --board {name}`")
    }
}
