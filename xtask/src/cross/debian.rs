//! Debian packages, unpacked privately: nothing is installed, no architecture is added to the system, and apt keeps
//! its lists below `target/`. Works on Debian and what descends from it, as any user.

use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The release that packages come from, whatever the machine itself runs.
const SUITE: &str = "bookworm";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Where the archive is found; the environment variable [`MIRROR_VARIABLE`] names another place.
const MIRROR: &str = "http://deb.debian.org";
const MIRROR_VARIABLE: &str = "EDGEPIPE_DEBIAN_MIRROR";

/// Older lists of packages are fetched again.
const LISTS_LAST: Duration = Duration::from_secs(600);

/// A folder of unpacked packages.
pub(crate) struct Wanted<'a> {
    /// Name of the folder.
    pub(crate) name: &'a str,
    /// What it is good for, to say while downloading.
    pub(crate) purpose: &'a str,
    /// Packages, such as `libc6:arm64`. One that ends in `*` is a dependency of the one before it whose name begins
    /// so: names that carry a version change from time to time. One that ends in `+` comes with all that it depends on,
    /// for this machine.
    pub(crate) packages: &'a [&'a str],
    /// What of them is unpacked, as patterns of tar; empty: all.
    pub(crate) members: &'a [&'a str],
}

/// The first thing that this machine lacks for it.
pub(crate) fn missing() -> Option<String> {
    for program in ["apt-get", "apt-cache", "dpkg-deb", "tar"] {
        let found = Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if found.is_err() {
            return Some(format!("`{program}` is not on PATH"));
        }
    }
    (!Path::new(KEYRING).exists()).then(|| format!("{KEYRING} is missing (package debian-archive-keyring)"))
}

