//! Settings of a board: reading them, and what they say about what was asked.

use super::programs::{self, ASKING};
use crate::cpulist;
use crate::patient::text;
use protocol::{Asked, Changed, ClockLimits, CpuSettings, PowerMode, Settings};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders of a GPU's clock below sysfs, in the order they are looked for: TX2, its alias, then the class.
const GPU: [&str; 3] = ["devices/17000000.gp10b/devfreq", "devices/gpu.0/devfreq", "class/devfreq"];
/// Names of GPUs in the class, where other clocks are too.
const GPU_NAMES: [&str; 4] = ["gp10b", "gv11b", "ga10b", "gpu"];

/// The power mode; `None` where the board has no `nvpmodel`.
///
/// # Errors
/// Where it does not say. The message is a sentence of its own.
pub(crate) fn power_mode() -> Result<Option<PowerMode>, String> {
    let Some(nvpmodel) = programs::find("nvpmodel") else { return Ok(None) };
    let ended = programs::run(&nvpmodel, &["-q"], ASKING)?;
    if let Some(mode) = parse_mode(&ended.stdout) {
        return Ok(Some(mode));
    }
    // Some versions answer to root only.
    match programs::run_as_root(&nvpmodel, &["-q"], ASKING).map(|ended| parse_mode(&ended.stdout)) {
        Ok(Some(mode)) => Ok(Some(mode)),
        _ => Err(format!(
            "{0} -q does not tell the power mode: it {1}; set one by hand (`sudo {0} -m 0`), or leave `nvpmodel` out of \
             the board's file",
            nvpmodel.display(),
            ended.told()
        )),
    }
}

/// `NV Power Mode: MAXN`, and its number on the next line; warnings may stand before.
fn parse_mode(text: &str) -> Option<PowerMode> {
    let mut lines = text.lines().map(str::trim).skip_while(|line| !line.starts_with("NV Power Mode:"));
    let name = lines.next()?.strip_prefix("NV Power Mode:")?.trim().to_owned();
    Some(PowerMode { id: lines.next()?.parse().ok()?, name })
}

fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

/// Numbers of the CPUs that the kernel knows, ascending.
fn cpu_numbers(sysfs: &Path) -> Vec<u32> {
    let Ok(folder) = fs::read_dir(sysfs.join("devices/system/cpu")) else { return Vec::new() };
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix("cpu")?.parse().ok();
    let mut found: Vec<u32> = folder.flatten().filter_map(number).collect();
    found.sort_unstable();
    found
}

/// CPUs that are online.
pub(crate) fn online(sysfs: &Path) -> Vec<u32> {
    cpulist::parse(&text(&sysfs.join("devices/system/cpu/online")).unwrap_or_default())
}

/// The folder of a CPU's clock.
pub(crate) fn cpufreq(sysfs: &Path, cpu: u32) -> PathBuf {
    sysfs.join(format!("devices/system/cpu/cpu{cpu}/cpufreq"))
}

/// Settings of a CPU.
pub(crate) fn cpu(sysfs: &Path, id: u32, online: &[u32]) -> CpuSettings {
    let folder = cpufreq(sysfs, id);
    CpuSettings {
        id,
        online: online.contains(&id),
        governor: text(&folder.join("scaling_governor")),
        min_khz: number(&folder.join("scaling_min_freq")),
        max_khz: number(&folder.join("scaling_max_freq")),
    }
}

/// Current frequency of a CPU as the kernel keeps it, which costs the CPU nothing.
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

/// Limits of the GPU's clock.
pub(crate) fn gpu(sysfs: &Path) -> Option<ClockLimits> {
    let folder = gpu_folder(sysfs)?;
    let (min_hz, max_hz) = (number(&folder.join("min_freq"))?, number(&folder.join("max_freq"))?);
    Some(ClockLimits { min_hz, max_hz })
}

/// All settings. The power mode of a board may stay unknown if nobody asks for one.
///
/// # Errors
/// As [`power_mode`], if a power mode is asked for.
pub(crate) fn read(asked: &Asked) -> Result<Settings, String> {
    let mode = match (power_mode(), asked.nvpmodel) {
        (Err(error), Some(_)) => return Err(error),
        (mode, _) => mode.unwrap_or(None),
    };
    Ok(read_with(Path::new(&asked.sysfs), mode))
}

