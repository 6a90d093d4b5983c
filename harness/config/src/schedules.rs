//! The schedules of an experiment: as YAML has them, and as the program uses them.

use domain::GpuProvider;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{All, Auto, Name, Text, Used};

/// A way to run a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Notation", into = "Notation")]
pub enum ScheduleSpec {
    /// The whole network on each processor in turn: one schedule per processor.
    SingleEach,
    /// The whole network on this processor.
    Single(String),
    /// The whole network on the CPUs of all the board's processors as one, if there are several.
    MergedAll,
    /// The whole network on the CPUs of these processors as one, at least 2.
    Merged(Vec<String>),
    /// The planner partitions the network.
    PipelineAuto {
        /// Processors that it may use, at least 2; `None`: all of the board's.
        processors: Option<Vec<String>>,
    },
    /// A partition set by hand: at least 2 stages, each on one processor or on several, no processor twice, `until` in all but the last.
    PipelineManual(Vec<ManualStage>),
    /// The whole network on every processor of the board; frames are distributed.
    ReplicateAll,
    /// The whole network on these processors, at least 2; frames are distributed.
    Replicate(Vec<String>),
    /// The whole network in another inference engine.
    Peer(PeerSpec),
}

/// Another inference engine, for comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSpec {
    /// Its name.
    pub engine: String,
    /// What it computes with on a GPU; `None`: on CPUs.
    pub provider: Option<GpuProvider>,
    /// Threads of a session, at least 1; `None`: as many as there are CPUs.
    pub threads: Option<u32>,
    /// Parallel sessions, at least 1; `None`: as many as the CPUs have room for.
    pub sessions: Option<u32>,
    /// Processors whose CPUs, or one whose GPU, it may use; `None`: all of the board's.
    pub processors: Option<Vec<String>>,
}

/// A stage set by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ManualStage {
    /// Processor of the stage, or several sets of CPUs as one (`a57+denver`). Each processor has at most one stage of a
    /// pipeline. Or several processors (`[a57, denver]`), each of which takes the next frame when it is free; frames
    /// leave the stage in order.
    pub processor: StageProcessors,
    /// Its last unit, or a prefix of that unit's dotted name (`layer3`). The last stage has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Text>")]
    pub until: Option<String>,
}

/// What a stage runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum StageProcessors {
    /// One processor.
    One(#[schemars(with = "Used")] String),
    /// Several, each of which takes the next frame when it is free.
    Replicas(#[schemars(with = "Vec<Used>", length(min = 2), extend("uniqueItems" = true))] Vec<String>),
}

impl StageProcessors {
    /// Their names.
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Replicas(names) => names,
        }
    }
}

/// A way to run a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Schedule")]
pub(super) enum Notation {
    /// Compiled by TVM, on processors of the board.
    Own(Own),
    /// In another inference engine, for comparison.
    Peer(Peer),
}

/// A way to run a network that TVM compiled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Own {
    /// The whole network on one processor: `each` for each processor in turn, or a name.
    Single(#[schemars(with = "Name")] String),
    /// The whole network on the CPUs of several processors as one, with the threads of all of them.
    Merged(Merged),
    /// The network partitioned into stages. Each runs on one processor, or on several that share its frames.
    Pipeline(Pipeline),
    /// The whole network on several processors; frames are distributed.
    Replicate(Replicate),
}

/// The partition of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Pipeline {
    /// `auto`: the planner chooses cuts and processors.
    Auto(Auto),
    /// The planner chooses from some of the processors.
    Among(Among),
    /// Stages set by hand, in order.
    Stages(#[schemars(length(min = 2))] Vec<ManualStage>),
}

/// Some of the board's processors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Among {
    /// Processors that the planner may use. It never uses two that share CPUs: of `[a57, denver, a57+denver]`, either
    /// the last or the others.
    #[schemars(with = "Vec<Used>", length(min = 2), extend("uniqueItems" = true))]
    processors: Vec<String>,
}

/// Sets of CPUs that are used as one processor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Merged {
    /// `all`: those of every processor. Nothing is measured on a board where only one processor has CPUs.
    All(All),
    /// Those of these processors, in the order of the board.
    Of(#[schemars(with = "Vec<Name>", length(min = 2), extend("uniqueItems" = true))] Vec<String>),
}

/// Processors that each run the whole network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Replicate {
    /// `all`: every processor.
    All(All),
    /// These processors.
    On(#[schemars(with = "Vec<Used>", length(min = 2), extend("uniqueItems" = true))] Vec<String>),
}

