//! Ctrl-C: the first asks the campaign to end at the next good place, the second ends the program at once.

use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the user asked to stop.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// Listens for SIGINT, SIGTERM and SIGHUP from here on.
    ///
    /// # Errors
    /// Where the system refuses the handler.
    pub fn listen() -> Result<Self> {
        let interrupt = Self::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
        {
            // Order matters: this one ends the program only where the flag below was set by an earlier signal.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupt.asked))
                .context("failed to listen for Ctrl-C")?;
            signal_hook::flag::register(signal, Arc::clone(&interrupt.asked))
                .context("failed to listen for Ctrl-C")?;
        }
        Ok(interrupt)
    }

    /// Whether a signal came.
    pub fn is_set(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}
