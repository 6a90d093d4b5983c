//! A board over SSH: connected, with the runner deployed, and locked.

use crate::deploy::{self, BoardCache, Item};
use crate::ending::{End, Ending};
use crate::error::RemoteError;
use crate::keeper::{Keeper, KeeperError, report_leftover};
use crate::process::Process;
use crate::ssh::{Address, Connection, SshError, quoted, route};
use config::{self, Connect, Triple};
use host::interrupt::Interrupt;
use host::progress;
use protocol::{AppliedState, HoldReply, Program, Request, StateRequest};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Heartbeat interval: an empty line is sent to each program on the board.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// A runner ends after this time without input, and is given up after this time without output.
pub(crate) const SILENCE: Duration = Duration::from_secs(20);
/// Timeout to restore what a session left behind.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(400);
/// Timeout of short scripts.
const PROMPT: Duration = Duration::from_secs(20);
/// Interval between attempts to reconnect.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How long to try to reconnect, unless the board's file says otherwise.
const RECONNECT: Duration = Duration::from_secs(60);
/// How often an operation is repeated after a lost connection.
const RETRIES: u32 = 3;
/// Most bytes that are read of a program's final output.
const MAX_OUTPUT: u64 = 64 << 10;
/// How long our own lock may outlive a lost connection: a lease and the time to restore the board's state.
const OWN_LOCK: Duration = Duration::from_secs(90);

/// The lock of the board, held by a program there, which controls the board's state too.
#[derive(Debug)]
struct Held {
    keeper: Keeper,
    end: Arc<End>,
}

/// A board over SSH.
#[derive(Debug)]
pub struct Remote {
    name: String,
    address: Address,
    triple: Triple,
    runner: PathBuf,
    /// How this process describes itself as the lock's holder; absent if the board is not locked.
    holder: Option<String>,
    /// The state its file asks for.
    asked: StateRequest,
    /// The result of setting the state when the board was locked, until it is asked for.
    brought: Option<AppliedState>,
    was_brought: bool,
    patience: Duration,
    interrupt: Interrupt,
    connection: Option<Arc<Connection>>,
    held: Option<Held>,
    cache: Option<BoardCache>,
    board_runner: String,
    /// Board paths of the files that were deployed over this connection.
    deployed: HashMap<PathBuf, String>,
    /// ONNX Runtime's library on the board, if its file names one.
    onnxruntime: Option<PathBuf>,
}

impl Remote {
    /// Connects to a board and deploys the runner; with `holder`, locks the board.
    ///
    /// # Errors
    /// If any of it fails.
    pub fn open(
        board: &config::Board,
        runner: &Path,
        holder: Option<String>,
        interrupt: &Interrupt,
    ) -> Result<Self, RemoteError> {
        let Connect::Ssh { host, user, port, identity, jump, reconnect_seconds } = &board.connect else {
            return Err(RemoteError::Runner {
                triple: "this machine",
                path: runner.to_path_buf(),
                reason: "this board's file does not configure SSH".to_owned(),
            });
        };
        let address = Address {
            host: host.clone(),
            user: user.clone(),
            port: *port,
            identity: identity.clone(),
            jump: jump.clone(),
        };
        let triple = board.target.as_ref().map_or(Triple::X86, |target| target.triple);
        let mut remote = Self {
            name: board.name.clone(),
            address,
            triple,
            runner: runner.to_path_buf(),
            holder,
            asked: board.state.asked(),
            brought: None,
            was_brought: false,
            patience: reconnect_seconds.map_or(RECONNECT, |seconds| Duration::from_secs(seconds.into())),
            interrupt: interrupt.clone(),
            connection: None,
            held: None,
            cache: None,
            board_runner: String::new(),
            deployed: HashMap::new(),
            onnxruntime: board.onnxruntime.as_ref().map(PathBuf::from),
        };
        remote.connect()?;
        Ok(remote)
    }

    fn ssh(&self, error: SshError) -> RemoteError {
        match error {
            SshError::Interrupted => RemoteError::Interrupted,
            error => RemoteError::Ssh { board: self.name.clone(), error: Box::new(error) },
        }
    }

