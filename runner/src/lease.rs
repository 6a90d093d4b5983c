//! A lease on life: over a network the end of standard input may never come, because the harness' machine lost its
//! power or a cable is out. So the harness sends an empty line every few seconds, and a runner that was told to
//! expect them ends, with its load, when none comes any more.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// When something was last heard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lease {
    heard_ms: Arc<AtomicU64>,
}

fn now_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Lease {
    /// Something came.
    pub(crate) fn renew(&self) {
        self.heard_ms.store(now_ms(), Ordering::Relaxed);
    }

    /// Calls `end` once nothing was heard for so long. It looks four times in that time.
    pub(crate) fn watch(&self, patience: Duration, end: impl FnOnce() + Send + 'static) {
        self.renew();
        let lease = self.clone();
        let watcher = move || {
            loop {
                std::thread::sleep(patience / 4);
                let silence = now_ms().saturating_sub(lease.heard_ms.load(Ordering::Relaxed));
                if u128::from(silence) > patience.as_millis() {
                    // Who reads the log may be gone too; that must not keep this thread from its work.
                    let line = format!("heard nothing for {silence} ms: the harness is gone; ending\n");
                    drop(std::io::stderr().write_all(line.as_bytes()));
                    return end();
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("lease".to_owned()).spawn(watcher) {
            eprintln!("failed to start the thread that watches the lease: {error}");
        }
    }
}
