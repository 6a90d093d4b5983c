//! What comes before the trials: compile, profile, plan, compile the stages.

use super::link::Link;
use super::peers::OnnxRuntime;
use super::plan::{self, Planned};
use super::wire::{self, Deployed};
use crate::processors::Processor;
use anyhow::Context as _;
use boards::session::SessionError;
use compiler::{
    BoundaryLayout, Cache, CompileError, Compiler, Entry, Job, JobProgress, NetworkManifest, ReferenceTensor,
    Source, Spent, Target,
};
use config::{self, Experiment, NetworkSource};
use domain::{Costs, Nanoseconds, Network, Profile, Schedule, ScheduleKind, Transfer};
use host::exit::{Coded, Ending as _, Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use host::progress::Progress;
use protocol::{Compared, Event, Profiled, Request, Transferred};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Longest a load of libraries, weights and frames may take on top of what a request measures.
pub(super) const LOADING: Duration = Duration::from_secs(60);
/// Buffers whose hand-over is timed, in bytes: around the boundaries of usual networks.
const TRANSFER_SIZES: [u64; 3] = [64 << 10, 256 << 10, 1 << 20];
/// One board after the other: the compiler uses all CPUs by itself.
static COMPILING: Mutex<()> = Mutex::new(());
/// Hand-overs timed of each size.
const TRANSFER_ROUNDS: u32 = 60;

/// A network with all that is known of it before its trials.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    /// What the experiment calls it.
    pub(super) name: String,
    /// Where it comes from.
    pub(super) source: Source,
    /// Identity of its content.
    pub sha256: String,
    /// What the compiler says of it.
    pub(super) manifest: NetworkManifest,
    /// The same for the planner.
    pub(super) network: Network,
    /// Artifacts for each distinct target.
    pub(super) entries: Vec<(Target, Entry)>,
}

impl Prepared {
    fn entry(&self, target: &Target) -> Option<&Entry> {
        self.entries.iter().find(|(known, _)| known == target).map(|(_, entry)| entry)
    }

    /// The network as a file for other engines.
    ///
    /// # Errors
    /// Where nothing was compiled, which is a bug.
    pub(super) fn model(&self) -> anyhow::Result<PathBuf> {
        let (_, entry) = self.entries.first().context("nothing was compiled for this network")?;
        Ok(entry.model())
    }

    /// The compiled stages of a schedule, in stage order.
    ///
    /// # Errors
    /// Where one is not in the cache.
    pub(super) fn deployed(
        &self,
        schedule: &Schedule,
        processors: &[Processor],
    ) -> anyhow::Result<Vec<Deployed>> {
        let layout = wire::boundary_layout(schedule, processors);
        let stages = schedule.stages().iter().map(|stage| {
            let processor = processors.iter().find(|processor| processor.name == stage.processor);
            let processor =
                processor.with_context(|| format!("there is no processor {}", stage.processor))?;
            let entry = self.entry(&processor.target).context("nothing was compiled for this target")?;
            let layout =
                if schedule.kind() == ScheduleKind::Pipeline { layout } else { BoundaryLayout::Plain };
            Deployed::local(entry, stage.first, stage.end, layout)
        });
        stages.collect()
    }
}

/// Starts the compiler for what is missing.
#[derive(Debug)]
pub(super) struct Workshop {
    /// Compiled artifacts.
    pub(super) cache: Cache,
    /// Makes new ones.
    pub(super) compiler: Compiler,
    /// Ctrl-C.
    pub(super) interrupt: Interrupt,
    /// What the experiment compares with, where it does.
    pub(super) peer: Option<OnnxRuntime>,
}

impl Workshop {
    /// Compiles every network of the experiment as a whole, for every distinct target.
    ///
    /// # Errors
    /// Where a network cannot be read or compiled; all that fail are named.
    pub(super) fn whole_networks(
        &self,
        experiment: &Experiment,
        processors: &[Processor],
    ) -> Outcome<Vec<Prepared>> {
        let mut targets: Vec<Target> = Vec::new();
        for processor in processors {
            if !targets.contains(&processor.target) {
                targets.push(processor.target.clone());
            }
        }
        let mut jobs = Vec::new();
        for network in &experiment.networks {
            let source = source_of(network);
            for target in &targets {
                let entry = self.cache.entry(network.name(), &source, target).ending(Exit::Usage)?;
                jobs.push(Job {
                    network: network.name().to_owned(),
                    source: source.clone(),
                    target: target.clone(),
                    entry,
                    stages: vec![(0, None, BoundaryLayout::Plain)],
                    model: self.peer.is_some() && jobs.len() % targets.len() == 0,
                });
            }
        }
        self.compile("compile", &jobs)?;
        let mut prepared = Vec::new();
        for (network, jobs) in experiment.networks.iter().zip(jobs.chunks(targets.len())) {
            let first = jobs.first().and_then(|job| job.entry.network());
            let manifest = first
                .with_context(|| format!("the compiled network {} is gone from the cache", network.name()))
                .ending(Exit::Bug)?;
            prepared.push(Prepared {
                name: network.name().to_owned(),
                sha256: self.cache.identity(&source_of(network)).ending(Exit::Usage)?,
                source: source_of(network),
                network: manifest.network().ending(Exit::Bug)?,
                manifest,
                entries: jobs.iter().map(|job| (job.target.clone(), job.entry.clone())).collect(),
            });
        }
        Ok(prepared)
    }

