//! Checks a schedule that was requested, and works out when each tensor is used for the last time.

use crate::failure::Failure;
use protocol::{Dtype, ExecutionMode, Processor, Program, Schedule, format_cpu_list};
use std::path::Path;

/// A tensor of the request, checked: extents of at least 1 whose product fits the address space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorSpec {
    pub(crate) name: String,
    /// Outermost extent first.
    pub(crate) shape: Vec<i64>,
    pub(crate) dtype: Dtype,
    pub(crate) bytes: usize,
}

impl TensorSpec {
    pub(crate) fn new(tensor: &protocol::Tensor) -> Result<Self, Failure> {
        let fail = |why: String| Failure::request(format!("failed to read tensor {}: {why}", tensor.name));
        let dtype = tensor.dtype;
        let bytes = tensor.shape.iter().try_fold(dtype.bytes(), |product, extent| {
            let extent = usize::try_from(*extent).ok().filter(|extent| *extent > 0)?;
            product.checked_mul(extent)
        });
        let bytes = bytes.filter(|bytes| isize::try_from(*bytes).is_ok()).ok_or_else(|| {
            fail(format!(
                "invalid shape {:?}; every dimension must be at least 1, and the tensor must fit into memory",
                tensor.shape
            ))
        })?;
        Ok(Self { name: tensor.name.clone(), shape: tensor.shape.clone(), dtype, bytes })
    }
}

/// A schedule with these properties: every index is valid, every tensor is produced by one stage, with all its replicas, and
/// before it is used, and the number of stages fits the kind.
#[derive(Debug, Clone)]
pub(crate) struct CheckedSchedule {
    pub(crate) kind: ExecutionMode,
    pub(crate) values: Vec<TensorSpec>,
    /// Indices into `values` of the network's inputs.
    pub(crate) inputs: Vec<usize>,
    /// Indices into `values` of the network's outputs.
    pub(crate) outputs: Vec<usize>,
    /// In execution order, with each replica of a stage.
    pub(crate) stages: Vec<CheckedStage>,
}

#[derive(Debug, Clone)]
pub(crate) struct CheckedStage {
    /// Number of the stage; its replicas have the same.
    pub(crate) group: usize,
    /// For messages: `stage 1`, or `stage 1 on a57` if it has replicas.
    pub(crate) name: String,
    pub(crate) processor: Processor,
    pub(crate) program: Program,
    /// In argument order.
    pub(crate) inputs: Vec<usize>,
    pub(crate) outputs: Vec<usize>,
    /// Values that no later stage uses.
    pub(crate) last_uses: Vec<usize>,
}

impl CheckedSchedule {
    pub(crate) fn new(schedule: &Schedule) -> Result<Self, Failure> {
        let stages = schedule.stages.len();
        let (kind, expected) = match schedule.kind {
            ExecutionMode::Single => ("single", "exactly 1"),
            ExecutionMode::Pipeline => ("pipeline", "at least 1"),
            ExecutionMode::Replicate => ("replicate", "at least 1"),
        };
        if stages == 0 || (schedule.kind == ExecutionMode::Single && stages != 1) {
            return Err(Failure::request(format!(
                "failed to read the schedule: a schedule of kind {kind} has {expected} stage, this one has \
                 {stages}"
            )));
        }
        let values = schedule.values.iter().map(TensorSpec::new).collect::<Result<Vec<_>, _>>()?;
        let inputs = indices(&schedule.inputs, values.len(), "the schedule's inputs")?;
        let outputs = indices(&schedule.outputs, values.len(), "the schedule's outputs")?;
        if outputs.is_empty() {
            return Err(Failure::request("failed to read the schedule: it has no outputs"));
        }
        let mut checked = Self { kind: schedule.kind, values, inputs, outputs, stages: Vec::new() };
        let mut group = 0;
        for (place, stage) in schedule.stages.iter().enumerate() {
            let is_replica = stage.replica || schedule.kind == ExecutionMode::Replicate;
            group += usize::from(place > 0 && !is_replica);
            checked.stages.push(CheckedStage { group, ..check_stage(stage, place, checked.values.len())? });
        }
        let counts: Vec<usize> =
            checked.stages.iter().map(|stage| checked.replicas(stage.group).count()).collect();
        for (stage, count) in checked.stages.iter_mut().zip(counts) {
            let on = if count > 1 { format!(" on {}", stage.processor.name()) } else { String::new() };
            stage.name = format!("stage {}{on}", stage.group);
        }
        checked.check_data_flow()?;
        checked.find_last_uses();
        Ok(checked)
    }

