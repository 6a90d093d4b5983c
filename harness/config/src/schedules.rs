//! The schedules of an experiment, and where each processor and cut is named.

use domain::Network;

use super::board::RESERVED;
use super::experiment::{Experiment, ManualStage, PeerSpec, ScheduleSpec};
use super::faults::{Faults, Spot, did_you_mean, listed};
use super::raw;
use super::tree::Node;

/// A processor named by a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// Its name.
    pub processor: String,
    /// Where it is named.
    pub at: Spot,
}

/// A cut made by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutMention {
    /// Index of the schedule it belongs to.
    pub schedule: usize,
    /// The last unit before it, or the beginning of that unit's dotted name.
    pub until: String,
    /// Where it is named.
    pub at: Spot,
}

/// Schedules, with the processors and cuts they name in the order of the file.
pub(super) struct Resolved {
    pub(super) schedules: Vec<ScheduleSpec>,
    pub(super) mentions: Vec<Mention>,
    pub(super) cuts: Vec<CutMention>,
}

/// Checks what a schema cannot say. `tree` is the experiment that `raw` was read from.
pub(super) fn resolve(raw: Vec<raw::Schedule>, tree: &Node, faults: &mut Faults) -> Resolved {
    let (mut mentions, mut cuts) = (Vec::new(), Vec::new());
    let mut schedules: Vec<ScheduleSpec> = Vec::new();
    for (index, schedule) in raw.into_iter().enumerate() {
        let here = format!("schedules/{index}");
        let at = tree.spot(&here);
        let (mentions, cuts) = (&mut mentions, &mut cuts);
        let schedule = Reader { tree, index, here, mentions, cuts, faults }.schedule(schedule);
        let written = raw::Schedule::from(&schedule);
        if schedules.iter().any(|earlier| raw::Schedule::from(earlier) == written) {
            faults.add(
                &at,
                "duplicate schedule: with its defaults it equals an earlier entry; remove one".to_owned(),
            );
        }
        schedules.push(schedule);
    }
    Resolved { schedules, mentions, cuts }
}

/// Reads one entry of `schedules`, at the path `here`.
struct Reader<'a> {
    tree: &'a Node,
    index: usize,
    here: String,
    mentions: &'a mut Vec<Mention>,
    cuts: &'a mut Vec<CutMention>,
    faults: &'a mut Faults,
}

impl Reader<'_> {
    fn schedule(&mut self, raw: raw::Schedule) -> ScheduleSpec {
        let own = match raw {
            raw::Schedule::Own(own) => own,
            raw::Schedule::Peer(peer) => return self.peer(peer),
        };
        match own {
            raw::Own::Single(name) if name.0 == "each" => ScheduleSpec::SingleEach,
            raw::Own::Single(name) => ScheduleSpec::Single(self.processor(name, "single")),
            raw::Own::Pipeline(raw::Pipeline::Auto(_)) => ScheduleSpec::PipelineAuto { processors: None },
            raw::Own::Pipeline(raw::Pipeline::Among(among)) => ScheduleSpec::PipelineAuto {
                processors: Some(self.processors(among.processors, "pipeline/processors")),
            },
            raw::Own::Pipeline(raw::Pipeline::Stages(stages)) => self.stages(stages),
            raw::Own::Replicate(raw::Replicate::All(_)) => ScheduleSpec::ReplicateAll,
            raw::Own::Replicate(raw::Replicate::On(names)) => {
                ScheduleSpec::Replicate(self.processors(names, "replicate"))
            }
        }
    }

    fn peer(&mut self, raw: raw::Peer) -> ScheduleSpec {
        let count = |count: Option<raw::Count>| match count {
            None => Some(1),
            Some(raw::Count::Number(number)) => Some(number),
            Some(raw::Count::All(_)) => None,
        };
        let raw::Engine::Onnxruntime = raw.peer;
        ScheduleSpec::Peer(PeerSpec {
            engine: "onnxruntime".to_owned(),
            threads: count(raw.threads),
            sessions: count(raw.sessions),
            processors: raw.processors.map(|names| self.processors(names, "processors")),
        })
    }

    fn processors(&mut self, names: Vec<raw::Name>, path: &str) -> Vec<String> {
        let numbered = names.into_iter().enumerate();
        numbered.map(|(index, name)| self.processor(name, &format!("{path}/{index}"))).collect()
    }

    fn processor(&mut self, name: raw::Name, path: &str) -> String {
        let at = self.tree.spot(&format!("{}/{path}", self.here));
        if RESERVED.contains(&name.0.as_str()) {
            let expected =
                if path == "single" { "each or the name of a processor" } else { "the name of a processor" };
            self.faults.add(&at, format!("expected {expected}, found {:?}", name.0));
        } else {
            self.mentions.push(Mention { processor: name.0.clone(), at });
        }
        name.0
    }

    fn stages(&mut self, raw: Vec<raw::ManualStage>) -> ScheduleSpec {
        let last = raw.len().saturating_sub(1);
        let mut stages: Vec<ManualStage> = Vec::new();
        for (index, stage) in raw.into_iter().enumerate() {
            let path = format!("{}/pipeline/{index}", self.here);
            match (&stage.until, index == last) {
                (Some(_), true) => {
                    let message = "the last stage ends with the network; leave until out";
                    self.faults.add(&self.tree.spot(&format!("{path}/until")), message);
                }
                (None, false) => {
                    let message =
                        "the key \"until\" is missing; every stage but the last names its last unit";
                    self.faults.add(&self.tree.spot(&path), message);
                }
                (Some(until), false) => self.cuts.push(CutMention {
                    schedule: self.index,
                    until: until.0.clone(),
                    at: self.tree.spot(&format!("{path}/until")),
                }),
                (None, true) => {}
            }
            let processor = self.processor(stage.processor, &format!("pipeline/{index}/processor"));
            if stages.iter().any(|other| other.processor == processor) {
                let message = format!(
                    "{processor:?} has a stage of this pipeline already; each processor has at most one"
                );
                self.faults.add(&self.tree.spot(&format!("{path}/processor")), message);
            }
            stages.push(ManualStage { processor, until: stage.until.map(|text| text.0) });
        }
        ScheduleSpec::PipelineManual(stages)
    }
}

