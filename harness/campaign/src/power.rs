//! Idle power, before anything is measured.

use super::Campaign;
use host::exit::{Exit, Failure, Outcome};
use host::progress;
use protocol::{Event, Fault, Idled, Request};
use std::time::Duration;

/// For how long idle power is read. An INA3221 as NVIDIA sets it up converts every 0.4 s.
const IDLE: Duration = Duration::from_secs(8);
/// Time given beyond that.
const PATIENCE: Duration = Duration::from_secs(30);

impl Campaign {
    /// Reads the board's power meter while nothing runs; `None` where it has none.
    ///
    /// # Errors
    /// Where the meter that the board's file names is not there: better told before an hour of trials than after.
    pub(super) fn idle_power(&mut self) -> Outcome<Option<Idled>> {
        let Some(meter) = self.loaded.board.power.meter().cloned() else { return Ok(None) };
        progress::say("power", &format!("reading idle power for {} s", IDLE.as_secs()));
        let during = format!("read the power meter of the board {}", self.loaded.board.name);
        let duration_ns = u64::try_from(IDLE.as_nanos()).unwrap_or(u64::MAX);
        let answer = self.link.request(&during, IDLE + PATIENCE, |id| {
            Request::Idle(protocol::Idle { id, meter: meter.clone(), duration_ns })
        });
        match answer {
            Ok(Event::Idled(idled)) => Ok(Some(idled)),
            Ok(other) => Err(self.link.unexpected(&during, &other).into()),
            // No rail was named, and none is known: energy is absent with the reason, and the rest is measured.
            Err(error) if error.fault() == Some(Fault::Meter) && meter.total.is_empty() => {
                progress::say("warning", &format!("energy is not measured: {error}"));
                Ok(None)
            }
            Err(error) if error.fault() == Some(Fault::Meter) => {
                Err(Failure { exit: Exit::Board, error: error.into() })
            }
            Err(error) => Err(error.into()),
        }
    }
}
