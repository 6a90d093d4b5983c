//! The compiler driver: what is not in the cache is compiled by the Python side, several networks at a time.

mod binary;
mod cache;
mod external;
mod kit;
mod manifest;
mod target;

pub use binary::{Binary, BinaryError, Need, Version};
pub use cache::{BoundaryLayout, Cache, Entry, Source};
pub use kit::Kit;
pub use manifest::{NetworkManifest, Reference, ReferenceTensor, StageManifest, ValueManifest};
pub use target::Target;

use host::interrupt::Interrupt;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Memory one compiler process is given room for. ResNet-50 and the like stay below; VGG-16 needs the most.
const BYTES_PER_PROCESS: u64 = 3 << 30;

/// What goes wrong in compiling.
#[derive(Debug, Error)]
pub enum CompileError {
    /// The compiler refused the network; the message is its own and finishes "failed to".
    #[error("{message}{}", node.as_ref().map(|node| format!(" (node {node})")).unwrap_or_default())]
    Refused {
        /// Kind of refusal, as the compiler names it.
        kind: String,
        /// The whole message.
        message: String,
        /// The node of the ONNX graph, where one is to blame.
        node: Option<String>,
    },
    /// The compiler ended without a word of its own.
    #[error("failed to compile {network}: the compiler ended with {status}; its log: {}", log.display())]
    Died {
        /// The network.
        network: String,
        /// Exit status in words.
        status: String,
        /// Its standard error.
        log: PathBuf,
    },
    /// The user pressed Ctrl-C.
    #[error("interrupted while compiling {0}")]
    Interrupted(String),
    /// Anything of the file system or of processes.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl CompileError {
    /// Whether edgepipe, rather than the network or the machine, is to blame.
    pub fn is_a_bug(&self) -> bool {
        match self {
            Self::Refused { kind, .. } => kind == "internal",
            Self::Died { .. } => true,
            Self::Interrupted(_) | Self::Other(_) => false,
        }
    }
}

/// Stages wanted of one network for one target.
#[derive(Debug, Clone)]
pub struct Job {
    /// Name of the network.
    pub network: String,
    /// Where it comes from.
    pub source: Source,
    /// What to compile for.
    pub target: Target,
    /// Where the artifacts belong.
    pub entry: Entry,
    /// First unit, one past the last (absent: all), layout at the boundary.
    pub stages: Vec<(usize, Option<usize>, BoundaryLayout)>,
    /// Whether the network itself is wanted as an ONNX file for other engines: shapes fixed, weights inside.
    pub model: bool,
}

impl Job {
    /// Whether everything is in the cache already.
    pub fn is_cached(&self) -> bool {
        let Some(network) = self.entry.network() else { return false };
        if self.model && !self.entry.model().is_file() {
            return false;
        }
        self.stages.iter().all(|(first, end, boundary)| {
            self.entry.stage(*first, end.unwrap_or(network.units.len()), *boundary).is_some()
        })
    }
}

/// Starts compiler processes.
#[derive(Debug, Clone)]
pub struct Compiler {
    /// Interpreter of the private environment.
    pub python: PathBuf,
    /// The workspace.
    pub root: PathBuf,
    /// Folder for job files and logs.
    pub logs: PathBuf,
    /// What links for the board; `None`: this machine's C compiler.
    pub kit: Option<Kit>,
}

#[derive(Serialize)]
struct JobFile<'a> {
    schema: u32,
    network: serde_json::Value,
    target: JobTarget<'a>,
    stages: Vec<serde_json::Value>,
    out: &'a Path,
    model: bool,
}

/// The linker is no part of the target: where it lies on the host says nothing about what it makes.
#[derive(Serialize)]
struct JobTarget<'a> {
    /// Kind of processor.
    kind: &'static str,
    #[serde(flatten)]
    target: &'a Target,
    #[serde(skip_serializing_if = "Option::is_none")]
    linker: Option<[PathBuf; 1]>,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum CompilerEvent {
    Progress { step: String, done: u64, total: u64 },
    Done {},
    Error { kind: String, message: String, node: Option<String> },
}

/// How far a job is, for the progress display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobProgress {
    /// At work.
    Step {
        /// The network.
        network: String,
        /// What the compiler does.
        step: String,
        /// How much of it is done.
        done: u64,
        /// Of how much.
        total: u64,
    },
    /// Through.
    Finished {
        /// The network.
        network: String,
        /// What it took, where it was compiled.
        spent: Option<Spent>,
    },
}

