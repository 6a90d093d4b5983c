//! Which processor executes which units.

use crate::network::{Cut, Network};
use crate::peer::Peer;
use crate::processor::ProcessorName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a schedule uses its stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// One stage on one processor: a baseline.
    Single,
    /// One stage on a merged processor, which has the CPUs of several.
    Merged,
    /// Every frame passes all stages in order.
    Pipeline,
    /// One stage, the whole network, on several processors, which share the frames.
    Replicate,
    /// The whole network in another inference engine; each stage is one of its sessions.
    Peer,
}

impl ScheduleKind {
    /// The name in files, in the database and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Merged => "merged",
            Self::Pipeline => "pipeline",
            Self::Replicate => "replicate",
            Self::Peer => "peer",
        }
    }
}

impl fmt::Display for ScheduleKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// Units `first..end` on a processor. A stage on several processors is listed once for each of them: its *replicas*.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stage {
    /// Where it runs.
    pub processor: ProcessorName,
    /// First unit in it; the stage begins at the cut of the same number.
    pub first: usize,
    /// First unit after it; the stage ends at the cut of the same number.
    pub end: usize,
}

impl Stage {
    /// Whether both have the same units, so that in one schedule they are replicas of a stage.
    pub fn has_units_of(&self, other: &Self) -> bool {
        (self.first, self.end) == (other.first, other.end)
    }
}

/// Stages with their processors.
///
/// No stage is empty, no processor has two, and no CPU belongs to the processors of two. Stages follow one another without gaps
/// from the first unit of the network to its last. Neighbours with the same units are replicas of one stage: each takes the next
/// frame when it is free. A schedule of one stage is [`ScheduleKind::Single`], [`ScheduleKind::Merged`] on a merged processor, or
/// [`ScheduleKind::Replicate`] on several, however it was made. One of several stages is a [`ScheduleKind::Pipeline`]; but a
/// peer's is [`ScheduleKind::Peer`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawSchedule")]
pub struct Schedule {
    kind: ScheduleKind,
    units: usize,
    stages: Vec<Stage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Peer>,
}

/// A schedule as deserialized, not validated yet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSchedule {
    kind: ScheduleKind,
    units: usize,
    stages: Vec<Stage>,
    #[serde(default)]
    peer: Option<Peer>,
}

impl TryFrom<RawSchedule> for Schedule {
    type Error = ScheduleError;

    fn try_from(raw: RawSchedule) -> Result<Self, ScheduleError> {
        let schedule = match raw.peer {
            Some(peer) => Self::of_peer(raw.units, peer)?,
            None => Self::covering(raw.units, raw.stages.clone())?,
        };
        if schedule.kind == raw.kind && schedule.stages == raw.stages {
            Ok(schedule)
        } else {
            Err(ScheduleError::WrongKind { kind: raw.kind })
        }
    }
}

impl Schedule {
    /// The whole network on one processor.
    pub fn single(network: &Network, processor: ProcessorName) -> Self {
        let stages = vec![Stage { processor, first: 0, end: network.len() }];
        Self { kind: kind(&stages), units: network.len(), stages, peer: None }
    }

    /// The whole network in another engine.
    pub fn peer(network: &Network, peer: Peer) -> Result<Self, ScheduleError> {
        Self::of_peer(network.len(), peer)
    }

    fn of_peer(units: usize, peer: Peer) -> Result<Self, ScheduleError> {
        if peer.sessions.is_empty() || units == 0 {
            return Err(ScheduleError::NoStages);
        }
        let stage = |processor| Stage { processor, first: 0, end: units };
        let stages = peer.stage_names().into_iter().map(stage).collect();
        Ok(Self { kind: ScheduleKind::Peer, units, stages, peer: Some(peer) })
    }

    /// These stages one after another; neighbours with the same units are replicas of one.
    pub fn pipeline(network: &Network, stages: Vec<Stage>) -> Result<Self, ScheduleError> {
        Self::covering(network.len(), stages)
    }

    /// The whole network on each of these processors.
    pub fn replicate(network: &Network, processors: Vec<ProcessorName>) -> Result<Self, ScheduleError> {
        let replica = |processor| Stage { processor, first: 0, end: network.len() };
        Self::covering(network.len(), processors.into_iter().map(replica).collect())
    }

