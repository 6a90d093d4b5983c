//! A board's file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::ordered::Ordered;
use super::{Auto, CudaArch, Glibc, NAME, Name, Text};

/// A machine to measure on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Board {
    /// Name of the board, the same as the file's.
    #[serde(rename = "board")]
    pub(crate) name: Name,
    /// How to reach it.
    pub(crate) connect: Connect,
    /// What is built for it; where it is left out, this machine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<Target>,
    /// Its processors by name, or `auto`: found on the board.
    pub(crate) processors: Processors,
    /// Its power meter.
    pub(crate) power: Power,
    /// The state it is brought to before measuring and restored from after.
    pub(crate) state: State,
}

/// How a board is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Connect {
    /// It is this machine.
    Local,
    /// Over SSH.
    Ssh(Ssh),
}

/// Where the board listens. What is left out comes from OpenSSH's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ssh {
    /// Host name, address or alias of OpenSSH's configuration.
    pub(crate) host: Text,
    /// User on the board.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<Text>,
    /// Port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub(crate) port: Option<u16>,
    /// File of the private key; `~/` is the home folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<Text>,
    /// Host to go through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) jump: Option<Text>,
    /// Seconds in which a board that was lost must be reached again, or the run ends; left out: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 86_400))]
    pub(crate) reconnect_seconds: Option<u32>,
}

/// What the board's binaries are built for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    /// Target triple.
    pub(crate) triple: Triple,
    /// Version of the board's C library, such as "2.27" (in quotes); binaries need no newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) glibc: Option<Glibc>,
}

/// Targets that can be built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Triple {
    /// 64-bit x86.
    #[serde(rename = "x86_64-unknown-linux-gnu")]
    X86,
    /// 64-bit Arm.
    #[serde(rename = "aarch64-unknown-linux-gnu")]
    Arm,
}

impl Triple {
    /// The triple as written.
    pub const fn text(self) -> &'static str {
        match self {
            Self::X86 => "x86_64-unknown-linux-gnu",
            Self::Arm => "aarch64-unknown-linux-gnu",
        }
    }

    /// The architecture, as [`std::env::consts::ARCH`] calls it.
    pub const fn architecture(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "aarch64",
        }
    }
}

/// The processors of a board.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Processors {
    /// `auto`: found on the board.
    Auto(Auto),
    /// By name.
    Listed(
        #[schemars(extend("minProperties" = 1, "propertyNames" = { "pattern": NAME }))] Ordered<Processor>,
    ),
}

/// A processor: CPUs, or a GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Processor {
    /// Its CPUs as the kernel numbers them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), inner(range(max = 4095)), extend("uniqueItems" = true))]
    pub(crate) cpus: Option<Vec<u32>>,
    /// Threads of a stage; left out: one a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub(crate) threads: Option<u32>,
    /// CPU to compile for, as LLVM names it; left out: found on the board.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mcpu: Option<Name>,
    /// A GPU in place of CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cuda: Option<Cuda>,
}

/// An NVIDIA GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cuda {
    /// Architecture to compile for.
    pub(crate) arch: CudaArch,
}

/// A power meter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Power {
    /// Energy is not measured.
    None,
    /// INA3221 sensors.
    Ina3221(Ina3221),
    /// Energy counters of an x86 processor.
    Rapl(Rapl),
}

/// What feeds everything measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Total {
    /// One rail.
    Rail(Text),
    /// Several rails together.
    Sum(Sum),
}

/// Rails that together feed everything measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sum {
    /// Their names; none of them is fed by another.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub(crate) sum: Vec<Text>,
}

/// INA3221 sensors and those with one channel (INA219, INA226, INA238 and alike), found by name; rails by label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ina3221 {
    /// Label of the rail that feeds everything measured, or `{ sum: [...] }` of several; left out: `VDD_IN` or
    /// `POM_5V_IN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) total: Option<Total>,
    /// Names for channels whose driver gives no label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rails: Option<Ordered<Channel>>,
    /// Where sysfs is; left out: `/sys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<Text>,
}

/// A channel of a chip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Channel {
    /// I2C address of the chip, such as 0x41.
    #[schemars(range(min = 3, max = 119))]
    pub(crate) address: u32,
    /// Channel of the chip, from 0.
    #[schemars(range(max = 2))]
    pub(crate) channel: u32,
}

/// Energy counters of an x86 processor, by the kernel's powercap interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rapl {
    /// Name of the zone that covers everything measured, such as `package-0` or `psys`, or `{ sum: [...] }` of several.
    pub(crate) total: Total,
    /// Where sysfs is; left out: `/sys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<Text>,
}

/// State of a board; what is left out is not touched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// Power mode, as `nvpmodel` numbers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 255))]
    pub(crate) nvpmodel: Option<u32>,
    /// Whether `jetson_clocks` pins the clocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) jetson_clocks: Option<bool>,
    /// Frequency governor of all CPUs, such as `performance`; for boards without `jetson_clocks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) governor: Option<Name>,
    /// A trial begins only below this temperature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 125))]
    pub(crate) max_temperature_c: Option<f64>,
    /// Where sysfs is; left out: `/sys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<Text>,
}
