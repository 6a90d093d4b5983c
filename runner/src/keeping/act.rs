//! Changing a board's state, and changing it back.

use super::pending::Folder;
use super::programs::{self, CHANGING, Privileged, Trial};
use super::{governor, settings};
use protocol::{Asked, CpuGovernor, CpuSettings, Pending, Settings};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Clocks may take a moment to be where they were sent.
const SETTLING: Duration = Duration::from_secs(5);

/// Which time a session brings the board to its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The first.
    First,
    /// A later one, and nothing has changed since.
    Unchanged,
    /// A later one, and something has: all is set again, since limits within a mode may be others.
    Changed,
}

/// What is to be done to bring a board to what is asked.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    asked: &'a Asked,
    /// The program and the mode, where the mode is another one.
    mode: Option<(PathBuf, u32)>,
    /// The program, where the clocks are to be pinned.
    clocks: Option<PathBuf>,
    /// Files of governors that may have to be written; a power mode may bring more CPUs.
    governors: Vec<PathBuf>,
    turn: Turn,
}

impl<'a> Plan<'a> {
    /// # Errors
    /// Where the board cannot do what is asked. The message is a sentence of its own.
    pub(super) fn new(asked: &'a Asked, now: &Settings, folder: &Folder, turn: Turn) -> Result<Self, String> {
        let sysfs = Path::new(&asked.sysfs);
        let program = |name: &str, key: &str| {
            programs::find(name).ok_or_else(|| {
                format!("the board has no {name}; `{key}` is for Jetsons, leave it out of the board's file")
            })
        };
        let mode = match asked.nvpmodel {
            Some(wanted) => {
                let nvpmodel = program("nvpmodel", "nvpmodel")?;
                let is_set = now.power_mode.as_ref().is_some_and(|mode| mode.id == wanted);
                (!is_set || turn == Turn::Changed).then_some((nvpmodel, wanted))
            }
            None => None,
        };
        let clocks = match asked.jetson_clocks {
            Some(true) => {
                let jetson_clocks = program("jetson_clocks", "jetson_clocks")?;
                (turn != Turn::Unchanged).then_some(jetson_clocks)
            }
            Some(false) if !folder.clocks_before().exists() && settings::are_pinned(sysfs, now) => {
                return Err("clocks that are not pinned were asked for, and they are pinned, by hand perhaps: \
                            `jetson_clocks --restore` with the file they were stored to, or a restart, lets go of them"
                    .to_owned());
            }
            _ => None,
        };
        let governors = match &asked.governor {
            Some(wanted) => governors_to_set(sysfs, now, wanted, mode.is_some())?,
            None => Vec::new(),
        };
        Ok(Self { asked, mode, clocks, governors, turn })
    }

    /// Whether the board is as asked.
    pub(super) fn is_nothing(&self) -> bool {
        self.mode.is_none() && self.clocks.is_none() && self.governors.is_empty()
    }

