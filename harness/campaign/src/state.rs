//! The board before each trial: in the state its file asks for, and cool enough.

use super::Campaign;
use boards::session::SessionError;
use host::progress::Progress;
use protocol::text;
use protocol::{MachineState, Settings, Temperature};
use std::time::{Duration, Instant};
use store::Cooling;

/// A board that has not cooled down in this time will not in more.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// Time between two looks at the temperatures.
const PAUSE: Duration = Duration::from_secs(1);
/// Tells a constant, whatever the temperature (a TX2's power management chip).
const CONSTANT: &str = "PMIC-Die";

/// The hottest zone that tells a temperature.
pub(super) fn hottest(state: &MachineState) -> Option<&Temperature> {
    let zones = state.temperatures.iter().filter(|zone| zone.zone != CONSTANT);
    zones.max_by_key(|zone| zone.milli_celsius)
}

fn celsius(milli_celsius: i64) -> f64 {
    milli_celsius as f64 / 1000.0
}

impl Campaign {
    /// Waits until the board is cool enough, and sets its state again where that has changed since. Says what it waited
    /// for, if it did.
    ///
    /// # Errors
    /// Where the board does not become what is asked, stays hot, or cannot be reached.
    pub(super) fn settle(&mut self, progress: &Progress) -> Result<Option<Cooling>, SessionError> {
        let limit = self.loaded.board.state.max_temperature_c;
        if self.loaded.board.state.asked().is_nothing() && limit.is_none() {
            return Ok(None);
        }
        let mut state = self.link.state()?;
        let cooling = match limit {
            Some(limit) => self.cool(&mut state, limit, progress)?,
            None => None,
        };
        let record = self.state.as_ref().filter(|record| !record.asked.is_nothing());
        let changes = record.map(|record| record.brought.set.changes_to(&Settings::from(&state)));
        if let Some(change) = changes.iter().flatten().next() {
            let told = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
            progress.warn(&format!(
                "the board's state has changed since it was set ({} is {}, was {}); it is set again",
                change.setting,
                told(&change.to),
                told(&change.from)
            ));
            // What cannot be brought back (a limit lowered by heat) voids the trial.
            self.link.bring()?;
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
                    "{} is at {:.1} °C; waiting until all zones are below {limit} °C",
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
            *state = self.link.state()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::fixture;

    #[test]
    fn the_constant_zone_does_not_count() {
        let zone = |zone: &str, milli_celsius| Temperature { zone: zone.to_owned(), milli_celsius };
        let mut machine = fixture::machine();
        machine.temperatures =
            vec![zone("BCPU-therm", 41_500), zone(CONSTANT, 100_000), zone("GPU-therm", 44_000)];
        assert_eq!(hottest(&machine), Some(&zone("GPU-therm", 44_000)));
        machine.temperatures = vec![zone(CONSTANT, 100_000)];
        assert_eq!(hottest(&machine), None);
    }
}