    /// Paths of the stages' weight files, in stage order; `None` for a stage whose program contains its weights.
    pub(crate) fn weights(&self) -> impl Iterator<Item = Option<&Path>> {
        self.stages.iter().map(|stage| match &stage.program {
            Program::Library(library) => Some(Path::new(&library.weights.path)),
            Program::Cuda(program) => Some(Path::new(&program.weights)),
            Program::OnnxRuntime(_) => None,
        })
    }

    pub(crate) fn input_specs(&self) -> Vec<&TensorSpec> {
        self.inputs.iter().map(|index| &self.values[*index]).collect()
    }

    /// Number of stages, replicas counted once.
    pub(crate) fn groups(&self) -> usize {
        self.stages.last().map_or(0, |last| last.group + 1)
    }

    /// The replicas of a stage.
    pub(crate) fn replicas(&self, group: usize) -> impl Iterator<Item = &CheckedStage> {
        self.stages.iter().filter(move |stage| stage.group == group)
    }

    /// CPUs of all stages, each once.
    pub(crate) fn cpus(&self) -> Vec<u32> {
        let mut cpus: Vec<_> = self.stages.iter().flat_map(|stage| stage.processor.cpus().to_vec()).collect();
        cpus.sort_unstable();
        cpus.dedup();
        cpus
    }

    fn check_data_flow(&self) -> Result<(), Failure> {
        let mut available = vec![false; self.values.len()];
        self.inputs.iter().for_each(|index| available[*index] = true);
        let mut before = available.clone();
        for (place, stage) in self.stages.iter().enumerate() {
            let is_replica = place > 0 && self.stages[place - 1].group == stage.group;
            let of_others = if is_replica {
                Some(std::mem::replace(&mut available, before.clone()))
            } else {
                before.clone_from(&available);
                None
            };
            let fail = |why: &str, index: usize| {
                let name = &self.values[index].name;
                Err(Failure::request(format!("failed to connect stage {place}: {why} {name}")))
            };
            if let Some(missing) = stage.inputs.iter().find(|index| !available[**index]) {
                return fail("no earlier stage produces its input", *missing);
            }
            for index in &stage.outputs {
                if std::mem::replace(&mut available[*index], true) {
                    return fail("an earlier stage or the frame already provides its output", *index);
                }
            }
            if let Some(others) = of_others
                && let Some(other) = (0..others.len()).find(|index| others[*index] != available[*index])
            {
                return fail("it is a replica of a stage with other outputs than", other);
            }
            let is_last = stage.group + 1 == self.groups();
            if let Some(missing) = self.outputs.iter().find(|index| is_last && !available[**index]) {
                return fail("it is the last stage, but no stage produces the network's output", *missing);
            }
        }
        Ok(())
    }

    fn find_last_uses(&mut self) {
        for value in 0..self.values.len() {
            if self.outputs.contains(&value) {
                continue;
            }
            let uses =
                |stage: &&CheckedStage| stage.inputs.contains(&value) || stage.outputs.contains(&value);
            let last = self.stages.iter().rfind(uses).map_or(0, |stage| stage.group);
            for stage in self.stages.iter_mut().filter(|stage| stage.group == last) {
                stage.last_uses.push(value);
            }
        }
    }
}