/// Checks the processors that schedules name against those the board has. For boards that list their processors,
/// [`load`](super::load) has done it; for `auto` it is done once they are found.
pub fn check_processors<S: AsRef<str>>(experiment: &Experiment, names: &[S]) -> Result<(), Faults> {
    let mut faults = Faults::default();
    find_unknown(&experiment.mentions, names, &mut faults);
    faults.into_result(Some(()))
}

/// Reports every mention that is none of `names`.
pub(super) fn find_unknown<S: AsRef<str>>(mentions: &[Mention], names: &[S], faults: &mut Faults) {
    let names = || names.iter().map(AsRef::as_ref);
    for mention in mentions.iter().filter(|mention| !names().any(|name| name == mention.processor)) {
        let nearest = did_you_mean(&mention.processor, names());
        let known = listed(names(), "and");
        let message = format!("unknown processor {:?}; the board has {known}{nearest}", mention.processor);
        faults.add(&mention.at, message);
    }
}

/// Reports every mention of a GPU: there is no engine for it yet. Schedules over all processors leave it out.
pub(super) fn find_gpus(mentions: &[Mention], gpus: &[&str], faults: &mut Faults) {
    for mention in mentions.iter().filter(|mention| gpus.contains(&mention.processor.as_str())) {
        let message = format!(
            "{:?} is a GPU, and this version has no engine for CUDA; leave it out of the schedule",
            mention.processor
        );
        faults.add(&mention.at, message);
    }
}

/// Checks the cuts made by hand against a network, once its units are known: each must exist, lie behind the one
/// before it, and leave something for the last stage.
pub fn check_cuts(experiment: &Experiment, network: &Network) -> Result<(), Faults> {
    let mut faults = Faults::default();
    let mut before: Option<(usize, usize)> = None;
    for mention in &experiment.cuts {
        let CutMention { schedule, until, at } = mention;
        let name = network.name();
        match network.cut_after(until) {
            Err(unknown) => {
                let nearest = match unknown.nearest.as_slice() {
                    [] => String::new(),
                    names => format!("; did you mean {}?", listed(names.iter().map(String::as_str), "or")),
                };
                faults.add(at, format!("{name} has no unit called {until:?}{nearest}"));
            }
            Ok(cut) => {
                if cut.0 == network.len() {
                    let message =
                        format!("{until:?} is the end of {name}; it leaves no unit for the next stage");
                    faults.add(at, message);
                } else if before.is_some_and(|(other, earlier)| other == *schedule && cut.0 <= earlier) {
                    let message = format!(
                        "{until:?} of {name} does not lie behind the stage before; its stage is empty"
                    );
                    faults.add(at, message);
                }
                before = Some((*schedule, cut.0));
            }
        }
    }
    faults.into_result(Some(()))
}
