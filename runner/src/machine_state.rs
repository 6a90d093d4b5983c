//! Reads the state of the board.

use crate::affinity::allowed_cpus;
use crate::board_state::{programs, settings};
use crate::cgroups::Groups;
use crate::engine;
use crate::memory::kilobytes;
use crate::timed_read;
use protocol::{Clock, Cpu, MachineState, Policy, Scheduling, SilentZone, Temperature, parse_cpu_list};
use std::fs;
use std::path::{Path, PathBuf};

/// Range of temperatures of a running board, in thousandths of a degree Celsius. Sensors of units that are powered off show
/// -256 °C, broken ones a value near 0.
const PLAUSIBLE: std::ops::RangeInclusive<i64> = -50_000..=150_000;
/// A smaller absolute value is not a temperature: the sensor is off, or it uses whole degrees.
const MIN_ABSOLUTE: u64 = 1000;

/// Reads the state of this machine, with `sysfs` in place of `/sys`.
pub(crate) fn read(sysfs: &Path) -> MachineState {
    let mut state = Root { top: PathBuf::from("/"), sysfs: sysfs.to_path_buf() }.state(allowed_cpus());
    // Not fatal here: a session that needs the power mode reads it itself and fails.
    state.power_mode = settings::power_mode().unwrap_or_else(|error| {
        eprintln!("{error}");
        None
    });
    let groups = Groups::of_process();
    state.cpu_quota = groups.cpu_quota();
    state.memory_limit = groups.memory_limit().filter(|limit| limit.bytes < state.memory_bytes);
    let status = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    state.scheduling = scheduling(&status).map(|known| Scheduling { weight: groups.weight(), ..known });
    let usual = Scheduling { policy: Policy::Other, nice: 0, weight: None };
    state.scheduling = state.scheduling.filter(|known| *known != usual);
    state
}

/// Policy and nice value from /proc/self/stat: fields 41 and 19, counted from 1. Field 2 is the program's name in
/// parentheses, which may contain blanks (proc(5)).
fn scheduling(stat: &str) -> Option<Scheduling> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(16);
    let nice = fields.next()?.parse().ok()?;
    let policy = match fields.nth(21)?.parse::<u32>().ok()? {
        0 => Policy::Other,
        3 => Policy::Batch,
        5 => Policy::Idle,
        _ => Policy::RealTime,
    };
    Some(Scheduling { policy, nice, weight: None })
}

/// Also asks the CUDA driver for its devices, and `jetson_clocks` for the memory clock, if sysfs shows it to root only.
pub(crate) fn read_thoroughly(sysfs: &Path) -> MachineState {
    let mut state = read(sysfs);
    if state.emc.is_none()
        && let Some(jetson_clocks) = programs::find("jetson_clocks")
        && let Ok(finished) = programs::run_as_root(&jetson_clocks, &["--show"], programs::QUERY_TIMEOUT)
    {
        state.emc = parse_emc(&finished.stdout);
    }
    state.cuda = engine::cuda_system();
    state
}

/// Parses the line `EMC MinFreq=40800000 MaxFreq=1866000000 CurrentFreq=1600000000 FreqOverride=0`. With the override, the
/// clock is pinned to its current frequency.
fn parse_emc(text: &str) -> Option<Clock> {
    let line = text.lines().find(|line| line.starts_with("EMC "))?;
    let field = |name: &str| {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
    };
    let (min_hz, max_hz, current_hz) = (field("MinFreq")?, field("MaxFreq")?, field("CurrentFreq"));
    let pinned = current_hz.filter(|_| field("FreqOverride") == Some(1));
    Some(Clock {
        min_hz: pinned.unwrap_or(min_hz),
        max_hz: pinned.unwrap_or(max_hz),
        current_hz,
        governor: None,
    })
}

/// The folder that contains `proc` and `etc`, and the folder of sysfs.
struct Root {
    top: PathBuf,
    sysfs: PathBuf,
}

