//! The file of a stage that is compiled for a CUDA device: its kernels as PTX, and how to launch them.

use serde::{Deserialize, Serialize};

/// Version of the file's format, in its field `schema`.
pub const SCHEMA: u32 = 1;
/// Offsets of values in the arena are multiples of this, in bytes.
pub const VALUE_ALIGNMENT: u64 = 256;
/// Offsets of weights in their file are multiples of this, in bytes.
pub const WEIGHT_ALIGNMENT: u64 = 64;

/// How to run a stage: copy its inputs to their places in the arena, launch the kernels in order, copy its outputs from
/// theirs. The kernels of one module do all the work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchPlan {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Architecture for which the kernels are compiled, such as `sm_62`.
    pub arch: String,
    /// Version of the PTX language that the module uses, such as `5.0`.
    pub ptx_version: String,
    /// Text of the module.
    pub ptx: String,
    /// Size of the device memory that holds all values.
    pub arena_bytes: u64,
    /// Every tensor of the stage. Values that are not needed at the same time may overlap.
    pub values: Vec<Value>,
    /// Indices into `values`, in stage order.
    pub inputs: Vec<u32>,
    /// Indices into `values`, in stage order.
    pub outputs: Vec<u32>,
    /// The stage's weights; each is uploaded once.
    pub weights: Vec<Weight>,
    /// In execution order.
    pub launches: Vec<Launch>,
}

/// A tensor in the arena.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Value {
    /// For messages.
    pub name: String,
    /// Start in the arena, in bytes; a multiple of [`VALUE_ALIGNMENT`].
    pub offset: u64,
    /// Size.
    pub bytes: u64,
}

/// A tensor in the file of weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weight {
    /// Start in the file, in bytes; a multiple of [`WEIGHT_ALIGNMENT`].
    pub offset: u64,
    /// Size.
    pub bytes: u64,
}

/// One execution of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// Name of its entry in the module.
    pub kernel: String,
    /// Unit of the network that it computes.
    pub unit: u32,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// In the order of the entry's parameters, which are pointers.
    pub arguments: Vec<Argument>,
}

/// What a pointer refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Argument {
    /// Index into [`LaunchPlan::values`].
    Value(u32),
    /// Index into [`LaunchPlan::weights`].
    Weight(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_the_documented_form() {
        let text = r#"{"schema":1,"arch":"sm_62","ptx_version":"5.0","ptx":".version 5.0\n","arena_bytes":512,"values":[{"name":"x","offset":0,"bytes":16},{"name":"y","offset":256,"bytes":16}],"inputs":[0],"outputs":[1],"weights":[{"offset":64,"bytes":4}],"launches":[{"kernel":"u003_conv","unit":3,"grid":[1,2,3],"block":[32,1,1],"arguments":[{"value":0},{"weight":0},{"value":1}]}]}"#;
        let plan: LaunchPlan = serde_json::from_str(text).unwrap();
        assert_eq!((plan.schema, plan.values[1].offset, plan.weights[0].offset), (SCHEMA, 256, 64));
        let launch = &plan.launches[0];
        assert_eq!((launch.grid, launch.block), ([1, 2, 3], [32, 1, 1]));
        assert_eq!(launch.arguments, [Argument::Value(0), Argument::Weight(0), Argument::Value(1)]);
        assert_eq!(serde_json::to_string(&plan).unwrap(), text);
        let unknown = text.replacen("\"unit\":3", "\"unit\":3,\"shared\":48", 1);
        assert!(serde_json::from_str::<LaunchPlan>(&unknown).unwrap_err().to_string().contains("shared"));
    }
}
