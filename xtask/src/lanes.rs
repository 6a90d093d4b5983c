//! Steps of the checks that run side by side.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// A step with a log of its own, so that the outputs of two steps do not mix.
#[derive(Debug)]
pub(crate) struct Step {
    /// As it is printed.
    pub(crate) name: String,
    pub(crate) command: Command,
}

impl Step {
    /// Runs it and says whether it passed. If not, its output is printed; if so, one line.
    fn run(mut self, logs: &Path) -> (String, bool) {
        let name = &self.name;
        eprintln!("== {name}");
        let log = log(logs, name);
        let begun = Instant::now();
        let status = run_into(&mut self.command, &log);
        let seconds = begun.elapsed().as_secs_f64();
        let passed = match status {
            Ok(status) if status.success() => {
                eprintln!("== {name}: passed in {seconds:.0} s");
                true
            }
            Ok(status) => {
                let output = fs::read(&log).unwrap_or_default();
                // Printed by one call, which keeps the lines of other steps out of it.
                eprintln!(
                    "{}\n== {name}: FAILED in {seconds:.0} s ({status}); the output above is also in {}",
                    String::from_utf8_lossy(&output).trim_end(),
                    log.display()
                );
                false
            }
            Err(error) => {
                eprintln!("== {name}: FAILED: {error:#}");
                false
            }
        };
        (self.name, passed)
    }
}

fn run_into(command: &mut Command, log: &Path) -> Result<ExitStatus> {
    let file = File::create(log).with_context(|| format!("failed to create {}", log.display()))?;
    let errors = file.try_clone().with_context(|| format!("failed to write {} twice", log.display()))?;
    command.stdin(Stdio::null()).stdout(file).stderr(errors);
    command.status().with_context(|| format!("failed to start {}", command.get_program().display()))
}

fn log(logs: &Path, name: &str) -> PathBuf {
    let word: String =
        name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
    logs.join(word + ".log")
}

/// Runs all steps, so many at a time; they begin in their order. Returns the name of each and whether it passed, in the order in
/// which they ended. Their outputs are written to the folder `logs`.
///
/// The steps are in the process group of this program, so Ctrl-C ends all of them.
///
/// # Errors
/// If the folder cannot be made. A step that cannot be started has not passed.
pub(crate) fn run(steps: Vec<Step>, at_a_time: usize, logs: &Path) -> Result<Vec<(String, bool)>> {
    fs::create_dir_all(logs).with_context(|| format!("failed to create {}", logs.display()))?;
    let (steps, ended) = (Mutex::new(steps.into_iter()), Mutex::new(Vec::new()));
    let next = || steps.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                while let Some(step) = next() {
                    let result = step.run(logs);
                    ended.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                }
            });
        }
    });
    Ok(ended.into_inner().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::{Step, run};
    use std::path::Path;
    use std::process::Command;

    fn shell(name: &str, script: &str) -> Step {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Step { name: name.to_owned(), command }
    }

    #[test]
    fn two_steps_run_side_by_side_and_a_failure_ends_no_other() {
        let folder = std::env::temp_dir().join(format!("edgepipe-lanes-{}", std::process::id()));
        let (here, there) = (folder.join("here"), folder.join("there"));
        // Each waits for a file that the other makes: one after another, the first would not end in time.
        let meet = |own: &Path, other: &Path, code: u8| {
            format!(
                ": > {}; for turn in $(seq 1200); do [ -e {} ] && echo met && exit {code}; sleep 0.05; done; exit 9",
                own.display(),
                other.display()
            )
        };
        let steps = vec![
            shell("a, tests/one", &meet(&here, &there, 0)),
            shell("two", &meet(&there, &here, 1)),
            Step { name: "none".to_owned(), command: Command::new("/nowhere/program") },
            shell("last", "echo said; echo more >&2"),
        ];
        let mut ended = run(steps, 2, &folder).unwrap();
        ended.sort();
        let found: Vec<_> = ended.iter().map(|(name, passed)| (name.as_str(), *passed)).collect();
        assert_eq!(found, [("a, tests/one", true), ("last", true), ("none", false), ("two", false)]);
        for (log, text) in [("a--tests-one", "met\n"), ("two", "met\n"), ("last", "said\nmore\n")] {
            assert_eq!(std::fs::read_to_string(folder.join(log).with_extension("log")).unwrap(), text);
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
