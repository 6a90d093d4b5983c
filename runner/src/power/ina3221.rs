//! INA3221 chips and the two drivers that support them.
//!
//! NVIDIA's kernel 4.9 (`JetPack` 4) has `ina3221x`, an IIO driver: a folder `iio:deviceN` for each chip below
//! `bus/i2c/drivers/ina3221x/BUS-ADDRESS`, with `rail_name_C`, `in_powerC_input` in mW, `in_voltageC_input` in mV
//! and `in_currentC_input` in mA, C from 0. Later kernels have `ina3221`, a hwmon driver: `inN_label`, `inN_input` in
//! mV, `currN_input` in mA, N from 1, and no power. Numbers of devices vary from boot to boot, so chips are found by
//! driver and I2C address, and rails by label. Inputs 4 and above of hwmon are sums, not channels.
//!
//! Chips with one channel have hwmon drivers too (`ina2xx`, `ina238`): `in1_input` in mV is the supply, `curr1_input` in mA,
//! `power1_input` in µW. They rarely have a label; the board's file names them.

use super::rail::{Files, FoundRails, Rail};
use crate::timed_read::text;
use protocol::NamedRail;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const CHANNELS: u32 = 3;
/// Label of an unused channel in device trees.
const NOT_CONNECTED: &str = "NC";

/// Finds all rails that have a name, in the board's file or else by the driver.
pub(super) fn find(root: &Path, named: &[NamedRail]) -> Result<FoundRails, String> {
    let mut chips = chips_by_iio(root);
    for chip in chips_by_hwmon(root) {
        if chip.address.is_none() || !chips.iter().any(|known| known.address == chip.address) {
            chips.push(chip);
        }
    }
    let drivers: BTreeSet<&str> = chips.iter().map(|chip| chip.driver.as_str()).collect();
    let driver = drivers.into_iter().collect::<Vec<_>>().join(", ");
    if chips.is_empty() {
        return Err(format!(
            "failed to find an INA3221 below {}: neither {} nor a hwmon device named ina3221 (or {}) exists; load the driver, \
             or set `power: none` in the board's file",
            root.display(),
            IIO_DRIVER,
            SINGLE.join(", ")
        ));
    }
    let mut rails = Vec::new();
    for chip in &chips {
        for channel in 0..chip.channels() {
            let Some((label, files)) = chip.channel(channel) else { continue };
            let given = named
                .iter()
                .find(|rail| Some(rail.address) == chip.address && rail.channel == channel)
                .map(|rail| rail.name.clone());
            let Some(name) = given.or(label) else { continue };
            rails.push(Rail::new(&name, &chip.source(channel), files));
        }
    }
    for rail in named {
        if !chips.iter().any(|chip| chip.address == Some(rail.address)) {
            let known: Vec<String> = chips
                .iter()
                .filter_map(|chip| chip.address)
                .map(|address| format!("{address:#04x}"))
                .collect();
            return Err(format!(
                "failed to find the INA3221 at address {:#04x} for the rail {}: found {}; correct `rails` in the board's file",
                rail.address,
                rail.name,
                known.join(", ")
            ));
        }
        let chip = chips.iter().find(|chip| chip.address == Some(rail.address));
        if let Some(chip) = chip.filter(|chip| rail.channel >= chip.channels()) {
            return Err(format!(
                "failed to find channel {} of the chip at address {:#04x} for the rail {}: {} has only channel 0; \
                 correct `rails` in the board's file",
                rail.channel, rail.address, rail.name, chip.driver
            ));
        }
    }
    Ok(FoundRails { driver, rails })
}

const IIO_DRIVER: &str = "bus/i2c/drivers/ina3221x";
const HWMON_DRIVER: &str = "bus/i2c/drivers/ina3221";
/// Names of chips with one channel in hwmon.
const SINGLE: [&str; 10] =
    ["ina219", "ina220", "ina226", "ina228", "ina230", "ina231", "ina234", "ina237", "ina238", "ina260"];

struct Chip {
    folder: PathBuf,
    address: Option<u32>,
    interface: Interface,
    /// The driver and its interface, for messages.
    driver: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Interface {
    Iio,
    Hwmon,
    /// A chip with one channel.
    HwmonSingle,
}

impl Chip {
    fn channels(&self) -> u32 {
        if self.interface == Interface::HwmonSingle { 1 } else { CHANNELS }
    }

