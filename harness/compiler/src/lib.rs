//! Runs the Python compiler for artifacts that are not in the cache, for several networks in parallel.

mod binary;
mod cache;
mod external;
mod kit;
mod manifest;
mod target;

pub use binary::{Binary, BinaryError, Need, Version};
pub use cache::{BoundaryLayout, Cache, Entry, Source, StageLayout};
pub use kit::Kit;
pub use manifest::{NetworkManifest, Reference, ReferenceTensor, StageManifest, ValueManifest};
pub use target::{CpuTarget, CudaTarget, Target};

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

/// Memory reserved for a compiler process. VGG-16 needs the most; networks like ResNet-50 need less.
const BYTES_PER_PROCESS: u64 = 3 << 30;

/// A network could not be compiled.
#[derive(Debug, Error)]
pub enum CompileError {
    /// The compiler refused the network. The message comes from the compiler and starts with "failed to".
    #[error("{message}{}", node.as_ref().map(|node| format!(" (node {node})")).unwrap_or_default())]
    Refused {
        /// Kind of refusal, as reported by the compiler.
        kind: String,
        /// The whole message.
        message: String,
        /// The node of the ONNX graph that caused it, if any.
        node: Option<String>,
    },
    /// The compiler exited without an error message.
    #[error("failed to compile {network}: the compiler exited unexpectedly ({status}); see its log {}", log.display())]
    Died {
        /// The network.
        network: String,
        /// Exit status.
        status: String,
        /// Its standard error.
        log: PathBuf,
    },
    /// The user pressed Ctrl-C.
    #[error("interrupted while compiling {0}")]
    Interrupted(String),
    /// An error of the file system or of starting the process.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl CompileError {
    /// Whether this is a bug of edgepipe.
    pub fn is_a_bug(&self) -> bool {
        match self {
            Self::Refused { kind, .. } => kind == "internal",
            Self::Died { .. } => true,
            Self::Interrupted(_) | Self::Other(_) => false,
        }
    }
}

/// Artifacts to compile, of one network for one target.
#[derive(Debug, Clone)]
pub struct Job {
    /// Name of the network.
    pub network: String,
    /// Its source.
    pub source: Source,
    /// The target.
    pub target: Target,
    /// The destination in the cache.
    pub entry: Entry,
    /// First unit, end (one past the last unit; `None`: the last), layout.
    pub stages: Vec<(usize, Option<usize>, StageLayout)>,
    /// Whether to write the network as an ONNX file with fixed shapes and all weights, for other engines.
    pub model: bool,
}

impl Job {
    /// Whether the cache has all artifacts.
    pub fn is_cached(&self) -> bool {
        let Some(network) = self.entry.network() else { return false };
        if self.model && !self.entry.model().is_file() {
            return false;
        }
        self.stages.iter().all(|(first, end, layout)| {
            self.entry.stage(*first, end.unwrap_or(network.units.len()), *layout).is_some()
        })
    }
}

/// Starts compiler processes.
#[derive(Debug, Clone)]
pub struct Compiler {
    /// Python interpreter of the private environment.
    pub python: PathBuf,
    /// The workspace.
    pub root: PathBuf,
    /// Directory of job files and logs.
    pub logs: PathBuf,
    /// The kit with the linker for the board; `None`: the board is this machine.
    pub kit: Option<Kit>,
    /// Links for this machine in place of `cc`.
    pub linker: Option<PathBuf>,
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

/// The linker is not part of the target, because its path on the host does not affect the result.
#[derive(Serialize)]
struct JobTarget<'a> {
    #[serde(flatten)]
    target: &'a Target,
    /// Absent for a GPU, whose stages are not linked.
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

/// Progress of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobProgress {
    /// In progress.
    Step {
        /// The network.
        network: String,
        /// The current step.
        step: String,
        /// Completed parts of the step.
        done: u64,
        /// All parts of the step.
        total: u64,
    },
    /// Finished.
    Finished {
        /// The network.
        network: String,
        /// Time and memory, if it was compiled.
        spent: Option<Spent>,
    },
}

/// Time and memory to compile a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// Run time of the compiler process. Other networks may have been compiled at the same time.
    pub time: Duration,
    /// Peak memory of the compiler process, without the linker, which is a separate process.
    pub peak_bytes: u64,
}

