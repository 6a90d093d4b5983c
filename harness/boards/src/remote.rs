//! A board over SSH: connected, with the runner deployed, and locked.

use crate::deploy::{self, BoardCache, Item};
use crate::ending::{End, Ending};
use crate::error::RemoteError;
use crate::farm::{FarmError, Lease, Patience};
use crate::files::{bundle, each_file, missing_files};
use crate::keeper::{Keeper, KeeperError, report_leftover};
use crate::process::Process;
use crate::programs::Programs;
use crate::ssh::{Address, Connection, SshError, quoted, route};
use config::{self, Connect, Triple};
use host::date::unix_ns;
use host::interrupt::Interrupt;
use host::progress;
use protocol::{AppliedState, HoldReply, Request, StateRequest};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Heartbeat interval: an empty line is sent to each program on the board.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// A runner ends after this time without input, and is given up after this time without output.
pub(crate) const SILENCE: Duration = Duration::from_secs(20);
/// The lock's holder ends after this time without input and restores the state. The runner has ended by then, so nothing is
/// measured in the restored state.
const HOLDER_SILENCE: Duration = Duration::from_secs(30);
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

impl Held {
    /// Why the holder is gone, if only its link failed.
    fn lost(&self, connection: &Connection) -> Option<SshError> {
        connection.lost().or_else(|| {
            let reason = self.end.wait(PROMPT).as_ref().and_then(Ending::lost)?;
            Some(SshError::Lost { host: connection.host().to_owned(), reason })
        })
    }
}

/// The power of a board was cut and restored, because it did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowerCycle {
    /// When, ns since 1970.
    pub unix_ns: u64,
    /// Place of the board.
    pub place: String,
    /// Why.
    pub reason: String,
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
    /// What the board is, as far as a new connection can tell.
    identity: Option<String>,
    recovery: Recovery,
    // Dropped last: the place is given back when nothing of ours is on the board any more.
    lease: Option<Lease>,
}

/// What may be done for a board that does not answer.
#[derive(Debug, Default)]
struct Recovery {
    /// Power cycles that are left.
    left: u32,
    /// Longest time to boot.
    boot: Duration,
    /// labgrid's environment file for the power driver.
    environment: Option<String>,
    /// Power cycles that are not recorded yet.
    done: Vec<PowerCycle>,
}

impl Remote {
    /// Connects to a board and deploys the runner; with `holder`, locks the board. A place of a farm is acquired first.
    ///
    /// # Errors
    /// If any of it fails.
    pub(crate) fn open(
        board: &config::Board,
        programs: Programs,
        holder: Option<String>,
        patience: Patience<'_>,
        interrupt: &Interrupt,
    ) -> Result<Self, RemoteError> {
        let Programs { runner, python } = programs;
        let (address, reconnect_seconds, lease) = match &board.connect {
            Connect::Local => {
                return Err(RemoteError::Runner {
                    triple: "this machine",
                    path: runner,
                    reason: "this board's file does not configure SSH".to_owned(),
                });
            }
            Connect::Ssh { host, user, port, identity, jump, reconnect_seconds } => {
                let address = Address {
                    host: host.clone(),
                    user: user.clone(),
                    port: *port,
                    identity: identity.clone(),
                    jump: jump.clone(),
                };
                (address, *reconnect_seconds, None)
            }
            Connect::Labgrid(wanted) => {
                let lease =
                    Lease::acquire(&python, wanted, patience).map_err(|error| farm(&board.name, error))?;
                let address = Address {
                    host: lease.service.address.clone(),
                    user: Some(lease.service.username.clone()),
                    port: Some(lease.service.port),
                    identity: wanted.identity.clone(),
                    jump: wanted.jump.clone(),
                };
                (address, wanted.reconnect_seconds, Some(lease))
            }
        };
        let triple = board.target.as_ref().map_or(Triple::X86, |target| target.triple);
        let mut remote = Self {
            name: board.name.clone(),
            address,
            triple,
            runner,
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
            identity: None,
            recovery: board.recover.as_ref().map_or_else(Recovery::default, |recover| Recovery {
                left: recover.power_cycle,
                boot: recover.boot(),
                environment: recover.environment.clone(),
                done: Vec::new(),
            }),
            lease,
        };
        match remote.connect() {
            Err(RemoteError::Ssh { error, .. }) if error.may_pass() && remote.recovery.left > 0 => {
                remote.reconnect_after(error)?;
            }
            connected => connected?,
        }
        Ok(remote)
    }

    /// The place of the farm that is held.
    pub fn place(&self) -> Option<&str> {
        self.lease.as_ref().map(|lease| lease.place.as_str())
    }

    /// The power cycles since the last call.
    pub fn take_power_cycles(&mut self) -> Vec<PowerCycle> {
        std::mem::take(&mut self.recovery.done)
    }

