//! A board over SSH: connected, with a runner on it, and held for us alone.

use super::deploy::{self, BoardCache, Item};
use super::keeper::{Keeper, KeeperError, by_holder};
use super::process::{End, Ending, Process};
use super::ssh::{Address, Connection, SshError, quoted, route};
use super::tell_leftover;
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
use thiserror::Error;

/// An empty line goes to each program on the board so often.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// A runner that hears nothing for so long ends, and one that says nothing for so long is given up.
pub const SILENCE: Duration = Duration::from_secs(20);
/// Longest time to restore what a session left behind.
const RESTORING: Duration = Duration::from_secs(400);
/// Longest time in which a short script may not move.
const PROMPT: Duration = Duration::from_secs(20);
/// Pause between two tries to reach a board again.
const PAUSE: Duration = Duration::from_millis(500);
/// A board that was lost is waited for so long, where its file says nothing else.
const RECONNECT: Duration = Duration::from_secs(60);
/// Links that may be lost over one thing before it is given up.
const LOST_LINKS: u32 = 3;
/// So much of what a program says at its end is read, in bytes.
const WORDS: u64 = 64 << 10;
/// A lock of ours may outlive the link that is lost by a lease and the time to restore the board's state.
const OWN_LOCK: Duration = Duration::from_secs(90);

/// Why a board over SSH cannot be had, or cannot be had any longer.
#[derive(Debug, Error)]
pub enum RemoteError {
    /// SSH's side.
    #[error("board {board}: {error}")]
    Ssh {
        /// The board.
        board: String,
        /// What went wrong.
        error: Box<SshError>,
    },
    /// Somebody else has it.
    #[error(
        "failed to take the board {board}: it is in use by {holder}. Two measurements at once would spoil each other; wait \
         for it, or end it by `{program} boards --break-lock {board}`",
        program = host::program()
    )]
    Busy {
        /// The board.
        board: String,
        /// The session that has the lock.
        holder: String,
    },
    /// Somebody took it from us.
    #[error(
        "failed to go on: the lock of the board {board} was broken{by}; find out why before measuring there again"
    )]
    Broken {
        /// The board.
        board: String,
        /// ` by` the session that has it now, if any.
        by: String,
    },
    /// Its processor is another one than the file says.
    #[error(
        "failed to use the board {board}: it is {found}, and its file says {expected}; correct `target.triple` in \
         configs/boards/{board}.yaml"
    )]
    Architecture {
        /// The board.
        board: String,
        /// As `uname -m` names it.
        found: String,
        /// As the file names it.
        expected: &'static str,
    },
    /// There is no runner for it.
    #[error("failed to find a runner for {triple} at {}: {reason}", path.display())]
    Runner {
        /// What it is built for.
        triple: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// Why it cannot be used.
        reason: String,
    },
    /// The board did not come back.
    #[error("failed to reach the board {board} again within {} s: {error}", after.as_secs())]
    Gone {
        /// The board.
        board: String,
        /// How long it was tried.
        after: Duration,
        /// The last failure.
        error: Box<SshError>,
    },
    /// It is not in the state its file asks for, or not restored.
    #[error("board {board}: {message}")]
    State {
        /// The board.
        board: String,
        /// What is not as it should be; a whole sentence.
        message: String,
    },
    /// The user pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl RemoteError {
    /// What the keeper of a board's state reports.
    pub(super) fn of_keeper(board: &str, error: KeeperError) -> Self {
        match error {
            KeeperError::Interrupted => Self::Interrupted,
            other => Self::State { board: board.to_owned(), message: other.to_string() },
        }
    }
}

/// The lock on the board, held by a program there, which keeps the board's state too.
#[derive(Debug)]
struct Held {
    // Its end is the holder's end.
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
    /// Who we are, for others who want the board; absent: the board is looked at only.
    holder: Option<String>,
    /// The state its file asks for.
    asked: StateRequest,
    /// What was found there at first, and set, until the campaign asks for it.
    brought: Option<AppliedState>,
    was_brought: bool,
    patience: Duration,
    interrupt: Interrupt,
    connection: Option<Arc<Connection>>,
    held: Option<Held>,
    cache: Option<BoardCache>,
    board_runner: String,
    /// Files known to be on the board since the last connection.
    placed: HashMap<PathBuf, String>,
}

impl Remote {
    /// Connects to a board and brings the runner there; with `holder`, takes the board for us alone.
    ///
    /// # Errors
    /// Where any of it fails.
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
                reason: "a board on this machine is not reached over SSH".to_owned(),
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
            placed: HashMap::new(),
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

