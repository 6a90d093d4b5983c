//! A power meter beside a real trial: the files of a kernel driver, played from a known load, read by the real
//! runner, and made to energy by the analysis that reports use.

#![expect(clippy::unwrap_used, reason = "a test panics if its assumptions fail")]

mod support;

use domain::energy::Trace;
use domain::{Absence, Energy, Nanoseconds};
use protocol::{Event, ExecutionMode, Idle, Measured, Meter, MeterKind, NamedRail, Power, Request};
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use support::{Runner, repeated, stages, trial};

/// Time from one conversion of the played meter to the next.
const REFRESH: Duration = Duration::from_millis(100);
/// Supply of the rail, in V.
const SUPPLY: f64 = 19.0;

fn now() -> f64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Energy of the played load from 0 to a time of the monotonic clock, in mJ: the integral of 6000 + 1500 sin(t / 1.3) +
/// 400 sin(2.1 t) mW, slow waves without a relation to the trial.
fn millijoules(time: f64) -> f64 {
    6000.0 * time - 1500.0 * 1.3 * (time / 1.3).cos() - 400.0 / 2.1 * (time * 2.1).cos()
}

/// Which driver's files are played.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    Iio,
    Hwmon,
}

/// Plays the meter until dropped.
struct Player {
    root: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    /// When each conversion ended, on the monotonic clock.
    ended: Arc<Mutex<Vec<f64>>>,
    thread: Option<JoinHandle<()>>,
}

