//! Where an installed `edgepipe` finds its files and keeps its own; docs/installing.md describes the same rules.
//!
//! `cargo xtask` passes all paths instead (`--root` and others), and nothing here is used.

use anyhow::{Context as _, bail};
use campaign::Paths;
use host::exit::{Ending as _, Exit, Outcome};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use toolchain::{CROSS, Check, Place, Toolchain, linker};

/// Oldest C library that TVM's wheels support, and so what zig links for.
const OLDEST_GLIBC: &str = "2.28";

/// The folders of an installed `edgepipe`.
#[derive(Debug)]
pub(crate) struct Installation {
    /// The unpacked archive.
    archive: PathBuf,
    settings: PathBuf,
    work: PathBuf,
    cache: PathBuf,
}

impl Installation {
    /// Finds the archive around this program, and the user's folders.
    ///
    /// # Errors
    /// If this program is not in an unpacked archive, or the user has no home directory.
    pub(crate) fn find() -> Outcome<Self> {
        let program = std::env::current_exe().and_then(fs::canonicalize).ending(Exit::Usage)?;
        let here = std::env::current_dir().ending(Exit::Usage)?;
        Self::around(&program, &here, |name| std::env::var_os(name)).ending(Exit::Usage)
    }

    fn around(
        program: &Path,
        here: &Path,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> anyhow::Result<Self> {
        let archive = program.ancestors().nth(2).unwrap_or(program).to_path_buf();
        if !archive.join("compiler/edgepipe_compiler").is_dir() {
            bail!(
                "failed to find edgepipe's files around {}: run the program inside its unpacked archive (links to \
                 it work), or use `cargo xtask` in a checkout",
                program.display()
            );
        }
        // The specification of XDG says to ignore relative paths.
        let folder = |name: &str, default: &str| -> anyhow::Result<PathBuf> {
            let set = variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
            let home = || variable("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
            let base = set.or_else(|| Some(home()?.join(default)));
            let base = base.with_context(|| {
                format!("failed to find a folder for edgepipe's files: neither {name} nor HOME is set")
            })?;
            Ok(base.join("edgepipe"))
        };
        let config = folder("XDG_CONFIG_HOME", ".config")?;
        let settings =
            [here.to_path_buf(), config].into_iter().find(|folder| folder.join("configs").is_dir());
        let work = Some(here.to_path_buf()).filter(|folder| folder.join("results").is_dir());
        Ok(Self {
            settings: settings.unwrap_or_else(|| archive.clone()),
            work: work.map_or_else(|| folder("XDG_DATA_HOME", ".local/share"), Ok)?,
            cache: folder("XDG_CACHE_HOME", ".cache")?,
            archive,
        })
    }

    /// All paths. `database` is the user's choice.
    ///
    /// # Errors
    /// If the links to runners of other machines cannot be written.
    pub(crate) fn paths(&self, database: Option<PathBuf>) -> Outcome<Paths> {
        self.link_kits().ending(Exit::Usage)?;
        let results = self.work.join("results");
        if database.is_none() {
            fs::create_dir_all(&results)
                .with_context(|| format!("failed to create {}", results.display()))
                .ending(Exit::Usage)?;
        }
        let database = database.unwrap_or_else(|| results.join("results.db"));
        Ok(Paths {
            root: self.archive.clone(),
            settings: self.settings.clone(),
            work: self.work.clone(),
            state: self.cache.clone(),
            python: self.cache.join("toolchain/python/bin/python"),
            runner: self.archive.join("runner/runner"),
            linker: None,
            runs: database.with_extension("runs"),
            database,
        })
    }

    /// Creates the private Python environment on first use, and what links compiled networks without a C compiler.
    ///
    /// # Errors
    /// If there is no Python, or packages cannot be installed.
    pub(crate) fn prepare(&self, paths: &mut Paths, check: Check) -> Outcome<()> {
        self.install(paths, check).ending(Exit::Usage)
    }

    fn install(&self, paths: &mut Paths, check: Check) -> anyhow::Result<()> {
        let place = Place { folder: self.cache.join("toolchain"), root: self.archive.clone() };
        let kits = self.kits();
        let needs_zig = !toolchain::has_c_compiler() || !kits.is_empty();
        let toolchain = place.ensure(if needs_zig { &[&CROSS] } else { &[] }, check)?;
        for name in kits {
            // zig does not know vendors.
            self.write_linker(&toolchain, &name, &name.replacen("-unknown", "", 1))?;
        }
        if !toolchain::has_c_compiler() {
            let target = format!("{}-linux-gnu.{OLDEST_GLIBC}", std::env::consts::ARCH);
            paths.linker = Some(self.write_linker(&toolchain, "host", &target)?);
        }
        paths.python = toolchain.python;
        Ok(())
    }

    fn write_linker(&self, toolchain: &Toolchain, name: &str, target: &str) -> anyhow::Result<PathBuf> {
        let folder = self.cache.join("cross");
        let linker = folder.join(name).join("cc");
        fs::create_dir_all(folder.join(name))
            .with_context(|| format!("failed to create {}", folder.join(name).display()))?;
        linker::write(&linker, toolchain, target, &folder.join("zig-cache"))?;
        Ok(linker)
    }

    /// Names of the targets that the archive has runners for, besides this machine.
    fn kits(&self) -> Vec<String> {
        let entries = fs::read_dir(self.archive.join("cross")).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Links the archive's runners to where the harness looks for them and for their linkers. The archive itself may be
    /// read-only.
    fn link_kits(&self) -> anyhow::Result<()> {
        for name in self.kits() {
            let (from, to) = (self.archive.join("cross").join(&name), self.cache.join("cross").join(&name));
            fs::create_dir_all(&to).with_context(|| format!("failed to create {}", to.display()))?;
            for part in ["runner", "lib"] {
                let link = to.join(part);
                if fs::read_link(&link).is_ok_and(|target| target == from.join(part)) {
                    continue;
                }
                let _ = fs::remove_file(&link);
                std::os::unix::fs::symlink(from.join(part), &link)
                    .with_context(|| format!("failed to create the link {}", link.display()))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Installation;
    use std::ffi::OsString;
    use std::fs;

    #[test]
    fn the_working_folder_comes_first_then_the_users_then_the_archive() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |path: &str| folder.path().join(path);
        for path in ["a/compiler/edgepipe_compiler", "here", "home/.config/edgepipe", "a/configs"] {
            fs::create_dir_all(at(path)).expect("a folder");
        }
        let home = |name: &str| (name == "HOME").then(|| OsString::from(at("home")));
        let find =
            || Installation::around(&at("a/bin/edgepipe"), &at("here"), home).expect("it is an archive");
        let found = find();
        assert_eq!((found.settings, found.archive), (at("a"), at("a")));
        assert_eq!(found.work, at("home/.local/share/edgepipe"));
        assert_eq!(found.cache, at("home/.cache/edgepipe"));
        fs::create_dir_all(at("home/.config/edgepipe/configs")).expect("a folder");
        assert_eq!(find().settings, at("home/.config/edgepipe"));
        fs::create_dir_all(at("here/configs")).expect("a folder");
        fs::create_dir_all(at("here/results")).expect("a folder");
        let found = find();
        assert_eq!((found.settings, found.work), (at("here"), at("here")));
    }

    #[test]
    fn a_program_outside_an_archive_and_a_user_without_a_home_are_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let program = folder.path().join("bin/edgepipe");
        let refused = |home: &str| {
            let variable = |name: &str| (name == "HOME").then(|| OsString::from(home));
            Installation::around(&program, folder.path(), variable).expect_err("it is refused").to_string()
        };
        assert!(refused("/home/a").contains("inside its unpacked archive"));
        fs::create_dir_all(folder.path().join("compiler/edgepipe_compiler")).expect("a folder");
        assert!(refused("relative").contains("neither XDG_CONFIG_HOME nor HOME is set"));
    }
}