/// The architecture of this machine in Debian's words.
pub(crate) fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Downloads and unpacks packages. Returns the folder, which never changes once it exists.
pub(crate) fn unpack(workspace: &Workspace, wanted: &Wanted<'_>) -> Result<PathBuf> {
    let debian = workspace.state().join("debian");
    let folder = debian.join(wanted.name);
    let recipe = format!("{SUITE} {} {}\n", wanted.packages.join(" "), wanted.members.join(" "));
    let is_there = || fs::read_to_string(folder.join(".recipe")).is_ok_and(|made| made == recipe);
    if is_there() {
        return Ok(folder);
    }
    fs::create_dir_all(&debian).with_context(|| format!("failed to create {}", debian.display()))?;
    let lock = debian.join("lock");
    let lock = fs::File::create(&lock).with_context(|| format!("failed to create {}", lock.display()))?;
    lock.lock().context("failed to wait for another cargo xtask that unpacks packages")?;
    if is_there() {
        return Ok(folder);
    }
    if let Some(missing) = missing() {
        bail!(
            "failed to get Debian's packages ({}) for {}: {missing}. This needs Debian or one of its \
             derivatives",
            wanted.packages.join(", "),
            wanted.purpose
        );
    }
    let begun = Instant::now();
    eprintln!("fetching Debian's packages for {}", wanted.purpose);
    let apt = Apt::open(&debian.join("apt"))?;
    let names = apt.resolve(wanted.packages)?;
    let files = apt.download(&names)?;
    let fresh = debian.join(format!("{}.new", wanted.name));
    remove(&fresh)?;
    fs::create_dir_all(&fresh).with_context(|| format!("failed to create {}", fresh.display()))?;
    for file in &files {
        extract(file, &fresh, wanted.members)?;
        // A copy would only take room: the archive has it.
        let _ = fs::remove_file(file);
    }
    fs::write(fresh.join(".recipe"), recipe)
        .and_then(|()| if folder.exists() { fs::remove_dir_all(&folder) } else { Ok(()) })
        .and_then(|()| fs::rename(&fresh, &folder))
        .with_context(|| format!("failed to put {} in place", folder.display()))?;
    eprintln!("unpacked {} packages in {:.0} s", files.len(), begun.elapsed().as_secs_f64());
    Ok(folder)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Unpacks `members` of a package, or all of it, without owners and without running any of its scripts.
fn extract(package: &Path, folder: &Path, members: &[&str]) -> Result<()> {
    let fail = || format!("failed to unpack {} to {}", package.display(), folder.display());
    let mut content = environment::command("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(fail)?;
    let stream = content.stdout.take().with_context(fail)?;
    let output = environment::command("tar")
        .env("LC_ALL", "C")
        .args(["--extract", "--no-same-owner", "--wildcards", "--directory"])
        .arg(folder)
        .args(members)
        .stdin(stream)
        .output()
        .with_context(fail)?;
    let whole = content.wait().with_context(fail)?.success();
    let said = String::from_utf8_lossy(&output.stderr);
    // A package need not have what another one is unpacked for.
    let harmless = |line: &&str| line.contains("Not found in archive") || line.contains("previous errors");
    let reason = said.lines().find(|line| !harmless(line));
    if whole && (output.status.success() || (reason.is_none() && !said.is_empty())) {
        return Ok(());
    }
    let reason = reason.unwrap_or("the package is damaged").to_owned();
    bail!("{}: {reason}; if the disk is full, free some space, and try again", fail())
}

/// apt with lists, cache and state of its own.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn open(folder: &Path) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial", "packages"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("failed to create {}", part.display()))?;
        }
        let mirror = std::env::var(MIRROR_VARIABLE).unwrap_or_else(|_| MIRROR.to_owned());
        let entry = |archive: &str, suite: &str| {
            format!("deb [arch=amd64,arm64 signed-by={KEYRING}] {mirror}/{archive} {suite} main\n")
        };
        let sources = [
            entry("debian", SUITE),
            entry("debian", &format!("{SUITE}-updates")),
            entry("debian-security", &format!("{SUITE}-security")),
        ]
        .concat();
        let place = folder.display();
        let host = architecture(std::env::consts::ARCH);
        let configuration = format!(
            "Dir::State \"{place}\";\nDir::State::lists \"{place}/lists\";\nDir::State::status \"{place}/status\";\n\
             Dir::Cache \"{place}/cache\";\nDir::Etc::sourcelist \"{place}/sources.list\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\nAPT::Architecture \"{host}\";\n\
             APT::Architectures {{ \"amd64\"; \"arm64\"; }};\nAPT::Sandbox::User \"\";\nAPT::Update::Post-Invoke {{ }};\n\
             Acquire::Retries \"3\";\nAcquire::Languages \"none\";\n"
        );
        for (name, text) in
            [("status", String::new()), ("sources.list", sources), ("apt.conf", configuration)]
        {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        }
        let apt = Self { folder: folder.to_path_buf() };
        apt.update()?;
        Ok(apt)
    }

    /// Fetches the lists of packages, unless that was done a moment ago: several folders are often unpacked in a row.
    fn update(&self) -> Result<()> {
        let stamp = self.folder.join("updated");
        let sources = fs::read_to_string(self.folder.join("sources.list")).unwrap_or_default();
        let age = fs::metadata(&stamp).and_then(|data| data.modified()).ok().and_then(|at| at.elapsed().ok());
        let same = fs::read_to_string(&stamp).is_ok_and(|of| of == sources);
        if same && age.is_some_and(|age| age < LISTS_LAST) {
            return Ok(());
        }
        self.run("apt-get", &["update", "--error-on=any"], "fetch Debian's package lists")?;
        fs::write(&stamp, sources).with_context(|| format!("failed to write {}", stamp.display()))
    }

    fn run(&self, program: &str, arguments: &[&str], what: &str) -> Result<Output> {
        let output = environment::download(program)
            .args(arguments)
            .current_dir(self.folder.join("packages"))
            .env("APT_CONFIG", self.folder.join("apt.conf"))
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("failed to start {program}"))?;
        if output.status.success() {
            return Ok(output);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = said.lines().filter(|line| line.starts_with("E:")).take(3).collect();
        bail!(
            "failed to {what}: {}; check the network and the free disk space, or name another mirror \
             in {MIRROR_VARIABLE}",
            if said.is_empty() { format!("{program} ended with {}", output.status) } else { said.join(" ") }
        )
    }

    /// Names without `*` and `+`.
    fn resolve(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        for package in packages {
            if let Some(package) = package.strip_suffix('+') {
                let arguments = ["install", "--print-uris", "--yes", "--no-install-recommends", package];
                let output = self.run(
                    "apt-get",
                    &arguments,
                    &format!("list the dependencies of the package {package}"),
                )?;
                let whole = String::from_utf8_lossy(&output.stdout).into_owned();
                names.extend(whole.lines().filter_map(of_archive));
                continue;
            }
            let Some(prefix) = package.strip_suffix('*') else {
                names.push((*package).to_owned());
                continue;
            };
            let of = names.last().cloned().unwrap_or_default();
            let output = self.run(
                "apt-cache",
                &["depends", &of],
                &format!("list the dependencies of the package {of}"),
            )?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            names.push(dependency(&text, prefix).with_context(|| {
                format!("failed to find a package {prefix}… among the dependencies of {of}: Debian has changed them")
            })?);
        }
        Ok(names)
    }

    fn download(&self, names: &[String]) -> Result<Vec<PathBuf>> {
        // Two packages may need the same one.
        let names: Vec<&String> = BTreeSet::from_iter(names).into_iter().collect();
        let folder = self.folder.join("packages");
        remove(&folder)?;
        fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        let mut arguments = vec!["download"];
        arguments.extend(names.iter().map(|name| name.as_str()));
        let listed = arguments[1..].join(", ");
        self.run("apt-get", &arguments, &format!("download the packages {listed}"))?;
        let entries =
            fs::read_dir(&folder).with_context(|| format!("failed to read {}", folder.display()))?;
        let mut files: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        files.sort();
        if files.len() == names.len() {
            return Ok(files);
        }
        bail!("failed to download the packages {listed}: received only {}", files.len())
    }
}

