//! Starts the `edgepipe` program.

use crate::cargo::Built;
use crate::cross::{self, Kit, Shown, Target, Via};
use crate::failure::{BUG, Bug, Refused};
use crate::python::WaitingShim;
use crate::workspace::Workspace;
use crate::{board, cargo, python};
use anyhow::{Context, Result};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};
use toolchain::Toolchain;

/// Names a file to the harness that it reads before the user's own OpenSSH configuration.
pub(crate) const SSH_CONFIG: &str = "EDGEPIPE_SSH_CONFIG";

/// Builds what is needed and becomes `edgepipe`: its exit code is ours, and Ctrl-C reaches it directly.
pub(crate) fn start(workspace: &Workspace, name: &str, rest: &[String]) -> Result<u8> {
    // `boards NAME` looks at one, which takes a runner there as well.
    let looked_at = rest.first().filter(|board| name == "boards" && !board.starts_with('-'));
    let mut boards = cross::boards_of(rest);
    boards.extend(looked_at.map(String::as_str));
    let asks_for_help = rest.iter().any(|word| word == "--help" || word == "-h");
    let is_measuring = measures(name, rest) && !asks_for_help;
    let takes_runners = is_measuring || name == "boards";
    let expected: Option<Vec<Target>> = boards
        .iter()
        .map(|board| cross::expected(workspace, board).filter(|_| takes_runners))
        .collect::<Option<_>>()
        .filter(|expected: &Vec<_>| !expected.is_empty());
    let (toolchain, built) = if let Some(expected) = expected {
        side_by_side(workspace, &boards, &expected, is_measuring)?
    } else {
        let toolchain = ensure_toolchain(workspace)?;
        let built = cargo::build(workspace, &toolchain)?;
        (toolchain, built)
    };
    for board in boards {
        if takes_runners {
            build_for(workspace, &toolchain, &built, board, Via::Zig)?;
        }
        if is_measuring && board::is_down(workspace, board) {
            board::up_for_bench(workspace, board)?;
        }
        board::note_if_down(workspace, board);
    }
    let error = command(workspace, &toolchain, &built).arg(name).args(rest).exec();
    Err(error).context(Bug(format!("failed to start {}", built.harness.display())))
}

/// Whether a command runs something on its boards. `check` does with an experiment; the board of `history` is only looked up.
fn measures(name: &str, rest: &[String]) -> bool {
    match name {
        "bench" | "optimize" | "plan" | "layers" | "verify-claims" | "selftest" | "farm" => true,
        "check" => rest.iter().any(|word| word == "--experiment" || word.starts_with("--experiment=")),
        _ => false,
    }
}

/// The toolchain. If it is missing, harness and runner are built while its packages are downloaded; what only the runner
/// needs waits for it.
fn ensure_toolchain(workspace: &Workspace) -> Result<Toolchain> {
    if python::is_installed(workspace)? {
        return python::ensure(workspace);
    }
    let waiting = WaitingShim::write(workspace)?;
    std::thread::scope(|scope| {
        let toolchain = scope.spawn(move || {
            let toolchain = python::ensure(workspace);
            drop(waiting);
            toolchain
        });
        // If this fails, the next build of harness and runner fails too and says why.
        let _ = cargo::build_programs(workspace);
        joined(toolchain)
    })
}

