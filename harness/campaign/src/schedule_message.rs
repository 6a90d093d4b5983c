//! Describes a planned schedule to the runner.

use crate::processors::Processor;
use anyhow::{Context as _, Result, anyhow, bail};
use compiler::{BoundaryLayout, Entry, NetworkManifest, StageLayout, StageManifest, Target, ValueManifest};
use domain::{GpuProvider, Network, Peer, PeerGpu, ProcessorKind, Schedule, ScheduleKind, Stage};
use protocol::{
    Call, CpuProcessor, CudaProgram, Dtype, OnnxGpu, OnnxModel, OnnxProvider, Program, StageLibrary, Tensor,
    Weights,
};
use std::path::Path;
use std::time::Duration;

/// A linked stage with its paths.
#[derive(Debug, Clone)]
pub(crate) struct DeployedStage {
    pub(crate) manifest: StageManifest,
    /// Path of the library, or of the launch plan of a stage on a GPU.
    pub(crate) library: String,
    /// Path of the weights.
    pub(crate) weights: String,
}

impl DeployedStage {
    /// A stage in this machine's cache. Deployment rewrites the paths to those on the board.
    ///
    /// # Errors
    /// If it is not in the cache, or a path is not UTF-8.
    pub(crate) fn local(entry: &Entry, first: usize, end: usize, layout: StageLayout) -> Result<Self> {
        let folder = entry.stage_folder(first, end, layout);
        let manifest = entry
            .stage(first, end, layout)
            .with_context(|| format!("failed to find the linked stage {}", folder.display()))?;
        Ok(Self {
            library: path_text(&folder.join(&manifest.library))?,
            weights: path_text(&entry.weights())?,
            manifest,
        })
    }
}

/// A path as text for a request.
///
/// # Errors
/// If it is not UTF-8.
pub(crate) fn path_text(path: &Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .with_context(|| format!("the path {} is not UTF-8; move the checkout", path.display()))
}

/// The layouts of the stages of a schedule, in stage order. Both stages at a cut, with their replicas, see the same layout: packed
/// if all of them run on CPUs with the same vector instructions. A tensor that crosses several cuts has one layout at all of them.
pub(crate) fn stage_layouts(
    schedule: &Schedule,
    network: &Network,
    processors: &[Processor],
) -> Vec<StageLayout> {
    if schedule.kind() != ScheduleKind::Pipeline {
        return vec![StageLayout::PLAIN; schedule.stages().len()];
    }
    let stages: Vec<&[Stage]> = schedule.replicas().collect();
    let target = |stage: &Stage| {
        processors
            .iter()
            .find(|processor| processor.name == stage.processor)
            .map(|processor| &processor.target)
    };
    let mut cuts: Vec<BoundaryLayout> = stages
        .windows(2)
        .map(|pair| {
            let (one, mut others) = (target(&pair[0][0]), pair.iter().copied().flatten().skip(1).map(target));
            let shares = |other: Option<&Target>| {
                one.zip(other).is_some_and(|(one, other)| one.shares_packed_layout(other))
            };
            if others.all(shares) { BoundaryLayout::Packed } else { BoundaryLayout::Plain }
        })
        .collect();
    let tensors = |replicas: &[Stage]| &network.boundaries()[replicas[0].end].tensors;
    let shares_a_tensor = |pair: &[&[Stage]]| {
        let later = tensors(pair[1]);
        tensors(pair[0]).iter().any(|one| later.iter().any(|other| one.value == other.value))
    };
    // Once in each direction: a plain cut makes its neighbours plain, however far the tensor goes.
    let neighbours: Vec<usize> =
        (1..cuts.len()).filter(|&at| shares_a_tensor(&stages[at - 1..=at])).collect();
    for &at in neighbours.iter().chain(neighbours.iter().rev()) {
        if cuts[at - 1] != cuts[at] {
            (cuts[at - 1], cuts[at]) = (BoundaryLayout::Plain, BoundaryLayout::Plain);
        }
    }
    let at = |cut: Option<&BoundaryLayout>| cut.copied().unwrap_or(BoundaryLayout::Plain);
    let layout = |place: usize| StageLayout {
        inputs: at(place.checked_sub(1).and_then(|before| cuts.get(before))),
        outputs: at(cuts.get(place)),
    };
    let of_replicas =
        |(place, replicas): (usize, &&[Stage])| std::iter::repeat_n(layout(place), replicas.len());
    stages.iter().enumerate().flat_map(of_replicas).collect()
}