/// The first dependency whose name begins with `prefix`, in what `apt-cache depends` printed.
fn dependency(text: &str, prefix: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        // One that is for all architectures stands in angle brackets with the asking one's.
        .map(|name| match name.strip_prefix('<').and_then(|name| name.strip_suffix('>')) {
            Some(inner) => inner.split(':').next().unwrap_or(inner),
            None => name,
        })
        .find(|name| name.starts_with(prefix))
        .map(str::to_owned)
}

/// The package of a line that `apt-get --print-uris` printed: address, file, length, sum.
fn of_archive(line: &str) -> Option<String> {
    let file = line.strip_prefix('\'')?.split_whitespace().nth(1)?.strip_suffix(".deb")?;
    let mut parts = file.split('_');
    let (name, architecture) = (parts.next()?, parts.next_back()?);
    Some(if architecture == "all" { name.to_owned() } else { format!("{name}:{architecture}") })
}

#[cfg(test)]
mod tests {
    use super::{dependency, of_archive};

    #[test]
    fn a_versioned_dependency_is_found_by_its_beginning() {
        let text = "rustc-web\n  Depends: libc6\n  Depends: libstd-rust-web-1.96\n  Depends: <libc-dev>\n  \
                    Conflicts: libstd-rust-x\n";
        assert_eq!(dependency(text, "libstd-rust-").as_deref(), Some("libstd-rust-web-1.96"));
        assert_eq!(dependency(text, "libllvm"), None);
        let text =
            "linux-headers\n  Depends: <linux-headers-6.1-common:arm64>\n    linux-headers-6.1-common\n";
        assert_eq!(dependency(text, "linux-headers-6").as_deref(), Some("linux-headers-6.1-common"));
    }

    #[test]
    fn packages_are_read_from_the_files_that_apt_would_fetch() {
        let line = |file: &str| format!("'http://deb.debian.org/pool/x.deb' {file} 76888 MD5Sum:0");
        let of = |file: &str| of_archive(&line(file));
        assert_eq!(of("libssl3_3.0.22-1~deb12u2_amd64.deb").as_deref(), Some("libssl3:amd64"));
        assert_eq!(of("passwd_1%3a4.13+dfsg1-1_amd64.deb").as_deref(), Some("passwd:amd64"));
        assert_eq!(of("debconf_1.5.82_all.deb").as_deref(), Some("debconf"));
        assert_eq!(of_archive("Reading package lists..."), None);
    }
}
