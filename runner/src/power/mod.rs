//! Power meters: found in sysfs, and read during a trial.
//!
//! Nothing here interprets a reading. Every value is stored with its time; a failed reading is counted by its error and not
//! replaced.

mod ina3221;
mod meter;
mod pace;
mod powercap;
mod rail;
mod sampler;
#[cfg(test)]
mod tests;

pub(crate) use sampler::Sampler;

use crate::clock::monotonic_ns;
use crate::failure::Failure;
use protocol::{Idle, Idled};
use std::time::Duration;

const MAX_IDLE: Duration = Duration::from_secs(600);

/// Reads a meter while the runner does nothing else.
pub(crate) fn idle(request: &Idle) -> Result<Idled, Failure> {
    let duration = Duration::from_nanos(request.duration_ns);
    if duration > MAX_IDLE {
        return Err(Failure::request(format!(
            "failed to read idle power: {} s were requested, the limit is {} s",
            duration.as_secs(),
            MAX_IDLE.as_secs()
        )));
    }
    let sampler = Sampler::start(&request.meter, &[]).map_err(Failure::meter)?;
    let opened_monotonic_ns = monotonic_ns();
    std::thread::sleep(duration);
    let duration_ns = monotonic_ns() - opened_monotonic_ns;
    let readings = sampler.finish().map_err(Failure::meter)?;
    Ok(Idled { id: request.id, opened_monotonic_ns, duration_ns, readings })
}