    /// Compiles the stages of all schedules.
    ///
    /// # Errors
    /// Where a stage cannot be compiled.
    pub(super) fn stages(
        &self,
        networks: &[(&Prepared, &[Planned])],
        processors: &[Processor],
    ) -> Outcome<()> {
        let mut jobs = Vec::new();
        for (prepared, planned) in networks {
            for (target, entry) in &prepared.entries {
                let mut stages = Vec::new();
                for schedule in planned.iter().map(|planned| &planned.schedule) {
                    let layout = wire::boundary_layout(schedule, processors);
                    for stage in schedule.stages() {
                        let on_target = processors.iter().any(|processor| {
                            processor.name == stage.processor && processor.target == *target
                        });
                        let wanted = (stage.first, Some(stage.end), layout);
                        if on_target && schedule.kind() == ScheduleKind::Pipeline && !stages.contains(&wanted)
                        {
                            stages.push(wanted);
                        }
                    }
                }
                jobs.push(Job {
                    network: prepared.name.clone(),
                    source: prepared.source.clone(),
                    target: target.clone(),
                    entry: entry.clone(),
                    stages,
                    model: false,
                });
            }
        }
        self.compile("stages", &jobs)
    }

    fn compile(&self, name: &'static str, jobs: &[Job]) -> Outcome<()> {
        // Boards of one kind want the same things; who comes second finds them made.
        let _alone = COMPILING.lock().unwrap_or_else(PoisonError::into_inner);
        let missing: Vec<Job> = jobs.iter().filter(|job| !job.is_cached()).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let progress = Progress::begin(name, missing.len());
        let results = self.compiler.compile(&missing, &self.interrupt, &|event| match event {
            JobProgress::Step { network, step, done, total } => {
                progress.doing(&format!("{network}: {step} {done}/{total}"));
            }
            JobProgress::Finished { network, spent: Some(spent) } => {
                progress.step(&format!("{network} done in {}", in_words(spent)));
            }
            JobProgress::Finished { network, spent: None } => progress.step(&format!("{network} failed")),
        });
        let most =
            missing.iter().zip(&results).filter_map(|(job, result)| Some((job, *result.as_ref().ok()?)));
        let slowest = most.clone().max_by_key(|(_, spent)| spent.time);
        let largest = most.max_by_key(|(_, spent)| spent.peak_bytes);
        let extremes = slowest.zip(largest).map_or(String::new(), |((slow, time), (large, memory))| {
            format!(
                " (longest {}: {}; most memory {}: {})",
                slow.network,
                in_words(time),
                large.network,
                in_words(memory)
            )
        });
        let failed: Vec<(&Job, CompileError)> = missing
            .iter()
            .zip(results)
            .filter_map(|(job, result)| result.err().map(|error| (job, error)))
            .collect();
        progress.end(&format!(
            "{} of {} networks compiled{extremes}",
            missing.len() - failed.len(),
            missing.len()
        ));
        if self.interrupt.is_set() {
            return Err(Failure::new(Exit::Trial, "interrupted while compiling; nothing was measured yet"));
        }
        if failed.is_empty() {
            return Ok(());
        }
        let ours = failed.iter().all(|(_, error)| error.is_a_bug());
        let lines: Vec<String> =
            failed.iter().map(|(job, error)| format!("{}: {error}", job.network)).collect();
        Err(Failure::new(if ours { Exit::Bug } else { Exit::Usage }, lines.join("\n")))
    }
}

fn in_words(spent: Spent) -> String {
    format!("{:.1} s and {} MB", spent.time.as_secs_f64(), spent.peak_bytes / 1_000_000)
}

fn source_of(network: &NetworkSource) -> Source {
    match network {
        NetworkSource::Zoo { name } => Source::Zoo(name.clone()),
        NetworkSource::Onnx { path, shapes, .. } => {
            Source::Onnx { path: path.clone(), shapes: shapes.clone() }
        }
    }
}