impl Player {
    fn start(layout: Layout) -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = match layout {
            Layout::Iio => root.path().join("bus/i2c/drivers/ina3221x/0-0041/iio:device2"),
            Layout::Hwmon => root.path().join("bus/i2c/drivers/ina3221/1-0041/hwmon/hwmon5"),
        };
        fs::create_dir_all(&folder).unwrap();
        match layout {
            Layout::Iio => show(&folder.join("rail_name_0"), "VDD_IN"),
            Layout::Hwmon => show(&folder.join("name"), "ina3221"),
        }
        let stop = Arc::new(AtomicBool::new(false));
        convert(&folder, layout, now() - REFRESH.as_secs_f64(), now());
        let ended = Arc::new(Mutex::new(Vec::new()));
        let (flag, own) = (Arc::clone(&stop), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            let mut before = now();
            while !flag.load(Ordering::Acquire) {
                std::thread::sleep(REFRESH);
                let after = now();
                convert(&folder, layout, before, after);
                own.lock().unwrap().push(now());
                before = after;
            }
        });
        Self { root, stop, ended, thread: Some(thread) }
    }

    /// The longest time from one conversion to the next, around a window, in s: other load may stop the player.
    fn longest(&self, measured: &Measured) -> f64 {
        let begin = measured.window.opened_monotonic_ns as f64 / 1e9;
        let end = begin + *measured.window.completed_ns.last().unwrap() as f64 / 1e9;
        let ended = self.ended.lock().unwrap();
        let pairs = ended.windows(2).filter(|pair| pair[1] > begin - 1.0 && pair[0] < end);
        pairs.map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
    }

    fn meter(&self, layout: Layout) -> Meter {
        // Of the two, only NVIDIA's driver gives a label here; the other rail is named by its place.
        let named = NamedRail { name: "VDD_IN".to_owned(), address: 0x41, channel: 0 };
        let rails = if layout == Layout::Hwmon { vec![named] } else { Vec::new() };
        Meter {
            kind: MeterKind::Ina3221 { rails },
            root: self.root.path().display().to_string(),
            total: vec!["VDD_IN".to_owned()],
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Shows the mean from `before` to `after`, rounded as the chip's registers are.
fn convert(folder: &Path, layout: Layout, before: f64, after: f64) {
    let mean = (millijoules(after) - millijoules(before)) / (after - before);
    let amperes = (mean / SUPPLY / 4.0).round() * 4.0;
    let volts = 1000.0 * SUPPLY;
    let file = |name: &str| folder.join(name);
    match layout {
        Layout::Iio => {
            show(&file("in_voltage0_input"), &volts.to_string());
            show(&file("in_current0_input"), &amperes.to_string());
            show(&file("in_power0_input"), &(volts * amperes / 1000.0).round().to_string());
        }
        Layout::Hwmon => {
            show(&file("in1_input"), &volts.to_string());
            show(&file("curr1_input"), &amperes.to_string());
        }
    }
}

/// Puts a file in place at once, as sysfs never shows half a number; nowhere while the chip is gone.
fn show(path: &Path, text: &str) {
    let fresh = PathBuf::from(format!("{}.new", path.display()));
    let shown = fs::write(&fresh, format!("{text}\n")).and_then(|()| fs::rename(fresh, path));
    assert!(shown.is_ok() || !path.parent().unwrap().exists(), "{shown:?}");
}

/// Energy of the window, and what the load drew in it, in mJ.
fn energy(measured: &Measured) -> (Energy, f64) {
    let Some(Power::Read(readings)) = &measured.power else { panic!("{:?}", measured.power) };
    let rail = &readings.rails[0];
    assert_eq!((rail.name.as_str(), &rail.errors[..]), ("VDD_IN", &[][..]));
    let opened = measured.window.opened_monotonic_ns;
    let length = *measured.window.completed_ns.last().unwrap();
    let begin = opened as f64 / 1e9;
    let truth = millijoules(begin + length as f64 / 1e9) - millijoules(begin);
    (measured_energy(measured), truth)
}

/// Energy of the window.
fn measured_energy(measured: &Measured) -> Energy {
    let Some(Power::Read(readings)) = &measured.power else { panic!("{:?}", measured.power) };
    let rail = &readings.rails[0];
    let opened = measured.window.opened_monotonic_ns;
    let length = *measured.window.completed_ns.last().unwrap();
    let at = |(begun, took): (&u64, &u64)| (begun + took / 2).cast_signed() - opened.cast_signed();
    let at_ns: Vec<i64> = rail.begun_ns.iter().zip(&rail.took_ns).map(at).collect();
    assert!(
        at_ns[0] < 0 && *at_ns.last().unwrap() >= length.cast_signed(),
        "from before the window to after"
    );
    let power = (!rail.milliwatts.is_empty()).then_some(rail.milliwatts.as_slice());
    let trace = Trace::of_factors(&rail.name, &at_ns, &rail.millivolts, &rail.milliamperes, power).unwrap();
    Energy::of_window(std::slice::from_ref(&trace), &[], Nanoseconds(length), &BTreeMap::new())
}

fn agrees(layout: Layout) {
    let player = Player::start(layout);
    let mut runner = Runner::start();
    let mut trial = trial(stages().schedule(ExecutionMode::Single, &[("net", &[support::cpus()[0]])]));
    trial.power = Some(player.meter(layout));
    trial.warm_up.min_ns = 1_000_000_000;
    trial.warm_up.max_ns = 2_000_000_000;
    trial.measure.min_ns = 4_000_000_000;
    // A machine with much else to do may stop the player or the reader for longer than can be bridged; then the energy
    // is withheld, which is right.
    repeated(|| {
        let measured = runner.measure(&trial);
        let (energy, truth) = energy(&measured);
        let longest = player.longest(&measured);
        let Some(drawn) = energy.drawn() else { return Err(format!("no energy: {energy:?}")) };
        if longest > 3.0 * REFRESH.as_secs_f64() {
            return Err(format!("the meter showed nothing new for {longest} s"));
        }
        let error = drawn.energy.0 / truth - 1.0;
        assert!(error.abs() < 0.03, "{layout:?}: off by {:.2} %: {drawn:?}", 100.0 * error);
        Ok(())
    });
}

#[test]
fn energy_agrees_with_the_load_by_jetpack_4s_driver() {
    agrees(Layout::Iio);
}

#[test]
fn energy_agrees_with_the_load_by_hwmon() {
    agrees(Layout::Hwmon);
}

#[test]
fn idle_power_is_read_and_a_missing_meter_is_an_error() {
    let player = Player::start(Layout::Iio);
    let mut runner = Runner::start();
    let idle = |meter| Request::Idle(Idle { id: 7, meter, duration_ns: 300_000_000 });
    repeated(|| match runner.ask(&idle(player.meter(Layout::Iio))) {
        Event::Idled(idled) => {
            assert!(idled.id == 7 && idled.duration_ns >= 300_000_000);
            let readings = idled.readings.rails[0].begun_ns.len();
            if readings > 2 {
                Ok(())
            } else {
                Err(format!("{readings} readings in {} ns", idled.duration_ns))
            }
        }
        other => panic!("idle power was not read: {other:?}"),
    });
    let mut wrong = player.meter(Layout::Iio);
    wrong.total = vec!["VIN".to_owned()];
    let (fault, message) = runner.fails(&idle(wrong));
    assert_eq!(fault, protocol::Fault::Meter);
    assert!(message.contains("found VDD_IN; correct `total`"), "{message}");
}

/// Makes every read of a sensor's file fail as a busy bus does, for as long as a file called `busy` lies in the folder
/// that the environment names. No file system shows this error on demand.
const BUSY_BUS: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
ssize_t read(int fd, void *buffer, size_t count) {
  const char *folder = getenv("EDGEPIPE_TEST_BUS");
  char flag[4096], link[64], path[4096];
  snprintf(flag, sizeof flag, "%s/busy", folder ? folder : "");
  if (folder && access(flag, F_OK) == 0) {
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    if (length > 6 && memcmp(path + length - 6, "_input", 6) == 0) {
      errno = EAGAIN;
      return -1;
    }
  }
  return syscall(SYS_read, fd, buffer, count);
}
"#;

/// Needs `cc`, as building the runner does.
fn library_of_a_busy_bus(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("bus.c"), folder.join("bus.so"));
    fs::write(&source, BUSY_BUS).unwrap();
    let output = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// Runs a trial whose meter fails in the middle of the window, for so long. On a machine in use, the fault may come before or after
/// the window; then the trial is repeated.
fn failing(runner: &mut Runner, player: &Player, length: Duration, fail: impl Fn(bool)) -> Measured {
    let mut trial = trial(stages().schedule(ExecutionMode::Single, &[("net", &[support::cpus()[0]])]));
    trial.power = Some(player.meter(Layout::Hwmon));
    trial.measure.min_ns = 4_000_000_000;
    repeated(|| {
        runner.send(&Request::Trial(trial.clone()));
        while !matches!(runner.event(), Event::Phase { phase: protocol::Phase::WarmUp, .. }) {}
        std::thread::sleep(Duration::from_secs(2));
        fail(true);
        let begun = now();
        std::thread::sleep(length);
        let ended = now();
        fail(false);
        let measured = match runner.event() {
            Event::Measured(measured) => *measured,
            other => panic!("the trial failed: {other:?}"),
        };
        let opened = measured.window.opened_monotonic_ns as f64 / 1e9;
        let closed = opened + *measured.window.completed_ns.last().unwrap() as f64 / 1e9;
        // From well after the begin until well before the end.
        if opened + 0.2 < begun && ended + 0.2 < closed {
            Ok(measured)
        } else {
            Err(format!("a fault from {begun} to {ended} s, a window from {opened} to {closed} s"))
        }
    })
}

#[test]
fn a_meter_that_fails_in_the_window_costs_the_energy_and_not_the_trial() {
    let player = Player::start(Layout::Hwmon);
    let bus = tempfile::tempdir().unwrap();
    let library = library_of_a_busy_bus(bus.path());
    let mut runner = Runner::start_with(|command| {
        command.env("LD_PRELOAD", library).env("EDGEPIPE_TEST_BUS", bus.path());
    });
    let device = player.root.path().join("bus/i2c/drivers/ina3221/1-0041");
    let (there, gone) = (device.join("hwmon"), device.join("gone"));
    let vanish = |fails: bool| {
        let (from, to) = if fails { (&there, &gone) } else { (&gone, &there) };
        fs::rename(from, to).unwrap();
    };
    let flag = bus.path().join("busy");
    let busy =
        |fails: bool| if fails { fs::write(&flag, "").unwrap() } else { fs::remove_file(&flag).unwrap() };
    let faults: [(&dyn Fn(bool), &str); 2] =
        [(&vanish, "No such file or directory"), (&busy, "Resource temporarily unavailable")];
    for (fail, expected) in faults {
        let measured = failing(&mut runner, &player, Duration::from_millis(1500), fail);
        assert!(!measured.window.completed_ns.is_empty(), "the frames are all there");
        let Some(Power::Read(readings)) = &measured.power else { panic!("{:?}", measured.power) };
        let rail = &readings.rails[0];
        let errors = rail.errors.iter().filter(|error| error.message.contains(expected));
        assert!(errors.map(|error| error.count).sum::<u64>() > 1, "{:?}", rail.errors);
        let absence = measured_energy(&measured).absent_reason().cloned();
        assert!(matches!(absence, Some(Absence::Gap { .. })), "{absence:?}");
        // It is read again once it is back: the last readings come from after the window.
        let closed = measured.window.opened_monotonic_ns + measured.window.completed_ns.last().unwrap();
        assert!(*rail.begun_ns.last().unwrap() >= closed, "{rail:?}");
    }
}

#[test]
fn a_trial_goes_on_without_its_meter_and_says_why() {
    let root = tempfile::tempdir().unwrap();
    let mut trial = trial(stages().schedule(ExecutionMode::Single, &[("net", &[support::cpus()[0]])]));
    let kind = MeterKind::Ina3221 { rails: Vec::new() };
    let root = root.path().display().to_string();
    trial.power = Some(Meter { kind, root, total: vec!["VDD_IN".to_owned()] });
    match Runner::start().measure(&trial).power {
        Some(Power::Unreadable { message }) => {
            assert!(message.starts_with("failed to find an INA3221 below"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}
