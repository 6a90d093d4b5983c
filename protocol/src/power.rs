//! Power meters of a board, and their readings.

use serde::{Deserialize, Serialize};

/// A power meter to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meter {
    /// Its kind.
    pub kind: MeterKind,
    /// Folder of sysfs: `/sys`, or a replacement for tests.
    pub root: String,
    /// Names of the rails or zones whose sum is the power of everything measured. All must exist. Empty: the rail that is known
    /// to supply a whole board, one of [`BOARD_INPUTS`].
    pub total: Vec<String>,
}

/// Labels of rails that supply a whole board: Jetson TX1, TX2, Xavier NX, Orin NX and Orin Nano; Jetson Nano.
pub const BOARD_INPUTS: [&str; 2] = ["VDD_IN", "POM_5V_IN"];

/// Separates the names of a total that is a sum.
const PLUS: &str = " + ";

/// The name of a total: that of its rail, or those of all rails of a sum.
pub fn total_name(rails: &[String]) -> String {
    rails.join(PLUS)
}

/// Kinds of power meters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum MeterKind {
    /// Texas Instruments INA3221 chips, and similar chips with one channel (such as INA219, INA226, INA238).
    Ina3221 {
        /// Names for channels; they override those of the driver.
        rails: Vec<NamedRail>,
    },
    /// Energy counters of the processor, through the kernel's powercap interface.
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
    /// The meter.
    pub meter: Meter,
    /// How long to read.
    pub duration_ns: u64,
}

/// Answer to [`Idle`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Idled {
    /// The request answered.
    pub id: u64,
    /// When it started.
    pub opened_monotonic_ns: u64,
    /// How long it took.
    pub duration_ns: u64,
    /// The readings.
    pub readings: PowerReadings,
}

/// Result of reading a meter during a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Power {
    /// Its readings.
    Read(PowerReadings),
    /// It could not be read.
    Unreadable {
        /// Starts with "failed to".
        message: String,
    },
}

/// All readings of a meter, as read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerReadings {
    /// The kernel driver and its interface, such as `ina3221 by hwmon`.
    pub driver: String,
    /// Name of the total, by [`total_name`].
    pub total: String,
    /// The rails, those of the total first.
    pub rails: Vec<RailReadings>,
    /// CPU time of reading.
    pub cpu_ns: u64,
}

impl PowerReadings {
    /// The rails of the total, and the others; `None` if a rail of the total was not read.
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

/// Readings of a rail. The series have equal lengths or, if the driver lacks the quantity, are empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RailReadings {
    /// Name of the rail.
    pub name: String,
    /// Its file.
    pub source: String,
    /// Time before each reading.
    pub begun_ns: Vec<u64>,
    /// Duration of each reading.
    pub took_ns: Vec<u64>,
    /// Power as the driver computes it.
    pub milliwatts: Vec<i64>,
    /// Voltage.
    pub millivolts: Vec<i64>,
    /// Current.
    pub milliamperes: Vec<i64>,
    /// Energy counter.
    pub microjoules: Vec<i64>,
    /// Value at which the counter wraps around to 0.
    pub range_microjoules: Option<u64>,
    /// Failed readings, by error.
    pub errors: Vec<ReadErrors>,
}

/// Readings that failed with the same error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadErrors {
    /// The system's message.
    pub message: String,
    /// Number of readings.
    pub count: u64,
    /// Time of the first one.
    pub first_ns: u64,
    /// Time of the last one.
    pub last_ns: u64,
}
