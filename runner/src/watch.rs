//! The thread that watches the board's settings while a trial runs: one look a second at a few files, on CPUs that the
//! schedule does not use where there are others. What it costs is part of the overhead.

use crate::affinity::keep_off;
use crate::clock::{monotonic_ns, thread_cpu_ns};
use crate::keeping::settings;
use protocol::{Change, Changed, LowestFrequency, Settings, Watched};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time from one look to the next.
const PERIOD: Duration = Duration::from_secs(1);
/// So many changes are kept: a setting that flaps would fill the memory.
const MOST_CHANGES: usize = 64;

/// Settings being watched. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Watched>>,
}

impl Watch {
    /// Begins to watch the CPUs of a schedule, and the GPU's clock.
    ///
    /// # Errors
    /// Where no thread can be started. The message finishes "failed to …".
    pub(crate) fn start(sysfs: &Path, cpus: &[u32]) -> Result<Self, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, sysfs, cpus) = (Arc::clone(&stop), sysfs.to_path_buf(), cpus.to_vec());
        let thread = std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || {
                keep_off(&cpus);
                Watcher::new(sysfs, cpus).watch(&flag)
            })
            .map_err(|error| format!("failed to start the thread that watches the board's state: {error}"))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Looks a last time and tells what was seen.
    pub(crate) fn finish(mut self) -> Option<Watched> {
        self.end()
    }

    fn end(&mut self) -> Option<Watched> {
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
    last: Settings,
    watched: Watched,
}

impl Watcher {
    /// Takes the first look.
    fn new(sysfs: PathBuf, cpus: Vec<u32>) -> Self {
        let seen =
            Watched { looks: 0, cpu_ns: 0, lowest: Vec::new(), changes: Vec::new(), throttled: Vec::new() };
        let last = look(&sysfs, &cpus);
        let mut watcher = Self { sysfs, cpus, last, watched: seen };
        watcher.frequencies();
        watcher.watched.looks = 1;
        watcher
    }

    fn watch(mut self, stop: &AtomicBool) -> Watched {
        let mut next_ns = monotonic_ns();
        loop {
            next_ns += u64::try_from(PERIOD.as_nanos()).unwrap_or(u64::MAX);
            while !stop.load(Ordering::Acquire) && monotonic_ns() < next_ns {
                std::thread::park_timeout(Duration::from_nanos(next_ns.saturating_sub(monotonic_ns())));
            }
            let is_last = stop.load(Ordering::Acquire);
            self.step();
            if is_last {
                self.watched.cpu_ns = thread_cpu_ns();
                return self.watched;
            }
        }
    }

    /// Takes another look, and notes what is not as at the last one.
    fn step(&mut self) {
        let at_ns = monotonic_ns();
        let now = look(&self.sysfs, &self.cpus);
        let changes = &mut self.watched.changes;
        for Changed { setting, from, to } in self.last.changes_to(&now) {
            if changes.len() < MOST_CHANGES {
                changes.push(Change { at_ns, setting, from, to });
            }
        }
        self.last = now;
        self.watched.looks += 1;
        self.frequencies();
    }

    fn frequencies(&mut self) {
        let at_ns = monotonic_ns();
        for cpu in &self.cpus {
            let Some(khz) = settings::current_khz(&self.sysfs, *cpu) else { continue };
            match self.watched.lowest.iter_mut().find(|lowest| lowest.cpu == *cpu) {
                Some(lowest) if lowest.khz <= khz => {}
                Some(lowest) => *lowest = LowestFrequency { cpu: *cpu, khz, at_ns },
                None => self.watched.lowest.push(LowestFrequency { cpu: *cpu, khz, at_ns }),
            }
        }
    }
}

/// What costs little: no program is started for it.
fn look(sysfs: &Path, cpus: &[u32]) -> Settings {
    let online = settings::online(sysfs);
    Settings {
        power_mode: None,
        cpus: cpus.iter().map(|cpu| settings::cpu(sysfs, *cpu, &online)).collect(),
        gpu: settings::gpu(sysfs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_changes_is_told_once_with_both_values() {
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
        let mut watcher = Watcher::new(sysfs.path().to_path_buf(), vec![0, 1]);
        watcher.step();
        assert_eq!((watcher.watched.looks, watcher.watched.changes.len()), (2, 0));
        write("cpu1/cpufreq/scaling_max_freq", "1200000\n");
        write("cpu1/cpufreq/scaling_cur_freq", "1200000\n");
        watcher.step();
        write("online", "0\n");
        watcher.step();
        watcher.step();
        let told: Vec<String> = watcher
            .watched
            .changes
            .iter()
            .map(|change| format!("{}: {:?} to {:?}", change.setting, change.from, change.to))
            .collect();
        let expected = [
            "highest frequency of CPU 1: Some(\"2000000 kHz\") to Some(\"1200000 kHz\")",
            "CPU 1: Some(\"online\") to Some(\"offline\")",
        ];
        assert_eq!(told, expected);
        let lowest: Vec<_> = watcher.watched.lowest.iter().map(|lowest| (lowest.cpu, lowest.khz)).collect();
        assert_eq!(lowest, [(0, 2_000_000), (1, 1_200_000)]);
    }

    #[test]
    fn a_watch_ends_with_a_last_look() {
        let watch = Watch::start(Path::new("/sys"), &[0]).unwrap();
        let watched = watch.finish().unwrap();
        assert!(watched.looks >= 2, "{watched:?}");
    }
}