/// Runs the whole network on a processor, on the frame of its independent reference.
///
/// # Errors
/// As [`Link::request`].
pub(super) fn verify(
    link: &mut Link,
    prepared: &Prepared,
    processor: &Processor,
) -> Result<Compared, ProfileFailure> {
    let alone = std::slice::from_ref(processor);
    let artifact = ProfileFailure::Artifact;
    let whole = Schedule::single(&prepared.network, processor.name.clone());
    let deployed = prepared.deployed(&whole, alone).map_err(artifact)?;
    let schedule = wire::schedule(&whole, &prepared.manifest, &deployed, alone).map_err(artifact)?;
    let entry =
        prepared.entry(&processor.target).context("the network was not compiled").map_err(artifact)?;
    let reference = &prepared.manifest.reference;
    let files = |tensors: &[ReferenceTensor]| {
        let paths = tensors.iter().map(|tensor| wire::text(&entry.reference().join(&tensor.file)));
        paths.collect::<anyhow::Result<Vec<_>>>().map_err(artifact)
    };
    let (inputs, outputs) = (files(&reference.inputs)?, files(&reference.outputs)?);
    let during =
        format!("hold the outputs of {} on {} against {}", prepared.name, processor.name, reference.engine);
    let event = link.request(&during, LOADING + Duration::from_secs(60), |id| {
        Request::Verify(protocol::Verify {
            id,
            schedule: schedule.clone(),
            inputs: inputs.clone(),
            outputs: outputs.clone(),
        })
    })?;
    match event {
        Event::Compared(compared) => Ok(compared),
        other => Err(link.unexpected(&during, &other).into()),
    }
}

/// Times every unit of a network on a processor.
///
/// # Errors
/// As [`Link::request`].
pub(super) fn profile(
    link: &mut Link,
    experiment: &Experiment,
    prepared: &Prepared,
    processor: &Processor,
) -> Result<Profiled, ProfileFailure> {
    let whole = Schedule::single(&prepared.network, processor.name.clone());
    let deployed =
        prepared.deployed(&whole, std::slice::from_ref(processor)).map_err(ProfileFailure::Artifact)?;
    let Some(deployed) = deployed.first() else {
        return Err(ProfileFailure::Artifact(anyhow::anyhow!("a single schedule has no stage")));
    };
    let (values, stage, calls) =
        wire::profile(deployed, processor.on_the_wire()).map_err(ProfileFailure::Artifact)?;
    let during = format!("profile {} on {}", prepared.name, processor.name);
    let rule = &experiment.profile;
    let event = link.request(&during, rule.max + LOADING, |id| {
        Request::Profile(protocol::Profile {
            id,
            values: values.clone(),
            stage: stage.clone(),
            calls: calls.clone(),
            frames: frames(experiment, &prepared.manifest),
            warm_up_frames: rule.warm_up_frames,
            min_frames: rule.min_frames,
            min_ns: nanoseconds(rule.min),
            max_ns: nanoseconds(rule.max),
        })
    })?;
    match event {
        Event::Profiled(profiled) => Ok(profiled),
        other => Err(link.unexpected(&during, &other).into()),
    }
}

/// Why a profile is not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProfileFailure {
    /// The runner's side.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The artifact's side.
    #[error(transparent)]
    Artifact(anyhow::Error),
    /// The board was too slow, or busy with something else.
    #[error(transparent)]
    TooSlow(anyhow::Error),
}

impl Coded for ProfileFailure {
    fn exit(&self) -> Exit {
        match self {
            Self::Session(error) => error.exit(),
            Self::Artifact(_) => Exit::Bug,
            Self::TooSlow(_) => Exit::Trial,
        }
    }
}

/// Frames of every processor while all of them run the whole network, in ns: one list a processor.
///
/// # Errors
/// As [`Link::request`].
pub(super) fn company(
    link: &mut Link,
    experiment: &Experiment,
    prepared: &Prepared,
    processors: &[Processor],
) -> Result<Vec<Vec<u64>>, ProfileFailure> {
    let names = processors.iter().map(|processor| processor.name.clone()).collect();
    let all = Schedule::replicate(&prepared.network, names)
        .map_err(|error| ProfileFailure::Artifact(error.into()))?;
    let deployed = prepared.deployed(&all, processors).map_err(ProfileFailure::Artifact)?;
    let schedule =
        wire::schedule(&all, &prepared.manifest, &deployed, processors).map_err(ProfileFailure::Artifact)?;
    let during = format!("time {} on all processors at once", prepared.name);
    let rule = &experiment.profile;
    let each = |frames: u32| frames.saturating_mul(u32::try_from(processors.len()).unwrap_or(u32::MAX));
    let sysfs = link.sysfs().to_owned();
    let event = link.request(&during, rule.max * 2 + LOADING, |id| {
        Request::Trial(protocol::Trial {
            id,
            schedule: schedule.clone(),
            frames: frames(experiment, &prepared.manifest),
            queue_depth: experiment.queue_depth,
            isolate: None,
            warm_up: protocol::WarmUpRule {
                min_frames: each(rule.warm_up_frames),
                min_ns: 0,
                max_ns: nanoseconds(rule.max),
            },
            measure: protocol::WindowRule {
                min_frames: each(rule.min_frames),
                min_ns: nanoseconds(rule.min),
                max_ns: nanoseconds(rule.max),
                max_frames: experiment.measure.max_frames,
            },
            timeline_frames: 0,
            power: None,
            sysfs: sysfs.clone(),
            slow_down_per_mille: Vec::new(),
        })
    })?;
    let Event::Measured(measured) = event else { return Err(link.unexpected(&during, &event).into()) };
    let window = &measured.window;
    let mut durations = Vec::new();
    for (place, processor) in processors.iter().enumerate() {
        let completed: Vec<u64> = window
            .completed_ns
            .iter()
            .zip(&window.completed_by)
            .filter(|(_, by)| **by as usize == place)
            .map(|(completed, _)| *completed)
            .collect();
        let frames: Vec<u64> = completed.windows(2).map(|pair| pair[1] - pair[0]).collect();
        if frames.is_empty() {
            return Err(ProfileFailure::TooSlow(anyhow::anyhow!(
                "failed to {during}: {} completed fewer than two frames in time; raise profile.max_seconds",
                processor.name
            )));
        }
        durations.push(frames);
    }
    Ok(durations)
}

