//! Everything needed to repeat a run, besides its configuration.

use compiler::CompilerVersions;
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Stdio;
use store::{Revision, Versions};

/// Versions, revision, machine and command line of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of the harness.
    pub harness: String,
    /// Version of the runner.
    pub runner: String,
    /// Version of the protocol between them.
    pub protocol: u32,
    /// Pinned packages of the compiler, `name==version`.
    pub packages: Vec<String>,
    /// Revision of the workspace; absent outside a git checkout.
    pub git_revision: Option<String>,
    /// Whether tracked files differ from that revision; absent likewise.
    pub git_dirty: Option<bool>,
    /// Why there is no revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_absent: Option<String>,
    /// Name of the host that ran the harness.
    pub host: String,
    /// Kernel of the host.
    pub host_kernel: String,
    /// The harness' arguments.
    pub command: Vec<String>,
}

impl Provenance {
    /// Collects what this process can know.
    pub fn collect(root: &Path, runner: &str) -> Self {
        let uname = rustix::system::uname();
        let (revision, absent) = match revision(root) {
            Ok(revision) => (Some(revision), None),
            Err(reason) => (None, Some(reason)),
        };
        Self {
            harness: env!("CARGO_PKG_VERSION").to_owned(),
            runner: runner.to_owned(),
            protocol: protocol::VERSION,
            packages: packages(root),
            git_dirty: revision.as_ref().map(|revision| revision.dirty),
            git_revision: revision.map(|revision| revision.commit),
            git_absent: absent,
            host: uname.nodename().to_string_lossy().into_owned(),
            host_kernel: uname.release().to_string_lossy().into_owned(),
            command: host::arguments(),
        }
    }

    /// The versions as the store records them.
    pub fn versions(&self, compiler: Option<CompilerVersions>) -> Versions {
        let (tvm, llvm, python) = match compiler {
            Some(found) => (Some(found.tvm), Some(found.llvm), Some(found.python)),
            None => (None, None, None),
        };
        Versions {
            harness: self.harness.clone(),
            runner: Some(self.runner.clone()),
            protocol: self.protocol,
            tvm,
            llvm,
            python,
        }
    }

    /// The revision as the store records it.
    pub fn revision(&self) -> Option<Revision> {
        Some(Revision { commit: self.git_revision.clone()?, dirty: self.git_dirty? })
    }
}

/// The file in a distributed archive that names the revision it was built from: the commit, and `modified` if tracked
/// files differed.
const REVISION: &str = "REVISION";

/// The revision of the workspace, which must be a repository of its own: git looks in the folders above too, and would
/// answer for whatever repository edgepipe was unpacked in.
///
/// # Errors
/// Why there is none.
fn revision(root: &Path) -> Result<Revision, String> {
    if let Ok(text) = std::fs::read_to_string(root.join(REVISION)) {
        let mut words = text.split_whitespace();
        let commit = words.next().ok_or_else(|| format!("{REVISION} in {} is empty", root.display()))?;
        return Ok(Revision { commit: commit.to_owned(), dirty: words.next() == Some("modified") });
    }
    let top = git(root, &["rev-parse", "--show-toplevel"])?;
    let canonical = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if canonical(Path::new(&top)) != canonical(root) {
        return Err(format!(
            "{} belongs to another git repository, {}; clone edgepipe to have its revision recorded",
            root.display(),
            top.display()
        ));
    }
    let commit = git(root, &["rev-parse", "--verify", "HEAD^{commit}"])?.to_string_lossy().into_owned();
    let changes = git(root, &["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"])?;
    Ok(Revision { commit, dirty: !changes.is_empty() })
}

