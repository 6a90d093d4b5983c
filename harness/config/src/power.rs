//! The power meter of a board.

use protocol::{BOARD_INPUTS, Meter, MeterKind, NamedRail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::faults::Faults;
use super::ordered::Ordered;
use super::tree::Node;
use super::typed;
use super::values::Text;

/// Where sysfs is mounted.
const SYSFS: &str = "/sys";

/// A power meter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Notation", into = "Notation")]
pub enum Power {
    /// No meter: energy is not measured.
    None,
    /// A meter that the runner reads.
    Meter(Meter),
}

impl Power {
    /// The meter, if there is one.
    pub fn meter(&self) -> Option<&Meter> {
        match self {
            Self::None => None,
            Self::Meter(meter) => Some(meter),
        }
    }
}

/// A power meter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[schemars(rename = "Power")]
pub(super) enum Notation {
    /// Energy is not measured.
    None,
    /// INA3221 sensors.
    Ina3221(Ina3221),
    /// Energy counters of an x86 processor.
    Rapl(Rapl),
}

/// The supply of everything that is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Total {
    /// One rail.
    Rail(#[schemars(with = "Text")] String),
    /// Several rails together.
    Sum(Sum),
}

/// Rails that together supply everything that is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Sum {
    /// Their names. No rail may supply another.
    #[schemars(with = "Vec<Text>", length(min = 1), extend("uniqueItems" = true))]
    sum: Vec<String>,
}

/// INA3221 sensors and similar ones with one channel (INA219, INA226, INA238, …). Sensors are found by name, rails by
/// label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ina3221 {
    /// Label of the rail that supplies everything that is measured, or `{ sum: [...] }` of several. Default: `VDD_IN` or
    /// `POM_5V_IN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    total: Option<Total>,
    /// Names for channels whose driver gives no label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rails: Option<Ordered<Channel>>,
    /// Path of sysfs. Default: `/sys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Text>")]
    root: Option<String>,
}

/// A channel of a chip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Channel {
    /// I2C address of the chip, such as 0x41.
    #[schemars(range(min = 3, max = 119))]
    address: u32,
    /// Channel of the chip, starting at 0.
    #[schemars(range(max = 2))]
    channel: u32,
}

/// Energy counters of an x86 processor, read through the kernel's powercap interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rapl {
    /// Name of the zone that covers everything that is measured, such as `package-0` or `psys`, or `{ sum: [...] }` of
    /// several.
    total: Total,
    /// Path of sysfs. Default: `/sys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Text>")]
    root: Option<String>,
}

fn names(total: Total) -> Vec<String> {
    match total {
        Total::Rail(name) => vec![name],
        Total::Sum(sum) => sum.sum,
    }
}

/// Feeds only a part of the board, despite its name.
const PARTIAL_RAIL: &str = "VIN_SYS_5V0";

/// Reports totals that are not totals: rails that feed a part of the board, and sums that count a rail twice.
/// `board` is the board's tree.
pub(super) fn check(board: &Node, faults: &mut Faults) {
    let Some(Ok(power)) = board.get("power").map(typed::read::<Notation>) else { return };
    let (path, total, rails) = match power {
        Notation::None => return,
        Notation::Rapl(meter) => ("power/rapl/total", Some(meter.total), None),
        Notation::Ina3221(meter) => {
            ("power/ina3221/total", meter.total, Some(meter.rails.unwrap_or_default()))
        }
    };
    let Some(total) = total else { return };
    let mut add = |message: String| faults.add(&board.spot(path), message);
    let is_sum = matches!(total, Total::Sum(_));
    let named = |name: &str| rails.iter().flat_map(|rails| &rails.0).any(|(known, _)| known == name);
    let all = names(total);
    let inputs = BOARD_INPUTS.join(" and ");
    if let [alone] = &all[..]
        && rails.is_some()
        && !named(alone)
        && !BOARD_INPUTS.contains(&alone.as_str())
        && (!is_sum || alone == PARTIAL_RAIL)
    {
        add(format!(
            "{alone} is not known to supply the whole board ({inputs} are); list all rails that together supply it, such \
             as {{ sum: [GPU, CPU, SOC, CV, VDDRQ, SYS5V] }} on an AGX Xavier or {{ sum: [VDD_GPU_SOC, VDD_CPU_CV, \
             VIN_SYS_5V0] }} on an AGX Orin; `{program} boards` shows the rails of this board if `total` is left out",
            program = host::program()
        ));
    }
    for (place, name) in all.iter().enumerate() {
        let others = || all.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, other)| other);
        if name.contains(" + ") {
            add(format!("{name:?} contains \" + \", which separates the names of a sum"));
        }
        if BOARD_INPUTS.contains(&name.as_str()) && others().count() > 0 {
            add(format!(
                "{name} supplies the whole board and thus all other rails of the sum; use total: {name}"
            ));
        }
        // The memory's counter is below its package's, and not a part of it.
        let part = others().find(|other| other.starts_with(&format!("{name}/")) && !other.ends_with("/dram"));
        if let (Some(part), None) = (part, &rails) {
            add(format!("{part} is a part of {name} and would be counted twice; remove it from the sum"));
        }
    }
}

impl From<Notation> for Power {
    fn from(power: Notation) -> Self {
        let sysfs = |root: Option<String>| root.unwrap_or_else(|| SYSFS.to_owned());
        match power {
            Notation::None => Self::None,
            Notation::Ina3221(meter) => {
                let rails = meter.rails.unwrap_or_default().0.into_iter().map(|(name, channel)| NamedRail {
                    name,
                    address: channel.address,
                    channel: channel.channel,
                });
                let kind = MeterKind::Ina3221 { rails: rails.collect() };
                let total = meter.total.map(names).unwrap_or_default();
                Self::Meter(Meter { kind, root: sysfs(meter.root), total })
            }
            Notation::Rapl(meter) => Self::Meter(Meter {
                kind: MeterKind::Rapl,
                root: sysfs(meter.root),
                total: names(meter.total),
            }),
        }
    }
}

impl From<Power> for Notation {
    fn from(power: Power) -> Self {
        let Power::Meter(Meter { kind, root, total: rails }) = power else { return Self::None };
        let is_empty = rails.is_empty();
        // A sum even of one rail: it has already been checked that it can stand alone.
        let total = Total::Sum(Sum { sum: rails });
        let root = (root != SYSFS).then_some(root);
        match kind {
            MeterKind::Ina3221 { rails } => {
                let entry =
                    |rail: NamedRail| (rail.name, Channel { address: rail.address, channel: rail.channel });
                let rails = (!rails.is_empty()).then(|| Ordered(rails.into_iter().map(entry).collect()));
                Self::Ina3221(Ina3221 { total: (!is_empty).then_some(total), rails, root })
            }
            MeterKind::Rapl => Self::Rapl(Rapl { total, root }),
        }
    }
}