    /// A pipeline by the processors of its stages and the cuts at which they end. Only the last stage may leave its cut out; it
    /// ends where the network does.
    pub fn from_cuts(
        network: &Network,
        stages: &[(Vec<ProcessorName>, Option<Cut>)],
    ) -> Result<Self, ScheduleError> {
        let mut first = 0;
        let mut made = Vec::with_capacity(stages.len());
        for (place, (processors, cut)) in stages.iter().enumerate() {
            let last = place + 1 == stages.len();
            let end = match (cut, processors.first()) {
                (Some(cut), _) => cut.0,
                (None, _) if last => network.len(),
                (None, Some(processor)) => return Err(ScheduleError::NoCut { processor: processor.clone() }),
                (None, None) => return Err(ScheduleError::NoStages),
            };
            made.extend(processors.iter().map(|processor| Stage {
                processor: processor.clone(),
                first,
                end,
            }));
            first = end;
        }
        Self::covering(network.len(), made)
    }

    fn covering(units: usize, stages: Vec<Stage>) -> Result<Self, ScheduleError> {
        check_processors(stages.iter().map(|stage| &stage.processor))?;
        let mut reached = 0;
        // Replicas are as sound as the first one.
        for stage in stages.chunk_by(Stage::has_units_of).filter_map(|replicas| replicas.first()) {
            let processor = || stage.processor.clone();
            if stage.end > units {
                return Err(ScheduleError::BeyondEnd { processor: processor(), end: stage.end, units });
            }
            if stage.first != reached {
                return Err(ScheduleError::Gap {
                    processor: processor(),
                    first: stage.first,
                    expected: reached,
                });
            }
            if stage.end == stage.first {
                return Err(ScheduleError::EmptyStage { processor: processor(), at: Cut(stage.first) });
            }
            if stage.end < stage.first {
                return Err(ScheduleError::CutsOutOfOrder {
                    processor: processor(),
                    end: Cut(stage.end),
                    first: Cut(stage.first),
                });
            }
            reached = stage.end;
        }
        match stages.last() {
            Some(last) if reached < units => {
                Err(ScheduleError::Unfinished { processor: last.processor.clone(), end: reached, units })
            }
            _ => Ok(Self { kind: kind(&stages), units, stages, peer: None }),
        }
    }

    /// How the stages are used.
    pub fn kind(&self) -> ScheduleKind {
        self.kind
    }

    /// The stages, with each replica of a stage on several processors; at least one.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The replicas of each stage; of a peer, its sessions.
    pub fn replicas(&self) -> impl Iterator<Item = &[Stage]> {
        self.stages.chunk_by(Stage::has_units_of)
    }

    /// The other inference engine of a peer; absent for other schedules.
    pub fn as_peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// Units of the network it is for.
    pub fn units(&self) -> usize {
        self.units
    }

    /// The processors used, in stage order; for a peer, its sessions, which are not processors of the board.
    pub fn processors(&self) -> impl Iterator<Item = &ProcessorName> {
        self.stages.iter().map(|stage| &stage.processor)
    }

    /// A label that is unique among the schedules of the network: `cpu0`, `cpu0[0..12] > cpu1[12..21]`,
    /// `gpu[0..12] > (cpu0 | cpu1)[12..21]`, `cpu0 | cpu1`; `onnxruntime, 2 threads`.
    pub fn label(&self) -> String {
        if let Some(peer) = &self.peer {
            return peer.to_string();
        }
        let stage = |replicas: &[Stage]| {
            let names: Vec<&str> = replicas.iter().map(|replica| replica.processor.as_str()).collect();
            let names = names.join(" | ");
            match (self.kind, replicas) {
                (ScheduleKind::Pipeline, [only]) => format!("{names}[{}..{}]", only.first, only.end),
                (ScheduleKind::Pipeline, [one, ..]) => format!("({names})[{}..{}]", one.first, one.end),
                _ => names,
            }
        };
        self.replicas().map(stage).collect::<Vec<_>>().join(" > ")
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.label())
    }
}

