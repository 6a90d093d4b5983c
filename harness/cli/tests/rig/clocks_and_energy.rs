//! Two CPUs with clocks, and an energy counter that follows what the runner's threads do. Only files; the threads are real.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Power of the idle board, and what a thread adds while it runs on CPU 0 and on CPU 1, in mW.
const IDLE_MW: f64 = 2000.0;
const DYNAMIC_MW: [f64; 2] = [6000.0, 1500.0];

/// A sysfs of two CPUs with clocks, whose limits are only files. Returns its folder.
pub(crate) fn clocks(folder: &Path) -> PathBuf {
    let cpus = folder.join("clocks/sys/devices/system/cpu");
    fs::create_dir_all(&cpus).unwrap();
    fs::write(cpus.join("online"), "0-1\n").unwrap();
    for cpu in 0..2 {
        let clock = cpus.join(format!("cpu{cpu}/cpufreq"));
        fs::create_dir_all(&clock).unwrap();
        for (name, value) in [
            ("affected_cpus", cpu.to_string().as_str()),
            ("cpuinfo_min_freq", "500000"),
            ("cpuinfo_max_freq", "2000000"),
            ("scaling_available_frequencies", "500000 2000000"),
            ("scaling_cur_freq", "2000000"),
            ("scaling_governor", "performance"),
            ("scaling_min_freq", "500000"),
            ("scaling_max_freq", "2000000"),
        ] {
            fs::write(clock.join(name), format!("{value}\n")).unwrap();
        }
    }
    cpus
}

/// The limit of a CPU's clock, as a share of its highest frequency; 1 without a clock.
pub(crate) fn clock_share(cpus: &Path, cpu: usize) -> f64 {
    let khz = fs::read_to_string(cpus.join(format!("cpu{cpu}/cpufreq/scaling_max_freq")));
    khz.ok().and_then(|khz| khz.trim().parse::<f64>().ok()).map_or(1.0, |khz| khz / 2_000_000.0)
}

/// Lays an energy counter that stands at 0. Returns its folder.
pub(crate) fn lay_meter(sysfs: &Path) -> PathBuf {
    let zone = sysfs.join("class/powercap/intel-rapl:0");
    fs::create_dir_all(&zone).unwrap();
    fs::write(zone.join("name"), "package-0\n").unwrap();
    fs::write(zone.join("max_energy_range_uj"), "262143328850\n").unwrap();
    fs::write(zone.join("energy_uj"), "0\n").unwrap();
    zone
}

/// Plays an energy counter until dropped: idle power, and the true power of each CPU for the time that threads of the runner
/// of this test spend on it. It rises with the square of the clock.
pub(crate) struct Player {
    stop: Arc<AtomicBool>,
    /// The limits of the clocks of CPU 0 and CPU 1 that it saw.
    seen: Arc<Mutex<Vec<[f64; 2]>>>,
    thread: Option<JoinHandle<()>>,
}

impl Player {
    pub(crate) fn start(sysfs: &Path, runner: &str) -> Self {
        let zone = lay_meter(sysfs);
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let runner = PathBuf::from(runner).canonicalize().unwrap();
        let folder = sysfs.parent().unwrap().to_path_buf();
        let clocks = sysfs.with_file_name("clocks").join("sys/devices/system/cpu");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            let (begun, mut known, mut dynamic_mj) = (Instant::now(), Vec::new(), 0.0);
            while !flag.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(10));
                let limits = [0, 1].map(|cpu| clock_share(&clocks, cpu));
                let mut all_limits = noted.lock().unwrap();
                if !all_limits.contains(&limits) {
                    all_limits.push(limits);
                }
                drop(all_limits);
                let now = cpu_seconds(&runner, &folder);
                for (thread, cpu, seconds) in &now {
                    let before = known
                        .iter()
                        .find(|(other, _, _)| other == thread)
                        .map_or(0.0, |(_, _, before)| *before);
                    let whole_mw = DYNAMIC_MW.get(*cpu).copied().unwrap_or(0.0);
                    dynamic_mj += (seconds - before) * whole_mw * clock_share(&clocks, *cpu).powi(2);
                }
                known = now;
                let whole_mj = IDLE_MW * begun.elapsed().as_secs_f64() + dynamic_mj;
                let next = zone.join("next");
                fs::write(&next, format!("{:.0}\n", 1000.0 * whole_mj)).unwrap();
                fs::rename(&next, zone.join("energy_uj")).unwrap();
            }
        });
        Self { stop, seen, thread: Some(thread) }
    }

    pub(crate) fn seen(&self) -> Vec<[f64; 2]> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Each thread of the runners whose environment names the folder of this test, with the CPU it ran on last and its CPU time, from
/// `/proc/PID/task/TID/{stat,schedstat}`.
fn cpu_seconds(runner: &Path, folder: &Path) -> Vec<(String, usize, f64)> {
    let folder = folder.to_str().unwrap();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let is_runner = fs::read_link(process.path().join("exe")).is_ok_and(|exe| exe == runner);
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        if is_runner && String::from_utf8_lossy(&environment).contains(folder) {
            let tasks = fs::read_dir(process.path().join("task")).into_iter().flatten().flatten();
            found.extend(tasks.filter_map(|task| {
                let stat = fs::read_to_string(task.path().join("stat")).ok()?;
                // The name of the thread is in parentheses; the CPU is field 39.
                let cpu = stat.rsplit_once(')')?.1.split_whitespace().nth(36)?.parse().ok()?;
                let time = fs::read_to_string(task.path().join("schedstat")).ok()?;
                let nanoseconds: f64 = time.split_whitespace().next()?.parse().ok()?;
                Some((task.path().display().to_string(), cpu, nanoseconds / 1e9))
            }));
        }
    }
    found
}
