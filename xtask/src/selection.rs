//! `cargo xtask test NAME`: the tests whose names contain it, of Rust and of Python.

use crate::cargo::{Program, Programs};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};

/// Number of names that are suggested if none matches.
const OFFERED: usize = 5;
/// Lowest similarity of a suggested name, from 0 to 1.
const ALIKE: f64 = 0.7;

/// Tests of one program that cargo built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RustTests {
    /// The program.
    pub(crate) program: Program,
    /// Names of the tests, with their modules.
    pub(crate) names: Vec<String>,
}

impl RustTests {
    /// Asks each program for its tests.
    pub(crate) fn list(programs: &Programs) -> Result<Vec<Self>> {
        let list = |program: &Program| {
            let output = Command::new(&program.path)
                .args(["--list", "--format=terse"])
                .current_dir(&program.folder)
                .stdin(Stdio::null())
                .output()
                .with_context(|| format!("failed to start {}", program.path.display()))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                bail!("failed to list the tests of {}: {}", program.path.display(), said.trim());
            }
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let names = text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned);
            Ok(Self { program: program.clone(), names: names.collect() })
        };
        programs.tests().map(list).collect()
    }

    /// Those whose name, or whose file's, contains `wanted`.
    fn matching(&self, wanted: &str) -> Self {
        let whole = self.program.kind == "test" && self.program.name.contains(wanted);
        let names = self.names.iter().filter(|name| whole || name.contains(wanted));
        Self { program: self.program.clone(), names: names.cloned().collect() }
    }
}

/// The tests to run, and the named checks.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// Of Rust, by program; none is empty.
    pub(crate) rust: Vec<RustTests>,
    /// Of Python, as pytest names them.
    pub(crate) python: Vec<String>,
}

impl Selection {
    /// Those that contain `wanted`.
    pub(crate) fn of(wanted: &str, rust: &[RustTests], python: &[String]) -> Self {
        Self {
            rust: rust
                .iter()
                .map(|tests| tests.matching(wanted))
                .filter(|tests| !tests.names.is_empty())
                .collect(),
            python: python.iter().filter(|name| name.contains(wanted)).cloned().collect(),
        }
    }

    /// How many tests of Rust there are.
    pub(crate) fn rust_count(&self) -> usize {
        self.rust.iter().map(|tests| tests.names.len()).sum()
    }

    /// Whether a test's name or program contains one of the words.
    pub(crate) fn has(&self, words: &[&str]) -> bool {
        let contains = |name: &str| words.iter().any(|word| name.contains(word));
        let rust = |tests: &RustTests| {
            contains(&tests.program.name) || tests.names.iter().any(|name| contains(name))
        };
        self.rust.iter().any(rust) || self.python.iter().any(|name| contains(name))
    }

    /// Removes the tests whose names begin with this.
    pub(crate) fn take(&mut self, prefix: &str) -> Vec<String> {
        let mut taken = Vec::new();
        for tests in &mut self.rust {
            taken.extend(tests.names.extract_if(.., |name| name.starts_with(prefix)));
        }
        self.rust.retain(|tests| !tests.names.is_empty());
        taken
    }

    /// Arguments of `cargo test` that run the tests of Rust and no others.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut targets = BTreeSet::new();
        for RustTests { program, .. } in &self.rust {
            match program.kind.as_str() {
                "test" => targets.extend([format!("--test={}", program.name)]),
                "bin" => targets.extend([format!("--bin={}", program.name)]),
                "bench" => targets.extend([format!("--bench={}", program.name)]),
                _ => targets.extend(["--lib".to_owned()]),
            }
        }
        let names = self.rust.iter().flat_map(|tests| tests.names.iter().cloned());
        let mut arguments: Vec<String> = targets.into_iter().collect();
        arguments.extend(["--", "--include-ignored", "--exact"].map(str::to_owned));
        arguments.extend(names.collect::<BTreeSet<_>>());
        arguments
    }
}