/// What compiling a network took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// From start to end of the compiler's process. Other networks may have been compiled at the same time.
    pub time: Duration,
    /// The most memory that process has held; the linker, a process of its own, is not in it.
    pub peak_bytes: u64,
}

/// Versions of what compiles, as the compiler tells them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompilerVersions {
    /// Of Apache TVM.
    pub tvm: String,
    /// Of LLVM within it.
    pub llvm: String,
    /// Of Python.
    pub python: String,
}

impl Compiler {
    /// Versions of what compiles. Asking takes a second, so the answer is kept for as long as `cache` stands for the
    /// same compiler.
    pub fn versions(&self, cache: &Cache) -> Option<CompilerVersions> {
        let kept = cache.versions_file();
        if let Some(versions) = fs::read(&kept).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            return Some(versions);
        }
        let output = self.command().ok()?.arg("--versions").stdin(Stdio::null()).output().ok()?;
        let versions: CompilerVersions = serde_json::from_slice(&output.stdout).ok()?;
        // Where it cannot be kept it is asked for again next time.
        let _ = fs::create_dir_all(kept.parent()?)
            .and_then(|()| fs::write(&kept, serde_json::to_vec(&versions).unwrap_or_default()));
        Some(versions)
    }

    /// Compiles all jobs, as many at a time as CPUs and memory allow. All are tried; the results come in the order
    /// of the jobs.
    pub fn compile(
        &self,
        jobs: &[Job],
        interrupt: &Interrupt,
        progress: &(dyn Fn(JobProgress) + Sync),
    ) -> Vec<Result<Spent, CompileError>> {
        let next = AtomicUsize::new(0);
        let results: Vec<Mutex<Result<Spent, CompileError>>> =
            jobs.iter().map(|_| Mutex::new(Ok(Spent::default()))).collect();
        std::thread::scope(|scope| {
            for _ in 0..workers().min(jobs.len()) {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let (Some(job), Some(slot)) = (jobs.get(index), results.get(index)) else { return };
                        let result = self.compile_one(job, interrupt, progress);
                        let spent = result.as_ref().ok().copied();
                        if let Ok(mut slot) = slot.lock() {
                            *slot = result;
                        }
                        progress(JobProgress::Finished { network: job.network.clone(), spent });
                    }
                });
            }
        });
        results.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
    }

    fn compile_one(
        &self,
        job: &Job,
        interrupt: &Interrupt,
        progress: &(dyn Fn(JobProgress) + Sync),
    ) -> Result<Spent, CompileError> {
        if interrupt.is_set() {
            return Err(CompileError::Interrupted(job.network.clone()));
        }
        let log = self.log(job);
        let begun = Instant::now();
        let mut child = self.spawn(job, &log)?;
        let mut peak_bytes = 0;
        let outcome = follow(&mut child, job, interrupt, progress, &mut peak_bytes);
        if outcome.is_err() {
            // Already gone unless it was interrupted; either way it must not linger.
            let _ = child.kill();
        }
        let status = child.wait().map_err(anyhow::Error::from)?;
        match outcome? {
            Some(error) => Err(error),
            None if status.success() && job.is_cached() => {
                self.check_libraries(job)?;
                Ok(Spent { time: begun.elapsed(), peak_bytes })
            }
            None => Err(CompileError::Died { network: job.network.clone(), status: status.to_string(), log }),
        }
    }

    /// The compiler, whose modules come from its own environment and the workspace alone. Before Python 3.11 the current
    /// directory is searched first, so that is the workspace's as well.
    fn command(&self) -> Result<Command, anyhow::Error> {
        use anyhow::Context as _;
        let absolute = |path: &Path| {
            std::path::absolute(path).with_context(|| format!("failed to find {}", path.display()))
        };
        let modules = absolute(&self.root.join("compiler"))?;
        let mut command = environment::python(absolute(&self.python)?);
        command.args(["-m", "edgepipe_compiler"]).current_dir(&modules).env("PYTHONPATH", &modules);
        Ok(command)
    }

    /// A job's log, with its job file beside it. Two targets may differ in threads or caches alone, and compile side by
    /// side; so the name is that of the place in the cache.
    fn log(&self, job: &Job) -> PathBuf {
        let entry = job.entry.folder.file_name().unwrap_or_default().to_string_lossy();
        self.logs.join(format!("compile-{entry}.log"))
    }

    /// Whether the stage libraries start on the board they were made for.
    fn check_libraries(&self, job: &Job) -> Result<(), CompileError> {
        let (Some(kit), Some(network)) = (&self.kit, job.entry.network()) else { return Ok(()) };
        for (first, end, boundary) in &job.stages {
            let end = end.unwrap_or(network.units.len());
            if let Some(stage) = job.entry.stage(*first, end, *boundary) {
                let library = job.entry.stage_folder(*first, end, *boundary).join(&stage.library);
                let binary = Binary::read(&library).map_err(anyhow::Error::from)?;
                binary.check(kit.target()).map_err(anyhow::Error::from)?;
            }
        }
        Ok(())
    }

    fn spawn(&self, job: &Job, log: &Path) -> Result<Child, anyhow::Error> {
        use anyhow::Context as _;
        let parent = job.entry.folder.parent().unwrap_or(&job.entry.folder);
        for folder in [&self.logs, parent] {
            fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
        }
        let network = match &job.source {
            Source::Zoo(zoo) => serde_json::json!({ "name": job.network, "zoo": zoo }),
            Source::Onnx { path, shapes } => {
                serde_json::json!({ "name": job.network, "onnx": path, "shapes": shapes })
            }
        };
        let stages = job.stages.iter().map(|(first, end, boundary)| {
            serde_json::json!({ "first_unit": first, "end_unit": end, "boundary": boundary.word() })
        });
        let file = JobFile {
            schema: 1,
            network,
            target: JobTarget {
                kind: "cpu",
                target: &job.target,
                linker: self.kit.as_ref().map(|kit| [kit.linker()]),
            },
            stages: stages.collect(),
            out: &job.entry.folder,
            model: job.model,
        };
        let path = log.with_extension("json");
        fs::write(&path, serde_json::to_vec_pretty(&file)?)
            .with_context(|| format!("failed to write {}", path.display()))?;
        let errors = fs::File::create(log).with_context(|| format!("failed to create {}", log.display()))?;
        let path =
            std::path::absolute(&path).with_context(|| format!("failed to find {}", path.display()))?;
        self.command()?
            .arg(&path)
            // Several processes share the machine; threads inside one would only get in each other's way.
            .env("OMP_NUM_THREADS", "1")
            .env("OPENBLAS_NUM_THREADS", "1")
            .env("TVM_NUM_THREADS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            // Ctrl-C is the harness' to handle, not the child's.
            .process_group(0)
            .spawn()
            .with_context(|| format!("failed to start the compiler with {}", self.python.display()))
    }
}

