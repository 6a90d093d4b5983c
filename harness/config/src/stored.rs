//! The resolved configuration as text, for the database: everything filled in, in the words of the files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::experiment::{Experiment, ScheduleSpec};
use super::faults::Faults;
use super::network::{self, NetworkSource};
use super::schema::SCHEMAS;
use super::{Loaded, board, check, experiment, raw, tree, typed};

/// Version of the stored text.
const VERSION: u32 = 1;
/// How faults call that text.
const SOURCE: &str = "the stored configuration";

impl Loaded {
    /// The configuration as YAML text, complete: [`Loaded::from_yaml`] reads it back to an equal one, whatever the
    /// files and defaults have become in the meantime. Places in files are not kept.
    pub fn to_yaml(&self) -> Result<String, serde_yaml::Error> {
        let stored = raw::Stored {
            schema: VERSION,
            board: (&self.board).into(),
            networks: self.experiment.networks.iter().filter_map(NetworkSource::to_raw).collect(),
            experiment: (&self.experiment).into(),
        };
        let mut text = Vec::new();
        let mut serializer = serde_yaml::Serializer::new(&mut text);
        serde_yaml::with::singleton_map_recursive::serialize(&stored, &mut serializer)?;
        drop(serializer);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Reads what [`Loaded::to_yaml`] wrote. Looks at no file: whether networks are still there shows when they are
    /// compiled.
    pub fn from_yaml(text: &str) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let loaded = read(text, &mut faults);
        faults.into_result(loaded)
    }
}

fn read(text: &str, faults: &mut Faults) -> Option<Loaded> {
    let tree = tree::parse(&Arc::from(SOURCE), text, faults)?;
    let sound = check::check(&tree, &SCHEMAS.stored, faults)?;
    let read = typed::read::<raw::Stored>(&sound);
    if let (Err(error), true) = (&read, faults.is_empty()) {
        faults.add(&tree.at, error.to_string());
    }
    let stored = read.ok()?;
    let mut own: BTreeMap<String, NetworkSource> = BTreeMap::new();
    for raw in stored.networks {
        let path = PathBuf::from(&raw.onnx.0);
        own.insert(raw.name.0.clone(), network::resolve(raw, path));
    }
    let mut find = |name: &str, asked: &super::Spot, faults: &mut Faults| {
        let known = own.get(name).cloned();
        let zoo = || network::zoo().any(|known| known == name);
        let source = known.or_else(|| zoo().then(|| NetworkSource::Zoo { name: name.to_owned() }));
        if source.is_none() {
            faults.add(asked, format!("unknown network {name:?}; this version's zoo does not have it"));
        }
        source
    };
    let board = board::resolve(stored.board, sound.get("board")?, faults);
    let experiment = experiment::resolve(stored.experiment, sound.get("experiment")?, &mut find, faults);
    Some(Loaded { board, experiment })
}

impl From<&Experiment> for raw::Experiment {
    fn from(experiment: &Experiment) -> Self {
        let name = |text: &str| raw::Name(text.to_owned());
        let (warm_up, measure, profile) = (&experiment.warm_up, &experiment.measure, &experiment.profile);
        Self {
            name: name(&experiment.name),
            networks: experiment.networks.iter().map(|network| name(network.name())).collect(),
            schedules: experiment.schedules.iter().map(Into::into).collect(),
            objective: match experiment.objective {
                experiment::Objective::Throughput => raw::Objective::Throughput,
            },
            trials: experiment.trials,
            precision: experiment.precision.map_or_else(raw::Precision::default, |share| {
                raw::Precision::Within(raw::Percent::of(share))
            }),
            max_minutes: experiment.max_time.as_secs_f64() / 60.0,
            warm_up: raw::WarmUp {
                min_frames: warm_up.min_frames,
                min_seconds: warm_up.min.as_secs_f64(),
                max_seconds: warm_up.max.as_secs_f64(),
            },
            measure: raw::Measure {
                min_frames: measure.min_frames,
                min_seconds: measure.min.as_secs_f64(),
                max_seconds: measure.max.as_secs_f64(),
                max_frames: measure.max_frames,
            },
            // Where it is off, the other values have no meaning; these are allowed ones.
            isolate: experiment.isolate.as_ref().map_or(
                raw::Isolate { enabled: false, min_frames: 1, min_seconds: 0.0, max_seconds: 1.0 },
                |isolate| raw::Isolate {
                    enabled: true,
                    min_frames: isolate.min_frames,
                    min_seconds: isolate.min.as_secs_f64(),
                    max_seconds: isolate.max.as_secs_f64(),
                },
            ),
            profile: raw::Profile {
                warm_up_frames: profile.warm_up_frames,
                min_frames: profile.min_frames,
                min_seconds: profile.min.as_secs_f64(),
                max_seconds: profile.max.as_secs_f64(),
            },
            queue_depth: experiment.queue_depth,
            timeline_frames: experiment.timeline_frames,
            frames: raw::Frames { seed: experiment.frames.seed, distinct: experiment.frames.distinct },
            seed: experiment.seed,
            tolerance: experiment.tolerance,
            cooldown_seconds: experiment.cooldown.as_secs_f64(),
            inject: experiment.slow_down.as_ref().map_or(raw::Inject::None, |slow_down| {
                raw::Inject::SlowDown(raw::SlowDown {
                    processor: name(&slow_down.processor),
                    percent: slow_down.percent,
                })
            }),
        }
    }
}

impl From<&ScheduleSpec> for raw::Schedule {
    fn from(schedule: &ScheduleSpec) -> Self {
        let names = |names: &[String]| names.iter().cloned().map(raw::Name).collect();
        Self::Own(match schedule {
            ScheduleSpec::SingleEach => raw::Own::Single(raw::Name("each".to_owned())),
            ScheduleSpec::Single(processor) => raw::Own::Single(raw::Name(processor.clone())),
            ScheduleSpec::PipelineAuto { processors: None } => {
                raw::Own::Pipeline(raw::Pipeline::Auto(raw::Auto::Auto))
            }
            ScheduleSpec::PipelineAuto { processors: Some(processors) } => {
                raw::Own::Pipeline(raw::Pipeline::Among(raw::Among { processors: names(processors) }))
            }
            ScheduleSpec::PipelineManual(stages) => {
                let stage = |stage: &experiment::ManualStage| raw::ManualStage {
                    processor: raw::Name(stage.processor.clone()),
                    until: stage.until.clone().map(raw::Text),
                };
                raw::Own::Pipeline(raw::Pipeline::Stages(stages.iter().map(stage).collect()))
            }
            ScheduleSpec::ReplicateAll => raw::Own::Replicate(raw::Replicate::All(raw::All::All)),
            ScheduleSpec::Replicate(processors) => raw::Own::Replicate(raw::Replicate::On(names(processors))),
            ScheduleSpec::Peer(peer) => {
                let count = |count: Option<u32>| {
                    Some(count.map_or(raw::Count::All(raw::All::All), raw::Count::Number))
                };
                return Self::Peer(raw::Peer {
                    peer: raw::Engine::Onnxruntime,
                    threads: count(peer.threads),
                    sessions: count(peer.sessions),
                    processors: peer.processors.as_deref().map(names),
                });
            }
        })
    }
}