/// Builds the runner's schedule from its stages, in stage order.
///
/// # Errors
/// If the manifests contradict each other, which is a bug of the compiler.
pub(crate) fn schedule(
    schedule: &Schedule,
    network: &NetworkManifest,
    deployed: &[DeployedStage],
    processors: &[Processor],
) -> Result<protocol::Schedule> {
    let mut values = Values::default();
    let inputs = boundary(network, 0)?.iter().map(|value| values.place(value)).collect::<Result<_>>()?;
    let mut stages = Vec::new();
    let in_order = schedule.kind() == ScheduleKind::Pipeline;
    let replicas = schedule.replicas().flat_map(|replicas| (0..replicas.len()).map(|place| place > 0));
    for ((stage, deployed), is_replica) in schedule.stages().iter().zip(deployed).zip(replicas) {
        for input in &deployed.manifest.inputs {
            if values.find(input).is_none() {
                bail!(
                    "the stage of units {}..{} of {} takes {} ({}), which no earlier stage produces",
                    stage.first,
                    stage.end,
                    network.name,
                    input.value,
                    input.layout
                );
            }
        }
        let message = stage_message(deployed, processor_of(stage, processors)?.message(), &mut values)?;
        stages.push(protocol::Stage { replica: in_order && is_replica, ..message });
    }
    let outputs = boundary(network, network.units.len())?.iter().map(|value| {
        values.find(value).with_context(|| format!("no stage of {} produces {}", network.name, value.value))
    });
    let outputs = outputs.collect::<Result<_>>()?;
    let kind = match schedule.kind() {
        ScheduleKind::Single | ScheduleKind::Merged => protocol::ExecutionMode::Single,
        ScheduleKind::Pipeline => protocol::ExecutionMode::Pipeline,
        ScheduleKind::Replicate | ScheduleKind::Peer => protocol::ExecutionMode::Replicate,
    };
    Ok(protocol::Schedule { kind, values: values.tensors, inputs, outputs, stages })
}

/// The network in sessions of ONNX Runtime: one session is a single stage, several are replicas.
///
/// # Errors
/// If a path is not UTF-8, the network's manifest is incomplete, or the board lacks the peer's GPU.
pub(crate) fn peer(
    peer: &Peer,
    network: &NetworkManifest,
    runtime: &Path,
    model: &Path,
    processors: &[Processor],
) -> Result<protocol::Schedule> {
    let mut values = Values::default();
    let inputs: Vec<u32> =
        boundary(network, 0)?.iter().map(|value| values.place(value)).collect::<Result<_>>()?;
    let outputs = boundary(network, network.units.len())?.iter().map(|value| values.place(value));
    let outputs: Vec<u32> = outputs.collect::<Result<_>>()?;
    let gpu = peer.gpu.as_ref().map(|gpu| onnx_gpu(gpu, processors)).transpose()?;
    let (runtime, model) = (path_text(runtime)?, path_text(model)?);
    let program = Program::OnnxRuntime(OnnxModel { runtime, model, gpu });
    let names = peer.stage_names();
    let stages = names.iter().zip(&peer.sessions).map(|(name, cpus)| protocol::Stage {
        processor: protocol::Processor::Cpu(CpuProcessor {
            name: name.to_string(),
            cpus: cpus.clone(),
            threads: peer.threads,
        }),
        program: program.clone(),
        inputs: inputs.clone(),
        outputs: outputs.clone(),
        replica: false,
    });
    let kind =
        if names.len() == 1 { protocol::ExecutionMode::Single } else { protocol::ExecutionMode::Replicate };
    Ok(protocol::Schedule { kind, stages: stages.collect(), values: values.tensors, inputs, outputs })
}

fn onnx_gpu(gpu: &PeerGpu, processors: &[Processor]) -> Result<OnnxGpu> {
    let processor = processors.iter().find(|processor| processor.name == gpu.processor);
    let Some(ProcessorKind::Cuda { device, .. }) = processor.map(|processor| &processor.kind) else {
        bail!("there is no GPU {}", gpu.processor);
    };
    let provider = match gpu.provider {
        GpuProvider::Cuda => OnnxProvider::Cuda,
        GpuProvider::Tensorrt => OnnxProvider::Tensorrt,
    };
    Ok(OnnxGpu { provider, device: *device })
}

