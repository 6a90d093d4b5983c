//! Changes a board's state, and restores it.

use super::memory_clock;
use super::programs::{self, CHANGE_TIMEOUT, DryRun, Privileged};
use super::saved::StateFolder;
use super::settings::{self, governor_file};
use protocol::{
    ClockLimits, CpuGovernor, CpuSettings, SavedCpuLimits, SavedMemoryClock, SavedState, Settings,
    StateRequest,
};
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
    /// Files with the limits of clocks that may have to be written.
    limits: Vec<PathBuf>,
    /// The memory clock as it is, if it may have to be locked.
    memory: Option<memory_clock::Reading>,
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
                format!("the board has no program {name}; `{key}` is for Jetsons only: remove it from the board's file")
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
                return Err("unpinned clocks are requested, but the clocks are pinned, possibly by hand: unpin them \
                            with `jetson_clocks --restore FILE`, where FILE is the one that they were stored in, or reboot"
                    .to_owned());
            }
            _ => None,
        };
        let governors = match &request.governor {
            Some(wanted) => governors_to_set(sysfs, now, wanted, mode.is_some())?,
            None => Vec::new(),
        };
        let others = mode.is_some() || clocks.is_some();
        let limits = limits_to_set(sysfs, now, request, others)?;
        let is_locked = |wanted| now.memory_hz.is_some_and(|hz| memory_clock::is_rate(hz, wanted));
        let memory = match request.memory_hz {
            Some(wanted) if others || !is_locked(wanted) => Some(memory_clock::read(sysfs)?),
            _ => None,
        };
        Ok(Self { request, mode, clocks, governors, limits, memory, number })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mode.is_none()
            && self.clocks.is_none()
            && self.governors.is_empty()
            && self.limits.is_empty()
            && self.memory.is_none()
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
        let files = self.governors.iter().chain(&self.limits);
        let unwritable = files.filter(|path| path.exists() && !programs::is_writable(path));
        commands.extend(unwritable.map(|path| programs::write_command(path)));
        let sysfs = Path::new(&self.request.sysfs);
        commands.extend(self.memory.iter().flat_map(|now| memory_clock::write_commands(sysfs, now)));
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
        if !request.cpu_limits.is_empty() || request.gpu_max_hz.is_some() {
            limit_clocks(request, folder, pending)?;
        }
        if let (Some(rate_hz), Some(found)) = (request.memory_hz, &self.memory) {
            // As it was before the power mode, whose limit it need not meet.
            pending.memory_clock.get_or_insert(found.saved());
            folder.write(pending)?;
            memory_clock::set(sysfs, SavedMemoryClock { rate_hz, is_locked: true })?;
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

/// Files with the limits of clocks that may have to be written; none if all have the requested value. `others` tells whether
/// other changes come before, after which the limits are not known yet.
fn limits_to_set(
    sysfs: &Path,
    now: &Settings,
    request: &StateRequest,
    others: bool,
) -> Result<Vec<PathBuf>, String> {
    let is_pinned = request.jetson_clocks == Some(true);
    let is_set = |min: Option<u64>, max: Option<u64>, wanted: u64| {
        max == Some(wanted) && (!is_pinned || min == Some(wanted))
    };
    let mut files = Vec::new();
    for limit in &request.cpu_limits {
        for cpu in now.cpus.iter().filter(|cpu| limit.cpus.contains(&cpu.id)) {
            if cpu.online && cpu.max_khz.is_none() {
                return Err(format!(
                    "CPU {} is to run at {} kHz at most, but this board's kernel does not control its clock ({} does not \
                     exist); remove its processor from `operating_points` in the board's file",
                    cpu.id,
                    limit.max_khz,
                    settings::cpufreq(sysfs, cpu.id).join(CPU_LIMITS.1).display()
                ));
            }
            if others || (cpu.online && !is_set(cpu.min_khz, cpu.max_khz, limit.max_khz)) {
                let folder = settings::cpufreq(sysfs, cpu.id);
                files.extend([folder.join(CPU_LIMITS.0), folder.join(CPU_LIMITS.1)]);
            }
        }
    }
    if let Some(wanted) = request.gpu_max_hz {
        let (Some(folder), Some(gpu)) = (settings::gpu_folder(sysfs), now.gpu) else {
            return Err(format!(
                "the GPU is to run at {wanted} Hz at most, but this board's kernel does not show its clock; remove it from \
                 `operating_points` in the board's file"
            ));
        };
        if others || !is_set(Some(gpu.min_hz), Some(gpu.max_hz), wanted) {
            files.extend([folder.join(GPU_LIMITS.0), folder.join(GPU_LIMITS.1)]);
        }
    }
    Ok(files)
}

/// Files with the lower and the upper limit of a clock.
type LimitFiles = (&'static str, &'static str);
const CPU_LIMITS: LimitFiles = ("scaling_min_freq", "scaling_max_freq");
const GPU_LIMITS: LimitFiles = ("min_freq", "max_freq");

/// Saves the limits of clocks, and sets the requested ones.
fn limit_clocks(
    request: &StateRequest,
    folder: &StateFolder,
    pending: &mut SavedState,
) -> Result<(), String> {
    let sysfs = Path::new(&request.sysfs);
    let is_pinned = request.jetson_clocks == Some(true);
    let now = settings::read(request)?;
    let limits = |cpu: &CpuSettings| Some((cpu.min_khz?, cpu.max_khz?));
    let mut wanted = Vec::new();
    for limit in &request.cpu_limits {
        for cpu in settings::clocked(&now).filter(|cpu| limit.cpus.contains(&cpu.id)) {
            let Some((min_khz, max_khz)) = limits(cpu) else { continue };
            if !pending.cpu_limits.iter().any(|known| known.cpu == cpu.id) {
                pending.cpu_limits.push(SavedCpuLimits { cpu: cpu.id, min_khz, max_khz });
            }
            wanted.push((cpu.id, limit.max_khz));
        }
    }
    let gpu = request.gpu_max_hz.zip(settings::gpu_folder(sysfs)).zip(now.gpu);
    if let Some((_, limits)) = &gpu {
        pending.gpu_limits.get_or_insert(*limits);
    }
    folder.write(pending)?;
    let lowest = |min: u64, max: u64| if is_pinned { max } else { min.min(max) };
    for (id, max_khz) in wanted {
        // CPUs may share the files, so the limits are those of now.
        if let Some((min, max)) = limits(&settings::cpu(sysfs, id, &[id])) {
            write_limits(
                &settings::cpufreq(sysfs, id),
                CPU_LIMITS,
                (min, max),
                (lowest(min, max_khz), max_khz),
            )?;
        }
    }
    if let Some(((max_hz, folder), ClockLimits { min_hz, max_hz: highest })) = gpu {
        write_limits(&folder, GPU_LIMITS, (min_hz, highest), (lowest(min_hz, max_hz), max_hz))?;
    }
    Ok(())
}

/// Writes the lower and the upper limit of a clock, in an order in which the lower one never exceeds the upper one.
fn write_limits(
    folder: &Path,
    (min_file, max_file): LimitFiles,
    now: (u64, u64),
    wanted: (u64, u64),
) -> Result<(), String> {
    let write = |file: &str, now: u64, wanted: u64| {
        if now == wanted { Ok(()) } else { programs::write(&folder.join(file), &wanted.to_string()) }
    };
    let (min, max) = (|| write(min_file, now.0, wanted.0), || write(max_file, now.1, wanted.1));
    if wanted.1 >= now.0 { max().and_then(|()| min()) } else { min().and_then(|()| max()) }
}

/// Restores the limits of clocks in the requested power mode.
fn restore_limits(pending: &SavedState, mut attempt: impl FnMut(Result<(), String>)) {
    let sysfs = Path::new(&pending.request.sysfs);
    for saved in &pending.cpu_limits {
        let now = settings::cpu(sysfs, saved.cpu, &[saved.cpu]);
        if let (Some(min), Some(max)) = (now.min_khz, now.max_khz) {
            let folder = settings::cpufreq(sysfs, saved.cpu);
            attempt(write_limits(&folder, CPU_LIMITS, (min, max), (saved.min_khz, saved.max_khz)));
        }
    }
    if let Some(saved) = pending.gpu_limits
        && let (Some(folder), Some(now)) = (settings::gpu_folder(sysfs), settings::gpu(sysfs))
    {
        let (now, saved) = ((now.min_hz, now.max_hz), (saved.min_hz, saved.max_hz));
        attempt(write_limits(&folder, GPU_LIMITS, now, saved));
    }
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
    // In the reverse order of the changes.
    if is_same_boot {
        restore_limits(pending, &mut attempt);
    }
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
    if let Some(saved) = pending.memory_clock.filter(|_| is_same_boot) {
        attempt(memory_clock::set(sysfs, saved));
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
    if pending.memory_clock.is_some() && now.memory_hz != found.memory_hz {
        let shown =
            |hz: Option<u64>| hz.map_or_else(|| "not locked".to_owned(), |hz| format!("locked at {hz} Hz"));
        missing.push(format!("the memory clock is {}, was {}", shown(now.memory_hz), shown(found.memory_hz)));
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
    for saved in &pending.cpu_limits {
        let of = |settings: &Settings| -> Option<(u64, u64)> {
            let cpu = settings.cpus.iter().find(|cpu| cpu.id == saved.cpu && cpu.online)?;
            Some((cpu.min_khz?, cpu.max_khz?))
        };
        if let (Some(was), Some(is)) = (of(found), of(now))
            && was != is
        {
            missing.push(format!(
                "limits of CPU {} are {} to {} kHz, were {} to {} kHz",
                saved.cpu, is.0, is.1, was.0, was.1
            ));
        }
    }
    if let (Some(_), Some(was), Some(is)) = (pending.gpu_limits, found.gpu, now.gpu)
        && was != is
    {
        missing.push(format!(
            "limits of the GPU are {} to {} Hz, were {} to {} Hz",
            is.min_hz, is.max_hz, was.min_hz, was.max_hz
        ));
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
        "power mode {mode} is requested, but the mode is {now}: {} -m {mode} {}; if the mode needs a reboot, set it by hand",
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
