//! The files as they are written: one struct a file. Their JSON Schemas are what files are checked against, so a
//! limit stands here once, for the harness and for editors.
//!
//! Everything an experiment or board may leave out comes from `configs/defaults.yaml` before it is read into these.

mod board;
mod experiment;
mod group;
mod thresholds;

pub use board::Triple;
pub(super) use board::*;
pub(super) use experiment::*;
pub(super) use group::*;
pub(super) use thresholds::*;

use super::ordered::Ordered;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What names look like. Nothing that a shell, a path or YAML would read as anything else.
pub(super) const NAME: &str = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$";
/// Text with something in it and without control characters.
pub(super) const TEXT: &str = r"^[^\u0000-\u001f\u007f]+$";
/// A SHA-256 sum.
pub(super) const SHA256: &str = "^[0-9a-f]{64}$";
/// An address to download from.
pub(super) const URL: &str = r"^https?://[^\s\u0000-\u001f\u007f]+$";
/// A version of the C library.
pub(super) const GLIBC: &str = r"^[0-9]+\.[0-9]+$";
/// A share.
pub(super) const PERCENT: &str = r"^[0-9]+(\.[0-9]+)? ?%$";
/// A CUDA architecture.
pub(super) const CUDA_ARCH: &str = "^sm_[0-9]+[a-z]?$";

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $pattern:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[schemars(extend("pattern" = $pattern))]
        #[serde(transparent)]
        pub(super) struct $name(pub(super) String);
    };
}

text!(
    /// A name: letters, digits, `_`, `.` and `-`, at most 64, not beginning with `.` or `-`.
    Name, NAME
);
text!(
    /// Any text without control characters.
    Text, TEXT
);
text!(
    /// 64 lower-case hexadecimal digits.
    Sha256, SHA256
);
text!(
    /// An address beginning with `http://` or `https://`.
    Url, URL
);
text!(
    /// A version such as "2.27", in quotes: without them YAML reads a number.
    Glibc, GLIBC
);
text!(
    /// A share with its sign, such as `2%` or `0.5 %`.
    Percent, PERCENT
);
text!(
    /// A CUDA architecture such as `sm_62`.
    CudaArch, CUDA_ARCH
);

/// The word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Auto {
    /// Found by the program.
    Auto,
}

impl Percent {
    /// As a share of one: `2%` is 0.02.
    pub(super) fn share(&self) -> f64 {
        // The pattern lets nothing else in.
        self.0.trim_end_matches('%').trim_end().parse::<f64>().unwrap_or(f64::NAN) / 100.0
    }

    /// The text of a share.
    pub(super) fn of(share: f64) -> Self {
        // Rounded, since 100 × 0.07 is not 7.
        Self(format!("{}%", (share * 1e8).round() / 1e6))
    }
}

/// The word `none`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Nothing {
    /// Not done.
    #[default]
    None,
}

/// An extent of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct Extent(#[schemars(range(min = 1, max = 1_000_000_000))] pub(super) u64);

/// A network from an ONNX file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    /// Name by which experiments call it, the same as the file's; not one of the zoo's.
    #[serde(rename = "network")]
    pub(super) name: Name,
    /// The .onnx file, relative to the folder of this file or absolute.
    pub(super) onnx: Text,
    /// Shapes of inputs whose extents are open in the file, by the names of the inputs. The first extent, the batch, is 1
    /// where nothing else is said.
    #[serde(default, skip_serializing_if = "Ordered::is_empty")]
    pub(super) shapes: Ordered<Vec<Extent>>,
    /// SHA-256 of the .onnx file; checked where given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sha256: Option<Sha256>,
    /// Where the file can be had. Not downloaded yet: named in the message where the file is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<Url>,
}

/// A resolved configuration as the database keeps it: one text from which a run can be repeated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    /// Version of this shape.
    #[schemars(range(min = 1, max = 1))]
    pub(super) schema: u32,
    /// The board, complete.
    pub(super) board: Board,
    /// Networks that are not of the zoo, with absolute paths.
    pub(super) networks: Vec<Network>,
    /// The experiment, complete.
    pub(super) experiment: Experiment,
}