/// The whole network in another inference engine, from its ONNX file with fixed shapes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "it is the key in the file")]
pub(super) struct Peer {
    /// The engine.
    peer: Engine,
    /// What the engine computes with. `cuda` and `tensorrt` need a GPU, and a library with that provider, which
    /// `onnxruntime` in the board's file names. Default: `cpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provider: Option<Provider>,
    /// Threads of a session: a number, or `all` for as many as there are CPUs. Default: 1. On a GPU it is always 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    threads: Option<Count>,
    /// Parallel sessions, which share the frames: a number, or `all` for as many as the CPUs have room for; on a GPU a
    /// number. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sessions: Option<Count>,
    /// Processors whose CPUs it may use. With `cuda` or `tensorrt`, it uses the first of them that is a GPU. Default: all of
    /// the board's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Name>>", length(min = 1), extend("uniqueItems" = true))]
    processors: Option<Vec<String>>,
}

/// An inference engine other than TVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Engine {
    /// ONNX Runtime.
    Onnxruntime,
}

/// An execution provider of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Provider {
    /// On CPUs.
    Cpu,
    /// On a GPU, with kernels of cuDNN and cuBLAS.
    Cuda,
    /// On a GPU, with TensorRT; nodes that it does not support run with `cuda`.
    Tensorrt,
}

/// A number, or `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Count {
    /// A number.
    Number(#[schemars(range(min = 1, max = 1024))] u32),
    /// As many as there are.
    All(All),
}

impl From<Notation> for ScheduleSpec {
    fn from(notation: Notation) -> Self {
        let count = |count: Option<Count>| match count {
            None => Some(1),
            Some(Count::Number(number)) => Some(number),
            Some(Count::All(_)) => None,
        };
        match notation {
            Notation::Own(Own::Single(name)) if name == "each" => Self::SingleEach,
            Notation::Own(Own::Single(name)) => Self::Single(name),
            Notation::Own(Own::Merged(Merged::All(_))) => Self::MergedAll,
            Notation::Own(Own::Merged(Merged::Of(names))) => Self::Merged(names),
            Notation::Own(Own::Pipeline(Pipeline::Auto(_))) => Self::PipelineAuto { processors: None },
            Notation::Own(Own::Pipeline(Pipeline::Among(among))) => {
                Self::PipelineAuto { processors: Some(among.processors) }
            }
            Notation::Own(Own::Pipeline(Pipeline::Stages(stages))) => Self::PipelineManual(stages),
            Notation::Own(Own::Replicate(Replicate::All(_))) => Self::ReplicateAll,
            Notation::Own(Own::Replicate(Replicate::On(names))) => Self::Replicate(names),
            Notation::Peer(Peer { peer: Engine::Onnxruntime, provider, threads, sessions, processors }) => {
                Self::Peer(PeerSpec {
                    engine: "onnxruntime".to_owned(),
                    provider: match provider {
                        None | Some(Provider::Cpu) => None,
                        Some(Provider::Cuda) => Some(GpuProvider::Cuda),
                        Some(Provider::Tensorrt) => Some(GpuProvider::Tensorrt),
                    },
                    threads: count(threads),
                    sessions: count(sessions),
                    processors,
                })
            }
        }
    }
}

impl From<ScheduleSpec> for Notation {
    fn from(schedule: ScheduleSpec) -> Self {
        let count = |count: Option<u32>| Some(count.map_or(Count::All(All::All), Count::Number));
        Self::Own(match schedule {
            ScheduleSpec::SingleEach => Own::Single("each".to_owned()),
            ScheduleSpec::Single(processor) => Own::Single(processor),
            ScheduleSpec::MergedAll => Own::Merged(Merged::All(All::All)),
            ScheduleSpec::Merged(names) => Own::Merged(Merged::Of(names)),
            ScheduleSpec::PipelineAuto { processors: None } => Own::Pipeline(Pipeline::Auto(Auto::Auto)),
            ScheduleSpec::PipelineAuto { processors: Some(processors) } => {
                Own::Pipeline(Pipeline::Among(Among { processors }))
            }
            ScheduleSpec::PipelineManual(stages) => Own::Pipeline(Pipeline::Stages(stages)),
            ScheduleSpec::ReplicateAll => Own::Replicate(Replicate::All(All::All)),
            ScheduleSpec::Replicate(processors) => Own::Replicate(Replicate::On(processors)),
            ScheduleSpec::Peer(peer) => {
                return Self::Peer(Peer {
                    peer: Engine::Onnxruntime,
                    provider: peer.provider.map(|provider| match provider {
                        GpuProvider::Cuda => Provider::Cuda,
                        GpuProvider::Tensorrt => Provider::Tensorrt,
                    }),
                    threads: count(peer.threads),
                    sessions: count(peer.sessions),
                    processors: peer.processors,
                });
            }
        })
    }
}