    /// Connects, deploys the runner and takes the lock.
    fn connect(&mut self) -> Result<(), RemoteError> {
        self.disconnect();
        let hops = route(&self.address).map_err(|error| self.ssh(error))?;
        let begun = Instant::now();
        // The runner is hashed at the same time.
        let (connection, login, items) = std::thread::scope(|scope| {
            let hashing = scope.spawn(|| bundle(&self.runner, self.triple));
            let connection = Connection::open(&hops).map_err(|error| self.ssh(error))?;
            let login = begun.elapsed();
            let items = hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok::<_, RemoteError>((connection, login, items))
        })?;
        let (cache, sent) =
            deploy::deploy(&connection, &items, &self.interrupt).map_err(|error| self.ssh(error))?;
        if cache.architecture != self.triple.architecture() {
            return Err(RemoteError::Architecture {
                board: self.name.clone(),
                found: cache.architecture,
                expected: self.triple.text(),
            });
        }
        let (name, login) = (&self.name, login.as_secs_f64());
        let deploy = begun.elapsed().as_secs_f64() - login;
        tracing::info!(
            "{name}: logged in in {login:.3} s, sent {} files of {} bytes in {deploy:.3} s",
            sent.files,
            sent.bytes
        );
        // The first item is the runner itself.
        self.board_runner =
            items.first().map_or_else(String::new, |item| format!("{}/{}", cache.folder, item.place));
        self.cache = Some(cache);
        let connection = Arc::new(connection);
        if let Some(holder) = self.holder.clone() {
            let mut held = self.hold(&connection, &holder)?;
            let brought = self.keep(&mut held, &connection)?;
            // Only the first result is reported; later connections set the same state again.
            if !std::mem::replace(&mut self.was_brought, true) {
                self.brought = Some(brought);
            }
            self.held = Some(held);
            deploy::prune(&connection, &self.interrupt).map_err(|error| self.ssh(error))?;
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Closes the connection, which ends all our programs on the board.
    pub fn disconnect(&mut self) {
        self.held = None;
        self.connection = None;
        self.deployed.clear();
    }

    fn hold(&self, connection: &Connection, holder: &str) -> Result<Held, RemoteError> {
        let deadline = Instant::now() + OWN_LOCK;
        let script = format!(
            "exec {} hold {} --lease {}",
            quoted(&self.board_runner),
            quoted(holder),
            SILENCE.as_secs()
        );
        loop {
            let opened = connection
                .start("lock the board", &script, Some(HEARTBEAT))
                .map_err(|error| self.ssh(error))?;
            let line = connection.first_line("lock the board", &opened, PROMPT, &self.interrupt);
            let line = line.map_err(|error| self.ssh(error))?;
            match serde_json::from_str(&line) {
                // It prints nothing more until it gets a request.
                Ok(HoldReply::Acquired {}) => {
                    return Ok(Held { keeper: Keeper::new(opened.stdin, opened.stdout), end: opened.end });
                }
                Ok(HoldReply::Busy { name: other }) => {
                    // This process may still hold the lock from a lost connection, until the lease ends.
                    if other != holder || Instant::now() >= deadline {
                        return Err(RemoteError::Busy { board: self.name.clone(), holder: other });
                    }
                    self.pause()?;
                }
                failed => {
                    let mut message = match failed {
                        Ok(HoldReply::Failed { message }) => message,
                        _ => line.trim().to_owned(),
                    };
                    let ending = opened.end.wait(PROMPT);
                    if ending.is_some() {
                        // Its error output may explain the failure.
                        let stderr = File::from(opened.stderr);
                        let _ = std::io::Read::take(stderr, MAX_OUTPUT).read_to_string(&mut message);
                    }
                    let (how, remedy) = match &ending {
                        Some(ending) => (ending.describe(), self.remedy(connection, ending)),
                        None => ("does not end".to_owned(), String::new()),
                    };
                    let error = connection.lost().unwrap_or_else(|| SshError::Failed {
                        what: "lock the board".to_owned(),
                        host: connection.host().to_owned(),
                        reason: format!("the runner {how}: {}{remedy}", message.trim()),
                    });
                    return Err(self.ssh(error));
                }
            }
        }
    }

    /// Sets the board's state. Done for each connection, because a holder that lost its connection restores the state.
    fn keep(&self, held: &mut Held, connection: &Connection) -> Result<AppliedState, RemoteError> {
        let brought = held.keeper.bring(&self.asked, &self.interrupt).map_err(|error| {
            match (error, connection.lost()) {
                (KeeperError::Gone, Some(lost)) => self.ssh(lost),
                (error, _) => RemoteError::of_keeper(&self.name, error),
            }
        })?;
        report_leftover(&self.name, &brought);
        Ok(brought)
    }

    /// Asks for another state than its file does. [`Remote::bring`] brings it to that.
    pub(crate) fn change_request(&mut self, asked: StateRequest) {
        self.asked = asked;
        self.brought = None;
    }

    /// The state that is asked for.
    pub fn asked(&self) -> &StateRequest {
        &self.asked
    }

    /// The first time, returns the result of setting the state when the board was locked; later, sets it again.
    ///
    /// # Errors
    /// If the board cannot reach that state, or cannot be reached.
    pub fn bring(&mut self) -> Result<AppliedState, RemoteError> {
        let connection = self.ensure()?;
        if let Some(first) = self.brought.take() {
            return Ok(first);
        }
        match self.held.take() {
            Some(mut held) => {
                let brought = self.keep(&mut held, &connection)?;
                self.held = Some(held);
                Ok(brought)
            }
            None => Err(RemoteError::of_keeper(&self.name, KeeperError::Gone)),
        }
    }

    /// Restores the original state and releases the board. Returns the settings that were not restored. If the connection
    /// is lost, the board restores its state by itself.
    ///
    /// # Errors
    /// If the state cannot be restored.
    pub fn restore(&mut self) -> Result<Vec<String>, RemoteError> {
        let is_lost = self.connection.as_ref().is_none_or(|connection| connection.lost().is_some());
        match self.held.take() {
            Some(mut held) if !self.asked.is_nothing() && !is_lost => {
                held.keeper.restore().map_err(|error| RemoteError::of_keeper(&self.name, error))
            }
            _ => Ok(Vec::new()),
        }
    }

    fn pause(&self) -> Result<(), RemoteError> {
        if self.interrupt.is_set() {
            return Err(RemoteError::Interrupted);
        }
        std::thread::sleep(RETRY_INTERVAL);
        Ok(())
    }

    /// The connection; reconnects if it is lost. Reports a broken lock.
    fn ensure(&mut self) -> Result<Arc<Connection>, RemoteError> {
        if let Some(connection) = self.connection.clone()
            && connection.lost().is_none()
        {
            let ending = self.held.as_ref().and_then(|held| held.end.wait(Duration::ZERO));
            match ending {
                None => return Ok(connection),
                Some(Ending::Lost(_)) => {}
                Some(_) => {
                    let answer = self.ask(&connection, "holder", PROMPT);
                    let holder = answer.ok().and_then(|answer| serde_json::from_str(&answer).ok());
                    self.disconnect();
                    // Do not take the lock again from the user who broke it.
                    self.patience = Duration::ZERO;
                    return Err(RemoteError::broken(&self.name, holder));
                }
            }
        }
        self.reconnect()
    }

    fn reconnect(&mut self) -> Result<Arc<Connection>, RemoteError> {
        let deadline = Instant::now() + self.patience;
        let mut is_reported = false;
        loop {
            let error = match self.connect() {
                Ok(()) => match self.connection.clone() {
                    Some(connection) => return Ok(connection),
                    None => return Err(RemoteError::Interrupted),
                },
                Err(RemoteError::Ssh { error, .. }) if error.may_pass_again() => error,
                Err(other) => return Err(other),
            };
            if !is_reported {
                let patience = self.patience.as_secs();
                progress::say("warning", &format!("{error}; trying to reconnect for {patience} s"));
                is_reported = true;
            }
            if Instant::now() >= deadline {
                return Err(RemoteError::Gone { board: self.name.clone(), after: self.patience, error });
            }
            self.pause()?;
        }
    }

    /// Does something over the connection; if the connection is lost meanwhile, reconnects and repeats it.
    fn with_retries<T>(
        &mut self,
        act: impl Fn(&Self, &Arc<Connection>) -> Result<T, SshError>,
    ) -> Result<T, RemoteError> {
        let mut lost = 0;
        loop {
            let connection = self.ensure()?;
            match act(self, &connection) {
                Ok(value) => return Ok(value),
                Err(error) if error.may_pass() && lost < RETRIES => {
                    lost += 1;
                    progress::say("warning", &format!("{error}; retrying"));
                    self.disconnect();
                }
                Err(error) => return Err(self.ssh(error)),
            }
        }
    }

    /// Starts a runner.
    ///
    /// # Errors
    /// If the board cannot be reached, or the lock is lost.
    pub fn start(&mut self) -> Result<Process, RemoteError> {
        self.with_retries(|remote, connection| {
            let script = format!("exec {} --lease {}", quoted(&remote.board_runner), SILENCE.as_secs());
            let opened = connection.start("start the runner", &script, Some(HEARTBEAT))?;
            Ok(Process::remote(opened, Arc::clone(connection)))
        })
    }

    /// Deploys the files that a request names, and rewrites host paths to board paths.
    ///
    /// # Errors
    /// As [`Remote::start`], and if the board's disk is full.
    pub fn deploy(&mut self, request: &mut Request) -> Result<(), RemoteError> {
        // Deployed files are remembered per connection: the board may be reinstalled in between.
        self.ensure()?;
        let is_there =
            |path: &Path| self.deployed.contains_key(path) || self.onnxruntime.as_deref() == Some(path);
        let wanted = missing_files(request, is_there);
        if !wanted.is_empty() {
            let items = wanted.iter().map(|(kind, path)| Item::of(kind, path)).collect::<Result<Vec<_>, _>>();
            let items = items.map_err(|error| RemoteError::Runner {
                triple: self.triple.text(),
                path: self.runner.clone(),
                reason: format!("{error:#}"),
            })?;
            let (cache, _) = self
                .with_retries(|remote, connection| deploy::deploy(connection, &items, &remote.interrupt))?;
            for ((_, local), item) in wanted.into_iter().zip(&items) {
                self.deployed.insert(local, format!("{}/{}", cache.folder, item.place));
            }
        }
        each_file(request, |_, path| {
            if let Some(deployed) = self.deployed.get(Path::new(&*path)) {
                path.clone_from(deployed);
            }
        });
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a command of the runner. Returns what it prints, or its error message.
    ///
    /// # Errors
    /// If the board cannot be reached.
    pub fn run(&mut self, command: &str) -> Result<Result<String, String>, RemoteError> {
        let connection = self.ensure()?;
        let script = format!("exec {} {command}", quoted(&self.board_runner));
        let what = format!("run `runner {command}`");
        let output = connection.run(&what, &script, RESTORE_TIMEOUT, &self.interrupt);
        let output = output.map_err(|error| self.ssh(error))?;
        Ok(match output.ending {
            Ending::Code(0) => Ok(output.stdout.trim().to_owned()),
            ending if output.stderr.trim().is_empty() => Err(format!("the runner {}", ending.describe())),
            ending => Err(format!("{}{}", output.stderr.trim(), self.remedy(&connection, &ending))),
        })
    }

    fn remedy(&self, connection: &Connection, ending: &Ending) -> String {
        let folder = self.cache.as_ref().map_or("", |cache| &cache.folder);
        deploy::remedy_of_start(connection, folder, ending, &self.interrupt)
    }

    fn ask(&self, connection: &Connection, word: &str, patience: Duration) -> Result<String, SshError> {
        let script = format!("exec {} {word}", quoted(&self.board_runner));
        let what = "read the board's lock";
        let output = connection.run(what, &script, patience, &self.interrupt)?;
        match output.ending {
            Ending::Code(0) => Ok(output.stdout.trim().to_owned()),
            ending => Err(SshError::Failed {
                what: what.to_owned(),
                host: connection.host().to_owned(),
                reason: format!("the runner {}: {}", ending.describe(), output.stderr.trim()),
            }),
        }
    }
}

/// The runner with its libraries, in a directory named by the digest of their contents.
fn bundle(runner: &Path, triple: Triple) -> Result<Vec<Item>, RemoteError> {
    let failed = |path: &Path, reason: String| RemoteError::Runner {
        triple: triple.text(),
        path: path.to_path_buf(),
        reason: format!("{reason}; {}", host::new_runner()),
    };
    let folder = runner.with_file_name("lib");
    let entries = std::fs::read_dir(&folder).map_err(|error| failed(&folder, error.to_string()))?;
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files.insert(0, runner.to_path_buf());
    let mut items = Vec::new();
    let mut whole = Sha256::new();
    for file in files {
        let mut item = Item::of("runner", &file).map_err(|error| failed(&file, format!("{error:#}")))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        item.place = if items.is_empty() { "runner".to_owned() } else { format!("lib/{name}") };
        whole.update(format!("{} {}\n", item.place, item.sha256));
        items.push(item);
    }
    let mut name = String::new();
    for byte in whole.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    for item in &mut items {
        item.place = format!("runner/{name}/{}", item.place);
    }
    Ok(items)
}

/// The files that a request names, each once, with their kinds; without those that are on the board.
fn missing_files(request: &mut Request, is_there: impl Fn(&Path) -> bool) -> Vec<(&'static str, PathBuf)> {
    let mut wanted: Vec<(&'static str, PathBuf)> = Vec::new();
    each_file(request, |kind, path| {
        let local = PathBuf::from(&*path);
        if !is_there(&local) && !wanted.iter().any(|(_, known)| *known == local) {
            wanted.push((kind, local));
        }
    });
    wanted
}

/// Every file a request names, with its kind.
fn each_file(request: &mut Request, mut visit: impl FnMut(&'static str, &mut String)) {
    let mut stages: Vec<&mut protocol::Stage> = match request {
        Request::State { .. }
        | Request::Clocks { .. }
        | Request::Transfer(_)
        | Request::Idle(_)
        | Request::Peak(_) => Vec::new(),
        Request::Profile(profile) => vec![&mut profile.stage],
        Request::Compare(compare) => {
            compare.reference.stages.iter_mut().chain(&mut compare.candidate.stages).collect()
        }
        Request::Verify(verify) => {
            for path in verify.inputs.iter_mut().chain(&mut verify.outputs) {
                visit("weights", path);
            }
            verify.schedule.stages.iter_mut().collect()
        }
        Request::Capture(capture) => capture.schedule.stages.iter_mut().collect(),
        Request::Trial(trial) => trial.schedule.stages.iter_mut().collect(),
    };
    for stage in &mut stages {
        match &mut stage.program {
            Program::Library(library) => {
                visit("library", &mut library.path);
                visit("weights", &mut library.weights.path);
            }
            Program::OnnxRuntime(model) => {
                visit("library", &mut model.runtime);
                visit("weights", &mut model.model);
            }
            Program::Cuda(program) => {
                visit("library", &mut program.path);
                visit("weights", &mut program.weights);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{CpuProcessor, ExecutionMode, Frames, OnnxModel, Processor, Schedule, Stage};

    #[test]
    fn a_library_that_is_on_the_board_is_not_sent() {
        let processor =
            Processor::Cpu(CpuProcessor { name: "onnxruntime".into(), cpus: vec![0], threads: 1 });
        let library = "/usr/lib/libonnxruntime.so.1.20.1";
        let model = OnnxModel { runtime: library.into(), model: "/cache/model.onnx".into(), gpu: None };
        let stage =
            Stage { processor, program: Program::OnnxRuntime(model), inputs: vec![], outputs: vec![] };
        let schedule = Schedule {
            kind: ExecutionMode::Replicate,
            values: vec![],
            inputs: vec![],
            outputs: vec![],
            stages: vec![stage.clone(), stage],
        };
        let frames = Frames { seed: 1, distinct: 1, integers_below: 8 };
        let folder = "/tmp".to_owned();
        let mut request = Request::Capture(protocol::Capture { id: 1, schedule, frames, folder });
        let model = ("weights", PathBuf::from("/cache/model.onnx"));
        assert_eq!(missing_files(&mut request, |_| false), [("library", library.into()), model.clone()]);
        assert_eq!(missing_files(&mut request, |path| path == Path::new(library)), vec![model]);
    }
}
