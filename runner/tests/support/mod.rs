//! A runner under test, and the stage libraries that it runs.

#![allow(dead_code, reason = "each test program uses only some of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics if its assumptions fail")]

use protocol::{
    Call, Compare, Compared, CpuProcessor, Event, ExecutionMode, Fault, Frames, Hello, Load, Measured,
    OnnxModel, Processor, Program, Request, Schedule, Stage, StageLibrary, Tensor, Trial, WarmUpRule,
    Weights, WindowRule,
};
use serde::Deserialize;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Longer than any answer takes, even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(300);
/// How often a measurement is repeated whose meaning other load on this machine can take away.
const TRIES: u32 = 12;

/// The program under test, with TVM's libraries next to it.
pub(crate) fn program() -> PathBuf {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_runner"));
    let library = program.with_file_name("lib/libtvm_runtime.so");
    assert!(library.is_file(), "{} is missing; run the tests with `cargo xtask test`", library.display());
    program
}

/// A running runner, which is killed when this is dropped.
pub(crate) struct Runner {
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) hello: Hello,
    lines: Receiver<String>,
}

impl Runner {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// Starts it after `prepare` has changed the command.
    pub(crate) fn start_with(prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(program());
        prepare(&mut command);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the runner starts");
        let (sender, lines) = std::sync::mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines() {
                if sender.send(line.expect("the runner prints UTF-8")).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        let placeholder = Hello { protocol: 0, runner: String::new(), pid: 0 };
        let mut runner = Self { child, stdin, hello: placeholder, lines };
        match runner.event() {
            Event::Hello(hello) => runner.hello = hello,
            other => panic!("the first line is not a hello: {other:?}"),
        }
        runner
    }

    pub(crate) fn send_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).and_then(|()| stdin.write_all(b"\n")).unwrap();
    }

    pub(crate) fn send(&mut self, request: &Request) {
        self.send_line(&serde_json::to_string(request).unwrap());
    }

    /// The next event.
    pub(crate) fn event(&mut self) -> Event {
        let line = self.lines.recv_timeout(TIMEOUT).expect("the runner answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"))
    }

    /// Whether the process prints nothing more before it ends.
    pub(crate) fn is_silent(&mut self) -> bool {
        self.lines.recv_timeout(TIMEOUT).is_err()
    }

    /// The answer to a request.
    pub(crate) fn ask(&mut self, request: &Request) -> Event {
        self.send(request);
        loop {
            match self.event() {
                Event::Phase { .. } => {}
                event => return event,
            }
        }
    }

    pub(crate) fn measure(&mut self, trial: &Trial) -> Measured {
        match self.ask(&Request::Trial(trial.clone())) {
            Event::Measured(measured) => *measured,
            other => panic!("the trial failed: {other:?}"),
        }
    }

    pub(crate) fn compare(
        &mut self,
        reference: Schedule,
        candidate: Schedule,
        seed: u64,
        distinct: u32,
    ) -> Compared {
        let frames = Frames { seed, distinct, integers_below: 8, file: None };
        match self.ask(&Request::Compare(Compare { id: 1, reference, candidate, frames })) {
            Event::Compared(compared) => compared,
            other => panic!("the comparison failed: {other:?}"),
        }
    }

    pub(crate) fn fails(&mut self, request: &Request) -> (Fault, String) {
        match self.ask(request) {
            Event::Failed { id: Some(_), fault, message } => (fault, message),
            other => panic!("it did not fail: {other:?}"),
        }
    }

    /// Waits for the process to end.
    pub(crate) fn ended(&mut self, within: Duration) -> std::process::ExitStatus {
        let begun = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < within, "the runner is still running after {within:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A compiled stage, as `make_stages.py` describes it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Made {
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) outputs: Vec<Tensor>,
    pub(crate) weights: Vec<Place>,
    pub(crate) calls: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) tensor: Tensor,
}

/// All compiled stages.
pub(crate) struct Stages {
    pub(crate) folder: PathBuf,
    pub(crate) made: HashMap<String, Made>,
}