/// Reads the compiler's events to the end; an error it reports is the inner value. `peak_bytes` is the most memory
/// that the process has held.
fn follow(
    child: &mut Child,
    job: &Job,
    interrupt: &Interrupt,
    progress: &(dyn Fn(JobProgress) + Sync),
    peak_bytes: &mut u64,
) -> Result<Option<CompileError>, CompileError> {
    let Some(stdout) = child.stdout.take() else { return Ok(None) };
    let (lines, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // A line is short; a compiler gone mad must not fill the memory.
        for line in BufReader::new(stdout.take(1 << 24)).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    let mut refused = None;
    loop {
        // The kernel keeps the peak; it is gone with the process, so it is read as long as there is one.
        *peak_bytes = peak_of(child.id()).unwrap_or(*peak_bytes);
        match receiver.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => match serde_json::from_str(&line) {
                Ok(CompilerEvent::Progress { step, done, total }) => {
                    progress(JobProgress::Step { network: job.network.clone(), step, done, total });
                }
                Ok(CompilerEvent::Error { kind, message, node }) => {
                    refused = Some(CompileError::Refused { kind, message, node });
                }
                Ok(CompilerEvent::Done {}) => {}
                Err(_) => tracing::debug!("the compiler printed {line:?}"),
            },
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) if interrupt.is_set() => {
                return Err(CompileError::Interrupted(job.network.clone()));
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Ok(refused),
        }
    }
}

/// The most memory that a process has held so far.
fn peak_of(process: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// Compiler processes at a time.
fn workers() -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let available = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?.to_owned();
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .map_or(u64::MAX, |kib| kib << 10);
    let by_memory = usize::try_from(available / BYTES_PER_PROCESS).unwrap_or(usize::MAX);
    cpus.min(by_memory).max(1)
}