/// The whole network as one stage with its own value numbers, for profiling.
pub(crate) fn profile(
    deployed: &DeployedStage,
    processor: protocol::Processor,
) -> Result<(Vec<Tensor>, protocol::Stage, Vec<Call>)> {
    let mut values = Values::default();
    let stage = stage_message(deployed, processor, &mut values)?;
    let calls = deployed.manifest.calls.iter();
    let calls = calls.map(|call| Call { function: call.function.clone(), unit: call.unit }).collect();
    Ok((values.tensors, stage, calls))
}

fn stage_message(
    deployed: &DeployedStage,
    processor: protocol::Processor,
    values: &mut Values,
) -> Result<protocol::Stage> {
    let manifest = &deployed.manifest;
    let path = deployed.library.clone();
    let program = match processor {
        protocol::Processor::Cpu(_) => Program::Library(StageLibrary {
            path,
            entry: manifest.entry.clone(),
            weights: weights(deployed)?,
        }),
        protocol::Processor::Cuda(_) => {
            Program::Cuda(CudaProgram { path, weights: deployed.weights.clone() })
        }
    };
    Ok(protocol::Stage {
        processor,
        program,
        inputs: manifest.inputs.iter().map(|value| values.place(value)).collect::<Result<_>>()?,
        outputs: manifest.outputs.iter().map(|value| values.place(value)).collect::<Result<_>>()?,
        replica: false,
    })
}

fn weights(deployed: &DeployedStage) -> Result<Weights> {
    let weights = &deployed.manifest.weights;
    let tensors = weights.iter().enumerate();
    let tensors =
        tensors.map(|(index, weight)| tensor(format!("weight {index}"), &weight.shape, &weight.dtype));
    Ok(Weights {
        path: deployed.weights.clone(),
        offsets: weights.iter().map(|weight| weight.offset).collect(),
        tensors: tensors.collect::<Result<_>>()?,
    })
}

fn boundary(network: &NetworkManifest, cut: usize) -> Result<&[ValueManifest]> {
    let boundary = network.boundaries.get(cut);
    boundary.map(|boundary| boundary.tensors.as_slice()).context("the network's manifest lacks a boundary")
}

fn processor_of<'p>(stage: &Stage, processors: &'p [Processor]) -> Result<&'p Processor> {
    let processor = processors.iter().find(|processor| processor.name == stage.processor);
    processor.with_context(|| format!("there is no processor {}", stage.processor))
}

fn tensor(name: String, shape: &[i64], dtype: &str) -> Result<Tensor> {
    let dtype: Dtype =
        dtype.parse().map_err(|error| anyhow!("failed to read the element type of {name}: {error}"))?;
    Ok(Tensor { name, shape: shape.to_vec(), dtype })
}

/// A duration on the wire.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Tensors by name and layout.
#[derive(Default)]
struct Values {
    keys: Vec<(String, String)>,
    tensors: Vec<Tensor>,
}

impl Values {
    fn find(&self, value: &ValueManifest) -> Option<u32> {
        let place =
            self.keys.iter().position(|(name, layout)| *name == value.value && *layout == value.layout);
        place.and_then(|place| u32::try_from(place).ok())
    }