    /// Makes sure that all of it may be done.
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
                trial: Trial::with("-q"),
            });
        }
        if let Some(jetson_clocks) = &self.clocks {
            commands.push(Privileged {
                program: jetson_clocks.clone(),
                arguments: vec!["--show".to_owned()],
                any_arguments: true,
                trial: Trial::with("--show"),
            });
        }
        let unwritable = self.governors.iter().filter(|path| !programs::is_writable(path));
        commands.extend(unwritable.map(|path| programs::writing(path)));
        programs::check_root(&commands)
    }

    /// Lets `jetson_clocks` store the clocks of the mode that was found. This changes nothing.
    pub(super) fn store_clocks(&self, folder: &Folder) -> Result<(), String> {
        folder.forget_clocks()?;
        match &self.clocks {
            Some(jetson_clocks) => store(jetson_clocks, &folder.clocks_before()),
            None => Ok(()),
        }
    }

    /// Does it, and reads back. Gives the settings the board has now.
    pub(super) fn apply(&self, folder: &Folder, pending: &mut Pending) -> Result<Settings, String> {
        let asked = self.asked;
        let sysfs = Path::new(&asked.sysfs);
        if let Some((nvpmodel, mode)) = &self.mode {
            set_mode(nvpmodel, *mode)?;
        }
        if let Some(jetson_clocks) = &self.clocks {
            // In the mode that was found, the clocks are stored already; later, they are pinned already.
            if self.mode.is_some() && self.turn == Turn::First {
                store(jetson_clocks, &folder.clocks_in_mode())?;
            }
            change(jetson_clocks, &[])?;
        }
        if let Some(wanted) = &self.asked.governor {
            let now = settings::read(asked)?;
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
                programs::write(&governor(sysfs, *cpu), wanted)?;
            }
        }
        let deadline = Instant::now() + SETTLING;
        loop {
            let now = settings::read(asked)?;
            let mismatches = settings::mismatches(self.asked, &now);
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

/// Governor files that may have to be written; none where all CPUs have the governor.
fn governors_to_set(
    sysfs: &Path,
    now: &Settings,
    wanted: &str,
    mode_changes: bool,
) -> Result<Vec<PathBuf>, String> {
    if settings::clocked(now).all(|cpu| cpu.governor.is_none()) {
        return Err(format!(
            "the governor {wanted} was asked for, and this board's kernel has no governors of frequency \
             ({}); leave `governor` out of the board's file",
            governor(sysfs, 0).display()
        ));
    }
    let is_other = |cpu: &&CpuSettings| cpu.governor.as_deref() != Some(wanted);
    for cpu in settings::clocked(now).filter(is_other) {
        let path = settings::cpufreq(sysfs, cpu.id).join("scaling_available_governors");
        let available = fs::read_to_string(path).unwrap_or_default();
        if !available.is_empty() && !available.split_whitespace().any(|name| name == wanted) {
            return Err(format!(
                "the governor {wanted} was asked for, and CPU {} has {} only",
                cpu.id,
                available.split_whitespace().collect::<Vec<_>>().join(", ")
            ));
        }
    }
    let file = |cpu: &CpuSettings| governor(sysfs, cpu.id);
    Ok(if mode_changes {
        now.cpus.iter().map(file).collect()
    } else {
        settings::clocked(now).filter(is_other).map(file).collect()
    })
}

/// The kernel's name for the time since it was started.
pub(super) fn boot() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// Restores what was found, reads back, and says what is not as it was all the same.
///
/// # Errors
/// Where what was changed is not as it was. The message is a sentence of its own.
pub(super) fn restore(pending: &Pending, folder: &Folder) -> Result<Vec<String>, String> {
    let Pending { asked, found, governors, .. } = pending;
    let sysfs = Path::new(&asked.sysfs);
    // Clocks and governors begin anew with each start of the kernel; the power mode outlives it.
    let is_same_boot = pending.boot.is_some() && pending.boot == boot();
    let jetson_clocks =
        programs::find("jetson_clocks").filter(|_| is_same_boot && asked.jetson_clocks == Some(true));
    let now = settings::read(asked)?;
    let wanted = asked.nvpmodel.and(found.power_mode.as_ref());
    let mode = wanted.filter(|wanted| now.power_mode.as_ref() != Some(*wanted));
    let mut failures = Vec::new();
    let mut attempt = |done: Result<(), String>| failures.extend(done.err());
    // First, while the CPUs of the mode that was set are there.
    for CpuGovernor { cpu, governor: was } in governors.iter().filter(|_| is_same_boot) {
        let path = governor(sysfs, *cpu);
        let is = fs::read_to_string(&path).unwrap_or_default();
        if !is.is_empty() && is.trim() != was {
            attempt(programs::write(&path, was));
        }
    }
    // Clocks that are pinned would stand in the way of another mode's limits.
    if let Some(jetson_clocks) = jetson_clocks.as_ref().filter(|_| folder.clocks_in_mode().exists()) {
        attempt(restore_clocks(jetson_clocks, &folder.clocks_in_mode()));
    }
    if let Some(mode) = mode {
        match programs::find("nvpmodel") {
            Some(nvpmodel) => attempt(set_mode(&nvpmodel, mode.id)),
            None => attempt(Err("the board has no nvpmodel any more".to_owned())),
        }
    }
    if let Some(jetson_clocks) = jetson_clocks.as_ref().filter(|_| folder.clocks_before().exists()) {
        attempt(restore_clocks(jetson_clocks, &folder.clocks_before()));
    }
    let deadline = Instant::now() + SETTLING;
    loop {
        let now = settings::read(asked)?;
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

/// What was changed and is not as it was.
fn not_restored(pending: &Pending, now: &Settings, is_same_boot: bool) -> Vec<String> {
    let Pending { asked, found, .. } = pending;
    let sysfs = Path::new(&asked.sysfs);
    let mut missing = Vec::new();
    if asked.nvpmodel.is_some() && now.power_mode != found.power_mode {
        missing.extend(settings::mode_difference(found, now));
    }
    if !is_same_boot {
        return missing;
    }
    let is_pinned = asked.jetson_clocks == Some(true) && settings::are_pinned(sysfs, now);
    if is_pinned && !settings::were_pinned(found) {
        missing.push("the clocks are still pinned".to_owned());
    }
    for CpuGovernor { cpu, governor: was } in &pending.governors {
        let is = settings::clocked(now).find(|known| known.id == *cpu).and_then(|cpu| cpu.governor.as_ref());
        if let Some(is) = is.filter(|is| *is != was) {
            missing.push(format!("governor of CPU {cpu}: {is}, was {was}"));
        }
    }
    missing
}

fn set_mode(nvpmodel: &Path, mode: u32) -> Result<(), String> {
    let number = mode.to_string();
    let ended = programs::run_as_root(nvpmodel, &["-m", &number], CHANGING)?;
    let now = settings::power_mode()?;
    if now.as_ref().is_some_and(|now| now.id == mode) {
        return Ok(());
    }
    let now = now.map_or_else(|| "unknown".to_owned(), |now| format!("{} ({})", now.id, now.name));
    Err(format!(
        "power mode {mode} was asked for, found {now}: {} -m {mode} {}; a mode that needs a restart must be set by hand",
        nvpmodel.display(),
        ended.told()
    ))
}

fn store(jetson_clocks: &Path, file: &Path) -> Result<(), String> {
    change(jetson_clocks, &["--store", &file.to_string_lossy()])?;
    if file.exists() {
        return Ok(());
    }
    Err(format!("{} --store {} left no such file", jetson_clocks.display(), file.display()))
}

fn restore_clocks(jetson_clocks: &Path, file: &Path) -> Result<(), String> {
    change(jetson_clocks, &["--restore", &file.to_string_lossy()])
}

fn change(program: &Path, arguments: &[&str]) -> Result<(), String> {
    let ended = programs::run_as_root(program, arguments, CHANGING)?;
    if ended.is_success() {
        return Ok(());
    }
    Err(format!("{} {} {}", program.display(), arguments.join(" "), ended.told()))
}