fn kind(stages: &[Stage]) -> ScheduleKind {
    match stages {
        [only] if only.processor.is_merged() => ScheduleKind::Merged,
        [_] => ScheduleKind::Single,
        [first, .., last] if first.has_units_of(last) => ScheduleKind::Replicate,
        _ => ScheduleKind::Pipeline,
    }
}

fn check_processors<'a>(
    processors: impl IntoIterator<Item = &'a ProcessorName>,
) -> Result<(), ScheduleError> {
    let mut seen: Vec<&ProcessorName> = Vec::new();
    for processor in processors {
        if seen.contains(&processor) {
            return Err(ScheduleError::ProcessorTwice { processor: processor.clone() });
        }
        if let Some(other) = seen.iter().find(|other| other.overlaps(processor)) {
            let (processor, other) = (processor.clone(), (*other).clone());
            return Err(ScheduleError::SharedCpus { processor, other });
        }
        seen.push(processor);
    }
    if seen.is_empty() { Err(ScheduleError::NoStages) } else { Ok(()) }
}

/// Why stages are not a valid schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// There is nothing to run.
    #[error("failed to create a schedule: it has no stages")]
    NoStages,
    /// A processor has two stages.
    #[error("failed to create a schedule: processor {processor} has more than one stage")]
    ProcessorTwice {
        /// The processor.
        processor: ProcessorName,
    },
    /// Two processors are merged of the same CPUs.
    #[error("failed to create a schedule: processors {other} and {processor} have CPUs in common")]
    SharedCpus {
        /// The later processor.
        processor: ProcessorName,
        /// The one before it.
        other: ProcessorName,
    },
    /// A stage has no units.
    #[error("failed to create a schedule: the stage on {processor} is empty, it begins and ends at cut {at}")]
    EmptyStage {
        /// Its processor.
        processor: ProcessorName,
        /// Where it begins and ends.
        at: Cut,
    },
    /// A stage ends before it begins.
    #[error(
        "failed to create a schedule: the stage on {processor} ends at cut {end}, before it begins at {first}"
    )]
    CutsOutOfOrder {
        /// Its processor.
        processor: ProcessorName,
        /// Where it ends.
        end: Cut,
        /// Where it begins.
        first: Cut,
    },
    /// A stage does not begin where the one before it ends.
    #[error(
        "failed to create a schedule: the stage on {processor} begins at unit {first}, expected {expected}"
    )]
    Gap {
        /// Its processor.
        processor: ProcessorName,
        /// Where it begins.
        first: usize,
        /// Where it had to begin.
        expected: usize,
    },
    /// A stage ends after the network.
    #[error("failed to create a schedule: the stage on {processor} ends at unit {end}, of {units} units")]
    BeyondEnd {
        /// Its processor.
        processor: ProcessorName,
        /// Where it ends.
        end: usize,
        /// Units of the network.
        units: usize,
    },
    /// The last stage ends before the network.
    #[error(
        "failed to create a schedule: the last stage, on {processor}, ends at unit {end}, of {units}; leave its cut out"
    )]
    Unfinished {
        /// Its processor.
        processor: ProcessorName,
        /// Where it ends.
        end: usize,
        /// Units of the network.
        units: usize,
    },
    /// A stage that is not the last does not say where it ends.
    #[error(
        "failed to create a schedule: the stage on {processor} is not the last, but has no cut at its end"
    )]
    NoCut {
        /// Its processor.
        processor: ProcessorName,
    },
    /// A kind says how many stages there are, and on how many processors.
    #[error("failed to create a schedule: its stages are not those of a {kind} schedule")]
    WrongKind {
        /// What it was called.
        kind: ScheduleKind,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Boundary, Tensor, Unit};
    use crate::peer::{GpuProvider, PeerGpu};
    use crate::units::Bytes;

    fn network(units: usize) -> Network {
        let unit = |index| Unit { name: format!("u{index}"), operators: vec![], macs: 0, parameters: 0 };
        let tensor = |cut| Tensor {
            value: format!("t{cut}"),
            shape: vec![1],
            dtype: "float32".to_owned(),
            bytes: Bytes(4),
        };
        let boundary = |cut| Boundary { tensors: vec![tensor(cut)] };
        Network::new("n", (0..units).map(unit).collect(), (0..=units).map(boundary).collect()).unwrap()
    }

    fn stage(processor: &str, first: usize, end: usize) -> Stage {
        Stage { processor: processor.into(), first, end }
    }

    #[test]
    fn labels() {
        let network = network(21);
        let cuts = [(vec!["cpu0".into()], Some(Cut(12))), (vec!["cpu1".into()], None)];
        let pipeline = Schedule::from_cuts(&network, &cuts).unwrap();
        assert_eq!(pipeline.label(), "cpu0[0..12] > cpu1[12..21]");
        assert_eq!(pipeline.kind(), ScheduleKind::Pipeline);
        let cuts = [(vec!["gpu".into()], Some(Cut(12))), (vec!["cpu0".into(), "cpu1".into()], None)];
        let shared = Schedule::from_cuts(&network, &cuts).unwrap();
        assert_eq!(shared.label(), "gpu[0..12] > (cpu0 | cpu1)[12..21]");
        assert_eq!(shared.kind(), ScheduleKind::Pipeline);
        assert_eq!(shared.replicas().map(<[Stage]>::len).collect::<Vec<_>>(), [1, 2]);
        let replicate = Schedule::replicate(&network, vec!["cpu0".into(), "cpu1".into()]).unwrap();
        assert_eq!((replicate.label().as_str(), replicate.kind()), ("cpu0 | cpu1", ScheduleKind::Replicate));
        let single = Schedule::single(&network, "cpu0".into());
        assert_eq!((single.label().as_str(), single.kind()), ("cpu0", ScheduleKind::Single));
        let merged = Schedule::single(&network, "cpu0+cpu1".into());
        assert_eq!((merged.label().as_str(), merged.kind()), ("cpu0+cpu1", ScheduleKind::Merged));
        let text = serde_json::to_string(&merged).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), merged);
        assert!(serde_json::from_str::<Schedule>(&text.replace("merged", "single")).is_err());
        let beside = Schedule::replicate(&network, vec!["cpu0+cpu1".into(), "gpu".into()]).unwrap();
        assert_eq!(beside.label(), "cpu0+cpu1 | gpu");
    }

    fn peer(sessions: &[&[u32]]) -> Peer {
        let sessions = sessions.iter().map(|cpus| cpus.to_vec()).collect();
        Peer { engine: "onnxruntime".to_owned(), version: "1".to_owned(), threads: 1, sessions, gpu: None }
    }

    #[test]
    fn peers() {
        let network = network(4);
        let one = Schedule::peer(&network, peer(&[&[0]])).unwrap();
        assert_eq!((one.label().as_str(), one.kind()), ("onnxruntime, 1 thread", ScheduleKind::Peer));
        let two = Schedule::peer(&network, peer(&[&[0], &[1]])).unwrap();
        assert_eq!((two.label().as_str(), two.stages().len()), ("2 × onnxruntime, 1 thread", 2));
        assert_eq!(two.as_peer().unwrap().cpus(), [0, 1]);
        assert!(Schedule::peer(&network, peer(&[])).is_err());
        let of = |provider| Peer {
            gpu: Some(PeerGpu { provider, processor: "gpu".into() }),
            ..peer(&[&[3], &[3]])
        };
        let labels =
            [GpuProvider::Cuda, GpuProvider::Tensorrt].map(|provider| Schedule::peer(&network, of(provider)));
        let labels = labels.map(|schedule| schedule.unwrap().label());
        assert_eq!(labels, ["2 × onnxruntime cuda, gpu", "2 × onnxruntime tensorrt, gpu"]);
        let text = serde_json::to_string(&two).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), two);
        for (from, to) in [("\"peer\",", "\"single\","), ("#1", "#2")] {
            assert!(text.contains(from), "{text}");
            assert!(serde_json::from_str::<Schedule>(&text.replace(from, to)).is_err(), "{from} -> {to}");
        }
    }

    #[test]
    fn one_stage_is_no_pipeline_however_made() {
        let network = network(3);
        let single = Schedule::single(&network, "a".into());
        assert_eq!(Schedule::pipeline(&network, vec![stage("a", 0, 3)]), Ok(single.clone()));
        assert_eq!(Schedule::replicate(&network, vec!["a".into()]), Ok(single.clone()));
        assert_eq!(Schedule::from_cuts(&network, &[(vec!["a".into()], Some(Cut(3)))]), Ok(single));
        let both = vec!["a".into(), "b".into()];
        let replicate = Schedule::replicate(&network, both.clone()).unwrap();
        assert_eq!(Schedule::from_cuts(&network, &[(both, None)]), Ok(replicate));
    }

    #[test]
    fn stages_that_make_no_pipeline() {
        let check = |stages: &[(&str, usize, usize)], wanted: &str| {
            let stages = stages.iter().map(|&(name, first, end)| stage(name, first, end)).collect();
            let error = Schedule::pipeline(&network(5), stages).unwrap_err().to_string();
            assert_eq!(error, format!("failed to create a schedule: {wanted}"));
        };
        check(&[], "it has no stages");
        check(&[("a", 0, 2), ("a", 2, 5)], "processor a has more than one stage");
        check(&[("a", 0, 2), ("b+a", 2, 5)], "processors a and b+a have CPUs in common");
        check(&[("a", 1, 5)], "the stage on a begins at unit 1, expected 0");
        check(&[("a", 0, 2), ("b", 3, 5)], "the stage on b begins at unit 3, expected 2");
        check(&[("a", 0, 3), ("b", 2, 5)], "the stage on b begins at unit 2, expected 3");
        check(&[("a", 0, 3), ("b", 0, 2)], "the stage on b begins at unit 0, expected 3");
        check(&[("a", 0, 3), ("b", 3, 5), ("c", 0, 3)], "the stage on c begins at unit 0, expected 5");
        check(&[("a", 0, 6)], "the stage on a ends at unit 6, of 5 units");
        check(&[("a", 0, 2), ("b", 2, 4)], "the last stage, on b, ends at unit 4, of 5; leave its cut out");
        check(&[("a", 0, 0), ("b", 0, 5)], "the stage on a is empty, it begins and ends at cut 0");
    }

    #[test]
    fn cuts_that_make_no_pipeline() {
        let check = |cuts: &[(&str, Option<usize>)], wanted: &str| {
            let cuts: Vec<_> = cuts.iter().map(|&(name, cut)| (vec![name.into()], cut.map(Cut))).collect();
            let error = Schedule::from_cuts(&network(5), &cuts).unwrap_err().to_string();
            assert_eq!(error, format!("failed to create a schedule: {wanted}"));
        };
        check(&[], "it has no stages");
        check(
            &[("a", Some(3)), ("b", Some(2)), ("c", None)],
            "the stage on b ends at cut 2, before it begins at 3",
        );
        check(
            &[("a", Some(3)), ("b", Some(3)), ("c", None)],
            "the stage on b is empty, it begins and ends at cut 3",
        );
        check(&[("a", Some(5)), ("b", None)], "the stage on b is empty, it begins and ends at cut 5");
        check(&[("a", None), ("b", None)], "the stage on a is not the last, but has no cut at its end");
        check(&[("a", Some(2)), ("a", None)], "processor a has more than one stage");
    }

    #[test]
    fn reading_a_schedule_proves_it_too() {
        let network = network(4);
        let stages = vec![stage("a", 0, 1), stage("c", 0, 1), stage("b", 1, 4)];
        let shared = Schedule::pipeline(&network, stages).unwrap();
        let text = serde_json::to_string(&shared).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), shared);
        let schedule = Schedule::pipeline(&network, vec![stage("a", 0, 1), stage("b", 1, 4)]).unwrap();
        let text = serde_json::to_string(&schedule).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
        let check = |from: &str, to: &str| {
            assert!(text.contains(from));
            serde_json::from_str::<Schedule>(&text.replace(from, to)).unwrap_err().to_string()
        };
        assert!(check("\"first\":1", "\"first\":2").contains("begins at unit 2, expected 1"));
        assert!(check("pipeline", "single").contains("not those of a single schedule"));
        assert!(check("pipeline", "replicate").contains("not those of a replicate schedule"));
        assert!(check("\"first\":1", "\"first\":0").contains("begins at unit 0, expected 1"));
        assert!(check("\"units\":4", "\"units\":0").contains("of 0 units"));
    }
}
