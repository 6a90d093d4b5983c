//! What checks the HTML report in a browser: two packages from npm, pinned by hash in `ci/browser/package-lock.json`.

use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What is laid beside the modules.
const FILES: [&str; 3] = ["package.json", "package-lock.json", "check.mjs"];

/// Whether `EDGEPIPE_SKIP` names this part of the tests.
pub(crate) fn is_skipped() -> bool {
    std::env::var("EDGEPIPE_SKIP").is_ok_and(|skip| skip.split(',').any(|part| part.trim() == "browser"))
}

/// Installs missing packages below the build folder, and returns the folder.
pub(crate) fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.state().join("browser");
    fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let stamp = folder.join("installed");
    let lock = workspace.root.join("ci/browser/package-lock.json");
    let wanted = fs::read_to_string(&lock).with_context(|| format!("failed to read {}", lock.display()))?;
    for name in FILES {
        let (from, to) = (workspace.root.join("ci/browser").join(name), folder.join(name));
        fs::copy(&from, &to)
            .with_context(|| format!("failed to copy {} to {}", from.display(), to.display()))?;
    }
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(folder);
    }
    eprintln!("installing playwright-core and axe-core (pinned and hash-checked in ci/browser)");
    let status = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
        .current_dir(&folder)
        .status()
        .context(
            "failed to start npm: install Node.js 18 or newer with npm and Chromium (Debian: apt-get install nodejs \
             npm chromium), or leave the check of the HTML report out with EDGEPIPE_SKIP=browser",
        )?;
    if !status.success() {
        bail!("failed to install the packages of ci/browser: see npm's message above");
    }
    fs::write(&stamp, wanted).with_context(|| format!("failed to write {}", stamp.display()))?;
    Ok(folder)
}