/// Compiles the stages once for all test programs.
pub(crate) fn stages() -> &'static Stages {
    static STAGES: OnceLock<Stages> = OnceLock::new();
    STAGES.get_or_init(|| {
        let python = std::env::var("EDGEPIPE_PYTHON").expect(
            "EDGEPIPE_PYTHON names a Python with TVM, which compiles the stage libraries of these tests; \
             `cargo xtask test` sets it",
        );
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/make_stages.py");
        let mut hasher = DefaultHasher::new();
        (std::fs::read(&script).unwrap(), &python).hash(&mut hasher);
        let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = temporary.join(format!("stages-{:016x}", hasher.finish()));
        if !folder.join("manifest.json").is_file() {
            let fresh = temporary.join(format!("stages-new-{}", std::process::id()));
            let made = Command::new(&python).arg(&script).arg(&fresh).output().expect("Python starts");
            let log = String::from_utf8_lossy(&made.stderr).into_owned();
            assert!(made.status.success(), "failed to compile the stages of these tests:\n{log}");
            // If another test program was faster, use its folder.
            if std::fs::rename(&fresh, &folder).is_err() {
                drop(std::fs::remove_dir_all(&fresh));
            }
        }
        let manifest = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
        Stages { made: serde_json::from_str(&manifest).unwrap(), folder }
    })
}

impl Stages {
    /// A schedule of these stages on these CPUs, with one thread each. Tensors with equal names are the same.
    pub(crate) fn schedule(&self, kind: ExecutionMode, placed: &[(&str, &[u32])]) -> Schedule {
        let mut values: Vec<Tensor> = Vec::new();
        let mut index = |tensor: &Tensor| {
            let known = values.iter().position(|value| value.name == tensor.name);
            let place = known.unwrap_or(values.len());
            if known.is_none() {
                values.push(tensor.clone());
            }
            u32::try_from(place).unwrap()
        };
        let mut stages = Vec::new();
        for (name, cpus) in placed {
            let made = &self.made[*name];
            stages.push(Stage {
                processor: processor(&format!("cpus{cpus:?}"), cpus),
                program: Program::Library(StageLibrary {
                    path: self.folder.join(format!("{name}.so")).display().to_string(),
                    entry: "main".to_owned(),
                    weights: Weights {
                        path: self.folder.join("weights.bin").display().to_string(),
                        offsets: made.weights.iter().map(|place| place.offset).collect(),
                        tensors: made.weights.iter().map(|place| place.tensor.clone()).collect(),
                    },
                }),
                inputs: made.inputs.iter().map(&mut index).collect(),
                outputs: made.outputs.iter().map(&mut index).collect(),
                replica: false,
            });
        }
        let inputs = stages[0].inputs.clone();
        let outputs = stages.last().unwrap().outputs.clone();
        Schedule { kind, values, inputs, outputs, stages }
    }

    /// `net` in ONNX Runtime: a session for each set of CPUs, with a thread for each CPU.
    pub(crate) fn onnx(&self, sessions: &[&[u32]]) -> Schedule {
        let placed: Vec<(&str, &[u32])> = sessions.iter().map(|cpus| ("net", *cpus)).collect();
        let kind = if sessions.len() == 1 { ExecutionMode::Single } else { ExecutionMode::Replicate };
        let mut schedule = self.schedule(kind, &placed);
        for stage in &mut schedule.stages {
            let Processor::Cpu(cpu) = &mut stage.processor else { panic!("not a CPU") };
            cpu.threads = u32::try_from(cpu.cpus.len()).unwrap();
            let path = |name: &str| self.folder.join(name).display().to_string();
            stage.program = Program::OnnxRuntime(OnnxModel {
                runtime: path("onnxruntime"),
                model: path("net.onnx"),
                gpu: None,
            });
        }
        schedule
    }

    pub(crate) fn calls(&self, name: &str) -> Vec<Call> {
        let calls = self.made[name].calls.iter().zip(0..);
        calls.map(|(function, unit)| Call { function: function.clone(), unit }).collect()
    }
}

