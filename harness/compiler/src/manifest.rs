//! Manifests of compiled artifacts: `network.json` and `stage.json`.

use domain::{Boundary, Bytes, Network, Tensor, Unit};
use serde::{Deserialize, Serialize};

/// Supported version of the manifests.
pub(super) const SCHEMA: u32 = 1;

/// A network and its units. Independent of the target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NetworkManifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The network's name.
    pub name: String,
    /// Version of ONNX's operator set.
    pub opset: u32,
    /// Assumptions made when the network was read, such as a batch of one.
    pub notes: Vec<String>,
    /// Reference outputs of another engine.
    pub reference: Reference,
    /// Learnable parameters.
    pub parameters: u64,
    /// Multiply-adds of one frame in convolutions and fully connected layers.
    pub macs: u64,
    /// In execution order.
    pub units: Vec<UnitManifest>,
    /// One more than units: the first is the network's inputs, the last its outputs.
    pub boundaries: Vec<BoundaryManifest>,
}

/// A frame and the outputs that an independent engine computed from it, as files in [`Entry::reference`](super::Entry::reference).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reference {
    /// The engine with its version.
    pub engine: String,
    /// Generated integer inputs must be below this, because larger ones would index beyond a table.
    pub integers_below: u32,
    /// In the network's order.
    pub inputs: Vec<ReferenceTensor>,
    /// In the network's order.
    pub outputs: Vec<ReferenceTensor>,
}

/// A tensor of a reference.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReferenceTensor {
    /// Name of the value.
    pub value: String,
    /// Its file: the elements in order, little-endian.
    pub file: String,
}

/// A unit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnitManifest {
    /// Unique, dotted.
    pub name: String,
    /// Operators fused in it.
    pub operators: Vec<String>,
    /// Multiply-adds of one frame.
    pub macs: u64,
    /// Learnable parameters.
    pub parameters: u64,
}

/// The tensors alive at a cut.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BoundaryManifest {
    /// In the compiler's order.
    pub tensors: Vec<ValueManifest>,
}

/// A tensor of the network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ValueManifest {
    /// Name of the value.
    pub value: String,
    /// Memory layout: `plain`, or packed as in `NCHW16c`. Absent in `network.json`, where all layouts are plain.
    #[serde(default = "plain")]
    pub layout: String,
    /// Extents in this layout.
    pub shape: Vec<i64>,
    /// Element type.
    pub dtype: String,
    /// Size.
    pub bytes: u64,
}

fn plain() -> String {
    "plain".to_owned()
}

/// A compiled stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StageManifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// First unit.
    pub first_unit: usize,
    /// One past the last unit.
    pub end_unit: usize,
    /// File name of the library, in the directory of the manifest.
    pub library: String,
    /// Its SHA-256 digest.
    pub library_sha256: String,
    /// Function to call.
    pub entry: String,
    /// Arguments before the weights.
    pub inputs: Vec<ValueManifest>,
    /// Its outputs.
    pub outputs: Vec<ValueManifest>,
    /// Arguments after the inputs, by their place in the network's `weights.bin`.
    pub weights: Vec<WeightManifest>,
    /// Kernel calls in execution order.
    pub calls: Vec<CallManifest>,
    /// The schedule rule of each unit, such as `convolution` or `winograd`.
    pub rules: Vec<String>,
    /// The multiply-adds of each unit in a frame, if not those of direct sums.
    pub multiply_adds: Vec<Option<u64>>,
    /// Units without a schedule rule, which TVM itself lowers; they are slow.
    #[serde(default)]
    pub fallback_units: Vec<FallbackManifest>,
}

/// A weight.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WeightManifest {
    /// From the start of the file, in bytes.
    pub offset: u64,
    /// Size.
    pub bytes: u64,
    /// Extents.
    pub shape: Vec<i64>,
    /// Element type.
    pub dtype: String,
}

/// A kernel call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CallManifest {
    /// Name of the function.
    pub function: String,
    /// Its unit.
    pub unit: u32,
}

/// A unit without a schedule rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FallbackManifest {
    /// The unit.
    pub unit: u32,
    /// Its operators.
    pub operators: Vec<String>,
}

impl NetworkManifest {
    /// The network as the planner knows it.
    ///
    /// # Errors
    /// If the manifest is inconsistent, which is a bug of the compiler.
    pub fn network(&self) -> Result<Network, domain::NetworkError> {
        let units = self.units.iter().map(|unit| Unit {
            name: unit.name.clone(),
            operators: unit.operators.clone(),
            macs: unit.macs,
            parameters: unit.parameters,
        });
        let boundaries = self
            .boundaries
            .iter()
            .map(|boundary| Boundary { tensors: boundary.tensors.iter().map(tensor).collect() });
        Network::new(self.name.clone(), units.collect(), boundaries.collect())
    }
}

fn tensor(value: &ValueManifest) -> Tensor {
    Tensor {
        value: value.value.clone(),
        shape: value.shape.iter().map(|extent| extent.unsigned_abs()).collect(),
        dtype: value.dtype.clone(),
        bytes: Bytes(value.bytes),
    }
}
