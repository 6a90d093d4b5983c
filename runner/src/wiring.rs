//! Which tensors a stage takes, gives, and is the last to need.

use crate::engine::TensorSpec;
use crate::failure::Failure;
use protocol::{Binding, Kind, OnnxModel, Schedule, Weights};
use std::path::{Path, PathBuf};

/// A schedule, checked: every index leads somewhere, every tensor is made before it is used and made once, and
/// the stages are as many and as complete as the kind asks for.
#[derive(Debug, Clone)]
pub(crate) struct Wiring {
    /// How the stages are used.
    pub(crate) kind: Kind,
    /// Every tensor by its index.
    pub(crate) values: Vec<TensorSpec>,
    /// What a frame brings.
    pub(crate) inputs: Vec<usize>,
    /// What the network gives.
    pub(crate) outputs: Vec<usize>,
    /// In execution order.
    pub(crate) stages: Vec<StageWiring>,
}

/// A stage of a [`Wiring`].
#[derive(Debug, Clone)]
pub(crate) struct StageWiring {
    /// Where it runs.
    pub(crate) binding: Binding,
    /// What it runs.
    pub(crate) program: Program,
    /// Values it takes, in argument order.
    pub(crate) inputs: Vec<usize>,
    /// Values it gives.
    pub(crate) outputs: Vec<usize>,
    /// Values nobody needs after it.
    pub(crate) dead: Vec<usize>,
}

/// What a stage runs.
#[derive(Debug, Clone)]
pub(crate) enum Program {
    /// A compiled stage.
    Library(StageLibrary),
    /// A network in ONNX Runtime.
    OnnxRuntime(OnnxModel),
}

/// A compiled stage.
#[derive(Debug, Clone)]
pub(crate) struct StageLibrary {
    /// Its file.
    pub(crate) path: PathBuf,
    /// Function to call.
    pub(crate) entry: String,
    /// Its weights.
    pub(crate) weights: Weights,
}

impl Wiring {
    /// Checks a schedule.
    pub(crate) fn new(schedule: &Schedule) -> Result<Self, Failure> {
        let stages = schedule.stages.len();
        let fits = match schedule.kind {
            Kind::Single => stages == 1,
            Kind::Pipeline | Kind::Replicate => stages >= 1,
        };
        if !fits {
            return Err(Failure::request(format!(
                "failed to read the schedule: {stages} stages do not make a {:?}",
                schedule.kind
            )));
        }
        let values = schedule.values.iter().map(TensorSpec::new).collect::<Result<Vec<_>, _>>()?;
        let inputs = indices(&schedule.inputs, values.len(), "the schedule's inputs")?;
        let outputs = indices(&schedule.outputs, values.len(), "the schedule's outputs")?;
        if outputs.is_empty() {
            return Err(Failure::request("failed to read the schedule: it has no outputs"));
        }
        let mut wiring = Self { kind: schedule.kind, values, inputs, outputs, stages: Vec::new() };
        for (place, stage) in schedule.stages.iter().enumerate() {
            wiring.stages.push(stage_wiring(stage, place, wiring.values.len())?);
        }
        wiring.check_flow()?;
        wiring.find_dead();
        Ok(wiring)
    }

    /// The paths of the stages' weights, in stage order; none for a stage that brings them along.
    pub(crate) fn weights(&self) -> impl Iterator<Item = Option<&Path>> {
        self.stages.iter().map(|stage| match &stage.program {
            Program::Library(library) => Some(Path::new(&library.weights.path)),
            Program::OnnxRuntime(_) => None,
        })
    }

    /// What a frame brings.
    pub(crate) fn input_specs(&self) -> Vec<&TensorSpec> {
        self.inputs.iter().map(|index| &self.values[*index]).collect()
    }

    /// CPUs of all stages, each once.
    pub(crate) fn cpus(&self) -> Vec<u32> {
        let mut cpus: Vec<_> = self.stages.iter().flat_map(|stage| stage.binding.cpus.clone()).collect();
        cpus.sort_unstable();
        cpus.dedup();
        cpus
    }

    /// Follows a frame through the stages.
    fn check_flow(&self) -> Result<(), Failure> {
        let mut there = vec![false; self.values.len()];
        self.inputs.iter().for_each(|index| there[*index] = true);
        let brought = there.clone();
        for (place, stage) in self.stages.iter().enumerate() {
            if self.kind == Kind::Replicate {
                there.clone_from(&brought);
            }
            let name = |index: usize| &self.values[index].name;
            if let Some(missing) = stage.inputs.iter().find(|index| !there[**index]) {
                return Err(Failure::request(format!(
                    "failed to wire stage {place}: it takes {}, which nobody has made before it",
                    name(*missing)
                )));
            }
            for index in &stage.outputs {
                if std::mem::replace(&mut there[*index], true) {
                    return Err(Failure::request(format!(
                        "failed to wire stage {place}: it makes {}, which is there already",
                        name(*index)
                    )));
                }
            }
            let last = place + 1 == self.stages.len() || self.kind == Kind::Replicate;
            if let Some(missing) = self.outputs.iter().find(|index| last && !there[**index]) {
                return Err(Failure::request(format!(
                    "failed to wire stage {place}: the network's output {} is not made by it or before it",
                    name(*missing)
                )));
            }
        }
        Ok(())
    }

