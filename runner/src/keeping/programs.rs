//! Programs of the board: finding them, running them with an end in sight, as root where that is needed.

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest a program that asks may take.
pub(crate) const ASKING: Duration = Duration::from_secs(10);
/// Longest a program that changes the board may take. `nvpmodel` and `jetson_clocks` take a few seconds.
pub(crate) const CHANGING: Duration = Duration::from_secs(60);
/// Places that are not on everybody's PATH.
const USUAL: [&str; 6] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];
/// So much of what a program says is kept, in bytes.
const KEPT: usize = 16 << 10;
/// So much of it goes into a message, in characters.
const TOLD: usize = 300;

/// A program on PATH or in a usual place.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(USUAL.map(PathBuf::from));
    folders.filter(|folder| folder.is_absolute()).map(|folder| folder.join(name)).find(|path| {
        let metadata = std::fs::metadata(path);
        metadata.is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    })
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its standard output.
    pub(crate) stdout: String,
    status: ExitStatus,
    stderr: String,
}

impl Ended {
    /// Whether it says that all went well.
    pub(crate) fn is_success(&self) -> bool {
        self.status.success()
    }

    /// How it ended and what it said last, for messages.
    pub(crate) fn told(&self) -> String {
        let how = self
            .status
            .code()
            .map_or_else(|| "was killed".to_owned(), |code| format!("ended with exit code {code}"));
        match last_words(&self.stderr).or_else(|| last_words(&self.stdout)) {
            Some(words) => format!("{how} and said {words:?}"),
            None => format!("{how} and said nothing"),
        }
    }
}

/// The end of a text on one line.
fn last_words(text: &str) -> Option<String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let skipped = text.chars().count().saturating_sub(TOLD);
    (!text.is_empty()).then(|| text.chars().skip(skipped).collect())
}

/// Runs a program with nothing to read, and ends it where it takes too long.
///
/// # Errors
/// Where it does not start or does not end. The message is a sentence of its own.
pub(crate) fn run(program: &Path, arguments: &[&str], patience: Duration) -> Result<Ended, String> {
    run_with(program, arguments, "", patience)
}

/// As [`run`], with this to read.
fn run_with(program: &Path, arguments: &[&str], input: &str, patience: Duration) -> Result<Ended, String> {
    let shown = || format!("{} {}", program.display(), arguments.join(" "));
    let failed = |error: std::io::Error| format!("{} does not start: {error}", shown());
    // Files, not pipes: what the program leaves running in the background may keep a pipe open for ever.
    let file = || {
        rustix::fs::memfd_create("said", MemfdFlags::CLOEXEC)
            .map(File::from)
            .map_err(|error| failed(error.into()))
    };
    let (stdout, stderr) = (file()?, file()?);
    let stdin = if input.is_empty() {
        Stdio::null()
    } else {
        let mut stdin = file()?;
        stdin.write_all(input.as_bytes()).and_then(|()| stdin.rewind()).map_err(failed)?;
        stdin.into()
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(stdin)
        .stdout(stdout.try_clone().map_err(failed)?)
        .stderr(stderr.try_clone().map_err(failed)?)
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(Ended { stdout: read(&stdout), status, stderr: read(&stderr) });
        }
        if Instant::now() >= deadline {
            break;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // What sudo started as root cannot be ended by others; it has nothing to read and ends by itself, we hope.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.try_wait();
    let words = last_words(&read(&stderr)).or_else(|| last_words(&read(&stdout)));
    let said = words.map_or_else(String::new, |words| format!("; it said {words:?}"));
    Err(format!("{} did not end within {} s{said}", shown(), patience.as_secs()))
}

fn read(file: &File) -> String {
    let mut buffer = vec![0; KEPT];
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let count = file.read_at(&mut buffer, length.saturating_sub(KEPT as u64)).unwrap_or(0);
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// As [`run`], as root: by `sudo` without a password where this process is not root itself.
pub(crate) fn run_as_root(program: &Path, arguments: &[&str], patience: Duration) -> Result<Ended, String> {
    as_root(program, arguments, "", patience)
}

fn as_root(program: &Path, arguments: &[&str], input: &str, patience: Duration) -> Result<Ended, String> {
    if is_root() {
        return run_with(program, arguments, input, patience);
    }
    let sudo = find("sudo").ok_or_else(|| "there is no sudo on this board".to_owned())?;
    let program = program.to_string_lossy();
    let mut all = vec!["-n", &*program];
    all.extend(arguments);
    run_with(&sudo, &all, input, patience)
}

/// Writes to a file of sysfs, as root where the user may not.
///
/// # Errors
/// Where it cannot be written. The message is a sentence of its own.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    let failed = |why: String| format!("cannot write {text} to {}: {why}", path.display());
    if is_root() || is_writable(path) {
        return std::fs::write(path, text).map_err(|error| failed(error.to_string()));
    }
    let tee = writing(path);
    let ended = as_root(&tee.program, &[&path.to_string_lossy()], text, ASKING).map_err(failed)?;
    if ended.is_success() {
        Ok(())
    } else {
        Err(failed(format!("{} {}", tee.program.display(), ended.told())))
    }
}

/// Whether the user may write a file without being root.
pub(crate) fn is_writable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

/// What [`write`] does as root.
pub(crate) fn writing(path: &Path) -> Privileged {
    let program = find("tee").unwrap_or_else(|| PathBuf::from("/usr/bin/tee"));
    let arguments = vec![path.to_string_lossy().into_owned()];
    // What it holds already.
    let input = std::fs::read_to_string(path).unwrap_or_default();
    Privileged {
        program,
        trial: Trial { arguments: arguments.clone(), input },
        arguments,
        any_arguments: false,
    }
}

/// A command that will be run as root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Privileged {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// Whether the line for sudoers allows it with any arguments.
    pub(crate) any_arguments: bool,
    pub(crate) trial: Trial,
}

