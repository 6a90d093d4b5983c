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

use protocol::{BOARD_INPUTS, Meter, MeterKind, total_name};
use rail::Rail;
use std::path::Path;

/// The rails of a meter and the names of its drivers.
struct Found {
    driver: String,
    rails: Vec<Rail>,
    /// So many of the first rails make the total.
    totals: usize,
}

impl Found {
    fn new(driver: &str, rails: Vec<Rail>) -> Self {
        Self { driver: driver.to_owned(), rails, totals: 0 }
    }

    /// The name of the total.
    fn total(&self) -> String {
        let names: Vec<String> =
            self.rails[..self.totals].iter().map(|rail| rail.name().to_owned()).collect();
        total_name(&names)
    }
}

/// Rails that together feed a whole board: Jetson AGX Xavier; AGX Orin, where 5 V feed the memory's rail.
const KNOWN_SUMS: [&[&str]; 2] =
    [&["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"], &["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]];
/// Feeds a part of a board only, whatever its name says.
const NEVER_ALONE: &str = "VIN_SYS_5V0";

/// Finds the rails of a meter.
///
/// # Errors
/// If there is no such meter, or it lacks a rail of the total, or no rail is known to feed the whole board. The message
/// finishes "failed to …".
fn find(meter: &Meter) -> Result<Found, String> {
    let root = Path::new(&meter.root);
    let (kind, mut found) = match &meter.kind {
        MeterKind::Ina3221 { rails } => ("INA3221 rail", ina3221::find(root, rails)?),
        MeterKind::Rapl => ("powercap zone", powercap::find(root)?),
    };
    let names: Vec<&str> = found.rails.iter().map(Rail::name).collect();
    let totals = match &meter.total[..] {
        [] => {
            let input = BOARD_INPUTS.iter().find(|input| names.contains(input));
            vec![(*input.ok_or_else(|| unknown_total(root, &names))?).to_owned()]
        }
        [alone] if alone == NEVER_ALONE => return Err(unknown_total(root, &names)),
        totals => totals.to_vec(),
    };
    for (place, total) in totals.iter().enumerate() {
        let Some(at) = found.rails.iter().position(|rail| rail.name() == total) else {
            let names: Vec<&str> = found.rails.iter().map(Rail::name).collect();
            return Err(format!(
                "failed to find the {kind} {total} below {}: there are {}; correct `total` in the board's file",
                root.display(),
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            ));
        };
        let rail = found.rails.remove(at);
        found.rails.insert(place, rail);
    }
    let names: Vec<&str> = found.rails.iter().map(Rail::name).collect();
    if let Some(twice) = names.iter().enumerate().find(|(place, name)| names[..*place].contains(name)) {
        return Err(format!(
            "failed to tell the {kind}s apart below {}: two are named {}; name them by address and channel under \
             `rails` in the board's file",
            root.display(),
            twice.1
        ));
    }
    found.totals = totals.len();
    Ok(found)
}

/// Why no total is known, with the line to write.
fn unknown_total(root: &Path, names: &[&str]) -> String {
    let sum = KNOWN_SUMS.iter().find(|sum| sum.iter().all(|name| names.contains(name)));
    let (sum, hint) = match sum {
        Some(sum) => (sum.join(", "), ""),
        None => {
            (names.join(", "), " with those rails that feed the board and are not fed by one of the others")
        }
    };
    format!(
        "failed to find the rail that feeds the whole board below {}: there are {}, and only {} are known to; write \
         `total: {{ sum: [{sum}] }}`{hint} in the board's file",
        root.display(),
        if names.is_empty() { "none with a name".to_owned() } else { names.join(", ") },
        BOARD_INPUTS.join(" and ")
    )
}

#[cfg(test)]
mod tests;