    /// Connects, brings the runner, and takes the lock.
    fn connect(&mut self) -> Result<(), RemoteError> {
        self.disconnect();
        let hops = route(&self.address).map_err(|error| self.ssh(error))?;
        let begun = Instant::now();
        // The runner is hashed meanwhile.
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
            // The first time is told to the campaign; over later links it is the same again.
            if !std::mem::replace(&mut self.was_brought, true) {
                self.brought = Some(brought);
            }
            self.held = Some(held);
            deploy::prune(&connection, &self.interrupt).map_err(|error| self.ssh(error))?;
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Lets go of the link, and with it of everything on the board.
    pub fn disconnect(&mut self) {
        self.held = None;
        self.connection = None;
        self.placed.clear();
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
                .start("take the board", &script, Some(HEARTBEAT))
                .map_err(|error| self.ssh(error))?;
            let said = connection.first_line("take the board", &opened, PROMPT, &self.interrupt);
            let said = said.map_err(|error| self.ssh(error))?;
            match serde_json::from_str(&said) {
                // The runner prints nothing more before it receives a command.
                Ok(HoldReply::Acquired {}) => {
                    return Ok(Held { keeper: Keeper::new(opened.stdin, opened.stdout), end: opened.end });
                }
                Ok(HoldReply::Busy { name }) => {
                    // A lock of this very process remains from a link that was lost, and ends with its lease.
                    if name != holder || Instant::now() >= deadline {
                        return Err(RemoteError::Busy { board: self.name.clone(), holder: name });
                    }
                    self.pause()?;
                }
                failed => {
                    let mut words = match failed {
                        Ok(HoldReply::Failed { message }) => message,
                        _ => said.trim().to_owned(),
                    };
                    let ending = opened.end.wait(PROMPT);
                    if ending.is_some() {
                        // Its last words are a help where there are some.
                        let stderr = File::from(opened.stderr);
                        let _ = std::io::Read::take(stderr, WORDS).read_to_string(&mut words);
                    }
                    let (how, remedy) = match &ending {
                        Some(ending) => (ending.describe(), self.remedy(connection, ending)),
                        None => ("hangs".to_owned(), String::new()),
                    };
                    let error = connection.lost().unwrap_or_else(|| SshError::Failed {
                        what: "take the board".to_owned(),
                        host: connection.host().to_owned(),
                        reason: format!("the runner {how}: {}{remedy}", words.trim()),
                    });
                    return Err(self.ssh(error));
                }
            }
        }
    }

    /// Has the board brought to its state, over each link anew: a holder that lost its link has restored what it found.
    fn keep(&self, held: &mut Held, connection: &Connection) -> Result<AppliedState, RemoteError> {
        let brought = held.keeper.bring(&self.asked, &self.interrupt).map_err(|error| {
            match (error, connection.lost()) {
                (KeeperError::Gone, Some(lost)) => self.ssh(lost),
                (error, _) => RemoteError::of_keeper(&self.name, error),
            }
        })?;
        tell_leftover(&self.name, &brought);
        Ok(brought)
    }

    /// The state its file asks for.
    pub fn asked(&self) -> &StateRequest {
        &self.asked
    }

    /// What was found and set when the board was taken; later, brings it back to that where something has changed.
    ///
    /// # Errors
    /// Where it does not become what is asked, or the board is out of reach.
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

