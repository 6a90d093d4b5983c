//! The clock of a Jetson's memory controller (EMC), as its boot processor (BPMP) shows it in debugfs: on TX2 with L4T 32, and
//! on Xavier and Orin. Locked, it keeps one rate; otherwise the kernel chooses one by the load.

use super::programs::{self, DryRun, Privileged, QUERY_TIMEOUT};
use crate::timed_read::{self, text};
use protocol::{MemoryClock, SavedMemoryClock};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const FOLDER: &str = "kernel/debug/bpmp/debug/clk/emc";
/// The rates, in kHz.
const RATES: &str = "kernel/debug/bpmp/debug/emc/possible_rates";
/// The limit of the power mode in Hz, since L4T 34 and before; 0 is no limit.
const CAPS: [&str; 2] = ["kernel/nvpmodel_clk_cap/emc", "kernel/nvpmodel_emc_cap/emc_iso_cap"];
/// Files of [`FOLDER`]: with one number each.
const NUMBERS: [&str; 4] = ["min_rate", "max_rate", "rate", "mrq_rate_locked"];
/// Files of [`FOLDER`] that lock a rate.
const LOCK: [&str; 2] = ["mrq_rate_locked", "rate"];

/// What the files show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    min_hz: u64,
    max_hz: u64,
    rate_hz: u64,
    is_locked: bool,
    /// Empty if the board does not list its rates.
    rates_khz: Vec<u64>,
}

impl Reading {
    pub(super) fn locked_hz(&self) -> Option<u64> {
        self.is_locked.then_some(self.rate_hz)
    }

    pub(super) fn saved(&self) -> SavedMemoryClock {
        SavedMemoryClock { rate_hz: self.rate_hz, is_locked: self.is_locked }
    }
}

fn files(sysfs: &Path) -> Vec<PathBuf> {
    NUMBERS.iter().map(|name| sysfs.join(FOLDER).join(name)).chain([sysfs.join(RATES)]).collect()
}