/// What git prints, without the end of its last line.
fn git(root: &Path, arguments: &[&str]) -> Result<OsString, String> {
    let output = environment::git()
        .arg("-C")
        .arg(root)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|reason| format!("git cannot be started: {reason}; install git"))?;
    if output.status.success() {
        let text = output.stdout.strip_suffix(b"\n").unwrap_or(&output.stdout);
        return Ok(OsStr::from_bytes(text).to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let root = root.display();
    Err(if said.contains("dubious ownership") {
        format!(
            "git refuses to read {root}, which belongs to another user; allow it with `git config --global --add \
             safe.directory {root}`"
        )
    } else if said.contains("not a git repository") {
        format!("{root} is not a git repository")
    } else if said.contains("Needed a single revision") {
        format!("the git repository {root} has no commit yet")
    } else {
        let line = said.lines().find(|line| line.starts_with("fatal:")).or_else(|| said.lines().next());
        format!("git {} failed in {root}: {}", arguments.join(" "), line.unwrap_or("it gave no reason"))
    })
}

fn packages(root: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(root.join("ci/requirements.txt")).unwrap_or_default();
    let pins = text.lines().filter(|line| !line.starts_with([' ', '#']) && line.contains("=="));
    pins.filter_map(|line| line.split([' ', ';', '\\']).next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{Provenance, revision};
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    fn git(folder: &Path, arguments: &[&str]) {
        let output = environment::git()
            .arg("-C")
            .arg(folder)
            .args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"])
            .args(arguments)
            .output()
            .expect("git starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn an_archive_names_its_revision() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let read = |text: &str| {
            fs::write(folder.path().join("REVISION"), text).expect("a file");
            revision(folder.path()).map(|revision| (revision.commit, revision.dirty))
        };
        assert_eq!(read("abc\n"), Ok(("abc".to_owned(), false)));
        assert_eq!(read("abc modified\n"), Ok(("abc".to_owned(), true)));
        assert!(read("").is_err());
    }

    #[test]
    fn only_the_workspaces_own_repository_has_its_revision() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let outer = folder.path().join("outer");
        let inner = outer.join("it's an archive");
        fs::create_dir_all(&inner).expect("a folder");
        fs::write(inner.join("file"), "1").expect("a file");
        let reason = |root: &Path| revision(root).expect_err("there is no revision");
        assert!(reason(&inner).contains("is not a git repository"), "{}", reason(&inner));

        git(&outer, &["init", "--quiet"]);
        assert!(reason(&outer).contains("has no commit yet"), "{}", reason(&outer));
        git(&outer, &["commit", "--quiet", "--allow-empty", "--message", "outer"]);
        assert!(!revision(&outer).expect("a revision").dirty);
        assert!(reason(&inner).contains("belongs to another git repository"), "{}", reason(&inner));

        git(&inner, &["init", "--quiet"]);
        git(&inner, &["add", "file"]);
        git(&inner, &["commit", "--quiet", "--message", "inner"]);
        let clean = revision(&inner).expect("a revision");
        assert!(!clean.dirty);
        assert_ne!(clean.commit, revision(&outer).expect("a revision").commit);
        fs::write(inner.join("file"), "2").expect("a file");
        assert!(revision(&inner).expect("a revision").dirty);
        // Reached by a link it is the same folder.
        std::os::unix::fs::symlink(&inner, folder.path().join("link")).expect("a link");
        assert_eq!(revision(&folder.path().join("link")).expect("a revision").commit, clean.commit);

        fs::remove_file(inner.join(".git/HEAD")).expect("it was there");
        assert!(reason(&inner).contains("belongs to another git repository"), "{}", reason(&inner));
    }

    /// Run by the test below in a process of its own, whose environment it may choose.
    #[test]
    #[ignore = "needs the environment that the test below gives it"]
    fn child_prints_a_revision() {
        // `--include-ignored` runs it as well, without one.
        let root = std::env::var_os("EDGEPIPE_TEST_ROOT").unwrap_or_else(|| ".".into());
        let provenance = Provenance::collect(Path::new(&root), "1");
        eprintln!("revision {:?} absent {:?}", provenance.git_revision, provenance.git_absent);
    }

    #[test]
    fn variables_of_git_choose_no_other_repository() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mine, other) = (folder.path().join("mine"), folder.path().join("other"));
        for repository in [&mine, &other] {
            fs::create_dir_all(repository).expect("a folder");
            git(repository, &["init", "--quiet"]);
            git(
                repository,
                &["commit", "--quiet", "--allow-empty", "--message", &repository.to_string_lossy()],
            );
        }
        let wanted = revision(&mine).expect("a revision").commit;
        let output = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "provenance::tests::child_prints_a_revision",
                "--exact",
                "--include-ignored",
                "--nocapture",
            ])
            .env("EDGEPIPE_TEST_ROOT", &mine)
            .env("GIT_DIR", other.join(".git"))
            .env("GIT_WORK_TREE", &mine)
            .env("GIT_INDEX_FILE", other.join("index"))
            .env("GIT_CEILING_DIRECTORIES", folder.path())
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "core.worktree")
            .env("GIT_CONFIG_VALUE_0", &other)
            .output()
            .expect("it starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(&format!("revision Some({wanted:?}) absent None")), "{text}");
    }
}