    /// Restores the state that was found, and lets go of the board. Says what is not as it was all the same.
    ///
    /// # Errors
    /// Where it cannot be restored; where the link is lost, the board does it by itself.
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
        std::thread::sleep(PAUSE);
        Ok(())
    }

    /// The connection, made anew where it is lost, for as long as we have patience. Reports a lock that was broken.
    fn ensure(&mut self) -> Result<Arc<Connection>, RemoteError> {
        if let Some(connection) = self.connection.clone()
            && connection.lost().is_none()
        {
            let ending = self.held.as_ref().and_then(|held| held.end.wait(Duration::ZERO));
            match ending {
                None => return Ok(connection),
                Some(Ending::Lost(_)) => {}
                Some(_) => {
                    let by = self
                        .ask(&connection, "holder", PROMPT)
                        .map_or_else(|_| String::new(), |line| by_holder(&line));
                    self.disconnect();
                    // A lock that is gone is not taken again behind the back of whoever broke it.
                    self.patience = Duration::ZERO;
                    return Err(RemoteError::Broken { board: self.name.clone(), by });
                }
            }
        }
        self.again()
    }

    fn again(&mut self) -> Result<Arc<Connection>, RemoteError> {
        let deadline = Instant::now() + self.patience;
        let mut told = false;
        loop {
            let error = match self.connect() {
                Ok(()) => match self.connection.clone() {
                    Some(connection) => return Ok(connection),
                    None => return Err(RemoteError::Interrupted),
                },
                Err(RemoteError::Ssh { error, .. }) if error.may_pass_again() => error,
                Err(other) => return Err(other),
            };
            if !told {
                let patience = self.patience.as_secs();
                progress::say("warning", &format!("{error}; trying for {patience} s to reach it again"));
                told = true;
            }
            if Instant::now() >= deadline {
                return Err(RemoteError::Gone { board: self.name.clone(), after: self.patience, error });
            }
            self.pause()?;
        }
    }

    /// Does something over the link; where the link is lost meanwhile, again over a new one.
    fn persist<T>(
        &mut self,
        act: impl Fn(&Self, &Arc<Connection>) -> Result<T, SshError>,
    ) -> Result<T, RemoteError> {
        let mut lost = 0;
        loop {
            let connection = self.ensure()?;
            match act(self, &connection) {
                Ok(value) => return Ok(value),
                Err(error) if error.may_pass() && lost < LOST_LINKS => {
                    lost += 1;
                    progress::say("warning", &format!("{error}; it is done again"));
                    self.disconnect();
                }
                Err(error) => return Err(self.ssh(error)),
            }
        }
    }

    /// Starts a runner there.
    ///
    /// # Errors
    /// Where the board is out of reach, or the lock is lost.
    pub fn start(&mut self) -> Result<Process, RemoteError> {
        self.persist(|remote, connection| {
            let script = format!("exec {} --lease {}", quoted(&remote.board_runner), SILENCE.as_secs());
            let opened = connection.start("start the runner", &script, Some(HEARTBEAT))?;
            Ok(Process::remote(opened, Arc::clone(connection)))
        })
    }

    /// Brings the files that a request names to the board, and names them as they are called there.
    ///
    /// # Errors
    /// As [`Remote::start`], and where the board's disk is full.
    pub fn place(&mut self, request: &mut Request) -> Result<(), RemoteError> {
        // Known only as long as the link lives: the board may have been set up anew in between.
        self.ensure()?;
        let mut wanted: Vec<(&'static str, PathBuf)> = Vec::new();
        each_file(request, |kind, path| {
            let local = PathBuf::from(&*path);
            if !wanted.iter().any(|(_, known)| *known == local) {
                wanted.push((kind, local));
            }
        });
        wanted.retain(|(_, path)| !self.placed.contains_key(path));
        if !wanted.is_empty() {
            let items = wanted.iter().map(|(kind, path)| Item::of(kind, path)).collect::<Result<Vec<_>, _>>();
            let items = items.map_err(|error| RemoteError::Runner {
                triple: self.triple.text(),
                path: self.runner.clone(),
                reason: format!("{error:#}"),
            })?;
            let (cache, _) =
                self.persist(|remote, connection| deploy::deploy(connection, &items, &remote.interrupt))?;
            for ((_, local), item) in wanted.into_iter().zip(&items) {
                self.placed.insert(local, format!("{}/{}", cache.folder, item.place));
            }
        }
        each_file(request, |_, path| {
            if let Some(placed) = self.placed.get(Path::new(&*path)) {
                path.clone_from(placed);
            }
        });
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the runner there says to a word about the board's state, or why it does not do it.
    ///
    /// # Errors
    /// Where the board is out of reach.
    pub fn tell(&mut self, word: &str) -> Result<Result<String, String>, RemoteError> {
        let connection = self.ensure()?;
        let script = format!("exec {} {word}", quoted(&self.board_runner));
        let what = format!("run the runner's {word}");
        let output = connection.run(&what, &script, RESTORING, &self.interrupt);
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
        let what = "ask for the board's lock";
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

/// The runner with its libraries beside it, in a folder named by all of their contents.
fn bundle(runner: &Path, triple: Triple) -> Result<Vec<Item>, RemoteError> {
    let failed = |path: &Path, reason: String| RemoteError::Runner {
        triple: triple.text(),
        path: path.to_path_buf(),
        reason: format!("{reason}; {remedy}", remedy = host::new_runner()),
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

/// Every file a request names, with its kind.
fn each_file(request: &mut Request, mut visit: impl FnMut(&'static str, &mut String)) {
    let mut stages: Vec<&mut protocol::Stage> = match request {
        Request::State { .. } | Request::Transfer(_) | Request::Idle(_) | Request::Peak(_) => Vec::new(),
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
        }
    }
}