/// CPUs as a processor with one thread.
pub(crate) fn processor(name: &str, cpus: &[u32]) -> Processor {
    Processor::Cpu(CpuProcessor { name: name.to_owned(), cpus: cpus.to_vec(), threads: 1 })
}

/// A short trial.
pub(crate) fn trial(schedule: Schedule) -> Trial {
    const MS: u64 = 1_000_000;
    Trial {
        id: 42,
        schedule,
        frames: Frames { seed: 1, distinct: 4, integers_below: 8, file: None },
        load: Load::Saturating,
        queue_depth: 2,
        isolate: None,
        warm_up: WarmUpRule { min_frames: 20, min_ns: 20 * MS, max_ns: 500 * MS },
        measure: WindowRule { min_frames: 30, min_ns: 300 * MS, max_ns: 200_000 * MS, max_frames: 1_000_000 },
        timeline_frames: 20,
        power: None,
        sysfs: "/sys".to_owned(),
        slow_down_per_mille: Vec::new(),
    }
}

/// The same trial, which goes on until its runner ends.
pub(crate) fn endless(mut trial: Trial) -> Trial {
    trial.measure.min_ns = 3_600_000_000_000;
    trial.measure.max_ns = 3_600_000_000_000;
    trial
}

/// Measures until what is found has a meaning, and no more than [`TRIES`] times. `measure` returns what makes it worthless,
/// if anything does.
///
/// For what other load can disturb in one measurement, but not in each.
#[track_caller]
pub(crate) fn repeated<T>(mut measure: impl FnMut() -> Result<T, String>) -> T {
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        match measure() {
            Ok(found) => return found,
            Err(what) => seen.push(what),
        }
    }
    panic!("{TRIES} tries in a row: {}", seen.join("\n"));
}

/// CPUs that the tests may use.
pub(crate) fn cpus() -> Vec<u32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    protocol::parse_cpu_list(list)
}

/// Two CPUs, on which two stages can run at the same time.
pub(crate) fn two_cpus() -> (u32, u32) {
    match cpus()[..] {
        [first, second, ..] => (first, second),
        _ => panic!("these tests need two CPUs"),
    }
}

/// Threads of a process whose names start with `name`, and the CPU list of each.
pub(crate) fn threads_of(pid: u32, name: &str) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        if field("Name:").starts_with(name) {
            let id = entry.file_name().to_string_lossy().parse().unwrap();
            found.push((id, field("Cpus_allowed_list:").to_owned()));
        }
    }
    found.sort();
    found
}

/// CPU time of a thread, in ns; `None` if it has ended.
fn cpu_ns(pid: u32, thread: u32) -> Option<u64> {
    let times = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).ok()?;
    times.split_whitespace().next()?.parse().ok()
}

/// The CPU lists of the threads whose names start with `name`, read while they run a trial that does not end by itself: once there
/// are `count` of them, and each has used CPU time in the warm-up or the window.
pub(crate) fn cpus_at_work(runner: &mut Runner, trial: Trial, name: &str, count: usize) -> Vec<String> {
    const WORKED_NS: u64 = 30_000_000;
    runner.send(&Request::Trial(endless(trial)));
    loop {
        match runner.event() {
            Event::Phase { phase: protocol::Phase::WarmUp, .. } => break,
            Event::Phase { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    let pid = runner.hello.pid;
    let mut first: HashMap<u32, u64> = HashMap::new();
    let deadline = std::time::Instant::now() + TIMEOUT;
    loop {
        let threads = threads_of(pid, name);
        let at_work = threads.iter().filter(|(thread, _)| {
            let now = cpu_ns(pid, *thread).unwrap_or(0);
            now >= *first.entry(*thread).or_insert(now) + WORKED_NS
        });
        if at_work.count() == count && threads.len() == count {
            // Bound before it worked: so it is read again.
            return threads_of(pid, name).into_iter().map(|(_, cpus)| cpus).collect();
        }
        assert!(std::time::Instant::now() < deadline, "expected {count} threads at work, found {threads:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