/// The profile the planner uses, from raw samples.
///
/// # Errors
/// Where the samples contradict the network, which is a bug.
pub(super) fn unit_costs(network: &Network, processor: &Processor, raw: &Profiled) -> Outcome<Profile> {
    let samples = |values: &[u64]| values.iter().copied().map(Nanoseconds).collect::<Vec<_>>();
    let calls: Vec<(usize, Vec<Nanoseconds>)> =
        raw.calls.iter().map(|call| (call.unit as usize, samples(&call.samples_ns))).collect();
    Profile::from_calls(processor.name.clone(), network.len(), &calls, &samples(&raw.frame_ns))
        .ending(Exit::Bug)
}

/// Times what a hand-over between two processors costs the one that receives.
///
/// # Errors
/// As [`Link::request`].
pub(super) fn transfer(
    link: &mut Link,
    from: &Processor,
    to: &Processor,
) -> Result<Transferred, SessionError> {
    let during = format!("time the hand-over from {} to {}", from.name, to.name);
    let event = link.request(&during, LOADING, |id| {
        Request::Transfer(protocol::Transfer {
            id,
            from: from.on_the_wire(),
            to: to.on_the_wire(),
            sizes: TRANSFER_SIZES.to_vec(),
            rounds: TRANSFER_ROUNDS,
        })
    })?;
    match event {
        Event::Transferred(transferred) => Ok(transferred),
        other => Err(link.unexpected(&during, &other)),
    }
}

/// The planner's link from raw hand-overs: what the first reading costs over the second, by the byte. Handing over
/// the reference itself is below a microsecond and not told apart from noise, so the fixed part is 0.
pub(super) fn transfer_cost(raw: &Transferred) -> domain::Link {
    let mut slopes: Vec<f64> = raw
        .sizes
        .iter()
        .filter(|size| size.bytes > 0)
        .filter_map(|size| {
            let extra = median(&size.first_ns)? - median(&size.again_ns)?;
            Some((extra / size.bytes as f64).max(0.0))
        })
        .collect();
    slopes.sort_by(f64::total_cmp);
    let ns_per_byte = slopes.get(slopes.len() / 2).copied().unwrap_or(0.0);
    domain::Link { fixed_ns: 0.0, ns_per_byte }
}

fn median(values: &[u64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).map(|value| *value as f64)
}

/// Costs of a network on all processors.
///
/// # Errors
/// Where profiles do not fit each other, which is a bug.
pub(super) fn costs(profiles: &[Profile], links: Vec<Vec<domain::Link>>) -> Outcome<Costs> {
    Costs::from_profiles(profiles, Transfer::Pairs(links)).ending(Exit::Bug)
}

/// Input frames as the runner is told.
pub(super) fn frames(experiment: &Experiment, network: &NetworkManifest) -> protocol::Frames {
    protocol::Frames {
        seed: experiment.frames.seed,
        distinct: experiment.frames.distinct,
        integers_below: network.reference.integers_below,
    }
}

/// A duration on the wire.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The schedules of a network.
///
/// # Errors
/// As [`plan::resolve`].
pub(super) fn schedules(
    experiment: &Experiment,
    prepared: &Prepared,
    costs: &plan::CostsByCompany,
    processors: &[Processor],
    peer: Option<&OnnxRuntime>,
) -> Outcome<plan::Plans> {
    config::check_cuts(experiment, &prepared.network).ending(Exit::Usage)?;
    let version = peer.map_or("", |peer| &peer.version);
    plan::resolve(&experiment.schedules, &prepared.network, costs, processors, version)
}
