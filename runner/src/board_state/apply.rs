//! Changes a board's state, and restores it.

use super::programs::{self, CHANGE_TIMEOUT, DryRun, Privileged};
use super::saved::StateFolder;
use super::settings::{self, governor_file};
use protocol::{CpuGovernor, CpuSettings, SavedState, Settings, StateRequest};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time for clocks to reach their new frequency.
const SETTLING: Duration = Duration::from_secs(5);

/// Whether a session requests a state for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestNumber {
    First,
    /// A later request, and no setting has changed since.
    LaterUnchanged,
    /// A later request, and a setting has changed: everything is set again, because limits within a mode may differ.
    LaterChanged,
}

/// The changes that set a requested state.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    request: &'a StateRequest,
    /// `nvpmodel` and the mode, if the mode must change.
    mode: Option<(PathBuf, u32)>,
    /// `jetson_clocks`, if it must pin the clocks.
    clocks: Option<PathBuf>,
    /// Governor files that may have to be written. A change of the power mode may bring more CPUs online.
    governors: Vec<PathBuf>,
    number: RequestNumber,
}

impl<'a> Plan<'a> {
    /// # Errors
    /// If the board does not support the request. The message is a clause.
    pub(super) fn new(
        request: &'a StateRequest,
        now: &Settings,
        folder: &StateFolder,
        number: RequestNumber,
    ) -> Result<Self, String> {
        let sysfs = Path::new(&request.sysfs);
        let program = |name: &str, key: &str| {
            programs::find(name).ok_or_else(|| {
                format!("the board has no program {name}; `{key}` is for Jetsons only, remove it from the board's file")
            })
        };
        let mode = match request.nvpmodel {
            Some(wanted) => {
                let nvpmodel = program("nvpmodel", "nvpmodel")?;
                let is_set = now.power_mode.as_ref().is_some_and(|mode| mode.id == wanted);
                (!is_set || number == RequestNumber::LaterChanged).then_some((nvpmodel, wanted))
            }
            None => None,
        };
        let clocks = match request.jetson_clocks {
            Some(true) => {
                let jetson_clocks = program("jetson_clocks", "jetson_clocks")?;
                (number != RequestNumber::LaterUnchanged).then_some(jetson_clocks)
            }
            Some(false) if !folder.clocks_before().exists() && settings::are_pinned(sysfs, now) => {
                return Err("unpinned clocks are requested, but the clocks are pinned, possibly by hand: unpin them by \
                            `jetson_clocks --restore` with the file they were stored to, or by a reboot"
                    .to_owned());
            }
            _ => None,
        };
        let governors = match &request.governor {
            Some(wanted) => governors_to_set(sysfs, now, wanted, mode.is_some())?,
            None => Vec::new(),
        };
        Ok(Self { request, mode, clocks, governors, number })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mode.is_none() && self.clocks.is_none() && self.governors.is_empty()
    }

    /// Checks that the runner has the permission for all changes.
    ///
    /// # Errors
    /// As [`programs::check_root`].
    pub(super) fn check(&self) -> Result<(), String> {
        let mut commands = Vec::new();
        if let Some((nvpmodel, mode)) = &self.mode {
            commands.push(Privileged {
                program: nvpmodel.clone(),
                arguments: vec!["-m".to_owned(), mode.to_string()],
                any_arguments: true,
                dry_run: DryRun::with("-q"),
            });
        }
        if let Some(jetson_clocks) = &self.clocks {
            commands.push(Privileged {
                program: jetson_clocks.clone(),
                arguments: vec!["--show".to_owned()],
                any_arguments: true,
                dry_run: DryRun::with("--show"),
            });
        }
        let unwritable = self.governors.iter().filter(|path| !programs::is_writable(path));
        commands.extend(unwritable.map(|path| programs::write_command(path)));
        programs::check_root(&commands)
    }

    /// Lets `jetson_clocks` store the clocks of the current mode. This changes nothing.
    pub(super) fn store_clocks(&self, folder: &StateFolder) -> Result<(), String> {
        folder.remove_clocks()?;
        match &self.clocks {
            Some(jetson_clocks) => store_clocks(jetson_clocks, &folder.clocks_before()),
            None => Ok(()),
        }
    }

