//! Power meters of a board, and what they said.

use serde::{Deserialize, Serialize};

/// A power meter to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meter {
    /// What kind it is.
    pub kind: MeterKind,
    /// Where sysfs is: `/sys`, unless a tree of files stands in for it.
    pub root: String,
    /// Names of the rails or zones that together feed everything measured, none of them a part of another. The meter is
    /// refused if one is missing. Empty: the rail that is known to feed a whole board, one of [`BOARD_INPUTS`].
    pub total: Vec<String>,
}

/// Labels of rails that feed a whole board: Jetson TX1, TX2, Xavier NX, Orin NX and Orin Nano; Jetson Nano.
pub const BOARD_INPUTS: [&str; 2] = ["VDD_IN", "POM_5V_IN"];

/// Between the names of a total that is a sum.
const PLUS: &str = " + ";

/// The name of a total: of its rail, or of all the rails of a sum.
pub fn total_name(rails: &[String]) -> String {
    rails.join(PLUS)
}

/// Kinds of power meters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum MeterKind {
    /// Texas Instruments INA3221 chips and those with one channel (INA219, INA226, INA238 and alike), whichever driver
    /// serves them.
    Ina3221 {
        /// Names for channels whose driver gives none, or others than it gives.
        rails: Vec<NamedRail>,
    },
    /// Energy counters of the processor, by the kernel's powercap interface.
    Rapl,
}

/// A name for a channel of a chip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedRail {
    /// The name.
    pub name: String,
    /// I2C address of the chip.
    pub address: u32,
    /// Channel of the chip, from 0.
    pub channel: u32,
}

/// Read a power meter while nothing runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Idle {
    /// Number of this request.
    pub id: u64,
    /// What is read.
    pub meter: Meter,
    /// For how long.
    pub duration_ns: u64,
}

/// Answer to [`Idle`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Idled {
    /// The request answered.
    pub id: u64,
    /// The board's monotonic clock when it began.
    pub opened_monotonic_ns: u64,
    /// How long it lasted.
    pub duration_ns: u64,
    /// What the meter said.
    pub readings: PowerReadings,
}

/// What became of reading a meter during a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Power {
    /// It was read.
    Read(PowerReadings),
    /// It could not even be begun.
    Unreadable {
        /// Finishes "failed to …".
        message: String,
    },
}

/// Everything a meter said, as it said it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerReadings {
    /// The kernel driver and its interface, such as `ina3221 by hwmon`.
    pub driver: String,
    /// Name of the total, by [`total_name`].
    pub total: String,
    /// The rails, those of the total first.
    pub rails: Vec<RailReadings>,
    /// CPU time that reading took.
    pub cpu_ns: u64,
}

impl PowerReadings {
    /// The rails that the total is the sum of, and the others; `None` if one of them was not read.
    pub fn split(&self) -> Option<(Vec<&RailReadings>, Vec<&RailReadings>)> {
        let find = |name: &str| self.rails.iter().find(|rail| rail.name == name);
        let totals = match find(&self.total) {
            Some(rail) => vec![rail],
            None => self.total.split(PLUS).map(find).collect::<Option<Vec<_>>>()?,
        };
        let is_other = |rail: &&RailReadings| !totals.iter().any(|total| total.name == rail.name);
        let others = self.rails.iter().filter(is_other).collect();
        Some((totals, others))
    }
}

/// Readings of one rail. The series are equally long or, where the driver does not give the quantity, empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RailReadings {
    /// Name of the rail.
    pub name: String,
    /// Where it was found, below the root.
    pub source: String,
    /// The board's monotonic clock before each reading.
    pub begun_ns: Vec<u64>,
    /// How long each reading took.
    pub took_ns: Vec<u64>,
    /// Power as the driver computes it.
    pub milliwatts: Vec<i64>,
    /// Voltage.
    pub millivolts: Vec<i64>,
    /// Current.
    pub milliamperes: Vec<i64>,
    /// Energy since some time in the past.
    pub microjoules: Vec<i64>,
    /// The energy at which the counter begins anew from 0.
    pub range_microjoules: Option<u64>,
    /// Readings that gave nothing, by what the system said.
    pub errors: Vec<ReadErrors>,
}

/// Readings that failed alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadErrors {
    /// What the system said.
    pub message: String,
    /// How often.
    pub count: u64,
    /// The board's monotonic clock at the first.
    pub first_ns: u64,
    /// The board's monotonic clock at the last.
    pub last_ns: u64,
}
