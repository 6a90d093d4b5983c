//! Power meters: found in sysfs, read beside a trial.
//!
//! Nothing here judges a reading. What the kernel said is kept with the time it was said at; a reading that failed
//! is counted by what the kernel said, and none is put in its place.

mod ina3221;
mod pace;
mod powercap;
mod rail;
mod sampler;

pub(crate) use sampler::Sampler;

use protocol::{Meter, MeterKind};
use rail::Rail;
use std::path::Path;

/// The rails of a meter, the total first, and the name of the driver.
struct Found {
    driver: &'static str,
    rails: Vec<Rail>,
}

/// Finds the rails of a meter.
///
/// # Errors
/// Where there is no such meter, or it lacks the rail that is called the total. The message finishes "failed to …".
fn find(meter: &Meter) -> Result<Found, String> {
    let root = Path::new(&meter.root);
    let (kind, mut found) = match &meter.kind {
        MeterKind::Ina3221 { rails } => ("INA3221 rail", ina3221::find(root, rails)?),
        MeterKind::Rapl => ("powercap zone", powercap::find(root)?),
    };
    let names: Vec<&str> = found.rails.iter().map(Rail::name).collect();
    let Some(place) = names.iter().position(|name| *name == meter.total) else {
        return Err(format!(
            "failed to find the {kind} {} below {}: there are {}; correct `total` in the board's file",
            meter.total,
            root.display(),
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        ));
    };
    if let Some(twice) = names.iter().enumerate().find(|(place, name)| names[..*place].contains(name)) {
        return Err(format!(
            "failed to tell the {kind}s apart below {}: two are named {}; name them by address and channel under \
             `rails` in the board's file",
            root.display(),
            twice.1
        ));
    }
    let total = found.rails.remove(place);
    found.rails.insert(0, total);
    Ok(found)
}

#[cfg(test)]
mod tests;