fn check_stage(stage: &protocol::Stage, place: usize, values: usize) -> Result<CheckedStage, Failure> {
    let fail = |why: String| {
        let name = stage.processor.name();
        Failure::request(format!("failed to place stage {place} on processor {name}: {why}"))
    };
    match (&stage.processor, &stage.program) {
        (Processor::Cpu(cpu), Program::Library(_) | Program::OnnxRuntime(_)) => {
            let (threads, cpus) = (usize::try_from(cpu.threads).unwrap_or(usize::MAX), cpu.cpus.len());
            if threads == 0 || threads > cpus {
                return Err(fail(format!(
                    "{threads} threads for CPUs {}; threads must be from 1 to {cpus}",
                    format_cpu_list(&cpu.cpus)
                )));
            }
        }
        (Processor::Cuda(cuda), Program::Cuda(_)) if cuda.host_cpus.is_empty() => {
            return Err(fail("`host_cpus` is empty; name the CPUs that feed the GPU".to_owned()));
        }
        (Processor::Cuda(_), Program::Cuda(_)) => {}
        (Processor::Cpu(_), Program::Cuda(program)) => {
            return Err(fail(format!(
                "{} is a launch plan for a GPU, but the processor consists of CPUs",
                program.path
            )));
        }
        (Processor::Cuda(_), program) => {
            return Err(fail(format!("{} runs on CPUs, but the processor is a GPU", program.path())));
        }
    }
    let outputs = indices(&stage.outputs, values, &format!("the outputs of stage {place}"))?;
    if outputs.is_empty() {
        return Err(Failure::request(format!("failed to connect stage {place}: it has no outputs")));
    }
    Ok(CheckedStage {
        group: 0,
        name: String::new(),
        processor: stage.processor.clone(),
        program: stage.program.clone(),
        inputs: indices(&stage.inputs, values, &format!("the inputs of stage {place}"))?,
        outputs,
        last_uses: Vec::new(),
    })
}