impl Root {
    fn state(&self, allowed_cpus: Vec<u32>) -> MachineState {
        let uname = rustix::system::uname();
        let cpuinfo = self.text("proc/cpuinfo").unwrap_or_default();
        let memory = self.text("proc/meminfo").unwrap_or_default();
        let load = self.text("proc/loadavg").unwrap_or_default();
        let (temperatures, silent_zones) = self.temperatures();
        MachineState {
            arch: uname.machine().to_string_lossy().into_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            os: self.text("etc/os-release").and_then(|text| os_name(&text)),
            model: self.model(),
            cpu_model: cpu_field(&cpuinfo, &["model name", "Processor", "Hardware"]).map(str::to_owned),
            cpu_flags: cpu_field(&cpuinfo, &["flags", "Features"])
                .map(|flags| flags.split_whitespace().map(str::to_owned).collect())
                .unwrap_or_default(),
            cpus: self.cpus(&cpuinfo),
            allowed_cpus,
            memory_bytes: kilobytes(&memory, "MemTotal:").unwrap_or(0),
            memory_available_bytes: kilobytes(&memory, "MemAvailable:").unwrap_or(0),
            load_milli: load.split_whitespace().next().and_then(thousandths).unwrap_or(0),
            temperatures,
            power_mode: None,
            gpu: self.gpu(),
            emc: self.emc(),
            cpu_quota: None,
            memory_limit: None,
            scheduling: None,
            silent_zones,
            cuda: None,
        }
    }

    fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        timed_read::text(&self.top.join(path))
    }

    fn number<N: std::str::FromStr>(&self, path: impl AsRef<Path>) -> Option<N> {
        self.text(path)?.parse().ok()
    }

    /// Folders in `path` whose name is `prefix` and a number, sorted by that number.
    fn numbered(&self, path: &str, prefix: &str) -> Vec<(u32, PathBuf)> {
        let Ok(folder) = fs::read_dir(self.sysfs.join(path)) else { return Vec::new() };
        let entry = |entry: fs::DirEntry| {
            let number = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((number, entry.path()))
        };
        let mut found: Vec<_> = folder.flatten().filter_map(entry).collect();
        found.sort();
        found
    }

    fn model(&self) -> Option<String> {
        self.text("proc/device-tree/model").or_else(|| {
            let part = |name: &str| self.text(self.sysfs.join("class/dmi/id").join(name));
            let parts: Vec<_> = ["sys_vendor", "product_name"].into_iter().filter_map(part).collect();
            (!parts.is_empty()).then(|| parts.join(" "))
        })
    }

    fn cpus(&self, cpuinfo: &str) -> Vec<Cpu> {
        let list = |name: &str| {
            let text = self.text(self.sysfs.join("devices/system/cpu").join(name)).unwrap_or_default();
            parse_cpu_list(&text)
        };
        let (online, isolated) = (list("online"), list("isolated"));
        let cpu = |(id, path): (u32, PathBuf)| {
            let frequency = |name: &str| self.number(path.join("cpufreq").join(name));
            Cpu {
                id,
                online: online.contains(&id),
                isolated: isolated.contains(&id),
                capacity: self.number(path.join("cpu_capacity")),
                midr: self.midr(&path).or_else(|| midr_from_cpuinfo(cpuinfo, id)),
                core: self.number(path.join("topology/core_id")),
                package: self.number(path.join("topology/physical_package_id")),
                current_khz: frequency("scaling_cur_freq"),
                min_khz: frequency("scaling_min_freq"),
                max_khz: frequency("scaling_max_freq"),
                hardware_max_khz: frequency("cpuinfo_max_freq"),
                governor: self.text(path.join("cpufreq/scaling_governor")),
                l1d_bytes: self.cache(&path, "1", "Data"),
                l2_bytes: self.cache(&path, "2", "Unified"),
                l3_bytes: self.cache(&path, "3", "Unified"),
            }
        };
        self.numbered("devices/system/cpu", "cpu").into_iter().map(cpu).collect()
    }

    fn midr(&self, cpu: &Path) -> Option<u64> {
        let text = self.text(cpu.join("regs/identification/midr_el1"))?;
        u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
    }

    fn cache(&self, cpu: &Path, level: &str, kind: &str) -> Option<u64> {
        self.numbered(cpu.join("cache").strip_prefix(&self.sysfs).ok()?.to_str()?, "index")
            .into_iter()
            .find(|(_, index)| {
                self.text(index.join("level")).as_deref() == Some(level)
                    && self.text(index.join("type")).as_deref() == Some(kind)
            })
            .and_then(|(_, index)| size(&self.text(index.join("size"))?))
    }

    fn gpu(&self) -> Option<Clock> {
        let folder = settings::gpu_folder(&self.sysfs)?;
        self.clock(&folder, ["min_freq", "max_freq", "cur_freq"])
    }

    fn emc(&self) -> Option<Clock> {
        let folder = self.sysfs.join("kernel/debug/bpmp/debug/clk/emc");
        let mut emc = self.clock(&folder, ["min_rate", "max_rate", "rate"])?;
        let is_locked = self.number(folder.join("mrq_rate_locked")) == Some(1);
        if let Some(pinned) = emc.current_hz.filter(|_| is_locked) {
            (emc.min_hz, emc.max_hz) = (pinned, pinned);
        }
        Some(emc)
    }

    fn clock(&self, folder: &Path, [min, max, current]: [&str; 3]) -> Option<Clock> {
        Some(Clock {
            min_hz: self.number(folder.join(min))?,
            max_hz: self.number(folder.join(max))?,
            current_hz: self.number(folder.join(current)),
            governor: self.text(folder.join("governor")),
        })
    }

    /// Zones with a temperature, and zones without.
    fn temperatures(&self) -> (Vec<Temperature>, Vec<SilentZone>) {
        let (mut found, mut silent) = (Vec::new(), Vec::new());
        for (number, path) in self.numbered("class/thermal", "thermal_zone") {
            let zone = self.text(path.join("type")).unwrap_or_else(|| format!("thermal_zone{number}"));
            match temperature(&path.join("temp")) {
                Ok(milli_celsius) => found.push(Temperature { zone, milli_celsius }),
                Err(reason) => silent.push(SilentZone { zone, reason }),
            }
        }
        (found, silent)
    }
}