/// Puts in place at the same time, for boards over SSH: the harness, the toolchain and then their runners, and virtual
/// boards themselves if they are measured. None of these keeps all CPUs busy all the time.
fn side_by_side(
    workspace: &Workspace,
    boards: &[&str],
    expected: &[Target],
    is_measuring: bool,
) -> Result<(Toolchain, Built)> {
    let (built, toolchain, runners, up) = std::thread::scope(|scope| {
        let prepared = scope.spawn(|| {
            for target in expected {
                // Where that fails the build of the runner tries again and says why.
                let _ = cross::prepare(workspace, target);
            }
        });
        let runners = scope.spawn(|| {
            let toolchain = python::ensure(workspace)?;
            joined(prepared);
            let mut built = expected
                .iter()
                .map(|target| cross::build(workspace, &toolchain, target, Via::Zig, Shown::Faults));
            let failure = built.find_map(Result::err);
            anyhow::Ok((toolchain, failure))
        });
        let up = scope.spawn(|| {
            let mut down = boards.iter().filter(|board| is_measuring && board::is_down(workspace, board));
            down.try_for_each(|board| board::up_for_bench(workspace, board))
        });
        let built = cargo::build_harness(workspace);
        let (runners, up) = (joined(runners), joined(up));
        match runners {
            Ok((toolchain, failure)) => (built, Ok(toolchain), failure, up),
            Err(error) => (built, Err(error), None, up),
        }
    });
    let (built, toolchain) = (built?, toolchain?);
    up?;
    // One that could not be built counts only where the harness reads the board's file alike.
    if let Some(failure) = runners {
        let mut asked = Vec::new();
        for board in boards {
            asked
                .extend(targets(workspace, &toolchain, &built, board)?.into_iter().map(|(target, _)| target));
        }
        if asked == expected {
            return Err(failure);
        }
    }
    Ok((toolchain, built))
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The `edgepipe` program with all paths.
fn command(workspace: &Workspace, toolchain: &Toolchain, built: &Built) -> Command {
    let mut command = Command::new(&built.harness);
    command
        .arg("--root")
        .arg(&workspace.root)
        .arg("--state")
        .arg(workspace.state())
        .arg("--python")
        .arg(&toolchain.python)
        .arg("--runner")
        .arg(&built.runner);
    if let Some(config) = board::ssh_config(workspace) {
        command.env(SSH_CONFIG, config);
    }
    command
}

/// What is to be built for a board, or each board of a group, as the harness reads their files, and its line about it.
fn targets(
    workspace: &Workspace,
    toolchain: &Toolchain,
    built: &Built,
    board: &str,
) -> Result<Vec<(Target, String)>> {
    let mut ask = command(workspace, toolchain, built);
    let answer = ended(ask.args(["target", "--board", board]).stderr(Stdio::inherit()).output())?;
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    Ok(text.lines().filter_map(|line| Some((Target::parse(line)?, line.to_owned()))).collect())
}

/// Builds the runner that `board`, or each board of a group, needs if it is not this machine's, has the harness check
/// that it and its libraries start there, and returns what was built.
pub(crate) fn build_for(
    workspace: &Workspace,
    toolchain: &Toolchain,
    built: &Built,
    board: &str,
    via: Via,
) -> Result<Vec<Kit>> {
    let mut kits = Vec::new();
    let targets = targets(workspace, toolchain, built, board)?;
    // One of this machine after all: its runner may be of an earlier revision.
    if targets.is_empty() {
        cargo::build(workspace, toolchain)?;
    }
    // A group may have boards of several kinds.
    for (target, line) in targets {
        let kit = cross::build(workspace, toolchain, &target, via, Shown::All)?;
        let mut inspect = command(workspace, toolchain, built);
        inspect.args(["inspect", "--board", board, "--only", &line]);
        inspect.arg(&kit.runner).args(&kit.libraries);
        // Standard output is that of the command that needs the runner, such as JSON.
        ended(inspect.stdout(std::io::stderr()).stderr(Stdio::inherit()).output())?;
        kits.push(kit);
    }
    Ok(kits)
}

/// The output of the harness. If it failed, it has printed the reason, and its exit code becomes ours.
fn ended(output: std::io::Result<Output>) -> Result<Output> {
    let output = output.context(Bug("failed to start the harness".to_owned()))?;
    if output.status.success() {
        return Ok(output);
    }
    let code = output.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(BUG);
    Err(Refused(code).into())
}

#[cfg(test)]
mod tests {
    use super::measures;

    #[test]
    fn commands_that_measure_need_the_runner_of_their_board() {
        let check = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            measures(&words[0], &words[1..])
        };
        for line in [
            "bench --board tx2",
            "plan --board tx2",
            "layers --board tx2",
            "selftest aa --board tx2",
            "check --against main --experiment tiny --board tx2",
            "check --against main --experiment=tiny --board tx2",
        ] {
            assert!(check(line), "{line}");
        }
        for line in ["check --against main", "history --board tx2", "report --list", "boards tx2"] {
            assert!(!check(line), "{line}");
        }
    }
}