/// How a command is run so that it changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trial {
    pub(crate) arguments: Vec<String>,
    pub(crate) input: String,
}

impl Trial {
    /// With another argument than the one that changes something.
    pub(crate) fn with(argument: &str) -> Self {
        Self { arguments: vec![argument.to_owned()], input: String::new() }
    }
}

/// Makes sure that these commands may be run as root, before the first of them is.
///
/// # Errors
/// With the line that sudoers lacks. The message is a sentence of its own.
pub(crate) fn check_root(commands: &[Privileged]) -> Result<(), String> {
    if commands.is_empty() || is_root() {
        return Ok(());
    }
    let user = user();
    let line = sudoers(&user, commands);
    let Some(sudo) = find("sudo") else {
        return Err(format!(
            "the runner is {user} there, and the board has no sudo; log in as root, or install sudo with this line in \
             /etc/sudoers.d/edgepipe: {line}"
        ));
    };
    for command in commands {
        let program = command.program.to_string_lossy();
        let mut arguments = vec!["-n", "-l", &*program];
        arguments.extend(command.arguments.iter().map(String::as_str));
        let ended = run(&sudo, &arguments, ASKING)?;
        // Listing may ask for a password (`listpw`), or be unknown to this sudo, where the command itself is allowed.
        let is_allowed = || {
            let arguments: Vec<&str> = command.trial.arguments.iter().map(String::as_str).collect();
            let tried = as_root(&command.program, &arguments, &command.trial.input, ASKING);
            tried.is_ok_and(|tried| tried.is_success())
        };
        if !ended.is_success() && !is_allowed() {
            return Err(format!(
                "{user} may not run {program} as root without a password (sudo {}); write this line to \
                 /etc/sudoers.d/edgepipe there, by `sudo visudo -f /etc/sudoers.d/edgepipe`: {line}",
                ended.told()
            ));
        }
    }
    Ok(())
}

fn user() -> String {
    let name =
        ["USER", "LOGNAME"].iter().filter_map(|name| std::env::var(name).ok()).find(|name| !name.is_empty());
    name.unwrap_or_else(|| format!("#{}", geteuid().as_raw()))
}

/// The line that allows these commands and no others.
fn sudoers(user: &str, commands: &[Privileged]) -> String {
    let mut allowed: Vec<String> = Vec::new();
    for command in commands {
        let program = command.program.display();
        let entry = if command.any_arguments {
            program.to_string()
        } else {
            format!("{program} {}", command.arguments.join(" "))
        };
        if !allowed.contains(&entry) {
            allowed.push(entry);
        }
    }
    format!("{user} ALL=(root) NOPASSWD: {}", allowed.join(", "))
}
