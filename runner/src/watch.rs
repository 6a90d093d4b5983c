//! Watches the board's settings during a trial: a thread reads a few files once a second, on CPUs that the schedule does not
//! use if there are any. Its CPU time is part of the overhead.

use crate::affinity::avoid;
use crate::board_state::settings;
use crate::clock::{current_thread_cpu_ns, monotonic_ns};
use protocol::{LowestClock, LowestFrequency, SettingChange, SettingDifference, Settings, WatchedSettings};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(1);
/// Limit on the recorded changes, because a setting may alternate.
const MAX_CHANGES: usize = 64;

/// A running watch. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<WatchedSettings>>,
}

impl Watch {
    /// Starts to watch the CPUs of a schedule and the limits of the GPU's clock; `uses_gpu`: also its frequency.
    pub(crate) fn start(sysfs: &Path, cpus: &[u32], uses_gpu: bool) -> Result<Self, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, sysfs, cpus) = (Arc::clone(&stop), sysfs.to_path_buf(), cpus.to_vec());
        let thread = std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || {
                avoid(&cpus);
                Watcher::new(sysfs, cpus, uses_gpu).watch(&flag)
            })
            .map_err(|error| format!("failed to start the thread that watches the board's state: {error}"))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Reads the settings a last time and returns all observations.
    pub(crate) fn finish(mut self) -> Option<WatchedSettings> {
        self.end()
    }

    fn end(&mut self) -> Option<WatchedSettings> {
        let thread = self.thread.take()?;
        self.stop.store(true, Ordering::Release);
        thread.thread().unpark();
        thread.join().ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.end());
    }
}

struct Watcher {
    sysfs: PathBuf,
    cpus: Vec<u32>,
    uses_gpu: bool,
    last: Settings,
    watched: WatchedSettings,
}

impl Watcher {
    fn new(sysfs: PathBuf, cpus: Vec<u32>, uses_gpu: bool) -> Self {
        let seen = WatchedSettings {
            looks: 0,
            cpu_ns: 0,
            lowest: Vec::new(),
            gpu_lowest: None,
            changes: Vec::new(),
            throttled: Vec::new(),
        };
        let last = read_settings(&sysfs, &cpus, None);
        let mut watcher = Self { sysfs, cpus, uses_gpu, last, watched: seen };
        watcher.record_frequencies();
        watcher.watched.looks = 1;
        watcher
    }

    fn watch(mut self, stop: &AtomicBool) -> WatchedSettings {
        let mut next_ns = monotonic_ns();
        loop {
            next_ns += u64::try_from(PERIOD.as_nanos()).unwrap_or(u64::MAX);
            while !stop.load(Ordering::Acquire) && monotonic_ns() < next_ns {
                std::thread::park_timeout(Duration::from_nanos(next_ns.saturating_sub(monotonic_ns())));
            }
            let is_last = stop.load(Ordering::Acquire);
            self.step();
            if is_last {
                self.watched.cpu_ns = current_thread_cpu_ns();
                return self.watched;
            }
        }
    }

    /// Reads the settings again and records what has changed.
    fn step(&mut self) {
        let at_ns = monotonic_ns();
        let now = read_settings(&self.sysfs, &self.cpus, Some(&self.last));
        let changes = &mut self.watched.changes;
        for SettingDifference { setting, from, to } in self.last.changes_to(&now) {
            if changes.len() < MAX_CHANGES {
                changes.push(SettingChange { at_ns, setting, from, to });
            }
        }
        self.last = now;
        self.watched.looks += 1;
        self.record_frequencies();
    }

    fn record_frequencies(&mut self) {
        let at_ns = monotonic_ns();
        for cpu in &self.cpus {
            let Some(khz) = settings::current_khz(&self.sysfs, *cpu) else { continue };
            match self.watched.lowest.iter_mut().find(|lowest| lowest.cpu == *cpu) {
                Some(lowest) if lowest.khz <= khz => {}
                Some(lowest) => *lowest = LowestFrequency { cpu: *cpu, khz, at_ns },
                None => self.watched.lowest.push(LowestFrequency { cpu: *cpu, khz, at_ns }),
            }
        }
        let known = self.watched.gpu_lowest.as_ref().map_or(u64::MAX, |lowest| lowest.hz);
        let hz = self.uses_gpu.then(|| settings::gpu_current_hz(&self.sysfs)).flatten();
        if let Some(hz) = hz.filter(|hz| *hz < known) {
            self.watched.gpu_lowest = Some(LowestClock { hz, at_ns });
        }
    }
}

