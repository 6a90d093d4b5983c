//! A power meter as the program uses it.

use super::ordered::Ordered;
use super::raw;
use protocol::{Meter, MeterKind, NamedRail};

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
                Self::Meter(Meter { kind, root: root(meter.root), total: meter.total.0 })
            }
            raw::Power::Rapl(meter) => {
                Self::Meter(Meter { kind: MeterKind::Rapl, root: root(meter.root), total: meter.total.0 })
            }
        }
    }
}

impl From<&Power> for raw::Power {
    fn from(power: &Power) -> Self {
        let Power::Meter(meter) = power else { return Self::None };
        let total = raw::Text(meter.total.clone());
        let root = (meter.root != SYSFS).then(|| raw::Text(meter.root.clone()));
        match &meter.kind {
            MeterKind::Ina3221 { rails } => {
                let entry = |rail: &NamedRail| {
                    (rail.name.clone(), raw::Channel { address: rail.address, channel: rail.channel })
                };
                let rails = (!rails.is_empty()).then(|| Ordered(rails.iter().map(entry).collect()));
                Self::Ina3221(raw::Ina3221 { total, rails, root })
            }
            MeterKind::Rapl => Self::Rapl(raw::Rapl { total, root }),
        }
    }
}
