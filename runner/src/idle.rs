//! What the board draws while nothing runs.

use crate::clock::monotonic_ns;
use crate::failure::Failure;
use crate::power::Sampler;
use protocol::{Idle, Idled};
use std::time::Duration;

/// Longest that is worth waiting for.
const LONGEST: Duration = Duration::from_secs(600);

/// Reads a meter and does nothing else.
pub(crate) fn idle(request: &Idle) -> Result<Idled, Failure> {
    let duration = Duration::from_nanos(request.duration_ns);
    if duration > LONGEST {
        let most = LONGEST.as_secs();
        return Err(Failure::request(format!(
            "failed to read idle power: at most {most} s can be asked for"
        )));
    }
    let sampler = Sampler::start(&request.meter, &[]).map_err(Failure::meter)?;
    let opened_monotonic_ns = monotonic_ns();
    std::thread::sleep(duration);
    let duration_ns = monotonic_ns() - opened_monotonic_ns;
    let readings = sampler.finish().map_err(Failure::meter)?;
    Ok(Idled { id: request.id, opened_monotonic_ns, duration_ns, readings })
}