/// Reads what files show; starts no program. What cannot be read, because a busy board answers too late, is taken to be as
/// it was `last`.
fn read_settings(sysfs: &Path, cpus: &[u32], last: Option<&Settings>) -> Settings {
    let online = settings::online(sysfs);
    let read = |id: &u32| {
        let mut cpu = settings::cpu(sysfs, *id, &online);
        if let Some(last) = last.and_then(|last| last.cpus.iter().find(|last| last.id == *id)) {
            // At least one CPU is online, so an empty list was not read.
            if online.is_empty() {
                cpu.online = last.online;
            }
            if cpu.online {
                cpu.governor = cpu.governor.or_else(|| last.governor.clone());
                cpu.min_khz = cpu.min_khz.or(last.min_khz);
                cpu.max_khz = cpu.max_khz.or(last.max_khz);
            }
        }
        cpu
    };
    let gpu = settings::gpu(sysfs).or(last.and_then(|last| last.gpu));
    let memory_hz = settings::memory_locked_hz(sysfs).or(last.and_then(|last| last.memory_hz));
    Settings { power_mode: None, cpus: cpus.iter().map(read).collect(), gpu, memory_hz }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_change_is_recorded_once_with_both_values() {
        let sysfs = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = sysfs.path().join("devices/system/cpu").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("online", "0-1\n");
        for cpu in 0..2 {
            write(&format!("cpu{cpu}/cpufreq/scaling_governor"), "schedutil\n");
            write(&format!("cpu{cpu}/cpufreq/scaling_min_freq"), "2000000\n");
            write(&format!("cpu{cpu}/cpufreq/scaling_max_freq"), "2000000\n");
            write(&format!("cpu{cpu}/cpufreq/scaling_cur_freq"), "2000000\n");
        }
        let mut watcher = Watcher::new(sysfs.path().to_path_buf(), vec![0, 1], false);
        watcher.step();
        assert_eq!((watcher.watched.looks, watcher.watched.changes.len()), (2, 0));
        // What does not answer in time is no change.
        let files = ["online", "cpu0/cpufreq/scaling_governor", "cpu1/cpufreq/scaling_max_freq"];
        for file in files {
            let path = sysfs.path().join("devices/system/cpu").join(file);
            let text = fs::read_to_string(&path).unwrap();
            fs::remove_file(&path).unwrap();
            watcher.step();
            write(file, &text);
        }
        watcher.step();
        assert_eq!((watcher.watched.looks, watcher.watched.changes.len()), (6, 0));
        write("cpu1/cpufreq/scaling_max_freq", "1200000\n");
        write("cpu1/cpufreq/scaling_cur_freq", "1200000\n");
        watcher.step();
        write("online", "0\n");
        watcher.step();
        watcher.step();
        let changes: Vec<String> = watcher
            .watched
            .changes
            .iter()
            .map(|change| format!("{}: {:?} to {:?}", change.setting, change.from, change.to))
            .collect();
        let expected = [
            "highest frequency of CPU 1: Some(\"2000000 kHz\") to Some(\"1200000 kHz\")",
            "CPU 1: Some(\"online\") to Some(\"offline\")",
        ];
        assert_eq!(changes, expected);
        let lowest: Vec<_> = watcher.watched.lowest.iter().map(|lowest| (lowest.cpu, lowest.khz)).collect();
        assert_eq!(lowest, [(0, 2_000_000), (1, 1_200_000)]);
    }

    #[test]
    fn the_lowest_frequency_of_the_gpu_is_kept_if_a_stage_uses_it() {
        let sysfs = tempfile::tempdir().unwrap();
        let folder = sysfs.path().join("devices/gpu.0/devfreq/17000000.gp10b");
        fs::create_dir_all(&folder).unwrap();
        let write = |file: &str, hz: u64| fs::write(folder.join(file), format!("{hz}\n")).unwrap();
        write("min_freq", 114_750_000);
        write("max_freq", 1_300_500_000);
        let lowest = |uses_gpu: bool| {
            write("cur_freq", 1_300_500_000);
            let mut watcher = Watcher::new(sysfs.path().to_path_buf(), vec![], uses_gpu);
            for hz in [854_250_000, 1_134_750_000] {
                write("cur_freq", hz);
                watcher.step();
            }
            watcher.watched.gpu_lowest.map(|lowest| lowest.hz)
        };
        assert_eq!((lowest(true), lowest(false)), (Some(854_250_000), None));
    }

    #[test]
    fn a_watch_reads_at_its_start_and_at_its_end() {
        let watch = Watch::start(Path::new("/sys"), &[0], false).unwrap();
        let watched = watch.finish().unwrap();
        assert!(watched.looks >= 2, "{watched:?}");
    }
}
