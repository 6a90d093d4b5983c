//! Reads the settings of a board, and compares them with a request.

use super::memory_clock;
use super::programs::{self, QUERY_TIMEOUT};
use crate::timed_read::text;
use protocol::{
    ClockLimits, Clocks, CpuClock, CpuSettings, PowerMode, SettingDifference, Settings, StateRequest,
    parse_cpu_list,
};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders of a GPU's clock below sysfs, in search order: TX2, its alias, the device class.
const GPU: [&str; 3] = ["devices/17000000.gp10b/devfreq", "devices/gpu.0/devfreq", "class/devfreq"];
/// Names of GPUs in the device class, which also contains other clocks.
const GPU_NAMES: [&str; 4] = ["gp10b", "gv11b", "ga10b", "gpu"];

/// Reads the power mode; `None` if the board has no `nvpmodel`.
///
/// # Errors
/// If `nvpmodel` does not show it. The message is a clause.
pub(crate) fn power_mode() -> Result<Option<PowerMode>, String> {
    let Some(nvpmodel) = programs::find("nvpmodel") else { return Ok(None) };
    let finished = programs::run(&nvpmodel, &["-q"], QUERY_TIMEOUT)?;
    if let Some(mode) = parse_mode(&finished.stdout) {
        return Ok(Some(mode));
    }
    // Some versions answer only root.
    match programs::run_as_root(&nvpmodel, &["-q"], QUERY_TIMEOUT)
        .map(|finished| parse_mode(&finished.stdout))
    {
        Ok(Some(mode)) => Ok(Some(mode)),
        _ => Err(format!(
            "{0} -q does not show the power mode: it {1}; set one by hand (`sudo {0} -m 0`), or remove `nvpmodel` from the \
             board's file",
            nvpmodel.display(),
            finished.describe()
        )),
    }
}

/// Parses `NV Power Mode: MAXN` with its number on the next line; warnings may precede.
fn parse_mode(text: &str) -> Option<PowerMode> {
    let mut lines = text.lines().map(str::trim).skip_while(|line| !line.starts_with("NV Power Mode:"));
    let name = lines.next()?.strip_prefix("NV Power Mode:")?.trim().to_owned();
    Some(PowerMode { id: lines.next()?.parse().ok()?, name })
}

fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

/// All CPUs, ascending.
fn cpu_numbers(sysfs: &Path) -> Vec<u32> {
    let Ok(folder) = fs::read_dir(sysfs.join("devices/system/cpu")) else { return Vec::new() };
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix("cpu")?.parse().ok();
    let mut found: Vec<u32> = folder.flatten().filter_map(number).collect();
    found.sort_unstable();
    found
}

pub(crate) fn online(sysfs: &Path) -> Vec<u32> {
    parse_cpu_list(&text(&sysfs.join("devices/system/cpu/online")).unwrap_or_default())
}

pub(super) fn governor_file(sysfs: &Path, cpu: u32) -> PathBuf {
    cpufreq(sysfs, cpu).join("scaling_governor")
}

/// The folder of a CPU's clock.
pub(crate) fn cpufreq(sysfs: &Path, cpu: u32) -> PathBuf {
    sysfs.join(format!("devices/system/cpu/cpu{cpu}/cpufreq"))
}

pub(crate) fn cpu(sysfs: &Path, id: u32, online: &[u32]) -> CpuSettings {
    let folder = cpufreq(sysfs, id);
    CpuSettings {
        id,
        online: online.contains(&id),
        governor: text(&governor_file(sysfs, id)),
        min_khz: number(&folder.join("scaling_min_freq")),
        max_khz: number(&folder.join("scaling_max_freq")),
    }
}

/// Current frequency of a CPU as stored in the kernel; reading it does not wake the CPU.
pub(crate) fn current_khz(sysfs: &Path, cpu: u32) -> Option<u64> {
    number(&cpufreq(sysfs, cpu).join("scaling_cur_freq"))
}

/// The folder of the GPU's clock.
pub(crate) fn gpu_folder(sysfs: &Path) -> Option<PathBuf> {
    GPU.iter().find_map(|place| {
        let mut found: Vec<PathBuf> =
            fs::read_dir(sysfs.join(place)).ok()?.flatten().map(|entry| entry.path()).collect();
        found.sort();
        let is_class = place.starts_with("class");
        found.into_iter().find(|folder| {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (!is_class || GPU_NAMES.iter().any(|gpu| name.contains(gpu))) && folder.join("max_freq").exists()
        })
    })
}

