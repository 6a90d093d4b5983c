//! Where schedules name processors and cuts, and whether those exist.

use domain::processor::MERGES;
use domain::{Network, ProcessorName};

use super::faults::{Faults, Spot, did_you_mean, listed};
use super::processors::RESERVED;
use super::schedules::{ManualStage, ScheduleSpec, StageProcessors};
use super::tree::Node;

/// A processor named by a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// Its name; of a merged processor those of its parts.
    pub processor: String,
    /// Where it is named.
    pub at: Spot,
}

/// A cut set by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutMention {
    /// Index of the schedule it belongs to.
    pub schedule: usize,
    /// The last unit before the cut, or a prefix of that unit's dotted name.
    pub until: String,
    /// Where it is named.
    pub at: Spot,
}

/// Processors and cuts that schedules name, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Mentions {
    pub(super) processors: Vec<Mention>,
    pub(super) cuts: Vec<CutMention>,
}

/// Collects the mentions and reports what the schema cannot express. `tree` is the experiment's.
pub(super) fn collect(schedules: &[ScheduleSpec], tree: &Node, faults: &mut Faults) -> Mentions {
    let mut mentions = Mentions::default();
    for (index, schedule) in schedules.iter().enumerate() {
        let here = format!("schedules/{index}");
        Collector { tree, index, here: &here, mentions: &mut mentions, faults }.schedule(schedule);
        if schedules.iter().take(index).any(|earlier| earlier == schedule) {
            faults.add(
                &tree.spot(&here),
                "duplicate schedule: with its defaults it equals an earlier entry; remove one",
            );
        }
    }
    mentions
}

/// Visits the entry of `schedules` at the path `here`.
struct Collector<'a> {
    tree: &'a Node,
    index: usize,
    here: &'a str,
    mentions: &'a mut Mentions,
    faults: &'a mut Faults,
}

impl Collector<'_> {
    fn schedule(&mut self, schedule: &ScheduleSpec) {
        match schedule {
            ScheduleSpec::SingleEach
            | ScheduleSpec::MergedAll
            | ScheduleSpec::PipelineAuto { processors: None }
            | ScheduleSpec::ReplicateAll => {}
            ScheduleSpec::Single(name) => self.processor(name, "single"),
            ScheduleSpec::PipelineAuto { processors: Some(names) } => {
                self.processors(names, "pipeline/processors");
                self.any_apart(names);
            }
            ScheduleSpec::PipelineManual(stages) => self.stages(stages),
            ScheduleSpec::Merged(names) => {
                let at = self.tree.spot(&format!("{}/merged", self.here));
                let names: Vec<ProcessorName> = names.iter().map(ProcessorName::new).collect();
                let processor = ProcessorName::merged(&names).to_string();
                self.mentions.processors.push(Mention { processor, at });
            }
            ScheduleSpec::Replicate(names) => {
                self.processors(names, "replicate");
                for (index, name) in names.iter().enumerate() {
                    self.apart(name, &names[..index], &format!("replicate/{index}"));
                }
            }
            ScheduleSpec::Peer(peer) => {
                self.processors(peer.processors.as_deref().unwrap_or_default(), "processors");
            }
        }
    }

    fn processors(&mut self, names: &[String], path: &str) {
        for (index, name) in names.iter().enumerate() {
            self.processor(name, &format!("{path}/{index}"));
        }
    }

    fn processor(&mut self, name: &str, path: &str) {
        let at = self.tree.spot(&format!("{}/{path}", self.here));
        if RESERVED.contains(&name) {
            let expected = if path == "single" {
                "\"each\" or the name of a processor"
            } else {
                "the name of a processor"
            };
            self.faults.add(&at, format!("expected {expected}, found {name:?}"));
        } else {
            self.mentions.processors.push(Mention { processor: name.to_owned(), at });
        }
    }

    /// Reports that a processor has CPUs of one of the `others`, which work at the same time.
    fn apart<S: AsRef<str>>(&mut self, name: &str, others: &[S], path: &str) {
        let own = ProcessorName::new(name);
        let others = others.iter().map(AsRef::as_ref).filter(|other| *other != name);
        for other in others.filter(|other| ProcessorName::new(*other).overlaps(&own)) {
            let message =
                format!("{name:?} has CPUs in common with {other:?}; they cannot be used at the same time");
            self.faults.add(&self.tree.spot(&format!("{}/{path}", self.here)), message);
        }
    }

    /// Reports processors of which no two can work at the same time, so that they form no pipeline.
    fn any_apart(&mut self, names: &[String]) {
        let all: Vec<ProcessorName> = names.iter().map(ProcessorName::new).collect();
        let overlap =
            |(index, one): (usize, &ProcessorName)| all[..index].iter().all(|other| one.overlaps(other));
        if all.len() > 1 && all.iter().enumerate().all(overlap) {
            let at = self.tree.spot(&format!("{}/pipeline/processors", self.here));
            let message = format!(
                "no two of {} can be used at the same time, because they have CPUs in common; a pipeline needs two without common CPUs",
                listed(names.iter().map(String::as_str), "and")
            );
            self.faults.add(&at, message);
        }
    }

    fn stages(&mut self, stages: &[ManualStage]) {
        for (index, stage) in stages.iter().enumerate() {
            let path = format!("{}/pipeline/{index}", self.here);
            match (&stage.until, index + 1 == stages.len()) {
                (Some(_), true) => {
                    let message = "the last stage ends with the network; remove \"until\"";
                    self.faults.add(&self.tree.spot(&format!("{path}/until")), message);
                }
                (None, false) => {
                    let message = "missing key \"until\"; every stage but the last names its last unit";
                    self.faults.add(&self.tree.spot(&path), message);
                }
                (Some(until), false) => self.mentions.cuts.push(CutMention {
                    schedule: self.index,
                    until: until.clone(),
                    at: self.tree.spot(&format!("{path}/until")),
                }),
                (None, true) => {}
            }
            for (place, name) in stage.processor.names().iter().enumerate() {
                let path = match &stage.processor {
                    StageProcessors::One(_) => format!("pipeline/{index}/processor"),
                    StageProcessors::Replicas(_) => format!("pipeline/{index}/processor/{place}"),
                };
                self.processor(name, &path);
                let earlier = stages.iter().take(index).flat_map(|other| other.processor.names());
                if earlier.clone().any(|other| other == name) {
                    let message = format!(
                        "{name:?} already has a stage of this pipeline; each processor can have only one"
                    );
                    self.faults.add(&self.tree.spot(&format!("{}/{path}", self.here)), message);
                }
                let others: Vec<&String> = earlier.chain(&stage.processor.names()[..place]).collect();
                self.apart(name, &others, &path);
            }
        }
    }
}