/// A zone's temperature in thousandths of a degree Celsius, or why it has none.
fn temperature(path: &Path) -> Result<i64, String> {
    let bytes = timed_read::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::TimedOut => "does not answer within 1 s".to_owned(),
        _ => format!("cannot be read: {error}"),
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim();
    let value: i64 = text.parse().map_err(|_| format!("shows {text:?}, which is not a number"))?;
    if PLAUSIBLE.contains(&value) && value.unsigned_abs() >= MIN_ABSOLUTE {
        return Ok(value);
    }
    Err(format!("shows {:.1} °C, which is impossible on a running board", value as f64 / 1000.0))
}

/// The first of these fields in /proc/cpuinfo with a value.
fn cpu_field<'a>(cpuinfo: &'a str, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| {
        cpuinfo.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            (field.trim() == *name && !value.trim().is_empty()).then_some(value.trim())
        })
    })
}

/// The identification register of an Arm CPU, composed from its section of /proc/cpuinfo, for kernels that do not show the
/// register (before 4.10). The architecture field is 0xf, as on every `ARMv8` CPU.
fn midr_from_cpuinfo(cpuinfo: &str, cpu: u32) -> Option<u64> {
    let section = cpuinfo.split("\n\n").find(|section| {
        cpu_field(section, &["processor"]).and_then(|number| number.parse().ok()) == Some(cpu)
    })?;
    let field = |name| {
        let text = cpu_field(section, &[name])?;
        match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        }
    };
    let (implementer, part) = (field("CPU implementer")?, field("CPU part")?);
    let (variant, revision) = (field("CPU variant")?, field("CPU revision")?);
    Some((implementer << 24) | (variant << 20) | (0xf << 16) | (part << 4) | revision)
}

fn os_name(os_release: &str) -> Option<String> {
    let line = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(line.trim_matches('"').to_owned())
}