    fn place(&mut self, value: &ValueManifest) -> Result<u32> {
        if let Some(place) = self.find(value) {
            return Ok(place);
        }
        self.keys.push((value.value.clone(), value.layout.clone()));
        let name = match value.layout.as_str() {
            "plain" => value.value.clone(),
            layout => format!("{} ({layout})", value.value),
        };
        self.tensors.push(tensor(name, &value.shape, &value.dtype)?);
        // A network of four thousand million tensors does not fit any memory.
        Ok(u32::try_from(self.keys.len() - 1).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use compiler::{CpuTarget, CudaTarget, Target};
    use domain::ProcessorName;
    use serde_json::json;

    fn value(name: &str, layout: &str) -> ValueManifest {
        ValueManifest {
            value: name.to_owned(),
            layout: layout.to_owned(),
            shape: vec![1, 4],
            dtype: "float32".to_owned(),
            bytes: 16,
        }
    }

    /// Three units in a row; what the first makes is read by the third as well.
    fn network() -> NetworkManifest {
        let tensor = |name: &str| json!({ "value": name, "shape": [1, 4], "dtype": "float32", "bytes": 16 });
        let unit = |name: &str| json!({ "name": name, "operators": ["relu"], "macs": 0, "parameters": 0 });
        serde_json::from_value(json!({
            "schema": 1, "name": "net", "opset": 17, "parameters": 0, "macs": 0, "notes": [],
            "reference": { "engine": "ONNX Runtime", "integers_below": 8, "inputs": [], "outputs": [] },
            "units": [unit("a"), unit("b"), unit("c")],
            "boundaries": [
                { "tensors": [tensor("x")] },
                { "tensors": [tensor("a")] },
                { "tensors": [tensor("a"), tensor("b")] },
                { "tensors": [tensor("y")] },
            ],
        }))
        .expect("a manifest")
    }

    fn deployed(inputs: Vec<ValueManifest>, outputs: Vec<ValueManifest>) -> DeployedStage {
        let manifest = StageManifest {
            schema: 1,
            first_unit: 0,
            end_unit: 1,
            library: "stage.so".to_owned(),
            library_sha256: String::new(),
            entry: "main".to_owned(),
            inputs,
            outputs,
            weights: Vec::new(),
            calls: Vec::new(),
            rules: Vec::new(),
            multiply_adds: Vec::new(),
            fallback_units: Vec::new(),
        };
        DeployedStage { manifest, library: "/stage.so".to_owned(), weights: "/weights.bin".to_owned() }
    }

    /// One processor for each word: vector instructions, or a GPU.
    fn processors(words: &[&str]) -> Vec<Processor> {
        let target = |word: &str| match word.parse() {
            Ok(arch) => Target::Cuda(CudaTarget::new(arch)),
            Err(_) => Target::Cpu(CpuTarget {
                arch: "x86_64".to_owned(),
                mcpu: "x86-64".to_owned(),
                isa: word.to_owned(),
                triple: String::new(),
                threads: 1,
                l1d_bytes: 0,
                l2_bytes: 0,
                winograd: true,
            }),
        };
        let kind = |word: &str, number: u32| match word.parse() {
            Ok(arch) => ProcessorKind::Cuda { arch, device: 0, host_cpus: vec![number] },
            Err(_) => ProcessorKind::Cpu { cpus: vec![number], threads: 1, mcpu: None },
        };
        let make = |(number, word): (u32, &&str)| Processor {
            name: ProcessorName::new(format!("p{number}")),
            kind: kind(word, number),
            target: target(word),
            l3_bytes: None,
            gpu: None,
        };
        (0..).zip(words).map(make).collect()
    }

    fn pipeline(count: usize) -> Schedule {
        let network = network().network().unwrap();
        let cut = |place: usize| (place + 1 < count).then_some(domain::Cut(place + 1));
        let stages: Vec<_> =
            (0..count).map(|place| (vec![ProcessorName::new(format!("p{place}"))], cut(place))).collect();
        Schedule::from_cuts(&network, &stages).unwrap()
    }

    /// Unit a on the first processor, and the others on two.
    fn shared() -> Schedule {
        let network = network().network().unwrap();
        let [first, second, third] = ["p0", "p1", "p2"].map(ProcessorName::new);
        let stages = [(vec![first], Some(domain::Cut(1))), (vec![second, third], None)];
        Schedule::from_cuts(&network, &stages).unwrap()
    }

    #[test]
    fn replicas_of_a_stage_are_marked_and_have_one_layout() {
        let stages = [
            deployed(vec![value("x", "plain")], vec![value("a", "NCHW4c")]),
            deployed(vec![value("a", "NCHW4c")], vec![value("y", "plain")]),
            deployed(vec![value("a", "NCHW4c")], vec![value("y", "plain")]),
        ];
        let wired = schedule(&shared(), &network(), &stages, &processors(&["neon"; 3])).unwrap();
        let found: Vec<_> = wired
            .stages
            .iter()
            .map(|stage| (stage.inputs.clone(), stage.outputs.clone(), stage.replica))
            .collect();
        assert_eq!(found, [(vec![0], vec![1], false), (vec![1], vec![2], false), (vec![1], vec![2], true)]);
        assert_eq!(wired.kind, protocol::ExecutionMode::Pipeline);
        let network = network().network().unwrap();
        let table: [(&[&str], [&str; 3]); 3] = [
            (&["neon", "neon", "neon"], ["plain-packed", "packed-plain", "packed-plain"]),
            // One that has other instructions makes the cut plain for all.
            (&["neon", "neon", "avx2"], ["plain"; 3]),
            (&["neon", "sm_62", "neon"], ["plain"; 3]),
        ];
        for (words, expected) in table {
            let layouts = stage_layouts(&shared(), &network, &processors(words));
            let found: Vec<&str> = layouts.into_iter().map(StageLayout::word).collect();
            assert_eq!(found, expected, "{words:?}");
        }
    }

    #[test]
    fn a_tensor_that_skips_a_stage_keeps_its_place() {
        let stages = [
            deployed(vec![value("x", "plain")], vec![value("a", "NCHW4c")]),
            deployed(vec![value("a", "NCHW4c")], vec![value("b", "NCHW4c")]),
            deployed(vec![value("a", "NCHW4c"), value("b", "NCHW4c")], vec![value("y", "plain")]),
        ];
        let wired = schedule(&pipeline(3), &network(), &stages, &processors(&["neon"; 3])).unwrap();
        let names: Vec<&str> = wired.values.iter().map(|value| value.name.as_str()).collect();
        assert_eq!(names, ["x", "a (NCHW4c)", "b (NCHW4c)", "y"]);
        assert_eq!((wired.inputs, wired.outputs), (vec![0], vec![3]));
        let ends: Vec<_> =
            wired.stages.iter().map(|stage| (stage.inputs.clone(), stage.outputs.clone())).collect();
        assert_eq!(ends, [(vec![0], vec![1]), (vec![1], vec![2]), (vec![1, 2], vec![3])]);
    }

    #[test]
    fn a_stage_without_a_producer_of_its_input_is_refused() {
        // The value is there, in another layout.
        let stages = [
            deployed(vec![value("x", "plain")], vec![value("a", "plain")]),
            deployed(vec![value("a", "NCHW4c")], vec![value("y", "plain")]),
        ];
        let error = schedule(&pipeline(2), &network(), &stages, &processors(&["neon"; 2])).unwrap_err();
        assert!(error.to_string().contains("takes a (NCHW4c), which no earlier stage produces"), "{error}");
    }

    #[test]
    fn a_cut_is_packed_between_cpus_with_the_same_instructions() {
        let network = network().network().unwrap();
        let table: [(&[&str], &[&str]); 5] = [
            (&["neon"], &["plain"]),
            (&["neon", "neon"], &["plain-packed", "packed-plain"]),
            (&["avx2", "neon"], &["plain", "plain"]),
            (&["sm_62", "sm_62"], &["plain", "plain"]),
            // The tensor "a" crosses both cuts.
            (&["neon", "neon", "sm_62"], &["plain", "plain", "plain"]),
        ];
        for (words, expected) in table {
            let layouts = stage_layouts(&pipeline(words.len()), &network, &processors(words));
            let found: Vec<&str> = layouts.into_iter().map(StageLayout::word).collect();
            assert_eq!(found, expected, "{words:?}");
        }
    }

    #[test]
    fn a_cut_before_a_gpu_does_not_change_the_others() {
        let tensor = |name: &str| domain::Tensor {
            value: name.to_owned(),
            shape: vec![1, 4],
            dtype: "float32".to_owned(),
            bytes: domain::Bytes(16),
        };
        let unit = |name: &str| domain::Unit {
            name: name.to_owned(),
            operators: vec!["relu".to_owned()],
            macs: 0,
            parameters: 0,
        };
        let boundary = |name: &str| domain::Boundary { tensors: vec![tensor(name)] };
        let chain = Network::new(
            "chain",
            ["a", "b", "c"].map(unit).to_vec(),
            ["x", "a", "b", "y"].map(boundary).to_vec(),
        )
        .unwrap();
        let layouts = stage_layouts(&pipeline(3), &chain, &processors(&["neon", "neon", "sm_62"]));
        let found: Vec<&str> = layouts.into_iter().map(StageLayout::word).collect();
        assert_eq!(found, ["plain-packed", "packed-plain", "plain"]);
    }

    #[test]
    fn a_stage_on_a_gpu_is_a_launch_plan() {
        let stages = [deployed(vec![value("x", "plain")], vec![value("y", "plain")])];
        let wired = schedule(&pipeline(1), &network(), &stages, &processors(&["sm_62"])).unwrap();
        let protocol::Processor::Cuda(gpu) = &wired.stages[0].processor else { panic!("{wired:?}") };
        assert_eq!((gpu.device, gpu.arch.as_str(), &gpu.host_cpus[..]), (0, "sm_62", &[0][..]));
        let program = CudaProgram { path: "/stage.so".to_owned(), weights: "/weights.bin".to_owned() };
        assert_eq!(wired.stages[0].program, Program::Cuda(program));
    }
}