    /// Finds the last stage that needs each value.
    fn find_dead(&mut self) {
        let stages = self.stages.len();
        for value in 0..self.values.len() {
            if self.outputs.contains(&value) {
                continue;
            }
            if self.kind == Kind::Replicate {
                self.stages.iter_mut().for_each(|stage| stage.dead.push(value));
                continue;
            }
            let made = self.stages.iter().position(|stage| stage.outputs.contains(&value));
            let used = (0..stages).rfind(|place| self.stages[*place].inputs.contains(&value));
            let last = used.max(made).unwrap_or(0);
            self.stages[last].dead.push(value);
        }
    }
}

fn stage_wiring(stage: &protocol::Stage, place: usize, values: usize) -> Result<StageWiring, Failure> {
    let binding = &stage.binding;
    let threads = usize::try_from(binding.threads).unwrap_or(usize::MAX);
    if threads == 0 || threads > binding.cpus.len() {
        return Err(Failure::request(format!(
            "failed to place stage {place}: {threads} threads on {} CPUs of processor {}; it takes 1 to {0}",
            binding.cpus.len(),
            binding.processor
        )));
    }
    let outputs = indices(&stage.outputs, values, &format!("outputs of stage {place}"))?;
    if outputs.is_empty() {
        return Err(Failure::request(format!("failed to wire stage {place}: it has no outputs")));
    }
    Ok(StageWiring {
        binding: binding.clone(),
        program: match &stage.program {
            protocol::Program::Library(library) => Program::Library(StageLibrary {
                path: PathBuf::from(&library.path),
                entry: library.entry.clone(),
                weights: library.weights.clone(),
            }),
            protocol::Program::OnnxRuntime(model) => Program::OnnxRuntime(model.clone()),
        },
        inputs: indices(&stage.inputs, values, &format!("inputs of stage {place}"))?,
        outputs,
        dead: Vec::new(),
    })
}

fn indices(list: &[u32], values: usize, of: &str) -> Result<Vec<usize>, Failure> {
    let check = |index: &u32| {
        usize::try_from(*index).ok().filter(|index| *index < values).ok_or_else(|| {
            Failure::request(format!("failed to read {of}: there is no value {index}, only {values}"))
        })
    };
    list.iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{Stage, Tensor};

    fn stage(inputs: &[u32], outputs: &[u32]) -> Stage {
        Stage {
            binding: Binding { processor: "cpu0".into(), cpus: vec![0], threads: 1 },
            program: protocol::Program::Library(protocol::StageLibrary {
                path: "stage.so".into(),
                entry: "main".into(),
                weights: Weights { path: "weights.bin".into(), offsets: vec![], tensors: vec![] },
            }),
            inputs: inputs.into(),
            outputs: outputs.into(),
        }
    }

    fn schedule(kind: Kind, values: u32, outputs: &[u32], stages: &[(&[u32], &[u32])]) -> Schedule {
        let value =
            |index: u32| Tensor { name: format!("v{index}"), shape: vec![1], dtype: "float32".into() };
        Schedule {
            kind,
            values: (0..values).map(value).collect(),
            inputs: vec![0],
            outputs: outputs.into(),
            stages: stages.iter().map(|(inputs, outputs)| stage(inputs, outputs)).collect(),
        }
    }

    #[test]
    fn values_die_with_their_last_user_and_skip_stages_between() {
        // v0 is used by stages 0 and 2, v1 only by 1, v2 by nobody, v4 is the output.
        let wiring = Wiring::new(&schedule(
            Kind::Pipeline,
            5,
            &[4],
            &[(&[0], &[1, 2]), (&[1], &[3]), (&[0, 3], &[4])],
        ))
        .unwrap();
        let dead: Vec<_> = wiring.stages.iter().map(|stage| stage.dead.clone()).collect();
        assert_eq!(dead, [vec![2], vec![1], vec![0, 3]]);
    }

    #[test]
    fn replicas_each_make_the_whole() {
        let stages: [(&[u32], &[u32]); 2] = [(&[0], &[1]), (&[0], &[1])];
        let wiring = Wiring::new(&schedule(Kind::Replicate, 2, &[1], &stages)).unwrap();
        assert!(wiring.stages.iter().all(|stage| stage.dead == [0]));
        let message = Wiring::new(&schedule(Kind::Pipeline, 2, &[1], &stages)).unwrap_err().message;
        assert!(message.contains("is there already"), "{message}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let check = |schedule: &Schedule, says: &str| {
            let failure = Wiring::new(schedule).unwrap_err();
            assert_eq!(failure.fault, protocol::Fault::Request);
            assert!(failure.message.contains(says), "{failure} should say {says}");
        };
        check(&schedule(Kind::Pipeline, 2, &[1], &[]), "0 stages do not make a Pipeline");
        check(&schedule(Kind::Single, 2, &[1], &[(&[0], &[1]), (&[0], &[1])]), "2 stages");
        check(&schedule(Kind::Single, 2, &[2], &[(&[0], &[1])]), "no value 2");
        check(&schedule(Kind::Single, 2, &[], &[(&[0], &[1])]), "no outputs");
        check(&schedule(Kind::Single, 3, &[2], &[(&[0], &[1])]), "output v2 is not made");
        check(&schedule(Kind::Pipeline, 3, &[2], &[(&[1], &[2]), (&[0], &[1])]), "takes v1");
        let mut crowded = schedule(Kind::Single, 2, &[1], &[(&[0], &[1])]);
        crowded.stages[0].binding.threads = 2;
        check(&crowded, "2 threads on 1 CPUs");
    }
}