/// The tests that pytest would run, of what `--collect-only --quiet` printed.
pub(crate) fn collected(text: &str) -> Vec<String> {
    text.lines().filter(|line| line.contains("::") && !line.starts_with(' ')).map(str::to_owned).collect()
}

/// The names nearest to one that matches none.
pub(crate) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let leaf = |name: &'a str| name.rsplit("::").next().unwrap_or(name);
    let mut scored: Vec<(f64, &str)> =
        names.map(|name| (strsim::jaro_winkler(wanted, leaf(name)), name)).collect();
    scored.retain(|(score, _)| *score >= ALIKE);
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.dedup_by_key(|(_, name)| *name);
    scored.into_iter().take(OFFERED).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::{RustTests, Selection, collected, nearest};
    use crate::cargo::Program;

    fn tests(kind: &str, program: &str, names: &[&str]) -> RustTests {
        let program = Program {
            name: program.to_owned(),
            kind: kind.to_owned(),
            is_test: true,
            folder: "/w".into(),
            path: "/t".into(),
        };
        RustTests { program, names: names.iter().map(|name| (*name).to_owned()).collect() }
    }

    fn selected(wanted: &str) -> Selection {
        let rust = [
            tests("lib", "domain", &["planner::tests::cuts_are_best", "gate::tests::aa"]),
            tests("bin", "runner", &["queue::tests::order"]),
            tests("test", "ssh_faults", &["a_link_is_cut", "virtual_board_none"]),
            tests("test", "virtual_board", &["virtual_board_energy"]),
        ];
        let python =
            ["compiler/tests/test_zoo.py::test_macs[vgg16]", "ci/tests/test_pipelines.py::test_cuts"];
        Selection::of(wanted, &rust, &python.map(str::to_owned))
    }

    #[test]
    fn tests_are_chosen_by_a_part_of_their_name_or_of_their_files() {
        let table: [(&str, &str, usize); 6] = [
            ("cuts", "--lib -- --include-ignored --exact planner::tests::cuts_are_best", 1),
            ("vgg16", "-- --include-ignored --exact", 1),
            (
                "ssh_faults",
                "--test=ssh_faults -- --include-ignored --exact a_link_is_cut virtual_board_none",
                0,
            ),
            ("queue", "--bin=runner -- --include-ignored --exact queue::tests::order", 0),
            (
                "tests::",
                "--bin=runner --lib -- --include-ignored --exact gate::tests::aa planner::tests::cuts_are_best queue::tests::order",
                0,
            ),
            ("nothing", "-- --include-ignored --exact", 0),
        ];
        for (wanted, arguments, python) in table {
            let chosen = selected(wanted);
            assert_eq!(
                (chosen.arguments().join(" ").as_str(), chosen.python.len()),
                (arguments, python),
                "{wanted}"
            );
        }
    }

    #[test]
    fn tests_of_the_virtual_board_are_taken_out() {
        let mut chosen = selected("virtual_board");
        assert!(chosen.has(&["energy"]) && !chosen.has(&["planner"]));
        assert_eq!(chosen.take("virtual_board_"), ["virtual_board_none", "virtual_board_energy"]);
        assert_eq!((chosen.rust_count(), chosen.rust.len()), (0, 0));
    }

    #[test]
    fn what_pytest_collects_is_read_and_near_names_are_offered() {
        let text = "a.py::test_x\na.py::test_y[1-b c]\n\n2 tests collected in 0.1s\n";
        assert_eq!(collected(text), ["a.py::test_x", "a.py::test_y[1-b c]"]);
        let names = ["queue::tests::order", "planner::tests::cuts_are_best", "x::unrelated"];
        assert_eq!(nearest("cuts_are_bets", names.into_iter()), ["planner::tests::cuts_are_best"]);
        assert_eq!(nearest("zzz", names.into_iter()), [""; 0]);
    }
}