/// Whether only root may see the files.
fn is_hidden(sysfs: &Path) -> bool {
    let path = sysfs.join(FOLDER).join(NUMBERS[0]);
    timed_read::read(&path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// Reads the files, as root if they are hidden from users.
///
/// # Errors
/// If there are none, or they cannot be read. The message is a clause.
pub(super) fn read(sysfs: &Path) -> Result<Reading, String> {
    let files = files(sysfs);
    if !is_hidden(sysfs) {
        return visible(sysfs).ok_or_else(|| {
            format!(
                "the board's kernel offers no control of the memory clock ({} cannot be read)",
                files[2].display()
            )
        });
    }
    let cat = read_command(&files);
    let arguments: Vec<&str> = cat.arguments.iter().map(String::as_str).collect();
    // Without a list of rates, it fails after it has printed the rest.
    let finished = programs::run_as_root(&cat.program, &arguments, QUERY_TIMEOUT)?;
    let mut lines = finished.stdout.lines();
    let numbers: Vec<&str> = lines.by_ref().take(NUMBERS.len()).collect();
    if let Some(reading) = parse(&numbers, lines.next()) {
        return Ok(reading);
    }
    let program = cat.program.display().to_string();
    programs::check_root(&[cat])?;
    Err(format!(
        "the board's kernel offers no control of the memory clock: {program} {} {}",
        files[2].display(),
        finished.describe()
    ))
}

/// Reads the files without becoming root; `None` if that is not possible.
pub(super) fn visible(sysfs: &Path) -> Option<Reading> {
    let files = files(sysfs);
    let numbers: Vec<String> = files[..NUMBERS.len()].iter().filter_map(|file| text(file)).collect();
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    parse(&numbers, text(&files[NUMBERS.len()]).as_deref())
}

/// Parses the contents of [`NUMBERS`], and a list of rates such as `204000 665600 2133000 (kHz)`.
fn parse(numbers: &[&str], rates: Option<&str>) -> Option<Reading> {
    let numbers: Option<Vec<u64>> = numbers.iter().map(|number| number.trim().parse().ok()).collect();
    let [min_hz, max_hz, rate_hz, locked] = numbers?[..] else { return None };
    let words = rates.unwrap_or_default().split_whitespace();
    let rates_khz = words.filter_map(|word| word.parse().ok()).collect();
    Some(Reading { min_hz, max_hz, rate_hz, is_locked: locked != 0, rates_khz })
}

/// What the board offers in its present power mode. A board that does not list its rates offers its lowest and its highest one.
///
/// # Errors
/// As [`read`].
pub(super) fn offered(sysfs: &Path) -> Result<MemoryClock, String> {
    let found = read(sysfs)?;
    let caps = CAPS.iter().filter_map(|file| text(&sysfs.join(file))?.parse::<u64>().ok());
    let max_hz = caps.filter(|hz| *hz > 0).fold(found.max_hz, u64::min);
    let ends = [found.min_hz, found.max_hz];
    let listed = found.rates_khz.iter().map(|khz| khz * 1000).filter(|hz| (ends[0]..=ends[1]).contains(hz));
    let mut steps_hz: Vec<u64> = listed.collect();
    if steps_hz.is_empty() {
        steps_hz.extend(ends);
    }
    steps_hz.sort_unstable();
    steps_hz.dedup();
    Ok(MemoryClock { steps_hz, max_hz, locked_hz: found.locked_hz() })
}

/// Whether a rate is the wanted one: lists of rates are rounded.
pub(super) fn is_rate(hz: u64, wanted: u64) -> bool {
    hz.abs_diff(wanted) <= wanted / 200
}

/// Locks the clock at a rate, or brings it to a saved state.
pub(super) fn set(sysfs: &Path, wanted: SavedMemoryClock) -> Result<(), String> {
    let folder = sysfs.join(FOLDER);
    let write = |name: &str, value: u64| programs::write(&folder.join(name), &value.to_string());
    write("mrq_rate_locked", 1)?;
    write("rate", wanted.rate_hz)?;
    if wanted.is_locked { Ok(()) } else { write("mrq_rate_locked", 0) }
}

/// The commands as root by which [`set`] writes, without permission for it as a user.
pub(super) fn write_commands(sysfs: &Path, now: &Reading) -> Vec<Privileged> {
    let file = |name: &str| sysfs.join(FOLDER).join(name);
    let unwritable = LOCK.into_iter().zip([u64::from(now.is_locked), now.rate_hz]);
    unwritable
        .filter(|(name, _)| !programs::is_writable(&file(name)))
        .map(|(name, value)| {
            let mut command = programs::write_command(&file(name));
            command.dry_run.input = value.to_string();
            command
        })
        .collect()
}

fn read_command(files: &[PathBuf]) -> Privileged {
    let program = programs::find("cat").unwrap_or_else(|| PathBuf::from("/usr/bin/cat"));
    let arguments: Vec<String> = files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
    let dry_run = DryRun { arguments: arguments.clone(), input: String::new() };
    Privileged { program, arguments, any_arguments: false, dry_run }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn board(files: &[(&str, &str)]) -> tempfile::TempDir {
        let sysfs = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = sysfs.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        sysfs
    }

    const CLOCK: [(&str, &str); 4] = [
        ("kernel/debug/bpmp/debug/clk/emc/min_rate", "204000000"),
        ("kernel/debug/bpmp/debug/clk/emc/max_rate", "2133000000"),
        ("kernel/debug/bpmp/debug/clk/emc/rate", "665600000"),
        ("kernel/debug/bpmp/debug/clk/emc/mrq_rate_locked", "1"),
    ];

    #[test]
    fn the_board_lists_its_rates() {
        let check = |more: &[(&str, &str)], steps_hz: &[u64], max_hz: u64| {
            let sysfs = board(&[&CLOCK, more].concat());
            let expected = MemoryClock { steps_hz: steps_hz.to_vec(), max_hz, locked_hz: Some(665_600_000) };
            assert_eq!(offered(sysfs.path()), Ok(expected));
        };
        let rates = (RATES, "665600 204000 2133000 3199000 (kHz)");
        let steps = [204_000_000, 665_600_000, 2_133_000_000];
        check(&[rates], &steps, 2_133_000_000);
        check(&[rates, (CAPS[1], "1331200000")], &steps, 1_331_200_000);
        check(&[rates, (CAPS[1], "0")], &steps, 2_133_000_000);
        check(&[(CAPS[0], "665600000")], &[204_000_000, 2_133_000_000], 665_600_000);
    }

    #[test]
    fn a_board_without_the_files_offers_no_control() {
        let message = offered(board(&CLOCK[..3]).path()).unwrap_err();
        assert!(message.starts_with("the board's kernel offers no control of the memory clock"), "{message}");
        assert!(read(board(&[]).path()).is_err());
    }

    #[test]
    fn a_locked_clock_is_told_from_one_that_follows_the_load() {
        let sysfs = board(&CLOCK);
        let unlocked = SavedMemoryClock { rate_hz: 2_133_000_000, is_locked: false };
        assert_eq!(visible(sysfs.path()).unwrap().locked_hz(), Some(665_600_000));
        set(sysfs.path(), unlocked).unwrap();
        assert_eq!(read(sysfs.path()).unwrap().saved(), unlocked);
        assert_eq!(read(sysfs.path()).unwrap().locked_hz(), None);
        assert!(is_rate(1_866_000_000, 1_866_000_000) && is_rate(1_865_999_999, 1_866_000_000));
        assert!(!is_rate(1_600_000_000, 1_866_000_000));
    }
}