/// All settings, where the power mode is known.
pub(crate) fn read_with(sysfs: &Path, power_mode: Option<PowerMode>) -> Settings {
    let online = online(sysfs);
    let cpus = cpu_numbers(sysfs).into_iter().map(|id| cpu(sysfs, id, &online)).collect();
    Settings { power_mode, cpus, gpu: gpu(sysfs) }
}

/// CPUs that are online and have a clock.
pub(crate) fn clocked(settings: &Settings) -> impl Iterator<Item = &CpuSettings> {
    settings.cpus.iter().filter(|cpu| cpu.online && (cpu.max_khz.is_some() || cpu.governor.is_some()))
}

/// Whether the clock of a CPU cannot move: its limits are one, or (early versions of `jetson_clocks`) it is set by hand to
/// its highest frequency.
fn is_pinned(sysfs: &Path, cpu: &CpuSettings) -> bool {
    let by_hand =
        || cpu.governor.as_deref() == Some("userspace") && current_khz(sysfs, cpu.id) == cpu.max_khz;
    cpu.max_khz.is_some() && (cpu.min_khz == cpu.max_khz || by_hand())
}

/// Whether the clocks of all CPUs that are online are pinned.
pub(crate) fn are_pinned(sysfs: &Path, settings: &Settings) -> bool {
    let mut clocked = clocked(settings).peekable();
    clocked.peek().is_some() && clocked.all(|cpu| is_pinned(sysfs, cpu))
}

/// Whether the limits of all clocks were one, as far as settings alone tell.
pub(crate) fn were_pinned(settings: &Settings) -> bool {
    let by_limits =
        |cpu: &CpuSettings| cpu.min_khz == cpu.max_khz || cpu.governor.as_deref() == Some("userspace");
    clocked(settings).all(by_limits)
}

/// The power mode where it is not as it was.
pub(crate) fn mode_difference(was: &Settings, is: &Settings) -> Option<String> {
    differences(was, is).into_iter().find(|text| text.starts_with("power mode"))
}

/// What is not as it was asked, each with both.
pub(crate) fn mismatches(asked: &Asked, now: &Settings) -> Vec<String> {
    let sysfs = Path::new(&asked.sysfs);
    let mut found = Vec::new();
    if let Some(wanted) = asked.nvpmodel {
        match &now.power_mode {
            Some(mode) if mode.id == wanted => {}
            Some(mode) => {
                found.push(format!("power mode {wanted} was asked for, found {} ({})", mode.id, mode.name));
            }
            None => found.push(format!("power mode {wanted} was asked for, found none")),
        }
    }
    if asked.jetson_clocks == Some(true) {
        for cpu in clocked(now).filter(|cpu| !is_pinned(sysfs, cpu)) {
            found.push(format!(
                "pinned clocks were asked for, found CPU {} between {} and {} kHz",
                cpu.id,
                shown(cpu.min_khz),
                shown(cpu.max_khz)
            ));
        }
        if let Some(gpu) = now.gpu.filter(|gpu| gpu.min_hz != gpu.max_hz) {
            found.push(format!(
                "pinned clocks were asked for, found the GPU between {} and {} Hz",
                gpu.min_hz, gpu.max_hz
            ));
        }
    }
    if asked.jetson_clocks == Some(false) && are_pinned(sysfs, now) {
        found.push("clocks that are not pinned were asked for, found all CPUs pinned".to_owned());
    }
    if let Some(wanted) = &asked.governor {
        for cpu in clocked(now).filter(|cpu| cpu.governor.as_ref() != Some(wanted)) {
            found.push(format!(
                "the governor {wanted} was asked for, found {} on CPU {}",
                shown(cpu.governor.as_ref()),
                cpu.id
            ));
        }
    }
    found
}

/// What is not as it was, each with both.
pub(crate) fn differences(was: &Settings, is: &Settings) -> Vec<String> {
    let told = |Changed { setting, from, to }| format!("{setting}: {}, was {}", shown(to), shown(from));
    was.changes_to(is).into_iter().map(told).collect()
}

fn shown(value: Option<impl std::fmt::Display>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

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
