//! Before each trial: waits until the board is cool, and sets its state again if it has changed.

use crate::limits::hottest;
use crate::open::OpenedBoard;
use boards::SessionError;
use host::progress::Progress;
use protocol::text;
use protocol::{MachineState, Settings, Temperature};
use std::time::{Duration, Instant};
use store::Cooling;

/// Longest wait; a board that is still hot then does not cool down.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// Interval between two readings of the temperatures.
const PAUSE: Duration = Duration::from_secs(1);
fn celsius(milli_celsius: i64) -> f64 {
    milli_celsius as f64 / 1000.0
}

impl OpenedBoard {
    /// Waits until the board is below its temperature limit, and sets its state again if it has changed. Returns how it
    /// cooled down, if it had to.
    ///
    /// # Errors
    /// If the board stays hot, cannot reach its state, or is lost.
    pub(crate) fn settle(&mut self, progress: &Progress) -> Result<Option<Cooling>, SessionError> {
        let limit = self.loaded.board.state.max_temperature_c;
        let asks = self.found.state.as_ref().is_some_and(|record| !record.asked.is_nothing());
        if !asks && limit.is_none() {
            return Ok(None);
        }
        let mut state = self.runner.state()?;
        let cooling = match limit {
            Some(limit) => self.cool(&mut state, limit, progress)?,
            None => None,
        };
        let record = self.found.state.as_ref().filter(|record| !record.asked.is_nothing());
        let changes = record.map(|record| record.brought.set.changes_to(&Settings::from(&state)));
        if let Some(change) = changes.iter().flatten().next() {
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
            progress.warn(&format!(
                "the board's state has changed since it was set ({} is {}, was {}); setting it again",
                change.setting,
                shown(&change.to),
                shown(&change.from)
            ));
            // A setting that stays changed, such as a limit lowered by heat, voids the trial.
            self.runner.bring()?;
        }
        Ok(cooling)
    }

    fn cool(
        &mut self,
        state: &mut MachineState,
        limit: f64,
        progress: &Progress,
    ) -> Result<Option<Cooling>, SessionError> {
        let begun = Instant::now();
        let mut first: Option<Temperature> = None;
        loop {
            let Some(zone) = hottest(state).cloned() else {
                return Err(SessionError::NoTemperature { silent: text::silent_zones(state), limit });
            };
            if celsius(zone.milli_celsius) < limit {
                return Ok(first.map(|first| Cooling {
                    waited_ns: u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX),
                    zone: first.zone,
                    from_milli_celsius: first.milli_celsius,
                    to_milli_celsius: zone.milli_celsius,
                }));
            }
            if begun.elapsed() >= LONGEST {
                return Err(SessionError::Hot {
                    zone: zone.zone,
                    celsius: celsius(zone.milli_celsius),
                    limit,
                    after: LONGEST,
                });
            }
            if first.is_none() {
                progress.warn(&format!(
                    "{} is at {:.1} °C; waiting for all zones to be below {limit} °C",
                    zone.zone,
                    celsius(zone.milli_celsius)
                ));
                first = Some(zone);
            }
            let deadline = Instant::now() + PAUSE;
            while Instant::now() < deadline {
                if self.interrupt.is_set() {
                    return Err(SessionError::Interrupted);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            *state = self.runner.state()?;
        }
    }
}