fn indices(list: &[u32], values: usize, of: &str) -> Result<Vec<usize>, Failure> {
    let check = |index: &u32| {
        usize::try_from(*index).ok().filter(|index| *index < values).ok_or_else(|| {
            Failure::request(format!(
                "failed to read {of}: index {index} is out of range, there are {values} values"
            ))
        })
    };
    list.iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{CpuProcessor, Stage, Tensor, Weights};

    fn stage(inputs: &[u32], outputs: &[u32]) -> Stage {
        Stage {
            processor: Processor::Cpu(CpuProcessor { name: "cpu0".into(), cpus: vec![0], threads: 1 }),
            program: Program::Library(protocol::StageLibrary {
                path: "stage.so".into(),
                entry: "main".into(),
                weights: Weights { path: "weights.bin".into(), offsets: vec![], tensors: vec![] },
            }),
            inputs: inputs.into(),
            outputs: outputs.into(),
            replica: false,
        }
    }

    fn schedule(kind: ExecutionMode, values: u32, outputs: &[u32], stages: &[(&[u32], &[u32])]) -> Schedule {
        let value = |index: u32| Tensor { name: format!("v{index}"), shape: vec![1], dtype: Dtype::Float32 };
        Schedule {
            kind,
            values: (0..values).map(value).collect(),
            inputs: vec![0],
            outputs: outputs.into(),
            stages: stages.iter().map(|(inputs, outputs)| stage(inputs, outputs)).collect(),
        }
    }

    #[test]
    fn values_are_released_after_their_last_use_and_skip_stages_between() {
        // v0 is used by stages 0 and 2, v1 only by 1, v2 by none, v4 is the output.
        let checked = CheckedSchedule::new(&schedule(
            ExecutionMode::Pipeline,
            5,
            &[4],
            &[(&[0], &[1, 2]), (&[1], &[3]), (&[0, 3], &[4])],
        ))
        .unwrap();
        let last_uses: Vec<_> = checked.stages.iter().map(|stage| stage.last_uses.clone()).collect();
        assert_eq!(last_uses, [vec![2], vec![1], vec![0, 3]]);
    }

    #[test]
    fn each_replica_produces_all_outputs() {
        let stages: [(&[u32], &[u32]); 2] = [(&[0], &[1]), (&[0], &[1])];
        let checked = CheckedSchedule::new(&schedule(ExecutionMode::Replicate, 2, &[1], &stages)).unwrap();
        assert!(checked.stages.iter().all(|stage| stage.last_uses == [0]));
        let message =
            CheckedSchedule::new(&schedule(ExecutionMode::Pipeline, 2, &[1], &stages)).unwrap_err().message;
        assert!(message.contains("already provides its output v1"), "{message}");
    }

    #[test]
    fn replicas_of_a_stage_have_the_same_outputs() {
        // v1 goes to a stage with two replicas, v3 is the output.
        let mut shared = schedule(
            ExecutionMode::Pipeline,
            4,
            &[3],
            &[(&[0], &[1]), (&[1], &[2]), (&[1], &[2]), (&[2], &[3])],
        );
        shared.stages[2].replica = true;
        let checked = CheckedSchedule::new(&shared).unwrap();
        let groups: Vec<_> = checked.stages.iter().map(|stage| stage.group).collect();
        assert_eq!((groups, checked.groups(), checked.replicas(1).count()), (vec![0, 1, 1, 2], 3, 2));
        let last_uses: Vec<_> = checked.stages.iter().map(|stage| stage.last_uses.clone()).collect();
        assert_eq!(last_uses, [vec![0], vec![1], vec![1], vec![2]]);
        shared.stages[2].outputs = vec![3];
        let message = CheckedSchedule::new(&shared).unwrap_err().message;
        assert!(
            message.contains("stage 2: it is a replica of a stage with other outputs than v2"),
            "{message}"
        );
    }

    #[test]
    fn invalid_schedules_are_rejected() {
        let check = |schedule: &Schedule, says: &str| {
            let failure = CheckedSchedule::new(schedule).unwrap_err();
            assert_eq!(failure.fault, protocol::Fault::Request);
            assert!(failure.message.contains(says), "{failure} should say {says}");
        };
        check(
            &schedule(ExecutionMode::Pipeline, 2, &[1], &[]),
            "a schedule of kind pipeline has at least 1 stage, this one has 0",
        );
        check(
            &schedule(ExecutionMode::Single, 2, &[1], &[(&[0], &[1]), (&[0], &[1])]),
            "exactly 1 stage, this one has 2",
        );
        check(&schedule(ExecutionMode::Single, 2, &[2], &[(&[0], &[1])]), "index 2 is out of range");
        check(&schedule(ExecutionMode::Single, 2, &[], &[(&[0], &[1])]), "no outputs");
        check(
            &schedule(ExecutionMode::Single, 3, &[2], &[(&[0], &[1])]),
            "no stage produces the network's output v2",
        );
        check(
            &schedule(ExecutionMode::Pipeline, 3, &[2], &[(&[1], &[2]), (&[0], &[1])]),
            "no earlier stage produces its input v1",
        );
        let mut too_many_threads = schedule(ExecutionMode::Single, 2, &[1], &[(&[0], &[1])]);
        if let Processor::Cpu(cpu) = &mut too_many_threads.stages[0].processor {
            cpu.threads = 2;
        }
        check(&too_many_threads, "2 threads for CPUs 0; threads must be from 1 to 1");
    }

    #[test]
    fn tensors_are_checked() {
        let spec =
            |shape: &[i64], dtype| TensorSpec::new(&Tensor { name: "x".into(), shape: shape.into(), dtype });
        assert_eq!(spec(&[2, 3], Dtype::Int64).unwrap().bytes, 48);
        assert_eq!(spec(&[], Dtype::Float32).unwrap().bytes, 4);
        for shape in [&[0][..], &[-1], &[i64::MAX, 4]] {
            assert_eq!(spec(shape, Dtype::Int8).unwrap_err().fault, protocol::Fault::Request, "{shape:?}");
        }
    }
}