    /// Checks that the place is still ours. If it is not, ends everything on the board at once.
    ///
    /// # Errors
    /// If somebody took the place away.
    pub fn check_place(&mut self) -> Result<(), RemoteError> {
        let Some(error) = self.lease.as_mut().and_then(|lease| lease.check().err()) else { return Ok(()) };
        self.disconnect();
        Err(farm(&self.name, error))
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
        if let Some(before) = self.identity.as_ref().filter(|before| **before != cache.identity) {
            let (before, now) = (before.clone(), cache.identity);
            return Err(RemoteError::Swapped { board: self.name.clone(), before, now });
        }
        self.identity = Some(cache.identity.clone());
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
            HOLDER_SILENCE.as_secs()
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
                    // This process may still hold the lock from a lost connection, until the lease ends. The place of a
                    // farm is ours alone, so whoever has its lock is about to end.
                    let is_ending = other == holder || self.lease.is_some();
                    if !is_ending || Instant::now() >= deadline {
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
        let brought = held.keeper.bring(&self.asked, &self.interrupt).map_err(|error| match error {
            KeeperError::Gone => match held.lost(connection) {
                Some(lost) => self.ssh(lost),
                None => RemoteError::of_keeper(&self.name, error),
            },
            error => RemoteError::of_keeper(&self.name, error),
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
        let mut lost = 0;
        loop {
            let connection = self.ensure()?;
            if let Some(first) = self.brought.take() {
                return Ok(first);
            }
            let Some(mut held) = self.held.take() else {
                return Err(RemoteError::of_keeper(&self.name, KeeperError::Gone));
            };
            match self.keep(&mut held, &connection) {
                Ok(brought) => {
                    self.held = Some(held);
                    return Ok(brought);
                }
                Err(RemoteError::Ssh { error, .. }) if error.may_pass() && lost < RETRIES => {
                    lost += 1;
                    progress::say("warning", &format!("{error}; retrying"));
                    self.disconnect();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Restores the original state and releases the board. Returns the settings that were not restored. If the connection
    /// is lost, the board restores its state by itself.
    ///
    /// # Errors
    /// If the state cannot be restored.
    pub fn restore(&mut self) -> Result<Vec<String>, RemoteError> {
        let (Some(mut held), Some(connection)) = (self.held.take(), &self.connection) else {
            return Ok(Vec::new());
        };
        if self.asked.is_nothing() || connection.lost().is_some() {
            return Ok(Vec::new());
        }
        match held.keeper.restore() {
            Err(KeeperError::Gone) if held.lost(connection).is_some() => Ok(Vec::new()),
            restored => restored.map_err(|error| RemoteError::of_keeper(&self.name, error)),
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
        self.check_place()?;
        if let Some(connection) = self.connection.clone()
            && connection.lost().is_none()
        {
            let ending = self.held.as_ref().and_then(|held| held.end.wait(Duration::ZERO));
            match ending.map(|ending| ending.lost()) {
                None => return Ok(connection),
                Some(Some(reason)) => {
                    progress::say("warning", &format!("{}: {reason}; locking it again", self.name));
                }
                Some(None) => {
                    let answer = self.ask(&connection, "holder", PROMPT);
                    let holder = answer.ok().and_then(|answer| serde_json::from_str(&answer).ok());
                    self.disconnect();
                    // Do not take the lock again from the user who broke it, nor cut their power.
                    self.patience = Duration::ZERO;
                    self.recovery.left = 0;
                    return Err(RemoteError::broken(&self.name, holder));
                }
            }
        }
        self.reconnect()
    }

    fn reconnect(&mut self) -> Result<Arc<Connection>, RemoteError> {
        match self.connect() {
            Ok(()) => self.connection.clone().ok_or(RemoteError::Interrupted),
            Err(RemoteError::Ssh { error, .. }) if error.may_pass_again() => self.reconnect_after(error),
            Err(other) => Err(other),
        }
    }

    /// Tries again after an attempt that failed; if that is in vain, power-cycles the board as often as its file allows.
    fn reconnect_after(&mut self, error: Box<SshError>) -> Result<Arc<Connection>, RemoteError> {
        let (mut error, mut patience, mut deadline) = (error, self.patience, Instant::now() + self.patience);
        progress::say("warning", &format!("{error}; trying to reconnect for {} s", patience.as_secs()));
        loop {
            if Instant::now() >= deadline {
                if !self.power_cycle(&error)? {
                    return Err(RemoteError::Gone { board: self.name.clone(), after: patience, error });
                }
                patience = self.recovery.boot;
                deadline = Instant::now() + patience;
            }
            self.pause()?;
            self.check_place()?;
            match self.connect() {
                Ok(()) => return self.connection.clone().ok_or(RemoteError::Interrupted),
                Err(RemoteError::Ssh { error: again, .. }) if again.may_pass_again() => error = again,
                Err(other) => return Err(other),
            }
        }
    }

    /// Cuts and restores the power of the board. False if that is not allowed any more.
    fn power_cycle(&mut self, error: &SshError) -> Result<bool, RemoteError> {
        let Some(lease) = self.lease.as_ref().filter(|_| self.recovery.left > 0) else { return Ok(false) };
        self.recovery.left -= 1;
        let reason = error.to_string();
        progress::say("power", &format!("{reason}; power-cycling the place {}", lease.place));
        let environment = self.recovery.environment.as_deref();
        lease.power_cycle(environment, &reason, &self.interrupt).map_err(|error| farm(&self.name, error))?;
        let (place, seconds) = (lease.place.clone(), self.recovery.boot.as_secs());
        progress::say("power", &format!("waiting up to {seconds} s for the place {place} to boot"));
        self.recovery.done.push(PowerCycle { unix_ns: unix_ns(), place, reason });
        Ok(true)
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

/// An error of the farm.
fn farm(board: &str, error: FarmError) -> RemoteError {
    match error {
        FarmError::Interrupted => RemoteError::Interrupted,
        error => RemoteError::Farm { board: board.to_owned(), error: Box::new(error) },
    }
}