    /// Label and files of a channel; `None` if the chip lacks it or nothing is connected.
    fn channel(&self, channel: u32) -> Option<(Option<String>, Files)> {
        let file = |name: String| {
            let path = self.folder.join(name);
            path.exists().then_some(path)
        };
        let (label, files) = match self.interface {
            Interface::Iio => {
                let factors = file(format!("in_voltage{channel}_input"))
                    .zip(file(format!("in_current{channel}_input")));
                let label = self.text(&format!("rail_name_{channel}"));
                let milliwatts = file(format!("in_power{channel}_input"))?;
                (label, Files::Power { milliwatts, factors })
            }
            Interface::Hwmon | Interface::HwmonSingle => {
                let number = channel + 1;
                let factors = file(format!("in{number}_input")).zip(file(format!("curr{number}_input")));
                let label = self.text(&format!("in{number}_label"));
                let files = match factors {
                    // The power registers of these chips have coarser steps than current and voltage.
                    Some((millivolts, milliamperes)) => Files::Factors { millivolts, milliamperes },
                    None if self.interface == Interface::Hwmon => return None,
                    None => Files::MicroPower { microwatts: file("power1_input".to_owned())? },
                };
                // The device tree's name for the whole chip (Linux 5.17).
                let of_chip =
                    || (self.interface == Interface::HwmonSingle).then(|| self.text("label")).flatten();
                (label.or_else(of_chip), files)
            }
        };
        (label.as_deref() != Some(NOT_CONNECTED)).then_some((label, files))
    }

    fn text(&self, name: &str) -> Option<String> {
        text(&self.folder.join(name))
    }

    fn source(&self, channel: u32) -> PathBuf {
        let current = format!("curr{}_input", channel + 1);
        self.folder.join(match self.interface {
            Interface::Iio => format!("in_power{channel}_input"),
            Interface::HwmonSingle if !self.folder.join(&current).exists() => "power1_input".to_owned(),
            Interface::Hwmon | Interface::HwmonSingle => current,
        })
    }
}

fn chips_by_iio(root: &Path) -> Vec<Chip> {
    let mut chips = Vec::new();
    for device in folders(&root.join(IIO_DRIVER)) {
        for folder in folders(&device).into_iter().filter(|folder| name_begins(folder, "iio:device")) {
            let driver = "ina3221x by iio".to_owned();
            chips.push(Chip { folder, address: address(&device), interface: Interface::Iio, driver });
        }
    }
    chips.sort_by_key(|chip| chip.address);
    chips
}

/// Chips in `class/hwmon`, and in the driver's folder if the class does not exist; each chip once.
fn chips_by_hwmon(root: &Path) -> Vec<Chip> {
    let mut candidates: Vec<(PathBuf, Option<u32>)> = folders(&root.join("class/hwmon"))
        .into_iter()
        .map(|folder| {
            let device = fs::canonicalize(folder.join("device")).ok();
            let address = device.as_deref().and_then(address);
            (folder, address)
        })
        .collect();
    for device in folders(&root.join(HWMON_DRIVER)) {
        candidates
            .extend(folders(&device.join("hwmon")).into_iter().map(|folder| (folder, address(&device))));
    }
    let mut known = BTreeSet::new();
    let mut chips = Vec::new();
    for (folder, address) in candidates {
        let name = text(&folder.join("name")).unwrap_or_default();
        let interface = match name.as_str() {
            "ina3221" => Interface::Hwmon,
            name if SINGLE.contains(&name) => Interface::HwmonSingle,
            _ => continue,
        };
        let identity = fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone());
        if known.insert(identity) {
            chips.push(Chip { folder, address, interface, driver: format!("{name} by hwmon") });
        }
    }
    chips.sort_by_key(|chip| chip.address);
    chips
}

/// The I2C address in a device's name, such as `1-0041`.
fn address(device: &Path) -> Option<u32> {
    let (_, address) = device.file_name()?.to_str()?.rsplit_once('-')?;
    u32::from_str_radix(address, 16).ok()
}

fn name_begins(path: &Path, prefix: &str) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
}

/// Folders in a folder, including links to folders, sorted by name.
fn folders(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut found: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}
