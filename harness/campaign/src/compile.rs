//! Compiles every network for every distinct target, and links stages. A full cache hit starts no compiler.

use crate::input_frames;
use crate::paths::Paths;
use crate::peers::OnnxRuntime;
use crate::processors::Processor;
use crate::schedule_message::{self, DeployedStage};
use anyhow::Context as _;
use compiler::{
    Cache, CompileError, Compiler, Entry, Job, JobProgress, Kit, NetworkManifest, Source, Spent, StageLayout,
    Target,
};
use config::{Experiment, Loaded, NetworkSource};
use domain::{FloatFormat, Network, Schedule, ScheduleKind, Winograd};
use host::exit::{Ending as _, Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use host::progress::Progress;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Held while the compiler runs: it uses all CPUs by itself, so several boards compile one after the other.
static COMPILER: Mutex<()> = Mutex::new(());

/// A network with its compiled artifacts.
#[derive(Debug, Clone)]
pub(crate) struct CompiledNetwork {
    /// Its name in the experiment.
    pub(crate) name: String,
    pub(crate) source: Source,
    /// Digest of its content.
    pub(crate) sha256: String,
    pub(crate) manifest: NetworkManifest,
    pub(crate) network: Network,
    /// What GPUs compute it in.
    pub(crate) precision: FloatFormat,
    /// Whether its kernels may use Winograd's algorithm.
    pub(crate) winograd: Winograd,
    /// What is fed to it.
    pub(crate) frames: protocol::Frames,
    /// Artifacts by target.
    pub(crate) entries: Vec<(Target, Entry)>,
}

impl CompiledNetwork {
    /// The artifacts for a processor's target.
    pub(crate) fn entry(&self, target: &Target) -> Option<&Entry> {
        let target = target.with_settings(self.precision, self.winograd);
        self.entries.iter().find(|(known, _)| *known == target).map(|(_, entry)| entry)
    }

    /// The ONNX file for other engines.
    ///
    /// # Errors
    /// If nothing was compiled, which is a bug.
    pub(crate) fn model(&self) -> anyhow::Result<PathBuf> {
        let (_, entry) = self.entries.first().context("nothing was compiled for this network")?;
        Ok(entry.model())
    }

    /// The compiled stages of a schedule, in stage order.
    ///
    /// # Errors
    /// If one is not in the cache.
    pub(crate) fn stages(
        &self,
        schedule: &Schedule,
        processors: &[Processor],
    ) -> anyhow::Result<Vec<DeployedStage>> {
        let layouts = schedule_message::stage_layouts(schedule, &self.network, processors);
        let stages = schedule.stages().iter().zip(layouts).map(|(stage, layout)| {
            let processor = processors.iter().find(|processor| processor.name == stage.processor);
            let processor =
                processor.with_context(|| format!("there is no processor {}", stage.processor))?;
            let entry = self.entry(&processor.target).context("nothing was compiled for this target")?;
            DeployedStage::local(entry, stage.first, stage.end, layout)
        });
        stages.collect()
    }
}

/// Builds artifacts that are not in the cache.
#[derive(Debug)]
pub(crate) struct ArtifactBuilder {
    pub(crate) cache: Cache,
    pub(crate) compiler: Compiler,
    pub(crate) interrupt: Interrupt,
    /// Directory of the frames that were made of pictures.
    pub(crate) frames: PathBuf,
    /// Present if the experiment has a peer.
    pub(crate) peer: Option<OnnxRuntime>,
}

impl ArtifactBuilder {
    /// # Errors
    /// If the cache cannot be used, or a peer cannot be run on this board.
    pub(crate) fn new(loaded: &Loaded, paths: &Paths, interrupt: Interrupt) -> Outcome<Self> {
        let cache = Cache::open(paths.state.join("cache"), &paths.root).ending(Exit::Usage)?;
        let target = loaded.board.target.as_ref().filter(|_| !loaded.board.connect.is_local());
        let kit = target.map(|target| Kit::of(&paths.state, target)).filter(|kit| kit.runner().is_file());
        let compiler = Compiler {
            python: paths.python.clone(),
            root: paths.root.clone(),
            linker: paths.linker.clone(),
            logs: paths.state.join("logs"),
            kit,
        };
        let schedules = &loaded.experiment.schedules;
        let peer = OnnxRuntime::for_peers(schedules, &loaded.board, compiler.kit.is_some(), &paths.python)?;
        Ok(Self { cache, compiler, interrupt, frames: paths.state.join("frames"), peer })
    }

    /// Compiles each network as a whole, for each distinct target of `processors`.
    ///
    /// # Errors
    /// If a network cannot be read or compiled; all that fail are named.
    pub(crate) fn compile_networks(
        &self,
        experiment: &Experiment,
        processors: &[Processor],
    ) -> Outcome<Vec<CompiledNetwork>> {
        let mut targets: Vec<Target> = Vec::new();
        for processor in processors {
            if !targets.contains(&processor.target) {
                targets.push(processor.target.clone());
            }
        }
        check_precisions(experiment, processors)?;
        let mut jobs = Vec::new();
        for network in &experiment.networks {
            let source = source_of(network);
            for target in &targets {
                let target = target.with_settings(network.precision(), network.winograd());
                let entry = self.cache.entry(network.name(), &source, &target).ending(Exit::Usage)?;
                jobs.push(Job {
                    network: network.name().to_owned(),
                    source: source.clone(),
                    target,
                    entry,
                    stages: vec![(0, None, StageLayout::PLAIN)],
                    model: self.peer.is_some() && jobs.len() % targets.len() == 0,
                });
            }
        }
        self.run("compile", &jobs)?;
        let mut compiled = Vec::new();
        for (network, jobs) in experiment.networks.iter().zip(jobs.chunks(targets.len())) {
            let first = jobs.first().and_then(|job| job.entry.network());
            let manifest = first
                .with_context(|| format!("the compiled network {} is missing from the cache", network.name()))
                .ending(Exit::Bug)?;
            let frames = input_frames::of_network(
                experiment,
                &manifest,
                network.pictures(),
                &self.frames,
                &self.interrupt,
            )?;
            compiled.push(CompiledNetwork {
                name: network.name().to_owned(),
                sha256: self.cache.identity(&source_of(network)).ending(Exit::Usage)?,
                source: source_of(network),
                network: manifest.network().ending(Exit::Bug)?,
                precision: network.precision(),
                winograd: network.winograd(),
                frames,
                manifest,
                entries: jobs.iter().map(|job| (job.target.clone(), job.entry.clone())).collect(),
            });
        }
        Ok(compiled)
    }

    /// Links the stages of the pipelines among these networks' schedules.
    ///
    /// # Errors
    /// If a stage cannot be linked.
    pub(crate) fn link_stages(
        &self,
        networks: &[(&CompiledNetwork, Vec<&Schedule>)],
        processors: &[Processor],
    ) -> Outcome<()> {
        let mut jobs = Vec::new();
        for (compiled, schedules) in networks {
            for (target, entry) in &compiled.entries {
                let mut stages = Vec::new();
                for schedule in schedules {
                    let layouts = schedule_message::stage_layouts(schedule, &compiled.network, processors);
                    for (stage, layout) in schedule.stages().iter().zip(layouts) {
                        let on_target = processors.iter().any(|processor| {
                            processor.name == stage.processor
                                && compiled.entry(&processor.target) == Some(entry)
                        });
                        let wanted = (stage.first, Some(stage.end), layout);
                        if on_target && schedule.kind() == ScheduleKind::Pipeline && !stages.contains(&wanted)
                        {
                            stages.push(wanted);
                        }
                    }
                }
                jobs.push(Job {
                    network: compiled.name.clone(),
                    source: compiled.source.clone(),
                    target: target.clone(),
                    entry: entry.clone(),
                    stages,
                    model: false,
                });
            }
        }
        self.run("stages", &jobs)
    }

    fn run(&self, name: &'static str, jobs: &[Job]) -> Outcome<()> {
        // Boards of one kind need the same artifacts: the second one finds them in the cache.
        let _guard = COMPILER.lock().unwrap_or_else(PoisonError::into_inner);
        let missing: Vec<Job> = jobs.iter().filter(|job| !job.is_cached()).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let progress = Progress::begin(name, missing.len());
        let results = self.compiler.compile(&missing, &self.interrupt, &|event| match event {
            JobProgress::Step { network, step, done, total } => {
                progress.doing(&format!("{network}: {step} {done}/{total}"));
            }
            JobProgress::Finished { network, spent: Some(used) } => {
                progress.step(&format!("{network}: {}", spent(used)));
            }
            JobProgress::Finished { network, spent: None } => progress.step(&format!("{network} failed")),
        });
        let finished =
            missing.iter().zip(&results).filter_map(|(job, result)| Some((job, *result.as_ref().ok()?)));
        let slowest = finished.clone().max_by_key(|(_, spent)| spent.time);
        let largest = finished.max_by_key(|(_, spent)| spent.peak_bytes);
        let extremes = slowest.zip(largest).map_or(String::new(), |((slow, time), (large, memory))| {
            format!(
                " (slowest {}: {}; largest {}: {})",
                slow.network,
                spent(time),
                large.network,
                spent(memory)
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
            return Err(Failure::new(Exit::Trial, "interrupted while compiling; nothing was measured"));
        }
        if failed.is_empty() {
            return Ok(());
        }
        let is_bug = failed.iter().all(|(_, error)| error.is_a_bug());
        let lines: Vec<String> =
            failed.iter().map(|(job, error)| format!("{}: {error}", job.network)).collect();
        Err(Failure::new(if is_bug { Exit::Bug } else { Exit::Usage }, lines.join("\n")))
    }
}

fn spent(spent: Spent) -> String {
    format!("{:.1} s and {} MB", spent.time.as_secs_f64(), spent.peak_bytes / 1_000_000)
}

/// Half precision needs a GPU: without one, every figure would be one of single precision.
fn check_precisions(experiment: &Experiment, processors: &[Processor]) -> Outcome<()> {
    let half = experiment.networks.iter().find(|network| !network.precision().is_single());
    let Some(half) = half.filter(|_| !processors.iter().any(|processor| processor.kind.is_gpu())) else {
        return Ok(());
    };
    let names: Vec<&str> = processors.iter().map(|processor| processor.name.as_str()).collect();
    Err(Failure::new(
        Exit::Usage,
        format!(
            "failed to use `precision: {}` of the network {}: none of the processors {} is a GPU, and CPUs compute in \
             single precision; choose a board with a GPU or remove `precision`",
            half.precision(),
            half.name(),
            names.join(", ")
        ),
    ))
}

fn source_of(network: &NetworkSource) -> Source {
    match network {
        NetworkSource::Zoo { zoo, .. } => Source::Zoo(zoo.clone()),
        NetworkSource::Onnx { path, shapes, .. } => {
            Source::Onnx { path: path.clone(), shapes: shapes.clone() }
        }
    }
}