    /// Applies the changes, and returns the settings as read back.
    pub(super) fn apply(&self, folder: &StateFolder, pending: &mut SavedState) -> Result<Settings, String> {
        let request = self.request;
        let sysfs = Path::new(&request.sysfs);
        if let Some((nvpmodel, mode)) = &self.mode {
            set_mode(nvpmodel, *mode)?;
        }
        if let Some(jetson_clocks) = &self.clocks {
            // Without a new mode they are stored already, and a later request finds them pinned.
            if self.mode.is_some() && self.number == RequestNumber::First {
                store_clocks(jetson_clocks, &folder.clocks_in_mode())?;
            }
            run_successfully(jetson_clocks, &[])?;
        }
        if let Some(wanted) = &self.request.governor {
            let now = settings::read(request)?;
            let others = settings::clocked(&now)
                .filter_map(|cpu| Some((cpu.id, cpu.governor.clone()?)))
                .filter(|(_, governor)| governor != wanted);
            let others: Vec<(u32, String)> = others.collect();
            for (cpu, governor) in &others {
                if !pending.governors.iter().any(|known| known.cpu == *cpu) {
                    pending.governors.push(CpuGovernor { cpu: *cpu, governor: governor.clone() });
                }
            }
            folder.write(pending)?;
            for (cpu, _) in &others {
                programs::write(&governor_file(sysfs, *cpu), wanted)?;
            }
        }
        let deadline = Instant::now() + SETTLING;
        loop {
            let now = settings::read(request)?;
            let mismatches = settings::mismatches(self.request, &now);
            if mismatches.is_empty() {
                return Ok(now);
            }
            if Instant::now() >= deadline {
                return Err(mismatches.join("; "));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Governor files that may have to be written; none if all CPUs have the governor.
fn governors_to_set(
    sysfs: &Path,
    now: &Settings,
    wanted: &str,
    mode_changes: bool,
) -> Result<Vec<PathBuf>, String> {
    if settings::clocked(now).all(|cpu| cpu.governor.is_none()) {
        return Err(format!(
            "governor {wanted} is requested, but this board's kernel has no frequency governors ({} does not exist); remove \
             `governor` from the board's file",
            governor_file(sysfs, 0).display()
        ));
    }
    let is_other = |cpu: &&CpuSettings| cpu.governor.as_deref() != Some(wanted);
    for cpu in settings::clocked(now).filter(is_other) {
        let path = settings::cpufreq(sysfs, cpu.id).join("scaling_available_governors");
        let available = fs::read_to_string(path).unwrap_or_default();
        if !available.is_empty() && !available.split_whitespace().any(|name| name == wanted) {
            return Err(format!(
                "governor {wanted} is requested, but CPU {} supports only {}",
                cpu.id,
                available.split_whitespace().collect::<Vec<_>>().join(", ")
            ));
        }
    }
    let file = |cpu: &CpuSettings| governor_file(sysfs, cpu.id);
    Ok(if mode_changes {
        now.cpus.iter().map(file).collect()
    } else {
        settings::clocked(now).filter(is_other).map(file).collect()
    })
}

/// The kernel's id of the current boot.
pub(super) fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// Restores what was found, and returns the settings that differ from it when read back.
///
/// # Errors
/// If something that the session changed was not restored. The message is a clause.
pub(super) fn restore(pending: &SavedState, folder: &StateFolder) -> Result<Vec<String>, String> {
    let SavedState { request, found, governors, .. } = pending;
    let sysfs = Path::new(&request.sysfs);
    // Clocks and governors are reset by a reboot; the power mode is not.
    let is_same_boot = pending.boot.is_some() && pending.boot == boot_id();
    let jetson_clocks =
        programs::find("jetson_clocks").filter(|_| is_same_boot && request.jetson_clocks == Some(true));
    let now = settings::read(request)?;
    let wanted = request.nvpmodel.and(found.power_mode.as_ref());
    let mode = wanted.filter(|wanted| now.power_mode.as_ref() != Some(*wanted));
    let mut failures = Vec::new();
    let mut attempt = |done: Result<(), String>| failures.extend(done.err());
    // Before the mode is restored, because it may take CPUs offline.
    for CpuGovernor { cpu, governor: was } in governors.iter().filter(|_| is_same_boot) {
        let path = governor_file(sysfs, *cpu);
        let is = fs::read_to_string(&path).unwrap_or_default();
        if !is.is_empty() && is.trim() != was {
            attempt(programs::write(&path, was));
        }
    }
    // Before the mode is restored, because pinned clocks override its limits.
    if let Some(jetson_clocks) = jetson_clocks.as_ref().filter(|_| folder.clocks_in_mode().exists()) {
        attempt(restore_clocks(jetson_clocks, &folder.clocks_in_mode()));
    }
    if let Some(mode) = mode {
        match programs::find("nvpmodel") {
            Some(nvpmodel) => attempt(set_mode(&nvpmodel, mode.id)),
            None => attempt(Err("the board no longer has the program nvpmodel".to_owned())),
        }
    }
    if let Some(jetson_clocks) = jetson_clocks.as_ref().filter(|_| folder.clocks_before().exists()) {
        attempt(restore_clocks(jetson_clocks, &folder.clocks_before()));
    }
    let deadline = Instant::now() + SETTLING;
    loop {
        let now = settings::read(request)?;
        let missing = not_restored(pending, &now, is_same_boot);
        let differences = if is_same_boot { settings::differences(found, &now) } else { Vec::new() };
        if missing.is_empty() && differences.is_empty() {
            return Ok(Vec::new());
        }
        if Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        if missing.is_empty() && failures.is_empty() {
            return Ok(differences);
        }
        failures.extend(missing);
        return Err(failures.join("; "));
    }
}

/// What the session changed and is not restored.
fn not_restored(pending: &SavedState, now: &Settings, is_same_boot: bool) -> Vec<String> {
    let SavedState { request, found, .. } = pending;
    let sysfs = Path::new(&request.sysfs);
    let mut missing = Vec::new();
    if request.nvpmodel.is_some() && now.power_mode != found.power_mode {
        missing.extend(settings::mode_difference(found, now));
    }
    if !is_same_boot {
        return missing;
    }
    let is_pinned = request.jetson_clocks == Some(true) && settings::are_pinned(sysfs, now);
    if is_pinned && !settings::were_pinned(found) {
        missing.push("the clocks are still pinned".to_owned());
    }
    for CpuGovernor { cpu, governor: was } in &pending.governors {
        let is = settings::clocked(now).find(|known| known.id == *cpu).and_then(|cpu| cpu.governor.as_ref());
        if let Some(is) = is.filter(|is| *is != was) {
            missing.push(format!("governor of CPU {cpu} is {is}, was {was}"));
        }
    }
    missing
}

fn set_mode(nvpmodel: &Path, mode: u32) -> Result<(), String> {
    let number = mode.to_string();
    let finished = programs::run_as_root(nvpmodel, &["-m", &number], CHANGE_TIMEOUT)?;
    let now = settings::power_mode()?;
    if now.as_ref().is_some_and(|now| now.id == mode) {
        return Ok(());
    }
    let now = now.map_or_else(|| "unknown".to_owned(), |now| format!("{} ({})", now.id, now.name));
    Err(format!(
        "power mode {mode} is requested, but the mode is {now}: {} -m {mode} {}; set a mode that needs a reboot by hand",
        nvpmodel.display(),
        finished.describe()
    ))
}

fn store_clocks(jetson_clocks: &Path, file: &Path) -> Result<(), String> {
    run_successfully(jetson_clocks, &["--store", &file.to_string_lossy()])?;
    if file.exists() {
        return Ok(());
    }
    Err(format!("{} --store {} did not create that file", jetson_clocks.display(), file.display()))
}

fn restore_clocks(jetson_clocks: &Path, file: &Path) -> Result<(), String> {
    run_successfully(jetson_clocks, &["--restore", &file.to_string_lossy()])
}

fn run_successfully(program: &Path, arguments: &[&str]) -> Result<(), String> {
    let finished = programs::run_as_root(program, arguments, CHANGE_TIMEOUT)?;
    if finished.is_success() {
        return Ok(());
    }
    Err(format!("{} {} {}", program.display(), arguments.join(" "), finished.describe()))
}
