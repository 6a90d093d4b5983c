//! Finds the rails of a meter, and those that make up its total.

use super::rail::{FoundRails, Rail};
use super::{ina3221, powercap};
use protocol::{BOARD_INPUTS, Meter, MeterKind, total_name};
use std::path::Path;

/// A meter that can be read.
pub(super) struct FoundMeter {
    pub(super) driver: String,
    /// The name of the total.
    pub(super) total: String,
    /// The rails of the total, then the others.
    pub(super) rails: Vec<Rail>,
    /// Number of rails of the total.
    pub(super) totals: usize,
}

/// Rails that together supply a whole board: Jetson AGX Xavier; AGX Orin, whose 5 V rail supplies the memory's rail.
const KNOWN_SUMS: [&[&str]; 2] =
    [&["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"], &["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]];
/// Supplies only a part of a board, despite its name.
const PARTIAL_INPUT: &str = "VIN_SYS_5V0";

/// Finds the rails of a meter.
///
/// # Errors
/// If there is no such meter, if it lacks a rail of the total, or if no total is given and no rail is known to supply the
/// whole board. The message starts with "failed to".
pub(super) fn find(meter: &Meter) -> Result<FoundMeter, String> {
    let root = Path::new(&meter.root);
    let (kind, FoundRails { driver, mut rails }) = match &meter.kind {
        MeterKind::Ina3221 { rails } => ("INA3221 rail", ina3221::find(root, rails)?),
        MeterKind::Rapl => ("powercap zone", powercap::find(root)?),
    };
    let names: Vec<&str> = rails.iter().map(Rail::name).collect();
    let totals = match &meter.total[..] {
        [] => {
            let input = BOARD_INPUTS.iter().find(|input| names.contains(input));
            vec![(*input.ok_or_else(|| unknown_total(root, &names))?).to_owned()]
        }
        [alone] if alone == PARTIAL_INPUT => return Err(unknown_total(root, &names)),
        totals => totals.to_vec(),
    };
    for (place, total) in totals.iter().enumerate() {
        let Some(at) = rails.iter().position(|rail| rail.name() == total) else {
            let names: Vec<&str> = rails.iter().map(Rail::name).collect();
            return Err(format!(
                "failed to find the {kind} {total} below {}: found {}; correct `total` in the board's file",
                root.display(),
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            ));
        };
        let rail = rails.remove(at);
        rails.insert(place, rail);
    }
    let names: Vec<&str> = rails.iter().map(Rail::name).collect();
    if let Some(duplicate) = names.iter().enumerate().find(|(place, name)| names[..*place].contains(name)) {
        return Err(format!(
            "failed to distinguish the {kind}s below {}: two have the name {}; name them by address and channel under \
             `rails` in the board's file",
            root.display(),
            duplicate.1
        ));
    }
    Ok(FoundMeter { driver, total: total_name(&totals), rails, totals: totals.len() })
}

/// Says why no total is known, and which line to write.
fn unknown_total(root: &Path, names: &[&str]) -> String {
    let sum = KNOWN_SUMS.iter().find(|sum| sum.iter().all(|name| names.contains(name)));
    let (sum, hint) = match sum {
        Some(sum) => (sum.join(", "), ""),
        None => {
            (names.join(", "), ", with the rails that supply the board and are not supplied by one another,")
        }
    };
    format!(
        "failed to find the rail that supplies the whole board below {}: found {}, but only {} are known to do so; write \
         `total: {{ sum: [{sum}] }}`{hint} in the board's file",
        root.display(),
        if names.is_empty() { "none with a name".to_owned() } else { names.join(", ") },
        BOARD_INPUTS.join(" and ")
    )
}