/// `32K`, `2M` or a plain number, in bytes.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(['K', 'M']);
    let unit = match text.as_bytes().last() {
        Some(b'K') => 1 << 10,
        Some(b'M') => 1 << 20,
        _ => 1,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// `0.52` as 520.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let part: String = part.chars().chain("000".chars()).take(3).collect();
    Some(whole.parse::<u64>().ok()? * 1000 + part.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn root_at(top: &Path) -> Root {
        Root { top: top.to_path_buf(), sysfs: top.join("sys") }
    }

    #[test]
    fn a_board_with_heterogeneous_cores_is_read() {
        let cpu = "sys/devices/system/cpu";
        let cpuinfo = "processor\t: 0\nmodel name\t: ARMv8 Processor rev 3 (v8l)\nFeatures\t: fp asimd\n\
                       CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: 0xd07\n\
                       CPU revision\t: 3\n\nprocessor\t: 1\nCPU implementer\t: 0x4e\n\n";
        let root = tree(&[
            ("proc/cpuinfo", cpuinfo),
            ("proc/device-tree/model", "quill\0"),
            ("proc/meminfo", "MemTotal:        8000 kB\nMemAvailable:    4000 kB\n"),
            ("proc/loadavg", "1.05 0.5 0.1 1/2 3\n"),
            ("etc/os-release", "NAME=Ubuntu\nPRETTY_NAME=\"Ubuntu 18.04.6 LTS\"\n"),
            (&format!("{cpu}/online"), "0,3-5\n"),
            (&format!("{cpu}/isolated"), "1-2\n"),
            (&format!("{cpu}/cpu0/cpufreq/scaling_cur_freq"), "345600\n"),
            (&format!("{cpu}/cpu0/cpufreq/cpuinfo_max_freq"), "2035200\n"),
            (&format!("{cpu}/cpu0/cpufreq/scaling_governor"), "schedutil\n"),
            (&format!("{cpu}/cpu0/topology/core_id"), "0\n"),
            (&format!("{cpu}/cpu0/cache/index0/level"), "1\n"),
            (&format!("{cpu}/cpu0/cache/index0/type"), "Data\n"),
            (&format!("{cpu}/cpu0/cache/index0/size"), "32K\n"),
            (&format!("{cpu}/cpu0/cache/index3/level"), "3\n"),
            (&format!("{cpu}/cpu0/cache/index3/type"), "Unified\n"),
            (&format!("{cpu}/cpu0/cache/index3/size"), "4096K\n"),
            (&format!("{cpu}/cpu1/regs/identification/midr_el1"), "0x000000004e0f0030\n"),
            (&format!("{cpu}/cpufreq/policy0/x"), ""),
            ("sys/class/thermal/thermal_zone0/type", "BCPU-therm\n"),
            ("sys/class/thermal/thermal_zone0/temp", "41500\n"),
            ("sys/class/thermal/thermal_zone1/type", "unreadable\n"),
        ]);
        let state = root_at(root.path()).state(vec![0]);
        assert_eq!(state.model.as_deref(), Some("quill"));
        assert_eq!(state.os.as_deref(), Some("Ubuntu 18.04.6 LTS"));
        assert_eq!((state.memory_bytes, state.memory_available_bytes), (8_192_000, 4_096_000));
        assert_eq!((state.load_milli, state.cpu_flags.len()), (1050, 2));
        assert_eq!(state.temperatures, [Temperature { zone: "BCPU-therm".into(), milli_celsius: 41_500 }]);
        let [silent] = &state.silent_zones[..] else { panic!("{:?}", state.silent_zones) };
        assert!(silent.zone == "unreadable" && silent.reason.contains("No such file"), "{silent:?}");
        let [a57, denver] = &state.cpus[..] else { panic!("{:?}", state.cpus) };
        assert_eq!((a57.online, a57.isolated, a57.midr), (true, false, Some(0x411f_d073)));
        assert_eq!(
            (a57.current_khz, a57.hardware_max_khz, a57.max_khz),
            (Some(345_600), Some(2_035_200), None)
        );
        assert_eq!((a57.l1d_bytes, a57.l2_bytes, a57.core), (Some(32_768), None, Some(0)));
        assert_eq!((a57.l3_bytes, denver.l3_bytes), (Some(4 << 20), None));
        assert_eq!((denver.online, denver.isolated, denver.midr), (false, true, Some(0x4e0f_0030)));
        assert_eq!((denver.governor.as_deref(), denver.capacity), (None, None));
    }

    #[test]
    fn zones_without_a_temperature_are_listed_with_the_reason() {
        let root = tree(&[]);
        let folder = root.path().join("sys/class/thermal");
        let zones = [
            ("hot", "150000\n", Ok(150_000)),
            ("cold", "-50000\n", Ok(-50_000)),
            ("warm", "41500\n", Ok(41_500)),
            ("off", "-256000\n", Err("shows -256.0 °C, which is impossible on a running board")),
            ("burning", "150001\n", Err("shows 150.0 °C, which is impossible on a running board")),
            ("in whole degrees", "45\n", Err("shows 0.0 °C, which is impossible on a running board")),
            ("dead", "0\n", Err("shows 0.0 °C, which is impossible on a running board")),
            ("broken", "off\n", Err("shows \"off\", which is not a number")),
            ("empty", "", Err("shows \"\", which is not a number")),
        ];
        for ((kind, text, _), number) in zones.iter().zip(0..) {
            let zone = folder.join(format!("thermal_zone{number}"));
            fs::create_dir_all(&zone).unwrap();
            fs::write(zone.join("type"), kind).unwrap();
            fs::write(zone.join("temp"), text).unwrap();
        }
        let hanging = folder.join("thermal_zone9");
        fs::create_dir_all(&hanging).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(hanging.join("temp")).status().unwrap().success());
        let state = root_at(root.path()).state(vec![]);
        let found: Vec<_> =
            state.temperatures.iter().map(|zone| (zone.zone.as_str(), Ok(zone.milli_celsius))).collect();
        let silent: Vec<_> =
            state.silent_zones.iter().map(|zone| (zone.zone.as_str(), Err(zone.reason.as_str()))).collect();
        let expected = |is_silent: bool| {
            zones.iter().filter(move |zone| zone.2.is_err() == is_silent).map(|zone| (zone.0, zone.2))
        };
        assert_eq!(found, expected(false).collect::<Vec<_>>());
        let hanging = ("thermal_zone9", Err("does not answer within 1 s"));
        assert_eq!(silent, expected(true).chain([hanging]).collect::<Vec<_>>());
    }

    #[test]
    fn policy_and_nice_value_are_parsed() {
        let stat = |name: &str, nice: i32, policy: u32| {
            let zeros = |count: usize| vec!["0"; count].join(" ");
            format!("7 ({name}) S {} {nice} {} {policy} {}", zeros(15), zeros(21), zeros(11))
        };
        for (name, nice, number, policy) in [
            ("runner", 0, 0, Policy::Other),
            ("a ) b", 19, 5, Policy::Idle),
            ("runner", -5, 3, Policy::Batch),
            ("runner", 0, 1, Policy::RealTime),
        ] {
            assert_eq!(
                scheduling(&stat(name, nice, number)),
                Some(Scheduling { policy, nice, weight: None })
            );
        }
        assert_eq!(scheduling("7 (runner) S 0"), None);
        assert!(scheduling(&fs::read_to_string("/proc/self/stat").unwrap()).is_some());
    }

    #[test]
    fn the_memory_clock_is_parsed_from_the_output_of_jetson_clocks() {
        let text = "SOC family:tegra186\nEMC MinFreq=40800000 MaxFreq=1866000000 CurrentFreq=1600000000 FreqOverride=0\n";
        let emc = parse_emc(text).unwrap();
        assert_eq!(
            (emc.min_hz, emc.max_hz, emc.current_hz),
            (40_800_000, 1_866_000_000, Some(1_600_000_000))
        );
        let emc = parse_emc(&text.replace("Override=0", "Override=1")).unwrap();
        assert_eq!((emc.min_hz, emc.max_hz), (1_600_000_000, 1_600_000_000));
        assert_eq!(parse_emc("EMC MinFreq=x"), None);
    }

    #[test]
    fn a_board_without_files_has_an_empty_state() {
        let root = tree(&[]);
        let state = root_at(root.path()).state(vec![]);
        assert_eq!((state.model, state.os, state.cpu_model), (None, None, None));
        assert!(state.cpus.is_empty() && state.temperatures.is_empty());
    }

    #[test]
    fn this_machine_can_be_read() {
        let state = read(Path::new("/sys"));
        assert!(state.cpus.iter().any(|cpu| cpu.online) && !state.allowed_cpus.is_empty());
        assert!(state.memory_bytes > 0);
    }
}
