//! Idle power of the board, read before the first trial.

use crate::open::OpenedBoard;
use host::exit::{Exit, Failure, Outcome};
use host::progress;
use protocol::{Event, Fault, Idled, Request};
use std::time::Duration;

/// How long idle power is read. An INA3221 in NVIDIA's setup converts every 0.4 s.
const IDLE: Duration = Duration::from_secs(8);
/// Timeout in addition to that.
const MARGIN: Duration = Duration::from_secs(30);

impl OpenedBoard {
    /// Reads the board's power meter while nothing runs; `None` if it has no meter.
    ///
    /// # Errors
    /// If the board lacks the rail that its file names.
    pub(crate) fn idle_power(&mut self) -> Outcome<Option<Idled>> {
        let Some(meter) = self.loaded.board.power.meter().cloned() else { return Ok(None) };
        progress::say("power", &format!("reading idle power for {} s", IDLE.as_secs()));
        let task = format!("read the power meter of the board {}", self.loaded.board.name);
        let duration_ns = u64::try_from(IDLE.as_nanos()).unwrap_or(u64::MAX);
        let answer = self.runner.request(&task, IDLE + MARGIN, |id| {
            Request::Idle(protocol::Idle { id, meter: meter.clone(), duration_ns })
        });
        match answer {
            Ok(Event::Idled(idled)) => Ok(Some(idled)),
            Ok(other) => Err(self.runner.unexpected(&task, &other).into()),
            // The file names no rail and the board has no known one: energy is absent, with this reason.
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