pub(crate) fn gpu(sysfs: &Path) -> Option<ClockLimits> {
    let folder = gpu_folder(sysfs)?;
    let (min_hz, max_hz) = (number(&folder.join("min_freq"))?, number(&folder.join("max_freq"))?);
    Some(ClockLimits { min_hz, max_hz })
}

/// Frequency at which the memory clock is locked, if this process may read it.
pub(crate) fn memory_locked_hz(sysfs: &Path) -> Option<u64> {
    memory_clock::visible(sysfs)?.locked_hz()
}

/// Current frequency of the GPU.
pub(crate) fn gpu_current_hz(sysfs: &Path) -> Option<u64> {
    number(&gpu_folder(sysfs)?.join("cur_freq"))
}

/// Reads all settings.
///
/// # Errors
/// As [`power_mode`] and [`memory_clock::read`], if a power mode or a memory clock is requested; otherwise they may stay unknown.
pub(crate) fn read(request: &StateRequest) -> Result<Settings, String> {
    let sysfs = Path::new(&request.sysfs);
    let mode = match (power_mode(), request.nvpmodel) {
        (Err(error), Some(_)) => return Err(error),
        (mode, _) => mode.unwrap_or(None),
    };
    let mut settings = read_with(sysfs, mode);
    if request.memory_hz.is_some() {
        settings.memory_hz = memory_clock::read(sysfs)?.locked_hz();
    }
    Ok(settings)
}

/// Reads all settings but the power mode.
pub(crate) fn read_with(sysfs: &Path, power_mode: Option<PowerMode>) -> Settings {
    let online = online(sysfs);
    let cpus = cpu_numbers(sysfs).into_iter().map(|id| cpu(sysfs, id, &online)).collect();
    Settings { power_mode, cpus, gpu: gpu(sysfs), memory_hz: memory_locked_hz(sysfs) }
}

/// The frequencies, governors and power modes that the board offers in its present power mode. `memory`: those of the memory
/// clock too, as root if necessary.
pub(crate) fn clocks(id: u64, sysfs: &Path, memory: bool) -> Clocks {
    let mut cpus: Vec<CpuClock> = Vec::new();
    let online = online(sysfs);
    let mut governors: Option<Vec<String>> = None;
    for cpu in &online {
        let folder = cpufreq(sysfs, *cpu);
        if let Some(listed) = text(&folder.join("scaling_available_governors")) {
            let is_listed = |name: &String| listed.split_whitespace().any(|other| other == name);
            let mut common =
                governors.unwrap_or_else(|| listed.split_whitespace().map(str::to_owned).collect());
            common.retain(is_listed);
            governors = Some(common);
        }
        let (Some(min_khz), Some(max_khz)) =
            (number(&folder.join("cpuinfo_min_freq")), number(&folder.join("cpuinfo_max_freq")))
        else {
            continue;
        };
        if cpus.iter().any(|known| known.cpus.contains(cpu)) {
            continue;
        }
        let listed = text(&folder.join("affected_cpus")).unwrap_or_default();
        let mut shared: Vec<u32> = listed.split_whitespace().filter_map(|cpu| cpu.parse().ok()).collect();
        shared.retain(|shared| online.contains(shared));
        if !shared.contains(cpu) {
            shared.push(*cpu);
        }
        shared.sort_unstable();
        let steps_khz = numbers(&folder.join("scaling_available_frequencies"));
        cpus.push(CpuClock { cpus: shared, min_khz, max_khz, steps_khz });
    }
    let gpu_hz = gpu_folder(sysfs).map(|folder| numbers(&folder.join("available_frequencies")));
    // `/sys` is beside `/etc`.
    let modes = sysfs.parent().and_then(|root| fs::read_to_string(root.join("etc/nvpmodel.conf")).ok());
    let power_modes = parse_modes(&modes.unwrap_or_default());
    Clocks {
        id,
        cpus,
        gpu_hz: gpu_hz.unwrap_or_default(),
        power_modes,
        governors: governors.unwrap_or_default(),
        memory: memory.then(|| memory_clock::offered(sysfs)),
    }
}