/// Reports every mention that is not in `names`, and merged processors that are not written in their order.
pub(super) fn find_unknown<S: AsRef<str>>(mentions: &[Mention], names: &[S], faults: &mut Faults) {
    let names = || names.iter().map(AsRef::as_ref);
    for mention in mentions {
        let name = ProcessorName::new(&mention.processor);
        let place = |part: &str| names().position(|name| name == part);
        let places: Option<Vec<usize>> = name.parts().map(place).collect();
        for part in name.parts().filter(|part| place(part).is_none()) {
            let nearest = did_you_mean(part, names());
            let known = listed(names(), "and");
            faults.add(&mention.at, format!("unknown processor {part:?}; the board has {known}{nearest}"));
        }
        if let Some(places) = places.filter(|places| !places.is_sorted_by(|one, next| one < next)) {
            let mut ordered = places;
            ordered.sort_unstable();
            ordered.dedup();
            let ordered: Vec<&str> = ordered.into_iter().filter_map(|place| names().nth(place)).collect();
            let message = format!(
                "{name} repeats a processor or does not follow the order of the board; write {}",
                ordered.join(&MERGES.to_string())
            );
            faults.add(&mention.at, message);
        }
    }
}

/// Reports cuts that do not exist in `network`, that do not come after the previous cut, or that leave nothing for the
/// last stage.
pub(super) fn find_bad_cuts(cuts: &[CutMention], network: &Network, faults: &mut Faults) {
    let mut previous: Option<(usize, usize)> = None;
    for CutMention { schedule, until, at } in cuts {
        let name = network.name();
        match network.cut_after(until) {
            Err(unknown) => {
                let nearest = match unknown.nearest.as_slice() {
                    [] => String::new(),
                    names => format!("; did you mean {}?", listed(names.iter().map(String::as_str), "or")),
                };
                faults.add(at, format!("{name} has no unit {until:?}{nearest}"));
            }
            Ok(cut) => {
                if cut.0 == network.len() {
                    let message =
                        format!("{until:?} is the last unit of {name}; no unit is left for the next stage");
                    faults.add(at, message);
                } else if previous.is_some_and(|(other, earlier)| other == *schedule && cut.0 <= earlier) {
                    let message =
                        format!("{until:?} of {name} must come after the previous cut; its stage is empty");
                    faults.add(at, message);
                }
                previous = Some((*schedule, cut.0));
            }
        }
    }
}
