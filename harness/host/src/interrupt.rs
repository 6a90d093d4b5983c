//! Ctrl-C: the first stops the command at the next safe point, the second ends the program at once.

use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the user asked to stop.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    requested: Arc<AtomicBool>,
    /// Another reason to stop.
    also: Option<Arc<AtomicBool>>,
}

impl Interrupt {
    /// Installs handlers for SIGINT, SIGTERM and SIGHUP.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub fn listen() -> Result<Self> {
        let interrupt = Self::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
        {
            // Order matters: this handler ends the program only if an earlier signal has set the flag.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupt.requested))
                .context("failed to listen for Ctrl-C")?;
            signal_hook::flag::register(signal, Arc::clone(&interrupt.requested))
                .context("failed to listen for Ctrl-C")?;
        }
        Ok(interrupt)
    }

    /// The same, and it is also set when `other` is true.
    #[must_use]
    pub fn or(&self, other: Arc<AtomicBool>) -> Self {
        Self { requested: Arc::clone(&self.requested), also: Some(other) }
    }

    /// Whether a signal was received.
    pub fn is_set(&self) -> bool {
        let is_true = |flag: &Arc<AtomicBool>| flag.load(Ordering::Relaxed);
        is_true(&self.requested) || self.also.as_ref().is_some_and(is_true)
    }
}