/// The numbers in a file, ascending.
fn numbers(path: &Path) -> Vec<u64> {
    let text = text(path).unwrap_or_default();
    let mut numbers: Vec<u64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Parses the lines `< POWER_MODEL ID=0 NAME=MAXN >` of `nvpmodel.conf`.
fn parse_modes(text: &str) -> Vec<PowerMode> {
    let mode = |line: &str| {
        let words = line.trim().strip_prefix('<')?.trim_end_matches('>').split_whitespace();
        let mut words = words.skip_while(|word| *word != "POWER_MODEL").skip(1);
        let id = words.next()?.strip_prefix("ID=")?.parse().ok()?;
        Some(PowerMode { id, name: words.next()?.strip_prefix("NAME=")?.to_owned() })
    };
    text.lines().filter_map(mode).collect()
}

/// Online CPUs with a clock.
pub(crate) fn clocked(settings: &Settings) -> impl Iterator<Item = &CpuSettings> {
    settings.cpus.iter().filter(|cpu| cpu.online && (cpu.max_khz.is_some() || cpu.governor.is_some()))
}

/// Whether the clock of a CPU is fixed: its limits are equal, or (early versions of `jetson_clocks`) the governor `userspace`
/// keeps its highest frequency.
fn is_pinned(sysfs: &Path, cpu: &CpuSettings) -> bool {
    let by_hand =
        || cpu.governor.as_deref() == Some("userspace") && current_khz(sysfs, cpu.id) == cpu.max_khz;
    cpu.max_khz.is_some() && (cpu.min_khz == cpu.max_khz || by_hand())
}

/// Whether the clocks of all online CPUs are pinned.
pub(crate) fn are_pinned(sysfs: &Path, settings: &Settings) -> bool {
    let mut clocked = clocked(settings).peekable();
    clocked.peek().is_some() && clocked.all(|cpu| is_pinned(sysfs, cpu))
}

/// Whether all clocks were pinned, as far as their settings show.
pub(crate) fn were_pinned(settings: &Settings) -> bool {
    let by_limits =
        |cpu: &CpuSettings| cpu.min_khz == cpu.max_khz || cpu.governor.as_deref() == Some("userspace");
    clocked(settings).all(by_limits)
}

/// The power mode, if it differs.
pub(crate) fn mode_difference(was: &Settings, is: &Settings) -> Option<String> {
    differences(was, is).into_iter().find(|text| text.starts_with("power mode"))
}

/// Settings that differ from the request, each with both values.
pub(crate) fn mismatches(request: &StateRequest, now: &Settings) -> Vec<String> {
    let sysfs = Path::new(&request.sysfs);
    let mut found = Vec::new();
    if let Some(wanted) = request.nvpmodel {
        match &now.power_mode {
            Some(mode) if mode.id == wanted => {}
            Some(mode) => {
                found.push(format!(
                    "power mode {wanted} is requested, but the mode is {} ({})",
                    mode.id, mode.name
                ));
            }
            None => found.push(format!("power mode {wanted} is requested, but the mode is unknown")),
        }
    }
    if request.jetson_clocks == Some(true) {
        for cpu in clocked(now).filter(|cpu| !is_pinned(sysfs, cpu)) {
            found.push(format!(
                "pinned clocks are requested, but CPU {} may run at {} to {} kHz",
                cpu.id,
                shown(cpu.min_khz),
                shown(cpu.max_khz)
            ));
        }
        if let Some(gpu) = now.gpu.filter(|gpu| gpu.min_hz != gpu.max_hz) {
            found.push(format!(
                "pinned clocks are requested, but the GPU may run at {} to {} Hz",
                gpu.min_hz, gpu.max_hz
            ));
        }
    }
    for limit in &request.cpu_limits {
        for cpu in clocked(now).filter(|cpu| limit.cpus.contains(&cpu.id)) {
            if cpu.max_khz != Some(limit.max_khz) {
                found.push(format!(
                    "a limit of {} kHz is requested, but CPU {} may run at up to {} kHz",
                    limit.max_khz,
                    cpu.id,
                    shown(cpu.max_khz)
                ));
            }
        }
    }
    if let Some(wanted) = request.gpu_max_hz
        && now.gpu.is_none_or(|gpu| gpu.max_hz != wanted)
    {
        found.push(format!(
            "a limit of {wanted} Hz is requested, but the GPU may run at up to {} Hz",
            shown(now.gpu.map(|gpu| gpu.max_hz))
        ));
    }
    if let Some(wanted) = request.memory_hz
        && !now.memory_hz.is_some_and(|hz| memory_clock::is_rate(hz, wanted))
    {
        let lock = now.memory_hz.map_or_else(|| "not locked".to_owned(), |hz| format!("locked at {hz} Hz"));
        found.push(format!("a memory clock of {wanted} Hz is requested, but it is {lock}"));
    }
    if request.jetson_clocks == Some(false) && are_pinned(sysfs, now) {
        found.push("unpinned clocks are requested, but all CPUs are pinned".to_owned());
    }
    if let Some(wanted) = &request.governor {
        for cpu in clocked(now).filter(|cpu| cpu.governor.as_ref() != Some(wanted)) {
            found.push(format!(
                "governor {wanted} is requested, but it is {} on CPU {}",
                shown(cpu.governor.as_ref()),
                cpu.id
            ));
        }
    }
    found
}

/// Settings that have changed, each with both values.
pub(crate) fn differences(was: &Settings, is: &Settings) -> Vec<String> {
    let describe =
        |SettingDifference { setting, from, to }| format!("{setting} is {}, was {}", shown(to), shown(from));
    was.changes_to(is).into_iter().map(describe).collect()
}

fn shown(value: Option<impl std::fmt::Display>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn governors_are_those_of_all_cpus() {
        let sysfs = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = sysfs.path().join("devices/system/cpu").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("online", "0-1\n");
        assert_eq!(clocks(1, sysfs.path(), false).governors, [""; 0]);
        write("cpu0/cpufreq/scaling_available_governors", "schedutil powersave userspace\n");
        write("cpu1/cpufreq/scaling_available_governors", "userspace schedutil\n");
        let found = clocks(1, sysfs.path(), false);
        assert_eq!(
            (found.governors, found.memory),
            (vec!["schedutil".to_owned(), "userspace".to_owned()], None)
        );
        assert!(clocks(1, sysfs.path(), true).memory.unwrap().is_err());
    }

    #[test]
    fn a_memory_clock_that_is_not_the_requested_one_is_a_mismatch() {
        let sysfs = tempfile::tempdir().unwrap();
        let request = StateRequest {
            sysfs: sysfs.path().to_str().unwrap().to_owned(),
            nvpmodel: None,
            jetson_clocks: None,
            governor: None,
            cpu_limits: Vec::new(),
            gpu_max_hz: None,
            memory_hz: Some(1_866_000_000),
        };
        for (memory_hz, expected) in [
            (Some(1_600_000_000), Some("locked at 1600000000 Hz")),
            (None, Some("not locked")),
            (Some(1_866_000_000), None),
        ] {
            let now = Settings { memory_hz, ..read_with(sysfs.path(), None) };
            let expected = expected
                .map(|is| vec![format!("a memory clock of 1866000000 Hz is requested, but it is {is}")]);
            assert_eq!(mismatches(&request, &now), expected.unwrap_or_default());
        }
    }

    #[test]
    fn power_modes_are_those_of_the_boards_table() {
        let text = "# comment\n< PARAM TYPE=FILE NAME=CPU_ONLINE >\n< POWER_MODEL ID=0 NAME=MAXN >\n\
                    CPU_ONLINE CORE_1 1\n< POWER_MODEL ID=12 NAME=MODE_15W >\n< PM_CONFIG DEFAULT=3 >\n";
        let found: Vec<_> = parse_modes(text).into_iter().map(|mode| (mode.id, mode.name)).collect();
        assert_eq!(found, [(0, "MAXN".to_owned()), (12, "MODE_15W".to_owned())]);
        assert!(parse_modes("").is_empty());
    }

    #[test]
    fn the_power_mode_is_read_past_warnings() {
        for (text, expected) in [
            ("NV Power Mode: MAXN\n0\n", Some((0, "MAXN"))),
            (
                "NVPM WARN: fan mode is not set!\nNV Power Mode: MAXP_CORE_ARM\n3\n",
                Some((3, "MAXP_CORE_ARM")),
            ),
            ("NV Power Mode: MODE_15W 2\n 12 \n", Some((12, "MODE_15W 2"))),
            ("NV Power Mode: MAXN\n", None),
            ("NVPM ERROR: failed\n0\n", None),
            ("", None),
        ] {
            let found = parse_mode(text);
            assert_eq!(found.as_ref().map(|mode| (mode.id, mode.name.as_str())), expected, "{text:?}");
        }
    }
}
