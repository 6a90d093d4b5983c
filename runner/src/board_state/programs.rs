//! Runs programs of the board, with a timeout, as root if needed.

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Timeout of a program that only shows something.
pub(crate) const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of a program that changes the board. `nvpmodel` and `jetson_clocks` take a few seconds.
pub(crate) const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Folders that may be missing in PATH.
const FOLDERS: [&str; 6] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];
/// Limit on the kept output of a program.
const MAX_OUTPUT_BYTES: usize = 16 << 10;
/// Limit on its part in a message.
const MAX_QUOTED_CHARS: usize = 300;

/// Finds a program in PATH or in a standard folder.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
    folders.filter(|folder| folder.is_absolute()).map(|folder| folder.join(name)).find(|path| {
        let metadata = std::fs::metadata(path);
        metadata.is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    })
}

#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) stdout: String,
    status: ExitStatus,
    stderr: String,
}

impl Finished {
    pub(crate) fn is_success(&self) -> bool {
        self.status.success()
    }

    /// How it finished and the end of its output, for messages.
    pub(crate) fn describe(&self) -> String {
        let how = self
            .status
            .code()
            .map_or_else(|| "was killed".to_owned(), |code| format!("failed with exit code {code}"));
        match output_end(&self.stderr).or_else(|| output_end(&self.stdout)) {
            Some(text) => format!("{how} and printed {text:?}"),
            None => format!("{how} and printed nothing"),
        }
    }
}

/// The end of an output, on one line.
fn output_end(text: &str) -> Option<String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let skipped = text.chars().count().saturating_sub(MAX_QUOTED_CHARS);
    (!text.is_empty()).then(|| text.chars().skip(skipped).collect())
}

/// Runs a program without input, and kills it after the timeout.
///
/// # Errors
/// If it does not start or does not end in time. The message is a clause.
pub(crate) fn run(program: &Path, arguments: &[&str], timeout: Duration) -> Result<Finished, String> {
    run_with(program, arguments, "", timeout)
}

fn run_with(program: &Path, arguments: &[&str], input: &str, timeout: Duration) -> Result<Finished, String> {
    let shown = || format!("{} {}", program.display(), arguments.join(" "));
    let failed = |error: std::io::Error| format!("cannot start {}: {error}", shown());
    // Files, not pipes: a background process of the program may keep a pipe open forever.
    let file = || {
        rustix::fs::memfd_create("output", MemfdFlags::CLOEXEC)
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
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(Finished { stdout: read(&stdout), status, stderr: read(&stderr) });
        }
        if Instant::now() >= deadline {
            break;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // A process that sudo started as root survives this.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.try_wait();
    let text = output_end(&read(&stderr)).or_else(|| output_end(&read(&stdout)));
    let printed = text.map_or_else(String::new, |text| format!("; it printed {text:?}"));
    Err(format!("{} did not finish within {} s{printed}", shown(), timeout.as_secs()))
}

fn read(file: &File) -> String {
    let mut buffer = vec![0; MAX_OUTPUT_BYTES];
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let count = file.read_at(&mut buffer, length.saturating_sub(MAX_OUTPUT_BYTES as u64)).unwrap_or(0);
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// As [`run`], as root: with `sudo` without a password if this process is not root itself.
pub(crate) fn run_as_root(program: &Path, arguments: &[&str], timeout: Duration) -> Result<Finished, String> {
    as_root(program, arguments, "", timeout)
}

fn as_root(program: &Path, arguments: &[&str], input: &str, timeout: Duration) -> Result<Finished, String> {
    if is_root() {
        return run_with(program, arguments, input, timeout);
    }
    let sudo = find("sudo").ok_or_else(|| "the board has no sudo".to_owned())?;
    let program = program.to_string_lossy();
    let mut all = vec!["-n", &*program];
    all.extend(arguments);
    run_with(&sudo, &all, input, timeout)
}

/// Writes to a file of sysfs, as root if the user has no permission. The error is a clause.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    let failed = |why: String| format!("cannot write {text} to {}: {why}", path.display());
    if is_root() || is_writable(path) {
        return std::fs::write(path, text).map_err(|error| failed(error.to_string()));
    }
    let tee = write_command(path);
    let finished = as_root(&tee.program, &[&path.to_string_lossy()], text, QUERY_TIMEOUT).map_err(failed)?;
    if finished.is_success() {
        Ok(())
    } else {
        Err(failed(format!("{} {}", tee.program.display(), finished.describe())))
    }
}

pub(crate) fn is_writable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

/// The command by which [`write`] writes as root.
pub(crate) fn write_command(path: &Path) -> Privileged {
    let program = find("tee").unwrap_or_else(|| PathBuf::from("/usr/bin/tee"));
    let arguments = vec![path.to_string_lossy().into_owned()];
    // A dry run writes the current content.
    let input = std::fs::read_to_string(path).unwrap_or_default();
    Privileged {
        program,
        dry_run: DryRun { arguments: arguments.clone(), input },
        arguments,
        any_arguments: false,
    }
}

/// A command to be run as root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Privileged {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// Whether the sudoers line allows any arguments.
    pub(crate) any_arguments: bool,
    pub(crate) dry_run: DryRun,
}

/// How to run a command without changing anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DryRun {
    pub(crate) arguments: Vec<String>,
    pub(crate) input: String,
}

impl DryRun {
    pub(crate) fn with(argument: &str) -> Self {
        Self { arguments: vec![argument.to_owned()], input: String::new() }
    }
}

/// Checks that these commands may be run as root, before the first of them is run.
///
/// # Errors
/// A clause with the line that is missing in sudoers.
pub(crate) fn check_root(commands: &[Privileged]) -> Result<(), String> {
    if commands.is_empty() || is_root() {
        return Ok(());
    }
    let user = user();
    let line = sudoers(&user, commands);
    let Some(sudo) = find("sudo") else {
        return Err(format!(
            "the runner is user {user}, and the board has no sudo; log in as root, or install sudo and write this line to \
             /etc/sudoers.d/edgepipe: {line}"
        ));
    };
    for command in commands {
        let program = command.program.to_string_lossy();
        let mut arguments = vec!["-n", "-l", &*program];
        arguments.extend(command.arguments.iter().map(String::as_str));
        let finished = run(&sudo, &arguments, QUERY_TIMEOUT)?;
        // Listing may require a password (`listpw`) or be unknown to this sudo although the command itself is allowed.
        let is_allowed = || {
            let arguments: Vec<&str> = command.dry_run.arguments.iter().map(String::as_str).collect();
            let result = as_root(&command.program, &arguments, &command.dry_run.input, QUERY_TIMEOUT);
            result.is_ok_and(|finished| finished.is_success())
        };
        if !finished.is_success() && !is_allowed() {
            return Err(format!(
                "user {user} may not run {program} as root without a password (sudo {}); on the board, run \
                 `sudo visudo -f /etc/sudoers.d/edgepipe` and write this line: {line}",
                finished.describe()
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

/// The sudoers line that allows these commands and no others.
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
