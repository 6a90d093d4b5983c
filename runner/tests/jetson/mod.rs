//! A fake Jetson: a folder in place of sysfs, and fakes of NVIDIA's programs that change its files as the real ones change the
//! board.

#![allow(dead_code, reason = "each test program uses only some of it")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Its modes: number, name, CPUs, maximum kHz of the CPUs, maximum Hz of the GPU.
const MODES: &str = "0 MAXN 0-1 2035200 1300500000\n1 MAXQ 0 1200000 850000000\n3 MAXP_CORE_ARM 0 2000000 1120000000\n\
                     7 NEXT_START 0-1 1900800 1120000000 ask\n";

const EMC: &str = "sys/kernel/debug/bpmp/debug";

/// A board with two CPUs in power mode 3, which has one of them online.
pub(crate) struct Jetson {
    folder: PathBuf,
}

impl Jetson {
    /// Creates it in a folder.
    pub(crate) fn new(folder: &Path) -> Self {
        let jetson = Self { folder: folder.to_path_buf() };
        fs::create_dir_all(jetson.bin()).unwrap();
        for (name, script) in
            [("nvpmodel", include_str!("nvpmodel.sh")), ("jetson_clocks", include_str!("jetson_clocks.sh"))]
        {
            jetson.program(name, script);
        }
        jetson.write("modes", MODES);
        jetson.write("mode", "3");
        jetson.write("calls", "");
        jetson.write("sys/devices/system/cpu/present", "0-1");
        jetson.write("sys/devices/system/cpu/online", "0");
        for cpu in 0..2 {
            for (name, value) in [
                ("scaling_governor", "schedutil"),
                ("scaling_available_governors", "performance powersave schedutil"),
                ("scaling_min_freq", "345600"),
                ("scaling_max_freq", "2000000"),
                ("scaling_cur_freq", "345600"),
                ("cpuinfo_max_freq", "2035200"),
            ] {
                jetson.write(&format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/{name}"), value);
            }
        }
        let gpu = "sys/devices/17000000.gp10b/devfreq/17000000.gp10b";
        for (name, value) in
            [("min_freq", "114750000"), ("max_freq", "1120000000"), ("cur_freq", "114750000")]
        {
            jetson.write(&format!("{gpu}/{name}"), value);
        }
        jetson.zone(0, "BCPU-therm", 41_000);
        jetson.zone(1, "PMIC-Die", 100_000);
        jetson
    }

    /// Adds a memory clock that the kernel controls, as BPMP shows it in debugfs.
    pub(crate) fn add_memory_clock(&self) {
        let clock = [("min_rate", "40800000"), ("max_rate", "1866000000"), ("rate", "1600000000")];
        for (name, value) in clock.into_iter().chain([("mrq_rate_locked", "0")]) {
            self.write(&format!("{EMC}/clk/emc/{name}"), value);
        }
        self.write(&format!("{EMC}/emc/possible_rates"), "40800 408000 800000 1600000 1866000 (kHz)");
    }

    /// Frequency of the memory clock, and whether it is locked; empty without such a clock.
    pub(crate) fn memory_clock(&self) -> Vec<String> {
        let file = |name| fs::read_to_string(self.folder.join(format!("{EMC}/clk/emc/{name}"))).ok();
        ["rate", "mrq_rate_locked"].into_iter().filter_map(file).map(|text| text.trim().to_owned()).collect()
    }

    /// The folder of its programs.
    pub(crate) fn bin(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// The folder in place of sysfs.
    pub(crate) fn sysfs(&self) -> PathBuf {
        self.folder.join("sys")
    }

    /// Writes one of its programs.
    pub(crate) fn program(&self, name: &str, script: &str) {
        let path = self.bin().join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Writes one of its files.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.folder.join(path)).unwrap().trim().to_owned()
    }

    /// A file of a CPU's clock.
    pub(crate) fn cpu(&self, cpu: u32, name: &str) -> String {
        self.read(&format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/{name}"))
    }

    /// A thermal zone.
    pub(crate) fn zone(&self, number: u32, kind: &str, milli_celsius: i64) {
        self.write(&format!("sys/class/thermal/thermal_zone{number}/type"), kind);
        self.write(&format!("sys/class/thermal/thermal_zone{number}/temp"), &milli_celsius.to_string());
    }

    /// Everything that a session may change, as text.
    pub(crate) fn state(&self) -> String {
        let online = self.read("sys/devices/system/cpu/online");
        let mut lines = vec![format!("mode {}, online {online}", self.read("mode"))];
        for cpu in 0..2 {
            for name in ["scaling_governor", "scaling_min_freq", "scaling_max_freq"] {
                lines.push(format!("cpu{cpu} {name} {}", self.cpu(cpu, name)));
            }
        }
        for name in ["min_freq", "max_freq"] {
            let path = format!("sys/devices/17000000.gp10b/devfreq/17000000.gp10b/{name}");
            lines.push(format!("gpu {name} {}", self.read(&path)));
        }
        lines.extend(self.memory_clock().into_iter().map(|value| format!("memory {value}")));
        lines.join("\n")
    }
}