/// Versions of the compiler, as it reports them.
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
    /// Versions of the compiler; `None` if it cannot report them. Reporting takes a second, so the cache keeps them for as long as
    /// the compiler does not change.
    pub fn versions(&self, cache: &Cache) -> Option<CompilerVersions> {
        let file = cache.versions_file();
        if let Some(versions) = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            return Some(versions);
        }
        let output = self.command().ok()?.arg("--versions").stdin(Stdio::null()).output().ok()?;
        let versions: CompilerVersions = serde_json::from_slice(&output.stdout).ok()?;
        let text = serde_json::to_vec(&versions).ok()?;
        // If this fails, the compiler is asked again next time.
        let _ = fs::create_dir_all(file.parent()?).and_then(|()| host::files::replace(&file, text));
        Some(versions)
    }

    /// Compiles all jobs, in parallel as far as CPUs and memory allow. An error does not stop other jobs. Returns the results in
    /// the order of the jobs.
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
            // It still runs only if it was interrupted.
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

    /// Starts the compiler with modules from its environment and the workspace only. Before Python 3.11, the current directory
    /// is searched first, so it is set to the workspace too.
    fn command(&self) -> Result<Command, anyhow::Error> {
        use anyhow::Context as _;
        let absolute = |path: &Path| {
            std::path::absolute(path).with_context(|| format!("failed to find {}", path.display()))
        };
        let modules = absolute(&self.root.join("compiler"))?;
        let mut command = environment::python(absolute(&self.python)?);
        command.env("EDGEPIPE_PROGRAM", host::program());
        command.args(["-m", "edgepipe_compiler"]).current_dir(&modules).env("PYTHONPATH", &modules);
        Ok(command)
    }

    /// The log of a job; its job file has the same name. The name comes from the cache entry, because two targets that differ only
    /// in threads or caches can be compiled at the same time.
    fn log(&self, job: &Job) -> PathBuf {
        let entry = job.entry.folder.file_name().unwrap_or_default().to_string_lossy();
        self.logs.join(format!("compile-{entry}.log"))
    }

    /// Checks that the stage libraries can be loaded on their board. Launch plans need no check: they contain no binaries.
    fn check_libraries(&self, job: &Job) -> Result<(), CompileError> {
        let (Some(kit), Some(network), Target::Cpu(_)) = (&self.kit, job.entry.network(), &job.target) else {
            return Ok(());
        };
        for (first, end, layout) in &job.stages {
            let end = end.unwrap_or(network.units.len());
            if let Some(stage) = job.entry.stage(*first, end, *layout) {
                let library = job.entry.stage_folder(*first, end, *layout).join(&stage.library);
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
        let stages = job.stages.iter().map(|(first, end, layout)| {
            serde_json::json!({ "first_unit": first, "end_unit": end, "boundary": layout.word() })
        });
        let file = JobFile {
            schema: 1,
            network,
            target: JobTarget {
                target: &job.target,
                linker: match &job.target {
                    Target::Cpu(_) => self.kit.as_ref().map(Kit::linker).or_else(|| self.linker.clone()),
                    Target::Cuda(_) => None,
                }
                .map(|linker| [linker]),
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
            // Several processes share the machine; more threads in each would only compete for CPUs.
            .env("OMP_NUM_THREADS", "1")
            .env("OPENBLAS_NUM_THREADS", "1")
            .env("TVM_NUM_THREADS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            // The harness handles Ctrl-C, not the child.
            .process_group(0)
            .spawn()
            .with_context(|| format!("failed to start the compiler with {}", self.python.display()))
    }
}

/// Reads all events of the compiler. The inner value is an error that it reported. Sets `peak_bytes` to its peak memory.
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
        // Lines are short. The limit protects memory from a compiler that prints without end.
        for line in BufReader::new(stdout.take(1 << 24)).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    let mut refused = None;
    loop {
        // The kernel forgets the peak when the process ends, so it is read repeatedly.
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

/// Peak memory of a process so far.
fn peak_of(process: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// Number of parallel compiler processes.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let refused = |node: Option<&str>| CompileError::Refused {
            kind: "unsupported".to_owned(),
            message: "failed to compile net: the operator Foo is not supported".to_owned(),
            node: node.map(str::to_owned),
        };
        let errors = [
            refused(None),
            refused(Some("conv1")),
            CompileError::Died {
                network: "net".to_owned(),
                status: "signal: 9 (SIGKILL)".to_owned(),
                log: PathBuf::from("target/edgepipe/logs/compile-net.log"),
            },
            CompileError::Interrupted("net".to_owned()),
        ];
        insta::assert_snapshot!(errors.map(|error| error.to_string()).join("\n\n"));
    }
}
