//! A power meter as the program uses it.

use super::faults::Faults;
use super::ordered::Ordered;
use super::raw;
use super::tree::Node;
use protocol::{BOARD_INPUTS, Meter, MeterKind, NamedRail};

/// Where sysfs is mounted.
const SYSFS: &str = "/sys";

/// A power meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Power {
    /// None: energy is absent.
    None,
    /// One that the runner reads.
    Meter(Meter),
}

impl Power {
    /// What the runner is told to read, if anything.
    pub fn meter(&self) -> Option<&Meter> {
        match self {
            Self::None => None,
            Self::Meter(meter) => Some(meter),
        }
    }
}

fn names(total: raw::Total) -> Vec<String> {
    match total {
        raw::Total::Rail(name) => vec![name.0],
        raw::Total::Sum(sum) => sum.sum.into_iter().map(|name| name.0).collect(),
    }
}

/// Feeds a part of a board only, whatever its name says.
const NEVER_ALONE: &str = "VIN_SYS_5V0";

/// Finds totals that are none: rails that feed a part of the board, and sums that count something twice.
pub(super) fn check(power: &raw::Power, tree: &Node, faults: &mut Faults) {
    let (place, total, named) = match power {
        raw::Power::None => return,
        raw::Power::Rapl(meter) => ("power/rapl/total", Some(&meter.total), None),
        raw::Power::Ina3221(meter) => {
            ("power/ina3221/total", meter.total.as_ref(), Some(meter.rails.as_ref()))
        }
    };
    let Some(total) = total else { return };
    let mut add = |message: String| faults.add(&tree.spot(place), message);
    let own =
        |name: &str| named.flatten().is_some_and(|rails| rails.0.iter().any(|(known, _)| known == name));
    let all = names(total.clone());
    let inputs = BOARD_INPUTS.join(" and ");
    if let ([alone], Some(_)) = (&all[..], named)
        && !own(alone)
        && !BOARD_INPUTS.contains(&alone.as_str())
        && (matches!(total, raw::Total::Rail(_)) || alone == NEVER_ALONE)
    {
        add(format!(
            "{alone} is not known to feed the whole board, as {inputs} are; expected all rails that together do, such as \
             {{ sum: [GPU, CPU, SOC, CV, VDDRQ, SYS5V] }} on an AGX Xavier or {{ sum: [VDD_GPU_SOC, VDD_CPU_CV, \
             VIN_SYS_5V0] }} on an AGX Orin; with `total` left out, `cargo xtask boards` shows this board's"
        ));
    }
    for (place, name) in all.iter().enumerate() {
        let others = || all.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, other)| other);
        if name.contains(" + ") {
            add(format!("{name:?} holds \" + \", which stands between the names of a sum"));
        }
        if BOARD_INPUTS.contains(&name.as_str()) && others().count() > 0 {
            add(format!(
                "{name} feeds the whole board, the other rails of the sum too; expected total: {name}"
            ));
        }
        // The memory's counter is below its package's, and not a part of it.
        let part = others().find(|other| other.starts_with(&format!("{name}/")) && !other.ends_with("/dram"));
        if let (Some(part), None) = (part, named) {
            add(format!("{part} is a part of {name} and would count twice; leave it out of the sum"));
        }
    }
}

impl From<raw::Power> for Power {
    fn from(power: raw::Power) -> Self {
        let root = |root: Option<raw::Text>| root.map_or_else(|| SYSFS.to_owned(), |root| root.0);
        match power {
            raw::Power::None => Self::None,
            raw::Power::Ina3221(meter) => {
                let rails = meter.rails.map(|rails| rails.0).unwrap_or_default();
                let rails = rails.into_iter().map(|(name, channel)| NamedRail {
                    name,
                    address: channel.address,
                    channel: channel.channel,
                });
                let kind = MeterKind::Ina3221 { rails: rails.collect() };
                let total = meter.total.map(names).unwrap_or_default();
                Self::Meter(Meter { kind, root: root(meter.root), total })
            }
            raw::Power::Rapl(meter) => Self::Meter(Meter {
                kind: MeterKind::Rapl,
                root: root(meter.root),
                total: names(meter.total),
            }),
        }
    }
}

impl From<&Power> for raw::Power {
    fn from(power: &Power) -> Self {
        let Power::Meter(meter) = power else { return Self::None };
        let texts = || meter.total.iter().cloned().map(raw::Text).collect();
        // Of one rail too: that it may stand alone has been checked.
        let total = raw::Total::Sum(raw::Sum { sum: texts() });
        let root = (meter.root != SYSFS).then(|| raw::Text(meter.root.clone()));
        match &meter.kind {
            MeterKind::Ina3221 { rails } => {
                let entry = |rail: &NamedRail| {
                    (rail.name.clone(), raw::Channel { address: rail.address, channel: rail.channel })
                };
                let rails = (!rails.is_empty()).then(|| Ordered(rails.iter().map(entry).collect()));
                let total = (!meter.total.is_empty()).then_some(total);
                Self::Ina3221(raw::Ina3221 { total, rails, root })
            }
            MeterKind::Rapl => Self::Rapl(raw::Rapl { total, root }),
        }
    }
}
