//! A board's file. The struct that mirrors the file is the one that the program uses.

use std::path::Path;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::connect::{self, Connect, Recover};
use super::faults::{Faults, Spot};
use super::files::{self, Kind};
use super::operating_points::{self, OperatingPoints};
use super::power::{self, Power};
use super::processors::{self, Processors};
use super::schema::{self, DEFAULTS_TREE};
use super::tree::{self, Node};
use super::values::{Glibc, Name, OnnxRuntimePath, Text};
use super::{check, typed};

/// A machine to measure on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// Name of the board; must equal the file name.
    #[serde(rename = "board")]
    #[schemars(with = "Name")]
    pub name: String,
    /// How to connect to it.
    pub connect: Connect,
    /// What to do if it does not answer. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recover: Option<Recover>,
    /// Target platform of the binaries. Required for a board that is not this machine; default: this machine's platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// ONNX Runtime's library on the board, for peers; its providers are in the same folder. Default: the one of the private
    /// Python environment, which computes on CPUs and runs only on boards with this machine's architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<OnnxRuntimePath>")]
    pub onnxruntime: Option<String>,
    /// Its processors by name, or `auto` to detect them on the board.
    #[schemars(with = "processors::Notation")]
    pub processors: Processors,
    /// Its power meter.
    #[schemars(with = "power::Notation")]
    pub power: Power,
    /// Settings applied before measuring and restored afterwards.
    pub state: State,
    /// Operating points that `optimize` searches. Default: that of `state` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operating_points: Option<OperatingPoints>,
}

/// Target platform of a board's binaries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Target triple.
    pub triple: Triple,
    /// Version of the board's C library, such as "2.27" (quoted). Binaries must not need a newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Glibc>")]
    pub glibc: Option<String>,
}

/// Supported target platforms.
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
    /// The target triple.
    pub const fn text(self) -> &'static str {
        match self {
            Self::X86 => "x86_64-unknown-linux-gnu",
            Self::Arm => "aarch64-unknown-linux-gnu",
        }
    }

    /// The architecture as in [`std::env::consts::ARCH`].
    pub const fn architecture(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "aarch64",
        }
    }
}

/// Settings that affect the speed of a board. Those that are left out are not changed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Power mode number of `nvpmodel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 255))]
    pub nvpmodel: Option<u32>,
    /// Whether `jetson_clocks` pins the clocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jetson_clocks: Option<bool>,
    /// Frequency governor of all CPUs, such as `performance`; for boards without `jetson_clocks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Name>")]
    pub governor: Option<String>,
    /// Trials start only below this temperature (degrees Celsius).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 125))]
    pub max_temperature_c: Option<f64>,
    /// Path of sysfs. Default: `/sys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Text>")]
    pub root: Option<String>,
}

impl State {
    /// The request to the runner for this state.
    pub fn asked(&self) -> protocol::StateRequest {
        protocol::StateRequest {
            sysfs: self.root.clone().unwrap_or_else(|| "/sys".to_owned()),
            nvpmodel: self.nvpmodel,
            jetson_clocks: self.jetson_clocks,
            governor: self.governor.clone(),
            cpu_limits: Vec::new(),
            gpu_max_hz: None,
            memory_hz: None,
        }
    }
}

/// The schema of a board's file.
pub(super) static SCHEMA: LazyLock<serde_json::Value> = LazyLock::new(|| {
    let defaults = DEFAULTS_TREE.as_ref().ok().and_then(|tree| tree.get("board"));
    schema::of_partial::<Board>(&["board"], defaults)
});

/// Built in, so that this machine can be measured without any file.
const LOCAL: &str = include_str!("../../../configs/boards/local.yaml");

/// A board, and the names of its processors as written, including invalid ones; `None`: detected on the board.
pub(super) struct Read {
    pub(super) board: Option<Board>,
    pub(super) names: Option<Vec<String>>,
}

/// Reads and checks the board `name`, which was requested at `requested`.
pub(super) fn read(root: &Path, name: &str, requested: &Spot, defaults: &Node, faults: &mut Faults) -> Read {
    let builtin = name == "local" && !root.join("configs/boards/local.yaml").exists();
    let tree = if builtin {
        tree::parse(&"configs/boards/local.yaml".into(), LOCAL, faults)
    } else {
        files::read(root, Kind::Board, name, requested, faults)
    };
    let Some(tree) = tree else { return Read { board: None, names: None } };
    let names = tree.get("processors").map(Node::entries).filter(|entries| !entries.is_empty());
    let names = names.map(|entries| entries.iter().map(|entry| entry.key.clone()).collect());
    check_target(&tree, faults);
    connect::check(&tree, faults);
    let board = check::check(&tree, &SCHEMA, faults).and_then(|valid| {
        let mut whole = defaults.get("board").cloned()?;
        whole.overlay(valid);
        check_values(&whole, faults);
        typed::read_checked(&whole, faults)
    });
    Read { board, names }
}

/// Reports what the schema cannot express. `tree` is the complete board.
pub(super) fn check_values(tree: &Node, faults: &mut Faults) {
    processors::check(tree, faults);
    power::check(tree, faults);
    operating_points::check(tree, faults);
}

/// A board over SSH, a place of labgrid among them, needs a target; this machine cannot have a foreign one. Checks the file as written, so that an
/// invalid target is not also reported as missing.
fn check_target(tree: &Node, faults: &mut Faults) {
    let is_elsewhere = ["connect/ssh", "connect/labgrid"].iter().any(|path| tree.find(path).is_some());
    if is_elsewhere && tree.get("target").is_none() {
        let example = "target: { triple: aarch64-unknown-linux-gnu, glibc: \"2.27\" }";
        let message = format!("missing key \"target\"; a board over SSH needs one, such as {example}");
        faults.add(&tree.spot("connect"), message);
    }
    let local = tree.get("connect").is_none_or(|connect| connect.text() == Some("local"));
    if let (true, Some(triple)) = (local, tree.find("target/triple"))
        && let Some(text) = triple.text()
        && let Ok(known) = typed::read::<Triple>(triple)
        && known.architecture() != std::env::consts::ARCH
    {
        let ours = std::env::consts::ARCH;
        let message = format!(
            "{text:?} is not for this machine ({ours}), which connect: local selects; remove the target"
        );
        faults.add(&triple.at, message);
    }
}
